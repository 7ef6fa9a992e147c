"""Convolutions on parts of maps, and the choice of how each is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from segfaith.incremental import winograd
from segfaith.incremental.windows import Kernel, Pairs, pad
from segfaith.types import Float, Tensor

LIVE_SHARE = 0.7
"""A dilated convolution is done tap by tap where less than this share of its products meets the map."""


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of each output of a convolution.

    Attributes:
        apply: the function of a tensor, in place.
        onednn: its name in oneDNN, which applies it in the pass of the convolution; None where oneDNN gives something
            else: its ReLU and its clamp turn NaN into a number, and would hide it.
    """

    apply: Callable[[Tensor], Tensor]
    onednn: str | None = None


def kernel_of(module: nn.Module) -> Kernel | None:
    """The geometry of a convolution or max pooling that windows can follow; None for any other module."""
    if type(module) is nn.Conv2d:
        known = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    else:
        known = type(module) is nn.MaxPool2d and not module.ceil_mode and not module.return_indices
    if not known:
        return None
    fields: list[Any] = [module.kernel_size, module.stride, module.padding, module.dilation]
    return Kernel(*(np.broadcast_to(np.array(pair), 2).astype(np.int64) for pair in fields))


@dataclass(eq=False)
class Convolution:
    """The weights of a convolution and its geometry.

    Attributes:
        weight: (K, C / groups, rows, columns).
        bias: (K,).
        winograd: whether `winograd` may compute it where that is faster.
        row_weights: its weights for `winograd`, once they were used.
    """

    kernel: Kernel
    weight: Tensor
    bias: Tensor | None
    groups: int
    winograd: bool = True
    row_weights: list[Tensor] | None = None
    _linear: dict[torch.dtype, "Convolution"] = field(default_factory=dict)

    def linear(self, dtype: torch.dtype) -> "Convolution":
        """The same without its bias, in another precision, for differences of maps; made on first use."""
        if dtype not in self._linear:
            self._linear[dtype] = Convolution(self.kernel, self.weight.to(dtype), None, self.groups, winograd=False)
        return self._linear[dtype]


def convolution_of(module: nn.Module) -> Convolution | None:
    """The convolution that a module computes, with the module's own weights; None where windows cannot follow it."""
    kernel = kernel_of(module)
    if kernel is None or not isinstance(module, nn.Conv2d):
        return None
    return Convolution(kernel, module.weight, module.bias, module.groups)


def convolve(
    convolution: Convolution,
    part: Float[Tensor, "B C h w"],
    before: Pairs,
    after: Pairs,
    size: Pairs,
    activation: Activation | None = None,
    *,
    skip_dead_taps: bool = True,
) -> Float[Tensor, "B K _ _"]:
    """The convolution of a part of a map and what follows it, by the fastest way.

    Tap by tap where few products meet the map; by Winograd's rows where these take half of the multiplications; else
    by torch or oneDNN. Differences in bfloat16 differ in nothing but their weights (`Convolution.linear`).

    Args:
        part: the input inside the map.
        before, after: rows and columns of zero padding before and after it.
        size: rows and columns of the output.
        activation: what is applied to the result.
        skip_dead_taps: whether it may be done tap by tap.
    """
    kernel, weight, bias = convolution.kernel, convolution.weight, convolution.bias
    extent = np.array(part.shape[2:])
    padded = before.any() or after.any()
    if padded and skip_dead_taps and is_sparse(convolution, extent, before, size):
        return _activated(tap_by_tap(convolution, part, before, size), activation)
    if padded and (before != after).any() and (kernel.outputs(extent, before) != size).any():
        # torch pads alike on both sides
        part, before = pad(part, before, after), np.zeros_like(before)
    if convolution.winograd and winograd.pays(kernel, weight, convolution.groups, size):
        if convolution.row_weights is None:
            convolution.row_weights = winograd.transformed(weight)
        rows = winograd.convolve_rows(kernel, convolution.row_weights, bias, part, before, size)
        return _activated(rows, activation)
    stride = kernel.stride
    if part.dtype == torch.bfloat16 and size[1] == 1 and stride[1] > 1:  # there oneDNN may read beyond the map (AMX)
        if padded and before.any():
            part, before = pad(part, before, after), np.zeros_like(before)
        rows, columns = ((size - 1) * stride + kernel.reach + 1).tolist()
        part = part[:, :, :rows, :columns].contiguous(memory_format=torch.channels_last)
        stride = np.array([stride[0], 1])
    return _conv2d(
        part, weight, bias, stride.tolist(), before.tolist(), kernel.dilation.tolist(), convolution.groups, activation
    )


def _activated(result: Tensor, activation: Activation | None) -> Tensor:
    return result if activation is None else activation.apply(result)


def _conv2d(
    part: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """torch's convolution, then the activation. On the CPU oneDNN does some in one pass over the outputs."""
    if not _calls_onednn(part.device, part.dtype):
        return _activated(F.conv2d(part, weight, bias, stride, padding, dilation, groups), activation)
    name = activation.onednn if activation is not None else None
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        part, weight, bias, padding, stride, dilation, groups, name or "none", [], ""
    )
    return result if name else _activated(result, activation)


@cache
def _calls_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has the function that inductor's code calls for convolutions. It is tried once.

    With one thread `F.conv2d` takes a slower way for 1 x 1 kernels; this function never does.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    part, weight = torch.ones(2, 8, 6, 6, dtype=dtype), torch.ones(8, 8, 3, 3, dtype=dtype)
    try:
        found = torch.ops.mkldnn._convolution_pointwise(part, weight, None, [0, 0], [1, 1], [1, 1], 1, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return bool((found == 72).all())


def is_sparse(convolution: Convolution, extent: Pairs, before: Pairs, size: Pairs) -> bool:
    """Whether few of a convolution's products meet the map. Arguments as those of `live_share`."""
    if convolution.groups > 1 or convolution.kernel.stride.max() > 1:
        return False
    return live_share(convolution.kernel, extent, before, size) < LIVE_SHARE


def live_share(kernel: Kernel, extent: Pairs, before: Pairs, size: Pairs) -> float:
    """The share of a convolution's products that meet the map rather than its padding, for stride 1.

    Args:
        extent: rows and columns of the input inside the map.
        before: rows and columns of padding before them.
        size: rows and columns of the output.
    """
    rows, columns = (sum(last - first for first, last, _ in _live(kernel, extent, before, size, at)) for at in (0, 1))
    return rows * columns / float(size.prod() * kernel.size.prod())


def _live(kernel: Kernel, extent: Pairs, before: Pairs, size: Pairs, axis: int) -> list[tuple[int, int, int]]:
    """For each tap along an axis: the outputs [first, last) that it serves from inside the map, and its first input."""
    taps = []
    for tap in range(int(kernel.size[axis])):
        offset = tap * int(kernel.dilation[axis]) - int(before[axis])
        first, last = max(0, -offset), min(int(size[axis]), int(extent[axis]) - offset)
        taps.append((first, max(first, last), first + offset))
    return taps


def tap_by_tap(convolution: Convolution, part: Tensor, before: Pairs, size: Pairs) -> Tensor:
    """The convolution as one with a 1 x 1 kernel for each tap, over the outputs where the tap meets the map."""
    kernel, weight, extent = convolution.kernel, convolution.weight, np.array(part.shape[2:])
    shape = len(part), len(weight), *size.tolist()
    result = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last).zero_()
    if convolution.bias is not None:
        result += convolution.bias[:, None, None]
    for i, (top, bottom, y) in enumerate(_live(kernel, extent, before, size, 0)):
        for j, (left, right, x) in enumerate(_live(kernel, extent, before, size, 1)):
            if bottom > top and right > left:
                inputs = part[:, :, y : y + bottom - top, x : x + right - left]
                result[:, :, top:bottom, left:right] += _conv2d(inputs, weight[:, :, i : i + 1, j : j + 1])
    return result
