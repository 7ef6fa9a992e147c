"""Closed-form segmenters whose right answers are known, used by several tests. Wrap them with `plain(module)`."""

import torch
from torch import Tensor, nn

from segfaith.models.segmentation import SegmentationModel
from segfaith.models.wrapping import wrap


def plain(module: nn.Module, layer: str | None = None, classes: list[str] | None = None) -> SegmentationModel:
    """The module on raw RGB in [0, 1], without normalisation."""
    return wrap(module, layer=layer, classes=classes, mean=(0, 0, 0), std=(1, 1, 1))


class PixelScorer(nn.Module):
    """Each pixel sees only itself: logit of class 1 is gain * (mean colour - threshold), of class 0 it is 0."""

    def __init__(self, gain: float = 8.0, threshold: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.score = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.score.weight.zero_()
            self.score.weight[1] = gain / 3
            self.score.bias.copy_(torch.tensor([0.0, -gain * threshold]))

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.features(x))


class SmallCNN(nn.Module):
    """A random but fixed convolutional segmenter with a feature layer of half resolution."""

    def __init__(self, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(inplace=True),
                nn.Conv2d(8, 12, 3, padding=2, dilation=2),
                nn.ReLU(inplace=True),
            )
            self.head = nn.Conv2d(12, classes, 1)
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.backbone(x))}
