"""The paper's claims, put to these runs."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from segfaith.evaluation.metrics import PROBABILITY
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Prose,
    Section,
    Table,
    listed,
    missing,
    name_cell,
    ref,
    words,
)
from segfaith.results.report.sections.topic import by_data
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.claims import interval_words, verdict_words
from segfaith.results.statistics.paper import PAPER_METHODS, paper_value


def section(analysis: Analysis) -> Section:
    """Each claim with its verdict, in how many runs it holds, the difference that decides, and the numbers."""
    introduction = words(
        "What the paper says of its four methods, put to these runs. Some claims speak of every {}: these must "
        "hold in every run. The rest must hold for the means over runs, and “Runs” says in how many runs it holds too. "
        "Two methods are compared over the runs that have both. A difference of means below 0.0001, or of runtimes "
        "below 5 %, is a draw. Below ten images no claim is tested.",
        ref("run", "run"),
    )
    return by_data(analysis, "claims", "The paper’s claims", introduction, _claims)


def of_the_paper(part: DataAnalysis) -> bool:
    """Whether the data set, its split and its protocol are the paper's, so that its claims are about these data."""
    return any(paper_value(part.label, name, "tdd") for name in PAPER_METHODS)


def _claims(part: DataAnalysis) -> list[Block]:
    if part.score != PROBABILITY:
        return [missing(f"the paper’s claims are about the probability; {part.label} is of {part.score!r}", "")]
    table = part.claims
    if not table["holds"].isin(("holds", "fails", "draw")).any():
        reason = "no claim of the paper can be tested: that needs gpa, ega, ria and dea, and at least ten images"
        return [missing(reason, "segfaith suite paper")]
    verdicts = words("{}: {}.", part.label, listed(verdict_words(table["holds"])))
    other = "" if of_the_paper(part) else " These data are not the paper’s: its claims are not about them."
    blocks: tuple[Block, ...] = (Prose(verdicts + other), _table(part))
    if of_the_paper(part):
        return list(blocks)
    return [blocks[0], Fold(Markup("The claims on these data"), blocks[1:])]


def _table(part: DataAnalysis) -> Table:
    rows = [
        (
            name_cell(row["claim"][0].upper() + row["claim"][1:]),
            Cell(verdict(row["holds"]), row["holds"], under=_in_the_mean(row["holds"], row["count"])),
            Cell(row["count"].replace(" runs", ""), row["count"]),
            _beside(row),
            name_cell(row["numbers"]),
        )
        for row in part.claims.to_dict("records")
    ]
    columns = (
        Column("Claim of the paper", "claim", numeric=False),
        Column("Verdict", "claim", numeric=False),
        Column("Runs", "run"),
        Column("Difference over images", "difference", numeric=False),
        Column("Numbers", "mean", numeric=False),
    )
    return Table(f"claims-{slug(part.label)}", words("Claims of the paper on {}", part.label), columns, tuple(rows))


def _in_the_mean(holds: str, runs: str) -> str:
    """What a claim that holds, though not in every run, rests on."""
    held, slash, every = runs.split()[0].partition("/")
    return "in the mean" if holds == "holds" and slash and held != every.rstrip(",") else ""


def _beside(row: Mapping[Any, Any]) -> Cell:
    """The difference to the rival that decides, over images, with its interval."""
    sentence = interval_words(row)
    return Cell(sentence or "n/a", row["difference"] if sentence else None)


def verdict(holds: str) -> Markup:
    """A verdict with its sign, which does not rest on colour."""
    kind = {"holds": "good", "fails": "bad"}.get(holds, "open")
    sign = {"good": "✓", "bad": "✗", "open": "?"}[kind] if holds != "draw" else "="
    return words('<span class="verdict {}"><span aria-hidden="true">{} </span>{}</span>', kind, sign, holds)
