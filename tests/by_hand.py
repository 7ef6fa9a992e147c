"""A small model's scores and maps of one image, one pass at a time, from the formulas of the specification."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rederived import (
    blurred,
    dea,
    ega,
    gpa,
    region_drops,
    ria,
    score,
)
from segfaith.randomness import generator
from segfaith.types import Target
from toys import SmallCNN

SIZE = (20, 27)

SCORES = ["s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"]

GRID, SEED = 4, 3

FOUR = {"gpa": "gpa", "ega": "ega", "ria": f"ria@grid={GRID}", "dea": f"dea@grid={GRID}"}


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(seed).random((3, *size), dtype=np.float32))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[4 : size[0] - 5, 3 : size[1] // 2] = True
    return image, Target(1, mask)


def levels(seed: int, values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map with at most that many values."""
    return np.random.default_rng(seed).integers(0, values, size).astype(np.float32) / max(values - 1, 1)


class ByHand:
    """A module's score and maps, one pass at a time, from SPEC's formulas."""

    def __init__(self, module: SmallCNN, class_index: int, grid: int) -> None:
        self.module, self.class_index, self.grid = module.eval(), class_index, grid

    def logits(self, image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            coarse = self.module(torch.from_numpy(image.astype(np.float32))[None])["out"]
        return F.interpolate(coarse, size=image.shape[1:], mode="bilinear", align_corners=False)[0].numpy()

    def score(self, image: np.ndarray, region: np.ndarray) -> float:
        return score(self.logits(image), region, self.class_index)

    def maps(self, image: np.ndarray, region: np.ndarray, partition: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            activation = self.module.backbone(torch.from_numpy(image.astype(np.float32))[None])
        activation.requires_grad_()
        size = (image.shape[1], image.shape[2])
        z = F.interpolate(self.module.head(activation), size=size, mode="bilinear", align_corners=False)
        (gradient,) = torch.autograd.grad(z[0, self.class_index][torch.from_numpy(region.copy())].sum(), activation)
        features = (activation[0].detach().double().numpy(), gradient[0].double().numpy(), size)
        drops = region_drops(image, partition, self.grid**2, lambda one: self.score(one, region))
        maps = {"gpa": gpa(*features), "ega": ega(*features), "ria": ria(drops, partition)}
        return maps | {"dea": dea(maps["ega"], maps["ria"])}


def perturbed(image: np.ndarray, seed: int, sample_id: str) -> dict[str, np.ndarray]:
    """The five variants of SPEC section 3, strength 0.03."""
    noise = generator(seed, sample_id, "perturbation|noise").standard_normal(image.shape, dtype=np.float32)
    mean = image.mean((1, 2), keepdims=True)
    variants = {
        "noise": image + 0.03 * noise,
        "brightness": image + 0.03,
        "contrast": mean + 1.03 * (image - mean),
        "blur": blurred(image, image.shape[1] / 224),
        "flip": image[:, :, ::-1],
    }
    return {name: variant.clip(0, 1) for name, variant in variants.items()}
