r"""Differences from the clean image's features in bfloat16: half the bits where they cost most, and few errors.

In bfloat16 a feature is rounded to 2^-9 of its own size, however small the change that an alteration made to it; a
score's drop is then lost in the rounding of what did not matter. Here the windows hold differences d from the clean
features c, which stay in float32:

    convolution              d' = W d                          in bfloat16, without the bias
    sum, concatenation       the same of the differences
    clamp(., low, high)      d' = clamp(d - (p - c), low - p, high - p), p = clamp(c), in bfloat16
    anything else            d' = f(c + d) - f(c)              in float32

so that rounding is relative to the change itself. Outside the windows differences are 0.
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from segfaith.incremental.graph import Graph, Plan
from segfaith.incremental.kernels import convolve
from segfaith.incremental.windows import Pairs, Windows, cut
from segfaith.types import Float, Tensor

ADDING: set[Any] = {operator.add, operator.sub, torch.add, torch.cat}
LINEAR_MODULES = {nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity}

SMALL = torch.bfloat16


class Differences(Plan):
    """A plan whose windows hold differences from the features of one image, always the same."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.clamps: dict[fx.Node, Tensor] = {}  # p - c, low - p and high - p as channels of one map

    def evaluate(self, images: Windows, clean: dict[fx.Node, Any] | None) -> Float[Tensor, "B C h w"]:
        """As `Plan.evaluate`; the clean image's values are needed."""
        assert clean is not None
        difference = images.data - cut(clean[self.graph.image], images.start, images.size)
        result = super().evaluate(Windows(difference.to(SMALL), images.start), clean)
        start, stop = self.box.start, self.box.stop
        found: Tensor = clean[self.output]
        return found[:, :, start[0] : stop[0], start[1] : stop[1]] + result

    def _apply(self, node: fx.Node, inputs: dict[fx.Node, Any], clean: Any, start: Pairs) -> Any:
        if node in self.graph.kernels and isinstance(module := self.graph.modules[str(node.target)], nn.Conv2d):
            (data,) = inputs.values()
            return convolve(module, *self._weights(node), data, module.padding)
        if self._is_linear(node):
            return super()._apply(node, inputs, clean, start)
        limits = _limits(self.graph, node) if self.kinds[node] == "pointwise" else None
        if limits is not None:
            (difference,) = inputs.values()
            return self._clamp(node, limits, difference, clean, start)
        full = {
            one: value if self.shapes[one] is None else value + _at(clean[one], start, value)
            for one, value in inputs.items()
        }
        result = super()._apply(node, full, clean, start)
        if self.shapes[node] is None:
            return result
        return (result - _at(clean[node], start, result)).to(SMALL)

    def _clamp(
        self, node: fx.Node, limits: tuple[float, float | None], difference: Tensor, clean: Any, start: Pairs
    ) -> Tensor:
        (low, high), clamped = limits, clean[node]
        if node not in self.clamps:
            (source,) = node.all_input_nodes
            terms = [clamped - clean[source], low - clamped, *([] if high is None else [high - clamped])]
            self.clamps[node] = torch.cat(terms, 1).to(SMALL)
        beyond, least, *most = _at(self.clamps[node], start, difference).tensor_split(2 if high is None else 3, 1)
        result = difference - beyond
        torch.maximum(result, least, out=result)
        return torch.minimum(result, most[0], out=result) if most else result

    def _pool(self, node: fx.Node, values: dict[fx.Node, Any], clean: Any, start: Pairs, size: Pairs) -> Tensor:
        (source,), module = node.all_input_nodes, self.graph.modules[str(node.target)]
        reads, extent = self.graph.kernels[node].reads(start, size)
        part = self._view(source, values, clean, reads, extent) + cut(clean[source], reads, extent, -torch.inf)
        result = F.max_pool2d(part, module.kernel_size, module.stride, 0, module.dilation)
        return (result - cut(clean[node], start, size)).to(SMALL)

    def _weights(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        if node not in self.graph.small_weights:
            self.graph.small_weights[node] = self.graph.modules[str(node.target)].weight.to(SMALL)
        return self.graph.small_weights[node], None

    def _by_winograd(self, node: fx.Node, size: Pairs) -> bool:
        return False

    def _view(
        self, node: fx.Node, values: dict[fx.Node, Any], clean: Any, start: Pairs, size: Pairs, fill: float = 0.0
    ) -> Tensor:
        return super()._view(node, values, None, start, size, fill)  # outside windows nothing differs

    def _is_linear(self, node: fx.Node) -> bool:
        """Whether the node does to differences what it does to values."""
        if node.op == "call_module":
            return type(self.graph.modules[str(node.target)]) in LINEAR_MODULES
        if node.target in ADDING:
            return self.kinds[node] == "joining"
        return node.target is F.adaptive_avg_pool2d


def _at(clean: Tensor, start: Pairs, like: Tensor) -> Tensor:
    """The clean image's map where the windows `like` lie: at `start`, or everywhere."""
    return clean if like.shape[2:] == clean.shape[2:] else cut(clean, start, np.array(like.shape[2:]))


def _limits(graph: Graph, node: fx.Node) -> tuple[float, float | None] | None:
    """Between what a node clamps its input (None: no upper limit), or None where it does something else."""
    module = graph.modules[str(node.target)] if node.op == "call_module" else None
    if type(module) is nn.Hardtanh:
        return module.min_val, module.max_val
    if type(module) is nn.ReLU6 or node.target is F.relu6:
        return 0.0, 6.0
    return (0.0, None) if type(module) is nn.ReLU or node.target in (torch.relu, F.relu) else None
