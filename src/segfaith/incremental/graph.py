"""A model as the graph that `torch.fx` traces, with its batch norms folded into convolutions.

Convolutions run channels last and take half of the multiplications where they are large (`convolution`). `plan`
evaluates parts of the graph.
"""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from segfaith.incremental.convolution import convolution_of, convolve
from segfaith.incremental.tracing import trace
from segfaith.models.outputs import Step, follow
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
"""The operations that lose no digits on maps whose channels are last in memory. All others get contiguous maps, as from
the model itself: group norms lose most of their digits otherwise where a map is nearly constant."""

Shape = tuple[int, ...]


class NoGraph(Exception):
    """No graph can stand for a module; the message says why, in words for users."""


class Graph:
    """A traced module. Nothing of the module itself is changed; its weights are copied.

    Attributes:
        nodes: in the order of their evaluation.
        image, output: the nodes of the input and of the logits.
        modules: by name; a node that calls a module has its name as `target`.
        convolutions: those that windows can follow, by the module's name.
        shapes: of each node's map, by the image's height and width: see `map_shapes`.

    Args:
        place: the steps that lead to the logits in what the module returns, see `outputs.logits_in`.

    Raises:
        NoGraph: hooks would not run in a graph.
        Exception: whatever tracing raises for a module that cannot be traced.
    """

    def __init__(self, module: nn.Module, image: Float[Tensor, "1 bands H W"], place: tuple[Step, ...] = ()) -> None:
        _refuse_hooks(module)
        self.shapes: dict[torch.Size, dict[fx.Node, Shape | None]] = {}
        traced = trace(module, image).float().to(memory_format=torch.channels_last)
        self._owner = fx.Interpreter(traced)
        self.modules = dict(traced.named_modules())
        self.nodes: list[fx.Node] = list(traced.graph.nodes)  # type: ignore[union-attr, arg-type]
        (self.image,) = (node for node in self.nodes if node.op == "placeholder")
        self.output = _logits_node(self.nodes[-1].args[0], place)
        for part in self.modules.values():
            if hasattr(part, "inplace"):
                part.inplace = False  # the clean image's features are kept
        for node in self.nodes:  # nor do functions work in place
            if node.target in (operator.iadd, operator.imul):
                node.target = operator.add if node.target is operator.iadd else operator.mul
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        known = {name: convolution_of(part) for name, part in self.modules.items()}
        self.convolutions = {name: convolution for name, convolution in known.items() if convolution is not None}

    def clean(self, image: Float[Tensor, "1 bands H W"]) -> dict[fx.Node, Any]:
        """Every node's value for an image, from whole maps."""
        values: dict[fx.Node, Any] = {self.image: image.contiguous(memory_format=torch.channels_last)}
        for node in self.nodes[:-1]:
            convolution = self.convolutions.get(str(node.target)) if node.op == "call_module" else None
            if convolution is not None and (data := values[node.all_input_nodes[0]]).ndim == 4:
                padding = convolution.kernel.padding
                size = convolution.kernel.outputs(np.array(data.shape[2:]), padding)
                values[node] = convolve(convolution, data, padding, padding, size, skip_dead_taps=False)
            elif node is not self.image:
                values[node] = self.call(node, values)
        return values

    def map_shapes(self, clean: Mapping[fx.Node, Any]) -> dict[fx.Node, Shape | None]:
        """The shape of each node's map; None for values that are not maps of the image's features.

        Args:
            clean: every node's value for an image.
        """
        shapes: dict[fx.Node, Shape | None] = {}
        from_image = {self.image}
        for node, value in clean.items():
            if not from_image.isdisjoint(node.all_input_nodes):
                from_image.add(node)
            is_map = isinstance(value, Tensor) and value.ndim == 4 and len(value) == 1 and value.is_floating_point()
            shapes[node] = tuple(value.shape) if is_map and node in from_image else None
        return shapes

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls; None where it does something else."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def callee(self, node: fx.Node) -> Any:
        """What a node calls: the class of its module, or its function, or the name of its method."""
        module = self.module(node)
        return node.target if module is None else type(module)

    def call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """What the node computes from the plain values of the nodes that it reads."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        callee = self.callee(node)
        if _works_in_place(callee):
            args, kwargs = _copied(args), _copied(kwargs)
        elif callee not in CHANNELS_LAST:
            args, kwargs = _contiguous(args), _contiguous(kwargs)
        module = self.module(node)
        return getattr(self._owner, node.op)(node.target, args, kwargs) if module is None else module(*args, **kwargs)

    @property
    def uses_winograd(self) -> bool:
        """Whether `winograd` has computed any of its convolutions."""
        return any(convolution.row_weights is not None for convolution in self.convolutions.values())

    def allow_winograd(self, allowed: bool) -> None:
        """Whether `winograd` may compute large convolutions, as it may at first."""
        for convolution in self.convolutions.values():
            convolution.winograd, convolution.row_weights = allowed, None


def _refuse_hooks(module: nn.Module) -> None:
    """Raises NoGraph where hooks may change what the module computes; transformers sets some that record outputs."""
    tables = [hooks for part in module.modules() for hooks in (part._forward_hooks, part._forward_pre_hooks)]
    owners = {str(getattr(hook, "__module__", "")).partition(".")[0] for hooks in tables for hook in hooks.values()}
    if owners:
        whose = f" of {', '.join(sorted(owners - {''}))}" if owners - {""} else ""
        raise NoGraph(
            f"its parts have forward hooks{whose}, which would not run in a graph; the model itself scores all images, "
            "which only takes longer"
        )


def _contiguous(values: Any) -> Any:
    """Arguments of a node, with each tensor among them contiguous in memory."""
    return fx.node.map_aggregate(values, lambda value: value.contiguous() if isinstance(value, Tensor) else value)


def _works_in_place(callee: Any) -> bool:
    """Whether a function or method changes what it reads, such as `relu_`."""
    name = callee if isinstance(callee, str) else getattr(callee, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _copied(values: Any) -> Any:
    """Arguments of a node, with a contiguous copy of each tensor among them."""
    return fx.node.map_aggregate(
        values,
        lambda value: value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value,
    )


def _logits_node(output: Any, place: tuple[Step, ...]) -> fx.Node:
    """The node of the logits in what a traced module returns."""
    for step in place:
        output = follow(output, step)
    if not isinstance(output, fx.Node):
        raise ValueError(f"the traced module returns a {type(output).__name__} where its logits should be")
    return output
