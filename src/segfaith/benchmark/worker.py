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
from segfaith.benchmark.rows import Explained, Measured, constant, curve_rows, failed, records
from segfaith.benchmark.setting_tables import EvaluationSettings
from segfaith.constants import IGNORE
from segfaith.errors import SampleError, SampleSkipped
from segfaith.evaluation.correlation import pearson
from segfaith.evaluation.intervention_scores import Scores, score_interventions
from segfaith.evaluation.metrics import compute_metrics
from segfaith.evaluation.ranking import rank, tie_ranks
from segfaith.evaluation.subject import Subject
from segfaith.evidence.gradient import ForwardPass, clock
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.perturbation import PERTURBATIONS, clean_variant, perturbed_variants
from segfaith.scores import prediction
from segfaith.targets import Prediction, majority_class, overlap
from segfaith.types import Float, Image, Mask, Target, Tensor


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

    Model passes, for the four methods of the paper: 2 + 196 for each variant (six with stability, one without), one for
    the image, one for the baseline and three for each map (one a method, three for `random_cells`); with planted
    evidence up to four. Several operators or k and `leakage = "detailed"` cost more: see `passes_per_sample`.

    Raises:
        SampleError: the model's logits are NaN or infinite. A method that fails alone becomes a failed row.
    """
    explained, forward = _explain(subject, methods, settings.strength if stability else None)
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
    subject: Subject, methods: Sequence[MethodInstance], strength: float | None
) -> tuple[dict[str, Explained | Exception], ForwardPass]:
    """Every method's maps, or why there are none, and the model's pass over the clean image.

    Args:
        strength: of the perturbations; None leaves the perturbed variants out.
    """
    model, image, target, rng = subject.model, subject.image, subject.target, subject.rng
    clean = gather(model, clean_variant(image, target.region), target, methods, subject.batch, rng)
    assert clean.forward is not None
    perturbed: Gathered | None = None
    if strength is not None:
        variants = perturbed_variants(
            image, target.region, strength, lambda name: rng(f"perturbation|{name}"), wired=model.wired
        )
        on_variants = [method for method in methods if "file" not in method.method.needs]
        perturbed = gather(model, variants, target, on_variants, subject.batch, rng, score=False)
    explained: dict[str, Explained | Exception] = {}
    for instance in methods:
        try:
            with guarded(model, instance):
                explained[instance.name] = _explained(subject, clean, perturbed, instance)
        except Exception as error:  # one method's failure is that method's row
            explained[instance.name] = error
    return explained, clean.forward


def _explained(subject: Subject, clean: Gathered, perturbed: Gathered | None, instance: MethodInstance) -> Explained:
    """One method's maps of the clean image, and how they correlate with those of the perturbed ones."""

    def maps(gathered: Gathered, draw: int) -> Float[Tensor, "N H W"]:
        return heatmaps(subject.model, gathered, instance, subject.rng, subject.id, draw)

    start = clock(subject.model.device)
    draws = [maps(clean, 0)[0]]
    runtime = clean.cost(instance) + clock(subject.model.device) - start
    draws += [maps(clean, draw)[0] for draw in range(1, instance.method.draws)]
    if "file" in instance.method.needs:
        return Explained(draws, {}, nan, ["stability, runtime_s: the maps were given"])
    if perturbed is None:
        return Explained(draws, {}, runtime, ["stability: not measured on this sample"])
    correlations: dict[str, list[float]] = {name: [] for name in PERTURBATIONS}
    for draw, heatmap in enumerate(draws):
        variants = perturbed.variants
        for name, other in zip(variants.names, variants.mirror(maps(perturbed, draw)), strict=True):
            correlations[name].append(pearson(heatmap, other))
    undefined = [name for name, values in correlations.items() if any(map(isnan, values))]
    which = "the map is" if constant(draws[0]) else "a perturbed map is"
    return Explained(
        draws, correlations, runtime, [f"stability ({', '.join(undefined)}): {which} constant"] if undefined else []
    )


def _score(
    subject: Subject, maps: Mapping[str, Explained], settings: EvaluationSettings, *, expected: float
) -> tuple[dict[str, Measured], Scores]:
    """Every method's maps ranked, numbered and looked at, and the scores of all altered images."""
    ranks = tie_ranks(subject.size, settings.ties, subject.rng("ties")).to(subject.image.device)
    outside = ~subject.target.region
    if settings.ignore == "exclude" and subject.labels is not None:
        outside &= subject.labels != IGNORE
    known: dict[str, Any] = {"region": subject.target.region, "ranks": ranks, "k": settings.fractions[0]}
    if subject.planted and subject.planted.alternatives:
        known["alternatives"] = subject.planted.alternatives
    if subject.half is not None:
        known["half"] = subject.half
    measured: dict[str, Measured] = {}
    for name, method in maps.items():
        first = sum(len(other.rankings) for other in measured.values())
        faults: dict[str, str] = {}
        measured[name] = Measured(
            method,
            range(first, first + len(method.draws)),
            [rank(heatmap, subject.target, outside, ranks) for heatmap in method.draws],
            [compute_metrics(known | {"heatmap": heatmap}, faults) for heatmap in method.draws],
            faults,
        )
    scores = score_interventions(
        subject,
        [ranking for method in measured.values() for ranking in method.rankings],
        {
            name: occluder(name, subject.image, subject.rng(f"occlusion|{name}"), wired=subject.model.wired)
            for name in settings.occlusion
        },
        settings.pairs,
        detailed=settings.leakage == "detailed",
        expected=expected,
    )
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
    """The column `score`."""
    return target.score if target.versus is None else f"margin to class {target.versus}"


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
