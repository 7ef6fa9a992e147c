"""What a terminal shows of a report: a verdict on each method, one table of 80 columns, and on request the rest.

Words are plain text: who prints them decides which signs a terminal may get.
"""

from collections.abc import Iterator, Sequence
from math import isnan
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table as Grid

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.select import is_reference, without_truth
from segfaith.results.report.blocks import (
    ARROWS,
    Block,
    Cards,
    Cell,
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
from segfaith.results.report.sections.provenance import unfinished_notes
from segfaith.results.report.sections.scores import NOT_ASKED, stability_words
from segfaith.results.report.sections.topic import NO_SAMPLE, images_words, labels, moves_most, pooled_metrics
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.targets import counted

WIDTH, LEAST_ROOM = 80, 10
"""Characters of a line, and of a method's name at least; metrics that do not fit beside it are left out."""
SIGNS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?"}
INSTEAD = ("evidence_ap", "fidelity")
SHOWN = (*INSTEAD, "tdd", "odd_abs", "insertion_gain", "stability")
"""Metrics of the table, as far as they were measured. Beside one of these there is no room for the insertion gain."""
MORE = ("runs", "claims", "worth", "evidence")
"""The sections that are shown on request, by name."""


def brief(analysis: Analysis, sections: Sequence[Section] = ()) -> Iterator[RenderableType]:
    """The verdict on each method that the sections hold, a table for each data set, and warnings."""
    yield from verdicts(sections)
    for part in analysis.parts:
        yield from table(part)
    yield from (*analysis.absent, *unfinished_notes(analysis), *analysis.runtime_notes, *analysis.target_notes)
    yield from analysis.filters


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
    lines = [f"{SIGNS[card.mark]} {card.label:<{room}}  {plain(card.headline)}" for card in cards]
    return [fill(line, WIDTH, subsequent_indent=" " * min(room + 4, WIDTH // 2)) for line in lines]


def table(part: DataAnalysis, width: int = WIDTH) -> Iterator[RenderableType]:
    """Methods by a few metrics, two figures each, in that width; below it predicted targets, and what is undefined."""
    if part.summary.empty or not part.summary["n"].any():
        yield f"{part.label}: {NO_SAMPLE}"
        return
    called, metrics = labels(part), [name for name in part.leading(*SHOWN) if name in part.metrics]
    if {*INSTEAD} & {*metrics}:
        metrics = [name for name in metrics if not name.startswith("insertion")]
    columns = [_column(part, metric) for metric in (*metrics, "runtime_s")]
    while _room(columns, width) < LEAST_ROOM and len(columns) > 2:
        del columns[-2]  # seconds stay
    room = max(_room(columns, width), LEAST_ROOM)
    grid = Grid(box=SIMPLE_HEAD, show_edge=False)
    grid.padding, grid.pad_edge = (0, 1, 0, 0), False
    grid.add_column("Method", no_wrap=True)
    for head, *_ in columns:
        grid.add_column(head, justify="right", no_wrap=True)
    for place, method in enumerate(part.methods):
        if place and is_reference(method) and not is_reference(part.methods[place - 1]):
            grid.add_section()
        grid.add_row(_cut(called[method], room), *(column[place + 1] for column in columns))
    yield f"{part.label}: {_figures(part)}, {_extent(part)}"
    yield grid
    yield from _below(part, metrics)
    undefined = _undefined(part)
    if undefined:
        yield f"Undefined values: {undefined}."


def _figures(part: DataAnalysis) -> str:
    """What the two figures of a cell are."""
    pooled = [METRICS[name].label for name in pooled_metrics(part)]
    return f"{' and '.join(pooled)} pooled / mean, else mean / median" if pooled else "mean / median"


def _below(part: DataAnalysis, metrics: Sequence[str]) -> Iterator[str]:
    """Pooled drops of the targets that the model predicts, and the image that moves each mean most."""
    called, rows = labels(part), rows_by(part.summary, "metric", "method")
    for metric in pooled_metrics(part):
        lines = {name: rows[metric, name] for name in part.methods if name in part.own}
        told = {
            called[name]: _short(line["predicted_value"])
            for name, line in lines.items()
            if not isnan(line["predicted_value"])
        }
        if told:
            entered = count(int(max(line["predicted_n"] for line in lines.values())), "sample")
            figures = ", ".join(f"{name} {value}" for name, value in told.items())
            yield f"{METRICS[metric].label} pooled where the IoU is at least .5 ({entered}): {figures}."
    moved = [f"{METRICS[name].label} {row['image']}" for name, row in moves_most(part, metrics).items()]
    if moved:
        yield f"Image that moves a mean most: {', '.join(moved)}."


def _extent(part: DataAnalysis) -> str:
    extents = [counted([run.measured]) for run in part.runs]
    samples, targets = (sum(numbers) for numbers in zip(*extents, strict=True))
    fewer = stability_words(part)
    return f"{images_words(samples, targets, 'sample')} of {count(len(part.runs), 'run')}" + (
        f", {fewer}" if fewer else ""
    )


def _undefined(part: DataAnalysis) -> str:
    """How many values of which metric are undefined on measured samples, but for what was not to be measured."""
    counts: dict[str, int] = {}
    for run in part.runs:
        rows = without_truth(run.measured)
        planned = ~rows["reason"].fillna("").str.contains(NOT_ASKED, regex=False)
        for metric in part.table:
            undefined = rows[metric].isna() & (planned if metric == "stability" else True)
            counts[metric] = counts.get(metric, 0) + int(undefined.sum())
    return ", ".join(f"{METRICS[metric].label} {number_}" for metric, number_ in counts.items() if number_)


def _column(part: DataAnalysis, metric: str) -> list[str]:
    """The head of a metric's column, then each method's two figures (see `_figures`); of the runtime the mean alone."""
    rows = rows_by(part.summary[part.summary["metric"] == metric], "method")
    names = ("mean",) if metric == "runtime_s" else ("mean", "median")
    names = ("value", "mean") if metric in pooled_metrics(part) else names
    cells = [" / ".join(_short(rows[method][name]) for name in names) for method in part.methods]
    return [METRICS[metric].label + ARROWS[METRICS[metric].better], *cells]


def _room(columns: Sequence[Sequence[str]], width: int) -> int:
    """How many characters the columns leave for the names of methods."""
    return width - sum(max(map(len, column)) + 2 for column in columns)


def _short(value: float) -> str:
    """A number without the zero before its point, ".431", and with one decimal from 10 on."""
    text = number(value, 1 if abs(value) >= 10 else 3)
    return text.replace("0.", ".", 1) if text.lstrip("\N{MINUS SIGN}").startswith("0.") else text


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _section(section: Section) -> Iterator[RenderableType]:
    """A section's blocks; tables of many words as lines, and of the runs what is said of them alone."""
    yield f"\n{section.title}\n{'=' * len(section.title)}"
    for block in section.blocks():
        if isinstance(block, Table) and section.name == "worth":
            yield from (_line(row, [column.label for column in block.columns]) for row in block.rows)
        elif isinstance(block, Table) and section.name == "claims":
            yield from (_line(row) for row in block.rows)
        elif not isinstance(block, Table) or section.name == "evidence":
            yield from _block(block)


def _line(row: Sequence[Cell], heads: Sequence[str] = ()) -> str:
    """A row as a line: its first cell, and the others in brackets, with their heads where these are given."""
    first, *others = (_words(cell.text, cell.note, cell.under) for cell in row)
    if heads:
        others = [f"{head}: {other}" for head, other in zip(heads[1:], others, strict=True)]
    return f"{first} ({'; '.join(others)})"


def _block(block: Block) -> Iterator[RenderableType]:
    if isinstance(block, Prose):
        yield f"\n{plain(block.text)}" if block.kind == "heading" else plain(block.text)
    elif isinstance(block, Points):
        for item in block.items:
            yield f"- {plain(item)}"
    elif isinstance(block, Fold):
        yield f"\n{plain(block.title)}"
    elif isinstance(block, Table):
        grid = Grid(title=plain(block.caption), title_justify="left", box=SIMPLE_HEAD)
        for column in block.columns:
            grid.add_column(column.label, justify="right" if column.numeric else "left", overflow="fold")
        for row in block.rows:
            grid.add_row(*(_words(cell.text, cell.note, cell.under) for cell in row))
        yield grid


def _words(*parts: str) -> str:
    return " ".join(plain(part) for part in parts if part)
