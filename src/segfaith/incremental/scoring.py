"""s_c of altered copies of one image: incrementally where the model can be traced, else as plain batches.

Either way every score is that of the one-by-one loop to within 1e-5 (float32): a graph is held against the model itself
for every size of images, and on each image.
"""

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from segfaith.errors import SampleError, SettingsError
from segfaith.incremental.graph import Graph
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer, Precision, extent
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import out_of_memory
from segfaith.types import Float, Image, Int, Mask, Tensor

TOLERANCE = 1e-5
"""The most by which an incremental score may differ from the model's own."""
REPRODUCIBLE = 4
"""How many times as far from the model's logits a graph's may lie as those of the model itself with channels last."""
SIZES = 64
"""How many sizes of images a graph's verdicts are kept for."""
THOROUGH = 4
"""How many sizes get the whole check, before photographs of ever other sizes get a shorter one."""
OTHERWISE = "its graph scores {} otherwise than the model itself"


@dataclass(eq=False)
class _Traced:
    """A model's graph, once it could be traced, and by image size why there is none that serves ("" where it does)."""

    state: Any
    graph: Graph | None = None
    verdicts: dict[torch.Size, str] = field(default_factory=dict)


_TRACED: WeakKeyDictionary[SegmentationModel, _Traced] = WeakKeyDictionary()


def scorer_for(
    model: SegmentationModel,
    image: Image,
    region: Mask,
    class_index: int,
    precision: Precision = "fp32",
    *,
    expected: float | None = None,
) -> IncrementalScorer | PlainScorer:
    """The fastest scorer of altered copies of `image` on `region` that the model and its switches allow.

    A traced graph is kept until the model changes, and is checked before its first use on images of each size: see
    `graph_of`. Where it fails on this image (`expected`), the model itself scores the copies.

    Args:
        precision: "bf16": differences from the clean image go through the convolutions in bfloat16, the rest is
            float32 (`differences`); "tf32" needs a CUDA device.
        expected: s_c of the clean image by the model itself, to hold the graph's against.

    Raises:
        SettingsError: a precision that the device or the model cannot do.
        SampleError: the model has no such class.
    """
    if precision == "tf32" and model.device.type != "cuda":
        raise SettingsError("precision 'tf32' is a mode of NVIDIA GPUs; on the CPU use 'fp32' or 'bf16'")
    graph: Graph | str = "incremental = false" if not model.incremental else "compile = true"
    if model.incremental and not model.compile:
        graph = model.one_by_one or graph_of(model, image)
    if isinstance(graph, Graph):
        scorer = IncrementalScorer(model, graph, image, region, class_index, precision)
        if expected is None or precision == "tf32" or abs(float(scorer.clean_score()) - expected) <= TOLERANCE:
            return scorer
        graph = OTHERWISE.format("this image")
    if precision != "fp32":
        raise SettingsError(
            f"precision {precision!r} needs incremental = true, compile = false and a model that torch.fx can "
            f"trace; {model.name} is not run that way ({graph}), so use 'fp32'"
        )
    return PlainScorer(model, region, class_index, graph)


def graph_of(model: SegmentationModel, image: Image) -> Graph | str:
    """The model as a graph that is checked for images of this size; or why it cannot be one.

    It is traced anew where the model has changed. A verdict holds for one size of images. Each of the first four costs
    20 to 45 model passes, each further one 10 to 22.
    """
    state = _state(model)
    traced = _TRACED.get(model)
    if traced is None or traced.state != state:
        traced = _TRACED[model] = _Traced(state)
    size = image.shape[1:]
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
    """Changes when a weight does (each tensor times 2 + sin i), a module's settings, or its hooks."""
    tensors = [one.detach().flatten() for one in (*model.module.parameters(), *model.module.buffers())]
    longest = max((len(one) for one in tensors), default=0)
    factors = torch.arange(longest, dtype=torch.float32, device=model.device).sin_().add_(2)  # neighbours differ
    products = [one.to(factors) @ factors[: len(one)] for one in tensors]
    sums = [str(one) for one in torch.stack(products).tolist()] if products else []  # as text NaN equals itself
    hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in model.module.modules()]
    return sums, repr(model.module), hooks, model.mean, model.std, model.head, model.device


def _verdict(model: SegmentationModel, traced: _Traced, image: Image) -> str:
    """Why no graph scores images of this size; "" where `traced` holds one that may."""
    try:
        if traced.graph is None:
            with model.evaluating():
                traced.graph = Graph(model.module, image[None])
        graph, thorough = traced.graph, len(traced.verdicts) < THOROUGH
        difference = _difference(model, graph, image, thorough)
        if difference and graph.uses_winograd:  # the model may amplify its rounding
            graph.allow_winograd(False)
            if _difference(model, graph, image, thorough):
                graph.allow_winograd(True)
            else:
                difference = ""
    except (Exception, SystemExit) as error:  # tracing can fail in any way that the user's code can, and so can a graph
        if isinstance(error, SampleError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            raise
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return difference


@torch.inference_mode()
def _difference(model: SegmentationModel, graph: Graph, image: Image, thorough: bool) -> str:
    """In which way the graph differs from the model on images of this size; "" where it does not.

    Noise, a constant image as baselines are, and a nearly constant one; a part of the image as the target, of which the
    graph computes what it reads, and all of it. Of each image two copies are altered in a box and go through windows,
    and the image itself goes through whole. If not `thorough`, the first two images with a part as the target.
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
        for one, (top, left), (bottom, right) in zip(images[:2], start, stop, strict=True):
            one[:, top:bottom, left:right] = 1 - noise[:, top:bottom, left:right]
        expected = torch.cat([model.logits(one[None]) for one in images])
        scorer = IncrementalScorer(model, graph, base, region, 0)
        found = torch.cat([scorer.logits(images[:2], (start, stop)), scorer.logits(images[2:])])
        differ = _differ(model, images, region, expected, found)
        if differ:
            return f"{OTHERWISE.format(words)} at {height} x {width}: {differ}"
    return ""


def _differ(
    model: SegmentationModel,
    images: Float[Tensor, "B 3 H W"],
    region: Mask,
    expected: Float[Tensor, "B C H W"],
    found: Float[Tensor, "B C h w"],
) -> str:
    """What is too far from the model's: the score of a class, or a logit beyond what the memory's order alone does.

    Args:
        found: the graph's logits, on the box around the region.
    """
    rows, columns, pixels = extent(region)
    expected = expected[:, :, rows, columns]
    score = float((_scores(found, pixels) - _scores(expected, pixels)).abs().max())
    if not score <= TOLERANCE:
        return f"scores differ by {score:.0e}"
    error, allowed = float((found - expected).abs().max()), TOLERANCE * max(1, float(expected.abs().max()))
    if error > allowed:
        ordered = [model.logits(one[None].contiguous(memory_format=torch.channels_last)) for one in images]
        own = float((torch.cat(ordered)[:, :, rows, columns] - expected).abs().max())
        if error > REPRODUCIBLE * own:
            return f"logits differ by {error:.0e}, those of the model itself with channels last by {own:.0e}"
    return ""


def _scores(logits: Float[Tensor, "B C h w"], pixels: Int[Tensor, "P"]) -> Float[Tensor, "B C"]:
    """s_c of every class c."""
    return logits.softmax(1).flatten(2)[:, :, pixels].double().mean(-1)
