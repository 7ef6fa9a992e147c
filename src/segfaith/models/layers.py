"""Finds the feature layer in a module."""

import torch
from torch import nn

from segfaith.errors import SettingsError
from segfaith.lookup import nearest


def find_layer(module: nn.Module, layer: str | None, model: str, why_none: str = "") -> nn.Module:
    """The submodule with the dotted name `layer`.

    Args:
        model: the name of its model, for messages.
        why_none: why the model has no default layer; "" where a user simply names none.

    Raises:
        SettingsError: no layer was named, no submodule has that name (the message lists the nearest names), or the
            module is scripted, so that its layers cannot be read.
    """
    if layer is not None and not isinstance(layer, str):
        raise SettingsError(
            f"layer is a {type(layer).__name__}; expected a dotted name, as module.named_modules() gives it"
        )
    if layer is not None and isinstance(module, torch.jit.ScriptModule):
        raise SettingsError(
            f"layer {layer!r} of a scripted, traced or frozen module ({model}) cannot be read; wrap the module "
            "that it was made from, or leave layer out and use ria and the controls"
        )
    modules: dict[str, nn.Module] = dict(module.named_modules())
    modules.pop("")
    if layer is None:
        why = why_none or "give layer=..., usually the last layer of the backbone"
        names = f". The last layers: {', '.join(list(modules)[-8:])}" if modules else ""
        raise SettingsError(f"gradient methods need a feature layer and {model} has none; {why}{names}")
    if layer not in modules:
        close = nearest(layer, modules, 5) or list(modules)[-5:] or ["none, since it has no layers"]
        raise SettingsError(f"{model} has no layer {layer!r}; the nearest are {', '.join(close)}")
    return modules[layer]
