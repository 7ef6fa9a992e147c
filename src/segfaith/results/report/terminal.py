"""What a terminal shows of a report: a verdict on each method, one table of 80 columns, and on request the rest.

Words are plain text: who prints them decides which signs a terminal may get.
"""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table as Grid

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.select import is_control
from segfaith.results.report.blocks import (
    ARROWS,
    Block,
    Cards,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    count,
    number,
    rows_by,
)
from segfaith.results.report.markdown import plain
from segfaith.results.report.sections.claims import of_the_paper
from segfaith.results.report.sections.provenance import filter_notes, unfinished_notes
from segfaith.results.report.sections.scores import NOT_ASKED, stability_words
from segfaith.results.report.sections.topic import NO_SAMPLE, labels
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.summary import TABLE_METRICS

WIDTH = 80
SIGNS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?"}
SHOWN = ("tdd", "odd_abs", "insertion_gain", "stability")
"""Metrics of the table. Where evidence was planted, the average precision comes first, and no insertion gain."""
MORE = ("runs", "claims", "evidence")
"""The sections that are shown on request, by name."""


def brief(analysis: Analysis, sections: Sequence[Section]) -> Iterator[RenderableType]:
    """The verdict on each method, a table for each data set, and warnings."""
    yield from verdicts(sections)
    for part in analysis.parts:
        yield from table(part)
    warnings = (*analysis.absent, *unfinished_notes(analysis), *filter_notes(analysis))
    yield from warnings


def more(analysis: Analysis, sections: Sequence[Section]) -> Iterator[RenderableType]:
    """What each run is, the paper's claims where the data are the paper's, and how far to trust the metrics."""
    shown = [name for name in MORE if name != "claims" or any(map(of_the_paper, analysis.parts))]
    for section in sections:
        if section.name in shown:
            yield from _section(section)


def verdicts(sections: Sequence[Section]) -> list[str]:
    """A line for each method: its mark, its label and the headline."""
    blocks = (block for section in sections for block in section.blocks() if isinstance(block, Cards))
    cards = [card for block in blocks for card in block.cards]
    room = max((len(card.label) for card in cards), default=0)
    return [f"{SIGNS[card.mark]} {card.label:<{room}}  {plain(card.headline)}" for card in cards]


def table(part: DataAnalysis, width: int = WIDTH) -> Iterator[RenderableType]:
    """Methods by a few metrics, means with medians beside them, in that width; below it, what is undefined."""
    if part.summary.empty or not part.summary["n"].any():
        yield f"{part.label}: {NO_SAMPLE}"
        return
    metrics = ("evidence_ap", "tdd", "odd_abs", "stability") if part.has_evidence else SHOWN
    called, rows = labels(part), list[tuple[str, list[str]]]()
    for method in part.methods:
        lines = rows_by(part.summary[part.summary["method"] == method], "metric")
        pairs = [f"{_short(lines[name]['mean'])} / {_short(lines[name]['median'])}" for name in metrics]
        rows.append((method, [*pairs, _short(lines["runtime_s"]["mean"])]))
    heads = [METRICS[name].label + ARROWS[METRICS[name].better] for name in (*metrics, "runtime_s")]
    room = width - sum(max(map(len, column)) + 2 for column in zip(heads, *(cells for _, cells in rows), strict=True))
    grid = Grid(
        title=f"{part.label}: mean / median, {_extent(part)}", title_justify="left", box=SIMPLE_HEAD, show_edge=False
    )
    grid.padding, grid.pad_edge = (0, 1, 0, 0), False
    for head in ("Method", *heads):
        grid.add_column(head, justify="left" if head == "Method" else "right", no_wrap=True)
    for place, (method, cells) in enumerate(rows):
        if place and is_control(method) and not is_control(rows[place - 1][0]):
            grid.add_section()
        grid.add_row(_cut(called[method], max(room, 8)), *cells)
    yield grid
    undefined = _undefined(part)
    if undefined:
        yield f"Undefined values: {undefined}."


def _extent(part: DataAnalysis) -> str:
    samples = sum(run.records[run.records["status"] == "ok"]["sample_id"].nunique() for run in part.runs)
    fewer = stability_words(part)
    return f"{count(samples, 'sample')} of {count(len(part.runs), 'run')}" + (f", {fewer}" if fewer else "")


def _undefined(part: DataAnalysis) -> str:
    """How many values of which metric are undefined on measured samples, but for what was not to be measured."""
    counts: dict[str, int] = {}
    for run in part.runs:
        rows = run.records[run.records["status"] == "ok"]
        planned = ~rows["reason"].fillna("").str.contains(NOT_ASKED, regex=False)
        for metric in TABLE_METRICS:
            undefined = rows[metric].isna() & (planned if metric == "stability" else True)
            counts[metric] = counts.get(metric, 0) + int(undefined.sum())
    return ", ".join(f"{METRICS[metric].label} {number_}" for metric, number_ in counts.items() if number_)


def _short(value: float) -> str:
    """A number without the zero before its point: ".431"."""
    text = number(value)
    return text.replace("0.", ".", 1) if text.lstrip("\N{MINUS SIGN}").startswith("0.") else text


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _section(section: Section) -> Iterator[RenderableType]:
    yield f"\n{section.title}\n{'=' * len(section.title)}"
    for block in section.parts:
        yield from _block(block)


def _block(block: Block) -> Iterator[RenderableType]:
    if isinstance(block, Prose):
        yield f"\n{plain(block.text)}" if block.kind == "heading" else plain(block.text)
    elif isinstance(block, Points):
        for item in block.items:
            yield f"- {plain(item)}"
    elif isinstance(block, Fold):
        yield f"\n{plain(block.title)}"
        for part in block.parts:
            yield from _block(part)
    elif isinstance(block, Table):
        grid = Grid(title=plain(block.caption), title_justify="left", box=SIMPLE_HEAD)
        for column in block.columns:
            grid.add_column(column.label, justify="right" if column.numeric else "left", overflow="fold")
        for row in block.rows:
            grid.add_row(*(_words(cell.text, cell.note, cell.under) for cell in row))
        yield grid


def _words(*parts: str) -> str:
    return " ".join(plain(part) for part in parts if part)
