"""s_c of altered copies of one image: incrementally where the model can be traced, else as plain batches.

Either way the logits are resized to the image's size and put through the softmax at the target's pixels only, and
every score is that of the one-by-one loop to within 1e-5 (float32).
"""

from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from segfaith.constants import EPS
from segfaith.errors import SampleError, SettingsError
from segfaith.incremental.differences import Differences
from segfaith.incremental.graph import Graph, Plan, Shape
from segfaith.incremental.windows import Box, Windows, view, whole
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Boxes, check_class, out_of_memory
from segfaith.types import Float, Image, Int, Mask, Tensor

Precision = Literal["fp32", "tf32", "bf16"]
TOLERANCE = 1e-5
"""The most by which an incremental score may differ from the model's own."""

OTHERWISE = "its graph does not compute what the model computes"

_GRAPHS: WeakKeyDictionary[SegmentationModel, tuple[Any, Graph | str]] = WeakKeyDictionary()
"""By model: the state of its weights, and its graph or why there is none."""


def scorer_for(
    model: SegmentationModel,
    image: Image,
    region: Mask,
    class_index: int,
    precision: Precision = "fp32",
    *,
    expected: float | None = None,
) -> "IncrementalScorer | PlainScorer":
    """The fastest scorer of altered copies of `image` on `region` that the model and its switches allow.

    A traced graph is kept until the model changes, and is checked against the model itself on three altered noise
    images before its first use. Where it fails on this image (`expected`), the model itself scores the copies.

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
        graph = graph_of(model, image)
    if isinstance(graph, Graph):
        scorer = IncrementalScorer(model, graph, image, region, class_index, precision)
        if expected is None or precision == "tf32" or abs(float(scorer.clean_score()) - expected) <= TOLERANCE:
            return scorer
        graph = OTHERWISE
    if precision != "fp32":
        raise SettingsError(
            f"precision {precision!r} needs incremental = true, compile = false and a model that torch.fx can "
            f"trace; {model.name} is not run that way ({graph}), so use 'fp32'"
        )
    return PlainScorer(model, region, class_index)


def graph_of(model: SegmentationModel, image: Image) -> Graph | str:
    """The model as a checked graph, traced anew where the model has changed; or why it cannot be one."""
    state = _state(model)
    if model not in _GRAPHS or _GRAPHS[model][0] != state:
        try:
            with model.evaluating():
                traced = Graph(model.module, image[None])
            agrees = _agrees(model, traced, image)
            if not agrees:  # the model may amplify the rounding of `winograd`
                traced.winograd = False
                traced.row_weights.clear()
                agrees = _agrees(model, traced, image)
            graph: Graph | str = traced if agrees else OTHERWISE
        except SampleError:
            raise
        except Exception as error:  # tracing can fail in any way that the user's code can
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            graph = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        _GRAPHS[model] = (state, graph)
    return _GRAPHS[model][1]


@torch.inference_mode()
def _state(model: SegmentationModel) -> Any:
    """Changes when a weight does (each tensor times 2 + sin i), a module's settings, or its hooks."""
    tensors = [one.detach().flatten() for one in (*model.module.parameters(), *model.module.buffers())]
    longest = max((len(one) for one in tensors), default=0)
    factors = torch.arange(longest, dtype=torch.float32, device=model.device).sin_().add_(2)  # neighbours differ
    products = [one.to(factors) @ factors[: len(one)] for one in tensors]
    sums = [str(one) for one in torch.stack(products).tolist()] if products else []  # as text NaN equals itself
    hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in model.module.modules()]
    return sums, repr(model.module), hooks, model.mean, model.std, model.device


@torch.inference_mode()
def _agrees(model: SegmentationModel, graph: Graph, image: Image) -> bool:
    """Whether the graph's logits of three altered noise images, one altered everywhere, are the model's."""
    height, width = image.shape[1:]
    image = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image.device)
    start = np.array([[0, 0], [height - max(1, height // 8), width - max(1, width // 8)], [0, 0]])
    stop = np.array([[height // 2 + 1, width // 2 + 1], [height, width], [height, width]])
    images = image.repeat(3, 1, 1, 1)
    for one, (top, left), (bottom, right) in zip(images, start, stop, strict=True):
        one[:, top:bottom, left:right] = 1 - one[:, top:bottom, left:right]
    expected = torch.cat([model.logits(one[None]) for one in images])
    everywhere = torch.ones(height, width, dtype=torch.bool, device=image.device)
    scorer = IncrementalScorer(model, graph, image, everywhere, 0)
    for part, boxes in ((slice(0, 2), (start[:2], stop[:2])), (slice(2, 3), (start[2:], stop[2:])), (slice(3), None)):
        error = (scorer.logits(images[part], boxes) - expected[part]).abs().max()
        if not bool(error <= TOLERANCE * expected.abs().max().clamp(min=1)):
            return False
    return True


def _probability(logits: Float[Tensor, "B C h w"], class_index: int, pixels: Int[Tensor, "P"]) -> Float[Tensor, "B"]:
    """s_c over the pixels of those numbers."""
    check_class(class_index, logits.shape[1])
    return _mean(logits.softmax(1)[:, class_index], pixels)


def _mean(probability: Float[Tensor, "B h w"], pixels: Int[Tensor, "P"]) -> Float[Tensor, "B"]:
    return probability.flatten(1)[:, pixels].double().sum(1) / (len(pixels) + EPS)


def _extent(region: Mask) -> tuple[slice, slice, Int[Tensor, "P"]]:
    """Rows and columns of the box around a region, and the numbers of its pixels inside the box."""
    rows, columns = (torch.nonzero(region.any(1 - axis))[:, 0].tolist() for axis in (0, 1))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return *box, torch.nonzero(region[box].flatten())[:, 0]


class PlainScorer:
    """Whole images through the model itself, or through its compiled form."""

    def __init__(self, model: SegmentationModel, region: Mask, class_index: int) -> None:
        self.model, self.class_index = model, class_index
        self.rows, self.columns, self.pixels = _extent(region)

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B 3 H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s_c of B images, float64; `boxes` change nothing."""
        module = _compiled(self.model) if self.model.compile else self.model.module
        logits = self.model.logits_of(module, images)
        return _probability(logits[:, :, self.rows, self.columns], self.class_index, self.pixels)


class IncrementalScorer:
    """Altered copies of one image through a traced graph: computes what was altered and what the score reads."""

    def __init__(
        self,
        model: SegmentationModel,
        graph: Graph,
        image: Image,
        region: Mask,
        class_index: int,
        precision: Precision = "fp32",
    ) -> None:
        self.model, self.graph, self.image, self.class_index = model, graph, image, class_index
        self.precision, self.tf32 = precision, precision == "tf32"
        self.size = np.array(image.shape[1:])
        self._clean: dict[fx.Node, Any] | None = None
        if image.shape[1:] not in graph.shapes:
            graph.shapes[image.shape[1:]] = {
                node: tuple(value.shape)
                if isinstance(value, Tensor)
                and value.ndim == 4
                and len(value) == 1
                and value.is_floating_point()
                and node in graph.dynamic
                else None
                for node, value in self.clean.items()
            }
        shapes = graph.shapes[image.shape[1:]]
        output = _before_upsampling(graph.output, shapes, tuple(image.shape[1:]))
        shape = shapes[output]
        assert shape is not None
        check_class(class_index, max(shape[1], 2))
        rows, columns, self.pixels = _extent(region)
        matrices = [
            _upsampling(shape[2 + axis], image.shape[1 + axis], image.device)[part]
            for axis, part in enumerate((rows, columns))
        ]
        read = [torch.nonzero(one.any(0))[:, 0].tolist() for one in matrices]
        box = Box(np.array([one[0] for one in read]), np.array([one[-1] + 1 for one in read]))
        self.upsampling = [one[:, box.start[axis] : box.stop[axis]] for axis, one in enumerate(matrices)]
        self.plan = (Differences if precision == "bf16" else Plan)(graph, output, shapes, box)

    @property
    def clean(self) -> dict[fx.Node, Any]:
        """Every node's value for the clean image: one model pass, on first use."""
        if self._clean is None:
            with torch.inference_mode(), self.model.evaluating(tf32=self.tf32):
                self._clean = self.graph.clean(self._input(self.image[None]))
        return self._clean

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B 3 H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s_c of B altered images, float64."""
        return self._score(self._small_logits(images, boxes))

    @torch.inference_mode()
    def clean_score(self) -> Float[Tensor, "1"]:
        """s_c of the clean image, for the price of the last resizing."""
        start, stop = self.plan.box.start, self.plan.box.stop
        return self._score(self.clean[self.plan.output][:, :, start[0] : stop[0], start[1] : stop[1]])

    @torch.inference_mode()
    def logits(self, images: Float[Tensor, "B 3 H W"], boxes: Boxes | None = None) -> Float[Tensor, "B C h w"]:
        """z of B altered images on the box around the region, float32."""
        return self._resized(_of_classes(self._small_logits(images, boxes)))

    def _small_logits(self, images: Tensor, boxes: Boxes | None) -> Float[Tensor, "B C r c"]:
        """The logits before the last resizing, as far as it reads them."""
        with self.model.evaluating(tf32=self.tf32):
            if boxes is None:
                clean = self.clean if self.precision == "bf16" else None
                return self.plan.evaluate(whole(self._input(images)), clean)
            start, stop = boxes
            size = (stop - start).max(0)
            start = np.clip(start, 0, self.size - size)
            windows = whole(images.contiguous(memory_format=torch.channels_last))
            altered = self._input(view(windows, None, self.size, start, size, 0.0))
            return self.plan.evaluate(Windows(altered, start), self.clean)

    def _score(self, logits: Float[Tensor, "B C r c"]) -> Float[Tensor, "B"]:
        """s_c: the resizing is linear, so the differences from z_c are resized, and p_c = 1 / sum of their exp."""
        logits = _of_classes(logits)
        differences = self._resized(logits - logits[:, self.class_index, None])
        return _mean(differences.exp_().sum(1).reciprocal_(), self.pixels)

    def _input(self, images: Tensor) -> Tensor:
        return self.model.normalise(images).contiguous(memory_format=torch.channels_last)

    def _resized(self, values: Float[Tensor, "B C r c"]) -> Float[Tensor, "B C h w"]:
        rows, columns = self.upsampling
        with self.model.evaluating():  # float32 whatever the process allows
            return rows @ (values @ columns.T)


def _of_classes(logits: Float[Tensor, "B C r c"]) -> Float[Tensor, "B K r c"]:
    """Float32, and with a class 0 of logit 0 where the model has one logit, that of a sigmoid."""
    logits = logits.float().contiguous()
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _before_upsampling(node: fx.Node, shapes: dict[fx.Node, Shape | None], size: tuple[int, ...]) -> fx.Node:
    """The logits before a last bilinear resize to the image's size, which is done here at the target only."""
    known = {"mode": "bilinear", "align_corners": False, "scale_factor": None, "antialias": False}
    given = {"scale_factor": None, "antialias": False} | dict(node.kwargs)
    if node.target is F.interpolate and len(node.args) == 1 and all(given.get(key) == known[key] for key in known):
        shape = shapes[node]
        if shape is not None and shape[2:] == size:
            return node.all_input_nodes[0]
    return node


def _upsampling(small: int, large: int, device: torch.device) -> Float[Tensor, "large small"]:
    """The matrix of torch's bilinear resizing along one axis."""
    if small == large:
        return torch.eye(large, device=device)
    units = torch.eye(small, device=device)[None, :, :, None]
    return F.interpolate(units, size=(large, 1), mode="bilinear", align_corners=False)[0, :, :, 0].T


_COMPILED: WeakKeyDictionary[SegmentationModel, Callable[[Tensor], Any]] = WeakKeyDictionary()


def _compiled(model: SegmentationModel) -> Callable[[Tensor], Any]:
    if model not in _COMPILED:
        _COMPILED[model] = torch.compile(model.module)
    return _COMPILED[model]
