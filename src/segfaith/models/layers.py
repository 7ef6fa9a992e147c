"""Names of layers: from what a user writes to the submodules that are meant."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segfaith.errors import SettingsError
from segfaith.lookup import nearest

Reshape = Callable[[Tensor], Tensor]
PREFIXES = ("module.", "_orig_mod.")


def check_tokens(tokens: Any, reshape: Any) -> None:
    """Lets `tokens` and `reshape` of a model's settings pass.

    Raises:
        SettingsError: tokens that are neither "auto" nor a number of at least 0; a reshape that is no function; both.
    """
    number = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    if tokens != "auto" and not number:
        raise SettingsError(f"tokens = {tokens!r}: expected 'auto', or how many leading tokens are dropped, 0 or more")
    if reshape is not None and not callable(reshape):
        raise SettingsError(
            f"reshape is a {type(reshape).__name__}; expected a function from a layer's output to maps (N, K, h, w)"
        )
    if reshape is not None and tokens != "auto":
        raise SettingsError(f"tokens = {tokens!r} and reshape both say how a layer is read; give one of them")


def unwrapped(module: Any) -> Any:
    """The module inside `torch.compile`'s, DataParallel's and DistributedDataParallel's, which hide its layers.

    Hooks added to a compiled module are ignored, and the parallel modules run copies of their layers.
    """
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def layer_names(module: nn.Module, layer: Any, model: str, why_none: str = "") -> list[str]:
    """The dotted names of the layers that `layer` names: one name, or several joined by "+".

    The prefixes `module.` (DataParallel) and `_orig_mod.` (torch.compile) may be given or left out.

    Args:
        model: the model's name, for messages.
        why_none: why the model has no layer by default; "" where a user simply names none.

    Raises:
        SettingsError: no layer is named, a layer is named twice, no submodule has that name (the message lists the
            nearest names), or the module is scripted, so that its layers cannot be read.
    """
    if layer is not None and not isinstance(layer, str):
        raise SettingsError(
            f"layer is a {type(layer).__name__}; expected a dotted name, as module.named_modules() gives it, or "
            "several joined by '+'"
        )
    if layer is not None and isinstance(module, torch.jit.ScriptModule):
        raise SettingsError(
            f"layer {layer!r} of a scripted, traced or frozen module ({model}) cannot be read; wrap the module "
            "that it was made from, or leave layer out and use ria and the controls"
        )
    known = [name for name, _ in module.named_modules() if name]
    if layer is None:
        why = why_none or "give layer=..., usually the last layer of the backbone"
        last = f". The last layers: {', '.join(known[-8:])}" if known else ""
        raise SettingsError(f"gradient methods need a feature layer and {model} has none; {why}{last}")
    given = [layer] if layer in known else [part.strip() for part in layer.split("+")]
    names = [_known(part, known, model) for part in given]
    if len(set(names)) < len(names):
        raise SettingsError(f"layer {layer!r} names a layer twice; name each once")
    return names


def _known(name: str, known: list[str], model: str) -> str:
    if name in known:
        return name
    same = [other for other in known if _bare(other) == _bare(name)]
    if not same:
        close = nearest(name, known, 5) or known[-5:] or ["none, since it has no layers"]
        raise SettingsError(f"{model} has no layer {name!r}; the nearest are {', '.join(close)}")
    return same[-1]  # a compiled part and the module that it was made of have one bare name: the latter comes last


def _bare(name: str) -> str:
    """A name without the prefixes that wrappers of modules add, wherever they stand."""
    for prefix in PREFIXES:
        name = f".{name}".replace(f".{prefix}", ".").removeprefix(".")
    return name
