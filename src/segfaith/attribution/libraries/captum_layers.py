"""captum's methods that read a layer, and those that change the gradients of ReLUs: what both need of the model."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segfaith.attribution.libraries.entry import Question, ScoreParameters, pixels, signed
from segfaith.attribution.libraries.running import Score, halving, layers, over_image, padded_input
from segfaith.errors import SampleError
from segfaith.types import Float, Tensor

RELUS = "ReLUs that are modules of the class torch.nn.ReLU"


class LayerParameters(ScoreParameters):
    """The layer (None: the model's feature layer); several are joined by "+"."""

    layer: str | None = None


class _Relus(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the ReLUs that torch computes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name
        self.count += name in ("aten::relu", "aten::relu_")
        return func(*args, **(kwargs or {}))


def check_relus(question: Question) -> None:
    """captum changes the gradients of nn.ReLU alone; with any other ReLU its map would mix two methods. One pass.

    Raises:
        SampleError: the model computes no ReLU, or some that are no modules.
    """
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1

    model = question.model
    handles = [part.register_forward_hook(count) for part in model.module.modules() if isinstance(part, nn.ReLU)]
    try:
        with torch.no_grad(), _Relus() as relus:  # type: ignore[no-untyped-call]
            model.logits(question.image[None])
    finally:
        for handle in handles:
            handle.remove()
    if not seen or relus.count != seen:
        came = f"{relus.count - seen} of {relus.count} are functions" if relus.count else "it computes no ReLU"
        raise SampleError(f"{question.name} changes the gradients of {RELUS}; of {model.name} {came}")


def layer_grad_cam(question: Question) -> Float[Tensor, "H W"]:
    """LayerGradCam: the rule for signs is applied at the layer, before upsampling, as in gpa; of several the mean."""
    import captum.attr as attr

    def compute(images: int) -> Tensor:
        score = Score(question.model, question.target, question.parameters.objective)
        inputs, sign = padded_input(question)[None], question.parameters.sign
        maps = [
            over_image(question, signed(attr.LayerGradCam(score, layer).attribute(inputs)[0, 0].detach(), sign)[None])
            for layer in _map_layers(question)
        ]
        return _mean(maps)

    return halving(question, compute)


def guided_grad_cam(question: Question) -> Float[Tensor, "H W"]:
    """GuidedGradCam, with captum's own upsampling (nearest); of several layers the mean."""
    import captum.attr as attr

    height, width = question.size

    def compute(images: int) -> Tensor:
        check_relus(question)
        score = Score(question.model, question.target, question.parameters.objective)
        inputs = padded_input(question)[None]
        maps = [
            pixels(attr.GuidedGradCam(score, layer).attribute(inputs))[:height, :width].detach()
            for layer in _map_layers(question)
        ]
        return _mean(maps)

    return halving(question, compute)


def _map_layers(question: Question) -> list[nn.Module]:
    """The layers asked for.

    Raises:
        SampleError: a layer gives no maps (N, K, h, w), as captum reads them.
    """
    chosen = layers(question)
    for name, _, form in chosen:
        if form.kind != "maps" or form.reshape is not None:
            raise SampleError(
                f"{question.name} reads maps (N, K, h, w); layer {name!r} gives {form.kind}; "
                "use ega, or gradcam:GradCAM"
            )
    return [layer for _, layer, _ in chosen]


def _mean(maps: list[Tensor]) -> Float[Tensor, "H W"]:
    """The mean over layers, each scaled to a largest |a| of 1 where there are several."""
    if len(maps) == 1:
        return maps[0]
    return torch.stack([one / one.abs().max().clamp(min=torch.finfo(one.dtype).tiny) for one in maps]).mean(0)
