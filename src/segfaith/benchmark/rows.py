"""From a sample's scores to its rows: one per method for the records, one per operator, k and kind for the curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import mean
from typing import Any

from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.settings import EvaluationSettings
from segfaith.constants import COUNTERPART, DEGENERATE_RANGE, LEAST_TDD
from segfaith.errors import SampleError
from segfaith.evaluation.interventions import BANDS, Intervention, Kind, Ranking, Scores
from segfaith.evaluation.metrics import deletion, mean_defined, score_metrics
from segfaith.evaluation.ranking import top_count
from segfaith.perturbation import PERTURBATIONS
from segfaith.types import Float, Map, Tensor

CURVES: tuple[Kind, ...] = ("target_deletion", "off_deletion", "insertion")
"""The kinds that have curves."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A method's maps of the clean image (one per draw), its stability per perturbation, and its runtime."""

    draws: list[Map]
    correlations: dict[str, list[float]]
    runtime: float
    reasons: list[str]


@dataclass(frozen=True, eq=False)
class Measured:
    """A method's maps as they were ranked and scored.

    `indices` are their numbers in the scores; `found` their evidence scores, empty where no evidence was planted;
    `looks` what they look like, of `map_properties`.
    """

    explained: Explained
    indices: Sequence[int]
    rankings: Sequence[Ranking]
    found: Sequence[Mapping[str, float]]
    looks: Sequence[Mapping[str, float]]


def record(
    sample: Mapping[str, Any], name: str, one: Measured, settings: EvaluationSettings, scores: Scores
) -> dict[str, Any]:
    """One row of the records: the means over the method's draws, at the first operator and the first k."""
    draws = [
        _scored(sample, ranking, index, settings, scores)
        for index, ranking in zip(one.indices, one.rankings, strict=True)
    ]
    reasons = list(one.explained.reasons)
    if not len(one.rankings[0].outside):
        reasons.insert(0, "odd, leakage: nothing lies outside the target")
    elif low := sum(not draw["tdd"] > LEAST_TDD for draw in draws):
        where = f" in {low} of {len(draws)} draws" if len(draws) > 1 else ""
        reasons.append(f"leak_abs, leak_signed: tdd is not above {LEAST_TDD:g}{where}")
    if len(one.rankings[0].outside) and settings.leakage == "detailed" and isnan(draws[0]["odd_fair"]):
        reasons.append("odd_fair: fewer pixels lie outside the target than tdd deletes")
    if sample["kind"] == COUNTERPART:
        reasons.append("evidence scores, odd_beyond: what decides this class is the absence of a part")
    elif any(isnan(found["evidence_mass"]) for found in one.found):
        reasons.append("evidence_mass: the map is zero everywhere")
    if any(isnan(looks["gini"]) for looks in one.looks):
        reasons.append("energy_inside, gini: the map is zero everywhere")
    correlations = {key: mean_defined(values) for key, values in one.explained.correlations.items()}
    return (
        dict(sample)
        | {"method": name, "runtime_s": one.explained.runtime, "degenerate": any(map(constant, one.explained.draws))}
        | {key: mean(draw[key] for draw in draws) for key in draws[0]}
        | {key: mean_defined([draw[key] for draw in one.found]) for key in (one.found[0] if one.found else ())}
        | {key: mean_defined([draw[key] for draw in one.looks]) for key in one.looks[0]}
        | {"stability": mean_defined(list(correlations.values()))}
        | {f"stability_{key}": correlations.get(key, nan) for key in PERTURBATIONS}
        | {"reason": "; ".join(reasons)}
    )


def _scored(
    sample: Mapping[str, Any], ranking: Ranking, index: int, settings: EvaluationSettings, scores: Scores
) -> dict[str, float]:
    """The scores and metrics of one map."""
    pair = settings.pairs[0]

    def got(kind: Kind, missing: float) -> float:
        return scores.intervened.get(Intervention(index, *pair, kind), missing)

    nothing = scores.clean if len(ranking.outside) else nan  # where S_o holds none of the pixels, nothing is deleted
    evidence = sample["kind"] not in (None, COUNTERPART)
    values = {
        "s_target_deleted": got("target_deletion", nan),
        "s_off_deleted": got("off_deletion", nan),
        "s_baseline": scores.baselines[pair[0]],
        "s_inserted": got("insertion", nan),
        "s_off_evidence_deleted": got("off_evidence", nothing) if evidence else nan,
    }
    if settings.leakage == "detailed":
        values["s_fair_deleted"] = got("off_fair", nan)
        values |= {f"s_{kind.removeprefix('off_')}_deleted": got(kind, nothing) for kind in BANDS}
    tied_target, tied_off = ranking.tied_share(pair[1])
    return values | {"tied_share_target": tied_target, "tied_share_off": tied_off} | score_metrics(scores.clean, values)


def failed(sample: Mapping[str, Any], method: MethodInstance, error: Any) -> dict[str, Any]:
    """The row of a method that failed alone."""
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    return dict(sample) | {"method": method.name, "status": "failed", "reason": reason}


def curve_rows(sample: Mapping[str, Any], name: str, one: Measured, scores: Scores) -> list[dict[str, Any]]:
    """One row per operator, k and kind: the intervened score and its metric, averaged over the method's draws."""
    groups: dict[tuple[str, float, Kind], list[float]] = {}
    for item, score in scores.intervened.items():
        if item.index in one.indices and item.kind in CURVES:
            groups.setdefault((item.operator, item.k, item.kind), []).append(score)
    rows = []
    for (operator, k, kind), values in groups.items():
        baseline = scores.baselines[operator]
        each = [score - baseline if kind == "insertion" else deletion(scores.clean, score) for score in values]
        order = one.rankings[0].outside if kind == "off_deletion" else one.rankings[0].inside
        rows.append(
            {key: sample[key] for key in ("sample_id", "class_index", "s")}
            | {"method": name, "occlusion": operator, "k": k, "kind": kind, "pixels": top_count(k, len(order))}
            | {"score": mean(values), "s_baseline": baseline}
            | {"value": mean(each), "value_abs": mean(map(abs, each))}
        )
    return rows


def constant(heatmap: Float[Tensor, "H W"]) -> bool:
    """Whether a map says nothing."""
    return float(heatmap.max() - heatmap.min()) < DEGENERATE_RANGE
