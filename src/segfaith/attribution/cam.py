r"""Class activation maps from gradient evidence: GPA (Seg-Grad-CAM) and EGA (Seg-XRes-CAM).

    GPA = minmax(up(relu(sum_k mean_{ij}(G_k) F_k)))        Vinogradova et al. 2020
    EGA = minmax(up(relu(sum_k pool(G_k) * F_k)))           Hasany et al. 2023

F_k and G_k are channel k of the feature layer's activation and gradient (h x w); up is bilinear to the image's size. If
the model pads the image, h x w covers the padded image, mean_{ij} is over all of it, and up crops.
Of several layers, `layer = "a+b"`, the mean of the layers' maps is taken. Of wired photographs h x w covers both
halves: GPA's mean_{ij} is over both, and EGA's pool works on each half.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch.nn import functional as F

from segfaith.attribution.heatmap import minmax, upsample
from segfaith.halves import by_halves
from segfaith.types import Float, GradientEvidence, Tensor


def gpa(gradient: GradientEvidence) -> Float[Tensor, "N H W"]:
    """Gradient-Pooled Attribution of N variants, in [0, 1]. A channel's weight is the mean of its gradient."""
    return _over_layers(gradient, pooled_cam)


def ega(gradient: GradientEvidence, *, pool: Literal["mean", "max"], window: int) -> Float[Tensor, "N H W"]:
    """Elementwise Gradient Attribution of N variants, in [0, 1].

    Args:
        pool, window: gradients are pooled over window x window blocks. A window of 1 changes nothing; mean pooling
            over the whole feature map gives GPA.
    """
    return _over_layers(gradient, lambda layer: elementwise_cam(layer, pool=pool, window=window))


def _over_layers(
    gradient: GradientEvidence, cam: Callable[[GradientEvidence], Float[Tensor, "N h w"]]
) -> Float[Tensor, "N H W"]:
    """The mean over the layers of minmax(up(cam))."""
    maps = [minmax(_on_image(cam(layer), layer)) for layer in (gradient, *gradient.others)]
    return torch.stack(maps).mean(0) if len(maps) > 1 else maps[0]


def _on_image(maps: Float[Tensor, "N h w"], gradient: GradientEvidence) -> Float[Tensor, "N H W"]:
    """Maps of the feature layer upsampled to the image, without the rows and columns that pad it.

    The halves of wired photographs are upsampled each by itself, so that no value crosses from one to the other.
    """
    if gradient.halves:
        half = replace(gradient, size=(gradient.size[0], gradient.size[1] // 2), halves=False)
        return by_halves(lambda maps: _on_image(maps, half), maps, wired=True)
    height, width = gradient.size
    return upsample(maps, gradient.covered or gradient.size)[:, :height, :width]


def pooled_cam(gradient: GradientEvidence) -> Float[Tensor, "N h w"]:
    """relu(sum_k mean_{ij}(G_k) F_k) at the feature layer's resolution."""
    weights = gradient.gradient.double().mean((2, 3), keepdim=True)
    return (weights * gradient.activation).sum(1).relu().float()


def elementwise_cam(gradient: GradientEvidence, *, pool: Literal["mean", "max"], window: int) -> Float[Tensor, "N h w"]:
    """relu(sum_k pool(G_k) * F_k) at the feature layer's resolution."""
    pooled = by_halves(
        lambda values: block_pool(values, pool, window), gradient.gradient.double(), wired=gradient.halves
    )
    return (pooled * gradient.activation).sum(1).relu().float()


def block_pool(values: Float[Tensor, "N K h w"], pool: Literal["mean", "max"], window: int) -> Float[Tensor, "N K h w"]:
    """Pools window x window blocks (the last ones may be smaller) and repeats each block's value over its pixels."""
    if window == 1:
        return values
    height, width = values.shape[-2:]
    reduce = F.avg_pool2d if pool == "mean" else F.max_pool2d
    pooled = reduce(values, kernel_size=window, stride=window, ceil_mode=True)
    repeated = pooled.repeat_interleave(window, -2).repeat_interleave(window, -1)
    return repeated[..., :height, :width]
