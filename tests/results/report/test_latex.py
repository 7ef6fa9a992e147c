"""The tables as LaTeX."""

import re

from hand_runs import one_metric
from segfaith.results.report.latex import latex
from segfaith.results.statistics.analysis import analyse


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    text = latex(analyse([one_metric({"my_method@a=50%&b#{~^$\\": [0.5]}, data="[set]")]))
    line = next(line for line in text.splitlines() if line.startswith("{[}set"))
    assert line.startswith(
        r"{[}set{]} val & my\_method@a=50\%\&b\#\{\textasciitilde{}\textasciicircum{}\$\textbackslash{} & 0.500 & "
    )
    assert line.endswith(r" \\")
    assert len(re.findall(r"(?<!\\)&", line)) == 10, "eleven cells"


def test_latex_is_booktabs_with_a_rule_between_data_sets() -> None:
    four = {"gpa": [0.2, 0.25], "random_cells": [0.5, 0.5]}
    text = latex(analyse([one_metric(four), one_metric(four, data="sbd"), one_metric({"gpa": [0.3]}, data="sbd")]))
    assert text.startswith("% needs \\usepackage{booktabs}\n% voc2012 val: net, weights net.pth")
    first, second, _ = text.split("\\begin{tabular}")[1:]
    assert first.startswith("{llrrrrrrrrr}\n\\toprule\nData & Method & TDD $\\uparrow$ & ")
    assert first.rstrip().endswith("\\bottomrule\n\\end{tabular}")
    lines = first.splitlines()
    assert [place for place, line in enumerate(lines) if line == r"\midrule"] == [3, 6]
    assert r"voc2012 val & random\_cells & 0.500 & " in first
    assert r"sbd val & gpa & 0.263 $\pm$ 0.053 & " in first, "run-level means .225 and .3"
    assert "voc2012 val & gpa & 0.225 & 0.270 $\\pm$ 0.044 & " in second, "beside the paper's"
    assert not set("±↑↓") & set(text)
    for table in (first, second):
        cells = {len(line.split(" & ")) for line in table.splitlines() if " & " in line}
        assert cells == {11}


def test_latex_of_other_data_has_no_table_of_the_papers() -> None:
    text = latex(analyse([one_metric({"gpa": [0.2]}, data="scenes")]))
    assert text.count("\\begin{tabular}") == 2, "Table 1 and the run-level means"


def test_latex_has_win_counts_and_run_level_means() -> None:
    runs = [
        one_metric({"gpa": [0.2, 0.4], "dea": [0.5]}, data="scenes"),
        one_metric({"gpa": [0.6], "dea": [0.5]}, data="scenes"),
    ]
    _, wins, means = latex(analyse(runs)).split("\\begin{tabular}")[1:]
    assert r"scenes val & gpa : dea & 1/2 & " in wins
    lines = [line.split(" & ")[1:3] for line in means.splitlines() if " & " in line]
    assert lines == [["Method", "TDD"], ["gpa", "0.300"], ["dea", "0.500"], ["gpa", "0.600"], ["dea", "0.500"]]
