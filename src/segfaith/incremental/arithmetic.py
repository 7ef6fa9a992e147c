"""How operations compute: what a node is a function of, and the exact arithmetic.

An arithmetic says what windows hold, and how operations compute with that. There are two with the same methods: `Exact`
and `bfloat16.Differences`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from segfaith.incremental.convolution import Activation, Convolution, convolve
from segfaith.incremental.fused import Pixelwise
from segfaith.incremental.windows import Box, Pairs, Windows, view
from segfaith.types import Float, Tensor

Values = dict[fx.Node, Any]
"""A value for each node: maps as `Windows` or tensors, and whatever else nodes give."""

Part = tuple[Tensor, Pairs, Pairs]
"""A part of maps, and the rows and columns of zeros before and after it."""


@dataclass(frozen=True, eq=False)
class Function:
    """What a node computes, on the features themselves.

    Attributes:
        call: from plain values of the nodes that it reads, maps as tensors.
        linear: whether it does to differences of maps what it does to maps.
        limits: between which values it clamps its input, if it does that; the upper limit may be None.
        fill: what stands outside the maps that it reads.
        gives_map: whether its result is a map.
        of_each: the function of each value by itself, if it is one of a single map.
        multiplies: whether it is the product of what it reads.
        averages: whether it is the mean over a whole map.
        activation: the same as a convolution applies it to its outputs, if any does.
    """

    node: fx.Node
    call: Callable[[Values], Any]
    linear: bool = False
    limits: tuple[float, float | None] | None = None
    fill: float = 0.0
    gives_map: bool = True
    of_each: Pixelwise | None = None
    multiplies: bool = False
    averages: bool = False
    activation: Activation | None = None

    def __call__(self, inputs: Values) -> Any:
        """The result for these inputs; of windows, what they hold."""
        return self.call({node: value.data if isinstance(value, Windows) else value for node, value in inputs.items()})


@dataclass(frozen=True, eq=False)
class Exact:
    """The arithmetic whose windows hold the features themselves, in float32.

    Attributes:
        clean: every node's value for the clean image; None where the windows of the images are whole images.
    """

    clean: Values | None

    def enter(self, image: fx.Node, images: Windows) -> Windows:
        """What the first layers read of altered images: here the images."""
        return images

    def view(self, node: fx.Node, windows: Windows, start: Pairs, size: Pairs, fill: float = 0.0) -> Tensor:
        """What the maps of a node hold at other windows (see `windows.view`), by the clean features outside `windows`.

        Args:
            fill: the feature that stands outside the map.
        """
        return view(windows, None if self.clean is None else self.clean[node], start, size, fill)

    def convolve(self, exact: Convolution, then: Function | None, part: Part, start: Pairs, size: Pairs) -> Tensor:
        """What the windows at `start` hold after a convolution, and after the function that follows it directly.

        Args:
            then: None where no function follows at once.
            part: what the convolution reads.
        """
        return convolve(exact, *part, size, None if then is None else then.activation)

    def apply(self, function: Function, inputs: Values, start: Pairs) -> Any:
        """What the node's windows at `start` hold, or its value where that is not a map, from its inputs."""
        return function(inputs)

    def leave(self, output: fx.Node, windows: Windows, box: Box) -> Float[Tensor, "B C h w"]:
        """The features themselves in a box of the last map, float32."""
        return self.view(output, windows, box.starts(len(windows.data)), box.size)
