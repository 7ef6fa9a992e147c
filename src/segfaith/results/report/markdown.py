"""Sections as Markdown."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from markupsafe import Markup

from segfaith.results.report.blocks import Block, Card, Cards, Cell, Figure, Fold, Points, Prose, Section, Table

TITLE = "What these runs say"
MARKS = {"pass": "✓ pass", "warn": "! warn", "fail": "✗ fail", "unknown": "? not measured"}
"""How a verdict's mark reads in words, which do not rest on colour."""
_SIGNS = {"strong": "**", "b": "**", "code": "`"}


def markdown(sections: Sequence[Section], title: str = "", *, figures: bool = False) -> str:
    """The sections as one Markdown page.

    Args:
        title: heads the page, and the section of that title; by default the title of the only section, or `TITLE` where
            there are several.
        figures: whether the figures were drawn into `figures/`, beside the page; they are then linked, with captions.
    """
    title = title or (sections[0].title if len(sections) == 1 else TITLE)
    blocks = [f"# {inline(title)}"]
    for section in sections:
        blocks += [] if section.title == title else [f"## {inline(section.title)}"]
        blocks += [text for part in section.parts for text in _block(part, figures)]
    return "\n\n".join(blocks) + "\n"


def inline(text: str | Markup) -> str:
    """Words as Markdown: strong and code are kept, links and all else are plain words; Markdown's own signs in names
    are escaped where they would start a tag or a link.
    """
    if not isinstance(text, Markup):
        return _escaped(text)
    reader = _Reader()
    reader.feed(str(text))
    reader.close()
    return "".join(reader.parts)


def plain(text: str | Markup) -> str:
    """Words without any markup, spaces unified."""
    return " ".join((text.striptags() if isinstance(text, Markup) else text).split())


class _Reader(HTMLParser):
    """Turns the few tags of `Markup` into Markdown."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append(_SIGNS.get(tag, ""))
        self._code |= tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(_SIGNS.get(tag, ""))
        self._code &= tag != "code"

    def handle_data(self, data: str) -> None:
        self.parts.append(data if self._code else _escaped(data))


def _escaped(text: str) -> str:
    text = re.sub(r"\s+", " ", text.replace("\N{NO-BREAK SPACE}", " "))
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text).replace("](", r"]\(")


def _block(block: Block, figures: bool) -> list[str]:
    """The Markdown blocks of one block."""
    if isinstance(block, Prose):
        start = {"heading": "### ", "missing": "Not measured: "}.get(block.kind, "")
        return [start + inline(block.text)]
    if isinstance(block, Points):
        return ["\n".join(f"- {inline(item)}" for item in block.items)] if block.items else []
    if isinstance(block, Table):
        return [f"**{inline(block.caption)}**", "\n".join(table_lines(_cells(block)))]
    if isinstance(block, Fold):
        title = inline(block.title).replace("**", "")
        return [f"#### {title}", *(text for part in block.parts for text in _block(part, figures))]
    if isinstance(block, Cards):
        return [text for card in block.cards for text in _card(card)]
    return _figure(block) if figures else []


def _figure(block: Figure) -> list[str]:
    drawing = block.drawing
    if drawing.figure is None:
        return [f"Not drawn: {_escaped(drawing.why)}"]
    name = drawing.name
    return [f"![{_escaped(drawing.caption.split('.')[0])}](figures/{name}.png)", _escaped(drawing.caption)]


def _card(card: Card) -> list[str]:
    checks = [f"- {MARKS[check.mark]}: {check.name}: {inline(check.sentence)}" for check in card.checks]
    return [f"**{_escaped(card.label)}** ({MARKS[card.mark]}): {inline(card.headline)}", "\n".join(checks)]


def _cells(table: Table) -> list[list[str]]:
    header = [inline(column.label) for column in table.columns]
    return [header, *([cell_words(cell) for cell in row] for row in table.rows)]


def cell_words(cell: Cell) -> str:
    """A cell's words, the best in bold, with its note after it and what stands under it in brackets."""
    text = inline(cell.text)
    text = f"**{text}**" if cell.best else text
    note = f" {inline(cell.note)}" if cell.note else ""
    return text + note + (f" ({inline(cell.under)})" if cell.under else "")


def table_lines(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first of them its header; bars within cells are escaped, and backslashes before
    them, which would end the escape."""
    header, *body = ([re.sub(r"(\\*)\|", r"\1\1\|", cell) for cell in line] for line in lines)
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]
