"""The type checker that jaxtyping calls in the tests: beartype, where an int is also a float."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with checks of its arguments and its result.

    jaxtyping makes two of each function: one checks the arguments before the call, and returns anything; one gets
    arguments and result after it. The second checks the result alone, with the sizes that the first has found.
    """
    annotations = function.__annotations__
    if annotations.get("return", Any) is not Any:
        function.__annotations__ = {"return": annotations["return"]}
    return _beartype(function)
