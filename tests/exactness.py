"""Checks of incremental scores against the loop that alters, and scores, an image at a time."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drops import evidence, loop, occluded, single
from segfaith import Target, evaluate
from segfaith.batching import BatchSize, score_images
from segfaith.evidence.regions import Regions
from segfaith.incremental.scorers import Precision
from segfaith.incremental.scoring import scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar

TIGHT = 2e-6
"""What float32 leaves of the 1e-5 that is promised."""
SIZES = [(37, 53), (8, 8), (40, 24)]


def photograph(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Colours that change slowly, and noise on them."""
    rng = np.random.default_rng(seed)
    slow = F.interpolate(torch.from_numpy(rng.random((1, 3, 4, 4))), size=size, mode="bicubic")[0]
    return (0.8 * slow + 0.2 * torch.from_numpy(rng.random((3, *size)))).clamp(0, 1).float()


def target(size: tuple[int, int], kind: str) -> Tensor:
    """A slanted patch near the lower right corner, or single pixels all over the image."""
    rows, columns = (torch.arange(n)[:, None] if axis == 0 else torch.arange(n) for axis, n in enumerate(size))
    if kind == "scattered":
        return (rows * 5 + columns * 3) % 11 == 0
    patch = (rows >= size[0] * 5 // 8) & (columns >= size[1] // 2) & (columns + rows < sum(size) - 3)
    assert bool(patch.any())
    return patch


def scattered_images(image: Tensor, count: int = 5) -> Tensor:
    """Copies with pixels occluded all over the image, as the metrics ask for, the last of them everywhere."""
    rng = np.random.default_rng(1)
    shares = np.linspace(0.05, 1, count)
    return torch.stack([occluded(image, torch.from_numpy(rng.random(image.shape[1:]) < share)) for share in shares])


def check_exact(model: SegmentationModel, size: tuple[int, int], kind: str, expected_type: type | None) -> float:
    """Drops of cells and scores of scattered images; returns the largest drop."""
    image, region = photograph(size), target(size, kind)
    class_index = 1 if model.logits(image[None]).shape[1] == 2 else 2
    if expected_type is not None:
        score = single(model, image, region, class_index)
        assert type(scorer_for(model, image, region, Scalar(class_index), expected=score)) is expected_type
    return check_exact_on(model, image, region, class_index, 5 if min(size) > 10 else 3)


def check_exact_on(
    model: SegmentationModel, image: Tensor, region: Tensor, class_index: int, grid: int, precision: Precision = "fp32"
) -> float:
    drops = loop(model, image, region, class_index, grid)
    for batch in (1, 4, 32):
        got = evidence(model, image, region, class_index, Regions(grid, precision=precision), batch)
        np.testing.assert_allclose(got, drops, rtol=0, atol=TIGHT, err_msg=f"batches of {batch}")
    scorer = scorer_for(model, image, region, Scalar(class_index), precision)
    altered = scattered_images(image)
    expected = [single(model, one, region, class_index) for one in altered]
    for batch in (1, 3, 8):
        scores = score_images(scorer.score, lambda numbers: altered[numbers], len(altered), BatchSize(batch))
        np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=TIGHT, err_msg=f"batches of {batch}")
    return float(np.abs(drops).max())


def evaluated(model: SegmentationModel, image: Tensor, region: Tensor) -> Any:
    """The records of a random map and of the control, with the path on which they were scored."""
    heatmap = np.random.default_rng(0).random(image.shape[1:])
    return evaluate(model, image, Target(1, region), {"map": heatmap})
