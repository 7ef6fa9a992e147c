"""From variants of an image to heatmaps: gathers each piece of evidence once, then lets every method read it."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from segfaith.attribution.cam import ega
from segfaith.attribution.guard import foreign
from segfaith.attribution.heatmap import minmax, zero_where_constant
from segfaith.attribution.methods import MethodInstance
from segfaith.errors import SampleError
from segfaith.evidence.gradient import ForwardPass, Objective, clock, forward_pass, gradient_evidence
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions, grid_cells
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import Variants
from segfaith.randomness import generator
from segfaith.scores import BatchSize
from segfaith.types import Float, GradientEvidence, Int, InterventionEvidence, Target, Tensor

Key = tuple[Any, ...] | Regions


@dataclass(frozen=True, eq=False)
class Gathered:
    """All evidence that a set of methods needs for N variants of one sample, and what each piece cost in seconds."""

    variants: Variants
    class_index: int
    forward: ForwardPass | None = None
    gradient: dict[Key, GradientEvidence | Exception] = field(default_factory=dict)
    intervention: dict[Key, InterventionEvidence | Exception] = field(default_factory=dict)
    seconds: dict[Key, float] = field(default_factory=dict)

    def cost(self, instance: MethodInstance) -> float:
        """Seconds of the evidence that the method would have needed alone: a shared pass is charged to each."""
        gradient, intervention = instance.gradient_key, instance.intervention_key
        total = self.seconds[gradient] if gradient else 0.0
        if intervention:
            total += self.seconds[intervention]
            if not gradient and self.forward:  # the drop is relative to s, which takes a forward pass
                total += self.forward.seconds
        return total


def gather(
    model: SegmentationModel,
    variants: Variants,
    class_index: int,
    methods: Sequence[MethodInstance],
    batch: BatchSize,
    rng: Callable[[str], np.random.Generator],
    *,
    score: bool = True,
) -> Gathered:
    """Runs the model for the evidence of `methods`, each piece once for all methods that share it.

    Evidence that cannot be had is kept as its error, which stops only the methods that need it.

    Model passes: N for each distinct gradient evidence, N x (1 + the number of regions) for each distinct intervention
    evidence, and N plain ones only where no gradient evidence gives the scores that interventions, or the caller
    (`score`), need.

    Raises:
        SampleError: the logits are NaN or infinite, so there is nothing to explain.
    """
    gradient_keys, intervention_keys = evidence_keys(methods)
    images, regions = variants.images, variants.regions
    forward: ForwardPass | None = None
    gradient: dict[Key, GradientEvidence | Exception] = {}
    intervention: dict[Key, InterventionEvidence | Exception] = {}
    seconds: dict[Key, float] = {}
    for layer, objective in gradient_keys:
        try:
            gradient[layer, objective], passed, seconds[layer, objective] = gradient_evidence(
                model, images, regions, class_index, batch, layer=layer, objective=objective
            )
            forward = forward or passed
        except Exception as error:
            gradient[layer, objective] = error.with_traceback(None)  # whose frames hold tensors
    if forward is None and (score or intervention_keys):
        forward = forward_pass(model, images, regions, class_index, batch)
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
                class_index,
                batch,
                rng=lambda name=asked.occlusion: rng(f"evidence|{name}"),  # type: ignore[misc]
                guide=guide,
            )
        except Exception as error:
            intervention[asked] = error.with_traceback(None)
        seconds[asked] = clock(model.device) - start
    return Gathered(variants, class_index, forward, gradient, intervention, seconds)


def evidence_keys(
    methods: Sequence[MethodInstance],
) -> tuple[list[tuple[str | None, Objective]], list[Regions]]:
    """The distinct gradient evidence (layer, objective) and intervention evidence of some methods."""
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
    """The method's map of each variant, in [0, 1], in that variant's own frame (mirrored ones stay mirrored).

    A method of one's own is given copies, and its maps are copied at once. What else it may do is for `guarded`, which
    callers put around this.

    Raises:
        SampleError: the method returned something that is no map of the image's size with finite values.
    """
    variants, method = gathered.variants, instance.method
    size = (variants.images.shape[-2], variants.images.shape[-1])
    if "file" in method.needs:
        from_file: Tensor = method.combine(sample_id, size)
        return from_file[None].to(variants.images.device)
    if "model" in method.needs:
        maps = [
            _checked(
                method.combine(model, image.clone(), Target(gathered.class_index, region.clone())), size, instance.name
            )
            for image, region in zip(variants.images, variants.regions, strict=True)
        ]
        return minmax(torch.stack([one.to(variants.images.device) for one in maps]))
    inputs: dict[str, Any] = {}
    for need in method.needs:
        if need == "gradient":
            inputs[need] = _usable(gathered.gradient[instance.gradient_key or ()])
        elif need == "intervention":
            inputs[need] = _usable(gathered.intervention[instance.regions])
        elif need == "region":
            inputs[need] = variants.regions
        elif need == "partition":
            inputs[need] = _partition(gathered, instance.regions)
        elif need == "rng":
            inputs[need] = [rng(f"{instance.name}|{name}|{draw}") for name in variants.names]
    if foreign(method):
        inputs = deepcopy(inputs)
    maps_of_all: Tensor = method.combine(**inputs, **instance.options)
    checked = [_checked(one, size, instance.name).to(variants.images.device) for one in maps_of_all]
    return zero_where_constant(torch.stack(checked))


def _partition(gathered: Gathered, regions: Regions) -> Int[Tensor, "N H W"]:
    """The regions of each variant's pixels."""
    if regions.kind != "grid":
        evidence: InterventionEvidence = _usable(gathered.intervention[regions])
        return evidence.regions
    images = gathered.variants.images
    size = (images.shape[-2], images.shape[-1])
    cells = [grid_cells(size, regions.grid, mirrored=mirrored) for mirrored in gathered.variants.flipped]
    return torch.stack(cells).to(images.device)


def _usable(evidence: Any) -> Any:
    """The evidence, or the error that kept it from being had."""
    if isinstance(evidence, Exception):
        raise evidence
    return evidence


def _checked(heatmap: Any, size: tuple[int, int], name: str) -> Float[Tensor, "H W"]:
    if isinstance(heatmap, np.ndarray):
        heatmap = torch.from_numpy(np.ascontiguousarray(heatmap))
    if not isinstance(heatmap, Tensor) or tuple(heatmap.shape) != size:
        came = tuple(heatmap.shape) if isinstance(heatmap, Tensor) else type(heatmap).__name__
        raise SampleError(f"method {name!r} returned {came}; expected a map of shape {size}, the image's (H, W)")
    values: Tensor = heatmap.detach().to(torch.float32, copy=True)
    bad = int((~values.isfinite()).sum())
    if bad:
        raise SampleError(f"method {name!r} returned {bad} values that are NaN or infinite")
    return values


def sample_rng(seed: int, sample_id: str) -> Callable[[str], np.random.Generator]:
    """The sample's generators by purpose."""
    return lambda purpose: generator(seed, sample_id, purpose)
