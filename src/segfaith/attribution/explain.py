"""Turns variants of an image into heatmaps. Each piece of evidence is gathered once, and all methods share it."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from segfaith.attribution.cam import ega
from segfaith.attribution.guard import foreign
from segfaith.attribution.heatmap import minmax, zero_where_constant
from segfaith.attribution.methods import MethodInstance
from segfaith.batching import BatchSize
from segfaith.errors import SampleError
from segfaith.evidence.gradient import ForwardPass, Objective, clock, forward_pass, gradient_evidence
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions, grid_cells
from segfaith.models.segmentation import SegmentationModel
from segfaith.paths import map_folder
from segfaith.perturbation import Variants
from segfaith.randomness import generator
from segfaith.scores import scalar_of
from segfaith.types import Float, GradientEvidence, Int, InterventionEvidence, Target, Tensor

Key = tuple[Any, ...] | Regions
RANGE_SLACK = 1e-6
"""How far rounding may take a map beyond [0, 1]."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """All evidence that a set of methods needs for N variants of one sample, and what each piece cost in seconds."""

    variants: Variants
    target: Target
    forward: ForwardPass | None = None
    gradient: dict[Key, GradientEvidence | Exception] = field(default_factory=dict)
    intervention: dict[Key, InterventionEvidence | Exception] = field(default_factory=dict)
    seconds: dict[Key, float] = field(default_factory=dict)
    batch: BatchSize = field(default_factory=lambda: BatchSize(1))

    def cost(self, instance: MethodInstance) -> float:
        """Seconds of the evidence that the method needs. A shared pass counts in full for each method."""
        gradient, intervention = instance.gradient_key, instance.intervention_key
        total = self.seconds[gradient] if gradient else 0.0
        if intervention:
            total += self.seconds[intervention]
            if not gradient and self.forward:  # a drop is a difference from s, which takes a forward pass
                total += self.forward.seconds
        return total


def gather(
    model: SegmentationModel,
    variants: Variants,
    target: Target,
    methods: Sequence[MethodInstance],
    batch: BatchSize,
    rng: Callable[[str], np.random.Generator],
    *,
    score: bool = True,
) -> Gathered:
    """Runs the model for the evidence of `methods`. Methods that need the same evidence share it.

    Args:
        target: gives the class and the score; each variant has its own region.

    If evidence cannot be computed, its error takes its place, and only the methods that need this evidence fail.

    Model passes: N for each distinct gradient evidence; N x (1 + the number of regions) for each distinct intervention
    evidence; N more for the scores of the variants, if interventions or the caller (`score`) need the scores and no
    gradient evidence has given them.

    Raises:
        SampleError: the logits are NaN or infinite, so there is nothing to explain.
    """
    gradient_keys, intervention_keys = evidence_keys(methods)
    images, regions, scalar = variants.images, variants.regions, scalar_of(model, target)
    forward: ForwardPass | None = None
    gradient: dict[Key, GradientEvidence | Exception] = {}
    intervention: dict[Key, InterventionEvidence | Exception] = {}
    seconds: dict[Key, float] = {}
    for layer, objective in gradient_keys:
        try:
            gradient[layer, objective], passed, seconds[layer, objective] = gradient_evidence(
                model, images, regions, scalar, batch, layer=layer, objective=objective
            )
            forward = forward or passed
        except Exception as error:
            gradient[layer, objective] = error.with_traceback(None)  # a traceback's frames keep tensors alive
    if forward is None and (score or intervention_keys):
        forward = forward_pass(model, images, regions, scalar, batch)
    for asked in intervention_keys:
        assert forward is not None
        start = clock(model.device)
        try:
            guide = None if asked.guide is None else ega(_usable(gradient[asked.guide]), pool="mean", window=1)
            intervention[asked] = intervention_evidence(
                model,
                variants,
                asked,
                forward.score,
                scalar,
                batch,
                rng=lambda name=asked.occlusion: rng(f"evidence|{name}"),  # type: ignore[misc]
                guide=guide,
            )
        except Exception as error:
            intervention[asked] = error.with_traceback(None)
        seconds[asked] = clock(model.device) - start
    return Gathered(variants, target, forward, gradient, intervention, seconds, batch)


def evidence_keys(
    methods: Sequence[MethodInstance],
) -> tuple[list[tuple[str | None, Objective]], list[Regions]]:
    """The distinct requests of some methods: (layer, objective) for gradient evidence, `Regions` for interventions."""
    gradient = dict.fromkeys(key for method in methods if (key := method.gradient_key))
    intervention = dict.fromkeys(cell for method in methods if (cell := method.intervention_key))
    return list(gradient), list(intervention)


def heatmaps(
    model: SegmentationModel,
    gathered: Gathered,
    instance: MethodInstance,
    rng: Callable[[str], np.random.Generator],
    sample_id: str,
    draw: int = 0,
) -> Float[Tensor, "N H W"]:
    """The method's map of each variant, in [0, 1]. The map of a mirrored variant is mirrored too.

    A user's method gets copies of its inputs, and its maps are copied at once. Callers run this function inside
    `guarded`, which undoes whatever else the method changes.

    Raises:
        SampleError: the method did not return a map of the image's size with finite values, or one in [0, 1] where it
            does not run the model itself.
    """
    variants, method = gathered.variants, instance.method
    size = (variants.images.shape[-2], variants.images.shape[-1])
    if "file" in method.needs:
        from_file: Tensor = method.combine(map_folder(sample_id, gathered.target.name), size)
        return from_file[None].to(variants.images.device)
    if "model" in method.needs:
        return _of_model(model, gathered, instance, rng, draw)
    inputs: dict[str, Any] = {}
    for need in method.needs:
        if need == "gradient":
            inputs[need] = _usable(gathered.gradient[instance.gradient_key or ()])
        elif need == "intervention":
            inputs[need] = _usable(gathered.intervention[instance.regions])
        elif need == "region":
            inputs[need] = variants.regions
        elif need == "partition":
            inputs[need] = _partition(model, gathered, instance.regions)
        elif need == "rng":
            inputs[need] = [rng(f"{instance.name}|{name}|{draw}") for name in variants.names]
    if foreign(method):
        inputs = deepcopy(inputs)
    maps_of_all: Tensor = method.combine(**inputs, **instance.options)
    checked = [_checked(heatmap, size, instance.name).to(variants.images.device) for heatmap in maps_of_all]
    maps = torch.stack(checked)
    if foreign(method):
        _check_range(maps, instance.name)
    return zero_where_constant(maps)


def _of_model(
    model: SegmentationModel,
    gathered: Gathered,
    instance: MethodInstance,
    rng: Callable[[str], np.random.Generator],
    draw: int,
) -> Float[Tensor, "N H W"]:
    """The maps of a method that runs the model itself, variant by variant."""
    variants, needs = gathered.variants, instance.method.needs
    size = (variants.images.shape[-2], variants.images.shape[-1])
    cells = _partition(model, gathered, instance.regions) if "partition" in needs else None
    maps = []
    for n, (image, region) in enumerate(zip(variants.images, variants.regions, strict=True)):
        more = instance.options
        if "batch" in needs:
            more["batch"] = gathered.batch
        if "rng" in needs:
            more["rng"] = rng(f"{instance.name}|{variants.names[n]}|{draw}")
        if cells is not None:
            more["partition"] = cells[n].clone()
        target = replace(gathered.target, region=region.clone())
        heatmap = _checked(instance.method.combine(model, image.clone(), target, **more), size, instance.name)
        maps.append(heatmap.to(variants.images.device))
    return minmax(torch.stack(maps))


def _partition(model: SegmentationModel, gathered: Gathered, regions: Regions) -> Int[Tensor, "N H W"]:
    """The regions of each variant's pixels."""
    if regions.kind != "grid":
        evidence: InterventionEvidence = _usable(gathered.intervention[regions])
        return evidence.regions
    images = gathered.variants.images
    size = (images.shape[-2], images.shape[-1])
    flipped = gathered.variants.flipped
    cells = [grid_cells(size, regions.grid, mirrored=mirrored, wired=model.wired) for mirrored in flipped]
    return torch.stack(cells).to(images.device)


def _usable(evidence: Any) -> Any:
    """The evidence. If an error took its place, that error is raised."""
    if isinstance(evidence, Exception):
        raise evidence
    return evidence


def _checked(heatmap: Any, size: tuple[int, int], name: str) -> Float[Tensor, "H W"]:
    if isinstance(heatmap, np.ndarray):
        heatmap = torch.from_numpy(np.ascontiguousarray(heatmap))
    if not isinstance(heatmap, Tensor) or tuple(heatmap.shape) != size:
        came = tuple(heatmap.shape) if isinstance(heatmap, Tensor) else type(heatmap).__name__
        raise SampleError(f"method {name!r} returned {came}; expected a map of shape {size}, the image's (H, W)")
    if heatmap.is_complex():
        raise SampleError(f"method {name!r} returned {heatmap.dtype}; expected real numbers, such as absolute values")
    values: Tensor = heatmap.detach().to(torch.float32, copy=True)
    bad = int((~values.isfinite()).sum())
    if bad:
        raise SampleError(f"method {name!r} returned {bad} values that are NaN or infinite")
    return values


def _check_range(maps: Float[Tensor, "N H W"], name: str) -> None:
    """Raises SampleError for values beyond [0, 1], of which ranks, sums and shares would mean nothing."""
    low, high = float(maps.min()), float(maps.max())
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise SampleError(
            f"method {name!r} returned values from {low:g} to {high:g}; expected maps in [0, 1]: normalise each, as "
            "segfaith.attribution.heatmap.minmax does"
        )


def sample_rng(seed: int, sample_id: str, target: str = "") -> Callable[[str], np.random.Generator]:
    """A function that returns the random generator of a sample, or of its target of this name, for a purpose."""
    return lambda purpose: generator(seed, sample_id, purpose, target)
