"""Chooses how altered copies of an image are scored: by a traced graph where the model has one, else as plain batches.

Either way every score equals that of the one-by-one loop to within 1e-5 (float32): a graph is compared with the model
itself for every size of images, and on each image.
"""

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import functional as F

from segfaith.batching import out_of_memory
from segfaith.errors import SampleError, SettingsError
from segfaith.halves import side_of
from segfaith.incremental.graph import Graph, NoGraph
from segfaith.incremental.precision import Asked, Precision, chosen
from segfaith.incremental.scorers import INCREMENTAL, IncrementalScorer, PlainScorer, extent
from segfaith.incremental.tiles import TiledScorer
from segfaith.incremental.wired import WiredScorer, wired_scorer
from segfaith.memory import in_words
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from segfaith.types import Float, Image, Int, Mask, Tensor

TOLERANCE = 1e-5
"""The most by which an incremental score may differ from the model's own."""
REPRODUCIBLE = 4
"""A graph's logits may differ from the model's by this many times what the model's own differ by with channels last."""
SIZES = 64
"""How many sizes of images a graph's verdicts are kept for."""
THOROUGH = 4
"""How many sizes get the whole check; later sizes get a shorter check, since photographs come in ever new sizes."""
SMALLER = 4
"""The sides of the image on which a graph's memory is estimated are this many times smaller."""
CHECK = 32
"""In what was measured, a graph's check took the memory of the clean features and of 25 to 35 images' logits."""
OTHERWISE = "its graph scores {} otherwise than the model itself"


@dataclass(eq=False)
class _Traced:
    """A model's graph, None until it could be traced; and for each size of images why it cannot serve, or ""."""

    state: Any
    graph: Graph | None = None
    verdicts: dict[torch.Size, str] = field(default_factory=dict)


_TRACED: WeakKeyDictionary[SegmentationModel, _Traced] = WeakKeyDictionary()


def agree(score: float, expected: float) -> bool:
    """Whether two scores of one image are the same up to rounding: to 1e-5, or 1e-5 of a score beyond 1."""
    return abs(score - expected) <= TOLERANCE * max(1.0, abs(expected))


def scorer_for(
    model: SegmentationModel,
    image: Image,
    region: Mask,
    scalar: Scalar,
    asked: Asked = "fp32",
    *,
    expected: float | None = None,
) -> IncrementalScorer | PlainScorer | TiledScorer | WiredScorer:
    """The fastest scorer of altered copies of `image` on `region` that the model and its switches allow.

    A traced graph is kept until the model changes, and is checked before its first use on images of each size: see
    `graph_of`. Where it fails on this image (`expected`), the model itself scores the copies. A model that runs
    on tiles has no graph; only the tiles that an alteration and the target share are computed. Of wired photographs
    each gets a scorer of its own, see `wired`; a target that lies in both halves is scored by the model itself.

    Args:
        asked: the precision. "bf16": differences from the clean image go through the convolutions in bfloat16, the
            rest is float32 (`bfloat16`); "tf32" needs a CUDA device; "auto": see `precision.chosen`.
        expected: s of the clean image by the model itself, which the graph's must equal.

    Raises:
        SettingsError: a precision that the device or the model cannot do.
        SampleError: the model has no such class.
    """
    precision = chosen(asked, model.device)
    if precision == "tf32" and model.device.type != "cuda":
        raise SettingsError("precision 'tf32' is a mode of NVIDIA GPUs; on the CPU use 'fp32' or 'bf16'")
    if model.wired and side_of(region) is not None:
        return _wired_scorer(model, image, region, scalar, asked, expected)
    graph: Graph | str = "incremental = false" if not model.incremental else "compile = true"
    if model.tiling is not None:
        graph = "the model runs on tiles"
    elif model.wired:
        graph = "the target lies in both halves of wired photographs"
    elif model.incremental and not model.compile:
        graph = model.one_by_one or graph_of(model, image)
    if isinstance(graph, Graph):
        scorer = IncrementalScorer(model, graph, image, region, scalar, precision)
        if expected is None or precision == "tf32" or agree(float(scorer.clean_score()), expected):
            return scorer
        graph = OTHERWISE.format("this image")
    if precision != "fp32" and asked != "auto":
        raise _refusal(model, precision, graph)
    if model.tiling is not None:
        return TiledScorer(model, image, region, scalar)
    return PlainScorer(model, region, scalar, graph)


def _refusal(model: SegmentationModel, precision: Precision, why: str) -> SettingsError:
    """That a precision needs a graph, and why there is none."""
    return SettingsError(
        f"precision {precision!r} needs incremental = true, compile = false and a model that torch.fx can trace; "
        f"{model.name} is not run that way ({why}), so use 'fp32'"
    )


def _wired_scorer(
    model: SegmentationModel, image: Image, region: Mask, scalar: Scalar, asked: Asked, expected: float | None
) -> WiredScorer | PlainScorer:
    """`scorer_for` of wired photographs, on a target in one half."""

    def of_half(part: Image, target: Mask) -> IncrementalScorer | PlainScorer:
        scorer = scorer_for(model.of_half, part, target, scalar, asked)
        assert not isinstance(scorer, TiledScorer | WiredScorer)  # settings refuse tiles
        return scorer

    scorer = wired_scorer(model, image, region, scalar, of_half)
    incremental = scorer.path == INCREMENTAL and asked != "tf32"
    if incremental and expected is not None and not agree(float(scorer.clean_score()), expected):
        why = OTHERWISE.format("this image")
        if asked == "bf16":
            raise _refusal(model, asked, why)
        return plain_scorer(model, image, region, scalar, why)
    return scorer


def plain_scorer(
    model: SegmentationModel, image: Image, region: Mask, scalar: Scalar, reason: str
) -> PlainScorer | WiredScorer:
    """The scorer by the model itself, of wired photographs half by half; `reason` says why not by a graph."""
    if not model.wired or side_of(region) is None:
        return PlainScorer(model, region, scalar, reason)
    half = model.of_half
    return wired_scorer(model, image, region, scalar, lambda part, target: PlainScorer(half, target, scalar, reason))


def graph_of(model: SegmentationModel, image: Image) -> Graph | str:
    """The model as a graph that is checked for images of this size; or why no graph can stand for it.

    It is traced anew where the model has changed. A check holds for a single size of images. The checks of the first
    four sizes cost 20 to 45 model passes each, later checks 10 to 22.
    """
    state = _state(model)
    traced = _TRACED.get(model)
    if traced is None or traced.state != state:
        traced = _TRACED[model] = _Traced(state)
    size = model.padded(image).shape[1:]
    if size not in traced.verdicts:
        if len(traced.verdicts) == SIZES:
            oldest = next(iter(traced.verdicts))
            del traced.verdicts[oldest]
            if traced.graph:
                traced.graph.shapes.pop(oldest, None)
        traced.verdicts[size] = _verdict(model, traced, image)
    verdict = traced.verdicts[size]
    return traced.graph if traced.graph and not verdict else verdict


@torch.inference_mode()
def _state(model: SegmentationModel) -> Any:
    """A value that changes with any weight (by sums of each tensor times 2 + sin i), module setting or hook."""
    held = (*model.module.parameters(), *model.module.buffers())
    tensors = [(one if one.layout is torch.strided else one.to_dense()).detach().flatten() for one in held]
    longest = max((len(tensor) for tensor in tensors), default=0)
    factors = torch.arange(longest, dtype=torch.float32, device=model.device).sin_().add_(2)  # neighbours differ
    products = [tensor.to(factors) @ factors[: len(tensor)] for tensor in tensors]
    sums = [str(total) for total in torch.stack(products).tolist()] if products else []  # as text NaN equals itself
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.module.modules()]
    return sums, repr(model.module), hooks, model.mean, model.std, model.head, model.pad, model.device, model.memory


def _verdict(model: SegmentationModel, traced: _Traced, image: Image) -> str:
    """Why no graph scores images of this size; "" where `traced` holds one that may."""
    try:
        if traced.graph is None:
            if model.place is None:
                model.logits(image[None])
            with model.evaluating():
                traced.graph = Graph(model.module, model.padded(image)[None], place=model.place or ())
        graph, thorough = traced.graph, len(traced.verdicts) < THOROUGH
        if model.memory is not None and (expected := _expected_bytes(model, graph, image)) > model.memory:
            return f"its graph would take about {in_words(expected)}, and execution.memory is {in_words(model.memory)}"
        difference = _difference(model, graph, image, thorough)
        if difference and graph.uses_winograd:  # the model may amplify its rounding
            graph.allow_winograd(False)
            if _difference(model, graph, image, thorough):
                graph.allow_winograd(True)
            else:
                difference = ""
    except NoGraph as error:
        return str(error)
    except (Exception, SystemExit) as error:  # tracing can fail in any way that the user's code can, and so can a graph
        if isinstance(error, SampleError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            raise
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return difference


@torch.inference_mode()
def _expected_bytes(model: SegmentationModel, graph: Graph, image: Image) -> float:
    """What the check of a graph is expected to take: the features of the clean image, and `CHECK` times its logits.

    The features are counted on an image of a quarter of the sides, and grow with the pixels. 0 where the model takes no
    such image: then the check itself shows what it takes.
    """
    small = F.interpolate(image[None], scale_factor=1 / SMALLER, mode="bilinear")
    padded = model.padded(small).contiguous(memory_format=torch.channels_last)
    try:
        with model.evaluating():
            values = graph.clean(model.normalise(padded)).values()
    except Exception:  # a model may take images of one size alone
        return 0.0
    storages = {value.untyped_storage()._cdata: value for value in values if isinstance(value, Tensor)}
    counted = sum(value.untyped_storage().nbytes() for value in storages.values())
    logits = 4 * (model.class_count or 2) * image[0].numel()
    return counted * model.padded(image).numel() / padded.numel() + CHECK * logits


@torch.inference_mode()
def _difference(model: SegmentationModel, graph: Graph, image: Image, thorough: bool) -> str:
    """How the graph differs from the model on images of this size; "" where it does not.

    The images are noise, a constant image (baselines are constant) and a nearly constant image. The target is a part of
    the image, of which the graph computes only what it reads; then, on noise, all of it. Two copies of each image are
    altered in a box and scored by windows; the image itself is scored as a whole. The short check, if not `thorough`,
    is on the first two images.
    """
    height, width = image.shape[1:]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image.device)
    flat = noise.mean((1, 2), keepdim=True).expand_as(noise)
    everywhere = torch.ones(height, width, dtype=torch.bool, device=image.device)
    part = torch.zeros_like(everywhere)
    part[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = True
    start = np.array([[0, 0], [height - max(1, height // 8), width - max(1, width // 8)]])
    stop = np.array([[height // 2 + 1, width // 2 + 1], [height, width]])
    cases = [
        ("noise", noise, part),
        ("a constant image", flat, part),
        ("a nearly constant image", flat + 1e-3 * (noise - 0.5), part),
        ("noise", noise, everywhere),
    ]
    for words, base, region in cases if thorough else cases[:2]:
        images = base.repeat(3, 1, 1, 1)
        for copy, (top, left), (bottom, right) in zip(images[:2], start, stop, strict=True):
            copy[:, top:bottom, left:right] = 1 - noise[:, top:bottom, left:right]
        expected = torch.cat([model.logits(altered[None]) for altered in images])
        scorer = IncrementalScorer(model, graph, base, region, Scalar(0))
        logits = torch.cat([scorer.logits(images[:2], (start, stop)), scorer.logits(images[2:])])
        excess = _excess(model, images, region, expected, logits)
        if excess:
            return f"{OTHERWISE.format(words)} at {height} x {width}: {excess}"
    return ""


def _excess(
    model: SegmentationModel,
    images: Float[Tensor, "B bands H W"],
    region: Mask,
    expected: Float[Tensor, "B C H W"],
    logits: Float[Tensor, "B C h w"],
) -> str:
    """Which scores or logits of a graph are too far from the model's; "" where none are.

    Rounding may move logits as far as it moves the model's own when only their order in memory changes.

    Args:
        expected: the model's logits of whole images.
        logits: the graph's, on the box around the region.
    """
    rows, columns, pixels = extent(region)
    expected = expected[:, :, rows, columns]
    squash = torch.sigmoid if model.independent else _softmax
    score = float((_scores(squash(logits), pixels) - _scores(squash(expected), pixels)).abs().max())
    if not score <= TOLERANCE:
        return f"scores differ by {score:.0e}"
    error, allowed = float((logits - expected).abs().max()), TOLERANCE * max(1, float(expected.abs().max()))
    if error > allowed:
        ordered = [model.logits(image[None].contiguous(memory_format=torch.channels_last)) for image in images]
        own = float((torch.cat(ordered)[:, :, rows, columns] - expected).abs().max())
        if error > REPRODUCIBLE * own:
            return f"logits differ by {error:.0e}, those of the model itself with channels last by {own:.0e}"
    return ""


def _softmax(logits: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    return logits.softmax(1)


def _scores(probabilities: Float[Tensor, "B C h w"], pixels: Int[Tensor, "P"]) -> Float[Tensor, "B C"]:
    """s_c of every class c."""
    return probabilities.flatten(2)[:, :, pixels].double().mean(-1)
