"""Whether a method can be trusted on the data and models of these runs: four questions, each with a rule.

    chance      TDD is significantly above that of random cells, image by image (Wilcoxon, Holm, p < .05)
    model       the map changes when every weight is drawn anew (Spearman with the trained model's map, Adebayo 2018)
    stability   the map stays alike under five small perturbations of the image (Pearson)
    evidence    where evidence was planted: its average precision is significantly above that of random cells

The borders of model and stability are conventions of this report, stated beside each verdict; no study sets them. The
questions are about necessity, the model and noise. None of them says that an explanation is complete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Literal

import pandas as pd

Mark = Literal["pass", "warn", "fail", "unknown"]
"""`unknown`: not measured, or too little was measured to tell."""

ENOUGH = 20
"""Images from which on a difference that is not significant counts as a failure, and not as too little to tell."""
SAME_MODEL, SIMILAR = 0.6, 0.3
"""Spearman with the trained model's map once all weights are new: at least the first fails, below the second passes."""
STABLE, SHAKY = 0.8, 0.5
"""Mean Pearson under perturbations: at least the first passes, below the second fails."""
QUICK, SLOW = 10.0, 60.0
"""Seconds a map: up to the first passes, above the second fails."""
RULES: dict[str, str] = {
    "chance": (
        f"Pass: TDD is significantly above that of random cells, image by image (Wilcoxon, p < .05 after Holm's "
        f"correction). Fail: it is significantly below, or not told apart on {ENOUGH} images or more. Warn: not told "
        "apart on fewer images."
    ),
    "model": (
        f"Spearman correlation of the map with that of the trained model, once every weight is drawn anew. Pass: below "
        f"{SIMILAR:g}. Warn: below {SAME_MODEL:g}. Fail: {SAME_MODEL:g} or more: most of the map does not depend on "
        "what the model learnt. Of several models the highest correlation counts."
    ),
    "stability": (
        f"Mean Pearson correlation with the maps of five slightly changed images. Pass: {STABLE:g} or more. Warn: "
        f"{SHAKY:g} or more. Fail: below {SHAKY:g}."
    ),
    "evidence": (
        "Average precision of the map against the pixels that decide the class by construction. Pass: significantly "
        f"above that of random cells (Wilcoxon, p < .05 after Holm's correction). Fail: not so on {ENOUGH} scenes or "
        "more. Warn: not so on fewer scenes."
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
        why: why the mark is `unknown`, or "".
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
    truth: pd.DataFrame,
    randomisation: pd.DataFrame,
    summary: pd.DataFrame,
    finished: bool = True,
) -> list[Verdict]:
    """The verdict on each method under test, those that may be trusted most first.

    Args:
        methods: under test.
        chance: rows of `paired.compare` by TDD that hold each method against random cells, one run alone tested too.
        truth: the same by `evidence_ap`, over the rows with usable planted evidence; empty where there are none.
        randomisation: as `randomisation.randomisation` gives it.
        summary: as `summary.summarise` gives it.
        finished: whether every randomisation check went through all parts.
    """
    order: dict[Mark, int] = {"pass": 0, "warn": 1, "unknown": 2, "fail": 3}
    made = [
        Verdict(
            name,
            {
                "chance": _against_cells("chance", chance, name),
                "model": _model(randomisation, name, finished),
                "stability": _stability(summary, name),
                "evidence": _against_cells("evidence", truth, name),
                "time": _time(summary, name),
            },
        )
        for name in methods
    ]

    def lead(verdict: Verdict) -> float:
        found = verdict.findings["chance"]
        return -1.0 if isnan(found.value) else found.value

    return sorted(made, key=lambda verdict: (order[verdict.mark], -lead(verdict)))


def _against_cells(question: str, pairs: pd.DataFrame, method: str) -> Finding:
    """Whether the method's values are above those of random cells."""
    rows = pairs[pairs["first"] == method].to_dict("records") if len(pairs) else []
    if not rows:
        return Finding(question, "unknown", why="no evidence was planted" if question == "evidence" else "not measured")
    row: dict[Any, Any] = rows[0]
    known = {"value": row["value_first"], "reference": row["value_second"], "n": int(row["images"])}
    if row["why"]:
        return Finding(question, "unknown", **known, why=str(row["why"]))
    if row["significant"]:
        return Finding(question, "pass" if row["effect"] > 0 else "fail", **known, p=row["p_holm"])
    return Finding(question, "fail" if row["images"] >= ENOUGH else "warn", **known, p=row["p_holm"])


def _model(table: pd.DataFrame, method: str, finished: bool) -> Finding:
    """How much of the map is left once every weight is new; of several models the highest correlation."""
    rows = table[table["method"] == method] if len(table) else table
    if not len(rows):
        return Finding("model", "unknown", why="not measured")
    if not finished:
        return Finding("model", "unknown", why="the check was stopped before its last part")
    last = [part.sort_values("stage").to_dict("records")[-1] for _, part in rows.groupby("model", sort=False)]
    told = [row for row in last if row["stage"] > 0 and not isnan(row["spearman"])]
    if not told:
        return Finding("model", "unknown", why="its maps of the randomised model are constant, or failed")
    row = max(told, key=lambda row: float(row["spearman"]))
    value = float(row["spearman"])
    mark: Mark = "fail" if value >= SAME_MODEL else "warn" if value >= SIMILAR else "pass"
    return Finding("model", mark, value, n=int(row["n"]))


def _stability(summary: pd.DataFrame, method: str) -> Finding:
    value, n = _mean(summary, method, "stability")
    if isnan(value):
        return Finding("stability", "unknown", why="not measured")
    return Finding("stability", "pass" if value >= STABLE else "warn" if value >= SHAKY else "fail", value, n=n)


def _time(summary: pd.DataFrame, method: str) -> Finding:
    value, n = _mean(summary, method, "runtime_s")
    if isnan(value):
        return Finding("time", "unknown", why="the maps were computed elsewhere")
    return Finding("time", "pass" if value <= QUICK else "warn" if value <= SLOW else "fail", value, n=n)


def _mean(summary: pd.DataFrame, method: str, metric: str) -> tuple[float, int]:
    """A method's mean by a metric, and how many samples entered."""
    rows = summary[(summary["method"] == method) & (summary["metric"] == metric)]
    return (float(rows["mean"].iloc[0]), int(rows["n"].iloc[0])) if len(rows) else (nan, 0)
