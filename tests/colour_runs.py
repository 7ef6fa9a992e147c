"""A folder of pictures in which the colour is the class, and a model that sees it; shared by tests of single photos and
of the check before a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (32, 40)
NAMES = ["background", "red", "blue"]

MODEL = '''
"""Red pixels are class 1, blue ones class 2. `scale` multiplies the input, `order` is that of its channels."""

import torch
from torch import nn


class Colours(nn.Module):
    def __init__(self, scale=1.0, order=(0, 1, 2)):
        super().__init__()
        self.scale, self.order = scale, list(order)
        self.features = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.features.weight.zero_()
            for channel in range(3):
                self.features.weight[channel, channel] = 0.05
                self.features.weight[channel, channel, 1, 1] = 0.6
            self.features.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[1, 0], self.head.weight[1, 2] = 12.0, -12.0
            self.head.weight[2, 2], self.head.weight[2, 0] = 12.0, -12.0
            self.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))

    def forward(self, x):
        return self.head(self.features(x[:, self.order] * self.scale))


def build(**arguments):
    return Colours(**arguments)
'''


def picture(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) of 8 bits and its labels: a red box, a smaller blue one, dark elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[6:22, 4 + seed : 22 + seed] = 1
    labels[24:30, 28:38] = 2
    colours = np.array([[0.15, 0.2, 0.15], [0.95, 0.1, 0.05], [0.05, 0.1, 0.95]])
    image = colours[labels] + rng.normal(0, 0.02, (*SIZE, 3))
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def make_colours(root: Path, samples: int = 3, shift: int = 0, names: list[str] | None = None) -> Path:
    """Writes `data/` (p0, p1, ...), whose labels are `shift` too high, and `colours.py`; returns the folder."""
    for folder in ("images", "masks"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "data" / "classes.txt").write_text("\n".join(names or NAMES))
    for index in range(samples):
        image, labels = picture(index)
        Image.fromarray(image).save(root / "data" / "images" / f"p{index}.png")
        Image.fromarray(labels + np.uint8(shift)).save(root / "data" / "masks" / f"p{index}.png")
    (root / "colours.py").write_text(MODEL)
    return root


def settings(root: Path, **changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a quick run over `make_colours`' folder; a keyword updates a section."""
    base: dict[str, Any] = {
        "data": {"name": "folder", "root": f"{root}/data", "size": 32},
        "model": {"name": f"{root}/colours.py:build", "layer": "features", "mean": [0, 0, 0], "std": [1, 1, 1]},
        "methods": {"names": ["ega", "mask"]},
        "evaluation": {"stability": False},
        "execution": {"device": "cpu"},
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value}
    return base
