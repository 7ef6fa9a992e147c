"""What a report is made of: sections of prose, lists, tables, figures, verdict cards and folds, as plain data.

`sections` build them; `html`, `markdown`, `latex` and `terminal` render them. Words are `Markup` with few tags: `a`,
`strong`, `code`, `span` and `small`. `words` escapes every name, reason and path that is put into them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawing import Drawing
from segfaith.results.statistics.verdicts import Mark

ARROWS = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", None: ""}
Order = Literal["ascending", "descending"]


@dataclass(frozen=True)
class Column:
    """A column's header.

    Attributes:
        define: a key of the glossary; the page links the header to it.
        first: the order of the first click on the header.
        diagnostic: whether the column says how complete the others are; LaTeX leaves it out unless it is asked for.
    """

    label: str
    define: str = ""
    first: Order = "ascending"
    numeric: bool = True
    diagnostic: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell: its words, what it is sorted by (None: last), small words after and under it, and the paper's figure."""

    text: str | Markup
    value: float | str | None = None
    note: str | Markup = ""
    under: str | Markup = ""
    best: bool = False
    paper: str | Markup = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts; its first column heads the rows. The last `tail` rows are controls: they stay below."""

    name: str
    caption: Markup
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: str = "table"
    tail: int = 0


@dataclass(frozen=True)
class Prose:
    """A paragraph, a subheading, a remark in smaller print, or why something is missing."""

    text: Markup
    kind: Literal["prose", "heading", "remark", "missing"] = "prose"


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: tuple[Markup, ...]
    kind: str = "points"


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure; the page inlines it as SVG, Markdown links its PNG. `said`: remarks that need not be said again."""

    drawing: Drawing
    said: frozenset[str] = frozenset()
    kind: str = "figure"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands below it."""
        return tuple(remark for remark in self.drawing.remarks if remark not in self.said)


MARK_WORDS: dict[Mark, str] = {
    "pass": "May be trusted",
    "warn": "With care",
    "fail": "Do not trust",
    "unknown": "Not tested",
}
"""What the mark of a whole card says."""


@dataclass(frozen=True)
class Check:
    """One question that a method passes or not: the answer in a sentence, its mark, and the rule of the mark.

    Attributes:
        name: the question in a word or two, "Chance", "Model", "Stability".
        detail: a table or section of the page that holds the numbers: its anchor, or "".
    """

    name: str
    mark: Mark
    sentence: Markup
    rule: Markup
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """The verdict on one method of one data set: its headline and its checks, the mark of the whole."""

    method: str
    label: str
    mark: Mark
    headline: Markup
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Cards:
    """The verdicts of one data set side by side."""

    data: str
    cards: tuple[Card, ...]
    kind: str = "cards"


@dataclass(frozen=True)
class Fold:
    """Parts that the reader unfolds."""

    title: Markup
    parts: "tuple[Block, ...]"
    unfolded: bool = False
    kind: str = "fold"


Block = Table | Prose | Points | Figure | Cards | Fold
"""What a section is made of."""


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading; `name` is its anchor.

    A section whose parts all say what is missing is empty, see `measured`.
    """

    name: str
    title: str
    parts: tuple[Block, ...]

    @property
    def measured(self) -> bool:
        """Whether the section says more than what is missing."""
        return any(not (isinstance(part, Prose) and part.kind in ("missing", "heading")) for part in self.parts)

    def blocks(self) -> Iterator[Block]:
        """All blocks of the section in reading order, those inside folds too."""
        waiting = list(reversed(self.parts))
        while waiting:
            block = waiting.pop()
            yield block
            if isinstance(block, Fold):
                waiting += reversed(block.parts)


def missing(why: str | Markup, command: str) -> Prose:
    """Why something is missing, and the command that measures it (without one: nothing measures it)."""
    reason = why if isinstance(why, Markup) else words("{}", why.rstrip("."))
    sentence = words("{}{}.", reason[:1].upper(), Markup(reason[1:]))
    return Prose(sentence + (words(" Measure it: <code>{}</code>", command) if command else ""), "missing")


def words(template: str, /, *values: Any, **named: Any) -> Markup:
    """A sentence with values put in for `{}` and `{name}`; what is not markup already is escaped."""
    return Markup(template).format(*values, **named)


def join(parts: Iterable[Any], between: str = ", ") -> Markup:
    """Words one after the other, escaped."""
    return Markup(between).join(parts)


def listed(parts: Sequence[Any]) -> Markup:
    """ "a", "a and b", "a, b and c"."""
    return join(parts) if len(parts) < 2 else words("{} and {}", join(parts[:-1]), parts[-1])


def ref(define: str, text: str | Markup) -> Markup:
    """A link from words or a number to its definition in the glossary."""
    return words('<a class="def" href="#def-{}">{}</a>', define, text)


def metric_ref(metric: str) -> Markup:
    """A metric's label, linked to its definition."""
    return ref(metric, METRICS[metric].label)


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 run", "2 runs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def number(value: float, digits: int = 3) -> str:
    """A figure of a table: fixed digits, fewer where it is large; a real minus sign; "n/a" where undefined."""
    if value is None or isnan(value):
        return "n/a"
    text = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.3g}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "\N{MINUS SIGN}")


def spread(mean: float, std: float) -> str:
    """ "0.431 ± 0.020", unbroken; the mean alone where there is no standard deviation."""
    return number(mean) + ("" if isnan(std) else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{number(std)}")


def p_value(value: float) -> str:
    """ "< .001", ".012" or "n/a"."""
    if isnan(value):
        return "n/a"
    return "<\N{NO-BREAK SPACE}.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def p_words(value: float) -> str:
    """ "p < .001" or "p = .012", unbroken."""
    equals = "" if value < 0.001 else "=\N{NO-BREAK SPACE}"
    return f"p\N{NO-BREAK SPACE}{equals}{p_value(value)}"


def figure(value: float, digits: int = 3, **rest: Any) -> Cell:
    """A cell that holds a number."""
    return Cell(number(value, digits), None if value is None or isnan(value) else float(value), **rest)


def whole(value: float) -> Cell:
    """A cell that holds a count."""
    return Cell(f"{int(value):,}", float(value))


def name_cell(text: object) -> Cell:
    """A cell that holds a name."""
    return Cell(str(text), str(text))


def metric_column(metric: str) -> Column:
    """The column of a metric: its label with an arrow towards better; the first click puts the best first."""
    better = METRICS[metric].better
    return Column(METRICS[metric].label + ARROWS[better], metric, "ascending" if better == "lower" else "descending")


def rows_by(table: pd.DataFrame, *keys: str) -> dict[Any, dict[Any, Any]]:
    """The rows of a table as dictionaries, by the value of a column, or of several."""
    rows = table.to_dict("records")
    return {row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys): row for row in rows}
