"""Tables of suites: run-level values, wins, and the paper's numbers."""

from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_runs import TDD, VARIANTS, make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import own_methods
from segfaith.results.statistics.summary import (
    TABLE_METRICS,
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


# Methods under test


def test_own_methods_are_neither_controls_nor_variants(tmp_path: Path) -> None:
    assert own_methods(made(tmp_path / "a", methods=(*TDD, *VARIANTS))) == ["gpa", "ega", "ria", "dea"]
    alone = made(tmp_path / "b", methods=("random_cells", "dea@alpha=0.5", "ega"))
    assert own_methods(alone) == ["dea@alpha=0.5", "ega"], "a variant without its base is a method"
