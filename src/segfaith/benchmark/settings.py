"""The settings file (TOML): every key with its default, ranges checked, unknown keys refused (SPEC section 5)."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segfaith.attribution.methods import DEFAULT_METHODS, METHODS
from segfaith.errors import SettingsError
from segfaith.evaluation.ranking import Ties
from segfaith.lookup import lookup, nearest
from segfaith.models.adapters import with_absolute_path
from segfaith.models.segmentation import Head
from segfaith.occlusion import OPERATORS
from segfaith.targets import TargetSource

Triple = tuple[float, float, float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)


class DataSettings(_Section):
    """Which samples: a data set, its split, and the drawn or named ids; `classes` names a folder's classes."""

    name: str = "voc2012"
    root: str | None = None
    split: str = "val"
    size: Literal["native"] | int = 224
    n: int | None = Field(default=None, ge=1)
    ids: list[str] | None = Field(default=None, min_length=1)
    download: bool = False
    classes: Literal["voc"] | list[str] | str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.n is not None and self.ids is not None:
            raise ValueError("give n or ids, not both (settings that name ids take no -n; use --set 'data.ids=[...]')")
        if self.size != "native" and self.size < 1:
            raise ValueError(f"size must be 'native' or at least 1, got {self.size}")
        return self


class ModelSettings(_Section):
    """Which model: see `load_model`."""

    name: str
    args: dict[str, Any] = {}
    weights: str | None = None
    layer: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    classes: Literal["voc"] | list[str] | str | None = None
    head: Head | None = None


class TargetSettings(_Section):
    """What is explained: the dominant class of the ground truth or of the prediction, or a named class of either."""

    source: TargetSource = "ground_truth"
    class_name: str | int | None = Field(default=None, alias="class")


class MethodSettings(_Section):
    """Which methods, how tables and figures call them (`labels`, by name), and parameters by method name."""

    names: list[str] = Field(default=list(DEFAULT_METHODS), min_length=1)
    labels: dict[str, str] = {}
    gpa: dict[str, Any] = {}
    ega: dict[str, Any] = {}
    ria: dict[str, Any] = {}
    dea: dict[str, Any] = {}
    random_cells: dict[str, Any] = {}

    def tables(self) -> dict[str, dict[str, Any]]:
        """Parameters by method name."""
        return {name: table for name in METHODS if (table := getattr(self, name, None))}

    @field_validator("labels", mode="after")
    @classmethod
    def _plain(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, label in labels.items():
            if not label.strip() or not label.isprintable():
                raise ValueError(f"the label of method {name!r} must be text of one line that is not empty")
        return labels


class EvaluationSettings(_Section):
    """How maps are scored. The first operator and the first k fill the records; all go to `curves/`.

    `curves`: "all" combinations of operator and k, or "each" operator at the first k and each k at the first operator.
    """

    k: float | list[float] = 0.2
    occlusion: list[str] = ["mean"]
    curves: Literal["all", "each"] = "all"
    leakage: Literal["plain", "detailed"] = "plain"
    stability: bool | int = True
    strength: float = Field(default=0.03, ge=0)
    ties: Ties = "cell"
    ignore: Literal["include", "exclude"] = "include"

    @property
    def fractions(self) -> list[float]:
        """All k, the records' first."""
        return list(self.k) if isinstance(self.k, list) else [self.k]

    @property
    def pairs(self) -> list[tuple[str, float]]:
        """Every operator with the k at which it is used, the records' first."""
        first, rest = self.occlusion[0], self.occlusion[1:]
        if self.curves == "each":
            return [(first, k) for k in self.fractions] + [(operator, self.fractions[0]) for operator in rest]
        return [(operator, k) for operator in self.occlusion for k in self.fractions]

    @field_validator("occlusion", "k", mode="after")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError(f"expected at least one value and none twice, got {value}")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> "EvaluationSettings":
        for k in self.fractions:
            if not 0 < k <= 1:
                raise ValueError(f"k must be above 0 and at most 1, got {k}")
        for name in self.occlusion:
            lookup("occlusion operator", name, OPERATORS)
        if self.stability is not True and self.stability < 0:
            raise ValueError(f"stability must be true, false or a number of samples, got {self.stability}")
        return self


class OutputSettings(_Section):
    """What is kept beside the records."""

    maps: bool = False


class ExecutionSettings(_Section):
    """How the work is done; none of it changes results beyond 1e-5."""

    device: str = "auto"
    batch_size: int = Field(default=16, ge=1)
    shard_size: int = Field(default=8, ge=1)
    threads: int | None = Field(default=None, ge=1)
    incremental: bool = True
    compile: bool = False


class Settings(_Section):
    """A run: (data set, model, seed, settings)."""

    name: str = "run"
    seed: int = Field(default=0, ge=0)
    data: DataSettings = DataSettings()
    model: ModelSettings
    target: TargetSettings = TargetSettings()
    methods: MethodSettings = MethodSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    output: OutputSettings = OutputSettings()
    execution: ExecutionSettings = ExecutionSettings()


PACKAGED = Path(__file__).parent / "packaged"
"""Settings files that come with segfaith; `segfaith run NAME` takes them by name."""


def find_settings(name: str) -> Path:
    """The settings file that a name on the command line stands for: a file, or else one of the packaged ones.

    Raises:
        SettingsError: neither; the message lists the packaged names.
    """
    path, packaged = Path(name), PACKAGED / f"{name}.toml"
    if path.is_file() or not packaged.is_file() or len(path.parts) != 1:
        if path.suffix or path.exists():
            return path
        names = ", ".join(sorted(one.stem for one in PACKAGED.glob("*.toml")))
        raise SettingsError(f"no settings file {name!r}; give a TOML file or one of the packaged settings: {names}")
    return packaged


def read_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Reads a settings file; relative paths in it are relative to the file.

    Args:
        overrides: `key.path=VALUE`, VALUE in TOML or a bare word; relative paths here are relative to the working
            folder.

    Raises:
        SettingsError: no such file, no TOML, an unknown key, or a value out of range, with the key and the remedy.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"no settings file {path} ({error.strerror}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    anchor(content, path.resolve().parent)
    override(content, overrides)
    return make_settings(content, str(path))


def override(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Changes a dictionary of settings, in place, by `key.path=VALUE`; see `read_settings`.

    Raises:
        SettingsError: no `=`, or a table where a value was given.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {text!r}: expected KEY=VALUE, as in data.n=20")
        table = _nested(key.strip().split("."), _toml_value(value))
        anchor(table, Path.cwd())
        _merge(content, table, key)


def make_settings(content: Mapping[str, Any], source: str = "settings") -> Settings:
    """Checks a dictionary of settings.

    Raises:
        SettingsError: unknown key or a value of the wrong type or range.
    """
    try:
        return Settings.model_validate(dict(content))
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise SettingsError(f"{source}: " + "; ".join(dict.fromkeys(lines))) from error


def _explain(item: Any) -> str:
    place = [str(part) for part in item["loc"]]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        close = nearest(place[-1], known, 1)
        return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")
    if item["type"] == "missing":
        return f"missing key {key!r}"
    return f"{key or 'settings'} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"


def _keys(place: Sequence[str]) -> list[str]:
    section: Any = Settings
    for part in place:
        section = section.model_fields[part].annotation
    return [field.alias or name for name, field in section.model_fields.items()]


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def _merge(content: dict[str, Any], update: dict[str, Any], key: str) -> None:
    for name, value in update.items():
        if isinstance(value, dict) and isinstance(content.get(name, {}), dict):
            _merge(content.setdefault(name, {}), value, key)
        elif isinstance(content.get(name), dict):
            raise SettingsError(f"--set {key}: {name} is a table; name one of its keys, as in {key}.KEY=VALUE")
        else:
            content[name] = value


def anchor(content: dict[str, Any], base: Path) -> None:
    """Makes the relative paths of a settings dictionary absolute, in place: relative to `base`."""

    def absolute(text: str) -> str:
        return _absolute(text, base)

    data, model, methods = (
        table if isinstance(table := content.get(key), dict) else {} for key in ("data", "model", "methods")
    )
    if isinstance(data.get("root"), str):
        data["root"] = absolute(data["root"])
    for table in (data, model):
        if isinstance(table.get("classes"), str) and table["classes"] != "voc":
            table["classes"] = absolute(table["classes"])
    if isinstance(model.get("weights"), str) and model["weights"] != "random":
        model["weights"] = absolute(model["weights"])
    if isinstance(model.get("name"), str):
        model["name"] = anchored(with_absolute_path(model["name"], base), base)
    if isinstance(methods.get("names"), list):
        methods["names"] = [
            name
            if not isinstance(name, str)
            else f"maps:{absolute(name.removeprefix('maps:'))}"
            if name.startswith("maps:")
            else anchored(name, base)
            for name in methods["names"]
        ]


def anchored(name: str, base: Path) -> str:
    """The name of a model or method, the path of `path/to/file.py:function` made absolute: relative to `base`."""
    place, colon, function = name.rpartition(":")
    return f"{_absolute(place, base)}:{function}" if colon and place.endswith(".py") else name


def record_name(name: str) -> str:
    """The name by which records call a method of `names`: without folders, as in `my_method.py:explain`, `maps:DIR`."""
    if name.startswith("maps:"):
        return f"maps:{Path(name.removeprefix('maps:')).name}"
    place, _, function = name.rpartition(":")
    return f"{Path(place).name}:{function}" if place.endswith(".py") else name


def _absolute(text: str, base: Path) -> str:
    return str((base / Path(text).expanduser()).resolve())
