r"""The tables of scores as LaTeX, a float each, with \usepackage{booktabs}."""

import re
from collections.abc import Sequence

from segfaith.results.report.blocks import Cell, Section, Table
from segfaith.results.report.markdown import plain

SHOWN = ("means", "paper", "wins", "runs")
"""The tables that are written, by the first part of their names."""


def latex(section: Section, notes: Sequence[str] = (), *, diagnostics: bool = False) -> str:
    r"""The tables of the section on scores, each in a `table` float with \caption and \label; best values are bold.

    Args:
        notes: sentences for comments at the head of the file.
        diagnostics: also the columns that say how complete the others are, such as n.
    """
    comments = [r"% needs \usepackage{booktabs}", *(f"% {' '.join(note.split())}" for note in notes)]
    tables = [block for block in section.blocks() if isinstance(block, Table) and block.name.split("-")[0] in SHOWN]
    floats = [line for table in tables for line in ("", *_float(table, diagnostics))]
    return "\n".join([*comments, *floats]) + "\n"


def _float(table: Table, diagnostics: bool) -> list[str]:
    places = [place for place, column in enumerate(table.columns) if diagnostics or not column.diagnostic]
    columns = [table.columns[place] for place in places]
    lines = [[_escaped(column.label) for column in columns]]
    lines += [[_cell(row[place]) for place in places] for row in table.rows]
    header, *body = (" & ".join(line) + r" \\" for line in lines)
    if 0 < table.tail < len(body):
        body.insert(len(body) - table.tail, r"\midrule")  # controls stand below a rule of their own
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(plain(table.caption))}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
        *(r"\toprule", header, r"\midrule", *body, r"\bottomrule"),
        r"\end{tabular}",
        r"\end{table}",
    ]


def _cell(cell: Cell) -> str:
    text = _escaped(plain(cell.text))
    return rf"\textbf{{{text}}}" if cell.best else text


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "\N{MINUS SIGN}": "$-$"}
    | {"’": "'"}
)
"""What LaTeX takes for something else; a row that starts with a bracket would be the last row's spacing."""


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
