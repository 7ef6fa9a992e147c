"""Cases: the images that the qualitative figures and the page's gallery show (paper, Figs. 2 to 4), by stated rules.

A rule is computed from the records, so that nobody picks the pictures. Beside it stands how many images it looked at
and how many met it. Only the methods under test count, and only images whose maps were kept can be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from segfaith.paths import map_folder, map_name
from segfaith.results.records.runs import Run, class_name
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import method_labels, under_test
from segfaith.results.statistics.analysis import DataAnalysis
from segfaith.results.statistics.targets import name_of

MIN_S, MIN_IOU = 0.3, 0.1
"""A target with a lower s, or a lower IoU with the model's prediction, is missed: the model does not predict it."""
MOST_OT = 0.5
"""A map fails above this OT abs: deleting what it marks outside the target changes s by more than half."""
COMPARED = ("ega", "ria", "dea")
"""Methods whose maps the figure of the mechanism needs."""
PICTURES = ("image.png", "target.png")
ORDER = ["key", *TARGET, "label"]
USED = ("tdd", "tdd_gain", "odd_abs")
"""Metrics that rules read."""

_HIT = f"s >= {MIN_S:g} and IoU of the prediction >= {MIN_IOU:g}"
_TIES = "ties by the ids of image and target and then the run's name; each image once"
_GAIN = "the mean TDD gain of the methods under test"
SUCCESS_RULE = (
    f"Success: {_HIT}, TDD of DEA above that of EGA, OT abs of DEA not above that of EGA, and no failure of DEA; the "
    f"largest margins TDD(DEA) - TDD(EGA) first, {_TIES}."
)
FAILURE_RULE = (
    f"Failure of DEA: {_HIT}, and either its TDD gain is at most 0 (its pixels inside the target matter no more than "
    f"random cells do) or its OT abs is above {MOST_OT:g} (deleting what it marks outside the target changes s by more "
    f"than half). The first half are the lowest TDD gains, the rest the highest OT abs; {_TIES}."
)
ANY_SUCCESS_RULE = (
    f"Success: {_HIT}, and a method under test with a TDD gain above 0 and an OT abs of at most {MOST_OT:g}; the "
    f"largest such gains first, {_TIES}."
)
ANY_FAILURE_RULE = (
    f"Failure: {_HIT}, and either no method under test has a TDD gain above 0 (the pixels that they mark inside the "
    f"target matter no more than random cells do) or all have an OT abs above {MOST_OT:g} (deleting what they mark "
    "outside the target changes s by more than half). The first half are the lowest of the highest TDD gains, the rest "
    f"the highest of the lowest OT abs; {_TIES}."
)
TYPICAL_RULE = (
    f"Typical case: {_HIT}, the median TDD of DEA (of an even number the lower of the two in the middle), {_TIES}."
)
MISSED_RULE = (
    f"Missed target: s < {MIN_S:g} or IoU of the prediction < {MIN_IOU:g}, so that the model does not predict it; the "
    f"lowest s first, {_TIES}."
)
GALLERY_RULES = {
    "best": f"Best: {_HIT}; {_GAIN} is highest; {_TIES}.",
    "typical": f"Typical: {_HIT}; {_GAIN} is nearest to its median; {_TIES}.",
    "worst": f"Worst: {_HIT}; {_GAIN} is lowest; {_TIES}.",
}
OTHER_SCORE = "rules choose cases by s as a probability and by drops relative to it; these runs explain the score {!r}"
"""Why nothing is chosen from runs of another score than the probability."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image of one run, or one target of it, and in words why it was chosen."""

    run: Run
    sample_id: str
    why: str
    target: str = ""

    @property
    def name(self) -> str:
        """The image, and which of its targets where it has several."""
        return name_of(self.sample_id, self.target)

    @property
    def folder(self) -> Path:
        """Where its maps lie."""
        return self.run.directory / "maps" / map_folder(self.sample_id, self.target)

    @property
    def record(self) -> pd.DataFrame:
        """Its rows of the records, by method."""
        records = self.run.records
        own = (records["sample_id"] == self.sample_id) & (records["target"] == self.target)
        return records[own].set_index("method")

    @property
    def title(self) -> str:
        """The name of its target class."""
        return class_name(self.run.description, int(self.record["class_index"].dropna().iloc[0]))


@dataclass(frozen=True, eq=False)
class Choice:
    """What a rule chose.

    Attributes:
        rule: in words.
        cases: in the figure's order.
        candidates: how many targets, counted in each run, have their maps kept and are not missed; for the rule of
            missed targets, how many have their maps kept.
        eligible: how many of them met the rule.
        why: why there is no case, or "".
    """

    rule: str
    cases: tuple[Case, ...]
    candidates: int
    eligible: int
    why: str = ""

    @property
    def ids(self) -> list[str]:
        """The chosen images and targets."""
        return [case.name for case in self.cases]

    @property
    def words(self) -> str:
        """The rule, how many images met it, and which are shown."""
        shown = "; ".join(f"{case.name} of {case.run.label} ({case.why})" for case in self.cases)
        return (
            f"{self.rule} Candidates: {self.candidates} (targets with kept maps, counted in each run). Met the rule: "
            f"{self.eligible}. Shown: {shown or 'none'}."
        )


@lru_cache(maxsize=4)
def candidates(part: DataAnalysis) -> pd.DataFrame:
    """One row per run and measured target whose picture, mask and at least one map of a method under test were kept.

    Returns:
        Columns run (place in `part.runs`), label, sample_id, target, s, iou (NaN where older records lack it), missed,
        kept (names of the methods under test with a map), and METRIC_METHOD for tdd, tdd_gain and odd_abs (NaN where
        the method was not measured). Of a score other than the probability there are no rows, see `OTHER_SCORE`.
    """
    methods = under_test(part.methods)
    columns = [f"{metric}_{method}" for metric in USED for method in methods]
    rows: list[dict[str, Any]] = []
    for place, run in enumerate(part.runs if part.of_probability else ()):
        if not (run.directory / "maps").is_dir():
            continue
        measured = run.records[(run.records["status"] == "ok") & run.records["method"].isin(methods)]
        for (sample_id, target), group in measured.groupby(TARGET):
            folder = run.directory / "maps" / map_folder(str(sample_id), str(target))
            if not all((folder / name).is_file() for name in PICTURES):
                continue
            kept = frozenset(name for name in group["method"] if (folder / map_name(name)).is_file())
            if kept:
                first = group.iloc[0]
                values = {f"{metric}_{row['method']}": row[metric] for _, row in group.iterrows() for metric in USED}
                score, overlap = float(first["s"]), float(first.get("target_iou", nan))
                row = {"run": place, "label": run.label, "sample_id": str(sample_id), "target": str(target)}
                row |= {"s": score, "iou": overlap}
                rows.append(row | {"missed": score < MIN_S or overlap < MIN_IOU, "kept": kept} | values)
    table = pd.DataFrame(rows, columns=["run", "label", *TARGET, "s", "iou", "missed", "kept", *columns])
    return table.astype({"missed": bool} | dict.fromkeys(columns, float))


def successes(part: DataAnalysis, n: int = 4) -> Choice:
    """At most n cases by SUCCESS_RULE, or by ANY_SUCCESS_RULE where DEA or EGA was not run."""
    rows = _predicted(part)
    if _has_paper(part):
        met = rows[(rows["tdd_dea"] > rows["tdd_ega"]) & (rows["odd_abs_dea"] <= rows["odd_abs_ega"])]
        met = met[~_failed(met["tdd_gain_dea"], met["odd_abs_dea"])]
        ordered = _ordered(met.assign(key=met["tdd_ega"] - met["tdd_dea"]))[:n]
        words = [f"TDD {-key:+.2f} over EGA" for key in ordered["key"]]
        return _choice(part, SUCCESS_RULE, ordered, words, len(rows), len(met))
    labels = method_labels(part.runs)
    gains = _by_method(rows, part, "tdd_gain")
    gains = gains[(gains > 0) & (_by_method(rows, part, "odd_abs") <= MOST_OT)].dropna(how="all")
    met = rows.loc[gains.index].assign(key=-gains.max(axis=1), best=gains.idxmax(axis=1) if len(gains) else None)
    ordered = _ordered(met)[:n]
    words = [
        f"TDD gain {-key:+.2f} of {labels[name]}" for key, name in zip(ordered["key"], ordered["best"], strict=True)
    ]
    return _choice(part, ANY_SUCCESS_RULE, ordered, words, len(rows), len(met))


def failures(part: DataAnalysis, n: int = 4) -> Choice:
    """At most n cases by FAILURE_RULE, or by ANY_FAILURE_RULE where DEA or EGA was not run.

    The first (n + 1) // 2 are of the first kind, the rest of the second; where a kind has too few, the other fills up.
    """
    rows = _predicted(part)
    if _has_paper(part):
        rule, gains, leaks = FAILURE_RULE, rows["tdd_gain_dea"], rows["odd_abs_dea"]
    else:
        rule = ANY_FAILURE_RULE
        gains, leaks = (_by_method(rows, part, "tdd_gain").max(axis=1), _by_method(rows, part, "odd_abs").min(axis=1))
    met = rows.assign(gain=gains, leak=leaks)[_failed(gains, leaks)]
    blind = _ordered(met.assign(key=met["gain"])[met["gain"] <= 0])
    leaking = _ordered(met.assign(key=-met["leak"])[met["leak"] > MOST_OT])
    others = leaking[~leaking["sample_id"].isin(blind["sample_id"][: (n + 1) // 2])]
    first = blind[: max((n + 1) // 2, n - len(others))]
    second = leaking[~leaking["sample_id"].isin(first["sample_id"])][: n - len(first)]
    words = [f"TDD gain {gain:.2f}" for gain in first["gain"]]
    words += [f"OT abs {leak:.2f}" for leak in second["leak"]]
    return _choice(part, rule, pd.concat([first, second]), words, len(rows), len(met))


def typical(part: DataAnalysis) -> Choice:
    """The case of the mechanism, by TYPICAL_RULE; it needs the maps of EGA, RIA and DEA."""
    rows = _predicted(part, COMPARED)
    met = rows.dropna(subset="tdd_dea") if len(rows) else rows
    ordered = met.assign(key=met["tdd_dea"].round(9)).sort_values(ORDER) if len(met) else met
    middle = (len(ordered) - 1) // 2
    chosen = ordered.iloc[middle : middle + 1] if len(ordered) else ordered
    words = [f"TDD of DEA {key:.2f}, the median" for key in chosen["tdd_dea"]] if len(chosen) else []
    return _choice(part, TYPICAL_RULE, chosen, words, len(rows), len(met), COMPARED)


def missed(part: DataAnalysis, n: int = 4) -> Choice:
    """At most n cases by MISSED_RULE."""
    rows = candidates(part)
    met = rows[rows["missed"]]
    ordered = _ordered(met.assign(key=met["s"]))[:n]
    words = ["IoU n/a" if iou != iou else f"IoU {iou:.2f}" for iou in ordered["iou"]]
    return _choice(part, MISSED_RULE, ordered, words, len(rows), len(met))


def choose(part: DataAnalysis, n: int = 1) -> dict[str, Choice]:
    """At most n cases each of `best`, `typical`, `worst` (GALLERY_RULES) and `missed` (MISSED_RULE).

    An image is in one of them only: the best are taken first, then the worst, then the typical ones.
    """
    rows = _predicted(part)
    gains = _by_method(rows, part, "tdd_gain").mean(axis=1)
    known = rows.assign(gain=gains).dropna(subset="gain")
    keys = {"best": -known["gain"], "worst": known["gain"], "typical": (known["gain"] - known["gain"].median()).abs()}
    taken: set[str] = set()
    choices: dict[str, Choice] = {}
    for kind, key in keys.items():
        free = known.assign(key=key)[~known["sample_id"].isin(taken)]
        chosen = _ordered(free)[:n]
        taken |= set(chosen["sample_id"])
        words = [f"mean TDD gain {gain:.2f}".replace("-", "\N{MINUS SIGN}") for gain in chosen["gain"]]
        choices[kind] = _choice(part, GALLERY_RULES[kind], chosen, words, len(rows), len(known))
    return {kind: choices[kind] for kind in GALLERY_RULES} | {"missed": missed(part, n)}


def _has_paper(part: DataAnalysis) -> bool:
    return {"ega", "dea"} <= set(part.methods)


def _predicted(part: DataAnalysis, needed: Sequence[str] = ()) -> pd.DataFrame:
    """The candidates that the model predicts, with the maps that are needed: of EGA, RIA and DEA, where they were run
    and the rule compares them."""
    rows = candidates(part)
    if not needed and _has_paper(part):
        needed = [name for name in COMPARED if name in part.methods]
    whole = pd.Series([kept >= set(needed) for kept in rows["kept"]], rows.index, dtype=bool)
    return rows[whole & ~rows["missed"]]


def _by_method(rows: pd.DataFrame, part: DataAnalysis, metric: str) -> pd.DataFrame:
    """The metric's columns, named by method."""
    methods = under_test(part.methods)
    return rows[[f"{metric}_{name}" for name in methods]].set_axis(methods, axis=1)


def _failed(gain: pd.Series, leak: pd.Series) -> pd.Series:
    """Which images are failures, by the highest TDD gain and the lowest OT abs of the methods that are judged."""
    return (gain <= 0) | (leak > MOST_OT)


def _choice(
    part: DataAnalysis,
    rule: str,
    chosen: pd.DataFrame,
    words: Sequence[str],
    looked: int,
    met: int,
    needed: Sequence[str] = (),
) -> Choice:
    cases = tuple(
        Case(part.runs[int(place)], str(sample_id), why, str(target))
        for place, sample_id, target, why in zip(*(chosen[name] for name in ("run", *TARGET)), words, strict=True)
    )
    needed = needed or ([name for name in COMPARED if name in part.methods] if _has_paper(part) else [])
    maps = f"maps of {', '.join(needed)}" if needed else "maps of a method under test"
    none = f"no image with {_HIT} has {maps}; keep them with [output] maps = true"
    if rule == MISSED_RULE:
        none = "no image has maps of a method under test; keep them with [output] maps = true"
    if not part.of_probability:
        none = OTHER_SCORE.format(part.score)
    left = f"no image is left: all {met} that meet the rule are shown otherwise" if met else ""
    why = "" if cases else left or (f"none of {looked} candidates meets the rule. {rule}" if looked else none)
    return Choice(rule, cases, looked, met, why)


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """By the column `key` (to 1e-9), ascending; each image once, in its best place."""
    ordered = rows.assign(key=rows["key"].round(9)).sort_values(ORDER)
    return ordered.drop_duplicates("sample_id")
