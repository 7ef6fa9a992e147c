"""Which differences between methods are significant: pairs of methods and mean ranks, by metric."""

from collections.abc import Mapping
from math import isinf, isnan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    count,
    figure,
    listed,
    metric_ref,
    missing,
    number,
    p_value,
    p_words,
    ref,
    whole,
    words,
)
from segfaith.results.report.sections.topic import by_data, labels, pair_cell, target_remark
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.friedman import Friedman
from segfaith.results.statistics.intervals import LEAST_IMAGES, quantity
from segfaith.results.statistics.paired import ALPHA, CHANCE, ONE_RUN, image_differences, needed
from segfaith.results.statistics.power import MOST

COMPARED = ("tdd", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics whose differences are shown. TDD gain subtracts one control from all, so its pairs are those of TDD."""
SINGLE = (
    "this is a single run, so differences are not tested: they would say nothing of other seeds or models; report on "
    "several runs, or test what holds of this run alone"
)
ADVICE = "segfaith report DIR --single-run"


def section(analysis: Analysis) -> Section:
    """By metric, in a fold: the pairs with effect, interval and corrected p, and mean ranks."""
    introduction = words(
        "Two methods are compared on the same {}, each averaged over its runs first. A difference is {} if p stays "
        "below .05 after Holm’s correction for all tests that this page shows of a data set: all pairs by all metrics. "
        "{} and its 95 % interval say how large it is. “Not told apart” is no proof of equality.",
        ref("images", "images"),
        ref("p", "significant"),
        ref("difference", "The difference"),
    )
    return by_data(analysis, "significance", "Significance", introduction, _tests)


def untested(pairs: pd.DataFrame) -> bool:
    """Whether no pair was tested because there is a single run."""
    return bool(len(pairs)) and bool(pairs["why"].str.contains(ONE_RUN, regex=False).any()) and not _known(pairs).any()


def winner(row: Mapping[Any, Any], metric: str) -> str:
    """Whom the test favours: by the effect, which is of ranks as the test is; the means may point the other way."""
    larger, smaller = (row["first"], row["second"]) if row["effect"] > 0 else (row["second"], row["first"])
    return str(smaller if METRICS[metric].better == "lower" else larger)


def _known(pairs: pd.DataFrame) -> "pd.Series[bool]":
    return pairs["why"] == ""


def _tests(part: DataAnalysis) -> list[Block]:
    pairs, called = part.pairs, labels(part)
    if pairs.empty:
        return [
            missing(
                "not testable: fewer than two methods besides controls and variants",
                "segfaith report DIR --compare gpa,dea,mask",
            )
        ]
    if untested(pairs):
        return [missing(SINGLE, ADVICE), *target_remark(part), *_folds(part), *_power(part)]
    names = [called[name] for name in dict.fromkeys([*pairs["first"], *pairs["second"]])]
    compared = words("Compared here: {}.{}", listed(names), _counted(pairs))
    if part.options.methods is None and CHANCE in set(pairs["second"]):
        compared += " Random cells are chance at the maps’ own coarseness; they do not enter Friedman’s test."
    diagram = Figure(DRAWINGS["critical-differences"](part))
    return [Prose(compared), *target_remark(part), *_folds(part), *_power(part), _how_to_read(), diagram]


def _counted(pairs: pd.DataFrame) -> Markup:
    """Over how many tests p is corrected, and which metric only repeats tests."""
    tested = pairs[_known(pairs)]
    again = tested[tested["repeats"] != ""]
    sentence = words(" Holm’s correction is over {}.", count(len(tested) - len(again), "test"))
    for (metric, first), rows in again.groupby(["metric", "repeats"], sort=False):
        names = (metric_ref(str(metric)), metric_ref(str(first)))
        tests = words("{} repeats {} of {}", names[0], count(len(rows), "test"), names[1])
        sentence += words(" {}, for it subtracts one control from both methods: these are not counted twice.", tests)
    return sentence


def _folds(part: DataAnalysis) -> list[Block]:
    tables = {metric: part.pairs[part.pairs["metric"] == metric] for metric in part.leading(*COMPARED)}
    return [_test(part, metric, table) for metric, table in tables.items() if len(table)]


def _power(part: DataAnalysis) -> list[Block]:
    """For each metric that names a best method, how many images tell it from the second."""
    called, sentences = labels(part), []
    metrics = [name for name in (*part.leading(*COMPARED), "fidelity") if name in part.best]
    for best in (part.best[name] for name in metrics):
        if best.method and best.second:
            differences = image_differences(part.paired(best.metric), best.method, best.second)
            if not isnan(images := needed(differences)):
                names = (called[best.method], called[best.second], metric_ref(best.metric))
                have = words("{} {}", "this run has" if len(part.runs) == 1 else "these runs have", len(differences))
                sentences.append(words("{} images would tell {} from {} by {}; {}.", _about(images), *names, have))
    if not sentences:
        return []
    introduction = words(
        "{} tell the best two methods apart by Wilcoxon’s test in 8 of 10 cases, if their difference is as large as it "
        "looks here and no other test is made:",
        ref("images_needed", "So many images"),
    )
    return [Prose(introduction), Points(tuple(sentences))]


def _about(images: float) -> str:
    """ "About 340", to two digits."""
    return f"More than {MOST:,}" if isinf(images) else f"About {_two_digits(images):,}"


def _two_digits(images: float) -> int:
    return int(float(f"{images:.1e}"))


def _how_to_read() -> Fold:
    text = words(
        "The difference is first minus second. For drops relative to s it is the pooled drop: the sum of drops over "
        "the sum of s. For leakages it is the trimmed mean of the differences image by image, without the lowest and "
        "the highest tenth. For the rest it is the mean. Below {} images there is no interval. The {} is the "
        "matched-pairs rank-biserial correlation, from −1 to 1; it is positive where the first method tends to have "
        "the larger values. p is that of Wilcoxon’s signed-rank test with Pratt’s treatment of zeros. The tests speak "
        "of other images under these models and seeds, not of other models or seeds. An ablation is no run of its own. "
        "TDD gain subtracts one control from all methods, so its pairs differ as those of TDD do. Other controls, and "
        "variants such as dea@alpha=0.5, are compared only if they are named (<code>--compare</code>).",
        LEAST_IMAGES,
        ref("effect", "effect"),
    )
    return Fold(Markup("How to read these tables"), (Prose(text),))


def _test(part: DataAnalysis, metric: str, pairs: pd.DataFrame) -> Fold:
    """The fold of a metric; columns without any value are left out."""
    known = pairs[_known(pairs)]
    apart = int(known["apart"].sum())
    result = words("{} of {} told apart", apart, count(len(known), "pair")) if len(known) else Markup("not testable")
    parts: list[Block] = []
    if metric in part.ranked:
        parts.append(Prose(_ranks(part, part.ranked[metric])))
    if 0 < len(known) < len(pairs):
        corrected = words("{} of {} pairs are testable.", len(known), len(pairs))
        parts.append(Prose(corrected))
    name = f"pairs-{metric}-{slug(part.label)}"
    of = quantity(metric)
    columns = (
        Column("Pair", "method", numeric=False),
        Column("Verdict", "p", numeric=False),
        Column(f"First, {of}", "difference", "descending"),
        Column(f"Second, {of}", "difference", "descending"),
        Column("Difference", "difference", "descending"),
        Column("95 % interval", "interval"),
        Column("Effect", "effect", "descending"),
        Column("p", "p"),
        Column("p (Holm)", "p"),
        Column("Images", "images", "descending"),
        Column("Runs", "run", "descending"),
        Column("Images needed", "images_needed"),
    )
    called = labels(part)
    rows = tuple(_pair(row, metric, called) for row in pairs.to_dict("records"))
    kept = [place for place in range(len(columns)) if any(row[place].text != "n/a" for row in rows)]
    shown = tuple(columns[place] for place in kept)
    cells = tuple(tuple(row[place] for place in kept) for row in rows)
    caption = words("{}: pairs of methods on {}", METRICS[metric].label, part.label)
    title = words("<strong>{}</strong>: {}", METRICS[metric].label, result)
    return Fold(
        title, (*parts, Table(name, caption, shown, cells)), metric == part.leading(*COMPARED)[0] and len(known) > 0
    )


def _ranks(part: DataAnalysis, test: Friedman) -> Markup:
    """Mean ranks and Friedman's test in words."""
    called = labels(part)
    ranks = ", ".join(
        f"{called[name]} {number(rank, 2)}" for name, rank in sorted(test.ranks.items(), key=lambda pair: pair[1])
    )
    friedman = ref("friedman", "Friedman’s test")
    if test.why:
        result = words("{} is {}", friedman, test.why if ONE_RUN not in test.why else "not testable on a single run")
    else:
        apart = (
            words(
                "methods whose mean ranks differ by more than {} are told apart (Nemenyi’s {})",
                number(test.critical_difference, 2),
                ref("cd", "critical difference"),
            )
            if test.p < ALPHA
            else "it tells no methods apart"
        )
        result = words("{}: chi-square {}, {}; {}", friedman, number(test.statistic, 2), p_words(test.p), apart)
    note = words(" ({})", test.note) if test.note else ""
    start = words("{} over {} (1 is best): {}. ", ref("rank", "Mean ranks"), count(test.images, "image"), ranks)
    return (start if ranks else Markup("")) + result + note + "."


def _pair(row: dict[Any, Any], metric: str, called: Mapping[str, str]) -> tuple[Cell, ...]:
    """A pair; in place of a verdict, why it is not testable."""
    better = "better" if METRICS[metric].better else "larger"
    result = f"{called[winner(row, metric)]} is {better}" if row["apart"] else "not told apart"
    if row["why"]:
        result = "not testable: one run" if ONE_RUN in row["why"] else row["why"]
    interval = "n/a" if isnan(row["low"]) else f"{number(row['low'])} to {number(row['high'])}"
    return (
        pair_cell(called[row["first"]], called[row["second"]], " − "),
        Cell(result, result, under=row.get("note") or ""),
        *(figure(row[name]) for name in ("value_first", "value_second", "difference")),
        Cell(interval, None if isnan(row["low"]) else row["low"]),
        figure(row["effect"], 2),
        *(Cell(p_value(row[name]), None if isnan(row[name]) else row[name]) for name in ("p", "p_page")),
        whole(row["images"]),
        whole(row["runs"]),
        _needed(row["images_needed"]),
    )


def _needed(images: float) -> Cell:
    if isnan(images):
        return Cell("n/a")
    return Cell(f"> {MOST:,}" if isinf(images) else f"{_two_digits(images):,}", images)
