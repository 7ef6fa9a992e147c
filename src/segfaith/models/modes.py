"""The modes in which a module runs for segfaith; each block leaves the module and torch as they were before it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module, device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Evaluation mode inside the block; every submodule's own train flag is restored after it.

    The caller's autocast is off inside the block, so that results do not depend on it; the module's own stays. On a
    GPU, convolutions run by deterministic algorithms, and all in full float32 unless `tf32`.
    """
    training = [part for part in module.modules() if getattr(part, "training", False)]  # not set if frozen
    for part in training:
        part.training = False
    cuda = device.type == "cuda"
    fixed = {"enabled": True, "deterministic": True, "allow_tf32": tf32}
    exact = torch.backends.cudnn.flags(**fixed) if cuda else nullcontext()
    cast = torch.is_autocast_enabled(device.type) if device.type in ("cpu", "cuda") else False
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32 if cuda else False
    try:
        if cuda:
            matmul.allow_tf32 = tf32
        with exact, torch.autocast(device.type, enabled=False) if cast else nullcontext():
            yield
    finally:
        if cuda:
            matmul.allow_tf32 = before
        for part in training:
            part.training = True


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside the block no parameter requires a gradient, so graphs start only at tensors that the caller marks."""
    free = [weight for weight in module.parameters() if weight.requires_grad and not weight.is_inference()]
    for parameter in free:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad = True


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Inside the block, parts of the module that `torch.compile` made run as they were before.

    Compiled code does not call what is put around the layers inside it.
    """
    if not any(hasattr(part, "_orig_mod") or vars(part).get("_compiled_call_impl") for part in module.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
