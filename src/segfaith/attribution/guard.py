"""Guards calls of users' own methods: whatever a method changes in the model or in global state is put back."""

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
    except RuntimeError:  # backends have different settings, which this function cannot report
        return "highest"


def _set_flags(values: list[bool]) -> None:
    for (owner, name), value in zip(_FLAGS, values, strict=True):
        setattr(owner, name, value)


GLOBAL_STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's random state": (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "numpy's random state": (  # a pickle of this process, which is compared and read back here alone
        lambda: pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the legacy state is what is guarded
        lambda state: np.random.set_state(pickle.loads(state)),  # noqa: NPY002 # nosec B301
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
        lambda: [getattr(*flag) for flag in _FLAGS],
        _set_flags,
    ),
    "torch's matmul precision": (_matmul_precision, torch.set_float32_matmul_precision),
    "torch's autocast": (
        lambda: [torch.is_autocast_enabled(kind) for kind in _AUTOCAST],
        lambda states: [torch.set_autocast_enabled(*pair) for pair in zip(_AUTOCAST, states, strict=True)],
    ),
    "the working directory": (os.getcwd, os.chdir),
}
"""What a method must leave as it is, by name: a function that reads it, and a function that puts it back.

Python's own random state is left out, because run-time type checkers (beartype) draw from it. State that torch cannot
report is left out too, such as whether denormal numbers are flushed to zero.
"""


@contextmanager
def global_state_kept() -> Iterator[list[str]]:
    """Puts global state back at the end of the block, also after an error. The list then names what had changed.

    Inside the block gradients are recorded and inference mode is off, as in a benchmark's calls of methods.
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
    """Whether a method runs a user's code: it is not built in, and it does not just read what is known."""
    return METHODS.get(method.name) is not method and not {"file", "evidence"} & set(method.needs)


@contextmanager
def guarded(model: SegmentationModel, instance: MethodInstance) -> Iterator[None]:
    """The block runs a method. After a user's method, model and global state are as before, also after an error.

    Guarding a user's method costs a copy of the weights and a comparison with it; a built-in method costs nothing.

    Raises:
        SampleError: the method changed a weight, a buffer or a module, so that its maps may belong to the changed
            model; or it called `sys.exit`; or photographs are wired and it ran the module past that, see `_by_halves`.
    """
    if not foreign(instance.method):
        yield
        return
    put_back = _kept(model)
    changed: list[str] = []
    try:
        with global_state_kept(), _by_halves(model, instance.name):
            yield
    except SystemExit as error:
        raise SampleError(f"method {instance.name!r} called exit({error.code!r}); expected a map") from error
    finally:
        changed = put_back()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise SampleError(
            f"method {instance.name!r} changed the model ({', '.join(changed[:3])}{more}), so its maps may belong to "
            "the changed model; the model was put back. Work on copy.deepcopy(model.module), or put back what you "
            "change in a finally clause"
        )


@contextmanager
def _by_halves(model: SegmentationModel, name: str) -> Iterator[None]:
    """Where photographs are wired, the block may run the module only through `model.logits`, and without new hooks.

    The module itself knows nothing of the wiring, and a layer sees the two photographs as a batch of two. Maps made
    from either would be wrong, and nobody would see it.

    Raises:
        SampleError: the block ran the module itself, or with hooks of its own on a part.
    """
    if not model.wired:
        yield
        return
    before = _hooks(model) + 1

    def check(*_: Any) -> None:
        if not model.at_halves:
            raise SampleError(
                f"method {name!r} runs model.module itself, which knows nothing of wired photographs; run model.logits"
            )
        if _hooks(model) != before:
            raise SampleError(
                f"method {name!r} reads a layer by a hook; of wired photographs a layer sees both as a batch of two, "
                "so the map would be that of one half. Read the shared gradient evidence instead (docs/extending.md)"
            )

    handle = model.module.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _hooks(model: SegmentationModel) -> int:
    """How many hooks the module and its parts have."""
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(vars(part).get(table, ())) for part in model.module.modules() for table in tables)


def _kept(model: SegmentationModel) -> Callable[[], list[str]]:
    """Copies a model's state. The returned function restores it and names changed weights, buffers and modules."""
    owners: dict[str, Any] = {"": model, **{f"{name}.": module for name, module in model.module.named_modules()}}
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
    values = [
        (name, tensor, tensor.detach().clone(), tensor.requires_grad, _copied(tensor.grad))
        for name, tensor in tensors.values()
    ]

    @torch.no_grad()
    def put_back() -> list[str]:
        changed = [
            f"{prefix.lstrip('.')}{name}"
            for prefix, key, table, was in tables
            if key in ("_modules", "_parameters", "_buffers")
            for name, value in was.items()
            if table.get(name) is not value
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
        model._normalisation = (None, [])  # computed again later: the method may have written into its tensors
        return changed

    return put_back


def _copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().clone()


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether shape, type, device and every value are equal; NaN counts as equal to NaN."""
    if (first.shape, first.dtype, first.device) != (second.shape, second.dtype, second.device):
        return False
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())
