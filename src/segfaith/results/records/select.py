"""Which runs, rows and methods a conclusion is drawn from: by data set, by score, without controls and variants."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from segfaith.constants import CONTROLS
from segfaith.results.records.identity import data_label
from segfaith.results.records.runs import RunData


def grouped(data: Sequence[RunData]) -> dict[str, list[RunData]]:
    """Runs by the label of their data set, "voc2012 val", in their order."""
    groups: dict[str, list[RunData]] = {}
    for one in data:
        groups.setdefault(data_label(one.description), []).append(one)
    return groups


def own_methods(data: Sequence[RunData]) -> list[str]:
    """The methods under test of the runs, see `under_test`."""
    return under_test(name for one in data for name in one.records["method"])


def under_test(methods: Iterable[str]) -> list[str]:
    """The methods that are neither controls nor variants with other parameters of a method that is there too."""
    names = list(dict.fromkeys(methods))
    bases = {name: name.partition("@")[0] for name in names}
    return [name for name in names if bases[name] not in CONTROLS and (name == bases[name] or bases[name] not in names)]


def method_labels(runs: Sequence[RunData]) -> dict[str, str]:
    """How tables, figures and pages call each method of some runs: its label, or its name where it has none.

    Where runs disagree, the first run that gives the method a label wins. A label that is another method's label or
    name is not used. `label_notes` says both.
    """
    return _labels(runs)[0]


def label_notes(runs: Sequence[RunData]) -> list[str]:
    """A sentence for each label of some run that `method_labels` does not use."""
    return _labels(runs)[1]


def _labels(runs: Sequence[RunData]) -> tuple[dict[str, str], list[str]]:
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


def with_score(one: RunData, min_s: float | None) -> RunData:
    """The run without the measured samples whose s is lower than `min_s`; rows that are not ok stay."""
    if min_s is None:
        return one
    measured = one.records["status"] == "ok"
    return _without(one, "sample_id", set(one.records.loc[measured & ~(one.records["s"] >= min_s), "sample_id"]))


def without_variants(one: RunData) -> RunData:
    """The run without variants ("dea@alpha=0.5") of methods that it holds itself: ranks are then among the rest."""
    names = set(one.records["method"])
    return _without(one, "method", {name for name in names if "@" in name and name.partition("@")[0] in names})


def _without(one: RunData, column: str, gone: set[str]) -> RunData:
    records, curves, again = (part[~part[column].isin(gone)] for part in (one.records, one.curves, one.randomisation))
    return replace(one, records=records, curves=curves, randomisation=again)
