"""Differences after a function of each pixel, in one pass over memory: f(c + d) - f(c).

Step by step this reads and writes each value six times. Inductor's code for the CPU does it at once, and gathers the
clean features on the way. The first use on a machine compiles, which takes half a minute and needs a C++ compiler.
torch keeps the code for later processes. Without a compiler everything is computed step by step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from segfaith.batching import out_of_memory
from segfaith.types import Float, Int, Tensor

_NUMBERS = count()
LEAST = 1 << 14
"""Fewer values are not worth a call of compiled code."""

Pixelwise = Callable[[Tensor], Tensor]
"""A function of each value of a tensor by itself."""


def difference(
    function: Pixelwise, change: Float[Tensor, "N C"], clean: Float[Tensor, "P C"], pixels: Int[Tensor, "N"]
) -> Float[Tensor, "N C"]:
    """f(c + d) - f(c) for rows of pixels, in float32 and then rounded to the type of d.

    Args:
        change: d, N pixels of C channels.
        clean: c for each pixel of the clean map.
        pixels: which pixel of the clean map each row belongs to.
    """
    features = clean[pixels]
    return (function(features + change) - function(features)).to(change.dtype)


def product_difference(
    change: Float[Tensor, "B P C"],
    clean: Float[Tensor, "1 P C"],
    factor_change: Float[Tensor, "B 1 C"],
    factor: Float[Tensor, "1 1 C"],
) -> Float[Tensor, "B P C"]:
    """(c + d) (g + e) - c g: maps whose channels are scaled, as squeeze-and-excitation does."""
    product = (clean + change) * (factor + factor_change) - clean * factor
    return product.to(change.dtype)


def hardswish(values: Tensor) -> Tensor:
    """x clamp(x + 3, 0, 6) / 6."""
    return values * ((values + 3).clamp(0, 6) * (1 / 6))


def hardsigmoid(values: Tensor) -> Tensor:
    """clamp(x + 3, 0, 6) / 6."""
    return (values + 3).clamp(0, 6) * (1 / 6)


AS_PRODUCTS: dict[Any, Pixelwise] = {
    nn.Hardswish: hardswish, F.hardswish: hardswish, nn.Hardsigmoid: hardsigmoid, F.hardsigmoid: hardsigmoid,
}  # fmt: skip
"""Functions and the classes of modules, and the same without a division: it makes compiled code three times as slow."""


@dataclass(eq=False)
class Compiler:
    """Compiled functions by their name.

    Attributes:
        missing: why nothing can be compiled here; None as far as it is known.
    """

    missing: str | None = None
    made: dict[str, Callable[..., Tensor]] = field(default_factory=dict)

    def serves(self, change: Tensor) -> bool:
        """Whether compiled code may be called for such a tensor, and is worth it."""
        return self.missing is None and change.device.type == "cpu" and change.numel() >= LEAST

    def call(self, name: str, function: Callable[..., Tensor], change: Tensor, *others: Tensor) -> Tensor | None:
        """function(change, *others) in one pass; None where that cannot be compiled or is not worth it."""
        if not self.serves(change):
            return None
        try:
            if name not in self.made:
                self.made[name] = torch.compile(_with_own_code(function), dynamic=True)
            return self.made[name](change, *others)
        except Exception as error:  # no compiler, no place for its files, no name for this user, and more
            if type(error) is RuntimeError and out_of_memory(error):
                raise
            self.missing = f"{type(error).__name__}: " + " ".join(str(error).split("\n\n")[0].split())
            return None


def _with_own_code(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function under code of its own: dynamo compiles the same code eight times at most, whatever it calls."""

    def call(*given: Tensor) -> Tensor:
        return function(*given)

    call.__code__ = call.__code__.replace(co_name=f"call_{next(_NUMBERS)}")
    return call


COMPILER = Compiler()
"""Of this process."""
