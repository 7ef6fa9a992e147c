"""Cases: the samples that the qualitative figures show (paper, Figs. 2 to 4), chosen by stated rules.

A rule is computed from the records, so that nobody picks the pictures; beside it stands how many samples it looked at
and how many met it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segfaith.paths import map_name
from segfaith.results.records.runs import Run

MIN_S = 0.3
"""Only samples with at least this s are cases: below it, relative drops tell more of s than of the map."""
COMPARED = ("ega", "ria", "dea")
"""Methods whose records and maps a case needs."""
PICTURES = ("image.png", "target.png")

SUCCESS_RULE = (
    f"Success: s >= {MIN_S:g}, TDD of DEA above that of EGA, and OT abs of DEA not above that of EGA; the largest "
    "margins TDD(DEA) - TDD(EGA) first, ties by the sample's id and then the run's name; each image once."
)
FAILURE_RULE = (
    f"Failure: s >= {MIN_S:g}; the first half are the lowest TDD gains of DEA (its pixels inside the target matter no "
    "more than random cells do), the rest the highest OT abs of DEA (what it marks outside the target matters); ties "
    "by the sample's id and then the run's name; each image once."
)
TYPICAL_RULE = (
    f"Typical case: s >= {MIN_S:g}, the median TDD of DEA (of an even number the lower of the two in the middle), ties "
    "by the sample's id and then the run's name."
)


@dataclass(frozen=True, eq=False)
class Case:
    """One sample of one run, and in words why it was chosen."""

    run: Run
    sample_id: str
    why: str

    @property
    def folder(self) -> Path:
        """Where its maps lie."""
        return self.run.directory / "maps" / self.sample_id

    @property
    def record(self) -> pd.DataFrame:
        """Its rows of the records, by method."""
        records = self.run.records
        return records[records["sample_id"] == self.sample_id].set_index("method")

    @property
    def title(self) -> str:
        """The name of its target class."""
        names, label = (
            self.run.description["model"].get("classes") or [],
            int(self.record["class_index"].dropna().iloc[0]),
        )
        return str(names[label]) if label < len(names) else f"class {label}"


@dataclass(frozen=True, eq=False)
class Choice:
    """What a rule chose: the cases in the figure's order, of `eligible` samples that met it among `candidates`.

    `why` says why there is none; it is empty where there is one.
    """

    rule: str
    cases: tuple[Case, ...]
    candidates: int
    eligible: int
    why: str = ""

    @property
    def ids(self) -> list[str]:
        """The ids of the chosen samples."""
        return [case.sample_id for case in self.cases]

    @property
    def words(self) -> str:
        """The rule, how many samples met it and which are shown; counts are of samples in runs."""
        shown = "; ".join(f"{case.sample_id} of {case.run.label} ({case.why})" for case in self.cases)
        return (
            f"{self.rule} Candidates (maps of {', '.join(COMPARED)} kept, s high enough): {self.candidates}; the rule "
            f"met: {self.eligible}. Shown: {shown or 'none'}."
        )


def candidates(data: Sequence[Run]) -> pd.DataFrame:
    """One row per run and sample with s >= MIN_S, EGA, RIA and DEA measured, and their maps, image and target kept.

    Returns:
        Columns run (place in `data`), label, sample_id, s, and METRIC_METHOD for tdd, tdd_gain and odd_abs.
    """
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(data):
        records = one.records[(one.records["status"] == "ok") & one.records["method"].isin(COMPARED)]
        for sample_id, group in records[records["s"] >= MIN_S].groupby("sample_id"):
            folder = one.directory / "maps" / str(sample_id)
            needed = [*PICTURES, *(map_name(name) for name in COMPARED)]
            if set(COMPARED) <= set(group["method"]) and all((folder / name).is_file() for name in needed):
                row = {"run": place, "label": one.label, "sample_id": str(sample_id), "s": group["s"].iloc[0]}
                for metric in ("tdd", "tdd_gain", "odd_abs"):
                    values = dict(zip(group["method"], group[metric], strict=True))
                    row |= {f"{metric}_{name}": values[name] for name in COMPARED}
                rows.append(row)
    names = [f"{metric}_{name}" for metric in ("tdd", "tdd_gain", "odd_abs") for name in COMPARED]
    return pd.DataFrame(rows, columns=["run", "label", "sample_id", "s", *names])


def successes(data: Sequence[Run], n: int = 4) -> Choice:
    """At most n cases by SUCCESS_RULE."""
    rows = candidates(data)
    met = rows[(rows["tdd_dea"] > rows["tdd_ega"]) & (rows["odd_abs_dea"] <= rows["odd_abs_ega"])]
    ordered = _ordered(met.assign(key=met["tdd_ega"] - met["tdd_dea"]))
    words = [f"TDD {-key:+.2f} over EGA" for key in ordered["key"][:n]]
    return _choice(data, SUCCESS_RULE, ordered[:n], words, len(rows), len(met))


def failures(data: Sequence[Run], n: int = 4) -> Choice:
    """At most n cases by FAILURE_RULE: (n + 1) // 2 of the first kind, the rest of the second."""
    rows = candidates(data)
    blind = _ordered(rows.assign(key=rows["tdd_gain_dea"]).dropna(subset="key"))[: (n + 1) // 2]
    others = rows[~rows["sample_id"].isin(blind["sample_id"])]
    leaking = _ordered(others.assign(key=-others["odd_abs_dea"]).dropna(subset="key"))[: n - len(blind)]
    words = [f"lowest TDD gain, {key:.2f}" for key in blind["key"]]
    words += [f"highest OT abs, {-key:.2f}" for key in leaking["key"]]
    return _choice(data, FAILURE_RULE, pd.concat([blind, leaking]), words, len(rows), len(rows))


def typical(data: Sequence[Run]) -> Choice:
    """One case by TYPICAL_RULE."""
    rows = candidates(data)
    met = rows.dropna(subset="tdd_dea")
    ordered = met.assign(key=met["tdd_dea"].round(9)).sort_values(["key", "sample_id", "label"])
    middle = (len(ordered) - 1) // 2
    chosen = ordered.iloc[middle : middle + 1] if len(ordered) else ordered
    words = [f"TDD of DEA {key:.2f}, the median" for key in chosen["key"]]
    return _choice(data, TYPICAL_RULE, chosen, words, len(rows), len(met))


def _choice(
    data: Sequence[Run], rule: str, chosen: pd.DataFrame, words: Sequence[str], looked: int, met: int
) -> Choice:
    cases = tuple(
        Case(data[int(place)], str(sample_id), why)
        for place, sample_id, why in zip(chosen["run"], chosen["sample_id"], words, strict=True)
    )
    kept = f"no sample with s >= {MIN_S:g} has maps of {', '.join(COMPARED)}; keep them with [output] maps = true"
    return Choice(
        rule,
        cases,
        looked,
        met,
        "" if cases else f"none of {looked} candidates meets the rule. {rule}" if looked else kept,
    )


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """By the column `key` (to 1e-9), ascending; each image once, in its best place."""
    ordered = rows.assign(key=rows["key"].round(9)).sort_values(["key", "sample_id", "label"])
    return ordered.drop_duplicates("sample_id")
