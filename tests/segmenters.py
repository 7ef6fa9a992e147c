"""Segmenters of which more than one test file needs a property: equivariance to a flip, and a linear score."""

import numpy as np
import torch
from torch import Tensor, nn


class Symmetric(nn.Module):
    """Equivariant to a horizontal flip: kernels that are their own mirror image, stride 3 on a width divisible by 3."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)

        def conv(inputs: int, outputs: int, stride: int, padding: int) -> nn.Conv2d:
            layer = nn.Conv2d(inputs, outputs, 3, stride, padding)
            weight = torch.from_numpy(rng.normal(0, 0.3, (outputs, inputs, 3, 3)).astype(np.float32))
            with torch.no_grad():
                layer.weight.copy_((weight + weight.flip(-1)) / 2)
                layer.bias.copy_(torch.from_numpy(rng.normal(0, 0.2, outputs).astype(np.float32)))
            return layer

        self.backbone = nn.Sequential(conv(3, 8, 3, 0), nn.ReLU(), conv(8, 8, 1, 1), nn.ReLU())
        self.head = conv(8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class LinearScore(nn.Module):
    """p_1 at each pixel is 0.05 + 0.9 * (weighted mean of the colours around it), so s is linear in the pixels."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 1, 5, padding=2, padding_mode="circular")
        with torch.no_grad():
            weight = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 5, 5), dtype=np.float32))
            self.features.weight.copy_(weight / weight.sum())
            self.features.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        p = 0.05 + 0.9 * self.features(x)
        return torch.log(p / (1 - p))  # one channel: the logit of a sigmoid
