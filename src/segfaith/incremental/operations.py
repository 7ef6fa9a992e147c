"""The operations of a graph on windows. Each node of a graph is an operation: `operation_of` says of which kind.

An operation names the nodes whose values it reads (`sources`), the box of each source's map that it reads for a box of
its own map (`needs`), and recomputes its windows inside a box, or a value that is not a map (`apply`).
"""

import operator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from segfaith.incremental.arithmetic import Exact, Function, Values
from segfaith.incremental.bfloat16 import Differences
from segfaith.incremental.convolution import Activation, Convolution, kernel_of
from segfaith.incremental.fused import AS_PRODUCTS
from segfaith.incremental.graph import JOINING_FUNCTIONS, POINTWISE_FUNCTIONS, POINTWISE_MODULES, Graph, Shape
from segfaith.incremental.windows import Box, Kernel, Pairs, Windows, crop, place, whole
from segfaith.types import Tensor

Arithmetic = Exact | Differences

ADDING_FUNCTIONS: set[Any] = {operator.add, operator.sub, torch.add, torch.cat}
AVERAGING: set[Any] = {nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d}
LINEAR: set[Any] = {*AVERAGING, nn.Dropout, nn.Dropout2d, nn.Identity}


@dataclass(frozen=True, eq=False)
class Convolve:
    """A convolution of a map, with the function of each pixel that alone reads it, if there is one."""

    sources: tuple[fx.Node]
    convolution: Convolution
    then: Function | None
    source_size: Pairs
    map_size: Pairs

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """What its kernel reads."""
        return {self.sources[0]: _read(self.convolution.kernel, box, self.source_size)}

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Windows:
        """Recomputes the outputs that read the windows; does not copy a part that lies alike in all images."""
        (source,), kernel = self.sources, self.convolution.kernel
        windows = values[source]
        everything = windows.is_whole and box.size.tolist() == self.map_size.tolist()
        if everything and ((padding := kernel.padding) <= kernel.reach).all():  # a short cut
            part = windows.data, padding, padding
            return whole(arithmetic.convolve(self.convolution, self.then, part, box.starts(1), self.map_size))
        start, size = _changed(kernel, windows, box, arithmetic)
        first, extent = kernel.reads(start, size)
        cropped = crop(windows, first, extent)
        if cropped is None:
            no_padding = np.zeros(2, dtype=np.int64)
            cropped = arithmetic.view(source, windows, first, extent), no_padding, no_padding
        data = arithmetic.convolve(self.convolution, self.then, cropped, start, size)
        return Windows(data, start, self.map_size)


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Max pooling of a map."""

    function: Function
    sources: tuple[fx.Node]
    kernel: Kernel
    source_size: Pairs
    map_size: Pairs

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """What its kernel reads."""
        return {self.sources[0]: _read(self.kernel, box, self.source_size)}

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Windows:
        """Recomputes the outputs that read the windows."""
        (source,), kernel = self.sources, self.kernel
        windows = values[source]
        start, size = _changed(kernel, windows, box, arithmetic)
        first, extent = kernel.reads(start, size)
        part = arithmetic.view(source, windows, first, extent, self.function.fill)
        data = arithmetic.apply(self.function, {source: Windows(part, first, windows.map_size)}, start)
        return Windows(data, start, self.map_size)


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A function of each pixel of a map by itself."""

    function: Function
    sources: tuple[fx.Node]

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """The same box."""
        return {self.sources[0]: box}

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Windows:
        """Recomputes the windows of its source."""
        windows = values[self.sources[0]]
        data = arithmetic.apply(self.function, {self.sources[0]: windows}, windows.start)
        return Windows(data, windows.start, windows.map_size)


@dataclass(frozen=True, eq=False)
class Join:
    """A function of the same pixel of several maps: their sum, difference, product or concatenation."""

    function: Function
    sources: tuple[fx.Node, ...]

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """The same box of each map."""
        return dict.fromkeys(self.sources, box)

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Windows:
        """Recomputes windows around those of all its sources."""
        maps: list[Windows] = [values[source] for source in self.sources]
        if all(windows.is_whole for windows in maps) and box.size.tolist() == maps[0].map_size.tolist():  # a short cut
            inputs = dict(zip(self.sources, maps, strict=True))
            return whole(arithmetic.apply(self.function, inputs, maps[0].start))
        start = np.minimum.reduce([windows.start for windows in maps])
        stop = np.maximum.reduce([windows.stop for windows in maps])
        start, size = place(start, stop, box)
        inputs = {
            source: Windows(arithmetic.view(source, windows, start, size), start, windows.map_size)
            for source, windows in zip(self.sources, maps, strict=True)
        }
        return Windows(arithmetic.apply(self.function, inputs, start), start, maps[0].map_size)


@dataclass(frozen=True, eq=False)
class MapSize:
    """The shape of a map, or an entry of it. The map is not computed for it: only the number of images is unknown.

    Attributes:
        sources: the images.
        shape: for a single image.
        dim: which entry; None: the whole shape.
    """

    sources: tuple[fx.Node]
    shape: Shape
    dim: int | None

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """No part of a map."""
        return {}

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Any:
        """The shape for as many images as there are."""
        shape = torch.Size((len(values[self.sources[0]].data), *self.shape[1:]))
        return shape if self.dim is None else shape[self.dim]


@dataclass(frozen=True, eq=False)
class OnWholeMaps:
    """Any other function: it reads whole maps, and its own map may change everywhere.

    Attributes:
        boxes: the whole map of each source that is a map.
    """

    function: Function
    sources: tuple[fx.Node, ...]
    boxes: dict[fx.Node, Box]

    def needs(self, box: Box) -> dict[fx.Node, Box]:
        """Whole maps."""
        return self.boxes

    def apply(self, values: Values, box: Box, arithmetic: Arithmetic) -> Any:
        """Recomputes the whole map, or whatever else the function gives."""
        inputs = {source: values[source] for source in self.sources}
        for source, everywhere in self.boxes.items():
            windows = inputs[source]
            if not windows.is_whole:
                start = everywhere.starts(len(windows.data))
                inputs[source] = whole(arithmetic.view(source, windows, start, everywhere.size))
        result = arithmetic.apply(self.function, inputs, np.zeros((1, 2), dtype=np.int64))
        return whole(result) if self.function.gives_map else result


Operation = Convolve | MaxPool | Pointwise | Join | MapSize | OnWholeMaps


def operation_of(graph: Graph, node: fx.Node, shapes: dict[fx.Node, Shape | None]) -> Operation:
    """What a node does to windows, for images of the size at which maps have these shapes."""
    sources, callee, shape = tuple(node.all_input_nodes), graph.callee(node), shapes[node]
    maps = {source: known for source in sources if (known := shapes[source]) is not None}
    if len(sources) == len(maps) == 1 and _reads_shape(node):
        return MapSize((graph.image,), maps[sources[0]], _dim(node, None) if node.target == "size" else None)
    boxes = {source: Box(np.zeros(2, dtype=np.int64), np.array(known[2:])) for source, known in maps.items()}
    call = partial(graph.call, node)
    if shape is not None and len(maps) == len(sources) > 0:
        if node.op == "call_module" and len(sources) == 1:
            module, sizes = graph.modules[str(node.target)], (boxes[sources[0]].size, np.array(shape[2:]))
            convolution, kernel = graph.convolutions.get(str(node.target)), kernel_of(module)
            if convolution is not None:
                return Convolve(sources, convolution, None, *sizes)
            if kernel is not None:
                return MaxPool(_max_pooling(node, kernel), sources, kernel, *sizes)
            if callee in POINTWISE_MODULES:
                return _pointwise(graph, Function(node, call, callee in LINEAR, _limits(module)), module, shapes)
        if node.op == "call_function" and {known[2:] for known in maps.values()} == {shape[2:]}:
            if len(sources) == 1 and callee in POINTWISE_FUNCTIONS | JOINING_FUNCTIONS:
                return _pointwise(graph, Function(node, call, limits=_limits(callee)), callee, shapes)
            if callee in JOINING_FUNCTIONS or (callee is torch.cat and _dim(node, 0) == 1):
                return Join(Function(node, call, callee in ADDING_FUNCTIONS), sources)
    multiplies = callee in (operator.mul, torch.mul) and len(sources) == len(maps)
    averages = callee in AVERAGING and len(sources) == 1 and shape is not None and shape[2:] == (1, 1)
    linear, is_map = callee in LINEAR, shape is not None
    function = Function(node, call, linear, gives_map=is_map, multiplies=multiplies, averages=averages)
    return OnWholeMaps(function, sources, boxes)


def _pointwise(
    graph: Graph, function: Function, callee: Any, shapes: dict[fx.Node, Shape | None]
) -> Pointwise | Convolve:
    """A function of each pixel; together with the convolution before it where nothing else reads that."""
    (source,) = function.node.all_input_nodes
    alone = function.node.args == (source,) and not function.node.kwargs
    if alone and type(callee) is not nn.BatchNorm2d:  # its function differs from channel to channel
        kind = type(callee) if isinstance(callee, nn.Module) else callee
        function = replace(function, of_each=AS_PRODUCTS.get(kind, callee))
    convolution = graph.convolutions.get(str(source.target)) if source.op == "call_module" else None
    activation = _activation(callee)
    if convolution is None or activation is None or len(source.users) > 1:
        return Pointwise(function, (source,))
    (origin,) = source.all_input_nodes
    before, after = shapes[origin], shapes[source]
    if before is None or after is None:
        return Pointwise(function, (source,))
    then = replace(function, activation=activation)
    return Convolve((origin,), convolution, then, np.array(before[2:]), np.array(after[2:]))


def _reads_shape(node: fx.Node) -> bool:
    """Whether a node gives the shape of what it reads, or an entry of it."""
    return node.target == "size" if node.op == "call_method" else node.target is getattr and node.args[1:] == ("shape",)


def _dim(node: fx.Node, default: Any) -> Any:
    """The argument `dim` of a call that takes it in the second place."""
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else default)


def _max_pooling(node: fx.Node, kernel: Kernel) -> Function:
    """Max pooling of maps with their padding."""

    def pool(values: Values) -> Tensor:
        (padded,) = values.values()
        size, stride, dilation = (pair.tolist() for pair in (kernel.size, kernel.stride, kernel.dilation))
        return F.max_pool2d(padded, size, stride, 0, dilation)

    return Function(node, pool, fill=-torch.inf)


def _limits(callee: Any) -> tuple[float, float | None] | None:
    """Between what a function or module clamps its input (None: no upper limit); None where it does something else."""
    if type(callee) is nn.Hardtanh:
        return callee.min_val, callee.max_val
    if type(callee) is nn.ReLU6 or callee is F.relu6:
        return 0.0, 6.0
    return (0.0, None) if type(callee) is nn.ReLU or callee in (torch.relu, F.relu) else None


def _activation(callee: Any) -> Activation | None:
    """A function or module as what a convolution does to its outputs; None where none is known."""
    limits = _limits(callee)
    if limits is not None:
        low, high = limits
        if high is None:
            return Activation(F.relu_)
        return Activation(lambda result: F.hardtanh_(result, low, high))
    if type(callee) is nn.Hardswish or callee is F.hardswish:
        return Activation(partial(F.hardswish, inplace=True), "hardswish")
    if type(callee) is nn.SiLU or callee is F.silu:
        return Activation(partial(F.silu, inplace=True), "swish")
    return None


def _read(kernel: Kernel, box: Box, source_size: Pairs) -> Box:
    """The part of the input's map that a kernel reads for a box of the output; where it reads only padding, a pixel."""
    start, size = kernel.reads(box.start, box.size)
    return Box(np.clip(start, 0, source_size - 1), np.clip(start + size, 1, source_size))


def _changed(kernel: Kernel, windows: Windows, box: Box, arithmetic: Arithmetic) -> tuple[Pairs, Pairs]:
    """Starts and size of the output windows to recompute inside `box`.

    They are the outputs that read the input windows. Without a clean map it is the whole box, since outputs that read
    nothing but padding are then computed too.
    """
    start, stop = kernel.changes(windows.start, windows.stop)
    if arithmetic.clean is None:
        start, stop = np.broadcast_to(box.start, start.shape), np.broadcast_to(box.stop, stop.shape)
    return place(start, stop, box)
