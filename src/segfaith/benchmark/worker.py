"""The worker: one sample to its records, curves and maps. Every failure becomes rows, never a gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import Gathered, gather, heatmaps
from segfaith.attribution.guard import guarded
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.partition import fidelity_sets
from segfaith.benchmark.rows import Explained, Measured, constant, curve_rows, failed, records
from segfaith.constants import IGNORE, REMOVAL
from segfaith.errors import SampleError, SampleSkipped
from segfaith.evaluation.computing import compute_metrics
from segfaith.evaluation.correlation import Order, order_of, pearson, rank_stability, top_stability
from segfaith.evaluation.intervention_scores import Scores, score_interventions
from segfaith.evaluation.interventions import SHIFTS
from segfaith.evaluation.metrics import mean_defined
from segfaith.evaluation.ranking import draw_shifts, rank, tie_ranks
from segfaith.evaluation.subject import Subject
from segfaith.evidence.gradient import ForwardPass, clock
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import Occluder, fill_occluder, occluder
from segfaith.perturbation import PERTURBATIONS, clean_variant, perturbed_variants
from segfaith.scores import prediction
from segfaith.targets import Prediction, majority_class, overlap
from segfaith.types import JOINED, Float, Image, Map, Mask, Target, Tensor


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
    score: str | None = None,
) -> SampleResult:
    """Rows for a sample that could not be measured: status `skipped` or `failed`, and the reason.

    Args:
        target: where the sample has one.
        score: of the rows of a sample without a target.
    """
    status = "skipped" if isinstance(error, SampleSkipped) else "failed"
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    base: dict[str, Any] = {"sample_id": sample_id, "target": "", "head": head, "status": status, "reason": reason}
    base["score"] = score
    if target is not None:
        base |= {"class_index": target.class_index, "target": target.name, "score": score_words(target)}
        base["target_area"] = target.region.double().mean().item()
    return SampleResult([base | {"method": method.name} for method in methods])


def evaluate_sample(
    subject: Subject, methods: Sequence[MethodInstance], settings: EvaluationSettings, *, stability: bool = True
) -> SampleResult:
    """Explains a subject with every method and measures every map.

    Args:
        methods: all to be measured; `random_cells` must be among them, for `tdd_gain`.
        stability: whether the five perturbed variants are explained too.

    Model passes: see `passes_per_sample`.

    Raises:
        SampleError: the model's logits are NaN or infinite. A method that fails alone becomes a failed row.
    """
    explained, forward = _explain(subject, methods, settings, stability=stability)
    maps = {name: method for name, method in explained.items() if isinstance(method, Explained)}
    measured, scores = _score(subject, maps, settings, expected=float(forward.score[0]))
    sample = _shared_columns(subject, forward, scores)
    rows = records(sample, measured, settings, scores)
    curves = []
    if len(settings.pairs) > 1:
        curves = [row for name, method in measured.items() for row in curve_rows(sample, name, method, scores)]
    return SampleResult(
        [rows.get(method.name) or failed(sample, method, explained[method.name]) for method in methods],
        curves,
        {name: method.draws[0].cpu().numpy() for name, method in maps.items()},
        forward.predicted[0],
    )


def _explain(
    subject: Subject, methods: Sequence[MethodInstance], settings: EvaluationSettings, *, stability: bool
) -> tuple[dict[str, Explained | Exception], ForwardPass]:
    """Every method's maps, or why there are none, and the model's pass over the clean image."""
    model, image, target, rng = subject.model, subject.image, subject.target, subject.rng
    clean = gather(model, clean_variant(image, target.region), target, methods, subject.batch, rng)
    assert clean.forward is not None
    perturbed: Gathered | None = None
    if stability:
        variants = perturbed_variants(
            image, target.region, settings.strength, lambda name: rng(f"perturbation|{name}"), wired=model.wired
        )
        on_variants = [method for method in methods if "file" not in method.method.needs]
        perturbed = gather(model, variants, target, on_variants, subject.batch, rng, score=False)
    explained: dict[str, Explained | Exception] = {}
    for instance in methods:
        try:
            with guarded(model, instance):
                explained[instance.name] = _explained(subject, clean, perturbed, instance, settings)
        except Exception as error:  # one method's failure is that method's row
            explained[instance.name] = error
    return explained, clean.forward


def _explained(
    subject: Subject,
    clean: Gathered,
    perturbed: Gathered | None,
    instance: MethodInstance,
    settings: EvaluationSettings,
) -> Explained:
    """One method's maps of the clean image, and how alike those of the perturbed ones are."""

    def maps(gathered: Gathered, draw: int) -> Float[Tensor, "N H W"]:
        return heatmaps(subject.model, gathered, instance, subject.rng, subject.id, draw)

    if "evidence" in instance.method.needs:
        return _given_evidence(subject, instance)
    start = clock(subject.model.device)
    draws = [maps(clean, 0)[0]]
    runtime = clean.cost(instance) + clock(subject.model.device) - start
    draws += [maps(clean, draw)[0] for draw in range(1, instance.method.draws)]
    if "file" in instance.method.needs:
        return Explained(draws, {}, runtime=nan, reasons=["stability, runtime_s: the maps were given"])
    if perturbed is None:
        return Explained(draws, {}, runtime=runtime, reasons=["stability: not measured on this sample"])
    alike: list[dict[str, Alike]] = []
    for draw, heatmap in enumerate(draws):
        variants = perturbed.variants
        others = variants.mirror(maps(perturbed, draw))
        alike.append(_alike(subject, heatmap, dict(zip(variants.names, others, strict=True)), settings))
    correlations = {name: [each[name].pearson for each in alike] for name in PERTURBATIONS}
    ranks, tops = (
        mean_defined([mean_defined([getattr(one, what) for one in each.values()]) for each in alike])
        for what in ("ranks", "tops")
    )
    reasons = []
    undefined = [name for name, values in correlations.items() if any(map(isnan, values))]
    if undefined:
        which = "the map is" if constant(draws[0]) else "a perturbed map is"
        reasons.append(f"stability ({', '.join(undefined)}): {which} constant")
    if isnan(ranks):
        reasons.append("stability_rank: the map is constant inside the target and outside")
    if isnan(tops):
        reasons.append("stability_top: all pixels of the target and of the image are at the top")
    return Explained(draws, correlations, ranks, tops, runtime, reasons)


def _given_evidence(subject: Subject, instance: MethodInstance) -> Explained:
    """The map of a method that reads the planted evidence. No perturbation moves it, and nothing is computed.

    Raises:
        SampleSkipped: no pixels are known to decide the target.
    """
    if subject.evidence is None:
        raise SampleSkipped("the pixels that decide this target are not known, so there is no true map")
    heatmap = instance.method.combine(subject.evidence)
    return Explained([heatmap], {}, reasons=["stability, runtime_s: the map is the planted evidence itself"])


@dataclass(frozen=True)
class Alike:
    """How alike a map is to that of a perturbed image: Pearson's correlation, ranks and tops (`correlation`)."""

    pearson: float
    ranks: float
    tops: float


def _alike(subject: Subject, heatmap: Map, others: Mapping[str, Map], settings: EvaluationSettings) -> dict[str, Alike]:
    """The likeness of a map and each map of a perturbed image. Each map has a tie-break of its own."""
    outside = _outside(subject, settings)

    def order(values: Map, purpose: str) -> Order:
        ranks = tie_ranks(subject.size, settings.ties, subject.rng(purpose)).to(values.device)
        return order_of(values, subject.target.region, outside, settings.fractions[0], ranks)

    clean = order(heatmap, "ties")
    alike: dict[str, Alike] = {}
    for name, other in others.items():
        perturbed = order(other, f"ties|{name}")
        alike[name] = Alike(pearson(heatmap, other), rank_stability(clean, perturbed), top_stability(clean, perturbed))
    return alike


def _outside(subject: Subject, settings: EvaluationSettings) -> Mask:
    """The pixels that count as outside of the target."""
    outside = ~subject.target.region
    if settings.ignore == "exclude" and subject.labels is not None:
        outside &= subject.labels != IGNORE
    return outside


def _score(
    subject: Subject, maps: Mapping[str, Explained], settings: EvaluationSettings, *, expected: float
) -> tuple[dict[str, Measured], Scores]:
    """Every method's maps ranked, numbered and looked at, and the scores of all altered images."""
    ranks = tie_ranks(subject.size, settings.ties, subject.rng("ties")).to(subject.image.device)
    outside, region = _outside(subject, settings), subject.target.region
    holds = {*settings.asked, *(["planted"] if subject.evidence is not None else [])}
    shifts = draw_shifts(subject.size, SHIFTS, subject.rng("shifts")) if settings.own_null else []
    rankings = {
        name: [rank(heatmap, subject.target, outside, ranks, shifts) for heatmap in method.draws]
        for name, method in maps.items()
    }
    sets = fidelity_sets(subject, outside, settings)

    def occlude(name: str) -> Occluder:
        if name == REMOVAL and subject.without is not None:
            return fill_occluder(subject.image, subject.without)
        return occluder(name, subject.image, subject.rng(f"occlusion|{name}"), wired=subject.model.wired)

    scores = score_interventions(
        subject,
        [ranking for each in rankings.values() for ranking in each],
        {name: occlude(name) for name in settings.occlusion},
        settings.pairs,
        holds=holds,
        sets=sets,
        occlude_set=occlude(settings.fidelity_occlusion or settings.occlusion[0]),
        expected=expected,
    )
    known: dict[str, Any] = {"region": region, "ranks": ranks, "k": settings.fractions[0]}
    if settings.fidelity:
        known |= {"sets": sets, "set_drops": scores.clean - scores.sets}
    if subject.planted and subject.planted.alternatives:
        known["alternatives"] = subject.planted.alternatives
    if subject.half is not None:
        known["half"] = subject.half
    measured: dict[str, Measured] = {}
    for name, method in maps.items():
        number = sum(len(other.rankings) for other in measured.values())
        faults: dict[str, str] = {}
        looks = [compute_metrics(known | {"heatmap": heatmap}, faults) for heatmap in method.draws]
        indices = range(number, number + len(method.draws))
        measured[name] = Measured(method, indices, rankings[name], looks, faults)
    return measured, scores


def _shared_columns(subject: Subject, forward: ForwardPass, scores: Scores) -> dict[str, Any]:
    """The columns of the records that are the same for all methods."""
    target = subject.target
    return {
        "sample_id": subject.id,
        "class_index": target.class_index,
        "target": target.name,
        "target_area": target.region.double().mean().item(),
        "target_iou": overlap(forward.predicted[0], target),
        "majority_class": majority_class(forward.prediction[0], target.region),
        "head": subject.model.head_name,
        "score": score_words(target),
        "kind": subject.planted.kind if subject.planted else None,
        "s": scores.clean,
        "path": scores.path,
        "status": "ok",
        "reason": "",
    }


def score_words(target: Target) -> str:
    """The column `score`: "probability", "margin to class 3", "conditional against class 3"."""
    if target.versus is None:
        return target.score
    return f"{target.score} {JOINED[target.score]} class {target.versus}"


def to_device(model: SegmentationModel, image: Image, target: Target) -> tuple[Image, Target]:
    """Image and target on the model's device."""
    device = model.device
    if image.device == device and target.region.device == device:
        return image, target
    beside = None if target.beside is None else target.beside.to(device)
    return image.to(device), replace(target, region=target.region.to(device), beside=beside)


def predicted_classes(model: SegmentationModel, image: Image) -> Prediction:
    """The model's argmax, (H, W), or where classes overlap whether each sigmoid is above 1/2, (C, H, W); one pass.

    Raises:
        SampleError: logits are NaN or infinite.
    """
    with torch.no_grad():
        logits = model.logits(image[None].to(model.device))
    if not bool(logits.isfinite().all()):
        raise SampleError("the model returned logits that are NaN or infinite")
    return prediction(logits, independent=model.independent)[0]
