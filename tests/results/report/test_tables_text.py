"""The printed tables, cell by cell, from records made by hand."""

import csv
from math import nan
from pathlib import Path

import pytest

from hand_runs import THREE_RUNS, one_metric, row, run_of_rows
from segfaith.results.report.tables_text import comparison, layout, markdown, write_tables
from segfaith.results.statistics.summary import TABLE_METRICS, notes, summarise, with_paper


def test_layout_is_the_papers_table_with_the_controls_n_and_undefined() -> None:
    rows = [
        row("a", "dea", 0.5, tdd_gain=0.1, odd_abs=0.2, leak_abs=0.4, insertion_gain=0.05, stability=nan, runtime_s=2),
        row("b", "dea", 0.25, tdd_gain=0.1, odd_abs=0.2, leak_abs=0.4, insertion_gain=0.05, stability=nan, runtime_s=1),
        row("a", "random_cells", 0.4),
        row("b", "random_cells", 0.4),
    ]
    table = layout(summarise([run_of_rows(*rows)]))
    assert table[0] == [
        "Data",
        "Method",
        "TDD ↑",
        "TDD gain ↑",
        "OT abs ↓",
        "Leak abs ↓",
        "Ins. ↑",
        "Stab. ↑",
        "Time s ↓",
        "n",
        "undef.",
    ]
    assert table[1] == ["voc2012 val", "dea", "0.375", "0.100", "0.200", "0.400", "0.050", "n/a (0)", "1.500", "2", "2"]
    assert table[2][:3] == ["voc2012 val", "random_cells", "0.400"]
    assert len(table) == 3


def test_layout_shows_how_many_samples_a_figure_has_where_they_are_fewer() -> None:
    rows = [row("a", "ria", 0.2, stability=nan), row("b", "ria", 0.4, stability=0.8)]
    (line,) = layout(summarise([run_of_rows(*rows)]))[1:]
    assert line == ["voc2012 val", "ria", "0.300", "0.000", "0.000", "0.000", "0.000", "0.800 (1)", "0.000", "2", "1"]


def test_layout_shows_the_spread_over_runs_and_medians_without_it() -> None:
    summary = summarise(THREE_RUNS)
    assert layout(summary)[1][2] == "0.367 ± 0.153"
    assert layout(summary, "median")[1][2] == "0.250"
    assert "±" not in "".join(layout(summarise(THREE_RUNS[:1]))[1])


def test_markdown_holds_both_tables_and_the_notes() -> None:
    text = markdown(summarise(THREE_RUNS), notes(THREE_RUNS))
    assert text.startswith("**Mean**\n\n| Data | Method | TDD ↑ |")
    assert "**Median over samples**" in text
    assert "| voc2012 val | ega | 0.367 ± 0.153 |" in text
    assert "| voc2012 val | ega | 0.250 |" in text
    assert text.count("\n- voc2012 val: net") == 3
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {12}, "every line has eleven cells"
    assert len(tables) == 2 * (1 + 1 + 2)
    assert text.endswith("\n")


def test_written_tables_are_the_summary(tmp_path: Path) -> None:
    paths = write_tables(with_paper(summarise(THREE_RUNS)), notes(THREE_RUNS), tmp_path / "new")
    assert paths == (tmp_path / "new" / "table.csv", tmp_path / "new" / "table.md")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["table.csv", "table.md"]
    with paths[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(TABLE_METRICS)
    assert list(rows[0])[:4] == ["data", "weights", "method", "metric"]
    assert list(rows[0])[4:] == ["mean", "std", "median", "runs", "n", "undefined", "not_ok"]
    assert {one["weights"] for one in rows} == {"net.pth"}
    (ega,) = [one for one in rows if (one["method"], one["metric"]) == ("ega", "tdd")]
    assert float(ega["mean"]) == pytest.approx(1.1 / 3)
    assert (ega["runs"], ega["n"]) == ("3", "6")
    assert "0.367 ± 0.153" in paths[1].read_text(encoding="utf-8")


def test_comparison_has_ours_and_the_papers_side_by_side() -> None:
    table = comparison(summarise([one_metric({"ria": [0.5]}), one_metric({"ria": [0.25]})]))
    assert table[0] == ["Data", "Method", "TDD", "paper", "OT abs", "paper", "Ins.", "paper", "Stab.", "paper", "runs"]
    assert table[1] == [
        *("voc2012 val", "ria", "0.375 ± 0.177", "0.522 ± 0.050", "n/a", "0.249 ± 0.184"),
        *("n/a", "0.031 ± 0.013", "n/a", "0.821 ± 0.001", "2"),
    ]
    assert len(table) == 2
    assert len(comparison(summarise([one_metric({"ria": [0.5]}, data="scenes")]))) == 1
