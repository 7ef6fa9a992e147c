"""The subject of a measurement: one target in one image, as one model sees it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from segfaith.batching import BatchSize
from segfaith.halves import halves, side_of
from segfaith.models.segmentation import SegmentationModel
from segfaith.randomness import generator
from segfaith.types import Float, Image, Labels, Mask, Planted, Target, Tensor

REFERENCE_HEIGHT = 224
"""Distances from the target are given in the pixels of an image of this height."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explained and measured. All tensors lie on the model's device and have the image's size.

    Attributes:
        id: names the sample in the records, and is part of every seed.
        labels: the ground truth; read only for `ignore = "exclude"`.
        planted: the target's planted evidence, where it is known.
        without: the scene drawn without that evidence, for the occlusion operator `REMOVAL`.
    """

    model: SegmentationModel
    id: str
    image: Image
    target: Target
    seed: int
    batch: BatchSize
    labels: Labels | None = None
    planted: Planted | None = None
    without: Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The image's (H, W)."""
        return self.image.shape[1], self.image.shape[2]

    def rng(self, purpose: str) -> np.random.Generator:
        """The subject's random numbers for a purpose; the same at every call."""
        return generator(self.seed, self.id, purpose, self.target.name)

    @cached_property
    def distance(self) -> Float[Tensor, "H W"]:
        """Each pixel's Euclidean distance to the target, in pixels of an image of height 224; 0 inside it."""
        outside = (~self.target.region).cpu().numpy()
        distance: Tensor = torch.from_numpy(distance_transform_edt(outside) * (REFERENCE_HEIGHT / outside.shape[0]))
        return distance.to(self.target.region.device)

    @cached_property
    def half(self) -> Mask | None:
        """The half of wired photographs in which the target lies; None where images are whole, or it lies in both."""
        side = side_of(self.target.region) if self.model.wired else None
        if side is None:
            return None
        half = torch.zeros_like(self.target.region)
        halves(half)[side].fill_(True)
        return half

    @cached_property
    def evidence(self) -> Mask | None:
        """The pixels of all alternatives of the planted evidence; None where nothing is planted that lies anywhere."""
        if self.planted is None or not self.planted.alternatives:
            return None
        return torch.stack(self.planted.alternatives).any(0)
