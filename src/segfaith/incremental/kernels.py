"""Convolutions on parts of maps, and the geometry of what reads with a kernel."""

from typing import Any

import numpy as np
from torch import nn
from torch.nn import functional as F

from segfaith.incremental.windows import Kernel, Pairs
from segfaith.types import Tensor

LIVE_SHARE = 0.7
"""A dilated convolution is done tap by tap where less than this share of its products meets the map."""


def convolve(
    module: nn.Conv2d, weight: Tensor, bias: Tensor | None, data: Tensor, padding: tuple[int, ...] | str
) -> Tensor:
    """A convolution with the geometry of `module`."""
    return F.conv2d(data, weight, bias, module.stride, padding, module.dilation, module.groups)


def _live(kernel: Kernel, extent: Pairs, before: Pairs, size: Pairs, axis: int) -> list[tuple[int, int, int]]:
    """For each tap along an axis: first and last output that it serves from inside the map, and its first input.

    Args:
        extent: rows and columns of the input inside the map, which reaches out of it by `before` rows and columns.
        size: rows and columns of the output.
    """
    taps = []
    for tap in range(int(kernel.size[axis])):
        offset = tap * int(kernel.dilation[axis]) - int(before[axis])
        first, last = max(0, -offset), min(int(size[axis]), int(extent[axis]) - offset)
        taps.append((first, max(first, last), first + offset))
    return taps


def live_share(kernel: Kernel, extent: Pairs, before: Pairs, size: Pairs) -> float:
    """The share of a convolution's products that meet the map rather than its padding, for stride 1."""
    rows, columns = (sum(last - first for first, last, _ in _live(kernel, extent, before, size, at)) for at in (0, 1))
    return rows * columns / float(size.prod() * kernel.size.prod())


def is_sparse(module: nn.Conv2d, kernel: Kernel, extent: Pairs, before: Pairs, size: Pairs) -> bool:
    """Whether a convolution is done tap by tap."""
    if module.groups > 1 or kernel.stride.max() > 1:
        return False
    return live_share(kernel, extent, before, size) < LIVE_SHARE


def tap_by_tap(kernel: Kernel, weight: Tensor, bias: Tensor | None, part: Tensor, before: Pairs, size: Pairs) -> Tensor:
    """The convolution as one matrix product for each tap, over the outputs where the tap meets the map."""
    pixels, extent = part.permute(0, 2, 3, 1), np.array(part.shape[2:])
    result = part.new_zeros(len(part), *size.tolist(), len(weight))
    if bias is not None:
        result += bias
    for i, (top, bottom, y) in enumerate(_live(kernel, extent, before, size, 0)):
        for j, (left, right, x) in enumerate(_live(kernel, extent, before, size, 1)):
            if bottom > top and right > left:
                inputs = pixels[:, y : y + bottom - top, x : x + right - left]
                result[:, top:bottom, left:right] += inputs @ weight[:, :, i, j].T
    return result.permute(0, 3, 1, 2)


def kernel_of(module: nn.Module) -> Kernel | None:
    """The geometry of a convolution or max pooling that is known here."""
    if type(module) is nn.Conv2d:
        known = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    else:
        known = type(module) is nn.MaxPool2d and not module.ceil_mode and not module.return_indices
    if not known:
        return None
    fields: list[Any] = [module.kernel_size, module.stride, module.padding, module.dilation]
    return Kernel(*(np.broadcast_to(np.array(field), 2).astype(np.int64) for field in fields))
