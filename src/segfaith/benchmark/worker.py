"""The worker: one sample to its records, curves and maps. Every failure becomes rows, never a gap."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import mean
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import Gathered, gather, heatmaps, sample_rng
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.settings import EvaluationSettings
from segfaith.constants import COUNTERPART, DEGENERATE_RANGE, IGNORE
from segfaith.errors import SampleError, SampleSkipped
from segfaith.evaluation.evidence_score import evidence_scores
from segfaith.evaluation.interventions import Intervention, Ranking, rank, score_interventions
from segfaith.evaluation.metrics import deletion, mean_defined, score_metrics
from segfaith.evaluation.ranking import tie_ranks, top_count
from segfaith.evaluation.stability import pearson
from segfaith.evidence.gradient import clock
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.perturbation import PERTURBATIONS, clean_variant, perturbed_variants
from segfaith.scores import BatchSize
from segfaith.targets import intersection_over_union, majority_class
from segfaith.types import Float, Image, Labels, Map, Planted, Target, Tensor

GAIN_CONTROL = "random_cells"
"""The control whose mean TDD `tdd_gain` is measured against; always computed."""
ELSEWHERE = "the maps were computed elsewhere"


@dataclass(frozen=True, eq=False)
class SampleResult:
    """A sample's rows for `records/` (one per method), for `curves/`, and its heatmaps by method."""

    records: list[dict[str, Any]]
    curves: list[dict[str, Any]] = field(default_factory=list)
    maps: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Explained:
    """A method's maps of the clean image (one per draw), its stability per perturbation, and its runtime."""

    draws: list[Map]
    correlations: dict[str, list[float]]
    runtime: float
    reasons: list[str]


def unmeasured(
    sample_id: str, methods: Sequence[MethodInstance], error: BaseException, target: Target | None = None
) -> SampleResult:
    """Rows for a sample that could not be measured: status `skipped` or `failed`, and the reason."""
    status = "skipped" if isinstance(error, SampleSkipped) else "failed"
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    base: dict[str, Any] = {"sample_id": sample_id, "status": status, "reason": reason}
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

    Model passes, for the four methods of the paper: 1 + 196 for each variant (six with stability, one without), one for
    the baseline and three for each map (one a method, three for `random_cells`); with planted evidence up to four.

    Raises:
        SampleError: the model's logits are NaN or infinite. A method that fails alone becomes a failed row.
    """
    rng = sample_rng(seed, sample_id)
    clean = gather(model, clean_variant(image, target.region), target.class_index, methods, batch, rng)
    assert clean.forward is not None
    explained: dict[str, _Explained | Exception] = {}
    perturbed: Gathered | None = None
    if stability:
        variants = perturbed_variants(image, target.region, settings.strength, lambda name: rng(f"perturbation|{name}"))
        on_variants = [method for method in methods if "file" not in method.method.needs]
        perturbed = gather(model, variants, target.class_index, on_variants, batch, rng, score=False)
    for instance in methods:
        try:
            explained[instance.name] = _explain(model, clean, perturbed, instance, rng, sample_id)
        except Exception as error:  # one method's failure is that method's row
            explained[instance.name] = error
    maps = {name: one for name, one in explained.items() if isinstance(one, _Explained)}
    outside = ~target.region
    if settings.ignore == "exclude" and labels is not None:
        outside &= labels != IGNORE
    ranks = tie_ranks((image.shape[1], image.shape[2]), settings.ties, rng("ties")).to(image.device)
    owner = [(name, draw) for name, one in maps.items() for draw in range(len(one.draws))]
    rankings = [rank(maps[name].draws[draw], target, outside, ranks) for name, draw in owner]
    operators = {name: occluder(name, image, rng(f"occlusion|{name}")) for name in settings.occlusion}
    evidence = torch.stack(planted.alternatives).any(0) if planted and planted.alternatives else None
    scores, baselines = score_interventions(
        model, image, target, rankings, operators, settings.fractions, batch, evidence
    )
    prediction = clean.forward.prediction[0]
    sample = {
        "sample_id": sample_id,
        "class_index": target.class_index,
        "target_area": target.region.double().mean().item(),
        "target_iou": intersection_over_union(prediction, target),
        "majority_class": majority_class(prediction, target.region),
        "kind": planted.kind if planted else None,
        "s": float(clean.forward.score[0]),
        "status": "ok",
        "reason": "",
    }
    indices = {name: [i for i, (key, _) in enumerate(owner) if key == name] for name in maps}
    rows = {
        name: _record(
            sample,
            name,
            one,
            [rankings[i] for i in indices[name]],
            indices[name],
            settings,
            scores,
            baselines,
            [evidence_scores(one, planted.alternatives, ranks, settings.fractions[0]) for one in one.draws]
            if planted
            else [],
        )
        for name, one in maps.items()
    }
    control = rows.get(GAIN_CONTROL)
    for row in rows.values():
        row["tdd_gain"] = row["tdd"] - control["tdd"] if control else nan
        if not control:
            row["reason"] = "; ".join(filter(None, [row["reason"], f"tdd_gain: {GAIN_CONTROL} failed"]))
    records = [rows.get(method.name) or _failed(sample, method, explained[method.name]) for method in methods]
    curves = []
    if len(settings.occlusion) * len(settings.fractions) > 1:
        curves = [row for name in maps for row in _curve_rows(sample, name, indices[name], rankings, scores, baselines)]
    return SampleResult(records, curves, {name: one.draws[0].cpu().numpy() for name, one in maps.items()})


def _explain(
    model: SegmentationModel,
    clean: Gathered,
    perturbed: Gathered | None,
    instance: MethodInstance,
    rng: Callable[[str], np.random.Generator],
    sample_id: str,
) -> _Explained:
    start = clock(model.device)
    draws = [heatmaps(model, clean, instance, rng, sample_id)[0]]
    runtime = clean.cost(instance) + clock(model.device) - start
    draws += [heatmaps(model, clean, instance, rng, sample_id, draw)[0] for draw in range(1, instance.method.draws)]
    reasons = []
    if "file" in instance.method.needs:
        return _Explained(draws, {}, nan, [f"stability, runtime_s: {ELSEWHERE}"])
    if perturbed is None:
        return _Explained(draws, {}, runtime, ["stability: not measured on this sample"])
    correlations: dict[str, list[float]] = {name: [] for name in PERTURBATIONS}
    for draw, heatmap in enumerate(draws):
        variants = perturbed.variants
        others = variants.mirror(heatmaps(model, perturbed, instance, rng, sample_id, draw))
        for name, other in zip(variants.names, others, strict=True):
            correlations[name].append(pearson(heatmap, other))
    undefined = [name for name, values in correlations.items() if any(map(isnan, values))]
    if undefined:
        which = "the map is" if _constant(draws[0]) else "a perturbed map is"
        reasons.append(f"stability ({', '.join(undefined)}): {which} constant")
    return _Explained(draws, correlations, runtime, reasons)


def _constant(heatmap: Float[Tensor, "H W"]) -> bool:
    return float(heatmap.max() - heatmap.min()) < DEGENERATE_RANGE


def _record(
    sample: Mapping[str, Any],
    name: str,
    one: _Explained,
    rankings: Sequence[Ranking],
    indices: Sequence[int],
    settings: EvaluationSettings,
    scores: Mapping[Intervention, float],
    baselines: Mapping[str, float],
    found: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """One row of the records: the means over the method's draws, at the first operator and the first k.

    `found` are the draws' evidence scores, empty where no evidence was planted.
    """
    operator, k = settings.occlusion[0], settings.fractions[0]
    draws: list[dict[str, float]] = []
    for index, ranking in zip(indices, rankings, strict=True):
        s_target = scores[Intervention(index, operator, k, "target_deletion")]
        s_off = scores.get(Intervention(index, operator, k, "off_deletion"), nan)
        s_inserted = scores[Intervention(index, operator, k, "insertion")]
        s_off_evidence = nan  # where no evidence was planted; s itself where S_o holds none of it
        if sample["kind"] not in (None, COUNTERPART) and not isnan(s_off):
            s_off_evidence = scores.get(Intervention(index, operator, k, "off_evidence"), sample["s"])
        tied_target, tied_off = ranking.tied_share(k)
        draws.append(
            {
                "s_target_deleted": s_target,
                "s_off_deleted": s_off,
                "s_baseline": baselines[operator],
                "s_inserted": s_inserted,
                "s_off_evidence_deleted": s_off_evidence,
                "tied_share_target": tied_target,
                "tied_share_off": tied_off,
            }
            | score_metrics(sample["s"], s_target, s_off, baselines[operator], s_inserted, s_off_evidence)
        )
    reasons = list(one.reasons)
    if not len(rankings[0].outside):
        reasons.insert(0, "odd, leakage: nothing lies outside the target")
    if sample["kind"] == COUNTERPART:
        reasons.append("evidence scores, odd_beyond: what decides this class is the absence of a part")
    elif any(isnan(one["evidence_mass"]) for one in found):
        reasons.append("evidence_mass: the map is zero everywhere")
    correlations = {key: mean_defined(values) for key, values in one.correlations.items()}
    return (
        dict(sample)
        | {"method": name, "runtime_s": one.runtime, "degenerate": any(map(_constant, one.draws))}
        | {key: mean(draw[key] for draw in draws) for key in draws[0]}
        | {key: mean_defined([draw[key] for draw in found]) for key in (found[0] if found else ())}
        | {"stability": mean_defined(list(correlations.values()))}
        | {f"stability_{key}": correlations.get(key, nan) for key in PERTURBATIONS}
        | {"reason": "; ".join(reasons)}
    )


def _failed(sample: Mapping[str, Any], method: MethodInstance, error: Any) -> dict[str, Any]:
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    return dict(sample) | {"method": method.name, "status": "failed", "reason": reason}


def _curve_rows(
    sample: Mapping[str, Any],
    name: str,
    indices: Sequence[int],
    rankings: Sequence[Ranking],
    scores: Mapping[Intervention, float],
    baselines: Mapping[str, float],
) -> list[dict[str, Any]]:
    """One row per operator, k and kind: the intervened score and its metric, averaged over the method's draws."""
    groups: dict[tuple[str, float, str], list[float]] = {}
    for item, score in scores.items():
        if item.index in indices and item.kind != "off_evidence":
            groups.setdefault((item.operator, item.k, item.kind), []).append(score)
    rows = []
    for (operator, k, kind), values in groups.items():
        score = mean(values)
        ranking = rankings[indices[0]]
        order = ranking.outside if kind == "off_deletion" else ranking.inside
        value = score - baselines[operator] if kind == "insertion" else deletion(sample["s"], score)
        rows.append(
            {key: sample[key] for key in ("sample_id", "class_index", "s")}
            | {
                "method": name,
                "occlusion": operator,
                "k": k,
                "kind": kind,
                "pixels": top_count(k, len(order)),
            }
            | {"score": score, "s_baseline": baselines[operator], "value": value}
        )
    return rows


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
