"""Score drops of cells, by the one-by-one loop and as RIA reads them, on any device."""

import numpy as np
import torch
from torch import Tensor

from rederived import cells, pixel_numbers
from segfaith.batching import BatchSize
from segfaith.evidence.gradient import forward_pass
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.scores import Scalar


def single(model: SegmentationModel, image: Tensor, region: Tensor, explained: int | Scalar) -> float:
    """Equation 1 in one pass of the user's own module; of a class's probability, or of another number of each pixel."""
    with torch.no_grad():
        z = model.logits(image[None])[0].double().cpu().numpy()[:, region.cpu().numpy()]
    if isinstance(explained, Scalar):
        numbers = pixel_numbers(z, explained.class_index, explained.kind, explained.versus, explained.independent)
        return sum(numbers) / (len(numbers) + 1e-6)
    probability = np.exp(z - z.max(0))[explained] / np.exp(z - z.max(0)).sum(0)
    return float(probability.sum() / (probability.size + 1e-6))


def occluded(image: Tensor, chosen: Tensor) -> Tensor:
    """The chosen pixels take the image's mean colour."""
    return torch.where(chosen, image.double().mean((1, 2), keepdim=True).float(), image)


def loop(model: SegmentationModel, image: Tensor, region: Tensor, explained: int | Scalar, grid: int) -> np.ndarray:
    """delta_r for every cell, one pass at a time."""
    partition = torch.from_numpy(cells((image.shape[1], image.shape[2]), grid)).to(image.device)
    clean = single(model, image, region, explained)
    drops = [
        clean - single(model, occluded(image, partition == cell), region, explained) for cell in range(grid * grid)
    ]
    return np.array(drops)


def evidence(
    model: SegmentationModel, image: Tensor, region: Tensor, explained: int | Scalar, regions: Regions, batch: int = 8
) -> np.ndarray:
    """The drops that RIA reads."""
    variants, scalar = clean_variant(image, region), explained if isinstance(explained, Scalar) else Scalar(explained)
    passed = forward_pass(model, variants.images, variants.regions, scalar, BatchSize(batch))
    found = intervention_evidence(
        model,
        variants,
        regions,
        passed.score,
        scalar,
        BatchSize(batch),
        rng=lambda: np.random.default_rng(0),
    )
    return found.drop[0].cpu().numpy()
