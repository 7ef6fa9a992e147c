"""Traces a module. What its `forward` asks of sizes is answered as for the image that it is traced with."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.utils._pytree import tree_leaves

from segfaith.types import Float, Tensor


def trace(module: nn.Module, image: Float[Tensor, "1 bands H W"]) -> nn.Module:
    """A copy of the module as a graph, its batch norms folded into convolutions.

    A branch that sizes alone decide, such as a check that 32 divides the image's, is taken as for `image`. Whether the
    graph holds for images of another size is for its check to find.

    Raises:
        Exception: whatever tracing raises for a module that cannot be traced.
    """
    root = _copy(module)
    graph = _Tracer(root, image).trace(root)
    return fuse(fx.GraphModule(root, graph), inplace=True, no_trace=True)


def _copy(module: nn.Module) -> nn.Module:
    """A copy of a module, also where it keeps maps of an earlier pass, which torch does not copy."""
    kept = (value for part in module.modules() for value in tree_leaves(list(vars(part).values())))
    maps = [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]
    return deepcopy(module, {id(value): value.detach() for value in maps})


class _Tracer(fx.Tracer):
    """Knows the size of every map. Once a size is asked for, it runs the traced nodes on tensors without values."""

    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.module, self.image = module, torch.empty_like(image, device="meta")
        self.sizes: fx.Interpreter | None = None
        self.known: dict[fx.Node, Any] = {}
        self.running = False

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The truth of a condition on sizes. A condition on a map's values is refused, as by any tracer."""
        value = self._value(obj.node)
        return super().to_bool(obj) if isinstance(value, Tensor) else bool(value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Over the sizes of a map, or over several maps."""
        try:
            return super().iter(obj)
        except fx.proxy.TraceError:
            if isinstance(value := self._value(obj.node), Tensor):
                raise
            return iter([obj[i] for i in range(len(value))])  # type: ignore[index]

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Nothing is traced while sizes are computed."""
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Nor are parameters."""
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        self.running = True
        try:
            if self.sizes is None:
                self.sizes = fx.Interpreter(deepcopy(self.module).to("meta"), graph=node.graph)
            for each in node.graph.nodes:
                if each not in self.known:
                    self.known[each] = self.image if each.op == "placeholder" else self._run(self.sizes, each)
        finally:
            self.running = False
        return self.known[node]

    def _run(self, sizes: fx.Interpreter, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.known.__getitem__)
        return getattr(sizes, node.op)(node.target, args, kwargs)
