"""The tables of scores as LaTeX."""

import re
from math import nan
from typing import Any

import pandas as pd
from markupsafe import Markup

from made_runs import run_of
from segfaith.results.records.runs import Run
from segfaith.results.report.blocks import Cell, Column, Section, Table
from segfaith.results.report.latex import latex
from segfaith.results.report.sections import scores
from segfaith.results.statistics.analysis import Analysis, analyse
from segfaith.results.statistics.summary import TABLE_METRICS


def run(
    values: dict[str, list[float]], metric: str = "tdd", data: str = "voc2012", labels: dict[str, str] | None = None
) -> Run:
    """A run with one metric's values by method, a sample each; the other metrics are undefined."""
    rows = [
        dict.fromkeys(TABLE_METRICS, nan)
        | {"sample_id": f"i{place}", "method": method, "s": 0.5, "status": "ok", "reason": "", metric: value}
        for method, column in values.items()
        for place, value in enumerate(column)
    ]
    description: dict[str, Any] = {
        "data": {"name": data, "split": "val", "samples": ["i0"]},
        "model": {"name": "net", "weights": "net.pth"},
        "settings": {"seed": 4},
        "methods": {name: {"label": (labels or {}).get(name)} for name in values},
    }
    return run_of(description, pd.DataFrame(rows))


def written(*runs: Run, diagnostics: bool = False) -> str:
    analysis = analyse(runs)
    return latex(scores.section(analysis), analysis.notes, diagnostics=diagnostics)


def floats(text: str) -> dict[str, str]:
    """Each float by its label."""
    found = re.findall(r"\\begin{table}\n.*?\\end{table}", text, re.S)
    return {re.search(r"\\label{tab:(.*?)}", one)[1]: one for one in found}  # type: ignore[index]


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    text = written(run({"my_method@a=50%&b#{~^$\\": [0.5]}, data="[set]"))
    means = next(table for name, table in floats(text).items() if name.startswith("means"))
    line = next(line for line in means.splitlines() if line.startswith(r"my\_method"))
    assert line.startswith(
        r"my\_method@a=50\%\&b\#\{\textasciitilde{}\textasciicircum{}\$\textbackslash{} & 0.500 & n/a & 0.500 & "
    )
    assert line.endswith(r" \\")
    assert len(re.findall(r"(?<!\\)&", line)) == 9, "ten cells"
    assert r"\caption{{[}set{]} val: means of a single run}" in means
    assert re.fullmatch("[A-Za-z0-9-]+", next(iter(floats(text))))


def test_latex_is_a_float_a_table_with_caption_label_and_rules() -> None:
    four = {"gpa": [0.2, 0.25], "random_cells": [0.5, 0.5]}
    text = written(run(four), run(four, data="sbd"), run({"gpa": [0.3]}, data="sbd"))
    assert text.startswith("% needs \\usepackage{booktabs}\n% voc2012 val: net, weights net.pth")
    tables = floats(text)
    assert text.count(r"\begin{table}") == len(tables) == text.count(r"\caption{") == 6
    assert list(tables) == [
        *("means-voc2012-val", "paper-voc2012-val", "runs-voc2012-val"),
        *("means-sbd-val", "paper-sbd-val", "runs-sbd-val"),
    ]
    first = tables["means-voc2012-val"].splitlines()
    assert first[:2] == [r"\begin{table}", r"\centering"]
    assert r"\begin{tabular}{lrrrrrrrrr}" in first
    assert [first.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [5, 7, 11]
    assert first[6].startswith(r"Method & TDD, pooled $\uparrow$ & OT abs, pooled $\downarrow$ & TDD $\uparrow$ & ")
    assert [line.split(" ")[0] for line in first[8:10]] == ["gpa", r"\midrule"]
    assert first[10].startswith(r"random\_cells & 0.500 & ")
    assert r" & n/a & 0.263 $\pm$ 0.053 & " in tables["means-sbd-val"], "run-level means .225 and .3"
    assert r"gpa & 0.225 & 0.270 $\pm$ 0.044 & " in tables["paper-voc2012-val"], "beside the paper's"
    assert not set("±↑↓−\xa0") & set(text)
    for table in tables.values():
        assert len({len(line.split(" & ")) for line in table.splitlines() if " & " in line}) == 1


def test_latex_of_other_data_has_no_table_of_the_papers() -> None:
    assert list(floats(written(run({"gpa": [0.2]}, data="scenes")))) == ["means-scenes-val", "runs-scenes-val"]


def test_latex_has_win_counts_and_run_level_means() -> None:
    runs = [run({"gpa": [0.2, 0.4], "dea": [0.5]}, data="scenes"), run({"gpa": [0.6], "dea": [0.5]}, data="scenes")]
    tables = floats(written(*runs))
    assert "gpa against dea & 1/2 & " in tables["wins-scenes-val"]
    lines = [line.split(" & ")[3:5] for line in tables["runs-scenes-val"].splitlines() if " & " in line]
    assert lines == [
        ["Method", r"TDD $\uparrow$"],
        ["gpa", "0.300"],
        ["dea", "0.500"],
        ["gpa", "0.600"],
        ["dea", "0.500"],
    ]


def test_diagnostic_columns_come_only_if_asked_for() -> None:
    """n, undefined values and samples that are not ok."""
    one = run({"gpa": [0.2, nan], "dea": [0.5, 0.5]}, data="scenes")
    brief, full = (floats(written(one, diagnostics=asked))["means-scenes-val"] for asked in (False, True))
    assert "Undef." not in brief
    assert "& n & Undef. & Not ok" in full
    assert next(line for line in full.splitlines() if line.startswith("gpa")).endswith(r" & 1 & 13 & 0 \\")


def test_the_best_value_is_bold() -> None:
    means = floats(written(run({"gpa": [0.2], "dea": [0.5], "mask": [0.9]}, data="scenes")))["means-scenes-val"]
    assert r"dea & 0.500 & n/a & \textbf{0.500} & " in means
    assert means.count(r"\textbf") == 1, "controls are never bold"


def test_methods_go_by_their_labels() -> None:
    name = "my_method.py:explain"
    means = floats(written(run({name: [0.2]}, data="scenes", labels={name: "Ours"})))["means-scenes-val"]
    assert "\nOurs & 0.200" in means
    assert "explain" not in means


def test_other_tables_of_the_section_are_left_out() -> None:
    table = Table("robust-x", Markup("x"), (Column("A"),), ((Cell("1"),),))
    assert latex(Section("scores", "Scores", (table,))) == "% needs \\usepackage{booktabs}\n"


def test_the_made_runs_have_all_tables(analysis: Analysis) -> None:
    tables = floats(latex(scores.section(analysis)))
    assert [name.split("-")[0] for name in tables] == ["means", "paper", "runs", "wins"]
