"""Which runs, rows and methods a conclusion is drawn from: by data set, by score, without controls and variants."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import nan

import pandas as pd

from segfaith.constants import CONTROLS, TRUTH
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET

PAPER_ORDER = ("gpa", "ega", "ria", "dea")
"""The paper's methods in the order of its tables."""


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the label of their data set, "voc2012 val", in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    return groups


def methods_of(runs: Iterable[Run]) -> list[str]:
    """The distinct methods of the runs in the order of their records."""
    return list(dict.fromkeys(name for run in runs for name in run.records["method"].unique()))


def own_methods(runs: Iterable[Run]) -> list[str]:
    """The methods under test of the runs, see `under_test`."""
    return under_test(methods_of(runs))


def base(method: str) -> str:
    """A method's name without its parameters: "dea" of "dea@alpha=0.5"."""
    return method.partition("@")[0]


def is_control(method: str) -> bool:
    """Whether a method explains nothing and is there for comparison."""
    return base(method) in CONTROLS


def is_reference(method: str) -> bool:
    """Whether a method is under no test but there for comparison: a control, or the truth."""
    return is_control(method) or method == TRUTH


def without_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows but for those of the truth, unless it failed.

    Where nothing is planted it is skipped, and it never has a stability: neither is a fault of its sample.
    """
    return rows[(rows["method"] != TRUTH) | (rows["status"] == "failed")]


def method_order(methods: Iterable[str]) -> list[str]:
    """The distinct methods in the paper's order: gpa, ega, ria, dea, then others as they come, controls, the truth."""
    names = list(dict.fromkeys(str(name) for name in methods))

    def place(name: str) -> int:
        if name == TRUTH:
            return len(PAPER_ORDER) + 1 + len(CONTROLS)
        if is_control(name):
            return len(PAPER_ORDER) + 1 + CONTROLS.index(base(name))
        return PAPER_ORDER.index(base(name)) if base(name) in PAPER_ORDER else len(PAPER_ORDER)

    return sorted(names, key=place)


def under_test(methods: Iterable[str]) -> list[str]:
    """The methods that are no references, nor variants with other parameters of a method that is there too."""
    names = list(dict.fromkeys(methods))
    return [name for name in names if not is_reference(name) and (name == base(name) or base(name) not in names)]


def method_labels(runs: Sequence[Run]) -> dict[str, str]:
    """How tables, figures and pages call each method of some runs: its label, or its name where it has none.

    Where runs disagree, the first run that gives the method a label wins. A label that is another method's label or
    name is not used. `label_notes` says both.
    """
    return _labels(runs)[0]


def label_notes(runs: Sequence[Run]) -> list[str]:
    """A sentence for each label of some run that `method_labels` does not use."""
    return _labels(runs)[1]


def _labels(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """The labels, and a sentence for each label that is not used."""
    labels = {name: name for run in runs for name in run.description["methods"]}
    taken, notes = set(labels), []
    for run in runs:
        for name, about in run.description["methods"].items():
            label = about.get("label") or name
            if label in (name, labels[name]):
                continue
            if labels[name] != name:
                notes.append(f"{run.label} calls {name} {label!r}; here it is {labels[name]!r}, as in an earlier run.")
            elif label in taken:
                notes.append(f"{run.label} calls {name} {label!r}, which is another method here; it keeps its name.")
            else:
                labels[name] = label
                taken.add(label)
    return labels, notes


def enough(run: Run, min_s: float | None = None, min_iou: float | None = None) -> Run:
    """The run without the measured targets whose s, or whose `target_iou`, is lower; rows that are not ok stay.

    Args:
        min_s: the lowest s that stays, in [0, 1].
        min_iou: the lowest intersection over union of the model's prediction with the target, in [0, 1]. A target
            without a value of it, which older records lack, does not stay.
    """
    records = run.records
    low = pd.Series(False, records.index)
    for column, least in (("s", min_s), ("target_iou", min_iou)):
        if least is not None:
            values = records[column] if column in records else pd.Series(nan, records.index)
            low |= ~(values >= least)
    low &= records["status"] == "ok"
    if not low.any():
        return run
    gone = pd.MultiIndex.from_frame(records.loc[low, TARGET].drop_duplicates())
    records, curves, again = (
        part[~pd.MultiIndex.from_frame(part[TARGET]).isin(gone)] for part in (records, run.curves, run.randomisation)
    )
    return replace(run, records=records, curves=curves, randomisation=again)
