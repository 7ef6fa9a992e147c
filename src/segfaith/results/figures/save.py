"""All figures of a benchmark into a directory: PNG and PDF, with `figures.md` for captions, rules and what is missing.

    cases, galleries   success and failure cases, the mechanism of DEA (paper, Figs. 2 to 4)
    charts             trade-off with its Pareto front, runs, curves over k, randomisation
    diagrams           critical differences, rankings under operators and k

One set of figures per data set. What can't be drawn is named with the reason, never left out in silence; its files of
an earlier call are removed. The same data give the same bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.paths import inside
from segfaith.results.figures import cases as galleries
from segfaith.results.figures import charts, diagrams
from segfaith.results.figures.style import STYLE
from segfaith.results.records.files import replace_file
from segfaith.results.records.identity import slug
from segfaith.results.records.runs import Run
from segfaith.results.records.select import enough, grouped, method_order, own_methods, without_variants
from segfaith.results.statistics import cases, rankings
from segfaith.results.statistics import summary as tables
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.curves import CURVE_KINDS
from segfaith.results.statistics.friedman import friedman
from segfaith.results.statistics.intervals import LEAST_IMAGES
from segfaith.results.statistics.paired import paired
from segfaith.results.statistics.randomisation import randomisation

TESTED = ("tdd", "odd_abs", "insertion_gain", "stability")
"""Metrics of the critical-difference diagrams: those of the paper's Table 1."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure, its caption and remarks for the reader: how its cases were chosen, what it leaves out."""

    figure: Figure
    caption: str
    remarks: tuple[str, ...] = ()


Draw = Callable[[Sequence[Run]], Drawing]


def write_figures(data: Sequence[Run], directory: Path, min_s: float | None = None) -> list[Path]:
    """Writes `figures/NAME-DATA.png` and `.pdf` for each figure and data set, and `figures/figures.md`.

    Args:
        data: runs, as `records.load_run` gives them.
        directory: where `figures/` is made.
        min_s: leaves out samples with a lower s.

    Returns:
        The files written, `figures.md` last.

    Raises:
        SettingsError: no runs, or `figures/` is a symbolic link.
    """
    if not data:
        raise SettingsError("expected at least one run to draw figures of; got none")
    folder = inside(directory, "figures", "figures.md").parent
    written: list[Path] = []
    entered = "All samples" if min_s is None else f"Only samples with s >= {min_s:g}"
    words = ["# Figures", "", f"{entered} entered unless a caption says otherwise.", ""]
    missing: list[str] = []
    for label, group in grouped([enough(one, min_s) for one in data]).items():
        words += [f"## {label}", ""]
        for name, draw in FIGURES.items():
            stem = f"{name}-{slug(label)}"
            try:
                drawing = draw(group)
            except SettingsError as error:
                missing.append(f"- `{stem}`: {error}")
                for ending in ("png", "pdf"):
                    (folder / f"{stem}.{ending}").unlink(missing_ok=True)
                continue
            written += _save(drawing.figure, folder / stem)
            words += [f"### {stem}", "", f"![{stem}]({stem}.png)", "", drawing.caption, ""]
            words += [f"- {remark}" for remark in drawing.remarks] + [""] * bool(drawing.remarks)
    words += ["## Not drawn", "", *(missing or ["Nothing is missing."])]
    text = folder / "figures.md"
    replace_file(text, lambda temporary: temporary.write_text("\n".join(words) + "\n", encoding="utf-8"))
    return [*written, text]


def _success(data: Sequence[Run]) -> Drawing:
    return _gallery(cases.successes(data), "Success cases (the paper's Fig. 2)")


def _failure(data: Sequence[Run]) -> Drawing:
    return _gallery(cases.failures(data), "Failure cases (the paper's Fig. 4)")


def _gallery(choice: cases.Choice, title: str) -> Drawing:
    caption = (
        f"{title}: the image with the target's outline, and the maps over it in grey; brighter is more. Below each map "
        "its TDD and OT abs."
    )
    return Drawing(galleries.gallery(choice), caption, (choice.words,))


def _mechanism(data: Sequence[Run]) -> Drawing:
    choice = cases.typical(data)
    if not choice.cases:
        raise SettingsError(choice.why)
    case = choice.cases[0]
    caption = (
        "Mechanism of DEA (the paper's Fig. 3), a single typical case: EGA map, RIA map, their elementwise product "
        "(the interaction, which enters with the weight alpha beta) and the corrected map, all on the scale from 0 "
        "to 1; below each the share of its sum that lies in the target."
    )
    return Drawing(galleries.mechanism(case), caption, (choice.words, galleries.mechanism_words(case)))


def _tradeoff(data: Sequence[Run]) -> Drawing:
    caption = (
        "Faithfulness (TDD gain) against runtime and against stability: means over run-level means, bars one standard "
        "deviation. Grey steps: the Pareto front of each panel; filled markers: on the front of all three together. "
        "The controls explain nothing, so that their TDD gain alone is drawn, as lines of reference."
    )
    values = tables.run_values(data)
    return Drawing(charts.tradeoff(values), caption, _unmeasured(values, ("tdd_gain", "stability", "runtime_s")))


def _runs(data: Sequence[Run]) -> Drawing:
    values = tables.run_values(list(map(without_variants, data)))
    caption = (
        f"Run-level means, a marker for each run (of {values['run'].nunique()}); the bar is their mean. Arrows point "
        "towards better. Axes whose positive values span more than a factor of 30 are logarithmic."
    )
    return Drawing(charts.run_dots(values), caption, (VARIANTS,))


def _curves(data: Sequence[Run]) -> Drawing:
    means = analyse(list(map(without_variants, data))).parts[0].curve_means
    count = _span(means["n"])
    caption = (
        "Deletion and insertion over k, under the first occlusion operator: drops pooled over images (sum of drops "
        f"over sum of s) and mean insertion gains, with 95 % intervals, none below {LEAST_IMAGES} images; "
        f"{count} images entered a point."
    )
    return Drawing(charts.curves(means), caption, (VARIANTS,))


def _differences(data: Sequence[Run]) -> Drawing:
    shown = list(map(without_variants, data))
    counts = Counter(name for one in shown for name in set(one.records["method"]))
    own = own_methods(shown)
    common = method_order(name for name in own if 2 * counts[name] >= len(shown))
    tests = [friedman(paired(shown, metric), common) for metric in TESTED]
    good = [test for test in tests if not test.why]
    left = [f"No diagram of {METRICS[test.metric].label}: {test.why}." for test in tests if test.why]
    if not good:
        raise SettingsError(" ".join(left))
    if rare := [name for name in _absent(shown, common) if name in own]:
        left.append(f"Left out, in fewer than half of the runs: {', '.join(rare)}.")
    notes = dict.fromkeys(f"{METRICS[test.metric].label}: {test.note}." for test in good if test.note)
    caption = (
        "Critical differences: mean ranks of the methods over images (1 = best), after Friedman's test ("
        + ", ".join(f"{METRICS[test.metric].label} {_p(test.p)}" for test in good)
        + "); bars join methods that Nemenyi's test does not tell apart at 5 %, or all of them where Friedman's p is "
        "not below .05. Controls and variants are left out, as in Friedman's test of significance.md."
    )
    return Drawing(diagrams.critical_differences(good), caption, (*left, *notes, VARIANTS))


def _rankings(data: Sequence[Run]) -> Drawing:
    shown = list(map(without_variants, data))
    own = own_methods(shown)
    settings: dict[str, dict[str, pd.DataFrame]] = {}
    agreement: dict[str, dict[str, str]] = {}
    remarks: list[str] = []
    overs: tuple[Literal["occlusion", "k"], ...] = ("occlusion", "k")
    for metric, over in product(CURVE_KINDS, overs):
        what = f"{METRICS[metric].label} over {rankings.OVER[over]}"
        values = rankings.complete(shown, metric, over, methods=own)
        table = rankings.by_setting(values)
        settings.setdefault(metric, {})[over] = table
        if table["setting"].nunique() < 2:
            why = table.attrs.get("why") or "the evaluation has fewer than two settings of it"
            remarks.append(f"No panel for {what}: {why}.")
        elif table.attrs["why"]:
            remarks.append(f"{what}: {table.attrs['why']}.")
        for row in rankings.concordance(values).to_dict("records"):
            if row["why"]:
                remarks.append(f"Kendall's W of {what}: {row['why']}.")
            else:
                said = f"W = {row['w']:.2f}, beyond chance {row['beyond_chance']:.2f}"
                agreement.setdefault(metric, {})[over] = f"{said}, {_p(row['p'])}"
    caption = (
        "Ranks of the methods (1 = best) under every operator and every k of the evaluation, on the images that have "
        "all of them. Kendall's W is 1 where all settings rank alike; random rankings under m settings give 1 / m, "
        "which `beyond chance` sets to 0, and p is the share of them that agree as much. Controls, which lie far from "
        "the methods whatever the setting and so raise W, are left out."
    )
    return Drawing(diagrams.ranks(settings, agreement), caption, (VARIANTS, *dict.fromkeys(remarks)))


def _randomisation(data: Sequence[Run]) -> Drawing:
    table = randomisation(list(map(without_variants, data)))
    figure = charts.randomisation({str(model): part for model, part in table.groupby("model", sort=False)})
    constant, failed = int(table["constant"].sum()), int(table["failed"].sum())
    caption = (
        "Randomisation check (Adebayo et al. 2018): mean Spearman correlation of each method's map with that of the "
        "trained model, as its weights are drawn anew from the head on, part after part in the order in which they run "
        f"last; {_span(table['n'])} maps entered a point"
        + (f", constant ones have no correlation and are left out ({constant})" if constant else "")
        + (f", {failed} could not be made" if failed else "")
        + ". A method that explains the model must fall; the controls do not read it. Mean s, in randomisation.csv, "
        "says where the model has lost the class."
    )
    without = [one.label for one in data if one.randomisation.empty]
    remarks = [f"Not checked in {', '.join(without)}."] if without else []
    return Drawing(figure, caption, (*remarks, VARIANTS))


FIGURES: dict[str, Draw] = {
    "success": _success,
    "failure": _failure,
    "mechanism": _mechanism,
    "tradeoff": _tradeoff,
    "runs": _runs,
    "curves": _curves,
    "critical-differences": _differences,
    "rankings": _rankings,
    "randomisation": _randomisation,
}
"""Every figure, by the first part of its files' names."""

VARIANTS = "Variants of a method (names with @) are left out where the method itself was run."


def _unmeasured(values: pd.DataFrame, metrics: Sequence[str]) -> tuple[str, ...]:
    """In words, the methods that lack one of the metrics."""
    defined = values[values["metric"].isin(metrics)].dropna(subset="value")
    count = defined.groupby("method")["metric"].nunique()
    gone = [str(name) for name in dict.fromkeys(values["method"]) if count.get(name, 0) < len(metrics)]
    return (f"Left out for want of {', '.join(metrics)}: {', '.join(gone)}.",) if gone else ()


def _absent(data: Sequence[Run], methods: Iterable[str]) -> list[str]:
    """The methods of the runs that are not among `methods`."""
    there = set(methods)
    return [name for name in method_order(name for one in data for name in one.records["method"]) if name not in there]


def _span(counts: Any) -> str:
    """Counts in words: "24", or "20 to 24"."""
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return str(low) if low == high else f"{low} to {high}"


def _p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"


def _save(figure: Figure, stem: Path) -> Iterator[Path]:
    """Writes PNG and PDF without dates, so that the same figure gives the same bytes."""
    dates: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    for ending, metadata in dates.items():
        path = stem.with_name(f"{stem.name}.{ending}")

        def write(temporary: Path, ending: str = ending, metadata: Any = metadata) -> None:
            with rc_context(STYLE):
                figure.savefig(temporary, format=ending, metadata=metadata)

        replace_file(path, write)
        yield path
