"""Means over runs, the values of each run, and wins: from records made by hand, whose every number is known."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hand_runs import THREE_RUNS, bad, entry, one_metric, row, run_of_rows
from made_runs import make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.paired import paired
from segfaith.results.statistics.summary import (
    ASKED_METRICS,
    TABLE_METRICS,
    notes,
    predicted,
    run_labels,
    run_values,
    side,
    summarise,
    wins,
)


def made(folder: Path, seeds: int = 1, **options: Any) -> list[Run]:
    return [load_run(make_run(folder / f"s{seed}", seed=seed, maps=0, **options)) for seed in range(seeds)]


def wins_of(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Of runs of one data set."""
    return wins(run_values(runs), paired(runs, metric))


def test_each_run_counts_once_whatever_its_size() -> None:
    """Run-level means of ega .2, .5, .4: mean .3666, std with n - 1; the median is over all six samples."""
    summary = summarise(THREE_RUNS)
    ega = entry(summary, "ega")
    assert ega["mean"] == pytest.approx(1.1 / 3)
    middle = 1.1 / 3
    squares = (0.2 - middle) ** 2 + (0.5 - middle) ** 2 + (0.4 - middle) ** 2
    assert ega["std"] == pytest.approx(sqrt(squares / 2))
    assert ega["median"] == pytest.approx(0.25)
    assert (ega["runs"], ega["n"], ega["undefined"], ega["not_ok"]) == (3, 6, 0, 0)
    dea = entry(summary, "dea")
    assert dea["mean"] == pytest.approx((0.7 + 0.4 + 1.0) / 3)
    assert (dea["runs"], dea["n"]) == (3, 4)


def test_targets_that_the_model_predicts_stand_beside_all_targets() -> None:
    """An IoU of .5 counts; means are of the runs' means, the pooled drop is over images."""
    ious = {"a": 0.5, "b": 0.49, "c": 0.9}
    values = ({"a": 0.1, "b": 0.9, "c": 0.3}, {"a": 0.5, "b": 0.9})
    runs = [
        run_of_rows(
            *(row(one, "ega", tdd, s=0.2 if one == "c" else 0.6, target_iou=ious[one]) for one, tdd in of.items())
        )
        for of in values
    ]
    runs[1] = replace(runs[1], description=runs[1].description | {"settings": {"seed": 9}})
    (line,) = predicted(runs, TABLE_METRICS).query("metric == 'tdd'").to_dict("records")
    assert line["predicted_mean"] == pytest.approx((0.2 + 0.5) / 2)
    assert line["predicted_n"] == 3
    assert line["predicted_value"] == pytest.approx((0.6 * (0.1 + 0.5) / 2 + 0.2 * 0.3) / 0.8, abs=1e-5)
    beside = entry(analyse(runs).parts[0].summary, "ega")
    assert beside["predicted_mean"] == line["predicted_mean"] != beside["mean"]
    all_predicted = [enough(run, min_iou=0.5) for run in runs]
    assert predicted(all_predicted, TABLE_METRICS).empty, "it would say the same twice"
    unknown = [replace(run, records=run.records.assign(target_iou=nan)) for run in runs]
    assert predicted(unknown, TABLE_METRICS).empty


def test_summary_has_a_row_per_data_method_and_metric() -> None:
    summary = analyse([*THREE_RUNS, run_of_rows(row("x", "ega", 0.9), data="sbd")]).table("summary")
    assert len(summary) == (2 + 1) * len(TABLE_METRICS)
    assert list(TABLE_METRICS) == [
        "tdd",
        "tdd_gain",
        "odd_abs",
        "leak_abs",
        "insertion_gain",
        "fidelity",
        "fidelity_outside",
        "stability",
        "runtime_s",
    ]
    assert entry(summary, "ega", data="sbd val")["mean"] == 0.9
    assert entry(summary, "ega")["mean"] == pytest.approx(1.1 / 3), "data sets do not mix"


def test_a_single_run_has_no_spread() -> None:
    ega = entry(summarise(THREE_RUNS[:1]), "ega")
    assert ega["mean"] == pytest.approx(0.2)
    assert np.isnan(ega["std"])


def test_undefined_values_are_left_out_and_counted() -> None:
    summary = summarise(
        [run_of_rows(row("a", "ria", 0.2, stability=nan), row("b", "ria", 0.4, stability=0.8), row("c", "ria", nan))]
    )
    tdd, stability = entry(summary, "ria"), entry(summary, "ria", "stability")
    assert (tdd["mean"], tdd["n"], tdd["undefined"]) == (pytest.approx(0.3), 2, 1)
    assert (stability["mean"], stability["n"], stability["undefined"]) == (pytest.approx(0.4), 2, 1)


def test_rows_that_are_not_ok_are_counted_and_enter_nothing() -> None:
    """Even where a figure stands in such a row."""
    rows = [row("a", "ria", 0.2), bad("b", "ria", "skipped"), bad("c", "ria", "failed") | {"tdd": 99.0, "s": 0.9}]
    ria = entry(summarise([run_of_rows(*rows)]), "ria")
    assert (ria["mean"], ria["n"], ria["undefined"], ria["not_ok"]) == (0.2, 1, 0, 2)


def test_a_run_without_any_value_of_a_metric_is_no_run_of_it() -> None:
    """As GPA's, which some runs of the paper's suites leave out, or stability where it was not measured."""
    runs = [
        run_of_rows(row("a", "gpa", 0.2), row("a", "ega", 0.1)),
        run_of_rows(row("a", "gpa", nan), row("a", "ega", 0.3)),
    ]
    runs.append(run_of_rows(row("a", "ega", 0.5)))
    gpa = entry(summarise(runs), "gpa")
    assert (gpa["mean"], gpa["runs"], gpa["n"], gpa["undefined"]) == (0.2, 1, 1, 1)
    assert entry(summarise(runs), "ega")["runs"] == 3


def test_the_filter_on_s_is_off_by_default_and_inclusive() -> None:
    made = run_of_rows(row("a", "ega", 0.1, s=0.01), row("b", "ega", 0.3, s=0.05), row("c", "ega", 0.8, s=0.9))
    assert entry(analyse([made]).table("summary"), "ega")["n"] == 3
    filtered = entry(analyse([made], Options(min_s=0.05)).table("summary"), "ega")
    assert (filtered["mean"], filtered["n"], filtered["undefined"]) == (pytest.approx(0.55), 2, 0)
    nothing = analyse([made], Options(min_s=0.95)).table("summary")
    assert len(nothing) == 0
    assert "mean" in nothing


def test_summary_names_the_weights_of_every_run() -> None:
    """Random weights must be seen wherever the figures are."""
    runs = [run_of_rows(row("a", "ega", 0.1), weights=weights) for weights in ("net.pth", "random (seed 0)", "net.pth")]
    assert entry(summarise(runs), "ega")["weights"] == "net.pth; random (seed 0)"


def test_notes_tell_model_weights_seed_and_small_scores() -> None:
    rows = [row("a", "ega", 0.1, s=0.049), row("a", "dea", 0.1, s=0.049), row("b", "ega", 0.3, s=0.05)]
    digest = "0123456789abcdef" * 4
    (line,) = notes([run_of_rows(*rows, file_sha256=digest)])
    assert line.startswith("voc2012 val: net, weights net.pth (SHA-256 0123456789ab), seed 4; ")
    assert "2 of 2 samples measured, 0 skipped, 0 failed" in line
    assert "1 with s < 0.05" in line


def test_notes_say_random_weights_and_the_filters() -> None:
    runs = [run_of_rows(row("a", "ega", 0.1), weights="random (seed 0)")]
    lines = analyse(runs, Options(min_s=0.3, min_iou=0.1)).notes
    assert lines[0] == notes(runs)[0]
    assert "weights random (seed 0)" in lines[0]
    assert "SHA-256" not in lines[0]
    assert lines[1:] == [
        "Only samples with s >= 0.3 entered.",
        "Only samples with an IoU of the prediction with the target >= 0.1 entered.",
    ]


def test_notes_say_which_label_of_a_method_is_not_used() -> None:
    """Labels are given by data set: the label of another data set's run is used there."""
    runs = [run_of_rows(row("a", "ega", 0.1), data=data) for data in ("voc2012", "voc2012", "sbd")]
    labels = ("Ours", "Fused", "Fused")
    named = [
        replace(run, directory=Path(name), description=run.description | {"methods": {"ega": {"label": label}}})
        for run, name, label in zip(runs, "abc", labels, strict=True)
    ]
    sentence = "b calls ega 'Fused'; here it is 'Ours', as in an earlier run."
    assert [line for line in analyse(named).notes if " calls " in line] == [sentence]
    assert not [line for line in analyse(runs).notes if " calls " in line]


def test_notes_count_samples_that_were_skipped_or_failed() -> None:
    rows = [row("a", "ega", 0.1), row("a", "dea", 0.1)]
    rows += [bad(sample, method, "skipped") for sample in "bc" for method in ("ega", "dea")]
    rows += [bad("d", method, "failed") for method in ("ega", "dea")]
    (line,) = notes([run_of_rows(*rows)])
    assert "1 of 4 samples measured, 2 skipped, 1 failed" in line


@pytest.mark.parametrize("order", [("theirs", "ega"), ("ega", "theirs")])
def test_a_method_that_failed_alone_makes_no_failed_sample(order: tuple[str, str]) -> None:
    """Whether its rows stand first or last."""
    rows = [
        bad(sample, method, "failed") if method == "theirs" else row(sample, method, 0.3)
        for sample in "ab"
        for method in order
    ]
    assert "2 of 2 samples measured, 0 skipped, 0 failed" in notes([run_of_rows(*rows)])[0]
    assert entry(summarise([run_of_rows(*rows)]), "theirs")["not_ok"] == 2


def test_notes_of_several_runs_are_a_line_each() -> None:
    lines = notes([*THREE_RUNS, run_of_rows(row("x", "ega", 0.9), data="sbd")])
    assert [line.partition(":")[0] for line in lines] == ["voc2012 val"] * 3 + ["sbd val"]


def test_an_ablation_is_named_with_what_its_means_count_again() -> None:
    """And a change of another setting, such as the seed, makes none."""
    main, other = run_of_rows(row("a", "ega", 0.1)), run_of_rows(row("a", "ega", 0.2), seed=5)
    parameters = [{"ega": {"parameters": {}}, "dea": {"parameters": {"alpha": alpha}}} for alpha in (0.65, 0.5)]
    runs = [
        replace(made, description=made.description | {"methods": parameters[alpha]})
        for alpha, made in ((0, main), (0, other), (1, main))
    ]
    *_, line, _ = notes(runs)
    assert len(notes(runs)) == 5
    assert line.startswith(
        "net seed 4 (2) has the data, target, model, weights and seed of net seed 4, and other parameters, layer or "
        "code of dea: the numbers of the other methods are the same on the samples of both, and count once more "
    )
    assert summarise(runs).set_index(["method", "metric"]).loc[("ega", "tdd"), "runs"] == 3, "as the protocol has it"
    assert not any("has the data, target" in line for line in notes(runs[:2]))


def test_an_ablation_of_the_control_moves_the_gains_of_all_methods() -> None:
    made = run_of_rows(row("a", "ega", 0.1))
    grids = [{"ega": {"parameters": {}}, "random_cells": {"parameters": {"grid": grid}}} for grid in (14, 7)]
    *_, line = notes([replace(made, description=made.description | {"methods": grid}) for grid in grids])
    assert "other parameters, layer or code of random_cells: the numbers of the other methods are the same" in line
    assert "(but for TDD gain, from which random_cells is subtracted)" in line


def test_runs_of_other_seeds_on_the_very_same_samples_say_that_their_spread_is_not_of_images() -> None:
    seeds = [run_of_rows(row("a", "ega", 0.1), seed=seed) for seed in (0, 1)]
    *_, line = notes(seeds)
    assert line == (
        "net seed 0, net seed 1 have the same samples, model and weights: only what is drawn with the seed (ties, "
        "controls, noise) differs between their seeds, so their spread says nothing of other images."
    )
    about = seeds[1].description
    other = about | {"data": about["data"] | {"samples": ["b"]}}
    weights = about | {"model": about["model"] | {"weights": "other.pth"}}
    for changed in (other, weights):
        assert len(notes([seeds[0], replace(seeds[1], description=changed)])) == 2


def test_notes_say_that_a_run_is_not_finished() -> None:
    (line,) = notes([run_of_rows(row("id0", "ega", 0.1), samples=5)])
    assert "1 of 5 samples measured" in line
    assert "not finished, 4 samples to go" in line
    (nearly,) = notes([run_of_rows(row("id0", "ega", 0.1), samples=2)])
    assert nearly.endswith("not finished, 1 sample to go")
    assert "not finished" not in notes([run_of_rows(row("id0", "ega", 0.1), samples=1)])[0]


def test_run_values_are_means_of_what_is_defined() -> None:
    first = one_metric({"ega": [0.1, 0.3, nan], "dea": [0.5, 0.5, 0.8]}, name="first")
    second = one_metric({"ega": [0.9]}, seed=1)
    table = run_values([first, second])
    assert list(table.columns) == ["data", "run", "model", "seed", "method", "metric", "value", "n"]
    assert set(table["metric"]) == set(TABLE_METRICS) - set(ASKED_METRICS), "fidelity has no value in any row"
    assert len(table) == 3 * (len(TABLE_METRICS) - 2)
    tdd = table[table["metric"] == "tdd"]
    assert tdd["value"].tolist() == pytest.approx([0.2, 0.6, 0.9])
    assert tdd["n"].tolist() == [2, 3, 1]
    assert tdd["run"].tolist() == ["first", "first", "net seed 1"]
    assert tdd["seed"].tolist() == [4, 4, 1]
    assert table.loc[table["metric"] == "stability", ["value", "n"]].isna().sum().tolist() == [3, 0]


def test_run_values_leave_out_what_is_not_ok_and_below_the_filter() -> None:
    made = one_metric({"ega": [0.1, 0.3, 0.8]})
    made.records["status"], made.records["s"] = ["failed", "ok", "ok"], [0.9, 0.04, 0.05]
    assert run_values([made]).set_index("metric").loc["tdd", "value"] == pytest.approx(0.55)
    assert run_values([enough(made, 0.05)]).set_index("metric").loc["tdd", ["value", "n"]].tolist() == [0.8, 1]


def test_run_values_hold_every_metric_that_was_measured(tmp_path: Path) -> None:
    (one,) = made(tmp_path)
    metrics = set(run_values([one])["metric"])
    assert {"odd_fair_abs", "gini", "odd", *TABLE_METRICS} - set(ASKED_METRICS) <= metrics
    assert "evidence_ap" not in metrics, "nothing was planted"
    old = one.records.drop(columns=["odd_fair_abs", "gini", "tdd_gain"])
    assert metrics - set(run_values([replace(one, records=old)])["metric"]) == {"odd_fair_abs", "gini", "tdd_gain"}


def test_run_labels_are_all_different() -> None:
    runs = [one_metric({"ega": [1]}, name=name) for name in ("a", "b", "a", "", "a")]
    assert run_labels(runs) == ["a", "b", "a (2)", "net seed 4", "a (3)"]


def test_the_summary_is_the_mean_and_std_of_the_run_values(tmp_path: Path) -> None:
    runs = made(tmp_path, 3)
    values = run_values(runs)
    for line in summarise(runs).to_dict("records"):
        own = values[(values["method"] == line["method"]) & (values["metric"] == line["metric"])]["value"]
        assert line["mean"] == pytest.approx(np.mean(own))
        assert line["std"] == pytest.approx(np.std(own, ddof=1))


def test_wins_count_runs_by_the_metrics_direction() -> None:
    values = [{"ega": [0.1], "dea": [0.5]}, {"ega": [0.6], "dea": [0.5]}, {"ega": [0.5], "dea": [0.5]}, {"ega": [0.1]}]
    expected = {"tdd": [1, 1, 1, 3, "1/3"], "odd_abs": [1, 1, 1, 3, "1/3"]}
    for metric, counts in expected.items():
        table = wins_of([one_metric(one, metric) for one in values], metric)
        assert table.to_numpy().tolist() == [["voc2012 val", metric, "ega", "dea", *counts]]
    lower = wins_of([one_metric(values[0], "odd_abs"), one_metric(values[0], "odd_abs")], "odd_abs").iloc[0]
    assert (lower["wins"], lower["losses"]) == (2, 0), "lower is better"
    higher = wins_of([one_metric(values[0]), one_metric(values[0])], "tdd").iloc[0]
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
    table = wins_of([one_metric({"ega": [first], "dea": [second]}, metric)], metric).iloc[0]
    better = -found if metric == "runtime_s" else found
    assert (table["wins"], table["ties"], table["losses"]) == (better == 1, better == 0, better == -1)


def test_wins_have_a_row_per_pair_and_data_set() -> None:
    three = {"gpa": [0.3], "ega": [0.2], "dea": [0.5]}
    runs = [one_metric(three), one_metric(three, data="sbd"), one_metric(three, data="sbd", seed=1)]
    table = analyse(runs).table("wins")
    table = table[table["metric"] == "tdd"]
    pairs = [["gpa", "ega"], ["gpa", "dea"], ["ega", "dea"]]
    assert table[["first", "second"]].to_numpy().tolist() == pairs * 2
    assert table["count"].tolist() == ["better", "worse", "worse", "2/2", "0/2", "0/2"], "of a single run in words"
    assert wins_of([one_metric({"ega": [0.2], "dea": [0.2]})], "tdd")["count"].tolist() == ["draw"]
    assert wins_of([one_metric(three), one_metric({"gpa": [0.3]}, seed=1)], "tdd")["count"].tolist() == [
        "1/1",
        "0/1",
        "0/1",
    ]
    assert len(wins_of([one_metric(three)], "stability")) == 0


def test_wins_by_leakage_are_counted_on_the_samples_that_both_methods_have() -> None:
    """DEA leaks less where both have a TDD; EGA's mean is lower, as it has no leakage on the two hard samples."""
    hard = {"ega": [0.2, 0.3, nan, nan], "dea": [0.1, 0.2, 0.9, 0.9], "gpa": [nan, nan, 0.5, nan]}
    runs = [one_metric(hard, "leak_abs", name="one"), one_metric(hard, "leak_abs", name="two", seed=1)]
    table = wins_of(runs, "leak_abs").set_index(["first", "second"])
    assert table.loc[("ega", "dea"), ["wins", "losses", "runs"]].tolist() == [0, 2, 2]
    assert table.loc[("dea", "gpa"), ["wins", "losses", "runs"]].tolist() == [0, 2, 2]
    assert table.loc[("ega", "gpa"), ["runs", "count"]].tolist() == [0, "0/0"], "they share no sample"
    means = run_values(runs)
    own = means[(means["metric"] == "leak_abs") & (means["run"] == "one")].set_index("method")["value"]
    assert own["ega"] < own["dea"], "the run-level means, which the tables show"
    other = wins_of([one_metric(hard, name="one"), one_metric(hard, name="two", seed=1)], "tdd").set_index(
        ["first", "second"]
    )
    assert other.loc[("ega", "dea"), "losses"] == 2, "of other metrics the run-level means count"


def test_wins_of_what_ranks_nothing_are_an_error() -> None:
    with pytest.raises(SettingsError, match="metric that ranks methods, got 'odd'; choose one of tdd_drop, tdd, "):
        wins_of([one_metric({"ega": [1]})], "odd")
    with pytest.raises(SettingsError, match="unknown metric 'tdds'; did you mean 'tdd'"):
        wins_of([one_metric({"ega": [1]})], "tdds")


def test_the_papers_numbers_stand_beside_its_data_sets_methods_and_metrics_alone() -> None:
    four = {"gpa": [0.2], "dea": [0.5], "dea@alpha=0.5": [0.4], "mask": [0.1]}
    runs = [
        one_metric(four),
        one_metric(four, data="sbd"),
        one_metric(four, data="scenes"),
        one_metric(four, split="train"),
    ]
    table = analyse(runs).table("summary")
    known = table[table["paper_mean"].notna()]
    assert set(known["data"]) == {"voc2012 val", "sbd val"}
    assert set(known["method"]) == {"gpa", "dea"}
    assert set(known["metric"]) == {"tdd", "odd_abs", "insertion_gain", "stability"}
    assert known["paper_std"].notna().all()
    dea = known[(known["method"] == "dea") & (known["metric"] == "odd_abs")].set_index("data")
    assert dea.loc["voc2012 val", ["paper_mean", "paper_std"]].tolist() == [0.398, 0.313]
    assert dea.loc["sbd val", ["paper_mean", "paper_std"]].tolist() == [0.235, 0.134]
