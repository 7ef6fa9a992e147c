"""Scores altered canvases of two wired photographs by the photographs that the target's logits read.

A photograph that is not altered has the logits of the clean one, without a pass. So an alteration of the half that does
not decide changes the score by exactly 0, whatever the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from segfaith.batching import Boxes
from segfaith.halves import Wiring, halves, side_of
from segfaith.incremental.scorers import INCREMENTAL, IncrementalScorer, PlainScorer, extent, region_mean
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from segfaith.types import Float, Image, Int, Mask, Tensor

HalfScorer = IncrementalScorer | PlainScorer


@dataclass(frozen=True, eq=False)
class _Photograph:
    """One of the two photographs: its half (0: left, 1: right), the photograph itself, and its scorer."""

    side: int
    clean: Image
    scorer: HalfScorer

    @cached_property
    def of_clean(self) -> Float[Tensor, "1 C h w"]:
        """z of the clean photograph on the box around the target, by the arithmetic of whole images."""
        return self.scorer.logits(self.clean[None])

    @cached_property
    def of_clean_by_boxes(self) -> Float[Tensor, "1 C h w"]:
        """The same by the arithmetic of alterations in boxes."""
        return self.scorer.clean_logits() if isinstance(self.scorer, IncrementalScorer) else self.of_clean


def wired_scorer(
    model: SegmentationModel, image: Image, region: Mask, scalar: Scalar, make: Callable[[Image, Mask], HalfScorer]
) -> "WiredScorer":
    """The scorer of altered copies of a canvas on a target that lies in one half.

    Args:
        make: gives the scorer of a photograph's altered copies, on the target's pixels within its half.
    """
    side = side_of(region)
    assert model.wiring is not None
    assert side is not None
    target = halves(region)[side]
    photographs = [
        _Photograph(number, part.contiguous(), make(part.contiguous(), target))
        for number, (part, weight) in enumerate(zip(halves(image), model.wiring.weights(side), strict=True))
        if weight
    ]
    return WiredScorer(model.wiring, side, scalar, extent(target)[2], photographs)


@dataclass(frozen=True, eq=False)
class WiredScorer:
    """Scores altered copies of a canvas on a target in the half `side`: see `wired_scorer`.

    Attributes:
        pixels: the numbers of the target's pixels inside the box around them.
        photographs: those that the target's logits read.
    """

    wiring: Wiring
    side: int
    scalar: Scalar
    pixels: Int[Tensor, "P"]
    photographs: Sequence[_Photograph]

    @property
    def path(self) -> str:
        """How the photographs are scored: that of the first one that is not incremental, or else "incremental"."""
        paths = [photograph.scorer.path for photograph in self.photographs]
        return next((path for path in paths if path != INCREMENTAL), INCREMENTAL)

    @property
    def features(self) -> int:
        """Bytes of the features of all photographs in all layers; 0 where those of one are not known."""
        features = [photograph.scorer.features for photograph in self.photographs]
        return sum(features) if all(features) else 0

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s of B altered canvases, float64."""
        return self._score([_logits(photograph, images, boxes) for photograph in self.photographs])

    @torch.inference_mode()
    def clean_score(self) -> Float[Tensor, "1"]:
        """s of the clean canvas, by the arithmetic of alterations in boxes."""
        return self._score([photograph.of_clean_by_boxes for photograph in self.photographs])

    def _score(self, logits: list[Float[Tensor, "B C h w"]]) -> Float[Tensor, "B"]:
        mixed = self.wiring.weighted(logits[0], logits[-1], self.side)
        return region_mean(self.scalar.of(mixed, 1), self.pixels)


def _logits(photograph: _Photograph, images: Tensor, boxes: Boxes | None) -> Float[Tensor, "B C h w"]:
    """The logits of a photograph in B altered canvases, on the box around the target."""
    own, scorer = halves(images)[photograph.side], photograph.scorer
    changed = (own != photograph.clean).flatten(1).any(1)
    clean = photograph.of_clean if boxes is None else photograph.of_clean_by_boxes
    logits = clean.repeat(len(images), 1, 1, 1)
    if not bool(changed.any()):
        return logits
    if boxes is not None:
        chosen, width = changed.cpu().numpy(), own.shape[-1]
        boxes = boxes[0][chosen].copy(), boxes[1][chosen].copy()
        for corner in boxes:
            corner[:, 1] = (corner[:, 1] - photograph.side * width).clip(0, width)
    logits[changed] = scorer.logits(own[changed].contiguous(), boxes)
    return logits
