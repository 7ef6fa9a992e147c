"""What each kind of operation reads, recomputes and gives, by itself, in both arithmetics."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from segfaith.incremental import bfloat16
from segfaith.incremental.arithmetic import Exact, Values
from segfaith.incremental.bfloat16 import Differences
from segfaith.incremental.graph import Graph
from segfaith.incremental.operations import (
    Convolve,
    Join,
    MapSize,
    MaxPool,
    OnWholeMaps,
    Operation,
    Pointwise,
    operation_of,
)
from segfaith.incremental.window_plan import WindowPlan
from segfaith.incremental.windows import Box, Windows

SIZE = (17, 22)


def module_of(layer: nn.Module) -> nn.Module:
    return zoo.randomised(zoo.Of(lambda self, x: self.layer(x), layer=layer)).eval()


def function_of(function: Callable[[Tensor], Any]) -> nn.Module:
    return zoo.Of(lambda self, x: function(x))


def gated(x: Tensor) -> Tensor:
    return x * F.adaptive_avg_pool2d(x, 1)


def with_own_weights() -> nn.Module:
    return zoo.Of(lambda self, x: x * self.factor, factor=torch.rand(1, 3, 1, 1))


CASES: dict[str, tuple[nn.Module, type]] = {
    "convolution": (module_of(nn.Conv2d(3, 4, 3, stride=2, padding=1)), Convolve),
    "overpadded convolution": (module_of(nn.Conv2d(3, 4, 3, padding=4)), Convolve),
    "depthwise convolution": (module_of(nn.Conv2d(3, 6, 3, groups=3, padding=1)), Convolve),
    "reflecting convolution": (module_of(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), OnWholeMaps),
    "transposed convolution": (module_of(nn.ConvTranspose2d(3, 4, 2, stride=2)), OnWholeMaps),
    "max pooling": (module_of(nn.MaxPool2d(3, 2, 1)), MaxPool),
    "max pooling rounded up": (module_of(nn.MaxPool2d(3, 2, ceil_mode=True)), OnWholeMaps),
    "mean pooling": (module_of(nn.AvgPool2d(2)), OnWholeMaps),
    "pooling to a pixel": (module_of(nn.AdaptiveAvgPool2d(1)), OnWholeMaps),
    "dropout": (module_of(nn.Dropout2d()), Pointwise),
    "ReLU": (module_of(nn.ReLU()), Pointwise),
    "hard tanh": (module_of(nn.Hardtanh(0.2, 0.7)), Pointwise),
    "ReLU6 function": (function_of(F.relu6), Pointwise),
    "sigmoid": (function_of(torch.sigmoid), Pointwise),
    "softplus": (function_of(F.softplus), OnWholeMaps),
    "number added": (function_of(lambda x: x + 0.5), Pointwise),
    "square": (function_of(lambda x: x * x), Pointwise),
    "sum": (function_of(lambda x: x + torch.sigmoid(x)), Join),
    "weighted difference": (function_of(lambda x: torch.sub(x, 1) - torch.tanh(x)), Join),
    "product": (function_of(lambda x: torch.tanh(x) * x), Join),
    "concatenation": (function_of(lambda x: torch.cat([x, torch.tanh(x), x], 1)), Join),
    "concatenation of rows": (function_of(lambda x: torch.cat([x, torch.tanh(x)], dim=2)), OnWholeMaps),
    "concatenation of images": (function_of(lambda x: torch.cat([x, torch.tanh(x)])), OnWholeMaps),
    "gate": (function_of(gated), OnWholeMaps),
    "own weights": (with_own_weights(), OnWholeMaps),
    "shape": (function_of(lambda x: x.shape), MapSize),
    "size": (function_of(lambda x: x.size(2)), MapSize),
    "size by name": (function_of(lambda x: x.size(dim=-1)), MapSize),
    "shape of no map": (function_of(lambda x: x.flatten(2).shape), OnWholeMaps),
    "data type": (function_of(lambda x: x.dtype), OnWholeMaps),
}
OTHER_RESULTS = ("concatenation of images", "shape", "size", "size by name", "shape of no map", "data type")
ONE_MAP = [name for name in CASES if name not in OTHER_RESULTS]
"""Cases whose result is a map of a single image."""


def of_case(name: str) -> tuple[Graph, Operation, Values, dict[Any, Any]]:
    """The case's graph, its last operation, and for an image every node's value and the shapes of maps."""
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        graph = Graph(CASES[name][0], image)
        clean = graph.clean(image)
    shapes = graph.map_shapes(clean)
    return graph, operation_of(graph, graph.output, shapes), clean, shapes


def in_box(data: Tensor, box: Box) -> Tensor:
    """The part of maps inside a box."""
    (top, left), (bottom, right) = box.start.tolist(), box.stop.tolist()
    return data[:, :, top:bottom, left:right]


@pytest.mark.parametrize("name", CASES)
def test_every_node_is_an_operation_of_one_kind(name: str) -> None:
    _, operation, _, _ = of_case(name)
    assert type(operation) is CASES[name][1]


@pytest.mark.parametrize("name", ONE_MAP)
def test_an_operation_needs_what_its_result_depends_on(name: str) -> None:
    """The box around the pixels whose gradient is not zero, or whole maps."""
    graph, operation, clean, _ = of_case(name)
    result = clean[graph.output]
    size = np.array(result.shape[2:])
    box = Box(size // 2, np.minimum(size // 2 + np.array([2, 3]), size))
    needed = operation.needs(box)
    assert set(needed) <= set(operation.sources)
    if isinstance(operation, OnWholeMaps):
        assert all(each.start.tolist() == [0, 0] for each in needed.values())
        assert all(each.stop.tolist() == list(clean[source].shape[2:]) for source, each in needed.items())
        return
    leaves = {source: clean[source].detach().clone().requires_grad_() for source in operation.sources}
    weight = torch.rand(result.shape, generator=torch.Generator().manual_seed(1))
    (in_box(graph.call(graph.output, clean | leaves), box) * in_box(weight, box)).sum().backward()
    for source, each in needed.items():
        gradient = leaves[source].grad
        assert gradient is not None
        for axis in (0, 1):
            read = torch.nonzero(gradient.abs().sum((0, 1)).any(1 - axis))[:, 0]
            assert each.start[axis] <= int(read[0])
            assert each.stop[axis] >= int(read[-1]) + 1
            if name not in ("max pooling", "ReLU6 function", "hard tanh"):  # elsewhere every pixel has a gradient
                assert [each.start[axis], each.stop[axis]] == [int(read[0]), int(read[-1]) + 1]


def altered_windows(image: Tensor, alike: bool) -> tuple[Windows, Tensor]:
    """Windows of three altered copies of an image, and the copies: at a corner, or at three places."""
    copies = image.repeat(3, 1, 1, 1)
    start = np.array([[0, 0]] * 3 if alike else [[0, 3], [7, 0], [12, 15]])
    for copy, (top, left), value in zip(copies, start.tolist(), (-0.4, 0.3, 1.2), strict=True):
        copy[:, top : top + 5, left : left + 6] = value
    corners = zip(copies, start.tolist(), strict=True)
    data = torch.stack([copy[:, top : top + 5, left : left + 6] for copy, (top, left) in corners])
    return Windows(data, start, np.array(image.shape[2:])), copies


@pytest.mark.parametrize("arithmetic", ["exact", "differences"])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("name", ONE_MAP)
def test_windows_get_what_the_operation_gives_on_whole_images(
    name: str, alike: bool, arithmetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bfloat16, "SMALL", torch.float32)
    graph, _, clean, shapes = of_case(name)
    windows, copies = altered_windows(clean[graph.image], alike)
    size = np.array(clean[graph.output].shape[2:])
    for box in (Box(np.zeros(2, dtype=np.int64), size), Box(size // 3, size // 3 + 1)):
        plan = WindowPlan(graph, graph.output, shapes, box)
        with torch.no_grad():
            found = plan.evaluate(windows, Exact(clean) if arithmetic == "exact" else Differences(clean))
            expected = torch.cat([CASES[name][0](copy[None]) for copy in copies])
        torch.testing.assert_close(found, in_box(expected, box), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("forward", "alone"),
    [
        (lambda self, x: F.relu(self.layer(x)), True),
        (lambda self, x: F.hardswish(self.layer(x)), True),
        (lambda self, x: torch.sigmoid(self.layer(x)), False),  # not among what a convolution applies here
        (lambda self, x: (y := self.layer(x)) + F.relu(y), False),
        (lambda self, x: F.relu(self.layer(x).tanh()), False),
    ],
)
def test_a_convolution_takes_the_function_that_alone_reads_it(forward: Any, alone: bool) -> None:
    module = zoo.randomised(zoo.Of(forward, layer=nn.Conv2d(3, 4, 3, padding=1))).eval()
    image = torch.rand(1, 3, *SIZE)
    graph = Graph(module, image)
    with torch.no_grad():
        clean = graph.clean(image)
        plan = WindowPlan(
            graph, graph.output, graph.map_shapes(clean), Box(np.zeros(2, dtype=np.int64), np.array(SIZE))
        )
        found = plan.evaluate(
            Windows(clean[graph.image] * 0.5, np.zeros((1, 2), dtype=np.int64), np.array(SIZE)), Exact(clean)
        )
        torch.testing.assert_close(found, module(image * 0.5), rtol=0, atol=1e-6)
    taken = [operation for operation in plan.operations.values() if isinstance(operation, Convolve) and operation.then]
    assert len(taken) == alone
    assert len(plan.operations) == len(graph.nodes) - 2 - alone  # neither the image nor the output's node


def test_a_window_grows_by_the_kernel_and_stays_inside_the_box() -> None:
    graph, operation, clean, _ = of_case("convolution")
    data, start = clean[graph.image][:, :, 6:8, 6:8], np.array([[6, 6]])
    values: Values = {graph.image: Windows(data, start, np.array(SIZE))}
    everywhere = Box(np.zeros(2, dtype=np.int64), np.array([9, 11]))
    result = operation.apply(values, everywhere, Exact(clean))
    assert (result.start.tolist(), result.stop.tolist()) == ([[3, 3]], [[5, 5]])  # outputs 3 and 4 read rows 5 to 9
    assert result.map_size.tolist() == [9, 11]
    result = operation.apply(values, Box(np.array([4, 0]), np.array([9, 4])), Exact(clean))
    assert (result.start.tolist(), result.stop.tolist()) == ([[4, 3]], [[5, 4]])


def test_outputs_that_read_only_padding_are_computed_where_no_clean_map_has_them() -> None:
    graph, operation, clean, _ = of_case("overpadded convolution")
    whole_map = Box(np.zeros(2, dtype=np.int64), np.array(clean[graph.output].shape[2:]))
    start = np.zeros((1, 2), dtype=np.int64)
    values: Values = {graph.image: Windows(clean[graph.image], start, np.array(SIZE))}
    with torch.no_grad():
        result = operation.apply(values, whole_map, Exact(None))
    torch.testing.assert_close(result.data, clean[graph.output], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("shape", (5, 3, 17, 22)), ("size", 17), ("size by name", 22)])
def test_the_size_of_a_map_is_known_without_the_map(name: str, expected: Any) -> None:
    graph, operation, clean, _ = of_case(name)
    values: Values = {graph.image: Windows(torch.rand(5, 3, 2, 2), np.zeros((5, 2), dtype=np.int64), np.array(SIZE))}
    box = Box(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64))
    assert operation.apply(values, box, Exact(clean)) == expected
    assert operation.needs(box) == {}


def test_a_map_of_which_only_the_shape_is_read_is_not_computed() -> None:
    image = torch.rand(1, 3, *SIZE)
    graph = Graph(zoo.randomised(zoo.used_for_its_size()).eval(), image)
    with torch.no_grad():
        shapes = graph.map_shapes(graph.clean(image))
    plan = WindowPlan(graph, graph.output, shapes, Box(np.zeros(2, dtype=np.int64), np.array([2, 2])))
    called = [node.target for node in plan.operations if node.op == "call_module"]
    assert "other" not in called
    assert "head" in called


@pytest.mark.parametrize(
    ("name", "linear", "limits"),
    [
        ("dropout", True, None),
        ("pooling to a pixel", True, None),
        ("sum", True, None),
        ("concatenation", True, None),
        ("product", False, None),
        ("number added", False, None),
        ("sigmoid", False, None),
        ("mean pooling", False, None),
        ("ReLU", False, (0.0, None)),
        ("ReLU6 function", False, (0.0, 6.0)),
        ("hard tanh", False, (0.2, 0.7)),
    ],
)
def test_functions_say_what_they_do_to_differences(name: str, linear: bool, limits: Any) -> None:
    _, operation, _, _ = of_case(name)
    assert isinstance(operation, Pointwise | Join | OnWholeMaps)
    assert (operation.function.linear, operation.function.limits) == (linear, limits)
