"""What windows hold, and how layers compute with it: the interface of an arithmetic, and the exact arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import fx

from segfaith.incremental.convolution import Convolution
from segfaith.incremental.windows import Box, Pairs, Windows, view
from segfaith.types import Float, Tensor

Values = dict[fx.Node, Any]
"""A value for each node: maps as `Windows` or tensors, and whatever else nodes give."""


@dataclass(frozen=True, eq=False)
class Function:
    """What a node computes, on the features themselves.

    Attributes:
        call: from plain values of the nodes that it reads, maps as tensors.
        linear: whether it does to differences of maps what it does to maps.
        limits: between which values it clamps its input, if it does that; the upper limit may be None.
        fill: what stands outside the maps that it reads.
        gives_map: whether its result is a map.
    """

    node: fx.Node
    call: Callable[[Values], Any]
    linear: bool = False
    limits: tuple[float, float | None] | None = None
    fill: float = 0.0
    gives_map: bool = True

    def __call__(self, inputs: Values) -> Any:
        """The result for these inputs; of windows, what they hold."""
        return self.call({node: value.data if isinstance(value, Windows) else value for node, value in inputs.items()})


@runtime_checkable
class Arithmetic(Protocol):
    """How the operations of a plan compute; `Exact` and `differences.Differences` are the two arithmetics."""

    @property
    def clean(self) -> Values | None:
        """Every node's value for the clean image; None where the windows of the images are whole images."""

    def enter(self, image: fx.Node, images: Windows) -> Windows:
        """Windows of altered images, as the first layers read them."""

    def view(self, node: fx.Node, windows: Windows, start: Pairs, size: Pairs, fill: float = 0.0) -> Tensor:
        """What the maps of a node hold at other windows: see `windows.view`."""

    def convolution(self, exact: Convolution) -> Convolution:
        """The convolution to apply to what windows hold."""

    def apply(self, function: Function, inputs: Values, start: Pairs) -> Any:
        """The function of what windows hold, as its own windows at `start` hold it; other values stay as they are."""

    def leave(self, output: fx.Node, windows: Windows, box: Box) -> Float[Tensor, "B C h w"]:
        """The features themselves, in a box of the last map."""


@dataclass(frozen=True, eq=False)
class Exact:
    """Windows hold the features themselves, in float32.

    Attributes:
        clean: every node's value for the clean image; None where the windows of the images are whole images.
    """

    clean: Values | None

    def enter(self, image: fx.Node, images: Windows) -> Windows:
        """The same windows."""
        return images

    def view(self, node: fx.Node, windows: Windows, start: Pairs, size: Pairs, fill: float = 0.0) -> Tensor:
        """Outside the windows the clean image's features hold."""
        return view(windows, None if self.clean is None else self.clean[node], start, size, fill)

    def convolution(self, exact: Convolution) -> Convolution:
        """The same convolution."""
        return exact

    def apply(self, function: Function, inputs: Values, start: Pairs) -> Any:
        """The function itself."""
        return function(inputs)

    def leave(self, output: fx.Node, windows: Windows, box: Box) -> Float[Tensor, "B C h w"]:
        """What the windows hold in the box."""
        return self.view(output, windows, box.starts(len(windows.data)), box.size)
