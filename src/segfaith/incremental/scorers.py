"""Two scorers of altered copies of one image: by a traced graph, and by the model itself in whole images.

Either way the logits are resized to the image's size and put through the softmax at the target's pixels only.
"""

from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from segfaith.constants import EPS
from segfaith.incremental.differences import Differences
from segfaith.incremental.graph import Graph, Plan, Shape
from segfaith.incremental.windows import Box, Windows, view, whole
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Boxes, check_class
from segfaith.types import Float, Image, Int, Mask, Tensor

Precision = Literal["fp32", "tf32", "bf16"]
INCREMENTAL = "incremental"
"""The path of a traced graph."""


def _probability(logits: Float[Tensor, "B C h w"], class_index: int, pixels: Int[Tensor, "P"]) -> Float[Tensor, "B"]:
    """s_c over the pixels of those numbers."""
    check_class(class_index, logits.shape[1])
    return _mean(logits.softmax(1)[:, class_index], pixels)


def _mean(probability: Float[Tensor, "B h w"], pixels: Int[Tensor, "P"]) -> Float[Tensor, "B"]:
    return probability.flatten(1)[:, pixels].double().sum(1) / (len(pixels) + EPS)


def extent(region: Mask) -> tuple[slice, slice, Int[Tensor, "P"]]:
    """Rows and columns of the box around a region, and the numbers of its pixels inside the box."""
    rows, columns = (torch.nonzero(region.any(1 - axis))[:, 0].tolist() for axis in (0, 1))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return *box, torch.nonzero(region[box].flatten())[:, 0]


class PlainScorer:
    """Whole images through the model itself, or through its compiled form; `path` says why not through a graph."""

    def __init__(self, model: SegmentationModel, region: Mask, class_index: int, reason: str = "as asked") -> None:
        self.model, self.class_index, self.path = model, class_index, f"plain: {reason}"
        self.rows, self.columns, self.pixels = extent(region)

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B 3 H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s_c of B images, float64; `boxes` change nothing."""
        module = _compiled(self.model) if self.model.compile else self.model.module
        logits = self.model.logits_of(module, images)
        return _probability(logits[:, :, self.rows, self.columns], self.class_index, self.pixels)


class IncrementalScorer:
    """Altered copies of one image through a traced graph: computes what was altered and what the score reads."""

    path = INCREMENTAL

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
        output = graph.output
        if model.head != "probabilities":  # their logarithms do not commute with resizing
            output = _before_upsampling(output, shapes, tuple(image.shape[1:]))
        shape = shapes[output]
        assert shape is not None
        check_class(class_index, max(shape[1], 2))
        rows, columns, self.pixels = extent(region)
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
        return self._resized(self._of_classes(self._small_logits(images, boxes)))

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
        logits = self._of_classes(logits)
        differences = self._resized(logits - logits[:, self.class_index, None])
        return _mean(differences.exp_().sum(1).reciprocal_(), self.pixels)

    def _of_classes(self, logits: Float[Tensor, "B C r c"]) -> Float[Tensor, "B K r c"]:
        return self.model.as_logits(logits).contiguous()

    def _input(self, images: Tensor) -> Tensor:
        return self.model.normalise(images).contiguous(memory_format=torch.channels_last)

    def _resized(self, values: Float[Tensor, "B C r c"]) -> Float[Tensor, "B C h w"]:
        rows, columns = self.upsampling
        with self.model.evaluating():  # float32 whatever the process allows
            return rows @ (values @ columns.T)


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
