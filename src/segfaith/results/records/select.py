"""Which runs, rows and methods a conclusion is drawn from: by data set, by score, without controls and variants."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import nan

import pandas as pd

from segfaith.constants import CONTROLS
from segfaith.results.records.identity import data_label
from segfaith.results.records.runs import Run

PAPER_ORDER = ("gpa", "ega", "ria", "dea")
"""The paper's methods in the order of its tables."""


def grouped(data: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the label of their data set, "voc2012 val", in their order."""
    groups: dict[str, list[Run]] = {}
    for one in data:
        groups.setdefault(data_label(one.description), []).append(one)
    return groups


def own_methods(data: Sequence[Run]) -> list[str]:
    """The methods under test of the runs, see `under_test`."""
    return under_test(name for one in data for name in one.records["method"])


def base(method: str) -> str:
    """A method's name without its parameters: "dea" of "dea@alpha=0.5"."""
    return method.partition("@")[0]


def is_control(method: str) -> bool:
    """Whether a method explains nothing and is there for comparison."""
    return base(method) in CONTROLS


def method_order(methods: Iterable[str]) -> list[str]:
    """The distinct methods in the paper's order: gpa, ega, ria, dea, then others as they come, controls last."""
    names = list(dict.fromkeys(str(name) for name in methods))

    def place(name: str) -> int:
        if name in CONTROLS:
            return len(PAPER_ORDER) + 1 + CONTROLS.index(name)
        return PAPER_ORDER.index(base(name)) if base(name) in PAPER_ORDER else len(PAPER_ORDER)

    return sorted(names, key=place)


def under_test(methods: Iterable[str]) -> list[str]:
    """The methods that are neither controls nor variants with other parameters of a method that is there too."""
    names = list(dict.fromkeys(methods))
    bases = {name: name.partition("@")[0] for name in names}
    return [name for name in names if bases[name] not in CONTROLS and (name == bases[name] or bases[name] not in names)]


def enough(run: Run, min_s: float | None = None, min_iou: float | None = None) -> Run:
    """The run without the measured samples whose s, or whose `target_iou`, is lower; rows that are not ok stay.

    Args:
        min_s: the lowest s that stays, in [0, 1].
        min_iou: the lowest intersection over union of the model's prediction with the target, in [0, 1]. A sample
            without a value of it, which older records lack, does not stay.
    """
    records = run.records
    low = pd.Series(False, records.index)
    for column, least in (("s", min_s), ("target_iou", min_iou)):
        if least is not None:
            values = records[column] if column in records else pd.Series(nan, records.index)
            low |= ~(values >= least)
    low &= records["status"] == "ok"
    return _without(run, "sample_id", set(records.loc[low, "sample_id"])) if low.any() else run


def without_variants(one: Run) -> Run:
    """The run without variants ("dea@alpha=0.5") of methods that it holds itself: ranks are then among the rest."""
    names = set(one.records["method"])
    return _without(one, "method", {name for name in names if "@" in name and name.partition("@")[0] in names})


def _without(one: Run, column: str, gone: set[str]) -> Run:
    records, curves, again = (part[~part[column].isin(gone)] for part in (one.records, one.curves, one.randomisation))
    return replace(one, records=records, curves=curves, randomisation=again)


def method_labels(runs: Sequence[Run]) -> dict[str, str]:
    """The label of each method, by its name: that of `[methods] labels`, or the name itself.

    Where runs give one method several labels, the first counts.
    """
    labels: dict[str, str] = {}
    for run in runs:
        for name, entry in run.description["methods"].items():
            label = str(entry.get("label") or name)
            if labels.get(name, name) == name:
                labels[name] = label
    return labels
