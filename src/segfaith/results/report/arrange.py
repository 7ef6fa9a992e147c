"""Sections in the page's order, without what is empty and without what was already said."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from segfaith.results.figures.drawing import Drawing
from segfaith.results.report.blocks import Cards, Figure, Fold, Points, Prose, Section, Table, join, words

LEADERBOARD = "leaderboard"
"""How the names of tables begin that stand above the pictures."""
LAST = "runs"
"""The section that closes the page."""


def tidy(sections: Sequence[Section]) -> list[Section]:
    """The sections without empty parts and repeated remarks; sections without any part go.

    A fold that holds nothing but reasons for what is missing becomes a remark, for there is nothing to unfold. A figure
    that cannot be drawn becomes a remark with the reason; one that is not for the page goes.
    """
    said: set[str] = set()
    result = []
    for section in sections:
        parts = tuple(_tidied(section.parts, said))
        if any(not _is_heading(part) for part in parts):
            result.append(replace(section, parts=parts))
    return result


def arranged(sections: Sequence[Section]) -> tuple[list[Section], list[Section], list[Section]]:
    """The sections above the pictures, those below them, and those after gallery and definitions.

    Above the pictures stand all sections up to the last with cards or a leaderboard; without either, the first.
    """
    last = [section for section in sections if section.name == LAST]
    others = [section for section in sections if section.name != LAST]
    leading = [place for place, section in enumerate(others) if any(map(_leads, blocks(section.parts)))]
    end = leading[-1] + 1 if leading else 1
    return others[:end], others[end:], last


def blocks(parts: Sequence[Any]) -> Iterator[Any]:
    """All blocks, those in folds too."""
    for part in parts:
        yield part
        if isinstance(part, Fold):
            yield from blocks(part.parts)


def drawings(sections: Sequence[Section]) -> list[Drawing]:
    """The drawings of all figures."""
    return [block.drawing for section in sections for block in blocks(section.parts) if isinstance(block, Figure)]


def anchors(sections: Sequence[Section]) -> set[str]:
    """The anchors of sections, tables and figures."""
    names = {section.name for section in sections} | {drawing.name for drawing in drawings(sections)}
    tables = [block for section in sections for block in blocks(section.parts) if isinstance(block, Table)]
    return names | {table.name for table in tables}


def _tidied(parts: Sequence[Any], said: set[str]) -> Iterator[Any]:
    for part in parts:
        match part:
            case Prose(kind="remark"):
                if str(part.text) not in said:
                    said.add(str(part.text))
                    yield part
            case Figure():
                yield from _drawn(part, said)
            case Fold():
                inner = tuple(_tidied(part.parts, said))
                if all(isinstance(one, Prose) and one.kind == "missing" for one in inner):
                    if inner:
                        reasons = join(dict.fromkeys(one.text for one in inner), " ")
                        yield Prose(words("{}: not measured. {}", part.title, reasons), "remark")
                else:
                    yield replace(part, parts=inner)
            case Table(rows=()) | Points(items=()) | Cards(cards=()):
                continue
            case _:
                yield part


def _drawn(figure: Figure, said: set[str]) -> Iterator[Any]:
    drawing = figure.drawing
    if not drawing.on_page:
        return
    if drawing.figure is None:
        yield Prose(words("Not drawn: {}", drawing.why), "remark")
        return
    remarks = tuple(remark for remark in drawing.remarks if remark not in said)
    said.update(remarks)
    yield figure if remarks == drawing.remarks else Figure(replace(drawing, remarks=remarks))


def _leads(block: Any) -> bool:
    return isinstance(block, Cards) or (isinstance(block, Table) and block.name.startswith(LEADERBOARD))


def _is_heading(part: Any) -> bool:
    return isinstance(part, Prose) and part.kind == "heading"
