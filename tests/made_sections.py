"""Sections of the page made by hand, for tests of the page: cards, a leaderboard, a figure, folds, and empty parts."""

from math import isnan

from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.style import canvas
from segfaith.results.records.identity import slug
from segfaith.results.records.select import is_control
from segfaith.results.report.blocks import (
    Card,
    Cards,
    Cell,
    Check,
    Column,
    Figure,
    Fold,
    Mark,
    Points,
    Prose,
    Section,
    Table,
    figure,
    metric_column,
    name_cell,
    spread,
    whole,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis

HEADLINES: dict[Mark, str] = {
    "pass": "Better than chance, and it depends on what the model learnt",
    "warn": "Better than chance, but nobody measured whether it depends on the model",
    "fail": "No better than random cells; keeps .86 of its map when every weight is re-drawn",
    "unknown": "Too few images to tell",
}
CAVEAT = "Medians beside means: a few samples with a small s can move a mean."


def made_sections(analysis: Analysis) -> list[Section]:
    """What a report may hold, for these data sets."""
    cards = [_cards(part) for part in analysis.parts]
    leaderboards = [_leaderboard(part) for part in analysis.parts]
    remark = Prose(Markup("{}").format(CAVEAT), "remark")
    part = analysis.parts[0]
    drawing = Drawing(f"runs-{slug(part.label)}", "A dot per method.", _dots, (CAVEAT, "A remark of its own."))
    hidden = Drawing("cases", "Photographs.", _dots, on_page=False)
    impossible = Drawing("curves", "Curves.", _impossible)
    return [
        Section("verdict", "Which method may you trust here?", tuple(cards)),
        Section("leaderboard", "Leaderboard", (*leaderboards, remark)),
        Section(
            "scores",
            "Scores",
            (
                Prose(Markup("Some prose."), "prose"),
                Figure(drawing),
                Figure(hidden),
                Figure(impossible),
                remark,
                Fold(Markup("Values of each run"), (_numbers(part),)),
                Fold(Markup("Points"), (Points((Markup("a point"),)), remark)),
                Fold(Markup("Curves"), (Prose(Markup("No run has curves."), "missing"),)),
                Fold(Markup("A fold without anything"), ()),
            ),
        ),
        Section("hollow", "Hollow", (Prose(Markup("Only a heading"), "heading"), Points(()))),
        Section("runs", "Runs", (Points((Markup("one run"),)),)),
    ]


def _cards(part: DataAnalysis) -> Cards:
    marks: tuple[Mark, ...] = ("pass", "warn", "fail", "unknown")
    cards = []
    for place, method in enumerate(part.own):
        mark = marks[place % 4]
        sentence = Markup("TDD {} above that of random cells (p &lt; .001)").format(f"+0.{20 - place}")
        unknown = Markup("not measured: run <code>segfaith randomise DIR</code>")
        checks = (
            Check("Chance", mark, sentence, Markup("p below .05 over images"), f"leaderboard-{slug(part.label)}"),
            Check("Model", "unknown", unknown, Markup("Spearman below .5 when all weights are re-drawn"), "nowhere"),
            Check("Stability", "pass", Markup("Pearson .98 under small changes"), Markup("at least .9")),
            Check("Truth", "warn", Markup("average precision .41 on planted evidence"), Markup("above each control")),
            Check("Time", "pass", Markup("0.05 s a map"), Markup("below 10 s a map")),
        )
        cards.append(Card(method, method.upper(), mark, Markup("{}").format(HEADLINES[mark]), checks))
    return Cards(part.label, tuple(cards))


def _leaderboard(part: DataAnalysis) -> Table:
    summary = part.summary
    ordered = [*(name for name in part.methods if not is_control(name)), *part.controls]
    metrics = [
        name
        for name in ("evidence_ap", "tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability", "runtime_s")
        if summary.loc[summary["metric"] == name, "mean"].notna().any()
    ]
    rows = []
    for method in ordered:
        cells = [name_cell(method)]
        for metric in metrics:
            line = summary[(summary["method"] == method) & (summary["metric"] == metric)].iloc[0]
            paper = "" if isnan(line["paper_mean"]) else f"paper {spread(line['paper_mean'], line['paper_std'])}"
            value = None if isnan(line["mean"]) else float(line["mean"])
            cells.append(Cell(spread(line["mean"], line["std"]), value, under=paper, best=method == ordered[0]))
        rows.append((*cells, whole(line["n"])))
    return Table(
        f"leaderboard-{slug(part.label)}",
        Markup("{}: mean ± std over runs").format(part.label),
        (Column("Method", "method", numeric=False), *map(metric_column, metrics), Column("n", "n", "descending")),
        tuple(rows),
        tail=len(part.controls),
        tail_title="Controls: maps that explain nothing",
        switch="Show the paper’s numbers",
    )


def _numbers(part: DataAnalysis) -> Table:
    rows = tuple((name_cell(method), figure(place / 7)) for place, method in enumerate(part.methods))
    columns = (Column("Method", "method", numeric=False), Column(METRICS["tdd"].label, "tdd", "descending"))
    return Table(f"numbers-{slug(part.label)}", Markup("Numbers"), columns, rows)


def _dots() -> Canvas:
    drawn = canvas(6.9, 2.2)
    axes = drawn.subplots()
    axes.plot([0, 1, 2], [0.2, 0.5, 0.3], "o")
    axes.set_xlabel("place")
    axes.set_title("Dots")
    axes.grid(True)
    return drawn


def _impossible() -> Canvas:
    raise SettingsError("no run has curves")
