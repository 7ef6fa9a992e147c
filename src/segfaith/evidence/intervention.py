"""Intervention evidence: how much the score drops when a region is occluded, one model pass per region and variant."""

from collections.abc import Callable

import numpy as np
import torch

from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.perturbation import Variants
from segfaith.scores import BatchSize, score_images
from segfaith.types import Float, Int, InterventionEvidence, Tensor


def intervention_evidence(
    model: SegmentationModel,
    variants: Variants,
    partition: Int[Tensor, "N H W"],
    count: int,
    score: Float[Tensor, "N"],
    class_index: int,
    batch: BatchSize,
    *,
    occlusion: str,
    rng: Callable[[], np.random.Generator],
) -> InterventionEvidence:
    """delta[n, r] = s_c(x_n, M_n) - s_c(O(x_n, r), M_n) for every region r of every variant n.

    Args:
        partition: the region of each pixel, in [0, count).
        score: s_c of the unoccluded variants, float64.
        occlusion: a name of `occlusion.OPERATORS`.
        rng: a fresh generator for each variant's operator.

    N x count model passes, in batches of `batch` that cross from one variant to the next.
    """
    operators = [occluder(occlusion, image, rng()) for image in variants.images]
    device = variants.images.device
    variant = torch.arange(len(variants.images), device=device).repeat_interleave(count)
    region = torch.arange(count, device=device).repeat(len(variants.images))

    def build(part: slice) -> Tensor:
        of, cells = variant[part], region[part]
        masks = partition[of] == cells[:, None, None]
        first, last = part.start // count, (part.stop - 1) // count
        return torch.cat([operators[n](masks[of == n]) for n in range(first, last + 1)])

    occluded = score_images(model, build, len(variant), variants.regions, variant, class_index, batch)
    return InterventionEvidence(partition, score[:, None] - occluded.reshape(len(variants.images), count))
