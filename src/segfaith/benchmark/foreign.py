"""Settings from a run directory, which may be a stranger's. Code that they name runs only if the user allows it.

A `run.json` can name code, `package.module:function` or `path/to/file.py:function`, as model, as its `reshape` or as
method, and the author of the file chose that name. So code is imported only if the user has named the same code. A file
of code must also be the file that the run was made with.
"""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segfaith.attribution.libraries import LIBRARIES
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.settings import anchor, anchored, make_settings, override
from segfaith.errors import SettingsError
from segfaith.models.weights import file_digest
from segfaith.results.records.runs import read_description


def settings_of(directory: Path, overrides: Sequence[str] = (), allowed: Iterable[str] = ()) -> Settings:
    """The settings of a run, after a check of the code that they name. They never start a download of data.

    Args:
        overrides: settings that have changed since, `key.path=VALUE`. If they set `model.name` or `methods.names`, the
            code that is named there is allowed.
        allowed: code that may be imported, as run.json names it; relative paths are relative to the working folder.

    Raises:
        SettingsError: `run.json` cannot be read, names code that is not allowed, or names a file that has changed since
            the run. Nothing was imported.
    """
    file = directory / "run.json"
    description = read_description(directory)
    content = description["settings"]
    content["data"] = (content.get("data") or {}) | {"download": False}
    override(content, overrides)
    anchor(content, Path.cwd())  # so the file that is checked is the file that would be imported
    settings = make_settings(content, str(file))
    known = {anchored(name, Path.cwd()) for name in (*allowed, *_named(overrides))}
    code = code_named(settings)
    refused = [(role, name) for role, name in code if name not in known]
    if refused:
        args = settings.model.args
        called = {"model": f" with args {args}" if args else ""}
        words = ", ".join(f"{role} {name}{called.get(role, '')}" for role, name in refused)
        flags = " ".join(f"--allow-code {shlex.quote(name)}" for name in dict.fromkeys(name for _, name in refused))
        raise SettingsError(
            f"{file} names code that segfaith would import and call: {words}. Nothing was imported, since the author "
            f"of that file chose this code. If you know this code and trust it, add: {flags}"
        )
    for role, name in code:
        if name.rpartition(":")[0].endswith(".py"):  # as import_function decides; installed modules have no digest
            _check_source(description, role, name, file)
    return settings


def code_named(settings: Settings) -> list[tuple[str, str]]:
    """The code that a run imports, as pairs: "model", "reshape" or "method", and the code's name."""
    model, reshape = settings.model.name, settings.model.reshape
    own = ("maps", *LIBRARIES)  # prefixes that name no code of the user's, as resolve_method decides
    methods = [name for name in settings.methods.names if name.partition(":")[0] not in own]
    named = [("model", model), ("reshape", reshape or ""), *(("method", name) for name in methods)]
    return [(role, name) for role, name in named if ":" in name]


def _check_source(description: dict[str, Any], role: str, name: str, file: Path) -> None:
    """Compares a file of code with the digest in `run.json`."""
    source = Path(name.rpartition(":")[0])
    served = (
        role if role in ("model", "reshape") else f"{source.name}:{name.rpartition(':')[2]}"
    )  # as plan._sources calls it
    if not source.is_file():
        raise SettingsError(f"no file {source}, the {role} of {file}; name it where it is now, with --set")
    before = ((description.get("identity") or {}).get("sources") or {}).get(served)
    if before != file_digest(source):
        raise SettingsError(
            f"{source} is not the file that {file} was made with (its SHA-256 differs, or none is stated), so it was "
            "not imported; restore that file, or run again into another directory"
        )


def _named(overrides: Sequence[str]) -> list[str]:
    """The names of models, their `reshape`, and methods among the overrides."""
    own: dict[str, Any] = {}
    override(own, overrides)
    model = own.get("model", {})
    names = [model.get("name"), model.get("reshape"), *own.get("methods", {}).get("names", [])]
    return [name for name in names if isinstance(name, str)]
