"""Puts a module into evaluation mode, or without gradients of weights, and back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module, device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Evaluation mode inside the block; every submodule's own train flag is restored after it.

    On a GPU, convolutions run by deterministic algorithms inside the block, and all in full float32 unless `tf32`.
    """
    training = [part for part in module.modules() if getattr(part, "training", False)]  # not set if frozen
    for part in training:
        part.training = False
    cuda = device.type == "cuda"
    fixed = {"enabled": True, "deterministic": True, "allow_tf32": tf32}
    exact = torch.backends.cudnn.flags(**fixed) if cuda else nullcontext()
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32 if cuda else False
    try:
        if cuda:
            matmul.allow_tf32 = tf32
        with exact:
            yield
    finally:
        if cuda:
            matmul.allow_tf32 = before
        for part in training:
            part.training = True


@contextmanager
def weights_frozen(module: nn.Module) -> Iterator[None]:
    """Inside the block no parameter requires a gradient."""
    free = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in free:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad = True
