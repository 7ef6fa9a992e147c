"""Paired tests: against scipy and loops on hand-made values, refusals in words, and the false-positive rate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb, inf, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hand_runs import by_chance, by_image, drawn, repeated, twice
from made_runs import run_of
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run
from segfaith.results.records.select import enough, grouped, methods_of
from segfaith.results.statistics import paired as significance
from segfaith.results.statistics import wilcoxon as testing
from segfaith.results.statistics.friedman import Friedman, friedman
from segfaith.results.statistics.paired import compare, family, over_page, paired
from segfaith.results.statistics.power import images_needed
from segfaith.results.statistics.wilcoxon import holm, rank_biserial

WORDS = "not testable: "


def compared(runs: Sequence[Run], metric: str, methods: Sequence[str] | None = None, **options: Any) -> pd.DataFrame:
    """`compare` on each data set, with the family of all of them."""
    names = family(methods_of(runs), methods)
    tables = [compare(paired(group, metric), names, **options) for group in grouped(runs).values()]
    return pd.concat(tables, ignore_index=True)


def friedman_of(runs: Sequence[Run], metric: str, **options: Any) -> Friedman:
    return friedman(paired(runs, metric), **options)


def ablation_of(run: Run, parameters: Mapping[str, Any], **changes: Sequence[float]) -> Run:
    """The same data, model, weights and seed with other parameters; `changes`: values of a method."""
    about = run.description | {"methods": {name: {"parameters": values} for name, values in parameters.items()}}
    records = run.records
    for name, column in changes.items():
        records = records.assign(tdd=records["tdd"].mask(records["method"] == name, pd.Series(np.tile(column, 3))))
    return run_of(about, records)


def only(table: pd.DataFrame) -> dict[str, Any]:
    (row,) = table.to_dict("records")
    return {str(key): value for key, value in row.items()}


def refused(row: Mapping[str, Any], why: str) -> None:
    """No statement at all, but for counts and means."""
    assert row["why"] == WORDS + why
    assert all(np.isnan(row[name]) for name in ("p", "p_holm", "statistic", "effect", "low", "high"))
    assert not row["significant"]
    assert row["p_method"] == ""


def test_the_exact_p_value_effect_and_interval_are_scipys() -> None:
    values = drawn(20, a=0.5, b=0.43)
    row = only(compared(twice(values), "tdd"))
    differences = np.subtract(values["a"], values["b"])
    expected = stats.wilcoxon(values["a"], values["b"], method="exact")
    interval = stats.ttest_1samp(differences, 0).confidence_interval()  # where all s are equal, drops pool as means
    assert (row["images"], row["runs"], row["p_method"], row["why"], row["note"]) == (20, 2, "exact", "", "")
    assert row["statistic"] == expected.statistic
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-12) == row["p_holm"]
    assert (row["of"], row["difference"]) == ("pooled drop", pytest.approx(differences.mean()))
    assert (row["value_first"], row["value_second"]) == pytest.approx((np.mean(values["a"]), np.mean(values["b"])))
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert row["low"] < row["difference"] < row["high"]


def test_the_exact_p_value_is_the_share_of_signs_at_least_as_extreme() -> None:
    differences = np.array([0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7, 0.8])
    row = only(compared(twice({"a": differences, "b": np.zeros(8)}), "tdd"))
    # all 2^8 signs of the ranks 1 ... 8; the smaller sum of ranks is 2 + 6
    sums = [sum(rank for rank in range(1, 9) if choice >> (rank - 1) & 1) for choice in range(2**8)]
    assert row["statistic"] == 8
    assert row["p"] == pytest.approx(2 * sum(one <= 8 for one in sums) / 2**8)


@pytest.mark.parametrize("count", [8, 13])
def test_with_zeros_and_ties_all_signs_are_counted_with_pratts_ranks(count: int) -> None:
    differences = np.array([0.0, 0.0, *[0.1, 0.1, -0.1, 0.2, 0.3, 0.4, -0.1, 0.5, 0.6, 0.2, 0.2][: count - 2]])
    row = only(compared(twice({"a": differences, "b": np.zeros(count)}), "tdd"))
    ranks = stats.rankdata(np.abs(differences))
    assert ranks[0] == 1.5, "zeros are ranked"
    signed, observed = ranks[differences != 0], ranks[differences > 0].sum()
    signs = np.array(np.meshgrid(*[[0, 1]] * len(signed))).reshape(len(signed), -1)
    sums = signs.T @ signed
    expected = 2 * min((sums >= observed - 1e-9).mean(), (sums <= observed + 1e-9).mean())
    assert row["p_method"] == "permutation"
    assert row["p"] == pytest.approx(min(1, expected))


def test_few_differences_among_many_zeros_are_not_left_to_the_normal_approximation() -> None:
    differences = np.zeros(200)
    differences[:6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    row = only(compared(twice({"a": differences, "b": np.zeros(200)}), "tdd"))
    normal = stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue
    assert row["p_method"] == "permutation"
    assert row["p"] == pytest.approx(2 / 2**6, abs=0.008)
    assert normal < 0.5 * row["p"], "here the approximation would claim too much"


def test_many_images_take_the_normal_approximation_with_pratts_zeros() -> None:
    values = drawn(70, a=0.5, b=0.46)
    values["b"][:9] = values["a"][:9]
    row = only(compared(twice(values), "tdd"))
    expected = stats.wilcoxon(np.round(np.subtract(values["a"], values["b"]), 12), zero_method="pratt", method="approx")
    assert row["p_method"] == "asymptotic"
    assert (row["statistic"], row["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    other = stats.wilcoxon(np.subtract(values["a"], values["b"]), zero_method="wilcox", method="approx")
    assert row["p"] != pytest.approx(other.pvalue, rel=1e-3), "the data tell Pratt's zeros from dropped ones"


def test_the_effect_by_a_loop() -> None:
    differences = np.array([0.0, 0.3, -0.1, 0.3, 0.0, 0.7, -0.2, 0.2])
    total = favour = 0.0
    for one in differences:
        smaller = sum(abs(other) < abs(one) for other in differences)
        equal = sum(abs(other) == abs(one) for other in differences)
        rank = smaller + (equal + 1) / 2
        total += rank
        favour += rank * (1 if one > 0 else -1 if one < 0 else 0)
    assert total == 8 * 9 / 2
    assert rank_biserial(differences) == pytest.approx(favour / total)
    assert rank_biserial(-differences) == pytest.approx(-favour / total)
    assert rank_biserial(np.array([0.1, 0.2, 0.3])) == 1
    assert np.isnan(rank_biserial(np.zeros(4)))
    # six images of a hundred are no perfect effect: their ranks are 95 ... 100 of 1 ... 100
    assert rank_biserial(np.r_[np.zeros(94), np.arange(1.0, 7)]) == pytest.approx(sum(range(95, 101)) / 5050)


def test_holms_correction_by_a_loop_within_each_data_set() -> None:
    voc, sbd = drawn(20, 3, a=0.5, b=0.44, c=0.42, d=0.49), drawn(20, 4, a=0.5, b=0.48, c=0.4, d=0.5)
    table = compared([*twice(voc), *twice(sbd, data="sbd")], "tdd")
    assert len(table) == 12
    for data, values in (("voc2012 val", voc), ("sbd val", sbd)):
        part = table[table["data"] == data]
        p = [
            float(stats.wilcoxon(np.subtract(values[one], values[other]).round(12), method="exact").pvalue)
            for one, other in combinations("abcd", 2)
        ]
        assert part["p"].to_list() == pytest.approx(p)
        expected, least = [nan] * 6, 0.0
        for place, index in enumerate(sorted(range(6), key=lambda one: p[one])):
            least = max(least, min(1.0, (6 - place) * p[index]))
            expected[index] = least
        assert part["p_holm"].to_list() == pytest.approx(expected)
        assert part["significant"].to_list() == [one < 0.05 for one in expected]
    assert table["significant"].any()
    assert not table["significant"].all()


def test_the_page_corrects_over_all_metrics_and_counts_no_test_twice() -> None:
    """TDD gain is TDD less one number an image: its tests are those of TDD. Stability has tests of its own."""
    values = drawn(20, 3, a=0.5, b=0.44, c=0.42)
    runs = twice(values)
    control = np.random.default_rng(0).uniform(0, 0.2, 20)
    other = drawn(20, 8, a=0.9, b=0.88, c=0.8)
    for place, run in enumerate(runs):
        records = run.records.sort_values(["method", "sample_id"], kind="stable").reset_index(drop=True)
        stable = np.concatenate([other[name] for name in "abc"]) + 0.01 * place
        gain = records["tdd"] - np.tile(control, 3)
        runs[place] = replace(run, records=records.assign(stability=stable, tdd_gain=gain))
    single = [compared(runs, metric) for metric in ("tdd", "tdd_gain", "stability")]
    table = over_page(pd.concat(single, ignore_index=True))
    pd.testing.assert_frame_equal(table[list(single[0])], pd.concat(single, ignore_index=True))
    assert table["repeats"].to_list() == [""] * 3 + ["tdd"] * 3 + [""] * 3
    tests = [*single[0]["p"], *single[2]["p"]]
    expected, least = [nan] * 6, 0.0
    for place, index in enumerate(sorted(range(6), key=lambda one: tests[one])):
        least = max(least, min(1.0, (6 - place) * tests[index]))
        expected[index] = least
    assert table["p_page"].to_list() == pytest.approx([*expected[:3], *expected[:3], *expected[3:]])
    assert table["apart"].to_list() == [p < 0.05 for p in table["p_page"]]
    lacking = [
        replace(
            run, records=run.records.assign(tdd_gain=run.records["tdd_gain"].where(run.records["sample_id"] != "img00"))
        )
        for run in runs
    ]
    again = over_page(pd.concat([compared(lacking, metric) for metric in ("tdd", "tdd_gain")], ignore_index=True))
    assert set(again["repeats"]) == {""}, "on other images it is another test"
    untested = over_page(compared(runs[:1], "tdd"))
    assert untested["p_page"].isna().all()
    assert not untested["apart"].any()


def test_pairs_that_are_not_testable_do_not_enter_holms_family() -> None:
    values = drawn(20, a=0.5, b=0.42) | {"c": [nan] * 20}
    table = compared(twice(values), "tdd").set_index(["first", "second"])
    assert table.loc[("a", "b"), "p_holm"] == table.loc[("a", "b"), "p"]
    for pair in (("a", "c"), ("b", "c")):
        refused(table.loc[pair].to_dict(), "c has no defined value here")


def test_an_image_counts_once_however_many_runs_hold_it() -> None:
    rng = np.random.default_rng(5)
    values = drawn(24, a=0.5, b=0.4)
    noisy = [
        by_image(
            {name: (np.array(column) + rng.normal(0, 0.01, 24)).tolist() for name, column in values.items()}, seed=seed
        )
        for seed in range(6)
    ]
    distinct = [by_image(values, [f"run{n}-img{i:02d}" for i in range(24)], seed=n) for n in range(6)]
    row, independent = only(compared(noisy, "tdd")), only(compared(distinct, "tdd"))
    assert (row["images"], row["runs"]) == (24, 6)
    assert (independent["images"], independent["runs"]) == (144, 6)
    # six times as many images: an interval about sqrt(6) times narrower, which the same images must not give
    width, other = row["high"] - row["low"], independent["high"] - independent["low"]
    assert width == pytest.approx(sqrt(6) * other, rel=0.2)
    assert row["p"] > 10 * independent["p"]


def test_an_image_is_averaged_over_the_runs_that_have_both_values() -> None:
    # run 0 is easy, and b failed there on img00; the difference of img00 is that of run 1 alone
    easy = by_image({"a": [0.9] * 8, "b": [nan, *[0.8] * 7]})
    hard = by_image({"a": np.arange(8) / 100 + 0.3, "b": [0.28] * 8}, seed=1)
    row = only(compared([easy, hard], "tdd"))
    expected = [0.02] + [(0.1 + 0.02 + i / 100) / 2 for i in range(1, 8)]
    assert row["images"] == 8
    assert row["difference"] == pytest.approx(np.mean(expected))
    assert row["value_first"] == pytest.approx((0.3 + sum((0.9 + 0.3 + i / 100) / 2 for i in range(1, 8))) / 8)


def test_rows_that_failed_are_undefined_or_have_a_small_score_are_left_out() -> None:
    values = drawn(16, a=0.5, b=0.4)
    made = by_image(values)
    spoiled = made.records.copy()
    spoiled.loc[(spoiled["sample_id"] == "img00") & (spoiled["method"] == "a"), "status"] = "failed"
    spoiled.loc[(spoiled["sample_id"] == "img01") & (spoiled["method"] == "b"), "tdd"] = nan
    spoiled.loc[(spoiled["sample_id"] == "img02") & (spoiled["method"] == "b"), "tdd"] = inf
    spoiled.loc[spoiled["sample_id"] == "img03", "s"] = 0.01
    runs = repeated(replace(made, records=spoiled))
    clean = {name: column[4:] for name, column in values.items()}
    row, expected = only(compared([enough(run, 0.05) for run in runs], "tdd")), only(compared(twice(clean), "tdd"))
    assert row["images"] == 12
    for name in ("value_first", "value_second", "difference", "effect", "statistic", "p", "p_holm"):
        assert row[name] == pytest.approx(expected[name]), name
    assert only(compared(runs, "tdd"))["images"] == 13


def test_what_floats_add_in_rounding_is_no_difference() -> None:
    values = {"a": [0.1 + 0.2] * 10, "b": [0.3] * 10}
    assert values["a"] != values["b"]
    refused(only(compared(repeated(by_image(values)), "tdd")), "all differences are zero (10 images)")


def test_an_ablation_is_no_second_run_and_weighs_its_images_no_more() -> None:
    """Two seeds, and the first one again with another alpha of c: two runs; a and b are what they are without it."""
    values, other = drawn(24, 1, a=0.5, b=0.47, c=0.4), drawn(24, 2, a=0.5, b=0.47, c=0.4)
    main, second = by_image(values), by_image(other, seed=1)
    again = ablation_of(main, {"c": {"alpha": 0.5}}, c=drawn(24, 3, c=0.45)["c"])
    with_it, without = (
        compared(runs, "tdd").set_index(["first", "second"]) for runs in ([main, second, again], [main, second])
    )
    assert set(with_it["runs"]) == {2}
    pair = ("a", "b")
    for name in ("images", "p", "difference", "low", "high", "effect", "value_first"):
        assert with_it.loc[pair, name] == pytest.approx(without.loc[pair, name]), name
    assert with_it.loc[("a", "c"), "difference"] != pytest.approx(without.loc[("a", "c"), "difference"], abs=1e-4)
    refused(only(compared([main, again], "tdd", methods=["a", "b"])), significance.ONE_RUN)
    ranked = friedman_of([main, again], "tdd")
    assert ranked.why == WORDS + significance.ONE_RUN
    assert ranked.runs == 1
    assert friedman_of([main, second, again], "tdd").runs == 2


def test_a_single_run_is_refused_unless_asked_for() -> None:
    values = drawn(20, a=0.5, b=0.3, c=0.1)
    runs = [by_image(values)]
    table = compared(runs, "tdd")
    for row in table.to_dict("records"):
        refused({str(key): value for key, value in row.items()}, significance.ONE_RUN)
        assert row["runs"] == 1
        assert row["images"] == 20
        assert row["difference"] > 0.1
    assert "add runs, or ask with single_run=True" in significance.ONE_RUN
    asked = compared(runs, "tdd", single_run=True)
    assert asked["p"].to_list() == pytest.approx(compared(twice(values), "tdd")["p"].to_list())
    assert set(asked["note"]) == {"one run: says nothing of other seeds or models"}
    one, allowed = friedman_of(runs, "tdd"), friedman_of(runs, "tdd", single_run=True)
    assert one.why == WORDS + significance.ONE_RUN
    assert np.isnan(one.p)
    assert one.nemenyi.empty
    assert one.ranks == allowed.ranks
    assert allowed.p < 1e-4
    assert allowed.note.startswith("one run:")


def test_each_pair_says_how_many_images_would_tell_it_apart() -> None:
    """Of a single run too, which plans the next one; of fewer than six differences nothing can be said."""
    values = drawn(20, a=0.5, b=0.43)
    (row,) = compared(twice(values), "tdd").to_dict("records")
    expected = images_needed(np.subtract(values["a"], values["b"]))
    assert 11 < expected < 10_000
    assert row["images_needed"] == expected
    assert only(compared([by_image(values)], "tdd"))["images_needed"] == expected
    few = only(compared(twice({"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.0] * 5 + [0.6]}), "tdd"))
    assert np.isnan(few["images_needed"])


def test_a_pair_that_one_of_several_runs_holds_is_a_single_run() -> None:
    both, alone = by_image(drawn(20, a=0.5, b=0.3)), by_image(drawn(20, a=0.5), seed=1)
    refused(only(compared([both, alone], "tdd")), significance.ONE_RUN)


@pytest.mark.parametrize("changed", [1, 5])
def test_too_few_differences_are_refused(changed: int) -> None:
    values = {"a": [0.1 * (i + 1) for i in range(changed)] + [0.0] * 4, "b": [0.0] * (changed + 4)}
    refused(only(compared(twice(values), "tdd")), f"{changed} images with a difference, at least 6 needed")


def test_six_differences_suffice_for_a_p_below_the_level() -> None:
    row = only(compared(twice({"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.0] * 6}), "tdd"))
    assert row["p"] == pytest.approx(2 / 2**6)
    assert row["significant"]
    assert row["effect"] == 1
    assert comb(5, 0) * 2 / 2**5 > 0.05, "with five, no outcome has one"


def test_other_refusals() -> None:
    same = {"a": [0.2] * 8, "b": [0.2] * 8}
    refused(only(compared(twice({"a": same["a"]}) + twice({"b": [nan] * 8}), "tdd")), "b has no defined value here")
    nothing = {"a": [nan] * 8, "b": [nan] * 8}
    refused(only(compared(twice(nothing), "tdd")), "a and b have no defined value here")
    apart = {"a": [0.1] * 8 + [nan] * 8, "b": [nan] * 8 + [0.1] * 8}
    refused(only(compared(twice(apart), "tdd")), "no image has a value of both in the same run")
    refused(only(compared(repeated(by_image(same)), "tdd")), "all differences are zero (8 images)")
    refused(only(compared(twice(same), "stability")), "a and b have no defined value here")


def test_all_rows_failed() -> None:
    made = by_image(drawn(8, a=0.5, b=0.4, c=0.3))
    runs = repeated(replace(made, records=made.records.assign(status="failed")))
    assert set(compared(runs, "tdd")["why"]) == {
        f"{WORDS}{x} and {y} have no defined value here" for x, y in ("ab", "ac", "bc")
    }
    one = friedman_of(runs, "tdd")
    assert one.why == WORDS + "0 methods with a value, at least 3 needed"
    assert one.ranks == {}


def test_a_method_that_one_data_set_lacks_is_refused_there_alone() -> None:
    runs = twice(drawn(20, a=0.5, b=0.3)) + twice(drawn(20, a=0.5), data="sbd")
    voc, sbd = compared(runs, "tdd").to_dict("records")
    assert voc["why"] == ""
    assert voc["significant"]
    refused({str(key): value for key, value in sbd.items()}, "no run of these data holds b")


def test_equal_differences_have_a_p_value_and_no_interval() -> None:
    row = only(compared(twice({"a": [0.5] * 24, "b": [0.25] * 24}), "tdd"))
    assert row["p"] == pytest.approx(2 / 2**24, abs=1e-3)
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])
    assert row["note"] == "no interval: all differences are equal"
    assert row["why"] == ""


def test_a_mean_that_few_images_rule_is_noted() -> None:
    values = {"a": [0.1 + i / 100 for i in range(19)] + [0.0], "b": [0.0] * 19 + [90.0]}
    row = only(compared(twice(values), "tdd"))
    assert row["p"] < 0.05
    assert row["difference"] < 0 < row["effect"]
    assert row["note"] == "the pooled drop says the opposite of typical images; a few outliers set it"


def test_what_cannot_be_asked() -> None:
    runs = twice(drawn(12, a=0.5, b=0.4, c=0.3))
    with pytest.raises(SettingsError, match=r"unknown metric 'tddd'; did you mean 'tdd'"):
        compared(runs, "tddd")
    with pytest.raises(SettingsError, match=r"expected methods of these runs \(a, b, c\); came d, which no run holds"):
        compared(runs, "tdd", methods=["a", "d"])
    for methods in (["a"], ["a", "a"], ["a", "b", "a"]):
        with pytest.raises(SettingsError, match="expected two or more different methods to compare; came a"):
            compared(runs, "tdd", methods=methods)
    with pytest.raises(
        SettingsError, match="'odd' is a diagnostic and ranks no methods; expected one of tdd_drop, tdd, "
    ):
        friedman_of(runs, "odd")


def test_methods_are_held_against_each_other_and_random_cells_the_rest_only_if_named() -> None:
    names = ["gpa", "random", "dea", "random_cells", "dea@alpha=0.5", "mask", "mine.maps:own"]
    runs = twice(drawn(12, **{name: 0.1 * i for i, name in enumerate(names)}))
    pairs = compared(runs, "tdd")[["first", "second"]].to_numpy().tolist()
    tested = ["gpa", "dea", "mine.maps:own", "random_cells"]
    assert pairs == [list(pair) for pair in combinations(tested, 2)]
    without = twice(drawn(12, gpa=0.3, dea=0.4, mask=0.5))
    assert compared(without, "tdd")[["first", "second"]].to_numpy().tolist() == [["gpa", "dea"]]
    named = compared(runs, "tdd", methods=["mask", "dea@alpha=0.5"])
    assert named[["first", "second"]].to_numpy().tolist() == [["mask", "dea@alpha=0.5"]]


def test_the_order_of_methods_turns_signs_and_nothing_else() -> None:
    runs = twice(drawn(30, a=0.5, b=0.45))
    one, other = (only(compared(runs, "tdd", methods=pair)) for pair in (["a", "b"], ["b", "a"]))
    assert (one["p"], one["statistic"]) == (other["p"], other["statistic"])
    assert (one["effect"], one["difference"]) == pytest.approx((-other["effect"], -other["difference"]))
    pd.testing.assert_frame_equal(compared(runs, "tdd"), compared(runs, "tdd"))


def test_holms_correction_by_hand_and_as_statsmodels_has_it() -> None:
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06])
    rng = np.random.default_rng(5)
    for n in (1, 2, 7, 60):
        p = rng.uniform(0, 1 / n, n).round(3)
        np.testing.assert_array_equal(holm(p), multipletests(p, method="holm")[1])


def test_the_false_positive_rate_under_the_null() -> None:
    rng, trials = np.random.default_rng(11), 150
    margin = 3 * sqrt(0.05 * 0.95 / trials)
    rejected = [bool(compared(by_chance(rng, 0), "tdd")["significant"].any()) for _ in range(trials)]
    assert 0 < np.mean(rejected) < 0.05 + margin, "family-wise, over the three pairs"
    found = [bool(compared(by_chance(rng, 0.3), "tdd")["significant"].any()) for _ in range(20)]
    assert np.mean(found) > 0.8, "a true difference is found"


@pytest.mark.parametrize(("images", "method"), [(14, "permutation"), (80, "asymptotic")])
def test_the_false_positive_rate_with_ties_and_zeros(images: int, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "RESAMPLES", 99)
    rng, trials = np.random.default_rng(3), 250
    rejected: list[bool] = []
    while len(rejected) < trials:
        differences = rng.choice([-0.2, -0.1, 0.0, 0.0, 0.1, 0.2], images)
        if np.count_nonzero(differences) >= significance.LEAST_DIFFERENCES:
            name, _, p = testing.wilcoxon(differences, len(rejected))
            assert name == method
            rejected.append(p < 0.05)
    assert 0 < np.mean(rejected) < 0.05 + 3 * sqrt(0.05 * 0.95 / trials)
