"""The page's order of sections; what is empty, and what was already said, is left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from segfaith.results.figures.drawing import Drawing
from segfaith.results.report.blocks import (
    Block,
    Cards,
    Figure,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    join,
    words,
)

LEADERBOARD = "leaderboard"
"""How the names of tables begin that stand above the pictures."""
LAST = "runs"
"""The section that closes the page."""


def gathered(built: Mapping[str, Section]) -> list[Section]:
    """The sections in which something was measured, and one before the last that names the others with their reasons.

    Empty tables and lists go. A remark is said once, of figures too. A fold that holds nothing but reasons for what is
    missing becomes a remark, for there is nothing to unfold.

    Args:
        built: sections by name, in reading order.
    """
    said: set[str] = set()
    sections = [replace(section, parts=tuple(_tidied(section.parts, said))) for section in built.values()]
    shown = [section for section in sections if section.measured]
    reasons = [
        words("<strong>{}</strong>: {}", section.title, join(why, " "))
        for section in sections
        if not section.measured and (why := _reasons(section.parts))
    ]
    if not reasons:
        return shown
    place = next((place for place, section in enumerate(shown) if section.name == LAST), len(shown))
    missing = Section("unmeasured", "What was not measured", (Points(tuple(reasons)),))
    return [*shown[:place], missing, *shown[place:]]


def arranged(sections: Sequence[Section]) -> tuple[list[Section], list[Section], list[Section]]:
    """The sections above the pictures, those below them, and those after gallery and definitions.

    Above the pictures stand all sections up to the last with cards or a leaderboard; without either, the first.
    """
    last = [section for section in sections if section.name == LAST]
    others = [section for section in sections if section.name != LAST]
    leading = [place for place, section in enumerate(others) if any(map(_leads, section.blocks()))]
    end = leading[-1] + 1 if leading else 1
    return others[:end], others[end:], last


def drawings(sections: Sequence[Section]) -> list[Drawing]:
    """The drawings of all figures that the page shows."""
    figures = [block for section in sections for block in section.blocks() if isinstance(block, Figure)]
    return [block.drawing for block in figures if block.drawing.on_page]


def anchors(sections: Sequence[Section]) -> set[str]:
    """The anchors of sections, tables and figures."""
    names = {section.name for section in sections} | {f"figure-{drawing.name}" for drawing in drawings(sections)}
    tables = [block for section in sections for block in section.blocks() if isinstance(block, Table)]
    return names | {table.name for table in tables}


def _tidied(parts: Sequence[Block], said: set[str]) -> Iterator[Block]:
    for part in parts:
        match part:
            case Prose(kind="remark"):
                if str(part.text) not in said:
                    said.add(str(part.text))
                    yield part
            case Figure():
                yield replace(part, said=frozenset(said))
                said.update(part.drawing.remarks)
            case Fold():
                yield from _unfolded(part, tuple(_tidied(part.parts, said)))
            case Table(rows=()) | Points(items=()) | Cards(cards=()):
                continue
            case _:
                yield part


def _unfolded(fold: Fold, inner: tuple[Block, ...]) -> Iterator[Block]:
    """The fold with those parts; a remark in its place where they are reasons alone, and nothing where it has none."""
    reasons = _reasons(inner)
    if len(reasons) < len(inner):
        yield replace(fold, parts=inner)
    elif reasons:
        yield Prose(words("{}: not measured. {}", fold.title, join(dict.fromkeys(reasons), " ")), "remark")


def _reasons(parts: Sequence[Block]) -> list[object]:
    """Why something is missing, in the words of the parts that say it."""
    return [part.text for part in parts if isinstance(part, Prose) and part.kind == "missing"]


def _leads(block: Block) -> bool:
    return isinstance(block, Cards) or (isinstance(block, Table) and block.name.startswith(LEADERBOARD))
