"""The target's score of an image seen through masks, which RISE and Sobol share."""

from collections.abc import Callable

import torch

from segfaith.batching import BatchSize, on_target, score_images
from segfaith.incremental.scoring import scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import masked_mean, scalar_of
from segfaith.types import Float, Image, Int, Target, Tensor

Masks = Callable[[Int[Tensor, "B"]], Float[Tensor, "B H W"]]
"""From the numbers of B masks, on the CPU, to the masks in [0, 1]; 1 shows the image."""


def scores_through(
    model: SegmentationModel,
    image: Image,
    target: Target,
    batch: BatchSize,
    blank: Image,
    masks: Masks,
    count: int,
) -> Float[Tensor, "count"]:
    """s_c(x m_i + blank (1 - m_i), M) of `count` masks m_i, in float64. Model passes: `count` and 1.

    Args:
        blank: what shows where a mask is 0.

    Raises:
        SampleError: a score is not finite.
    """

    def seen(numbers: Int[Tensor, "B"]) -> Float[Tensor, "B bands H W"]:
        mask = masks(numbers)[:, None]
        return image * mask + blank * (1 - mask)

    with torch.inference_mode():
        logits = model.logits(image[None])
        scalar = scalar_of(model, target)  # known once the model has run
        clean = float(masked_mean(logits, target.region[None], scalar)[0])
    scorer = scorer_for(model, image, target.region, scalar, expected=clean)
    stage = on_target("masks", target.region)
    return score_images(scorer.score, seen, count, batch, stage=stage, features=scorer.features)
