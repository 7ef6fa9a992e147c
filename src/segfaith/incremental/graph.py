r"""A model as a graph that is evaluated on windows: only what an alteration changes and what the target's score reads.

Incremental inference of convolutional networks (Nakandala et al., SIGMOD 2019, "Incremental and approximate inference
for faster occlusion-based deep CNN explanations"), written over the graph that `torch.fx` traces. From the image
forwards, each layer recomputes the window that a local change can have reached and takes the rest from the clean
image's features. From the score backwards, each layer computes no more than the target region reads. An operation that
is not known here gets whole maps, so any traceable model is served, and exactly.

Convolutions are folded with batch norms, run channels last, skip the taps of dilated kernels that only meet zero
padding, and take half of the multiplications where they are large (`winograd`).
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from segfaith.incremental.kernels import convolve, is_sparse, kernel_of, tap_by_tap
from segfaith.incremental.tracing import trace
from segfaith.incremental.windows import Box, Pairs, Windows, crop, place, view, whole
from segfaith.incremental.winograd import convolve_rows, pays, transformed
from segfaith.types import Float, Tensor

POINTWISE_MODULES = {
    nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
    nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid, nn.Tanh,
}  # fmt: skip
POINTWISE_FUNCTIONS: set[Any] = {torch.relu, torch.sigmoid, torch.tanh, F.relu, F.relu6, F.silu, F.gelu, F.hardswish}
JOINING_FUNCTIONS: set[Any] = {operator.add, operator.mul, operator.sub, torch.add, torch.mul}
CHANNELS_LAST: set[Any] = {
    *POINTWISE_MODULES, *POINTWISE_FUNCTIONS, *JOINING_FUNCTIONS, nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d,
    nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Upsample, nn.UpsamplingBilinear2d, nn.ZeroPad2d, F.adaptive_avg_pool2d,
    F.avg_pool2d, F.batch_norm, F.conv2d, F.interpolate, F.pad, operator.getitem, torch.cat, "mean", "permute",
    getattr, "size",
}  # fmt: skip
"""What loses nothing on maps whose channels are last in memory. All else gets contiguous ones, as from the model
itself: group norms lose most of their digits otherwise where a map is nearly constant."""

Shape = tuple[int, ...]


class Graph:
    """A traced module. Nothing of the module itself is changed; its weights are copied.

    Raises:
        Exception: whatever tracing raises for a module that cannot be traced.
    """

    def __init__(self, module: nn.Module, image: Float[Tensor, "1 3 H W"]) -> None:
        if any(one._forward_hooks or one._forward_pre_hooks for one in module.modules()):
            raise ValueError("the module has forward hooks, which a traced graph would not call")
        self.small_weights: dict[fx.Node, Tensor] = {}  # of convolutions, in bfloat16, once they are asked for
        self.winograd = True  # whether large convolutions may be done by `winograd`
        self.row_weights: dict[Any, list[Tensor]] = {}  # of `winograd`, by module, once they are asked for
        self.shapes: dict[torch.Size, dict[fx.Node, Shape | None]] = {}  # by the image's height and width
        traced = trace(module, image).float().to(memory_format=torch.channels_last)
        self.owner = fx.Interpreter(traced)
        self.modules = dict(traced.named_modules())
        self.nodes: list[fx.Node] = list(traced.graph.nodes)  # type: ignore[union-attr, arg-type]
        (self.image,) = (node for node in self.nodes if node.op == "placeholder")
        self.output = _logits_node(self.nodes[-1].args[0])
        for one in self.modules.values():
            if hasattr(one, "inplace"):
                one.inplace = False  # the clean image's features are kept
        for node in self.nodes:  # nor do functions work in place
            if node.target in (operator.iadd, operator.imul):
                node.target = operator.add if node.target is operator.iadd else operator.mul
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        self.dynamic = {self.image}
        for node in self.nodes:
            if not self.dynamic.isdisjoint(node.all_input_nodes):
                self.dynamic.add(node)
        kernels = {node: kernel_of(self.modules[str(node.target)]) for node in self.nodes if node.op == "call_module"}
        self.kernels = {node: kernel for node, kernel in kernels.items() if kernel is not None}

    def clean(self, image: Float[Tensor, "1 3 H W"]) -> dict[fx.Node, Any]:
        """Every node's value for one image, by the arithmetic of altered ones."""
        values: dict[fx.Node, Any] = {self.image: image.contiguous(memory_format=torch.channels_last)}
        for node in self.nodes[:-1]:
            if node is self.image:
                continue
            if isinstance(self.modules.get(str(node.target)), nn.Conv2d) and node in self.kernels:
                kernel, data = self.kernels[node], values[node.all_input_nodes[0]]
                size = kernel.outputs(np.array(data.shape[-2:]))
                if data.ndim == 4 and self.by_winograd(node, size):
                    values[node] = self.convolve_rows(node, data, tuple(kernel.padding.tolist()), size)
                    continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = self.call(node, args, kwargs)
        return values

    def by_winograd(self, node: fx.Node, size: Pairs) -> bool:
        """Whether a convolution takes half of the multiplications for `size` outputs."""
        return self.winograd and pays(self.modules[str(node.target)], self.kernels[node], size)

    def convolve_rows(self, node: fx.Node, data: Tensor, padding: tuple[int, int], size: Pairs) -> Tensor:
        """The convolution so done."""
        module = self.modules[str(node.target)]
        if node.target not in self.row_weights:
            self.row_weights[node.target] = transformed(module.weight)
        return convolve_rows(self.kernels[node], self.row_weights[node.target], module.bias, data, padding, size)

    def kind(self, node: fx.Node) -> Any:
        """The class of a node's module, or its function or method."""
        return type(self.modules[str(node.target)]) if node.op == "call_module" else node.target

    def call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What the node does, on plain values."""
        if self.kind(node) not in CHANNELS_LAST:
            args, kwargs = _contiguous(args), _contiguous(kwargs)
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        return getattr(self.owner, node.op)(node.target, args, kwargs)


class Plan:
    """What of each map of a graph must be computed so that the logits are known on `box` of the output's map."""

    def __init__(self, graph: Graph, output: fx.Node, shapes: dict[fx.Node, Shape | None], box: Box) -> None:
        self.graph, self.output, self.shapes, self.box = graph, output, shapes, box
        self.kinds = {node: self._kind(node) for node in graph.nodes[:-1]}
        self.needs: dict[fx.Node, Box] = {output: box}
        used = {output}
        for node in reversed(graph.nodes[: graph.nodes.index(output) + 1]):
            if node not in used:
                continue
            if self.kinds[node] != "shape" or shapes[node.all_input_nodes[0]] is None:
                used.update(node.all_input_nodes)
            self._require(node)
        self.steps = [node for node in graph.nodes if node in used and node is not graph.image]
        self.dense = {node for node in self.steps if self._dense(node)}
        self.frees: dict[fx.Node, list[fx.Node]] = {}
        seen: set[fx.Node] = set()
        for node in reversed(self.steps):
            self.frees[node] = [one for one in node.all_input_nodes if one not in seen]
            seen.update(node.all_input_nodes)

    def map_size(self, node: fx.Node) -> Pairs:
        """Rows and columns of a node's whole map."""
        shape = self.shapes[node]
        assert shape is not None
        return np.array(shape[2:])

    def _kind(self, node: fx.Node) -> str:
        """How the node treats windows: `kernel`, `pointwise`, `joining`, `shape`, or `other`: it needs whole maps."""
        inputs = node.all_input_nodes
        if not inputs:
            return "other"
        if (node.target is getattr and node.args[1] == "shape") or (node.op, node.target) == ("call_method", "size"):
            return "shape"
        shapes = [self.shapes[one] for one in [node, *inputs]]
        if any(shape is None for shape in shapes) or not self.graph.dynamic.issuperset(inputs):
            return "other"
        if node.op == "call_module" and len(inputs) == 1:
            if node in self.graph.kernels:
                return "kernel"
            return "pointwise" if type(self.graph.modules[str(node.target)]) in POINTWISE_MODULES else "other"
        if len({shape[2:] for shape in shapes}) > 1 or node.op != "call_function":  # type: ignore[index]
            return "other"
        if node.target in POINTWISE_FUNCTIONS and len(inputs) == 1:
            return "pointwise"
        if node.target is torch.cat:
            dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            return "joining" if dim == 1 else "other"
        if node.target in JOINING_FUNCTIONS:
            return "joining" if len(inputs) > 1 else "pointwise"
        return "other"

    def _dense(self, node: fx.Node) -> bool:
        """Whether the node is done as the model does it once its inputs are whole maps."""
        if self.kinds[node] == "shape" or self.shapes[node] is None:
            return False
        size = self.map_size(node)
        if (self.needs[node].size < size).any():
            return False
        module = self.graph.modules.get(str(node.target)) if self.kinds[node] == "kernel" else None
        if not isinstance(module, nn.Conv2d):
            return True
        kernel = self.graph.kernels[node]
        if self._by_winograd(node, size):
            return False
        return not is_sparse(module, kernel, self.map_size(node.all_input_nodes[0]), kernel.padding, size)

    def _require(self, node: fx.Node) -> None:
        """Adds to the needs of a node's inputs what the node reads for its own."""
        kind = self.kinds[node]
        for one in node.all_input_nodes:
            if kind == "shape" or self.shapes[one] is None:
                continue
            everything = Box(np.zeros(2, dtype=np.int64), self.map_size(one))
            box = everything
            if kind in ("pointwise", "joining"):
                box = self.needs[node]
            elif kind == "kernel":
                start, size = self.graph.kernels[node].reads(self.needs[node].start, self.needs[node].size)
                box = Box(np.maximum(start, 0), np.minimum(start + size, everything.stop))
            self.needs[one] = box.hull(self.needs.get(one))

    def evaluate(self, images: Windows, clean: dict[fx.Node, Any] | None) -> Float[Tensor, "B C h w"]:
        """The output on `box` for B altered images, given as windows of the clean image whose values are `clean`.

        Without `clean` the windows must be whole images.
        """
        values: dict[fx.Node, Any] = {self.graph.image: images}
        for node in self.steps:
            kind = self.kinds[node]
            inputs = {} if kind == "shape" else {one: values[one] for one in node.all_input_nodes}
            if kind == "shape":
                values[node] = self._shape(node, len(images.data), values)
            elif node in self.dense and all(self._is_whole(one, value) for one, value in inputs.items()):
                maps = {one: value.data if isinstance(value, Windows) else value for one, value in inputs.items()}
                values[node] = whole(self._apply(node, maps, clean, np.zeros_like(images.start)))
            elif kind == "kernel":
                values[node] = self._kernel(node, values, clean)
            elif kind == "pointwise":
                ((one, windows),) = inputs.items()
                values[node] = Windows(self._apply(node, {one: windows.data}, clean, windows.start), windows.start)
            elif kind == "joining":
                values[node] = self._join(node, values, clean)
            else:
                values[node] = self._other(node, values, clean)
            for one in self.frees[node]:
                values.pop(one, None)
        box = self.needs[self.output]
        return self._view(self.output, values, clean, np.broadcast_to(box.start, images.start.shape), box.size)

    def _is_whole(self, node: fx.Node, value: Any) -> bool:
        """Whether all of the map may have changed; what is no map counts as one."""
        return not isinstance(value, Windows) or value.data.shape[2:] == self.shapes[node][2:]  # type: ignore[index]

    def _apply(self, node: fx.Node, inputs: dict[fx.Node, Any], clean: Any, start: Pairs) -> Any:
        """The node on plain values; maps are whole, or windows at `start`."""
        return self.graph.call(node, *fx.node.map_arg((node.args, node.kwargs), inputs.__getitem__))

    def _pool(self, node: fx.Node, values: dict[fx.Node, Any], clean: Any, start: Pairs, size: Pairs) -> Tensor:
        """Max pooling on the node's windows."""
        (source,), module = node.all_input_nodes, self.graph.modules[str(node.target)]
        part = self._view(source, values, clean, *self.graph.kernels[node].reads(start, size), -torch.inf)
        return F.max_pool2d(part, module.kernel_size, module.stride, 0, module.dilation)

    def _weights(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """A convolution's weights and bias."""
        module = self.graph.modules[str(node.target)]
        return module.weight, module.bias

    def _view(
        self, node: fx.Node, values: dict[fx.Node, Any], clean: Any, start: Pairs, size: Pairs, fill: float = 0.0
    ) -> Tensor:
        return view(values[node], clean and clean[node], self.map_size(node), start, size, fill)

    def _shape(self, node: fx.Node, images: int, values: dict[fx.Node, Any]) -> Any:
        source = node.all_input_nodes[0]
        shape = self.shapes[source]
        if shape is None:
            return self.graph.call(node, *fx.node.map_arg((node.args, node.kwargs), values.__getitem__))
        size = torch.Size((images, *shape[1:]))
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        return size if node.target is getattr or dim is None else size[dim]  # type: ignore[index]

    def _kernel(self, node: fx.Node, values: dict[fx.Node, Any], clean: Any) -> Windows:
        module, kernel = self.graph.modules[str(node.target)], self.graph.kernels[node]
        (source,) = node.all_input_nodes
        windows: Windows = values[source]
        need = self.needs[node]
        changed = kernel.changes(windows.start, windows.stop)
        if clean is None:  # everything, and what reads nothing but padding too
            changed = (
                np.broadcast_to(need.start, windows.start.shape),
                np.broadcast_to(need.stop, windows.start.shape),
            )
        start, size = place(*changed, need)
        if not isinstance(module, nn.Conv2d):
            return Windows(self._pool(node, values, clean, start, size), start)
        weight, bias = self._weights(node)
        reads, extent = kernel.reads(start, size)
        found = crop(windows, self.map_size(source), reads, extent)
        if found is not None:
            part, before, after = found
            if is_sparse(module, kernel, np.array(part.shape[2:]), before, size):
                return Windows(tap_by_tap(kernel, weight, bias, part, before, size), start)
            if (before == after).all():
                return Windows(self._convolve(node, part, tuple(before.tolist()), size), start)
        part = self._view(source, values, clean, reads, extent)
        return Windows(self._convolve(node, part, (0, 0), size), start)

    def _convolve(self, node: fx.Node, part: Tensor, padding: tuple[int, int], size: Pairs) -> Tensor:
        if self._by_winograd(node, size):
            return self.graph.convolve_rows(node, part, padding, size)
        return convolve(self.graph.modules[str(node.target)], *self._weights(node), part, padding)

    def _by_winograd(self, node: fx.Node, size: Pairs) -> bool:
        return self.graph.by_winograd(node, size)

    def _join(self, node: fx.Node, values: dict[fx.Node, Any], clean: Any) -> Windows:
        inputs = node.all_input_nodes
        start = np.minimum.reduce([values[one].start for one in inputs])
        stop = np.maximum.reduce([values[one].stop for one in inputs])
        start, size = place(start, stop, self.needs[node])
        views = {one: self._view(one, values, clean, start, size) for one in inputs}
        return Windows(self._apply(node, views, clean, start), start)

    def _other(self, node: fx.Node, values: dict[fx.Node, Any], clean: Any) -> Any:
        inputs = {one: values[one] for one in node.all_input_nodes}
        for one, value in inputs.items():
            if isinstance(value, Windows):
                inputs[one] = self._view(one, values, clean, np.zeros_like(value.start), self.map_size(one))
        start = np.zeros((1, 2), dtype=np.int64)
        result = self._apply(node, inputs, clean, start)
        return whole(result) if self.shapes[node] is not None else result


def _contiguous(values: Any) -> Any:
    """Arguments of a node, with each tensor among them contiguous in memory."""
    return fx.node.map_aggregate(values, lambda one: one.contiguous() if isinstance(one, Tensor) else one)


def _logits_node(output: Any) -> fx.Node:
    """The node of the logits in what a traced module returns: see `models.segmentation`."""
    while not isinstance(output, fx.Node):
        output = output["out" if "out" in output else "logits"] if isinstance(output, dict) else output[0]
    return output
