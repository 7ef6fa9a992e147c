r"""Differences from the clean image's features in bfloat16: half the bits where they cost most, and few errors.

bfloat16 rounds a feature to 2^-9 of its own size, however little an alteration changed it; a score's drop is then lost
in the rounding of what did not change. Here the windows hold differences d from the clean features c, which stay in
float32:

    convolution              d' = W d                          in bfloat16, without the bias
    sum, concatenation       the same of the differences
    anything else            d' = f(c + d) - f(c)              in float32

so that rounding is relative to the change itself. Outside the windows differences are 0. Functions of each value, and
factors of channels, are computed by compiled code where there is any (`fused`). Where there is none, clamps are

    clamp(., low, high)      d' = clamp(d - (p - c), low - p, high - p), p = clamp(c), in bfloat16
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from segfaith.incremental.arithmetic import Function, Part, Values
from segfaith.incremental.convolution import Convolution, convolve
from segfaith.incremental.fused import COMPILER, Pixelwise, difference, product_difference
from segfaith.incremental.windows import Box, Pairs, Windows, cut, pixel_numbers, view
from segfaith.types import Float, Tensor

SMALL = torch.bfloat16


class Differences:
    """The arithmetic of differences from the features `clean` of a single image."""

    def __init__(self, clean: Values) -> None:
        self.clean = clean
        self._clamps: dict[fx.Node, Tensor] = {}  # p - c, low - p and high - p as channels of a map

    def enter(self, image: fx.Node, images: Windows) -> Windows:
        """Differences from the clean image."""
        difference = images.data - cut(self.clean[image], images.start, images.size)
        return Windows(difference.to(SMALL), images.start, images.map_size)

    def view(self, node: fx.Node, windows: Windows, start: Pairs, size: Pairs, fill: float = 0.0) -> Tensor:
        """Outside the windows, and outside the map, nothing differs."""
        return view(windows, None, start, size)

    def convolve(self, exact: Convolution, then: Function | None, part: Part, start: Pairs, size: Pairs) -> Tensor:
        """In bfloat16, without the bias; then the function."""
        data = convolve(exact.linear(SMALL), *part, size)
        if then is None:
            return data
        (source,) = then.node.all_input_nodes
        windows = Windows(data, start, np.array(self.clean[source].shape[2:]))
        result: Tensor = self.apply(then, {source: windows}, start)
        return result

    def apply(self, function: Function, inputs: Values, start: Pairs) -> Any:
        """By the list above, from windows of differences and values that are not maps."""
        if function.averages:
            ((_, windows),) = inputs.items()
            data: Tensor = windows.data
            if data.device.type == "cpu":  # there adaptive pooling copies all to float32
                return F.avg_pool2d(data, (data.shape[2], data.shape[3]))
        if function.linear:
            return function(inputs)
        if function.of_each is not None and COMPILER.serves(next(iter(inputs.values())).data):
            ((source, windows),) = inputs.items()
            changed = self._at_once(function.of_each, source, windows)
            if changed is not None:
                return changed
        if function.multiplies and len(inputs) == 2:
            changed = self._scaled(inputs)
            if changed is not None:
                return changed
        if function.limits is not None:
            ((source, windows),) = inputs.items()
            return self._clamp(function.node, source, *function.limits, windows)
        features = {
            node: value.data + cut(self.clean[node], value.start, value.size, function.fill)
            if isinstance(value, Windows)
            else value
            for node, value in inputs.items()
        }
        result = function(features)
        if not function.gives_map:
            return result
        return (result - cut(self.clean[function.node], start, np.array(result.shape[2:]))).to(SMALL)

    def leave(self, output: fx.Node, windows: Windows, box: Box) -> Float[Tensor, "B C h w"]:
        """The clean features plus the differences, in float32."""
        clean = cut(self.clean[output], box.starts(1), box.size)
        return clean + self.view(output, windows, box.starts(len(windows.data)), box.size)

    def _at_once(self, function: Pixelwise, source: fx.Node, windows: Windows) -> Tensor | None:
        """f(c + d) - f(c) by compiled code; None where there is none."""
        (images, channels, height, width), clean = windows.data.shape, self.clean[source]
        change, features = (data.permute(0, 2, 3, 1).reshape(-1, channels) for data in (windows.data, clean))
        start = np.broadcast_to(windows.start, (images, 2))
        pixels = torch.from_numpy(pixel_numbers(start, windows.size, windows.map_size).ravel())
        changed = COMPILER.call(repr(function), partial(difference, function), change, features, pixels)
        return None if changed is None else changed.view(images, height, width, channels).permute(0, 3, 1, 2)

    def _scaled(self, inputs: Values) -> Tensor | None:
        """A whole map times a factor for each channel, by compiled code; None for other maps, or without such code."""
        (factor, factors), (source, windows) = sorted(inputs.items(), key=lambda item: item[1].map_size.prod())
        sizes = windows.map_size.prod(), factors.map_size.prod()
        if min(len(windows.data), sizes[0]) == 1 or sizes[1] > 1 or not windows.is_whole:  # 1 would be compiled anew
            return None
        maps = windows.data, self.clean[source], factors.data, self.clean[factor]
        rows = [data.permute(0, 2, 3, 1).flatten(1, 2).contiguous() for data in maps]
        changed = COMPILER.call("product", product_difference, *rows)
        height, width = windows.map_size.tolist()
        return None if changed is None else changed.view(len(changed), height, width, -1).permute(0, 3, 1, 2)

    def _clamp(self, node: fx.Node, source: fx.Node, low: float, high: float | None, windows: Windows) -> Tensor:
        if node not in self._clamps:
            clamped = self.clean[node]
            terms = [clamped - self.clean[source], low - clamped, *([] if high is None else [high - clamped])]
            self._clamps[node] = torch.cat(terms, 1).to(SMALL)
        limits = cut(self._clamps[node], windows.start, windows.size)
        beyond, least, *most = limits.tensor_split(2 if high is None else 3, 1)
        result = windows.data - beyond
        torch.maximum(result, least, out=result)
        return torch.minimum(result, most[0], out=result) if most else result
