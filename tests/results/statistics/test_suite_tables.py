"""Tables of suites: run-level values, wins, the paper's numbers, LaTeX, and the page of conclusions."""

import csv
import re
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_runs import TDD, VARIANTS, make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS
from segfaith.results.records.select import own_methods
from segfaith.results.report.conclusions import markdown_table, write_conclusions
from segfaith.results.report.latex import latex
from segfaith.results.statistics.claims import verdict_words
from segfaith.results.statistics.summary import (
    TABLE_METRICS,
    comparison,
    run_labels,
    run_values,
    side,
    summarise,
    wins,
    with_paper,
)


def run(
    values: dict[str, list[float]], metric: str = "tdd", data: str = "voc2012", split: str = "val", **settings: Any
) -> Run:
    """A run with one metric's values by method, a sample each; the other metrics are undefined."""
    rows = [
        dict.fromkeys(TABLE_METRICS, nan)
        | {"sample_id": f"i{place}", "method": method, "s": 0.5, "status": "ok", "reason": "", metric: value}
        for method, column in values.items()
        for place, value in enumerate(column)
    ]
    description = {
        "data": {"name": data, "split": split, "samples": ["i0"]},
        "model": {"name": "net", "weights": "net.pth"},
        "settings": {"seed": 4} | settings,
    }
    return description, pd.DataFrame(rows)


def made(folder: Path, seeds: int = 1, **options: Any) -> list[Run]:
    return [load_run(make_run(folder / f"s{seed}", seed=seed, maps=0, **options)) for seed in range(seeds)]


# Run-level values


def test_run_values_are_means_of_what_is_defined() -> None:
    first = run({"ega": [0.1, 0.3, nan], "dea": [0.5, 0.5, 0.8]}, name="first")
    second = run({"ega": [0.9]}, seed=1)
    table = run_values([first, second])
    assert list(table.columns) == ["data", "run", "model", "seed", "method", "metric", "value", "n"]
    assert len(table) == 3 * len(TABLE_METRICS)
    tdd = table[table["metric"] == "tdd"]
    assert tdd["value"].tolist() == pytest.approx([0.2, 0.6, 0.9])
    assert tdd["n"].tolist() == [2, 3, 1]
    assert tdd["run"].tolist() == ["first", "first", "net seed 1"]
    assert tdd["seed"].tolist() == [4, 4, 1]
    assert table.loc[table["metric"] == "stability", ["value", "n"]].isna().sum().tolist() == [3, 0]


def test_run_values_leave_out_what_is_not_ok_and_below_the_filter() -> None:
    description, records = run({"ega": [0.1, 0.3, 0.8]})
    records["status"], records["s"] = ["failed", "ok", "ok"], [0.9, 0.04, 0.05]
    assert run_values([(description, records)]).set_index("metric").loc["tdd", "value"] == pytest.approx(0.55)
    assert run_values([(description, records)], 0.05).set_index("metric").loc["tdd", ["value", "n"]].tolist() == [
        0.8,
        1,
    ]


def test_run_values_hold_every_metric_that_was_measured(tmp_path: Path) -> None:
    (one,) = made(tmp_path)
    metrics = set(run_values([one.run])["metric"])
    assert {"odd_fair_abs", "gini", "odd", *TABLE_METRICS} <= metrics
    assert "evidence_ap" not in metrics, "nothing was planted"
    old = one.records.drop(columns=["odd_fair_abs", "gini", "tdd_gain"])
    assert metrics - set(run_values([(one.description, old)])["metric"]) == {"odd_fair_abs", "gini", "tdd_gain"}


def test_run_labels_are_all_different() -> None:
    runs = [run({"ega": [1]}, name=name) for name in ("a", "b", "a", "", "a")]
    assert run_labels(runs) == ["a", "b", "a (2)", "net seed 4", "a (3)"]


def test_the_summary_is_the_mean_and_std_of_the_run_values(tmp_path: Path) -> None:
    runs = [one.run for one in made(tmp_path, 3)]
    values = run_values(runs)
    for row in summarise(runs).to_dict("records"):
        own = values[(values["method"] == row["method"]) & (values["metric"] == row["metric"])]["value"]
        assert row["mean"] == pytest.approx(np.mean(own))
        assert row["std"] == pytest.approx(np.std(own, ddof=1))


# Wins


def test_wins_count_runs_by_the_metrics_direction() -> None:
    values = [{"ega": [0.1], "dea": [0.5]}, {"ega": [0.6], "dea": [0.5]}, {"ega": [0.5], "dea": [0.5]}, {"ega": [0.1]}]
    expected = {"tdd": [1, 1, 1, 3, "1/3"], "odd_abs": [1, 1, 1, 3, "1/3"]}
    for metric, counts in expected.items():
        table = wins([run(one, metric) for one in values], metric)
        assert table.to_numpy().tolist() == [["voc2012 val", metric, "ega", "dea", *counts]]
    lower = wins([run(values[0], "odd_abs"), run(values[0], "odd_abs")], "odd_abs").iloc[0]
    assert (lower["wins"], lower["losses"]) == (2, 0), "lower is better"
    higher = wins([run(values[0]), run(values[0])], "tdd").iloc[0]
    assert (higher["wins"], higher["losses"], higher["count"]) == (0, 2, "0/2")


@pytest.mark.parametrize(
    ("metric", "first", "second", "found"),
    [
        ("tdd", 0.5, 0.5 + 0.99e-4, 0),
        ("tdd", 0.5, 0.5 + 1.01e-4, -1),
        ("stability", 0.9001, 0.9, 1),
        ("runtime_s", 0.184, 0.188, 0),
        ("runtime_s", 2.0, 1.91, 0),
        ("runtime_s", 2.0, 1.89, 1),
        ("runtime_s", 1e-5, 2e-5, -1),
        ("runtime_s", 0.0, 0.0, 0),
    ],
)
def test_means_that_hardly_differ_are_a_draw(metric: str, first: float, second: float, found: int) -> None:
    """And in win counts a tie, whichever direction is better."""
    assert side(first, second, metric) == found
    assert side(second, first, metric) == -found
    table = wins([run({"ega": [first], "dea": [second]}, metric)], metric).iloc[0]
    better = -found if metric == "runtime_s" else found
    assert (table["wins"], table["ties"], table["losses"]) == (better == 1, better == 0, better == -1)


def test_wins_have_a_row_per_pair_and_data_set() -> None:
    three = {"gpa": [0.3], "ega": [0.2], "dea": [0.5]}
    table = wins([run(three), run(three, data="sbd"), run(three, data="sbd", seed=1)], "tdd")
    pairs = [["gpa", "ega"], ["gpa", "dea"], ["ega", "dea"]]
    assert table[["first", "second"]].to_numpy().tolist() == pairs * 2
    assert table["count"].tolist() == ["better", "worse", "worse", "2/2", "0/2", "0/2"], "of a single run in words"
    assert wins([run({"ega": [0.2], "dea": [0.2]})], "tdd")["count"].tolist() == ["draw"]
    assert wins([run(three), run({"gpa": [0.3]}, seed=1)], "tdd")["count"].tolist() == ["1/1", "0/1", "0/1"]
    assert len(wins([run(three)], "stability")) == 0


def test_wins_by_leakage_are_counted_on_the_samples_that_both_methods_have() -> None:
    """DEA leaks less where both have a TDD; EGA's mean is lower, as it has no leakage on the two hard samples."""
    hard = {"ega": [0.2, 0.3, nan, nan], "dea": [0.1, 0.2, 0.9, 0.9], "gpa": [nan, nan, 0.5, nan]}
    runs = [run(hard, "leak_abs", name="one"), run(hard, "leak_abs", name="two", seed=1)]
    table = wins(runs, "leak_abs").set_index(["first", "second"])
    assert table.loc[("ega", "dea"), ["wins", "losses", "runs"]].tolist() == [0, 2, 2]
    assert table.loc[("dea", "gpa"), ["wins", "losses", "runs"]].tolist() == [0, 2, 2]
    assert table.loc[("ega", "gpa"), ["runs", "count"]].tolist() == [0, "0/0"], "they share no sample"
    means = run_values(runs)
    own = means[(means["metric"] == "leak_abs") & (means["run"] == "one")].set_index("method")["value"]
    assert own["ega"] < own["dea"], "the run-level means, which the tables show"
    other = wins([run(hard, name="one"), run(hard, name="two", seed=1)], "tdd").set_index(["first", "second"])
    assert other.loc[("ega", "dea"), "losses"] == 2, "of other metrics the run-level means count"


def test_wins_of_what_ranks_nothing_are_an_error() -> None:
    with pytest.raises(SettingsError, match="expected a metric that ranks methods, got 'odd'; choose one of tdd, "):
        wins([run({"ega": [1]})], "odd")
    with pytest.raises(SettingsError, match="unknown metric 'tdds'; did you mean 'tdd'"):
        wins([run({"ega": [1]})], "tdds")


# The paper's numbers


def test_the_papers_numbers_stand_beside_its_data_sets_methods_and_metrics_alone() -> None:
    four = {"gpa": [0.2], "dea": [0.5], "dea@alpha=0.5": [0.4], "mask": [0.1]}
    runs = [run(four), run(four, data="sbd"), run(four, data="scenes"), run(four, split="train")]
    table = with_paper(summarise(runs))
    known = table[table["paper_mean"].notna()]
    assert set(known["data"]) == {"voc2012 val", "sbd val"}
    assert set(known["method"]) == {"gpa", "dea"}
    assert set(known["metric"]) == {"tdd", "odd_abs", "insertion_gain", "stability"}
    assert known["paper_std"].notna().all()
    dea = known[(known["method"] == "dea") & (known["metric"] == "odd_abs")].set_index("data")
    assert dea.loc["voc2012 val", ["paper_mean", "paper_std"]].tolist() == [0.398, 0.313]
    assert dea.loc["sbd val", ["paper_mean", "paper_std"]].tolist() == [0.235, 0.134]


def test_comparison_has_ours_and_the_papers_side_by_side() -> None:
    table = comparison(summarise([run({"ria": [0.5]}), run({"ria": [0.25]})]))
    assert table[0] == ["Data", "Method", "TDD", "paper", "OT abs", "paper", "Ins.", "paper", "Stab.", "paper", "runs"]
    assert table[1] == [
        *("voc2012 val", "ria", "0.375 ± 0.177", "0.522 ± 0.050", "n/a", "0.249 ± 0.184"),
        *("n/a", "0.031 ± 0.013", "n/a", "0.821 ± 0.001", "2"),
    ]
    assert len(table) == 2
    assert len(comparison(summarise([run({"ria": [0.5]}, data="scenes")]))) == 1


# LaTeX


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    text = latex([run({"my_method@a=50%&b#{~^$\\": [0.5]}, data="[set]")])
    line = next(line for line in text.splitlines() if line.startswith("{[}set"))
    assert line.startswith(
        r"{[}set{]} val & my\_method@a=50\%\&b\#\{\textasciitilde{}\textasciicircum{}\$\textbackslash{} & 0.500 & "
    )
    assert line.endswith(r" \\")
    assert len(re.findall(r"(?<!\\)&", line)) == 10, "eleven cells"


def test_latex_is_booktabs_with_a_rule_between_data_sets() -> None:
    four = {"gpa": [0.2, 0.25], "random_cells": [0.5, 0.5]}
    text = latex([run(four), run(four, data="sbd"), run({"gpa": [0.3]}, data="sbd")])
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
    text = latex([run({"gpa": [0.2]}, data="scenes")])
    assert text.count("\\begin{tabular}") == 2, "Table 1 and the run-level means"


def test_latex_has_win_counts_and_run_level_means() -> None:
    runs = [run({"gpa": [0.2, 0.4], "dea": [0.5]}, data="scenes"), run({"gpa": [0.6], "dea": [0.5]}, data="scenes")]
    _, wins, means = latex(runs).split("\\begin{tabular}")[1:]
    assert r"scenes val & gpa : dea & 1/2 & " in wins
    lines = [line.split(" & ")[1:3] for line in means.splitlines() if " & " in line]
    assert lines == [["Method", "TDD"], ["gpa", "0.300"], ["dea", "0.500"], ["gpa", "0.600"], ["dea", "0.500"]]


# Conclusions

FILES = [
    *("conclusions.md", "claims.md", "table.tex", "runs.csv", "paper.csv", "claims.csv", "wins.csv", "rankings.csv"),
    *("concordance.csv", "areas.csv", "curves.csv", "robust.csv", "drops.csv", "strata.csv", "leakage.csv"),
    *("map_properties.csv", "randomisation.csv"),
]


def test_conclusions_of_full_runs_write_everything(tmp_path: Path) -> None:
    paths = write_conclusions(made(tmp_path / "runs", 2), tmp_path / "out")
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    for path in paths:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                assert len(list(csv.DictReader(file))) > 0, path.name
    page = paths[0].read_text(encoding="utf-8")
    assert "not computed" not in page
    verdicts = pd.read_csv(paths[5])["holds"].value_counts()
    assert verdicts.sum() == 15 == verdicts.reindex(["holds", "fails", "draw"]).sum()
    assert f"voc2012 val: {', '.join(verdict_words(pd.read_csv(paths[5])['holds']))}." in page
    assert "| DEA's TDD is above EGA's in every run | holds | 2/2 runs | " in page
    assert "- Kendall's W of voc2012 val: TDD over occlusion operators (own methods): 0." in page
    assert re.search(r"own methods\): 0\.\d\d, beyond chance 0\.\d\d, p 0\.\d{3} \(4 methods, 3 settings", page)
    assert "| voc2012 val | netA | 1 classifier, s 0.700 | 0.720 (8) | " in page
    assert "\n\n\n" not in page
    for heading, block in re.findall(r"^## (.+)\n\n((?:.|\n)+?)(?=\n## |\Z)", page, re.MULTILINE):
        tables = re.findall(r"(?:^\|.*\n?)+", block, re.MULTILINE)
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
            assert len(widths) == 1, (heading, table)
    assert paths[1].read_text(encoding="utf-8").count("| holds |") >= 10


def test_conclusions_of_old_records_say_what_is_missing_and_why(tmp_path: Path) -> None:
    (one,) = made(tmp_path / "runs", methods=("ega", "dea", "random_cells"), data="folder")
    newer = [*("odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far", "energy_inside", "pointing", "gini")]
    newer += [name for name in one.records if re.fullmatch("s_(fair|near|middle|far)_deleted", name)]
    old = replace(
        one,
        records=one.records.drop(columns=newer),
        curves=pd.DataFrame(columns=[*CURVE_COLUMNS]),
        randomisation=pd.DataFrame(columns=[*RANDOMISATION_COLUMNS]),
    )
    paths = write_conclusions([old], tmp_path / "out")
    names = {path.name for path in paths}
    absent = {"paper.csv", "rankings.csv", "areas.csv", "curves.csv", "leakage.csv", "map_properties.csv"}
    assert set(FILES) - names == absent | {"randomisation.csv"}
    page = paths[0].read_text(encoding="utf-8")
    for words in (
        "- not computed: the comparison with the paper: the paper's numbers are of its four methods",
        "- not computed: Kendall's W, folder val: not testable: no run has curves; name several operators or several k",
        "; of TDD over occlusion operators (all methods), TDD over occlusion operators (own methods), TDD over values",
        "- not computed: areas: folder val: no run has curves",
        "- not computed: fair leakage: no run has values of odd_fair_abs",
        "- not computed: map properties: no run has values of pointing",
        "- not computed: randomisation: no run has made the randomisation check",
        "| RIA has the highest TDD | not testable | 0/0 runs |  | no run has a value of TDD for ria, gpa |",
    ):
        assert words in page, words


def test_conclusions_obey_the_filter_on_s(tmp_path: Path) -> None:
    data = made(tmp_path / "runs")
    every = pd.read_csv(write_conclusions(data, tmp_path / "all")[3])
    paths = write_conclusions(data, tmp_path / "some", 0.05)
    some = pd.read_csv(paths[3])
    leak = [one[(one["method"] == "ega") & (one["metric"] == "odd_abs")].iloc[0] for one in (every, some)]
    assert leak[0]["n"] - leak[1]["n"] == 1
    assert leak[0]["value"] > 1.5 * leak[1]["value"], "the sample with s = .01 rules the mean"
    assert "Only samples with s >= 0.05 entered." in paths[0].read_text(encoding="utf-8")
    assert "0 <= s < 0.05" not in paths[0].read_text(encoding="utf-8")


def test_own_methods_are_neither_controls_nor_variants(tmp_path: Path) -> None:
    assert own_methods(made(tmp_path / "a", methods=(*TDD, *VARIANTS))) == ["gpa", "ega", "ria", "dea"]
    alone = made(tmp_path / "b", methods=("random_cells", "dea@alpha=0.5", "ega"))
    assert own_methods(alone) == ["dea@alpha=0.5", "ega"], "a variant without its base is a method"


def test_bars_within_cells_of_markdown_are_escaped() -> None:
    assert markdown_table([["|a|"], ["b"]]) == [r"| \|a\| |", "| --- |", "| b |"]
