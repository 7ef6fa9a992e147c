"""A module as a traced graph, past what its `forward` asks of sizes."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.utils._pytree import tree_leaves

from segfaith.types import Float, Tensor


def trace(module: nn.Module, image: Float[Tensor, "1 3 H W"]) -> nn.Module:
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
    """A copy also of a module that keeps maps of an earlier pass together with their graph."""
    kept = (one for part in module.modules() for one in tree_leaves(list(vars(part).values())))
    return deepcopy(module, {id(one): one.detach() for one in kept if isinstance(one, Tensor) and not one.is_leaf})


class _Tracer(fx.Tracer):
    """Knows the sizes of all maps, by running what was traced on tensors without values, once it is asked for one."""

    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.module, self.image = module, torch.empty_like(image, device="meta")
        self.sizes: fx.Interpreter | None = None
        self.known: dict[fx.Node, Any] = {}
        self.running = False

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The truth of what follows from sizes; that of a map's values is refused as ever."""
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
        """As above."""
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        self.running = True
        try:
            if self.sizes is None:
                self.sizes = fx.Interpreter(deepcopy(self.module).to("meta"), graph=node.graph)
            for one in node.graph.nodes:
                if one not in self.known:
                    self.known[one] = self.image if one.op == "placeholder" else self._run(self.sizes, one)
        finally:
            self.running = False
        return self.known[node]

    def _run(self, sizes: fx.Interpreter, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.known.__getitem__)
        return getattr(sizes, node.op)(node.target, args, kwargs)
