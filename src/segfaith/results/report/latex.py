r"""The tables as LaTeX, with \usepackage{booktabs}."""

from collections.abc import Sequence

from segfaith.results.report.tables_text import comparison, layout, run_table, win_table
from segfaith.results.statistics.analysis import Analysis


def latex(analysis: Analysis) -> str:
    r"""Table 1, ours beside the paper's where it has numbers, win counts and run-level means; needs booktabs."""
    summary = analysis.table("summary")
    more = [comparison(summary), win_table(analysis.table("wins")), run_table(analysis.table("values"))]
    tables = [layout(summary), *(table for table in more if len(table) > 1)]
    lines = [r"% needs \usepackage{booktabs}", *(f"% {' '.join(line.split())}" for line in analysis.notes)]
    return "\n".join([*lines, *(line for table in tables for line in ("", *_tabular(table)))]) + "\n"


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
)
"""What LaTeX takes for something else; a row that starts with a bracket would be the last one's spacing."""


def _tabular(table: Sequence[Sequence[str]]) -> list[str]:
    """One tabular, a rule between data sets."""
    header, *body = ([cell.translate(_LATEX) for cell in line] for line in table)
    lines = [rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}", r"\toprule", " & ".join(header) + r" \\"]
    before = ""
    for line in body:
        lines += [r"\midrule"] * (line[0] != before) + [" & ".join(line) + r" \\"]
        before = line[0]
    return [*lines, r"\bottomrule", r"\end{tabular}"]
