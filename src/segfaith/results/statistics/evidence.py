"""How far to trust the metrics: do they rank methods as the planted evidence does? From records, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.constants import CONTROLS, COUNTERPART
from segfaith.evaluation.metrics import METRICS, leakage
from segfaith.results.records.files import replace_file
from segfaith.results.statistics.summary import Pair

TITLE = "How far to trust these metrics"
JUDGED = ("tdd", "insertion_gain", "odd_abs", "leak_abs", "odd_beyond_abs", "stability")
"""Metrics whose ranking of methods is held against the evidence score's."""
SCORES = ("evidence_ap", "evidence_mass", "evidence_top")
RESAMPLES = 1000
LEAST_SCENES, LEAST_METHODS = 20, 3
"""With fewer scenes or methods, no agreement of rankings is stated: its interval would not cover (`intervals`)."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of two rankings of methods, with a 95 % percentile interval over resampled scenes.

    `why` says why it is not testable; the numbers are then NaN.
    """

    kind: str
    metric: str
    methods: int
    scenes: int
    tau: float = nan
    low: float = nan
    high: float = nan
    why: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.why:
            return f"not testable: {self.why}"
        return "agrees" if self.low > 0 else "disagrees" if self.high < 0 else "undecided"


def usable(runs: Sequence[Pair], min_s: float | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows from which conclusions are drawn, and why the others are not among them, by kind.

    Rows are measured ones with planted evidence, on regions that the model predicts right, of kinds for which the
    model's proof of use holds; with `min_s`, only those with s of at least that.
    """
    parts: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    wrong = 0
    for description, records in runs:
        if "kind" not in records:
            continue
        proven = str(description["model"].get("proven_kinds", "")).split(",")
        planted = records[records["kind"].notna() & (records["status"] == "ok")]
        for kind in sorted(set(planted["kind"]) - set(proven)):
            left_out[kind] = (
                "decided by the absence of a part, for which no pixels are the evidence"
                if kind == COUNTERPART
                else "unproven: the model was not shown to decide by this evidence"
            )
        planted = planted if min_s is None else planted[planted["s"] >= min_s]
        right = planted["majority_class"] == planted["class_index"]
        wrong += planted.loc[~right & planted["kind"].isin(proven), "sample_id"].nunique()
        parts.append(planted[right & planted["kind"].isin(proven)])
    empty = pd.DataFrame(columns=["sample_id", "method", "kind"])
    rows = pd.concat(parts, ignore_index=True) if parts else empty
    for kind in set(left_out) & set(rows["kind"]):
        left_out[kind] += " (in some of these runs; it entered from the others)"
    if wrong:
        left_out["predicted wrong"] = f"{wrong} region(s) that the model does not predict right"
    return rows, left_out


def agreement(rows: pd.DataFrame, kind: str, metric: str, *, seed: int = 0) -> Agreement:
    """Whether a metric ranks methods, by their means over scenes, as the mean `evidence_ap` does.

    Both means of every method are over the same scenes, those on which all methods have a value, for else they would
    compare scenes. A method that has one on less than half of the scenes is left out. Several runs on one scene count
    as their mean, so that the same scene is not drawn as if it were two.

    Args:
        rows: of `usable`; only those of the kind are read, or of one of `GROUPS`.
        metric: of `METRICS`; the sign is turned where lower is better.
    """
    chosen = rows[rows["kind"].isin(GROUPS.get(kind, (kind,)))]
    means = chosen.groupby(["sample_id", "method"])[["evidence_ap", metric]].mean()
    value, truth = means[metric].unstack(), means["evidence_ap"].unstack()
    counts = value.notna().sum()
    value = value.loc[:, counts * 2 > counts.max()].dropna()
    scenes, methods = (len(value), len(value.columns)) if counts.any() else (0, 0)
    if scenes < LEAST_SCENES:
        return Agreement(kind, metric, methods, scenes, why=f"{scenes} scenes, at least {LEAST_SCENES} needed")
    if methods < LEAST_METHODS:
        return Agreement(kind, metric, methods, scenes, why=f"{methods} methods, at least {LEAST_METHODS} needed")
    left = truth.loc[value.index, value.columns].to_numpy(float)
    right = value.to_numpy(float) * (1 if METRICS[metric].better == "higher" else -1)
    (tau,) = _taus(left.mean(0, keepdims=True), right.mean(0, keepdims=True))
    if isnan(tau):
        return Agreement(kind, metric, methods, scenes, why="all methods are tied")
    draws = np.random.default_rng(seed).integers(0, scenes, (RESAMPLES, scenes))
    low, high = np.nanpercentile(_taus(left[draws].mean(1), right[draws].mean(1)), [2.5, 97.5])
    return Agreement(kind, metric, methods, scenes, float(tau), float(low), float(high))


def _taus(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each row of two tables; values equal to 1e-6 are tied, and NaN where a whole row is."""
    i, j = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(rounded[:, i] - rounded[:, j]) for rounded in (left.round(6), right.round(6)))
    untied = np.sqrt(np.abs(a).sum(1) * np.abs(b).sum(1))
    taus: NDArray[np.float64] = np.divide((a * b).sum(1), untied, out=np.full(len(a), nan), where=untied > 0)
    return taus


def trust_page(runs: Sequence[Pair], min_s: float | None = None) -> str:
    """The page as Markdown; `min_s` leaves out scenes with a lower score."""
    rows, left_out = usable(runs, min_s)
    lines = [f"# {TITLE}", "", INTRODUCTION, ""]
    lines += [f"- left out: {kind}: {why}" for kind, why in left_out.items()]
    if not len(rows):
        return "\n".join([*lines, "- nothing is left from which to conclude", ""])
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    groups = [*kinds, *GROUPS] if len(kinds) > 1 else kinds
    counts = ", ".join(f"{kind} {rows.loc[rows['kind'] == kind, 'sample_id'].nunique()}" for kind in kinds)
    methods = list(dict.fromkeys(rows["method"]))
    lines += [f"- scenes that entered: {counts}", "", "## Who finds the evidence", "", SCORE_WORDS, ""]
    lines += _table(["Kind", *methods], [[kind, *_score_cells(rows, kind, methods)] for kind in groups])
    lines += ["", "## Do the metrics rank methods as the evidence does?", "", TAU_WORDS, "", *_agreements(rows, groups)]
    lines += ["", "## What leakage says of a truthful map", "", LEAK_WORDS, "", *_leakage(rows, kinds, methods)]
    return "\n".join([*lines, ""])


def write_trust(runs: Sequence[Pair], directory: Path, min_s: float | None = None) -> Path:
    """Writes `trust.md` into a directory."""
    page = trust_page(runs, min_s)
    path = directory / "trust.md"
    replace_file(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _agreements(rows: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """A line in words per metric, then the table of all taus that could be tested."""
    own = rows[~rows["method"].str.partition("@")[0].isin(CONTROLS)]
    words, table = [], []
    for metric in JUDGED:
        said: dict[str, list[str]] = {}
        for kind in groups:
            both, alone = agreement(rows, kind, metric), agreement(own, kind, metric)
            said.setdefault(both.verdict, []).append(kind)
            if not (both.why and alone.why):
                cells = [_tau_cell(both), _tau_cell(alone), str(both.scenes), _verdicts(both, alone)]
                table.append([METRICS[metric].label, kind, *cells])
        verdicts = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in said.items())
        words.append(f"- {METRICS[metric].label} ({metric}): {verdicts}")
    if table:
        words += ["", *_table(["Metric", "Kind", "tau", "tau without controls", "Scenes", "Verdict"], table)]
    return words


def _leakage(rows: pd.DataFrame, kinds: Sequence[str], methods: Sequence[str]) -> list[str]:
    """By how much OT abs punishes evidence outside: in words, and both leakages with and without its part."""
    own = [name for name in methods if name.partition("@")[0] not in CONTROLS]
    beyond = pd.Series(list(map(leakage, rows["odd_beyond_abs"], rows["tdd"])), rows.index, dtype=float)
    rows = rows.assign(leak_beyond=beyond.where(rows["leak_abs"].notna()))  # of a control's draws all must have one
    body, words = [], []
    for kind in kinds:
        groups = rows[rows["kind"] == kind].groupby("method")
        means = groups[["odd_abs", "odd_beyond_abs"]].mean().reindex(list(methods)).to_numpy(float)
        medians = groups[["leak_abs", "leak_beyond"]].median().reindex(list(methods)).to_numpy(float)
        counts = groups["leak_abs"].count().reindex(list(methods), fill_value=0)
        values = np.hstack([means, medians])
        body += [
            [kind, name, *map(_number, line), str(count)]
            for name, line, count in zip(methods, values, counts, strict=True)
        ]
        if kind == "context" and own:
            average = [_number(value) for value in values[[name in own for name in methods]].mean(0)]
            words = [
                f"Context, mean over {', '.join(own)}: OT abs {average[0]}, of which {average[1]} beyond the evidence.",
                "",
            ]
    header = ["Kind", "Method", "OT abs", "beyond", "Leak abs (median)", "beyond (median)", "scenes"]
    return [*words, *_table(header, body)]


KINDS = ("plain", "marker", "context", "conjunction", "redundancy")
GROUPS = {"all but plain": KINDS[1:], "all": KINDS}
"""Kinds taken together; where the whole object is the evidence (plain), AP measures likeness to the mask."""
INTRODUCTION = (
    "On these scenes it is known by construction which pixels decide each object's class, and for every kind below the "
    "model was shown to decide by them (docs/scenes.md). So the metrics themselves can be judged: a good one ranks "
    "methods as the planted evidence does. Only regions that the model predicts right entered."
)
SCORE_WORDS = (
    "Average precision of the map against the planted evidence / share of its mass there / share of its top pixels "
    "there; means over scenes. Of the plain kind the whole object is the evidence, so that the mask itself scores 1."
)
TAU_WORDS = (
    "Kendall's tau-b between the ranking of methods by the metric and by the average precision (1: the same, -1: "
    "reversed), with a 95 % bootstrap interval over scenes. `agrees`: the interval lies above 0; `disagrees`: below; "
    "`undecided`: it holds 0. Methods are ranked by means over the scenes on which all of them have a value; Leak abs "
    "has one only where TDD is above 0.05. The interval speaks of other scenes with these methods, not of other "
    "methods: a metric that knows nothing of the evidence orders four methods with a tau above 0 in 9 of 24 cases."
)
LEAK_WORDS = (
    "OT abs is what deleting a map's top pixels outside the target changes. Where the evidence lies outside, a "
    "truthful map must change much, and OT abs punishes it. Leak abs is the ratio of OT abs to TDD. It has a value "
    "only where TDD is above 0.05, on so many `scenes`, which a truthful map of evidence outside may never reach. "
    "`beyond` is the same less what deleting the planted evidence among those pixels costs: what is lost, or gained, "
    "beyond the truth."
)


def _score_cells(rows: pd.DataFrame, kind: str, methods: Sequence[str]) -> list[str]:
    chosen = rows[rows["kind"].isin(GROUPS.get(kind, (kind,)))]
    means = chosen.groupby("method")[list(SCORES)].mean().reindex(list(methods))
    return [" / ".join(_number(float(means[score][name])) for score in SCORES) for name in methods]


def _tau_cell(one: Agreement) -> str:
    return "n/a" if one.why else f"{one.tau:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _verdicts(both: Agreement, own: Agreement) -> str:
    return both.verdict if own.verdict == both.verdict else f"{both.verdict}; without controls: {own.verdict}"


def _number(value: float) -> str:
    return "n/a" if isnan(value) else f"{value:.3f}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]
