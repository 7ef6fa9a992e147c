"""Settings out of a run directory, which may be a stranger's: what they name is data, until the user says otherwise.

A `run.json` can name code, `package.module:function` or `path/to/file.py:function`, as model or method. Whoever wrote
it chose that name. So it is imported only where the user has named the same code, and a file only where it is the one
that the run was made with.
"""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segfaith.benchmark.settings import Settings, anchor, anchored, make_settings, override
from segfaith.errors import SettingsError
from segfaith.models.weights import file_digest
from segfaith.results.records.runs import read_description


def settings_of(directory: Path, overrides: Sequence[str] = (), allowed: Iterable[str] = ()) -> Settings:
    """The settings of a run, whose model and methods may be loaded. Nothing is downloaded for them that was not asked.

    Args:
        overrides: what moved since, `key.path=VALUE`; code that `model.name` and `methods.names` name is allowed.
        allowed: code that may be imported, as run.json names it; relative paths are relative to the working folder.

    Raises:
        SettingsError: `run.json` cannot be read, or names code that is not allowed, or a file that is not the one that
            the run was made with; nothing was imported.
    """
    file = directory / "run.json"
    description = read_description(directory)
    content = description["settings"]
    content["data"] = (content.get("data") or {}) | {"download": False}
    override(content, overrides)
    anchor(content, Path.cwd())  # so that the file that is asked about is the one that would be imported
    settings = make_settings(content, str(file))
    known = {anchored(name, Path.cwd()) for name in (*allowed, *_named(overrides))}
    found = code_named(settings)
    refused = [(role, name) for role, name in found if name not in known]
    if refused:
        args = settings.model.args
        called = {"model": f" with args {args}" if args else ""}
        words = ", ".join(f"{role} {name}{called.get(role, '')}" for role, name in refused)
        flags = " ".join(f"--allow-code {shlex.quote(name)}" for name in dict.fromkeys(name for _, name in refused))
        raise SettingsError(
            f"{file} names code, which would be imported and called: {words}. It was not: whoever wrote that file "
            f"chose it. If you know this code and trust it, add: {flags}"
        )
    for role, name in found:
        if name.rpartition(":")[0].endswith(".py"):  # as import_function decides; installed modules have no digest
            _check_source(description, role, name, file)
    return settings


def code_named(settings: Settings) -> list[tuple[str, str]]:
    """The code that loading a run's model and methods imports: "model" or "method", and the name."""
    model = settings.model.name
    methods = [name for name in settings.methods.names if not name.startswith("maps:")]  # as resolve_method decides
    found = [("model", model), *(("method", name) for name in methods)]
    return [(role, name) for role, name in found if ":" in name]


def _check_source(description: dict[str, Any], role: str, name: str, file: Path) -> None:
    """Holds a file of code against the digest in `run.json`."""
    source = Path(name.rpartition(":")[0])
    served = role if role == "model" else f"{source.name}:{name.rpartition(':')[2]}"  # as plan._sources calls it
    if not source.is_file():
        raise SettingsError(f"no file {source}, the {role} of {file}; name it where it is now, with --set")
    before = ((description.get("identity") or {}).get("sources") or {}).get(served)
    if before != file_digest(source):
        raise SettingsError(
            f"{source} is not the file that {file} was made with (its SHA-256 differs, or none is stated), so it was "
            "not imported; restore that file, or run again into another directory"
        )


def _named(overrides: Sequence[str]) -> list[str]:
    """The names of models and methods among the overrides."""
    own: dict[str, Any] = {}
    override(own, overrides)
    found = [own.get("model", {}).get("name"), *own.get("methods", {}).get("names", [])]
    return [one for one in found if isinstance(one, str)]
