r"""Wired photographs: two photographs side by side on one canvas, and logits whose evidence is known by construction.

The model runs on each half by itself. With z(A) and z(B) the logits of the two photographs, the canvas has

    left half: own z(A) + (1 - own) z(B),    right half: own z(B) + (1 - own) z(A)

| wiring | own | what decides a target in the left half |
|---|---|---|
| straight | 1 | its own half alone |
| crossed | 0 | the other half alone |
| blend | between | both halves |

After DiFull (Rao et al. 2022, "Towards Better Understanding Attribution Methods"), which disconnects the cells of a
grid of images from each other and from the logits of a classifier [the wirings of segmentation are ours].
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, cat

from segfaith.constants import WIRED_CROSSED, WIRED_STRAIGHT


@dataclass(frozen=True)
class Wiring:
    """The share `own`, in [0, 1], of a half's logits that comes from the photograph in that half; see the module."""

    own: float

    def weights(self, side: int) -> tuple[float, float]:
        """How much the left and the right photograph weigh in the logits of the half `side` (0: left, 1: right)."""
        return (1 - self.own, self.own) if side else (self.own, 1 - self.own)

    def logits(self, left: Tensor, right: Tensor) -> Tensor:
        """The canvas' logits (N, C, H, 2 W) from those of its photographs, (N, C, H, W) each.

        A photograph of weight 0 is left out, so that its logits cannot change the result, whatever they are.
        """
        return cat([self.weighted(left, right, side) for side in (0, 1)], -1)

    def weighted(self, left: Tensor, right: Tensor, side: int) -> Tensor:
        """The logits of the half `side` alone, from those of both photographs."""
        first, second = self.weights(side)
        if not second:
            return left
        return first * left + second * right if first else right

    @property
    def kind(self) -> str | None:
        """How the evidence is known, in the records' column `kind`; None where both halves decide."""
        return {1.0: WIRED_STRAIGHT, 0.0: WIRED_CROSSED}.get(self.own)


def halves(canvas: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right half of a tensor whose last axis is a canvas' width, which is even."""
    width = canvas.shape[-1] // 2
    return canvas[..., :width], canvas[..., width:]


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """A canvas of two halves."""
    return cat([left, right], -1)


def by_halves(function: Callable[[Tensor], Tensor], canvas: Tensor, *, wired: bool) -> Tensor:
    """`function` of an image, or where photographs are wired of each half by itself, the left one first."""
    if not wired:
        return function(canvas)
    left, right = halves(canvas)
    return side_by_side(function(left), function(right))


def side_of(region: Tensor) -> int | None:
    """The half in which a mask (H, 2 W) lies, 0: left, 1: right; None where it has pixels in both, or none."""
    inside = [bool(half.any()) for half in halves(region)]
    return None if inside[0] == inside[1] else inside.index(True)
