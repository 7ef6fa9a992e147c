"""Builds models: calls their builders with a seed, and imports functions from files and packages by name."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import torch

from segfaith.errors import SettingsError, words_of


def seeded(name: str, build: Callable[[], Any], args: Mapping[str, Any], seed: int) -> Any:
    """Calls build() with torch's global generator seeded, and leaves that generator as it was.

    Args:
        name, args: what is built, and of which arguments, for the message of an error.

    Raises:
        SettingsError: the call failed, or called `sys.exit`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return build()
        except SettingsError:
            raise
        except (Exception, SystemExit) as error:
            last = extract_tb(error.__traceback__)[-1]
            raise SettingsError(
                f"{name} cannot be built with args {dict(args)}: {words_of(error)} "
                f"({Path(last.filename).name}, line {last.lineno}); see [model] args"
            ) from error


class _FromSource(SourceFileLoader):
    """Always compiles the named file, whose digest runs record. Cached bytecode may come from an older version."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run_file(path: Path) -> ModuleType:
    """Imports a file as a separate module, which can import the modules in its folder."""
    name = f"{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up a class's module here
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def import_function(name: str) -> Callable[..., Any]:
    """The function named `path/to/file.py:function` or `package.module:function`.

    Raises:
        SettingsError: the file or module is missing, fails to import, or has no such function.
    """
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise SettingsError(f"no file {path} (from {name!r}); expected path/to/file.py:function")
            module = _run_file(path.resolve())
        else:
            module = importlib.import_module(place)
    except SettingsError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a script that calls sys.exit must not end segfaith as if it had succeeded
        raise SettingsError(f"importing {place!r} (from {name!r}) failed: {words_of(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        have = f"{', '.join(names[:60])}{', ...' if len(names) > 60 else ''}" if names else "none"
        raise SettingsError(f"{place} has no function {attribute!r}; it has {have}")
    result: Callable[..., Any] = function
    return result
