"""The report's section on significance: pairs of methods and mean ranks, by metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import slug
from segfaith.results.records.runs import Run
from segfaith.results.report.blocks import (
    Cell,
    Charts,
    Column,
    Fold,
    Prose,
    Table,
    count,
    figure,
    listed,
    number,
    p_value,
    p_words,
    ref,
    whole,
    words,
)
from segfaith.results.report.page_charts import ranks
from segfaith.results.statistics import friedman
from segfaith.results.statistics import paired as significance
from segfaith.results.statistics.intervals import quantity

COMPARED = ("tdd", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics whose differences are tested; tdd_gain subtracts one control from all, so that its pairs are those of tdd."""


@dataclass(frozen=True, eq=False)
class Tested:
    """The tests by one metric: rows of `significance.compare` and Friedman's."""

    pairs: pd.DataFrame
    ranked: friedman.Friedman


def compare(group: Sequence[Run], *, methods: Sequence[str] | None = None, single_run: bool) -> dict[str, Tested]:
    """All pairs and mean ranks by each metric, on the runs of one data set; nothing with fewer than two methods.

    `single_run`: tests also where there is one run alone, see `significance.compare`. Of `methods` those that these
    runs hold are compared.
    """
    if methods is not None:
        held = {name for one in group for name in one.records["method"]}
        methods = [name for name in methods if name in held]
        if len(methods) < 2:
            return {}
    found: dict[str, Tested] = {}
    for metric in COMPARED:
        images = significance.paired(group, metric)
        pairs = significance.compare(images, methods, single_run=single_run)
        if not pairs.empty:
            ranked = friedman.friedman(images, methods, single_run=single_run)
            found[metric] = Tested(pairs, ranked)
    return found


def tests(label: str, results: Mapping[str, Tested]) -> list[Any]:
    """Per metric, in a fold: the pairs with effect, interval and corrected p, and mean ranks."""
    if not results:
        return [Prose(words("{} not testable: fewer than two methods to compare.", f"{label}:"))]
    pairs = next(iter(results.values())).pairs
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    said = words(
        "Compared here: {}, {} by each metric, for which the {} are corrected together.",
        listed(names),
        count(len(pairs), "pair"),
        ref("p", "p-values"),
    )
    return [Prose(said), *(_test(label, metric, one.pairs, one.ranked) for metric, one in results.items())]


def winner(row: Mapping[Any, Any], metric: str) -> str:
    """Whom the test favours: by the effect, which is of ranks as the test is; the means may point the other way."""
    larger, smaller = (row["first"], row["second"]) if row["effect"] > 0 else (row["second"], row["first"])
    return str(smaller if METRICS[metric].better == "lower" else larger)


def _test(label: str, metric: str, pairs: pd.DataFrame, ranked: friedman.Friedman) -> Fold:
    known = pairs[pairs["why"] == ""]
    apart = int(known["significant"].sum())
    said = words("{} of {} told apart", apart, count(len(known), "pair")) if len(known) else Markup("not testable")
    parts: list[Any] = []
    if ranked.ranks and not ranked.why:
        parts.append(_ranked(metric, ranked))
    elif ranked.why:
        parts.append(Prose(words("{}: {}.", ref("friedman", "Friedman’s test"), ranked.why), "remark"))
    name = f"pairs-{metric}-{slug(label)}"
    columns = (
        Column("Pair", "method", numeric=False),
        Column(f"Difference, {quantity(metric)}", "difference", "descending"),
        Column("95 % interval", "interval"),
        Column("Effect", "effect", "descending"),
        Column("p (Holm)", "p"),
        Column("Verdict", "p", numeric=False),
        Column("Images", "images", "descending"),
        Column("Runs", "run", "descending"),
    )
    rows = tuple(_pair(row, metric) for row in pairs.to_dict("records"))
    parts.append(Table(name, words("{}: pairs of methods on {}", METRICS[metric].label, label), columns, rows))
    return Fold(words("<strong>{}</strong>: {}", METRICS[metric].label, said), tuple(parts), metric == COMPARED[0])


def _ranked(metric: str, ranked: friedman.Friedman) -> Charts:
    """Mean ranks with bars as long as the critical difference; without them where Friedman's test tells none apart."""
    apart = ranked.p < significance.ALPHA
    reach = words(
        "Bars are as long as the {} ({}); methods whose bars do not overlap differ by Nemenyi’s test.",
        ref("cd", "critical difference"),
        ref("cd", number(ranked.critical_difference, 2)),
    )
    said = words(
        "{} over {}{}: {}. {}",
        ref("friedman", "Friedman’s test"),
        count(ranked.images, "image"),
        f" ({ranked.note})" if ranked.note else "",
        ref("friedman", p_words(ranked.p)),
        reach if apart else "It tells no methods apart, so that no critical difference is drawn.",
    )
    title = f"Mean rank by {METRICS[metric].label} (1 = best)"
    return Charts((ranks(ranked.ranks, ranked.critical_difference if apart else nan, title),), said)


def _pair(row: dict[Any, Any], metric: str) -> tuple[Cell, ...]:
    """A pair; in place of a verdict, why it is not testable."""
    said = f"{winner(row, metric)} is better" if row["significant"] else "not told apart"
    note = row.get("note", "")
    interval = "n/a" if isnan(row["low"]) else f"{number(row['low'])} to {number(row['high'])}"
    return (
        Cell(f"{row['first']} − {row['second']}", f"{row['first']} {row['second']}"),
        figure(row["difference"], define=metric),
        Cell(interval, None if isnan(row["low"]) else row["low"]),
        figure(row["effect"], 2),
        Cell(p_value(row["p_holm"]), None if isnan(row["p_holm"]) else row["p_holm"]),
        Cell(row["why"] or said, row["why"] or said, under=note),
        whole(row["images"]),
        whole(row["runs"]),
    )
