r"""Gradient evidence: activations F of the feature layer and G = dY/dF, by one forward and one backward pass.

    Y = sum_{uv} M_{uv} z_c(u, v)     (`objective="logits"`, Seg-Grad-CAM, Vinogradova et al. 2020)
    Y = s_c(x, M)                     (`objective="prob"`)

If the target's score is not the probability, "logits" means the sum of that score's numbers over M.

The graph starts at the feature layer, so the backward pass ends there and computes no gradient of a weight.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import torch

from segfaith.batching import BatchSize, in_batches
from segfaith.errors import SampleError
from segfaith.evidence.forms import Form
from segfaith.evidence.layer import altered, check_layer, gradient_at
from segfaith.evidence.layers import choose_layer
from segfaith.evidence.tiles import tiled_maps
from segfaith.halves import halves, side_by_side
from segfaith.memory import Stage
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar, masked_mean, prediction
from segfaith.types import Bool, Float, GradientEvidence, Int, Tensor

Objective = Literal["logits", "prob"]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The results of one forward pass per variant, and the seconds it took.

    Attributes:
        score: s in float64.
        prediction: the class with the largest logit at each pixel, or masks of all classes; see `scores.prediction`.
        predicted: whether each pixel is predicted as the target's class; see `Scalar.predicted`.
    """

    score: Float[Tensor, "N"]
    prediction: Int[Tensor, "N H W"] | Bool[Tensor, "N C H W"]
    predicted: Bool[Tensor, "N H W"]
    seconds: float


def clock(device: torch.device) -> float:
    """Wall-clock seconds, after everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def forward_pass(
    model: SegmentationModel,
    images: Float[Tensor, "N bands H W"],
    regions: Bool[Tensor, "N H W"],
    scalar: Scalar,
    batch: BatchSize,
) -> ForwardPass:
    """Scores and predictions of N variants without any evidence: N model passes."""

    def compute(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        with torch.inference_mode():
            logits = _finite(model.logits(images[part]))
            return masked_mean(logits, regions[part], scalar), *_predictions(logits, scalar)

    start = clock(model.device)
    score, classes, predicted = in_batches(len(images), compute, batch, _stage("predictions", images))
    return ForwardPass(score, classes, predicted, clock(model.device) - start)


def _stage(words: str, images: Float[Tensor, "N bands H W"], *others: str) -> Stage:
    return words, (images.shape[-2], images.shape[-1]), others


def _predictions(logits: Tensor, scalar: Scalar) -> tuple[Tensor, Tensor]:
    """`prediction` and `predicted` of a `ForwardPass`."""
    return prediction(logits, independent=scalar.independent), scalar.predicted(logits, 1)


def gradient_evidence(
    model: SegmentationModel,
    images: Float[Tensor, "N bands H W"],
    regions: Bool[Tensor, "N H W"],
    scalar: Scalar,
    batch: BatchSize,
    *,
    layer: str | None = None,
    objective: Objective = "logits",
) -> tuple[GradientEvidence, ForwardPass, float]:
    """Activations and gradients at `layer` for N variants: N model passes for each layer that it names.

    The gradient comes through every part of the model that reads the layer's output (see `layer.altered`). Exceptions
    are parts that the model detaches, or runs under `torch.no_grad` after the part that contains the layer. A layer's
    first use costs three more passes, which check the layer (see `layer.check_layer`). Where a model runs on tiles, the
    tiles that Y depends on run twice, see `tiles.tiled_maps`.

    Args:
        layer: a layer's name, or several joined by "+"; None: the model's feature layer. If it has none, it gets one,
            see `layers.choose_layer`.

    Returns:
        The evidence, the results of its (first) forward pass, and the seconds of all passes together.

    Raises:
        SettingsError: the layer does not exist, did not run or ran twice, gives no maps or tokens for N images, or the
            logits do not depend on it.
        SampleError: logits, activations or gradients are not finite.
    """
    if layer is None and model.layer is None:
        choose_layer(model, images[0])
    of_layers = [_of_layer(model, images, regions, scalar, batch, name, objective) for name in model.layer_names(layer)]
    (first, passed, _), *others = of_layers
    evidence = replace(first, others=tuple(other for other, _, _ in others))
    return evidence, passed, sum(seconds for _, _, seconds in of_layers)


def _of_layer(
    model: SegmentationModel,
    images: Float[Tensor, "N bands H W"],
    regions: Bool[Tensor, "N H W"],
    scalar: Scalar,
    batch: BatchSize,
    name: str,
    objective: Objective,
) -> tuple[GradientEvidence, ForwardPass, float]:
    """`gradient_evidence` of a single layer, by its full name."""
    form, size = check_layer(model, name, images[0]), (images.shape[-2], images.shape[-1])
    forward_seconds = 0.0

    def compute(part: slice) -> tuple[Tensor, ...]:
        nonlocal forward_seconds
        start = clock(model.device)

        def value(logits: Float[Tensor, "N C H W"]) -> Tensor:
            """Y, at the end of the forward pass."""
            nonlocal forward_seconds
            scores = masked_mean(_finite(logits), inside, scalar)
            passed.extend((logits.detach(), scores.detach()))
            total = scores.sum() if objective == "prob" else _summed(logits, inside, scalar, single=model.channels == 1)
            forward_seconds += clock(model.device) - start
            return total

        passed: list[Tensor] = []
        compute_maps = _whole if model.tiling is None else tiled_maps
        # leaving the block restores the caller's mode, which may be inference mode
        with torch.inference_mode(False), model.evaluating(), model.frozen(), torch.enable_grad():
            inputs, inside = images[part].clone(), regions[part].clone()
            activation, gradient = compute_maps(model, name, form, inputs, value)
        logits, score = passed
        return activation, gradient, score, *_predictions(logits, scalar)

    start = clock(model.device)
    activation, gradient, score, classes, predicted = in_batches(
        len(images),
        compute,
        BatchSize(1, batch.memory) if model.one_by_one else batch,
        _stage("gradients", images, name, objective),
    )
    seconds = clock(model.device) - start
    if not bool(activation.isfinite().all() & gradient.isfinite().all()):
        raise SampleError(f"activations or gradients at layer {name!r} are NaN or infinite")
    image = halves(images[0])[0] if model.wired else images[0]
    padded = model.padded(image)
    covered = None if padded.shape == image.shape else (padded.shape[-2], padded.shape[-1])
    evidence = GradientEvidence(activation.float(), gradient.float(), size, covered, halves=model.wired)
    return evidence, ForwardPass(score, classes, predicted, forward_seconds), seconds


def _whole(
    model: SegmentationModel,
    name: str,
    form: Form,
    images: Float[Tensor, "N bands H W"],
    value: Callable[[Float[Tensor, "N C H W"]], Tensor],
) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K h w"]]:
    """F and G of whole images; of wired photographs those of both halves, each at its photograph's place."""
    leaves: list[Tensor] = []

    def leaf(output: Tensor) -> Tensor:
        leaves.append(output.detach().clone().requires_grad_())
        return leaves[0]

    with altered(model, name, len(images) * (1 + model.wired), leaf):
        gradient = gradient_at(value(model.logits(images)), leaves[0], name)
    padded = model.padded(halves(images[:1])[0] if model.wired else images[:1])
    size = padded.shape[2], padded.shape[3]
    maps = form.maps(leaves[0].detach(), size), form.maps(gradient, size)
    if model.wired:
        return side_by_side(*maps[0].chunk(2)), side_by_side(*maps[1].chunk(2))
    return maps


def _summed(logits: Float[Tensor, "N C H W"], region: Bool[Tensor, "N H W"], scalar: Scalar, *, single: bool) -> Tensor:
    """Y of the objective "logits": the sum over the regions of z_c, or of the number that is explained instead.

    A conditional probability is the sigmoid of a margin, which is summed as z_c is for the probability.
    """
    return scalar.unsquashed(single=single).of(logits.movedim(1, -1)[region], 1).sum()


def _finite(logits: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    if not bool(logits.isfinite().all()):
        raise SampleError("the model returned logits that are NaN or infinite")
    return logits
