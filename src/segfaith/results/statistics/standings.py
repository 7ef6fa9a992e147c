"""One table of all methods of a data set, the best first, with letters that say which methods the test tells apart.

Two methods share a letter if and only if no test tells them apart (Piepho 2004, "An algorithm for a letter-based
representation of all-pairwise comparisons"). The letters are found by inserting each difference into a display that
begins with one letter for all, and by absorbing what says nothing new.
"""

from collections.abc import Collection, Sequence
from itertools import combinations
from math import nan
from pathlib import Path
from string import ascii_letters

import pandas as pd

from segfaith.constants import TRUTH
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_reference
from segfaith.results.statistics import evidence
from segfaith.results.statistics.paired import Paired, compare, paired
from segfaith.results.statistics.resampled import backbone_of, backbones, quantities

SHOWN = (
    "fidelity",
    "fidelity_inside",
    "fidelity_outside",
    "tdd",
    "odd_abs",
    "evidence_ap",
    "own_half",
    "stability_top",
)
"""The metrics of the table; what no row has a value of is left out."""
NUMBER = r"-?\d+(\.\d+)?(e-?\d+)?"


def standings(runs: Sequence[Run], lead: str, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """A row for each method of a data set, sorted by the leading metric.

    A method with a value of fewer than half of the images stands below the others, one without a value last.

    Args:
        runs: of one data set.
        lead: the metric that sorts, and by which pairs are tested: `paired.compare` of all methods but the truth, with
            Holm's correction over these pairs at 5 %. A single run is tested too, and speaks of that run alone.
        metrics: those of the table.

    Returns:
        Columns data, method, reference (a control or the truth), images (with a value of the leading metric), seconds
        (the median of a map), cost (model passes of a map, in words; "" where the run does not say), rows (all rows of
        the method), failed (of them), reason (the most frequent one, without the method's name), the leading metric,
        its low and high (95 %, NaN below 20 images), each other metric that has a value, and groups (the letters; ""
        of the truth, and without a value). `attrs["reversed"]` lists the pairs (lower, upper) of which the test favours
        the lower line: its images are those that both have, and ranks are not means.
    """
    numbers = backbones(runs)
    led = paired(runs, lead)
    table = quantities(led, numbers).set_index("method")
    shown = {name: _values(runs, name, numbers) for name in metrics if name != lead}
    rows = [
        {
            **{"data": led.data, "method": name, "reference": is_reference(name)},
            **{"images": int(table["images"][name]), **_told(runs, name)},
            **{lead: table["value"][name], "low": table["low"][name], "high": table["high"][name]},
            **{metric: values.get(name, nan) for metric, values in shown.items() if values},
        }
        for name in led.methods
    ]
    found = pd.DataFrame(rows).sort_values(
        lead, ascending=METRICS[lead].better == "lower", na_position="last", kind="stable", ignore_index=True
    )
    few = 2 * found["images"] < found["images"].max()  # a value over other images, which may be easier
    found = pd.DataFrame(pd.concat([found[~few], found[few]], ignore_index=True))
    order = [name for name in found.loc[found[lead].notna(), "method"] if name != TRUTH]
    apart = differences(led, order)
    groups = letters(order, apart)
    found["groups"] = [groups.get(name, "") for name in found["method"]]
    pairs = ((lower, upper) for upper, lower in combinations(order, 2))
    found.attrs["reversed"] = [pair for pair in pairs if apart.get(frozenset(pair)) == pair[0]]
    return found


def by_models(runs: Sequence[Run], lead: str, metrics: Sequence[str] = SHOWN) -> dict[str, pd.DataFrame]:
    """`standings` of all runs of a data set, and where they are of several models also of each, by names of models."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault(backbone_of(run), []).append(run)
    short = [model_name(group[0]) for group in found.values()]
    names = [
        name if short.count(name) == 1 else f"{name} ({weights[:12]})"  # two files of one name
        for name, (_, weights) in zip(short, found, strict=True)
    ]
    groups = {", ".join(names): list(runs), **dict(zip(names, found.values(), strict=True))}
    return {name: standings(group, lead, metrics) for name, group in groups.items()}


def model_name(run: Run) -> str:
    """A model with its weights, as "net.py:build plain.pth"."""
    model = run.description["model"]
    return f"{model['name']} {Path(str(model['weights'])).name}"


def differences(images: Paired, methods: Sequence[str]) -> dict[frozenset[str], str]:
    """The pairs of methods that the test tells apart, see `paired.compare`, and which one it favours."""
    if len(methods) < 2:
        return {}
    pairs = compare(images, methods, single_run=True)
    apart, higher = pairs[pairs["significant"]], METRICS[images.metric].better == "higher"
    return {
        frozenset((first, second)): first if (effect > 0) == higher else second
        for first, second, effect in zip(apart["first"], apart["second"], apart["effect"], strict=True)
    }


def letters(order: Sequence[str], apart: Collection[frozenset[str]]) -> dict[str, str]:
    """The compact letter display: methods share a letter if and only if they are no pair of `apart`.

    Args:
        order: the methods, the best first; the best has an "a".
        apart: pairs of methods that a test tells apart.

    Returns:
        The letters of each method, in alphabetical order; past "Z" a letter is a number, as in "ab(53)".
    """
    groups = [frozenset(order)]
    for pair in map(frozenset, combinations(order, 2)):  # method by method: in another order groups may be countless
        if pair not in apart:
            continue
        split = [part for group in groups for part in ((group - {one} for one in pair) if pair <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    place = {name: number for number, name in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[name] for name in group))
    for group in tuple(groups):  # those of whose pairs all stand in others
        others = [other for other in groups if other != group]
        pairs = [set(pair) for pair in combinations(group, 2)] or [set(group)]
        if all(any(pair <= other for other in others) for pair in pairs):
            groups = others
    names = [*ascii_letters, *(f"({number})" for number in range(len(ascii_letters) + 1, len(groups) + 1))]
    return {
        name: "".join(letter for letter, group in zip(names, groups, strict=False) if name in group) for name in order
    }


def _values(runs: Sequence[Run], metric: str, numbers: Sequence[int]) -> dict[str, float]:
    """The quantity of each method that has one; the evidence's where it is known to decide (`evidence.found`)."""
    if not any(metric in run.records and run.records[metric].notna().any() for run in runs):
        return {}
    if metric == "evidence_ap":
        runs = evidence.found(runs)
        if not any(len(run.measured) for run in runs):
            return {}
    table = quantities(paired(runs, metric), numbers, interval=False).dropna(subset="value")
    return dict(zip(table["method"], table["value"], strict=True))


def _told(runs: Sequence[Run], method: str) -> dict[str, object]:
    """What the rows of a method say beside its scores. A target that was skipped is no failure."""
    rows = pd.concat([run.records[run.records["method"] == method] for run in runs])
    failed = (
        rows.loc[rows["status"] == "failed", "reason"]
        .fillna("")
        .str.removeprefix(f"{method}: ")
        .str.removeprefix(f"method {method!r} ")
    )
    kinds = failed.str.replace(NUMBER, "#", regex=True)  # reasons that differ in numbers alone are one
    costs = [run.description.get("methods", {}).get(method, {}).get("cost") or "" for run in runs]
    return {
        "seconds": rows.loc[rows["status"] == "ok", "runtime_s"].median(),
        "cost": "; ".join(dict.fromkeys(filter(None, costs))),
        "rows": len(rows),
        "failed": len(failed),
        "reason": "" if failed.empty else str(failed[kinds == kinds.mode()[0]].iloc[0]),
    }
