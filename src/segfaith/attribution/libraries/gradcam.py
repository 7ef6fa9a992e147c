"""pytorch-grad-cam's maps (Gildenblat et al. 2021): `gradcam:NAME`. It is imported when a method is first used.

Its maps are at least 0 by themselves, so there is no rule for signs. Those that use gradients explain the sum over the
region, as the library's own target for segmentation does; ScoreCAM and AblationCAM explain s, the mean.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from segfaith.attribution.libraries.entry import GRADIENTS, Cost, Entry, Library, Package, Question, Scale
from segfaith.attribution.libraries.running import Score, halving, layers, padded_input
from segfaith.attribution.parameters import Parameters
from segfaith.errors import SampleError
from segfaith.evidence.forms import Form
from segfaith.evidence.gradient import Objective
from segfaith.types import Float, Tensor


class CamParameters(Parameters):
    """The number that is explained, and the layer (None: the model's feature layer); several are joined by "+"."""

    objective: Objective = "prob"
    layer: str | None = None


BIASED = (nn.Conv2d, nn.BatchNorm2d)
"""The layers whose biases FullGrad reads."""
OF_MEAN = ("ScoreCAM", "AblationCAM")
"""They explain the mean over the region: softmax weights of scores, and drops divided by the score."""


def _value(output: Tensor) -> Tensor:
    """The library's target: the score of one image, which is what the module returns."""
    return output


class _Silenced(nn.Module):
    """AblationCAM's stand-in for the layer, which gives its kept output with a channel at 0 in each image.

    The library's own sets channels of activations with signs to less than -1e7, by an amount that depends on the batch.
    """

    def activations_to_be_ablated(self, activations: np.ndarray, ratio_channels_to_ablate: float) -> np.ndarray:
        """All channels. The library takes the first from `indices` once they are done."""
        self.indices = np.arange(len(activations))
        return self.indices

    def set_next_batch(self, input_batch_index: int, activations: Tensor, num_channels_to_ablate: int) -> None:
        """The layer's output for so many copies of the image."""
        self.output = activations[input_batch_index].repeat(num_channels_to_ablate, 1, 1, 1)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "N K h w"]:
        """The kept output, image i without channel `indices[i]`."""
        count = len(self.output)
        self.output[range(count), self.indices[:count]] = 0
        return self.output


def _explain(name: str) -> Callable[[Question], Float[Tensor, "H W"]]:
    def explain(question: Question) -> Float[Tensor, "H W"]:
        kind = getattr(import_module("pytorch_grad_cam"), name)
        height, width = question.size
        if next(question.model.module.parameters(), None) is None:
            raise SampleError(f"{question.name} reads the device of the model's parameters, and it has none")

        def compute(images: int) -> Tensor:
            score = Score(question.model, question.target, question.parameters.objective, total=name not in OF_MEAN)
            inputs = padded_input(question)[None]
            inputs.requires_grad = True
            if name in CHECKS:
                CHECKS[name](question, score)
            if name == "FullGrad":
                return _map(kind, score, [], None, inputs, images)[:height, :width]
            chosen = layers(question)
            size = (inputs.shape[2], inputs.shape[3])
            if name == "RefineCAM":
                return _refined(question, kind, score, chosen, inputs)[:height, :width]
            if name == "AblationCAM":
                _check_maps(question, chosen)
            maps = [
                _map(kind, score, [layer], _reader(question, form, size), inputs, images)[:height, :width]
                for _, layer, form in chosen
            ]
            return torch.stack(maps).mean(0)

        return halving(question, compute).to(question.image.device)

    return explain


def _reader(question: Question, form: Form, size: tuple[int, int]) -> Callable[[Tensor], Float[Tensor, "N K h w"]]:
    """The library's reshape_transform. It copies, since the library keeps what a later part may write into.

    It raises SampleError for what is not finite: the library takes NaN for 0 in its principal components.
    """

    def read(output: Tensor) -> Tensor:
        maps = form.maps(output, size).to(torch.float32, copy=True)
        if not bool(maps.isfinite().all()):
            raise SampleError(f"{question.name}: the layer's activations or gradients are NaN or infinite")
        return maps

    return read


def _map(
    kind: Any,
    score: nn.Module,
    chosen: Sequence[nn.Module],
    read: Callable[[Tensor], Tensor] | None,
    inputs: Float[Tensor, "1 bands h w"],
    images: int,
) -> Float[Tensor, "h w"]:
    """The library's map of a layer, in [0, 1], at the size of the padded image."""
    made: dict[str, Any] = {}
    if kind.__name__ == "AblationCAM":
        made = {"batch_size": images, "ablation_layer": _Silenced()}
    explainer = kind(model=score, target_layers=list(chosen), reshape_transform=read, **made)
    explainer.batch_size = images  # ScoreCAM reads it
    # AblationCAM keeps what a later part may write into
    explainer.save_activation = lambda part, given, output: setattr(explainer, "activations", output.clone())
    try:
        with redirect_stdout(io.StringIO()):
            values = explainer(input_tensor=inputs, targets=[_value])
    finally:
        explainer.activations_and_grads.release()
    return _tensor(values)


def _tensor(values: np.ndarray) -> Float[Tensor, "h w"]:
    return torch.from_numpy(np.ascontiguousarray(values[0], dtype=np.float64))


def _refined(
    question: Question,
    kind: Any,
    score: nn.Module,
    chosen: list[tuple[str, nn.Module, Form]],
    inputs: Float[Tensor, "1 bands h w"],
) -> Float[Tensor, "h w"]:
    """RefineCAM: the product of GradCAM++ of several layers.

    Raises:
        SampleError: a single layer, or layers of different forms.
    """
    if len(chosen) < 2 or len({(form.kind, form.leading) for _, _, form in chosen}) > 1:
        raise SampleError(
            f"{question.name} multiplies the maps of several layers of one form; name them: layer=first+second"
        )
    explainer = kind(
        score, [layer for _, layer, _ in chosen], _reader(question, chosen[0][2], (inputs.shape[2], inputs.shape[3]))
    )
    try:
        return _tensor(explainer(inputs, [_value]))
    finally:
        for one in explainer.base_cam_per_layer:
            one.activations_and_grads.release()


def _check_maps(question: Question, chosen: list[tuple[str, nn.Module, Form]]) -> None:
    for name, _, form in chosen:
        if form.kind != "maps" or form.reshape is not None:
            raise SampleError(f"{question.name} reads maps (N, K, h, w); layer {name!r} gives {form.kind}")


def _check_positive(question: Question, score: nn.Module) -> None:
    """Raises SampleError where the library's division by the score would turn the map's sign round."""
    with torch.no_grad():
        value = float(score(question.image[None])[0])
    if value <= 0:
        raise SampleError(f"{question.name} divides by the score, {value:.4g}; at or below 0 its signs mean nothing")


def _check_biases(question: Question, score: nn.Module) -> None:
    """FullGrad pairs biases with gradients by the order in the module, so that must be the order in which parts run.

    Raises:
        SampleError: the model has no such biases or no running statistics, or runs their layers in another order, or
            not once each.
    """
    parts = [part for _, part in question.model.module.named_modules(remove_duplicate=False)]  # as the library goes
    layers = [part for part in parts if type(part) in BIASED and part.bias is not None]
    if not layers:
        raise SampleError(f"{question.name} reads the biases of Conv2d and BatchNorm2d; {question.model.name} has none")
    if any(isinstance(part, nn.BatchNorm2d) and part.running_mean is None for part in layers):
        raise SampleError(f"{question.name} reads the running statistics of batch norms, and some have none")
    ran: list[nn.Module] = []
    handles = [
        part.register_forward_hook(lambda part, given, output: ran.append(part)) for part in dict.fromkeys(layers)
    ]
    try:
        with torch.no_grad():
            score(question.image[None])
    finally:
        for handle in handles:
            handle.remove()
    if [id(part) for part in ran] != [id(part) for part in layers]:
        raise SampleError(
            f"{question.name} pairs biases with gradients by their order in the module, and {question.model.name} runs "
            "them in another order, or not once each, or has one under two names"
        )


CHECKS: dict[str, Callable[[Question, nn.Module], None]] = {
    "AblationCAM": _check_positive,
    "FullGrad": _check_biases,
}
"""What must hold before a method runs, by its name."""

_CHANNELS = "a pass for each channel of the layer"
_OPEN_SCORE, _OPEN_ABLATION = f"{_CHANNELS}, and 1", f"{_CHANNELS}, and 3"


def _channel_passes(more: int) -> Callable[[Any, Scale], int | None]:
    """A pass for each channel, and `more` for each layer."""
    return lambda own, scale: None if scale.channels is None else scale.channels + more * scale.layers_of(own)


def _ablation_passes(own: Any, scale: Scale) -> int | None:
    count = _channel_passes(2)(own, scale)
    return None if count is None else count + 1  # the check of the score


_GRADIENT = Cost(lambda own, scale: scale.layers_of(own), GRADIENTS)
TABLE: dict[str, tuple[str, Cost, str]] = {
    "GradCAM": ("Selvaraju et al. 2017", _GRADIENT, "a layer"),
    "GradCAMPlusPlus": ("Chattopadhay et al. 2018", _GRADIENT, "a layer"),
    "HiResCAM": ("Draelos and Carin 2020", _GRADIENT, "a layer"),
    "GradCAMElementWise": ("pytorch-grad-cam (Gildenblat et al. 2021)", _GRADIENT, "a layer"),
    "XGradCAM": ("Fu et al. 2020", _GRADIENT, "a layer"),
    "LayerCAM": ("Jiang et al. 2021", _GRADIENT, "a layer"),
    "EigenCAM": ("Muhammad and Yeasin 2020", Cost(lambda own, scale: scale.layers_of(own)), "a layer"),
    "EigenGradCAM": ("pytorch-grad-cam (Gildenblat et al. 2021)", _GRADIENT, "a layer"),
    "SegEigenCAM": ("Chung and Ying 2025", _GRADIENT, "a layer"),
    "ScoreCAM": ("Wang et al. 2020", Cost(_channel_passes(1), open=_OPEN_SCORE), "a layer"),
    "AblationCAM": (
        "Desai and Ramaswamy 2020",
        Cost(_ablation_passes, open=_OPEN_ABLATION),
        "a layer of feature maps, and a score above 0",
    ),
    "FullGrad": (
        "Srinivas and Fleuret 2019",
        Cost(lambda own, scale: 2, "passes, 1 with gradients"),
        "biases of Conv2d or BatchNorm2d, run in the order of the module",
    ),
    "RefineCAM": ("pytorch-grad-cam, arXiv 2605.14641", _GRADIENT, "several layers, layer=first+second"),
}
"""By name: paper, cost, and what the method needs."""


def _entry(name: str, paper: str, cost: Cost, asks: str) -> Entry:
    return Entry(paper, _explain(name), CamParameters, cost, asks)


def _has(name: str) -> bool:
    """Whether the installed version has the method."""
    return hasattr(import_module("pytorch_grad_cam"), name)


GRADCAM = Library(
    Package("grad-cam", "pytorch_grad_cam", "grad-cam"), {name: _entry(name, *row) for name, row in TABLE.items()}, _has
)
