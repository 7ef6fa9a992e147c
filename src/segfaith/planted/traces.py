"""What a call leaves behind on a model: hooks, gradients, flags and values."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import nn

from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Tensor


def left_behind(original: SegmentationModel, copy: SegmentationModel) -> dict[str, list[str]]:
    """What a call left behind on a copy of a model: by kind, the names of the changed modules and parameters."""
    was, now = dict(original.module.named_modules()), dict(copy.module.named_modules())
    kept = [name for name in was if type(now.get(name)) is type(was[name])]
    names = {name: name or "the module itself" for name in kept}
    tensors, others = _tensors(original.module), _tensors(copy.module)
    common = sorted(tensors.keys() & others.keys())
    flags = [f"{names[name]} ({key})" for name in kept for key in _unlike(_settings(was[name]), _settings(now[name]))]
    flags += [f"{name} (requires_grad)" for name in common if tensors[name].requires_grad != others[name].requires_grad]
    return {
        "hooks": [names[name] for name in kept if _hooks(was[name]) != _hooks(now[name])],
        "gradients": [name for name, tensor in others.items() if tensor.grad is not None],
        "flags": [*flags, *_unlike(_plain(vars(original)), _plain(vars(copy)))],
        "weights": [
            *(name for name in sorted(was.keys() | now.keys()) if name not in kept),
            *sorted(tensors.keys() ^ others.keys()),
            *(name for name in common if edited(tensors[name], others[name])),
        ],
    }


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _hooks(module: nn.Module) -> dict[str, list[Any]]:
    return {key: list(value) for key, value in vars(module).items() if "hooks" in key and isinstance(value, Mapping)}


LEARNT = ("place",)
"""What a `SegmentationModel` notes of its module in a pass, whoever asks for the pass."""


def _settings(module: nn.Module) -> dict[str, Any]:
    return _plain(vars(module)) | {"forward": "forward" in vars(module)}


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The public attributes that are numbers, texts, flags or tuples, such as `training`; not those of `LEARNT`."""
    kinds = (bool, int, float, str, tuple, type(None))
    public = {key: value for key, value in attributes.items() if key[0] != "_" and key not in LEARNT}
    return {key: value for key, value in public.items() if isinstance(value, kinds)}


def _unlike(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in was.keys() | now.keys() if was.get(key, nan) != now.get(key, nan))


def edited(was: Tensor, now: Tensor) -> bool:
    """Whether two tensors differ in shape, type, device or any value."""
    alike = was.shape == now.shape and was.dtype == now.dtype and was.device == now.device
    return not (alike and torch.equal(was, now))


def listed(verb: str, names: Sequence[str]) -> str:
    """The verb with its objects, as in: changed a, b, c and 2 more; empty without names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(names[:3])}{more}" if names else ""
