"""From a sample's scores to its rows: one per method for the records, one per operator, k and kind for the curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import mean
from typing import Any

from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.constants import COUNTERPART, DEGENERATE_RANGE
from segfaith.errors import SampleError, SampleSkipped
from segfaith.evaluation.computing import compute_metrics
from segfaith.evaluation.intervention_scores import Altered, Scores, taken
from segfaith.evaluation.interventions import INTERVENTIONS, asked_for
from segfaith.evaluation.metrics import METRICS, has_zero, mean_defined, scale
from segfaith.evaluation.ranking import Ranking
from segfaith.perturbation import PERTURBATIONS
from segfaith.types import Float, Map, Tensor

GAIN_CONTROL = "random_cells"
"""The control whose metrics on the same sample others may need, as `tdd_gain` does; always computed."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A method's maps of the clean image (one per draw), their stability, and the runtime.

    `correlations` are Pearson's, by perturbation; `ranks` and `tops` the means of `correlation.rank_stability` and
    `correlation.top_stability`.
    """

    draws: list[Map]
    correlations: dict[str, list[float]]
    ranks: float = nan
    tops: float = nan
    runtime: float = nan
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Measured:
    """A method's maps as they were ranked and scored, one a draw.

    `indices` are their numbers in the scores; `looks` the metrics that follow from each map without the model, and
    `faults` says which of these failed, and why.
    """

    explained: Explained
    indices: Sequence[int]
    rankings: Sequence[Ranking]
    looks: Sequence[Mapping[str, float]]
    faults: Mapping[str, str]


def records(
    sample: Mapping[str, Any], measured: Mapping[str, Measured], settings: EvaluationSettings, scores: Scores
) -> dict[str, dict[str, Any]]:
    """The row of each measured method, by its name.

    Args:
        sample: the columns that all methods share.
    """
    rows = {name: _record(sample, name, method, settings, scores) for name, method in measured.items()}
    control = rows.get(GAIN_CONTROL, {})
    known = {f"control_{name}": control.get(name, nan) for name in METRICS}
    for name, row in rows.items():
        own = row | known | _of_row(sample, measured[name])
        faults: dict[str, str] = {}
        gains = compute_metrics(own, faults)
        reasons = [*_failures(faults), *_undefined([own | gains], [name for name in gains if name not in faults])]
        if not control:
            reasons.append(f"{', '.join(gains)}: {GAIN_CONTROL} failed")
        row |= gains | {"reason": "; ".join(filter(None, [row["reason"], *reasons]))}
    return rows


def _record(
    sample: Mapping[str, Any], name: str, method: Measured, settings: EvaluationSettings, scores: Scores
) -> dict[str, Any]:
    """One row: the means over the method's draws, at the first operator and the first k.

    What follows from scores is undefined where it is so in one draw; what follows from maps is the mean of the others.
    A metric whose function fails in one draw is NaN.
    """
    faults = dict(method.faults)
    asked = [entry.kind for entry in asked_for({*settings.asked, *(["planted"] if _planted(sample) else [])})]
    draws = [
        _draw(ranking, index, asked, settings.pairs[0], scores, faults, scale(scores.clean, sample["score"]))
        for index, ranking in zip(method.indices, method.rankings, strict=True)
    ]
    correlations = {key: mean_defined(values) for key, values in method.explained.correlations.items()}
    row = (
        dict(sample)
        | {"method": name, "degenerate": any(map(constant, method.explained.draws))}
        | {key: mean(draw[key] for draw in draws) for key in draws[0]}
        | {key: mean_defined([looks[key] for looks in method.looks]) for key in method.looks[0]}
        | {f"stability_{key}": correlations.get(key, nan) for key in PERTURBATIONS}
        | dict.fromkeys(faults, nan)
    )
    known = row | _of_row(sample, method)
    of_means = compute_metrics(known, faults)
    reasons = [*_failures(faults), *_reasons(sample, method, asked, draws, faults)]
    reasons += _undefined([known | of_means], [name for name in of_means if name not in faults])
    return row | of_means | {"reason": "; ".join(reasons)}


def _of_row(sample: Mapping[str, Any], method: Measured) -> dict[str, float]:
    """The quantities of a row that are no columns."""
    explained = method.explained
    alike = {"rank_agreement": explained.ranks, "top_agreement": explained.tops}
    return {"seconds": explained.runtime, "scale": scale(sample["s"], sample["score"])} | alike


def _planted(sample: Mapping[str, Any]) -> bool:
    """Whether evidence is planted that lies somewhere."""
    return sample["kind"] not in (None, COUNTERPART)


def _draw(
    ranking: Ranking,
    index: int,
    asked: Sequence[str],
    pair: tuple[str, float],
    scores: Scores,
    faults: dict[str, str],
    unit: float,
) -> dict[str, float]:
    """The scores of one map, how far ties chose its pixels, and the metrics that follow from these.

    Args:
        faults: the metrics that fail are added to it.
        unit: the quantity `scale`.
    """

    def score(kind: str) -> float:
        entry = INTERVENTIONS[kind]
        item, limited = Altered(index, pair[0], entry.k or pair[1], kind), entry.within is not None
        altered_nothing = kind in asked and limited and len(taken(item, ranking)) > 0
        return scores.altered.get(item, scores.clean if altered_nothing else nan)

    tied_target, tied_off = ranking.tied_share(pair[1])
    known = {"s": scores.clean, "s_baseline": scores.baselines[pair[0]]}
    known |= {entry.column: score(kind) for kind, entry in INTERVENTIONS.items()}
    known |= {"tied_share_target": tied_target, "tied_share_off": tied_off}
    return known | compute_metrics(known | {"scale": unit}, faults)


def _reasons(
    sample: Mapping[str, Any],
    method: Measured,
    asked: Sequence[str],
    draws: Sequence[Mapping[str, float]],
    faults: Mapping[str, str],
) -> list[str]:
    """Why values of a row are undefined whose functions did not fail."""
    sound = [name for name in METRICS if name not in faults]
    reasons = list(method.explained.reasons)
    if not len(method.rankings[0].outside):
        reasons.insert(0, "odd, leakage: nothing lies outside the target")
    if not has_zero(sample["score"]):
        reasons.append(_no_zero(sample["score"], draws[0]))
        sound = [name for name in sound if "scale" not in METRICS[name].needs]
    reasons += _undefined(draws, sound)
    for kind in asked:
        entry = INTERVENTIONS[kind]
        if entry.missing and isnan(draws[0][entry.column]) and len(method.rankings[0].region(entry.region)):
            users = [metric.name for metric in METRICS.values() if entry.column in metric.needs]
            reasons.append(f"{', '.join(users)}: {entry.missing}")
    if sample["kind"] == COUNTERPART:
        reasons.append("evidence scores, odd_beyond: what decides this class is the absence of a part")
    of_evidence = [name for name in sound if "alternatives" in METRICS[name].needs]
    reasons += _undefined(method.looks, of_evidence)
    return reasons + _undefined(method.looks, [name for name in sound if name not in of_evidence])


def _no_zero(score: str, draw: Mapping[str, float]) -> str:
    """Which relative metrics are undefined because the score has no natural zero; the others follow from them."""
    users = [metric for metric in METRICS.values() if "scale" in metric.needs]
    known = [metric.name for metric in users if not any(isnan(draw.get(need, 0.0)) for need in metric.needs)]
    return (
        f"{', '.join(known)} and what follows from them: score {score!r} has no natural zero, so a drop relative to it "
        "means nothing; see tdd_drop"
    )


def _failures(faults: Mapping[str, str]) -> list[str]:
    """Which metrics failed, and why."""
    return [f"metric {name}: {error}" for name, error in faults.items()]


def _undefined(draws: Sequence[Mapping[str, float]], chosen: Sequence[str]) -> list[str]:
    """Why some of these metrics are undefined, in how many of the draws, although all that they need is known."""
    names: dict[str, list[str]] = {}
    for metric in (METRICS[name] for name in chosen if name in draws[0]):
        unknown = [any(isnan(draw.get(need, 0.0)) for need in metric.needs) for draw in draws]
        count = sum(isnan(draw[metric.name]) and not lacks for draw, lacks in zip(draws, unknown, strict=True))
        if count:
            where = f" in {count} of {len(draws)} draws" if len(draws) > 1 else ""
            names.setdefault(f"{metric.undefined or 'the value is undefined'}{where}", []).append(metric.name)
    return [f"{', '.join(metrics)}: {words}" for words, metrics in names.items()]


def failed(sample: Mapping[str, Any], method: MethodInstance, error: Any) -> dict[str, Any]:
    """The row of a method that failed alone; or that was skipped, since it needs evidence that is not known."""
    skipped = isinstance(error, SampleSkipped) and "evidence" in method.method.needs
    reason = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
    return dict(sample) | {"method": method.name, "status": "skipped" if skipped else "failed", "reason": reason}


def curve_rows(sample: Mapping[str, Any], name: str, method: Measured, scores: Scores) -> list[dict[str, Any]]:
    """One row per operator, k and kind: the score of the altered image and its metric, averaged over the draws.

    The metric of a deletion is the relative drop, and the drop itself where the score has no natural zero.
    """
    unit = scale(scores.clean, sample["score"]) if has_zero(sample["score"]) else 1.0
    groups: dict[tuple[str, float, str], list[float]] = {}
    for item, score in scores.altered.items():
        if item.index in method.indices and INTERVENTIONS[item.kind].curve:
            groups.setdefault((item.operator, item.k, item.kind), []).append(score)
    rows = []
    for (operator, k, kind), values in groups.items():
        baseline, inserts = scores.baselines[operator], INTERVENTIONS[kind].inserts
        each = [score - baseline if inserts else (scores.clean - score) / unit for score in values]
        pixels = len(taken(Altered(0, operator, k, kind), method.rankings[0]))
        rows.append(
            {key: sample[key] for key in ("sample_id", "class_index", "target", "s")}
            | {"method": name, "occlusion": operator, "k": k, "kind": kind, "pixels": pixels}
            | {"score": mean(values), "s_baseline": baseline}
            | {"value": mean(each), "value_abs": mean(map(abs, each))}
        )
    return rows


def constant(heatmap: Float[Tensor, "H W"]) -> bool:
    """Whether a map says nothing."""
    return float(heatmap.max() - heatmap.min()) < DEGENERATE_RANGE
