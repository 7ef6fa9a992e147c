"""Convolutions on parts of maps, and the choice of how each is computed."""

from collections.abc import Callable
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
        name, scalars: of oneDNN's operation after a convolution.
        apply: the same on a tensor, in place.
    """

    name: str
    scalars: tuple[float, ...]
    apply: Callable[[Tensor], Tensor]


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
        packed: its weights in the order of oneDNN, once they were used.
    """

    kernel: Kernel
    weight: Tensor
    bias: Tensor | None
    groups: int
    winograd: bool = True
    row_weights: list[Tensor] | None = None
    packed: Tensor | None = None
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
    by oneDNN, which applies the activation to its own results. Differences in bfloat16 differ in nothing but their
    weights (`Convolution.linear`).

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
    stride, padding, dilation = kernel.stride.tolist(), before.tolist(), kernel.dilation.tolist()
    if _packs(part.device, part.dtype):
        return _by_onednn(convolution, part, stride, padding, dilation, activation)
    return _activated(F.conv2d(part, weight, bias, stride, padding, dilation, convolution.groups), activation)


def _activated(result: Tensor, activation: Activation | None) -> Tensor:
    return result if activation is None else activation.apply(result)


def _by_onednn(
    convolution: Convolution,
    part: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    activation: Activation | None,
) -> Tensor:
    """The convolution with weights that are brought into oneDNN's order once, and not in each call."""
    if convolution.packed is None:
        given = convolution.weight.detach().to_mkldnn(), padding, stride, dilation, convolution.groups, None
        convolution.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(*given)
    name, scalars = ("none", ()) if activation is None else (activation.name, activation.scalars)
    settings = padding, stride, dilation, convolution.groups, name, list(scalars), ""
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(part, convolution.packed, convolution.bias, *settings)
    return result


@cache
def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch packs weights and applies activations with oneDNN on a device: it is tried once.

    Inductor's code calls these functions; torch has no public ones.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    drawn = torch.Generator().manual_seed(0)
    part, weight = (torch.randn(2, 8, size, size, generator=drawn).to(dtype) for size in (6, 3))
    kernel = Kernel(*(np.full(2, value, dtype=np.int64) for value in (3, 1, 1, 1)))
    trial = Convolution(kernel, weight, None, 1)
    try:
        found = _by_onednn(trial, part, [1, 1], [1, 1], [1, 1], Activation("relu", (), F.relu_))
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(found, F.relu(F.conv2d(part, weight, padding=1)), atol=1e-2)


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
    """The convolution as a matrix product for each tap, over the outputs where the tap meets the map."""
    kernel, weight = convolution.kernel, convolution.weight
    pixels, extent = part.permute(0, 2, 3, 1), np.array(part.shape[2:])
    result = part.new_zeros(len(part), *size.tolist(), len(weight))
    if convolution.bias is not None:
        result += convolution.bias
    for i, (top, bottom, y) in enumerate(_live(kernel, extent, before, size, 0)):
        for j, (left, right, x) in enumerate(_live(kernel, extent, before, size, 1)):
            if bottom > top and right > left:
                inputs = pixels[:, y : y + bottom - top, x : x + right - left]
                result[:, top:bottom, left:right] += inputs @ weight[:, :, i, j].T
    return result.permute(0, 3, 1, 2)
