"""How a competent user runs the model for captum: as it is, channels last, with TF32, under autocast, or compiled."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from segfaith.models.segmentation import SegmentationModel


@dataclass(frozen=True)
class Dress:
    """A way to run a model.

    Attributes:
        channels_last: whether a copy of the module and its inputs lie channels last.
        precision: "float32", "tf32" (convolutions and matrix products; on a GPU only), or "bfloat16" by autocast.
        compiled: whether `torch.compile` compiled it, anew for each size of a batch.
        like: the dress whose best batch it takes, "" for one of its own: compiling for each batch takes too long.
    """

    name: str
    channels_last: bool = True
    precision: str = "float32"
    compiled: bool = False
    like: str = ""


AS_IT_IS = Dress("as it is", channels_last=False)
DRESSES = {
    one.name: one
    for one in (
        AS_IT_IS,
        Dress("channels last"),
        Dress("tf32", precision="tf32"),
        Dress("autocast", precision="bfloat16"),
        Dress("compiled", compiled=True, like="channels last"),
        Dress("autocast and compiled", precision="bfloat16", compiled=True, like="autocast"),
    )
}
"""By name. All but the first are channels last."""


def in_dress(job: str, dress: str) -> str:
    """The name of captum's job in a dress."""
    return job if dress == AS_IT_IS.name else f"{job}, {dress}"


def dress_of(job: str) -> Dress:
    """The dress that a job's name says."""
    return DRESSES[job.partition(", ")[2] or AS_IT_IS.name]


_DRESSED: WeakKeyDictionary[SegmentationModel, dict[str, Callable[[Tensor], Any]]] = WeakKeyDictionary()


def dressed(model: SegmentationModel, dress: Dress) -> Callable[[Tensor], Any]:
    """The model's module in a dress, made once; the model is left as it was."""
    known = _DRESSED.setdefault(model, {})
    if dress.name not in known:
        module = _copied(model) if dress.channels_last else model.module
        known[dress.name] = _put_on(dress, model.device, module)
    return known[dress.name]


def autocast(dress: Dress, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast where the dress has it. Opened around a whole attribution too, it casts each weight once."""
    return torch.autocast(device.type, torch.bfloat16) if dress.precision == "bfloat16" else nullcontext()


def _copied(model: SegmentationModel) -> Callable[[Tensor], Any]:
    """A copy of the module in evaluation mode and channels last, of which there is one for all dresses."""
    known = _DRESSED[model]
    if "copy" not in known:
        known["copy"] = deepcopy(model.module).eval().to(memory_format=torch.channels_last)
    return known["copy"]


def _put_on(dress: Dress, device: torch.device, module: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    forward = torch.compile(module, dynamic=False) if dress.compiled else module
    order = torch.channels_last if dress.channels_last else torch.contiguous_format

    def run(images: Tensor) -> Any:
        with fastest(device, tf32=dress.precision == "tf32"), autocast(dress, device):
            return forward(images.contiguous(memory_format=order))

    return run


@contextmanager
def fastest(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """On a GPU convolutions by the fastest algorithms of cuDNN, which segfaith does not allow itself."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=tf32):
            yield
    finally:
        matmul.allow_tf32 = before
