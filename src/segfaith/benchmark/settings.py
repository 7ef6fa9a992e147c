"""Reads settings files (TOML) and overrides; refuses unknown keys and makes paths absolute (SPEC section 5)."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segfaith.benchmark.setting_tables import Settings
from segfaith.errors import SettingsError
from segfaith.lookup import nearest
from segfaith.models.adapters import with_absolute_path
from segfaith.paths import absolute as absolute_path

DEEPEST = 16
"""How deep tables and lists may lie in each other; the keys of `[model] args` may be tables."""
LONGEST_SHOWN = 300
"""Characters of a wrong value that a message shows."""
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
    content = read_content(path)
    override(content, overrides)
    return make_settings(content, str(path))


def read_content(path: Path) -> dict[str, Any]:
    """The dictionary in a settings file, unchecked, with paths made absolute; see `read_settings`.

    Raises:
        SettingsError: no such file, or no TOML.
    """
    content = read_toml(path, "settings")
    anchor(content, path.resolve().parent)
    return content


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The dictionary in a TOML file, which may begin with a byte order mark; `what` names it for messages.

    Raises:
        SettingsError: no such file, no TOML, or tables in tables in tables, see `DEEPEST`.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"no {what} file {path} ({error.strerror}); give a TOML file") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}; save it as UTF-8") from error
    except ValueError as error:  # TOMLDecodeError, and of numbers with thousands of digits or a path with a NUL
        raise SettingsError(f"{path} is no TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} {_TOO_DEEP}") from error
    _refuse_deep(content, str(path))
    return content


_TOO_DEEP = f"has more than {DEEPEST} tables or lists in each other; expected a table for each section, with its keys"


def _refuse_deep(content: Any, source: str, left: int = DEEPEST) -> None:
    """Raises SettingsError where tables and lists lie deeper in each other than `DEEPEST`."""
    if not left:
        raise SettingsError(f"{source} {_TOO_DEEP}")
    for value in content.values() if isinstance(content, Mapping) else content:
        if isinstance(value, Mapping | list | tuple):
            _refuse_deep(value, source, left - 1)


def override(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Changes a dictionary of settings, in place, by `key.path=VALUE`; see `read_settings`.

    Raises:
        SettingsError: no `=`, or a table where a value was given.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {text!r}: expected KEY=VALUE, as in data.n=20")
        parts = key.strip().split(".")
        if len(parts) > DEEPEST:
            raise SettingsError(
                f"--set {key[:80]}...: {len(parts)} names in each other; expected KEY=VALUE, as in data.n=20"
            )
        table = _nested(parts, _toml_value(value))
        anchor(table, Path.cwd())
        _merge(content, table, key)


def make_settings(content: Mapping[str, Any], source: str = "settings") -> Settings:
    """Checks a dictionary of settings.

    Raises:
        SettingsError: unknown key or a value of the wrong type or range.
    """
    _refuse_deep(content, source)
    try:
        return Settings.model_validate({key: _with_lists(table) for key, table in content.items()})
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise SettingsError(f"{source}: " + "; ".join(dict.fromkeys(lines))) from error


def _with_lists(table: Any) -> Any:
    """A table whose tuples, which Python has and TOML has not, are lists."""
    if not isinstance(table, Mapping):
        return table
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}


def _explain(item: Any) -> str:
    place = [str(part) for part in item["loc"]]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        close = nearest(place[-1], known, 1)
        return f"unknown key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")
    if item["type"] == "missing":
        return f"missing key {key!r}"
    words = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and isinstance(item["input"], Mapping):  # a whole table, whose message names keys
        return f"{key or 'settings'}: {words}"
    shown = repr(item["input"])
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..., {len(shown)} characters"
    return f"{key or 'settings'} = {shown}: {words}"


def _keys(place: Sequence[str]) -> list[str]:
    section: Any = Settings
    for part in place:
        section = section.model_fields[part].annotation
    return [field.alias or name for name, field in section.model_fields.items()]


def _toml_value(text: str) -> Any:
    try:
        content = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # a bare word
        return text
    return content["value"] if len(content) == 1 else text


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

    data, model, methods, target = (
        table if isinstance(table := content.get(key), dict) else {} for key in ("data", "model", "methods", "target")
    )
    if isinstance(target.get("mask"), str):
        target["mask"] = absolute(target["mask"])
    if isinstance(data.get("root"), str):
        data["root"] = absolute(data["root"])
    for table in (data, model):
        if isinstance(table.get("classes"), str) and table["classes"] != "voc":
            table["classes"] = absolute(table["classes"])
    if isinstance(model.get("weights"), str) and model["weights"] != "random":
        model["weights"] = absolute(model["weights"])
    if isinstance(model.get("name"), str):
        model["name"] = anchored(with_absolute_path(model["name"], base), base)
    if isinstance(model.get("reshape"), str):
        model["reshape"] = anchored(model["reshape"], base)
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
    return str(absolute_path(text, base))
