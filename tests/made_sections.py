"""Sections for tests of the page: the first screen of an analysis, and parts made by hand, some of them empty."""

from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from segfaith.errors import SettingsError
from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.style import canvas
from segfaith.results.report.arrange import gathered
from segfaith.results.report.blocks import Column, Figure, Fold, Points, Prose, Section, Table, figure, name_cell, words
from segfaith.results.report.sections import leaderboard, verdict, worth
from segfaith.results.statistics.analysis import Analysis

CAVEAT = "A few samples with a small s can move a mean."


def made_sections(analysis: Analysis) -> list[Section]:
    """A page's sections: those that answer first, parts of every kind, an empty section, and runs; as
    `arrange.gathered` gives them."""
    remark = Prose(words("{}", CAVEAT), "remark")
    built = [
        verdict.section(analysis),
        leaderboard.section(analysis),
        worth.section(analysis),
        Section(
            "parts",
            "Parts",
            (
                Prose(Markup("Some prose.")),
                Figure(Drawing("dots", "A dot per method.", _dots, (CAVEAT, "A remark of its own."))),
                Figure(Drawing("photographs", "Photographs.", _dots, on_page=False)),
                Figure(Drawing("impossible", "Curves.", _impossible)),
                remark,
                Fold(Markup("Numbers"), (_numbers(analysis),)),
                Fold(Markup("A point"), (Points((Markup("a point"),)), remark)),
                Fold(Markup("Curves"), (Prose(Markup("No run has curves."), "missing"),)),
                Fold(Markup("A fold that is empty"), ()),
            ),
        ),
        Section("hollow", "Hollow", (Prose(Markup("Only a heading"), "heading"), Points(()))),
        Section("runs", "Runs", (Points((Markup("The runs."),)),)),
    ]
    return gathered({section.name: section for section in built})


def _numbers(analysis: Analysis) -> Table:
    rows = tuple((name_cell(method), figure(place / 7)) for place, method in enumerate(analysis.parts[0].methods))
    columns = (Column("Method", "method", numeric=False), Column("TDD", "tdd", "descending"))
    return Table("numbers", Markup("Numbers"), columns, rows)


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
