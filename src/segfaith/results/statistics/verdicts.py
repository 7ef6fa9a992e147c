"""Whether a method can be trusted on the data and models of these runs: five questions, each with a rule.

    chance      the metric that leads the conclusions (`DataAnalysis.lead`) is significantly better than that of random
                cells, image by image (Wilcoxon, Holm, p < .05)
    model       the map changes when every weight is drawn anew (Spearman with the trained model's map, Adebayo 2018)
    stability   the map stays alike under five small perturbations of the image (Pearson)
    evidence    where evidence was planted: its average precision is significantly above that of random cells
    time        seconds a map

The borders of model, stability and time are conventions of this report, stated beside each verdict; no study sets them.
The questions are about necessity, the model and noise. None of them says that an explanation is complete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any, Literal

import pandas as pd

Mark = Literal["pass", "warn", "fail", "unknown"]
"""`unknown`: not measured, or too little was measured to tell."""

ENOUGH = 20
"""Images from which on a difference that is not significant counts as a failure, and not as too little to tell."""
FEW_MAPS = 4
"""With fewer maps, neither the model nor stability passes."""
SAME_MODEL, SIMILAR = 0.6, 0.3
"""Spearman with the trained model's map once all weights are new: at least the first fails, below the second passes."""
STABLE, SHAKY = 0.8, 0.5
"""Mean Pearson under perturbations: at least the first passes, below the second fails."""
QUICK, SLOW = 10.0, 60.0
"""Seconds a map: up to the first passes, above the second fails."""
NOT_MEASURED = "not measured"
CROSSED = "photographs are crossed, so nothing in the target decides and TDD is 0 for every map"
NO_MORE = "not shown to be better than the target’s mask, which says where the target is and no more"
OPPOSITE = "typical images say the opposite of these values, which a few outliers set"
RULES: dict[str, str] = {
    "chance": (
        "Pass: {metric} is significantly better than that of random cells, image by image (Wilcoxon, p < .05 after "
        f"Holm's correction over the methods). Fail: it is worse, or no difference was shown on {ENOUGH} images "
        "or more. Warn: no difference was shown on fewer images, the values say the opposite of the test, or by a "
        "metric other than TDD the method is not shown to be better than the target's mask as well."
    ),
    "model": (
        "Absolute Spearman correlation of the map with that of the trained model, once every weight is drawn anew. "
        f"Pass: below {SIMILAR:g}, on {FEW_MAPS} maps or more and on most. Warn: below {SAME_MODEL:g}, or fewer maps. "
        f"Fail: {SAME_MODEL:g} or more: most of the map does not depend on what the model learnt. Of several models "
        "the highest counts."
    ),
    "stability": (
        f"Mean Pearson correlation with the maps of five slightly changed images. Pass: {STABLE:g} or more, on "
        f"{FEW_MAPS} samples or more. Warn: {SHAKY:g} or more, or fewer samples. Fail: below {SHAKY:g}."
    ),
    "evidence": (
        "Average precision of the map against the pixels that decide the class by construction. Pass: significantly "
        "above that of random cells (Wilcoxon, p < .05 after Holm's correction over the methods). Fail: significantly "
        f"below, or not shown on {ENOUGH} scenes or more. Warn: not shown on fewer scenes, or the values say the "
        "opposite of the test."
    ),
    "time": f"Seconds a map. Pass: up to {QUICK:g}. Warn: up to {SLOW:g}. Fail: more.",
}
"""The rule of each mark, in words."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question about one method.

    Attributes:
        question: a key of `RULES`.
        value, reference: the method's figure, and that of random cells where the question compares them; NaN for none.
        n: images (of stability and time samples, of the model samples of the check) that entered.
        p: corrected p of the comparison, NaN where none was made.
        why: why the mark is `unknown`, or what stands against the values, or "".
    """

    question: str
    mark: Mark
    value: float = nan
    reference: float = nan
    n: int = 0
    p: float = nan
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """All findings about one method by question, and the mark of the whole.

    The whole fails where chance, model or evidence fails. It passes where chance and model pass and nothing else
    warns or fails. Otherwise it warns: also where model or chance was not measured.
    """

    method: str
    findings: Mapping[str, Finding]

    @property
    def mark(self) -> Mark:
        """The mark of the whole."""
        marks = {question: finding.mark for question, finding in self.findings.items()}
        if "fail" in (marks["chance"], marks["model"], marks["evidence"]):
            return "fail"
        if marks["chance"] == "unknown" and marks["model"] == "unknown":
            return "unknown"
        good = marks["chance"] == marks["model"] == "pass"
        return "pass" if good and not {"warn", "fail"} & set(marks.values()) else "warn"


def verdicts(
    methods: Sequence[str],
    chance: pd.DataFrame,
    mask: pd.DataFrame,
    truth: pd.DataFrame,
    kept: pd.DataFrame,
    summary: pd.DataFrame,
    *,
    unfinished: bool = False,
    planted: bool = False,
    crossed: bool = False,
) -> list[Verdict]:
    """The verdict on each method under test, those that may be trusted most first.

    Args:
        methods: under test.
        chance: of `paired.against`, each method against random cells by the metric that leads.
        mask: the same against the target's mask, which marks the target alone; empty where it is not asked for.
        truth: the same by `evidence_ap`, over the rows with usable planted evidence; empty where there are none.
        kept: of `randomisation.kept`.
        summary: as `summary.summarise` gives it.
        unfinished: whether randomisation checks were begun and none was finished.
        planted: whether evidence was planted.
        crossed: whether TDD leads and photographs are crossed: then TDD tells no map from chance.
    """
    order: dict[Mark, int] = {"pass": 0, "warn": 1, "unknown": 2, "fail": 3}
    model = "the check was stopped before its last part" if unfinished else NOT_MEASURED
    evidence = "none of the planted evidence can be used here" if planted else "no evidence was planted"
    made = [
        Verdict(
            name,
            {
                "chance": Finding("chance", "unknown", why=CROSSED)
                if crossed
                else _beyond_mask(_against_cells("chance", chance, name, NOT_MEASURED), mask, name),
                "model": _model(kept, name, model),
                "stability": _stability(summary, name),
                "evidence": _against_cells("evidence", truth, name, evidence),
                "time": _time(summary, name),
            },
        )
        for name in methods
    ]

    def lead(verdict: Verdict) -> float:
        finding = verdict.findings["chance"]
        return -1.0 if isnan(finding.value) else finding.value

    return sorted(made, key=lambda verdict: (order[verdict.mark], -lead(verdict)))


def _against_cells(question: str, pairs: pd.DataFrame, method: str, missing: str) -> Finding:
    """Whether the method's values are above those of random cells.

    The test is on ranks and the values are pooled or means: where they disagree, a few images set the values, and the
    method does not pass.
    """
    rows = pairs[pairs["first"] == method].to_dict("records") if len(pairs) else []
    if not rows:
        return Finding(question, "unknown", why=missing)
    row: dict[Any, Any] = rows[0]
    known = {"value": row["value_first"], "reference": row["value_second"], "n": int(row["images"])}
    enough = row["images"] >= ENOUGH
    if row["why"]:
        return Finding(question, "fail" if enough else "unknown", **known, why=str(row["why"]))
    if not row["significant"]:
        return Finding(question, "fail" if enough else "warn", **known, p=row["p_holm"])
    if row["effect"] * row["difference"] < 0:
        return Finding(question, "warn", **known, p=row["p_holm"], why=OPPOSITE)
    return Finding(question, "pass" if row["effect"] > 0 else "fail", **known, p=row["p_holm"])


def _beyond_mask(finding: Finding, pairs: pd.DataFrame, method: str) -> Finding:
    """The finding, which is no pass where the method is not shown to be better than the target's mask as well."""
    rows = pairs[pairs["first"] == method].to_dict("records") if len(pairs) else []
    if finding.mark != "pass" or not rows or (rows[0]["significant"] and rows[0]["effect"] > 0):
        return finding
    return replace(finding, mark="warn", why=NO_MORE)


def _model(kept: pd.DataFrame, method: str, missing: str) -> Finding:
    """How much of the map is left once every weight is new; of several models the most."""
    own = kept[kept["method"] == method] if len(kept) else kept
    rows = own.dropna(subset="kept").to_dict("records")
    if not rows:
        why = "its maps of the randomised model are constant, or failed" if len(own) else missing
        return Finding("model", "unknown", why=why)
    row = max(rows, key=lambda row: float(row["kept"]))
    value, few = float(row["kept"]), row["n"] < max(FEW_MAPS, row["lost"])
    mark: Mark = "fail" if value >= SAME_MODEL else "warn" if value >= SIMILAR or few else "pass"
    return Finding("model", mark, value, n=int(row["n"]))


def _stability(summary: pd.DataFrame, method: str) -> Finding:
    value, n = _mean(summary, method, "stability")
    if isnan(value):
        return Finding("stability", "unknown", why="not measured")
    mark: Mark = "fail" if value < SHAKY else "warn" if value < STABLE or n < FEW_MAPS else "pass"
    return Finding("stability", mark, value, n=n)


def _time(summary: pd.DataFrame, method: str) -> Finding:
    value, n = _mean(summary, method, "runtime_s")
    if isnan(value):
        return Finding("time", "unknown", why="the maps were computed elsewhere")
    return Finding("time", "pass" if value <= QUICK else "warn" if value <= SLOW else "fail", value, n=n)


def _mean(summary: pd.DataFrame, method: str, metric: str) -> tuple[float, int]:
    """A method's mean by a metric, and how many samples entered."""
    rows = summary[(summary["method"] == method) & (summary["metric"] == metric)]
    return (float(rows["mean"].iloc[0]), int(rows["n"].iloc[0])) if len(rows) else (nan, 0)
