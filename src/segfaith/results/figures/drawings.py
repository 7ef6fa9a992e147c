"""Every figure of a data set, by name: `DRAWINGS[name](part)` is its `Drawing`, with the caption and the remarks.

    success, failure, missed, mechanism    photographs: the cases that stated rules choose
    tradeoff, runs, curves, randomisation  charts
    critical-differences, rankings         diagrams of ranks

A drawing is the same object whenever it is asked for, so that a figure is drawn once for the page and the files. All
numbers come from the tables of the data set's analysis.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from segfaith.constants import TRUTH
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures import cases as galleries
from segfaith.results.figures import charts, diagrams, dots
from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.style import STYLE
from segfaith.results.records.identity import slug
from segfaith.results.records.select import base, method_labels, under_test
from segfaith.results.statistics import cases, rankings
from segfaith.results.statistics.analysis import OVERS, DataAnalysis
from segfaith.results.statistics.curves import CURVE_KINDS
from segfaith.results.statistics.friedman import Friedman, friedman
from segfaith.results.statistics.intervals import LEAST_IMAGES
from segfaith.results.statistics.paper import PAPER_METRICS

Draw = Callable[[DataAnalysis], Drawing]
VARIANTS = "Variants of a method (names with @) are left out where the method itself was run."


def shown_methods(part: DataAnalysis) -> list[str]:
    """The methods of most figures: all but the variants of a method that was run itself."""
    return [name for name in part.methods if "@" not in name or base(name) not in part.methods]


def _success(part: DataAnalysis) -> Drawing:
    return _gallery(part, "success", cases.successes(part), "Success cases (the paper's Fig. 2)")


def _failure(part: DataAnalysis) -> Drawing:
    return _gallery(part, "failure", cases.failures(part), "Failure cases (the paper's Fig. 4)")


def _missed(part: DataAnalysis) -> Drawing:
    return _gallery(part, "missed", cases.missed(part), "Targets that the model does not predict")


def _gallery(part: DataAnalysis, name: str, choice: cases.Choice, title: str) -> Drawing:
    caption = (
        f"{title}: the image, and the maps of the methods under test over it in grey; brighter is more. "
        f"{galleries.OUTLINES}. Below each map stand its TDD and OT abs."
    )
    methods, labels = under_test(part.methods), method_labels(part.runs)
    gone = galleries.with_maps(choice, methods)[galleries.MOST_MAPS :]
    left = [f"Left out, for want of room: {', '.join(labels[method] for method in gone)}."] if gone else []
    return _drawing(
        part, name, caption, lambda: galleries.gallery(choice, methods, labels), [choice.words, *left], on_page=False
    )


def _mechanism(part: DataAnalysis) -> Drawing:
    choice = cases.typical(part)
    caption = (
        "Mechanism of DEA (the paper's Fig. 3), a single typical case: EGA map, RIA map, their elementwise product "
        "(the interaction, which enters with the weight alpha beta) and the corrected map, all on the scale from 0 "
        f"to 1. Below each map stands the share of its sum that lies in the target. {galleries.OUTLINES}."
    )
    try:
        remarks = [choice.words, *(galleries.mechanism_words(case) for case in choice.cases)]
    except SettingsError as error:  # it is the reason why there is no figure
        return _absent(part, "mechanism", caption, str(error))
    if not choice.cases:
        return _absent(part, "mechanism", caption, choice.why)
    return _drawing(part, "mechanism", caption, lambda: galleries.mechanism(choice.cases[0]), remarks, on_page=False)


def _tradeoff(part: DataAnalysis) -> Drawing:
    (gain,) = part.leading("tdd_gain")
    label = METRICS[gain].label
    explained = "The controls explain nothing:"
    if TRUTH in part.methods:
        explained = "The controls explain nothing, and the truth is no method:"
    caption = (
        f"Faithfulness ({label}) against runtime and against stability: means over run-level means; bars are one "
        "standard deviation. Grey steps are the Pareto front of each panel; filled markers are on the front of all "
        f"three together. {explained} only their {label} is drawn, as lines of reference."
    )
    labels = method_labels(part.runs)
    remarks = _unmeasured(part.values, (gain, "stability", "runtime_s"), labels)
    return _drawing(part, "tradeoff", caption, lambda: charts.tradeoff(part.values, gain, labels), remarks)


def _runs(part: DataAnalysis) -> Drawing:
    values, metrics = _of(part.values, shown_methods(part)), part.table
    paper = {
        (row["method"], row["metric"]): float(row["paper_mean"])
        for row in part.summary.dropna(subset="paper_mean").to_dict("records")
    }
    caption = (
        f"Run-level means, a marker for each run (of {values['run'].nunique()}); the bar is their mean"
        + (", the open diamond the paper's mean" if paper else "")
        + ". Arrows in the titles point towards better. Axes whose positive values span more than a factor of "
        f"{dots.LOGARITHMIC} are logarithmic. Values that lie far beyond the others stand beside an arrow at the edge."
    )
    labels = method_labels(part.runs)
    return _drawing(part, "runs", caption, lambda: dots.run_dots(values, paper, labels, metrics), [VARIANTS])


def _curves(part: DataAnalysis) -> Drawing:
    means = _of(part.curve_means, shown_methods(part))
    drops = "drops are pooled over images (sum of drops over sum of s), insertion gains are means"
    if not part.of_probability:
        drops = f"drops of the score {part.score!r} and insertion gains are means over images"
    caption = (
        f"Deletion and insertion over k, under the first occlusion operator: {drops}; {_span(means['n'])} images "
        "entered a point. Upright bars "
        f"are 95 % intervals of the methods under test, side by side; there are none below {LEAST_IMAGES} images."
    )
    labels = method_labels(part.runs)
    return _drawing(part, "curves", caption, lambda: charts.curves(means, labels, _panels(part)), [VARIANTS])


def _panels(part: DataAnalysis) -> dict[str, str]:
    """The title of each panel of curves, by kind."""
    if part.of_probability:
        return charts.KINDS
    return charts.KINDS | {"target_deletion": METRICS["tdd_drop"].label, "off_deletion": METRICS["odd_drop"].label}


def _differences(part: DataAnalysis) -> Drawing:
    tests, rare = _ranked(part)
    labels = method_labels(part.runs)
    good = [test for test in tests if not test.why]
    left = [f"No diagram of {METRICS[test.metric].label}: {test.why}." for test in tests if test.why]
    caption = (
        "Critical differences: mean ranks of the methods over images (1 = best), after Friedman's test ("
        + ", ".join(f"{METRICS[test.metric].label} {_p(test.p)}" for test in good)
        + "). Bars join methods that Nemenyi's test does not tell apart at 5 %, or all of them where Friedman's p is "
        "not below .05. Controls and variants are left out unless they were asked for."
    )
    if not good:
        why = " ".join(left) or "fewer than two methods under test"
        return _absent(part, "critical-differences", caption, why)
    if rare:
        left.append(f"Left out, in fewer than half of the runs: {', '.join(labels[name] for name in rare)}.")
    notes = dict.fromkeys(f"{METRICS[test.metric].label}: {test.note}." for test in good if test.note)
    remarks = [*left, *notes, VARIANTS]
    return _drawing(part, "critical-differences", caption, lambda: diagrams.critical_differences(good, labels), remarks)


def _ranked(part: DataAnalysis) -> tuple[list[Friedman], list[str]]:
    """Friedman's tests of the paper's metrics, and the methods that they leave out because they are in fewer than half
    of the runs: with these, hardly any image would have a value of all methods."""
    counts = Counter(name for run in part.runs for name in set(run.records["method"]))
    asked = part.own if part.options.methods is None else part.compared
    held = [name for name in asked if name in part.methods]
    rare = [name for name in held if 2 * counts[name] < len(part.runs)]
    metrics = part.leading(*PAPER_METRICS)
    if not rare:
        return [part.ranked[metric] for metric in metrics if metric in part.ranked], []
    common = [name for name in held if name not in rare]
    single = part.options.single_run
    return [friedman(part.paired(metric), common, single_run=single) for metric in metrics], rare


def _rankings(part: DataAnalysis) -> Drawing:
    settings: dict[str, dict[str, pd.DataFrame]] = {}
    agreement: dict[str, dict[str, str]] = {}
    remarks: list[str] = []
    for metric, over in product(part.leading(*CURVE_KINDS), OVERS):
        what = f"{METRICS[metric].label} over {rankings.OVER[over]}"
        table = part.ranking(metric, over)
        settings.setdefault(metric, {})[over] = table
        if table["setting"].nunique() < 2:
            why = table.attrs.get("why") or "the evaluation has fewer than two settings of it"
            remarks.append(f"No panel for {what}: {why}.")
        elif table.attrs["why"]:
            remarks.append(f"{what}: {table.attrs['why']}.")
        for row in part.concordance(metric, over).to_dict("records"):
            if row["why"]:
                remarks.append(f"Kendall's W of {what}: {row['why']}.")
            else:
                beyond = f"{row['beyond_chance']:.2f}".replace("-", "\N{MINUS SIGN}")
                sentence = f"W = {row['w']:.2f}, beyond chance {beyond}, {_p(row['p'])}"
                agreement.setdefault(metric, {})[over] = sentence
    caption = (
        "Ranks of the methods (1 = best) under every operator and every k of the evaluation, on the images that have "
        "all of them. Kendall's W is 1 where all settings rank alike; random rankings under m settings give 1 / m, "
        "which `beyond chance` sets to 0, and p is the share of them that agree as much. Controls are left out: they "
        "lie far from the methods whatever the setting, and so raise W."
    )
    labels = method_labels(part.runs)
    return _drawing(
        part,
        "rankings",
        caption,
        lambda: diagrams.ranks(settings, agreement, labels),
        [VARIANTS, *dict.fromkeys(remarks)],
    )


def _randomisation(part: DataAnalysis) -> Drawing:
    table = _of(part.randomisation, shown_methods(part))
    maps = f"the maps of {_span(table['n'])} images" if part.several else f"{_span(table['n'])} maps"
    constant, failed = int(table["constant"].sum()), int(table["failed"].sum())
    caption = (
        "Randomisation check (Adebayo et al. 2018): mean Spearman correlation of each method's map with that of the "
        "trained model. The model's weights are drawn anew from the head on, part after part in the order in which "
        f"they run last; {maps} entered a point"
        + (f", constant ones have no correlation and are left out ({constant})" if constant else "")
        + (f", {failed} could not be made" if failed else "")
        + ". A method that explains the model must fall; the controls do not read it. Mean s, in randomisation.csv, "
        "says where the model has lost the class."
    )
    without = [run.label for run in part.runs if run.randomisation.empty]
    remarks = [f"Not checked in {', '.join(without)}."] if without else []
    labels = method_labels(part.runs)
    models = {str(model): rows for model, rows in table.groupby("model", sort=False)}
    return _drawing(
        part, "randomisation", caption, lambda: charts.randomisation(models, labels=labels), [*remarks, VARIANTS]
    )


def _drawing(
    part: DataAnalysis,
    name: str,
    caption: str,
    draw: Callable[[], Figure],
    remarks: Sequence[str],
    *,
    on_page: bool = True,
) -> Drawing:
    """A drawing whose layout is settled as soon as it is drawn: files of any kind then show the same."""

    def settled() -> Figure:
        figure = draw()
        with rc_context(STYLE):
            figure.draw_without_rendering()
        with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # "none" would leave one in place, for which each file is drawn twice
        return figure

    return Drawing(f"{name}-{slug(part.label)}", caption, settled, tuple(remarks), on_page)


def _absent(part: DataAnalysis, name: str, caption: str, why: str) -> Drawing:
    """A drawing that cannot be drawn."""

    def refuse() -> Figure:
        raise SettingsError(why)

    return Drawing(f"{name}-{slug(part.label)}", caption, refuse)


DRAWINGS: dict[str, Draw] = {
    name: lru_cache(maxsize=32)(draw)
    for name, draw in {
        "success": _success,
        "failure": _failure,
        "missed": _missed,
        "mechanism": _mechanism,
        "tradeoff": _tradeoff,
        "runs": _runs,
        "curves": _curves,
        "critical-differences": _differences,
        "rankings": _rankings,
        "randomisation": _randomisation,
    }.items()
}
"""Every figure by the first part of its files' names. The same analysis of a data set gives the same drawing."""


def _of(table: pd.DataFrame, methods: Iterable[str]) -> pd.DataFrame:
    return table[table["method"].isin(list(methods))]


def _unmeasured(values: pd.DataFrame, metrics: Sequence[str], labels: dict[str, str]) -> list[str]:
    """In words, the methods that lack one of the metrics."""
    defined = values[values["metric"].isin(metrics)].dropna(subset="value")
    count = defined.groupby("method")["metric"].nunique()
    gone = [labels[str(name)] for name in dict.fromkeys(values["method"]) if count.get(name, 0) < len(metrics)]
    return [f"Left out for want of {', '.join(metrics)}: {', '.join(gone)}."] if gone else []


def _span(counts: Any) -> str:
    """Counts in words: "24", or "20 to 24"."""
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return str(low) if low == high else f"{low} to {high}"


def _p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"
