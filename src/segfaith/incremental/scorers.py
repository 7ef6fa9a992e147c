"""Two scorers of altered copies of an image: by windows through a traced graph, and by whole images through the model.

Either way the logits are resized to the image's size and become scores at the target's pixels only.
"""

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from segfaith.batching import Boxes
from segfaith.constants import EPS
from segfaith.incremental.arithmetic import Exact, Values
from segfaith.incremental.bfloat16 import Differences
from segfaith.incremental.graph import Graph, Shape
from segfaith.incremental.precision import Precision
from segfaith.incremental.window_plan import WindowPlan
from segfaith.incremental.windows import Box, Windows, cut, view, whole
from segfaith.models.padding import reached
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar, check_class
from segfaith.types import Float, Image, Int, Mask, Tensor

INCREMENTAL = "incremental"
"""The path of a traced graph."""


def region_mean(values: Float[Tensor, "B h w"], pixels: Int[Tensor, "P"]) -> Float[Tensor, "B"]:
    """The mean over the pixels with the numbers `pixels`."""
    return values.flatten(1)[:, pixels].double().sum(1) / (len(pixels) + EPS)


def extent(region: Mask) -> tuple[slice, slice, Int[Tensor, "P"]]:
    """Rows and columns of the box around a region, and the numbers of its pixels inside the box."""
    rows, columns = (torch.nonzero(region.any(1 - axis))[:, 0].tolist() for axis in (0, 1))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return *box, torch.nonzero(region[box].flatten())[:, 0]


class PlainScorer:
    """Scores whole images by the model itself, or by its compiled form; `path` says why not by a graph."""

    features = 0

    def __init__(self, model: SegmentationModel, region: Mask, scalar: Scalar, reason: str = "as asked") -> None:
        self.model, self.scalar, self.path = model, scalar, f"plain: {reason}"
        self.rows, self.columns, self.pixels = extent(region)

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s of B images, float64; `boxes` change nothing."""
        return region_mean(self.scalar.of(self.logits(images), 1), self.pixels)

    @torch.inference_mode()
    def logits(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B C h w"]:
        """z of B images on the box around the region, float32."""
        return self.model.logits_of(compiled(self.model), images)[:, :, self.rows, self.columns]


class IncrementalScorer:
    """Scores altered copies of an image by a traced graph, which computes only what was altered and the score reads.

    Attributes:
        features: bytes of an image's features in all layers, and of its logits.
    """

    path = INCREMENTAL

    def __init__(
        self,
        model: SegmentationModel,
        graph: Graph,
        image: Image,
        region: Mask,
        scalar: Scalar,
        precision: Precision = "fp32",
    ) -> None:
        self.model, self.graph, self.scalar = model, graph, scalar
        self.image = model.padded(image)
        self.precision, self.tf32 = precision, precision == "tf32"
        size = self.image.shape[1:]
        if size not in graph.shapes:
            graph.shapes[size] = graph.map_shapes(self.clean)
        shapes, output = graph.shapes[size], graph.output
        maps = [shape for shape in shapes.values() if shape is not None]
        if (last := shapes[output]) is not None and last[2:] != size:  # its logits are resized after it
            maps.append((last[1], *size))
        self.features = 4 * sum(map(prod, maps))
        if model.head != "probabilities":  # their logarithms do not commute with resizing
            output = _before_upsampling(output, shapes, tuple(size))
        shape = shapes[output]
        assert shape is not None
        for index in (scalar.class_index, scalar.versus or 0):
            check_class(index, max(shape[1], 2))
        rows, columns, self.pixels = extent(region)
        matrices = [
            _upsampling(shape[2 + axis], size[axis], image.device)[part] for axis, part in enumerate((rows, columns))
        ]
        read = [torch.nonzero(matrix.any(0))[:, 0].tolist() for matrix in matrices]
        box = Box(np.array([numbers[0] for numbers in read]), np.array([numbers[-1] + 1 for numbers in read]))
        self.upsampling = [matrix[:, box.start[axis] : box.stop[axis]] for axis, matrix in enumerate(matrices)]
        self.plan = WindowPlan(graph, output, shapes, box)

    @cached_property
    def clean(self) -> Values:
        """Every node's value for the clean image: one model pass, on first use."""
        with torch.inference_mode(), self.model.evaluating(tf32=self.tf32):
            return self.graph.clean(self._input(self.image[None]))

    @cached_property
    def _differences(self) -> Differences:
        return Differences(self.clean)

    @torch.inference_mode()
    def score(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B"]:
        """s of B altered images, float64."""
        return self._score(self._small_logits(images, boxes))

    @torch.inference_mode()
    def clean_score(self) -> Float[Tensor, "1"]:
        """s of the clean image, for the price of the last resizing."""
        return self._score(self._clean_small())

    @torch.inference_mode()
    def clean_logits(self) -> Float[Tensor, "1 C h w"]:
        """z of the clean image on the box around the region, for the same price."""
        return self._resized(self._of_classes(self._clean_small()))

    def _clean_small(self) -> Float[Tensor, "1 C r c"]:
        box = self.plan.box
        return cut(self.clean[self.plan.output], box.starts(1), box.size)

    @torch.inference_mode()
    def logits(self, images: Float[Tensor, "B bands H W"], boxes: Boxes | None = None) -> Float[Tensor, "B C h w"]:
        """z of B altered images on the box around the region, float32."""
        return self._resized(self._of_classes(self._small_logits(images, boxes)))

    def _small_logits(self, images: Tensor, boxes: Boxes | None) -> Float[Tensor, "B C r c"]:
        """The part of the logits that the last resizing reads, before it."""
        padded = self.model.padded(images)
        windows = whole(padded.contiguous(memory_format=torch.channels_last))
        if boxes is not None:
            size, larger = (images.shape[2], images.shape[3]), (padded.shape[2], padded.shape[3])
            start, stop = reached(*boxes, size, larger)
            size = (stop - start).max(0)
            start = np.clip(start, 0, windows.map_size - size)
            windows = Windows(view(windows, None, start, size), start, windows.map_size)
        with self.model.evaluating(tf32=self.tf32):
            altered = Windows(self._input(windows.data), windows.start, windows.map_size)
            if self.precision == "bf16":
                return self.plan.evaluate(altered, self._differences)
            return self.plan.evaluate(altered, Exact(None if boxes is None else self.clean))

    def _score(self, logits: Float[Tensor, "B C r c"]) -> Float[Tensor, "B"]:
        """s. For a softmax: the resizing is linear, so differences from z_c are resized; p_c = 1 / sum of their exp."""
        logits, scalar = self._of_classes(logits), self.scalar
        if scalar.reads is not None:
            few = self._resized(logits[:, list(scalar.reads)])
            return region_mean(scalar.among_read.of(few, 1), self.pixels)
        if scalar.kind != "probability":
            return region_mean(scalar.of(self._resized(logits), 1), self.pixels)
        differences = self._resized(logits - logits[:, scalar.class_index, None])
        return region_mean(differences.exp_().sum(1).reciprocal_(), self.pixels)

    def _of_classes(self, logits: Float[Tensor, "B C r c"]) -> Float[Tensor, "B K r c"]:
        return self.model.as_logits(logits).contiguous()

    def _input(self, images: Tensor) -> Tensor:
        return self.model.normalise(images).contiguous(memory_format=torch.channels_last)

    def _resized(self, values: Float[Tensor, "B C r c"]) -> Float[Tensor, "B C h w"]:
        rows, columns = self.upsampling
        with self.model.evaluating():  # float32 whatever the process allows
            return rows @ (values @ columns.T)


def _before_upsampling(node: fx.Node, shapes: dict[fx.Node, Shape | None], size: tuple[int, ...]) -> fx.Node:
    """The node before a last bilinear resizing to the image's size, or `node`: scorers resize at the target only."""
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


def compiled(model: SegmentationModel) -> Callable[[Tensor], Any]:
    """The model's module, in its compiled form where the model asks for it."""
    if not model.compile:
        return model.module
    if model not in _COMPILED:
        _COMPILED[model] = torch.compile(model.module)
    return _COMPILED[model]
