"""The report's section on planted evidence: the page of `trust` as parts."""

from collections.abc import Sequence
from typing import Any

from segfaith.results.records.identity import slug
from segfaith.results.records.runs import Run
from segfaith.results.report import trust_page as trust
from segfaith.results.report.blocks import Cell, Column, Points, Prose, Table, words
from segfaith.results.statistics import summary as tables


def evidence(label: str, group: Sequence[Run]) -> list[Any]:
    """The trust page: do the metrics rank methods as the planted evidence does?"""
    if not tables.has_evidence(group):
        return [
            Prose(words("No evidence was planted, so that the metrics themselves are not put to the test."), "missing")
        ]
    return markdown_parts(trust.trust_page(group), f"trust-{slug(label)}", "evidence")


def markdown_parts(text: str, name: str, define: str) -> list[Any]:
    """The page of `trust` as parts: its headings, paragraphs, lists and tables; nothing else is Markdown there."""
    parts: list[Any] = []
    heading = ""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    for block in blocks:
        if block[0].startswith("# "):
            continue
        if block[0].startswith("#"):
            heading = block[0].lstrip("# ")
            parts.append(Prose(words("{}", heading), "heading"))
        elif block[0].startswith("|"):
            parts.append(_markdown_table(block, f"{name}-{len(parts)}", heading or name, define))
        elif block[0].startswith("- "):
            parts.append(Points(tuple(words("{}", line.removeprefix("- ")) for line in block)))
        else:
            parts.append(Prose(words("{}", " ".join(block).replace("`", ""))))
    return parts


def _markdown_table(block: Sequence[str], name: str, caption: str, define: str) -> Table:
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    columns = tuple(Column(text, "tau" if text.startswith("tau") else define, numeric=False) for text in header)
    rows = tuple(
        tuple(
            Cell(text, _leading(text), define="" if isinstance(_leading(text), str) else column.define)
            for text, column in zip(line, columns, strict=True)
        )
        for line in body
    )
    return Table(name, words("{}", caption), columns, rows)


def _leading(text: str) -> float | str:
    """What a cell is sorted by: its first number, else its words."""
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return text
