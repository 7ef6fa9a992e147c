"""Suites: several runs, models x seeds and what else a file names, that are planned, run and resumed together.

A suite file is a settings file with `seeds` in place of `seed` and `[[models]]` in place of (or on top of) `[model]`;
each `[[runs]]` adds runs with sections of their own (docs/suites.md). The paper's suites, SPEC section 4, are packaged.
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from segfaith.attribution.methods import DEFAULT_METHODS
from segfaith.benchmark.setting_tables import ModelSettings, Settings, folder_name
from segfaith.benchmark.settings import PACKAGED, anchor, make_settings, override, read_toml, record_name
from segfaith.errors import SettingsError
from segfaith.lookup import lookup, nearest
from segfaith.models import MODELS

SUITES = PACKAGED / "suites"
"""Suites that come with segfaith; `segfaith suite NAME` takes them by name."""

SECTIONS = tuple(name for name in Settings.model_fields if name not in ("name", "seed"))
FIXED = ("name", "seed", "model.name")
"""Settings that make a run the one that it is in its suite: `--set` leaves them alone."""
WEIGHT_ENDINGS = (".pth", ".pt", ".safetensors")

Table = dict[str, Any]
Name = Annotated[str, AfterValidator(folder_name)]
Seeds = list[Annotated[int, Field(ge=0, strict=True)]]
Part = TypeVar("Part", bound=BaseModel)


class _Sections(BaseModel):
    """The sections of a settings file, which are checked once they are put together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Table = {}
    model: Table = {}
    target: Table = {}
    methods: Table = {}
    evaluation: Table = {}
    output: Table = {}
    execution: Table = {}

    def tables(self) -> Table:
        """The sections that were given."""
        return {name: deepcopy(table) for name in SECTIONS if (table := getattr(self, name))}


class _Runs(_Sections):
    """`[[runs]]`: models x seeds again, with sections that are merged into the common ones."""

    name: str = Field(default="", pattern=r"^[\w.-]*$")
    models: list[str] | None = None
    seeds: Seeds | None = None


class _File(_Sections):
    """A suite file."""

    name: Name = Field(pattern=r"^[\w.-]+$")
    seeds: Seeds = [0]
    include: list[str] = []
    models: list[Table] = []
    runs: list[Table] = []


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a suite; `label` is how the suite calls its model, and `settings.name` how it calls the run."""

    label: str
    settings: Settings

    @property
    def name(self) -> str:
        """The name of the run's directory: DATA-MODEL-seedN, and the extra name where it has one."""
        return self.settings.name


@dataclass(frozen=True, eq=False)
class Suite:
    """The runs of a suite, in their order; `others` are those of its file that this call leaves out."""

    name: str
    runs: tuple[PlannedRun, ...]
    others: tuple[PlannedRun, ...] = ()


def find_suite(name: str) -> Path:
    """The suite file that a name stands for: a file, or else one of the packaged suites.

    Raises:
        SettingsError: neither; the message lists the packaged names.
    """
    path, packaged = Path(name), SUITES / f"{name}.toml"
    if path.is_file():
        return path
    if len(path.parts) == 1 and packaged.is_file():
        return packaged
    names = ", ".join(sorted(one.stem for one in SUITES.glob("*.toml")))
    raise SettingsError(f"no suite {name!r}; give a TOML file or one of the packaged suites: {names}")


def read_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Reads a suite file and puts its runs together; every setting of every run is checked.

    Relative paths are relative to the file, those of packaged suites to the working folder.

    Args:
        overrides: `key.path=VALUE`, as for `read_settings`; they hold for every run.

    Raises:
        SettingsError: no such file, no TOML, an unknown key or model, a value out of range, two runs of one name.
    """
    suite = _read_suite(path, overrides, ())
    names = [run.name for run in suite.runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SettingsError(f"{path}: two runs would be called {twice[0]!r}; give one of its [[runs]] another name")
    if not names:
        raise SettingsError(f"{path} plans no runs; give it [[models]] or include other suites")
    return suite


def narrow(suite: Suite, models: Sequence[str]) -> Suite:
    """The runs of some models, by their labels.

    Raises:
        SettingsError: a label that no run has.
    """
    labels = dict.fromkeys(run.label for run in suite.runs)
    for label in models:
        lookup("model of the suite", label, labels)
    left_out = tuple(run for run in suite.runs if run.label not in models)
    chosen = tuple(run for run in suite.runs if run.label in models)
    return replace(suite, runs=chosen, others=(*suite.others, *left_out))


def with_weights(suite: Suite, directory: Path) -> Suite:
    """The suite with weights from files LABEL or NAME + .pth, .pt or .safetensors, or as torchvision calls the file.

    Models that bring weights (a `weights` of their own, or embedded ones) keep them where the directory has no file.

    Raises:
        SettingsError: files that are missing; all that were expected are listed.
    """
    missing: dict[str, None] = {}
    runs = []
    for run in suite.runs:
        expected = _weight_files(run)
        found = next((directory / name for name in expected if (directory / name).is_file()), None)
        if found is not None:
            model = run.settings.model.model_copy(update={"weights": str(found.resolve())})
            run = replace(run, settings=run.settings.model_copy(update={"model": model}))
        elif run.settings.model.weights is None and not isinstance(_known_weights(run), Path):
            missing[f"{run.label}: {' or '.join(expected)}"] = None
        runs.append(run)
    if missing:
        lines = "\n  ".join(missing)
        raise SettingsError(f"{directory} lacks weights; put them there, or narrow with --models. Expected:\n  {lines}")
    return replace(suite, runs=tuple(runs))


def _known_weights(run: PlannedRun) -> Any:
    entry = MODELS.get(run.settings.model.name)
    return entry and entry.weights


def _weight_files(run: PlannedRun) -> list[str]:
    """Names of files that may hold a run's weights, the first choice first."""
    name = run.settings.model.name
    stems = dict.fromkeys([run.label] if ":" in name else [run.label, name])
    url = getattr(_known_weights(run), "url", None)
    return [stem + ending for stem in stems for ending in WEIGHT_ENDINGS] + ([Path(url).name] if url else [])


def _read_suite(path: Path, overrides: Sequence[str], above: tuple[Path, ...]) -> Suite:
    path = path.resolve()
    if path in above:
        raise SettingsError(f"suites include each other: {' > '.join(one.name for one in (*above, path))}")
    file = _checked(_File, read_toml(path, "suite"), str(path))
    included = [
        run for name in file.include for run in _read_suite(_included(path, name), overrides, (*above, path)).runs
    ]
    return Suite(file.name, (*included, *_own_runs(file, path, overrides)))


def _included(path: Path, name: str) -> Path:
    beside = path.parent / name
    return beside if beside.is_file() else find_suite(name)


def _own_runs(file: _File, path: Path, overrides: Sequence[str]) -> list[PlannedRun]:
    models = _models(file, str(path))
    if not models:
        if file.runs or file.tables():
            raise SettingsError(f"{path} has sections but no models; add [[models]] tables with at least a name")
        return []
    base = Path.cwd() if path.parent == SUITES.resolve() else path.parent
    runs = []
    shown: set[str] = set()
    for number, table in enumerate([{}, *file.runs]):
        more = _checked(_Runs, table, f"{path}, [[runs]] {number}")
        for label in models if more.models is None else more.models:
            lookup(f"model of [[runs]] {number} in {path.name}:", label, models)
            for seed in file.seeds if more.seeds is None else more.seeds:
                parts = ({"seed": seed}, file.tables(), {"model": models[label]}, more.tables())
                content: Table = {}
                for part in parts:
                    content = _merged(content, part)
                anchor(content, base)
                shown |= set(_running_labels(content))
                runs.append(_planned(content, label, more.name, overrides, str(path)))
    labels = file.methods.get("labels", {})
    unused = [name for name in labels if name not in shown] if isinstance(labels, dict) else []
    if unused:
        raise SettingsError(f"{path}: methods.labels names {unused[0]!r}, which runs in none of the suite's runs")
    return runs


def _running_labels(content: Table) -> Table:
    """The labels of the methods that a run has: a suite gives a label once, and some of its runs have other methods."""
    methods = content.get("methods", {})
    labels, names = methods.get("labels"), methods.get("names", DEFAULT_METHODS)
    if not isinstance(labels, dict):
        return {}
    running = {record_name(name) for name in names if isinstance(name, str)} | {"random_cells"}  # which always runs
    return {name: label for name, label in labels.items() if record_name(name) in running}


def _planned(content: Table, label: str, extra: str, overrides: Sequence[str], source: str) -> PlannedRun:
    """One run, checked and named."""
    fixed = [_at(content, key) for key in FIXED]
    override(content, overrides)
    if isinstance(content.get("methods", {}).get("labels"), dict):
        content["methods"]["labels"] = _running_labels(content)
    for key, value in zip(FIXED, fixed, strict=True):
        if _at(content, key) != value:
            raise SettingsError(f"--set {key}: the suite decides that for each of its runs; copy the suite and edit it")
    suffix = f"-{extra}" if extra else ""
    settings = make_settings(content, f"{source}, model {label}, seed {content['seed']}{suffix}")
    name = f"{settings.data.name}-{label}-seed{settings.seed}{suffix}"
    return PlannedRun(label, settings.model_copy(update={"name": name}))


def _at(content: Table, key: str) -> Any:
    """The value of `key.path`, or None."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _models(file: _File, source: str) -> dict[str, Table]:
    """The model tables by label; `[model]` alone is one model, beside `[[models]]` it is what they share."""
    models: dict[str, Table] = {}
    for number, table in enumerate(file.models or ([file.model] if file.model else []), 1):
        entry = dict(table)
        label = entry.pop("label", None)
        _checked(ModelSettings, _merged(file.model, entry), f"{source}, [[models]] {number}")
        label = _label(str(entry.get("name") or file.model["name"])) if label is None else label
        if not isinstance(label, str) or not re.fullmatch(r"[\w.-]+", label):
            raise SettingsError(
                f"{source}, [[models]] {number}: label = {label!r}: expected letters, digits, '.', '_' and '-'"
            )
        if label in models:
            raise SettingsError(f"{source}: two models are called {label!r}; give one of them another label")
        models[label] = entry
    return models


def _label(name: str) -> str:
    """What a model is called that has no label: `unet` for `nets/unet.py:build`; names of the list as they are."""
    place, _, function = name.rpartition(":")
    return Path(place).stem if place.endswith(".py") else f"{place}-{function}" if place else function


def _merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> Table:
    """Tables are merged key by key; anything else is replaced."""
    both = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in update.items()
    }
    return deepcopy({**base, **both})


def _checked(kind: type[Part], content: Mapping[str, Any], source: str) -> Part:
    """Checks a table of a suite file.

    Raises:
        SettingsError: an unknown key or a value of the wrong type or range; the message names the key.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        known, lines = list(kind.model_fields), []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                close = nearest(key, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                lines.append(f"unknown key {key!r}; {hint}")
            elif item["type"] == "missing":
                lines.append(f"missing key {key!r}")
            else:
                lines.append(f"{key} = {item['input']!r}: {item['msg']}")
        raise SettingsError(f"{source}: " + "; ".join(dict.fromkeys(lines))) from error
