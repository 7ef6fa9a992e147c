"""How far to trust the metrics: do they rank methods as the planted evidence does?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.constants import COUNTERPART, WIRED_CROSSED, WIRED_STRAIGHT
from segfaith.evaluation.metrics import METRICS, PROBABILITY, leading
from segfaith.evaluation.metrics import leakage as leakage_ratio
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import base, under_test
from segfaith.results.statistics.targets import IMAGE, over_targets

JUDGED = ("tdd", "insertion_gain", "odd_abs", "leak_abs", "odd_beyond_abs", "stability")
"""Metrics whose ranking of methods is held against the evidence score's."""
SCORES = ("evidence_ap", "evidence_mass", "evidence_top")
RESAMPLES = 1000
LEAST_SCENES, LEAST_METHODS = 20, 3
"""With fewer scenes or methods, no agreement of rankings is stated: its interval would not cover (`intervals`)."""
WIRED = (WIRED_STRAIGHT, WIRED_CROSSED)
"""Kinds whose truth needs no proof and no right prediction: no logit of the target reads the other half."""
VERDICT_METHODS = 8
"""Different methods under test that a verdict needs. The interval is over scenes and cannot mend few methods: two
unrelated rankings of four have a tau above 0 in 9 of 24 cases."""
KINDS = ("plain", "marker", "context", "conjunction", "redundancy", *WIRED)
GROUPS = {"all but plain": KINDS[1:], "all": KINDS}
"""Kinds taken together; where the whole object is the evidence (plain), AP measures likeness to the mask."""
PLACES = {
    **{"plain": "whole", "marker": "inside", "conjunction": "inside", "redundancy": "inside", "context": "outside"},
    **{WIRED_STRAIGHT: "half", WIRED_CROSSED: "outside"},
}
"""Where the evidence of a kind lies by construction: the whole target, a part of it, outside it alone, or in the half
that holds the target and its surroundings."""
_DELETES = {
    "outside": "the evidence lies outside the target, which is all that it changes",
    "whole": "the whole target is the evidence, so that it changes evidence whatever the map",
    "half": "the whole target lies in the half that decides, so that it changes evidence whatever the map",
}
_SPARES = {
    "inside": "the evidence lies inside the target, which it leaves as it is",
    "whole": "the evidence is the target, which it leaves as it is",
}
BLIND: dict[str, dict[str, str]] = {
    **dict.fromkeys(("tdd", "tdd_drop", "tdd_gain", "tdd_drop_gain", "tdd_gain_own"), _DELETES),
    **dict.fromkeys(("insertion_gain", "insertion_gain_rel", "fidelity_inside"), _DELETES),
    **dict.fromkeys(("odd_abs", "odd_drop_abs", "odd_beyond_abs", "odd_fair_abs", "fidelity_outside"), _SPARES),
    "leak_abs": {"whole": "the evidence is the target, of which neither TDD nor OT abs sees a part"},
    "stability": dict.fromkeys(
        ("inside", "outside", "whole", "half"), "it compares maps with each other, wherever they point"
    ),
}
"""Metrics that cannot see the evidence of a kind, by where it lies, and why not."""
AGREEMENT_COLUMNS = [
    *("metric", "kind", "kinds", "methods", "distinct", "scenes", "tau", "low", "high", "blind", "why", "verdict"),
]
LEAKAGE_COLUMNS = ["kind", "method", "odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond", "scenes"]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of two rankings of methods, with a 95 % percentile interval over resampled scenes.

    Attributes:
        kind: a kind or a group of kinds.
        kinds: those of them that the metric sees, which entered.
        methods: how many are ranked.
        distinct: the same without variants: "dea@alpha=0.5" and "dea@alpha=0.8" are one.
        blind: why the metric cannot see the evidence by construction; the numbers are then NaN.
        why: why it is not testable; the numbers are then NaN too.
    """

    kind: str
    metric: str
    methods: int
    scenes: int
    tau: float = nan
    low: float = nan
    high: float = nan
    why: str = ""
    kinds: str = ""
    distinct: int = 0
    blind: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.blind:
            return f"blind by construction: {self.blind}"
        if self.why:
            return f"not testable: {self.why}"
        if self.distinct < VERDICT_METHODS:
            return "too few methods for a verdict"
        return "agrees" if self.low > 0 else "disagrees" if self.high < 0 else "undecided"


def usable(runs: Sequence[Run]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows from which conclusions are drawn, and why the others are not among them, by kind.

    Rows are measured ones with planted evidence, on regions that the model predicts right, of kinds for which the
    model's proof of use holds; and all of wired photographs, which need neither.
    """
    parts: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    wrong = 0
    for number, run in enumerate(runs):
        if "kind" not in run.measured:
            continue
        proven = [*str(run.description["model"].get("proven_kinds", "")).split(","), *WIRED]
        planted = run.measured[run.measured["kind"].notna()].assign(run=number)
        for kind in sorted(set(planted["kind"]) - set(proven)):
            left_out[kind] = (
                "decided by the absence of a part, for which no pixels are the evidence"
                if kind == COUNTERPART
                else "unproven: the model was not shown to decide by this evidence"
            )
        right = (planted["majority_class"] == planted["class_index"]) | planted["kind"].isin(WIRED)
        wrong += len(planted.loc[~right & planted["kind"].isin(proven), TARGET].drop_duplicates())
        parts.append(planted[right & planted["kind"].isin(proven)])
    empty = pd.DataFrame(columns=["run", *TARGET, "method", "kind"])
    rows = pd.concat(parts, ignore_index=True) if parts else empty
    for kind in set(left_out) & set(rows["kind"]):
        left_out[kind] += " (in some of these runs; it entered from the others)"
    if wrong:
        left_out["predicted wrong"] = f"{wrong} region(s) that the model does not predict right"
    return rows, left_out


def found(runs: Sequence[Run]) -> list[Run]:
    """The runs with the rows of `usable` alone, by which it is tested whether a method finds the evidence.

    Where other kinds entered, plain objects do not: there the whole object is the evidence, and a likeness to the mask
    scores.
    """
    kinds = set(usable(runs)[0]["kind"]) - {"plain"} or {"plain"}
    parts = ((run, usable([run])[0]) for run in runs)
    return [replace(run, records=rows[rows["kind"].isin(kinds)]) for run, rows in parts]


def kinds_of(rows: pd.DataFrame) -> list[str]:
    """The kinds among the rows of `usable`, and where there are several also those of `GROUPS`."""
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    return [*kinds, *GROUPS] if len(kinds) > 1 else kinds


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """How well each method's maps mark the evidence: means over scenes, of the mean over the regions of each.

    Args:
        rows: of `usable`.

    Returns:
        Columns kind (of `kinds_of`), method, evidence_ap, evidence_mass, evidence_top; NaN of methods that have no
        scene of the kind.
    """
    parts = []
    for kind in kinds_of(rows):
        scenes = over_targets(_of_kind(rows, kind), SCORES, [*IMAGE, "method"])
        means = scenes.groupby(level="method").mean().reindex(rows["method"].unique())
        parts.append(means.rename_axis("method").reset_index().assign(kind=kind))
    columns = ["kind", "method", *SCORES]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def blindness(metric: str, kind: str) -> str:
    """Why a metric cannot see the evidence of a kind by construction, or ""; it then agrees by chance alone."""
    return BLIND.get(metric, {}).get(PLACES.get(kind, ""), "")


def agreements(rows: pd.DataFrame, score: str = PROBABILITY) -> pd.DataFrame:
    """`agreement` by every metric of `JUDGED` and kind of `kinds_of`, among the methods under test.

    Controls are left out: any metric tells them from the methods, and so agrees on most pairs.

    Args:
        rows: of `usable`.
        score: of the rows' runs.

    Returns:
        The fields of `Agreement` and its verdict, a row per metric and kind.
    """
    own = rows[rows["method"].isin(under_test(rows["method"]))]
    found = [agreement(own, kind, metric) for metric in leading(JUDGED, score) for kind in kinds_of(rows)]
    lines = [asdict(one) | {"verdict": one.verdict} for one in found]
    return pd.DataFrame(lines, columns=AGREEMENT_COLUMNS)


def leakage(rows: pd.DataFrame) -> pd.DataFrame:
    """By how much OT abs and Leak abs punish evidence outside the target: both with and without its part.

    Args:
        rows: of `usable`.

    Returns:
        Columns kind, method, odd_abs, odd_beyond_abs (means), leak_abs, leak_beyond (medians; leak_beyond is
        odd_beyond_abs / TDD where the method has a leak_abs), scenes (with a leak_abs).
    """
    beyond = pd.Series(list(map(leakage_ratio, rows["odd_beyond_abs"], rows["tdd"])), rows.index, dtype=float)
    rows = rows.assign(leak_beyond=beyond.where(rows["leak_abs"].notna()))  # of a control's draws all must have one
    methods, parts = rows["method"].unique(), []
    for kind in (kind for kind in KINDS if kind in set(rows["kind"])):
        shown = ("odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond")
        groups = over_targets(rows[rows["kind"] == kind], shown, [*IMAGE, "method"]).groupby(level="method")
        part = groups[["odd_abs", "odd_beyond_abs"]].mean().join(groups[["leak_abs", "leak_beyond"]].median())
        part = part.reindex(methods).assign(scenes=groups["leak_abs"].count().reindex(methods, fill_value=0))
        parts.append(part.rename_axis("method").reset_index().assign(kind=kind))
    return pd.concat(parts, ignore_index=True)[LEAKAGE_COLUMNS] if parts else pd.DataFrame(columns=LEAKAGE_COLUMNS)


def agreement(rows: pd.DataFrame, kind: str, metric: str, *, seed: int = 0) -> Agreement:
    """Whether a metric ranks methods, by their means over scenes, as the mean `evidence_ap` does.

    Scenes of kinds whose evidence the metric cannot see do not enter (`blindness`).

    Both means of every method are over the same scenes, those on which all methods have a value, for else they would
    compare scenes. A method that has one on less than half of the scenes is left out. Several runs on one scene count
    as their mean, so that the same scene is not drawn as if it were two. Of a scene with several regions those count on
    which all methods have a value, and the scene's values are the means over them.

    Args:
        rows: of `usable`; only those of the kind are read, or of one of `GROUPS`.
        metric: of `METRICS`; the sign is turned where lower is better.
    """
    present = [name for name in KINDS if name in set(_of_kind(rows, kind)["kind"])]
    seen = [name for name in present if not blindness(metric, name)]
    if present and not seen:
        reasons = "; ".join(dict.fromkeys(blindness(metric, name) for name in present))
        return Agreement(kind, metric, 0, 0, blind=reasons)
    chosen = rows[rows["kind"].isin(seen)]
    means = chosen.groupby([*TARGET, "method"])[["evidence_ap", metric]].mean()
    value, truth = means[metric].unstack(), means["evidence_ap"].unstack()
    counts = value.notna().sum()
    value = value.loc[:, counts * 2 > counts.max()].dropna()
    truth = truth.loc[value.index, value.columns].groupby(level="sample_id").mean()
    value = value.groupby(level="sample_id").mean()
    scenes, methods = (len(value), len(value.columns)) if counts.any() else (0, 0)
    distinct = len({base(str(name)) for name in value.columns}) if methods else 0
    known = Agreement(kind, metric, methods, scenes, kinds=", ".join(seen), distinct=distinct)
    if scenes < LEAST_SCENES:
        return replace(known, why=f"{scenes} scenes, at least {LEAST_SCENES} needed")
    if methods < LEAST_METHODS:
        return replace(known, why=f"{methods} methods, at least {LEAST_METHODS} needed")
    left = truth.to_numpy(float)
    right = value.to_numpy(float) * (1 if METRICS[metric].better == "higher" else -1)
    (tau,) = taus(left.mean(0, keepdims=True), right.mean(0, keepdims=True))
    if isnan(tau):
        return replace(known, why="all methods are tied")
    draws = np.random.default_rng(seed).integers(0, scenes, (RESAMPLES, scenes))
    drawn_means = np.stack([(left[drawn].mean(0), right[drawn].mean(0)) for drawn in draws])
    low, high = np.nanpercentile(taus(drawn_means[:, 0], drawn_means[:, 1]), [2.5, 97.5])
    return replace(known, tau=float(tau), low=float(low), high=float(high))


def _of_kind(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    return rows[rows["kind"].isin(GROUPS.get(kind, (kind,)))]


def taus(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each row of two tables; values equal to 1e-6 are tied, and NaN where a whole row is."""
    i, j = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(rounded[:, i] - rounded[:, j]) for rounded in (left.round(6), right.round(6)))
    untied = np.sqrt(np.abs(a).sum(1) * np.abs(b).sum(1))
    taus: NDArray[np.float64] = np.divide((a * b).sum(1), untied, out=np.full(len(a), nan), where=untied > 0)
    return taus
