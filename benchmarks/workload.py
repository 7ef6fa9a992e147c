"""What is explained: a model, a photograph and a centred rectangle as the target. And what a timed job hands back."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segfaith import load_image, load_model
from segfaith.data.datasets import open_dataset
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import grid_partition
from segfaith.types import Mask

SIZE, GRID = 224, 14
CELLS = GRID * GRID
"""Of the default grid; `Workload.count` of the case at hand."""
SEED, SAMPLE = 0, "bench"
MODELS = ("deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large", "trained")
MASKS = {"small": 0.05, "medium": 0.2, "large": 0.5}
SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
"""Where the trained model and the photographs lie, if they are there; a drawn scene replaces the photograph."""
PHOTOGRAPH = SHARED / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000063.jpg"


@dataclass(frozen=True, eq=False)
class Workload:
    """The model, the image (3, H, W) in [0, 1], the target's class and region, and RIA's cells, `grid` a side."""

    model: SegmentationModel
    image: Tensor
    class_index: int
    region: Mask
    cells: Tensor
    grid: int = GRID

    @property
    def count(self) -> int:
        """The number of cells."""
        return self.grid**2

    @property
    def tables(self) -> dict[str, dict[str, int]]:
        """The settings of the methods, which differ from the defaults in the grid alone."""
        return {"ria": {"grid": self.grid}}


@dataclass(frozen=True, eq=False)
class Output:
    """Arrays by name, equal where two jobs compute the same; seconds to add for what was left out and is scaled."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: float = 0.0


def read_model(name: str, device: str) -> SegmentationModel:
    """A model of `MODELS`: the trained one, or random weights with drawn batch-norm statistics."""
    if name == "trained":
        return load_model(
            f"{SHARED / 'weights' / 'deeplab_mnv2.py'}:build",
            args={"width_mult": 0.5},
            weights=SHARED / "weights" / "deeplabv3_mnv2_w0.5_voc21.pth",
            layer="backbone.17",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            classes="voc",
            device=device,
        )
    model = load_model(name, weights="random")
    draw = torch.Generator().manual_seed(SEED)
    for module in model.module.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1, generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
    return model.to(device)


def read_image(size: int = SIZE) -> Tensor:
    """The photograph, or the first drawn scene."""
    if PHOTOGRAPH.is_file():
        return load_image(PHOTOGRAPH, size=size)
    scenes = open_dataset("scenes", None)
    return scenes.load(scenes.ids[0], size).image


def make_case(model: SegmentationModel, share: float, size: int = SIZE, grid: int = GRID) -> Workload:
    """A centred square of `share` of the image; the class is the most probable one in it, background left out."""
    image = read_image(size).to(model.device)
    half = round(size * share**0.5 / 2)
    region = torch.zeros(size, size, dtype=torch.bool, device=model.device)
    region[size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half] = True
    with torch.inference_mode():
        inside = model.logits(image[None]).softmax(1)[0][:, region].mean(1)
    cells = grid_partition((size, size), grid).to(model.device)
    return Workload(model, image, int(inside[1:].argmax()) + 1, region, cells, grid)
