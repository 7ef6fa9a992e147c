"""The worker: one sample to its records, curves and maps. Every failure becomes rows, never a gap."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import Gathered, gather, heatmaps, sample_rng
from segfaith.attribution.guard import guarded
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.rows import Explained, Measured, constant, curve_rows, failed, record
from segfaith.benchmark.settings import EvaluationSettings
from segfaith.constants import IGNORE
from segfaith.errors import SampleError, SampleSkipped
from segfaith.evaluation.correlation import pearson
from segfaith.evaluation.evidence_score import evidence_scores
from segfaith.evaluation.interventions import distance_bands, rank, score_interventions
from segfaith.evaluation.map_properties import map_properties
from segfaith.evaluation.ranking import tie_ranks
from segfaith.evidence.gradient import clock
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.perturbation import PERTURBATIONS, clean_variant, perturbed_variants
from segfaith.scores import BatchSize
from segfaith.targets import intersection_over_union, majority_class
from segfaith.types import Image, Int, Labels, Mask, Planted, Target, Tensor

GAIN_CONTROL = "random_cells"
"""The control whose mean TDD `tdd_gain` is measured against; always computed."""
ELSEWHERE = "the maps were computed elsewhere"


@dataclass(frozen=True, eq=False)
class SampleResult:
    """A sample's rows for `records/` (one per method), for `curves/`, its heatmaps by method, and the model's
    prediction of the target class, (H, W); None where nothing was measured."""

    records: list[dict[str, Any]]
    curves: list[dict[str, Any]] = field(default_factory=list)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    predicted: Mask | None = None


def unmeasured(
    sample_id: str,
    methods: Sequence[MethodInstance],
    error: BaseException,
    target: Target | None = None,
    head: str | None = None,
) -> SampleResult:
    """Rows for a sample that could not be measured: status `skipped` or `failed`, and the reason."""
    status = "skipped" if isinstance(error, SampleSkipped) else "failed"
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    base: dict[str, Any] = {"sample_id": sample_id, "head": head, "status": status, "reason": reason}
    if target is not None:
        base |= {"class_index": target.class_index, "target_area": target.region.double().mean().item()}
    return SampleResult([base | {"method": method.name} for method in methods])


def evaluate_sample(
    model: SegmentationModel,
    sample_id: str,
    image: Image,
    target: Target,
    methods: Sequence[MethodInstance],
    settings: EvaluationSettings,
    *,
    seed: int,
    batch: BatchSize,
    labels: Labels | None = None,
    planted: Planted | None = None,
    stability: bool = True,
) -> SampleResult:
    """Explains a target with every method and measures every map.

    Args:
        image, target: on the model's device, of one size.
        methods: all to be measured; `random_cells` must be among them, for `tdd_gain`.
        labels: the ground truth, needed only for `ignore = "exclude"`.
        planted: the target's planted evidence, on the model's device, where it is known.
        stability: whether the five perturbed variants are explained too.

    Model passes, for the four methods of the paper: 2 + 196 for each variant (six with stability, one without), one for
    the image, one for the baseline and three for each map (one a method, three for `random_cells`); with planted
    evidence up to four. Several operators or k and `leakage = "detailed"` cost more: see `passes_per_sample`.

    Raises:
        SampleError: the model's logits are NaN or infinite. A method that fails alone becomes a failed row.
    """
    rng = sample_rng(seed, sample_id)
    clean = gather(model, clean_variant(image, target.region), target.class_index, methods, batch, rng)
    assert clean.forward is not None
    explained: dict[str, Explained | Exception] = {}
    perturbed: Gathered | None = None
    if stability:
        variants = perturbed_variants(image, target.region, settings.strength, lambda name: rng(f"perturbation|{name}"))
        on_variants = [method for method in methods if "file" not in method.method.needs]
        perturbed = gather(model, variants, target.class_index, on_variants, batch, rng, score=False)
    for instance in methods:
        try:
            with guarded(model, instance):
                explained[instance.name] = _explain(model, clean, perturbed, instance, rng, sample_id)
        except Exception as error:  # one method's failure is that method's row
            explained[instance.name] = error
    maps = {name: one for name, one in explained.items() if isinstance(one, Explained)}
    sample = {
        "sample_id": sample_id,
        "class_index": target.class_index,
        "target_area": target.region.double().mean().item(),
        "target_iou": intersection_over_union(clean.forward.prediction[0], target),
        "majority_class": majority_class(clean.forward.prediction[0], target.region),
        "head": model.head_name,
        "kind": planted.kind if planted else None,
        "status": "ok",
        "reason": "",
    }
    ranks = tie_ranks((image.shape[1], image.shape[2]), settings.ties, rng("ties")).to(image.device)
    outside = ~target.region
    if settings.ignore == "exclude" and labels is not None:
        outside &= labels != IGNORE
    measured = _measured(maps, target, outside, ranks, planted, settings.fractions[0])
    detailed = settings.leakage == "detailed"
    limits = distance_bands(target) if detailed else {}
    if planted and planted.alternatives:
        limits["off_evidence"] = torch.stack(planted.alternatives).any(0)
    scores = score_interventions(
        model,
        image,
        target,
        [ranking for one in measured.values() for ranking in one.rankings],
        {name: occluder(name, image, rng(f"occlusion|{name}")) for name in settings.occlusion},
        settings.pairs,
        batch,
        expected=float(clean.forward.score[0]),
        fair=detailed,
        limits=limits,
    )
    sample |= {"s": scores.clean, "path": scores.path}
    rows = {name: record(sample, name, one, settings, scores) for name, one in measured.items()}
    control = rows.get(GAIN_CONTROL)
    for row in rows.values():
        row["tdd_gain"] = row["tdd"] - control["tdd"] if control else nan
        if not control:
            row["reason"] = "; ".join(filter(None, [row["reason"], f"tdd_gain: {GAIN_CONTROL} failed"]))
    records = [rows.get(method.name) or failed(sample, method, explained[method.name]) for method in methods]
    curves = []
    if len(settings.pairs) > 1:
        curves = [row for name, one in measured.items() for row in curve_rows(sample, name, one, scores)]
    heatmaps_of = {name: one.draws[0].cpu().numpy() for name, one in maps.items()}
    return SampleResult(records, curves, heatmaps_of, clean.forward.prediction[0] == target.class_index)


def _explain(
    model: SegmentationModel,
    clean: Gathered,
    perturbed: Gathered | None,
    instance: MethodInstance,
    rng: Callable[[str], np.random.Generator],
    sample_id: str,
) -> Explained:
    start = clock(model.device)
    draws = [heatmaps(model, clean, instance, rng, sample_id)[0]]
    runtime = clean.cost(instance) + clock(model.device) - start
    draws += [heatmaps(model, clean, instance, rng, sample_id, draw)[0] for draw in range(1, instance.method.draws)]
    reasons = []
    if "file" in instance.method.needs:
        return Explained(draws, {}, nan, [f"stability, runtime_s: {ELSEWHERE}"])
    if perturbed is None:
        return Explained(draws, {}, runtime, ["stability: not measured on this sample"])
    correlations: dict[str, list[float]] = {name: [] for name in PERTURBATIONS}
    for draw, heatmap in enumerate(draws):
        variants = perturbed.variants
        others = variants.mirror(heatmaps(model, perturbed, instance, rng, sample_id, draw))
        for name, other in zip(variants.names, others, strict=True):
            correlations[name].append(pearson(heatmap, other))
    undefined = [name for name, values in correlations.items() if any(map(isnan, values))]
    if undefined:
        which = "the map is" if constant(draws[0]) else "a perturbed map is"
        reasons.append(f"stability ({', '.join(undefined)}): {which} constant")
    return Explained(draws, correlations, runtime, reasons)


def _measured(
    maps: Mapping[str, Explained],
    target: Target,
    outside: Mask,
    ranks: Int[Tensor, "H W"],
    planted: Planted | None,
    k: float,
) -> dict[str, Measured]:
    """Every method's maps ranked and numbered, with what needs no model."""
    measured: dict[str, Measured] = {}
    for name, one in maps.items():
        first = sum(len(other.rankings) for other in measured.values())
        measured[name] = Measured(
            one,
            range(first, first + len(one.draws)),
            [rank(heatmap, target, outside, ranks) for heatmap in one.draws],
            [evidence_scores(heatmap, planted.alternatives, ranks, k) for heatmap in one.draws] if planted else [],
            [map_properties(heatmap, target.region) for heatmap in one.draws],
        )
    return measured


def to_device(model: SegmentationModel, image: Image, target: Target) -> tuple[Image, Target]:
    """Image and target on the model's device."""
    device = model.device
    if image.device == device and target.region.device == device:
        return image, target
    return image.to(device), Target(target.class_index, target.region.to(device))


def predicted_labels(model: SegmentationModel, image: Image) -> Labels:
    """The model's argmax, (H, W); one model pass.

    Raises:
        SampleError: logits are NaN or infinite.
    """
    with torch.no_grad():
        logits = model.logits(image[None].to(model.device))
    if not bool(logits.isfinite().all()):
        raise SampleError("the model returned logits that are NaN or infinite")
    return logits.argmax(1)[0]
