"""Shared last steps of heatmaps: min-max normalisation and bilinear upsampling."""

import torch
from torch.nn import functional as F

from segfaith.constants import DEGENERATE_RANGE
from segfaith.types import Float, Tensor


def minmax(maps: Float[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    """(A - min A) / (max A - min A) of each finite map; all zeros where the range is below 1e-12."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    part = torch.where((high - low).isinf(), 0.5, 1.0).to(maps)  # the range of finite values may be infinite
    maps, low, high = maps * part, low * part, high * part
    span = high - low
    flat = span < DEGENERATE_RANGE
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, span)).clamp(0, 1)


def zero_where_constant(maps: Float[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    """The maps; each map whose range is below 1e-12 becomes all zeros, because a constant map says nothing."""
    span = maps.amax((1, 2), keepdim=True) - maps.amin((1, 2), keepdim=True)
    return torch.where(span < DEGENERATE_RANGE, 0.0, maps)


def upsample(maps: Float[Tensor, "N h w"], size: tuple[int, int]) -> Float[Tensor, "N H W"]:
    """Bilinear to `size`, align_corners=False."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
