"""Methods of one's own run guarded: whatever they change of the model, or of global state, is put back after them."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from segfaith.attribution.methods import METHODS, Method, MethodInstance
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Tensor

_AUTOCAST = ("cpu", "cuda")
_FLAGS: list[tuple[Any, str]] = [
    (torch.backends.mkldnn, "enabled"),
    *[(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
]


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set for each backend of its own, which this name cannot tell
        return "highest"


def _set_flags(values: list[bool]) -> None:
    for (owner, name), value in zip(_FLAGS, values, strict=True):
        setattr(owner, name, value)


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
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "torch's deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "torch's anomaly mode": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda modes: torch.autograd.set_detect_anomaly(*modes),
    ),
    "torch's mkldnn and cudnn flags": (
        lambda: [getattr(*one) for one in _FLAGS],
        _set_flags,
    ),
    "torch's matmul precision": (_matmul_precision, torch.set_float32_matmul_precision),
    "torch's autocast": (
        lambda: [torch.is_autocast_enabled(kind) for kind in _AUTOCAST],
        lambda states: [torch.set_autocast_enabled(*pair) for pair in zip(_AUTOCAST, states, strict=True)],
    ),
    "the working directory": (os.getcwd, os.chdir),
}
"""What a method must leave alone: how to read it, and how to put it back.

Python's own random state is not among it: type checkers at run time (beartype) draw from it. Neither is what torch
does not tell, as whether denormal numbers are flushed to zero.
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


def foreign(method: Method) -> bool:
    """Whether a method may do anything: it is no built-in one, and does more than to hand over ready maps."""
    return METHODS.get(method.name) is not method and "file" not in method.needs


@contextmanager
def guarded(model: SegmentationModel, instance: MethodInstance) -> Iterator[None]:
    """A block that runs a method. After a foreign one, model and global state are as before, whatever happened.

    Costs a foreign method a copy of the weights and one comparison; a built-in one costs nothing.

    Raises:
        SampleError: the method changed a weight, a buffer or the modules themselves, so that its own maps may be those
            of another model; or it ended the process.
    """
    if not foreign(instance.method):
        yield
        return
    put_back = _kept(model)
    changed: list[str] = []
    try:
        with global_state_kept():
            yield
    except SystemExit as error:
        raise SampleError(f"method {instance.name!r} called exit({error.code!r}); expected a map") from error
    finally:
        changed = put_back()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise SampleError(
            f"method {instance.name!r} changed the model ({', '.join(changed[:3])}{more}), so its maps may be those of "
            "another one; the model was put back. Work on copy.deepcopy(model.module), or put back what you change in "
            "a finally clause"
        )


def _kept(model: SegmentationModel) -> Callable[[], list[str]]:
    """Remembers a model; what is returned puts it back and names the weights, buffers and modules that had changed."""
    owners: dict[str, Any] = {"": model, **{f"{name}.": one for name, one in model.module.named_modules()}}
    attributes = [(owner, vars(owner).copy()) for owner in owners.values()]
    tables = [
        (prefix, key, table, table.copy())
        for prefix, owner in owners.items()
        for key, table in vars(owner).items()
        if isinstance(table, dict)
    ]
    tensors: dict[int, tuple[str, Tensor]] = {}
    for prefix, owner in owners.items():
        for table in (vars(owner), vars(owner).get("_parameters", {}), vars(owner).get("_buffers", {})):
            for key, value in table.items():
                if isinstance(value, Tensor):
                    tensors.setdefault(id(value), (f"{prefix.lstrip('.')}{key}", value))
    values = [(name, one, one.detach().clone(), one.requires_grad, _copied(one.grad)) for name, one in tensors.values()]

    @torch.no_grad()
    def put_back() -> list[str]:
        changed = [
            f"{prefix.lstrip('.')}{name}"
            for prefix, key, table, was in tables
            if key in ("_modules", "_parameters", "_buffers")
            for name, one in was.items()
            if table.get(name) is not one
        ]
        for owner, was in attributes:
            vars(owner).clear()
            vars(owner).update(was)
        for _, _, table, was in tables:
            table.clear()
            table.update(was)
        for name, tensor, value, requires_grad, grad in values:
            if not _alike(tensor, value):
                changed.append(name)
                if (tensor.shape, tensor.dtype, tensor.device) == (value.shape, value.dtype, value.device):
                    tensor.copy_(value)
                else:
                    tensor.data = value
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad = requires_grad
            tensor.grad = grad
        model._normalisation = (None, [])  # made anew from mean and std: its tensors may have been written into
        return changed

    return put_back


def _copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().clone()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether shape, type, device and every value are the same; NaN is like NaN."""
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
