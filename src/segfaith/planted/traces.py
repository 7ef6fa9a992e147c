"""What a call leaves behind: global random states and settings; hooks, gradients, flags and values of a model."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from typing import Any

import numpy as np
import torch
from torch import nn

from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Tensor

GLOBAL_STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's random state": (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "numpy's random state": (
        lambda: pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the legacy state is what is guarded
        lambda state: np.random.set_state(pickle.loads(state)),  # noqa: NPY002
    ),
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
}
"""What a method must leave alone: how to read it, and how to put it back.

Python's own random state is not among it: type checkers at run time (beartype) draw from it.
"""


@contextmanager
def global_state_kept() -> Iterator[list[str]]:
    """Puts global state back at the block's end, whatever happens in it; the list then names what had changed.

    Inside, gradients are recorded and inference mode is off, as where a benchmark calls a method.
    """
    changed: list[str] = []
    with torch.inference_mode(False), torch.enable_grad():
        before = {name: read() for name, (read, _) in GLOBAL_STATE.items()}
        try:
            yield changed
        finally:
            for name, (read, put_back) in GLOBAL_STATE.items():
                if read() != before[name]:
                    changed.append(name)
                    put_back(before[name])


def left_behind(original: SegmentationModel, copy: SegmentationModel) -> dict[str, list[str]]:
    """What a call left behind on a copy of a model, by kind: the names of the modules and parameters concerned."""
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


def _settings(module: nn.Module) -> dict[str, Any]:
    return _plain(vars(module)) | {"forward": "forward" in vars(module)}


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The public attributes that are numbers, texts, flags or tuples; `training` is one."""
    kinds = (bool, int, float, str, tuple, type(None))
    return {key: value for key, value in attributes.items() if key[0] != "_" and isinstance(value, kinds)}


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
