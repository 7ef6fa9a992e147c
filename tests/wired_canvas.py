"""A canvas of two random photographs, a target in its left half, and a small model, for tests of wired photographs."""

import torch
from torch import Tensor

from segfaith.halves import Wiring
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Target
from toys import SmallCNN, plain

SIDE = 28


def photograph(seed: int) -> Tensor:
    """Uniform noise with a bright box, (3, SIDE, SIDE)."""
    image = 0.6 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    image[:, 6:20, 8:22] += 0.4
    return image


def canvas() -> Tensor:
    """Photographs 1 and 2 side by side."""
    return torch.cat([photograph(1), photograph(2)], -1)


def region() -> Tensor:
    """A target in one photograph, (SIDE, SIDE)."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[5:19, 7:22] = True
    return mask


def target(score: str = "probability") -> Target:
    """`region` in the left half of the canvas."""
    return Target(1, torch.cat([region(), torch.zeros_like(region())], -1), score)  # type: ignore[arg-type]


def wired_model(own: float | None, **settings: object) -> SegmentationModel:
    """The small model, wired; `own` None: not wired."""
    model = plain(SmallCNN(), layer="backbone.4")
    model.wiring = None if own is None else Wiring(own)
    for name, value in settings.items():
        setattr(model, name, value)
    return model
