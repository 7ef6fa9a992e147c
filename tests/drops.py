"""Score drops of cells, by the one-by-one loop and as RIA reads them, on any device."""

import numpy as np
import torch
from torch import Tensor

from rederived import cells
from segfaith.evidence.gradient import forward_pass
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.scores import BatchSize, Scalar


def single(model: SegmentationModel, image: Tensor, region: Tensor, class_index: int) -> float:
    """Equation 1 in one pass of the user's own module."""
    with torch.no_grad():
        z = model.logits(image[None])[0].double().cpu().numpy()[:, region.cpu().numpy()]
    probability = np.exp(z - z.max(0))[class_index] / np.exp(z - z.max(0)).sum(0)
    return float(probability.sum() / (probability.size + 1e-6))


def occluded(image: Tensor, chosen: Tensor) -> Tensor:
    """The chosen pixels take the image's mean colour."""
    return torch.where(chosen, image.double().mean((1, 2), keepdim=True).float(), image)


def loop(model: SegmentationModel, image: Tensor, region: Tensor, class_index: int, grid: int) -> np.ndarray:
    """delta_r for every cell, one pass at a time."""
    partition = torch.from_numpy(cells((image.shape[1], image.shape[2]), grid)).to(image.device)
    clean = single(model, image, region, class_index)
    drops = [
        clean - single(model, occluded(image, partition == cell), region, class_index) for cell in range(grid * grid)
    ]
    return np.array(drops)


def evidence(
    model: SegmentationModel, image: Tensor, region: Tensor, class_index: int, regions: Regions, batch: int = 8
) -> np.ndarray:
    """The drops that RIA reads."""
    variants = clean_variant(image, region)
    passed = forward_pass(model, variants.images, variants.regions, Scalar(class_index), BatchSize(batch))
    found = intervention_evidence(
        model,
        variants,
        regions,
        passed.score,
        Scalar(class_index),
        BatchSize(batch),
        rng=lambda: np.random.default_rng(0),
    )
    return found.drop[0].cpu().numpy()
