r"""RISE (Petsiuk et al. 2018): random masks, each weighed by the target's score of the image seen through it.

    A = 1 / (N keep) sum_i s_c(x m_i + fill (1 - m_i), M) m_i

m_i is a random grid of `cells` x `cells`, each cell 1 with probability `keep`, enlarged bilinearly to one cell more
than the image and shifted at random by less than a cell. The score is that of the target, computed at its region alone.
"""

from math import ceil

import numpy as np
import torch
from torch.nn import functional as F

from segfaith.attribution.masking import scores_through
from segfaith.batching import BatchSize
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.types import Float, Image, Int, Map, Target, Tensor


def rise(
    model: SegmentationModel,
    image: Image,
    target: Target,
    batch: BatchSize,
    rng: np.random.Generator,
    *,
    masks: int,
    cells: int,
    keep: float,
    fill: str,
) -> Map:
    """RISE of one image, before min-max. Model passes: `masks` and 1.

    Args:
        fill: the operator of `occlusion.FILLS` whose image shows where a mask is 0.

    Raises:
        SampleError: the image has fewer rows or columns than `cells`, or photographs are wired.
    """
    size = (image.shape[1], image.shape[2])
    if cells > min(size):
        raise SampleError(f"rise: cells = {cells} are more than the image, {size[0]} x {size[1]}, has rows or columns")
    if model.wired:
        raise SampleError("rise: a mask would run across both of wired photographs; use ria")
    everywhere = torch.ones(1, *size, dtype=torch.bool, device=image.device)
    blank = occluder(fill, image, rng)(everywhere)[0]
    grids = torch.from_numpy(rng.random((masks, cells, cells)) < keep).float().to(image.device)
    steps = [ceil(side / cells) for side in size]
    shifts = np.stack([rng.integers(step, size=masks) for step in steps], 1)

    def drawn(numbers: Int[Tensor, "B"]) -> Float[Tensor, "B H W"]:
        large = F.interpolate(
            grids[numbers.to(image.device)][:, None],
            size=[(cells + 1) * step for step in steps],
            mode="bilinear",
            align_corners=False,
        )[:, 0]
        places = shifts[numbers.cpu().numpy()]
        cut = [one[y : y + size[0], x : x + size[1]] for one, (y, x) in zip(large, places, strict=True)]
        return torch.stack(cut)

    scores = scores_through(model, image, target, batch, blank, drawn, masks)
    total = torch.zeros(size, dtype=torch.float64, device=image.device)
    for start in range(0, masks, 64):
        numbers = torch.arange(start, min(start + 64, masks))
        total += (scores[numbers.to(scores.device)][:, None, None] * drawn(numbers)).sum(0)
    return total / (masks * keep)
