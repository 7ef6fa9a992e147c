"""Checks of every call against its annotations: beartype, where an int is also a float, with jaxtyping's sizes.

jaxtyping's own decorator binds the arguments of every call and checks them apart from the result, which makes a small
evaluation nearly three times as long. Here one check does both; a size means the same in all of a call's annotations.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, config

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def install(modules: Sequence[str]) -> None:
    """Checks the functions and dataclasses of modules that are imported later.

    jaxtyping's import hook puts `jaxtyping.jaxtyped(typechecker=...)` on each of them.
    """
    jaxtyping.jaxtyped = lambda typechecker: checked  # type: ignore[assignment, misc]
    jaxtyping.install_import_hook(modules, None)


def checked(given: Any) -> Any:
    """A function, or a class whose `__init__` was made for a dataclass, with checks of arguments and results.

    Generators are not checked: their arguments would be checked at their first step, amid the sizes of another call.
    """
    if inspect.isgeneratorfunction(given):
        return given
    if not inspect.isclass(given):
        return _checked(given)
    if dataclasses.is_dataclass(given):
        given.__init__ = _checked(given.__init__)  # type: ignore[misc]
    return given


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    checking, sized = _beartype(function), any(map(_sized, function.__annotations__.values()))

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if config.jaxtyping_disable:
            return function(*arguments, **named)
        if not sized:
            return checking(*arguments, **named)
        with _jaxtyped("context"):
            return checking(*arguments, **named)

    return call


def _sized(hint: Any) -> bool:
    """Whether an annotation has sizes, or is a name whose meaning is not known yet."""
    if isinstance(hint, str) or (inspect.isclass(hint) and issubclass(hint, AbstractArray)):
        return True
    return any(map(_sized, get_args(hint)))
