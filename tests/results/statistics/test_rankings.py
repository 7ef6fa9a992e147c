"""Rankings under other settings, and how far they agree: against loops and against scipy."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hand_runs import with_curves
from made_runs import FRACTIONS, OPERATORS, TDD, make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.statistics import curves, rankings
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.rankings import Over


def on_ten(values: dict[str, dict[str, float]]) -> dict[tuple[str, str, float, str], float]:
    """`at` on as many samples as Kendall's W needs."""
    return {key: value for place in range(10) for key, value in at(values, f"s{place}").items()}


def at(values: dict[str, dict[str, float]], sample: str = "a") -> dict[tuple[str, str, float, str], float]:
    """Operator to method to value, at k = 0.2 on one sample."""
    return {(name, operator, 0.2, sample): v for operator, one in values.items() for name, v in one.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("made")
    return [load_run(make_run(folder / f"seed{seed}", seed=seed, maps=0)) for seed in (0, 1)]


def ranked(
    runs: Sequence[Run], metric: str = "tdd", over: Over = "occlusion", methods: Sequence[str] | None = None
) -> pd.DataFrame:
    return rankings.by_setting(rankings.complete(runs, metric, over, methods=methods))


def agreed(
    runs: Sequence[Run], metric: str = "tdd", over: Over = "occlusion", methods: Sequence[str] | None = None
) -> pd.DataFrame:
    return rankings.concordance(rankings.complete(runs, metric, over, methods=methods))


def test_w_without_ties_is_friedmans_statistic_over_its_largest_value() -> None:
    """W = chi2 / (m (n - 1)), with scipy's Friedman chi-square, which corrects for ties too."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.normal(size=(5, 4))
        ranks = stats.rankdata(scores, axis=1)
        expected = stats.friedmanchisquare(*scores.T).statistic / (5 * 3)
        assert rankings.kendall_w(ranks) == pytest.approx(expected)


def test_w_with_ties_agrees_with_scipy_too() -> None:
    rng = np.random.default_rng(1)
    tied = 0
    for _ in range(30):
        scores = rng.integers(0, 4, size=(6, 5))
        tied += any(len(set(row)) < 5 for row in scores.tolist())
        ranks = stats.rankdata(scores, axis=1)
        expected = stats.friedmanchisquare(*scores.T).statistic / (6 * 4)
        assert rankings.kendall_w(ranks) == pytest.approx(expected)
    assert tied == 30


def test_w_is_one_for_the_same_ranking_and_zero_for_opposite_ones() -> None:
    assert rankings.kendall_w([[1, 2, 3], [1, 2, 3], [1, 2, 3]]) == 1
    assert rankings.kendall_w([[1, 2.5, 2.5], [1, 2.5, 2.5]]) == 1, "ties that all settings share lower nothing"
    assert rankings.kendall_w([[1, 2, 3], [3, 2, 1]]) == 0
    assert isnan(rankings.kendall_w([[2, 2, 2], [2, 2, 2]]))


def test_chance_has_w_of_one_over_the_settings_and_nothing_beyond_it() -> None:
    """Also with ties, and with a setting that ties all: means over random orders of given ranks."""
    rng = np.random.default_rng(0)
    for rows in (
        [[1, 2, 3, 4]] * 3,
        [[1, 2, 3, 4], [1.5, 1.5, 3.5, 3.5], [2, 2, 2, 4]],
        [[1, 2, 3], [1, 2, 3], [2, 2, 2]],
    ):
        table = np.array(rows, dtype=float)
        drawn = [rankings.kendall_w(rng.permuted(table, axis=1)) for _ in range(4000)]
        assert np.mean(drawn) == pytest.approx(1 / 3, abs=0.015)
        assert rankings.beyond_chance(float(np.mean(drawn)), 3) == pytest.approx(0, abs=0.02)
    assert rankings.beyond_chance(1.0, 3) == 1
    assert rankings.beyond_chance(0.0, 2) == -1, "opposite rankings agree less than chance"


def test_beyond_chance_is_the_mean_of_spearmans_correlations_over_pairs_of_settings() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        scores = rng.normal(size=(5, 6))
        w = rankings.kendall_w(stats.rankdata(scores, axis=1))
        pairs = [stats.spearmanr(scores[i], scores[j]).statistic for i in range(5) for j in range(i)]
        assert rankings.beyond_chance(w, 5) == pytest.approx(np.mean(pairs))


def test_p_counts_all_orders_and_else_draws_them() -> None:
    """Three settings of three methods: by a loop over 6 ** 3 orders; and Friedman's exact p by many draws."""
    ranks = [[1, 2, 3], [1, 3, 2], [1.5, 1.5, 3]]
    least = rankings.kendall_w(ranks) - 1e-12
    orders = itertools.product(*(list(itertools.permutations(row)) for row in ranks))
    every = [rankings.kendall_w(one) >= least for one in orders]
    assert len(every) == 216
    assert rankings.permutation_p(ranks) == pytest.approx(np.mean(every))
    assert rankings.permutation_p([[1, 2, 3, 4]] * 2) == pytest.approx(1 / 24)
    many = [[1, 2, 3, 4]] * 4 + [[2, 1, 3, 4], [1, 4, 2, 3]]
    assert rankings.EVERY < 24**5
    p = rankings.permutation_p(many)
    rng = np.random.default_rng(7)
    drawn = [rankings.kendall_w(rng.permuted(np.array(many, float), axis=1)) for _ in range(3000)]
    assert p == pytest.approx(np.mean(np.array(drawn) >= rankings.kendall_w(many) - 1e-12), abs=0.01)
    assert p == rankings.permutation_p(many)
    assert rankings.permutation_p([[1, 2, 3, 4]] * 6) == 1 / 10_000, "no draw reaches it, and so it counts itself"
    assert isnan(rankings.permutation_p([[2, 2, 2]] * 3))


def test_random_rankings_are_called_significant_in_one_of_twenty_cases() -> None:
    rng = np.random.default_rng(5)
    found = [rankings.permutation_p(rng.permuted(np.tile(np.arange(4.0), (3, 1)), axis=1)) < 0.05 for _ in range(300)]
    assert 0 < np.mean(found) < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_ranking_over_operators_by_loops(made: list[Run]) -> None:
    """Means of run-level means, over the images that have all methods: the last two miss one."""
    table = ranked(made)
    assert list(table.columns) == ["data", "setting", "method", "mean", "rank", "n"]
    assert list(table["setting"].unique()) == list(OPERATORS)
    assert set(table["n"]) == {2 * 22}
    for operator in OPERATORS:
        means = {}
        for method in TDD:
            runs = []
            for one in made:
                rows = one.curves.to_dict("records")
                wanted = {"method": method, "occlusion": operator, "k": 0.2, "kind": "target_deletion"}
                values = [
                    row["value"]
                    for row in rows
                    if all(row[key] == value for key, value in wanted.items())
                    and row["sample_id"] not in ("img22", "img23")
                ]
                assert len(values) == 22
                runs.append(sum(values) / 22)
            means[method] = sum(runs) / 2
        own = table[(table["setting"] == operator) & table["method"].isin(TDD)].set_index("method")
        assert own["mean"].to_dict() == pytest.approx(means)
    first = {
        operator: table[table["setting"] == operator].sort_values("rank")["method"].iloc[0]
        for operator in ("mean", "blur")
    }
    assert first["mean"] == "ria"
    assert first["blur"].startswith("dea"), "made so: blur takes RIA's lead"


def test_w_over_operators_shows_what_mean_occlusion_hides(made: list[Run]) -> None:
    """Ranks of gpa, ega, ria, dea: 3 4 1 2 under mean and zero, 2 3 4 1 under blur, by hand W = 12 S / (9 * 60)."""
    four = ["gpa", "ega", "ria", "dea"]
    (row,) = agreed(made, methods=four).to_dict("records")
    ranks = ranked(made, methods=four).pivot(index="setting", columns="method", values="rank")[four]
    assert ranks.loc["mean"].tolist() == [3, 4, 1, 2]
    sums = ranks.sum().tolist()
    squares = sum((one - sum(sums) / 4) ** 2 for one in sums)
    assert row["w"] == pytest.approx(12 * squares / 540)
    assert row["w"] < 0.7
    assert row["beyond_chance"] == pytest.approx((3 * row["w"] - 1) / 2)
    assert row["p"] == rankings.permutation_p(ranks)
    assert (row["methods"], row["settings"], row["images"], row["why"]) == (4, 3, 22, "")
    (over_k,) = agreed(made, over="k", methods=four).to_dict("records")
    assert (over_k["over"], over_k["settings"]) == ("k", len(FRACTIONS) - 1)
    assert over_k["w"] > 0.95


def test_settings_of_k_ascend(made: list[Run]) -> None:
    table = ranked(made, over="k")
    assert list(table["setting"].unique()) == ["0.05", "0.1", "0.2", "0.4", "0.6", "0.8"], "at 1 all are tied"


def test_lower_is_better_for_leakage_and_ties_share_their_rank() -> None:
    values = at({"mean": {"a": -0.5, "b": 0.1, "c": -0.1, "d": 0.3}, "blur": {"a": 0.0, "b": 0.2, "c": 0.4, "d": 0.6}})
    table = ranked([with_curves(values, "off_deletion")], "odd_abs")
    assert table.loc[table["setting"] == "mean", "rank"].tolist() == [4, 1.5, 1.5, 3]
    assert table.loc[table["setting"] == "mean", "mean"].tolist() == [0.5, 0.1, 0.1, 0.3]
    assert table.loc[table["setting"] == "blur", "rank"].tolist() == [1, 2, 3, 4]


def test_each_run_counts_once_and_only_complete_images_enter() -> None:
    """Run one: images a and b complete, c lacks ega under blur. Run two: one image."""
    one = {}
    for sample, ega in (("a", 0.2), ("b", 0.4), ("c", 0.9)):
        both = {"ega": ega, "ria": 0.5, "dea": 0.1}
        one |= at({"mean": both, "blur": both}, sample)
    one["ega", "blur", 0.2, "c"] = nan
    other = {"ega": 0.9, "ria": 0.5, "dea": 0.1}
    data = [with_curves(one), with_curves(at({"mean": other, "blur": other}), name="two")]
    table = ranked(data)
    ega = table[(table["setting"] == "mean") & (table["method"] == "ega")].iloc[0]
    assert (ega["mean"], ega["rank"], ega["n"]) == (pytest.approx((0.3 + 0.9) / 2), 1, 3)
    assert agreed(data)["images"].tolist() == [2], "image a is in both runs"


def test_a_method_with_next_to_no_values_is_left_out_and_empties_nothing() -> None:
    values = {}
    for sample in "abc":
        both = {"gpa": 0.1, "ega": 0.2, "ria": 0.5, "dea": 0.4}
        values |= at({"mean": both, "blur": both}, sample)
    values |= at({"mean": {"theirs": 0.9}, "blur": {"theirs": 0.9}}, "a")
    table = ranked([with_curves(values)])
    assert set(table["method"]) == {"gpa", "ega", "ria", "dea"}
    assert set(table["n"]) == {3}
    assert table.attrs["why"] == "sbd val: left out: theirs (all settings on 1 of 3 images)"


def test_the_truth_is_not_ranked_and_costs_no_image() -> None:
    """It has a value on six of ten images, which is enough for a method."""
    values = on_ten({name: {"ega": 0.1, "ria": 0.3, "mask": 0.2, "truth": 0.9} for name in ("mean", "zero")})
    values = {key: value for key, value in values.items() if key[0] != "truth" or key[-1] < "s6"}
    found = rankings.complete([with_curves(values)], "tdd", "occlusion")
    assert (found.methods, found.images) == (["ega", "ria", "mask"], 10)
    named = rankings.complete([with_curves(values)], "tdd", "occlusion", methods=["ega", "truth"])
    assert (named.methods, named.images) == (["ega", "truth"], 6)


def test_a_setting_that_some_runs_lack_is_left_out() -> None:
    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    data = [
        with_curves(at({"mean": three, "blur": three, "zero": three})),
        with_curves(at({"mean": three, "blur": three}), name="two"),
    ]
    table = ranked(data)
    assert list(table["setting"].unique()) == ["mean", "blur"]
    assert table.attrs["why"] == "sbd val: left out: zero (not in all runs)"


def test_why_there_is_no_w() -> None:
    def why(*data: Run, **chosen: Any) -> str:
        (row,) = agreed(data, **chosen).to_dict("records")
        assert isnan(row["w"])
        return str(row["why"])

    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    assert why(with_curves(at({"mean": three}))).startswith(
        "not testable: the runs measured 1 of the occlusion operators (mean)"
    )
    two = with_curves(at({"mean": three, "blur": three}))
    assert why(two, methods=["ega", "ria"]) == "not testable: 2 methods, at least 3 needed"
    assert why(two) == "not testable: 1 images, at least 10 needed"
    flat = dict.fromkeys(three, 0.3)
    assert (
        why(with_curves(on_ten({"mean": flat, "blur": flat})))
        == "not testable: all methods are tied under every setting"
    )
    assert why(enough(two, 0.6)) == "not testable: no sample was measured"
    nothing = at({"mean": three, "blur": dict.fromkeys(three, nan)})
    assert why(with_curves(nothing)) == "not testable: no image has a value under all settings for all methods"


@pytest.mark.parametrize(("metric", "over"), [("stability", "k"), ("tdd", "seed")])
def test_what_cannot_be_ranked_under_settings_is_an_error(made: list[Run], metric: str, over: Any) -> None:
    with pytest.raises(SettingsError, match=f"expected one of tdd, odd_abs, insertion_gain over .* got '{metric}'"):
        ranked(made, metric, over)


def test_a_data_set_that_lacks_what_another_has_says_so_for_itself() -> None:
    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    full, bare = with_curves(on_ten({"mean": three, "blur": three})), with_curves({})
    about = bare.description | {"data": {"name": "voc2012", "split": "val"}}
    analysis = analyse([full, replace(bare, description=about, curves=full.curves[:0])])
    whys = [part.ranking("tdd", "occlusion").attrs["why"] for part in analysis.parts]
    assert whys == ["", f"voc2012 val: {curves.NO_CURVES}"]
    tested = [part.concordance("tdd", "occlusion", "all")["why"].item() for part in analysis.parts]
    assert tested == ["", f"not testable: {curves.NO_CURVES}"]


def test_the_filter_on_s_reaches_the_rankings(made: list[Run]) -> None:
    """Sample 2 has s = .01."""
    (part,) = analyse(made, Options(min_s=0.05)).parts
    assert part.ranking("tdd", "occlusion")["n"].unique().tolist() == [2 * 21]
    assert part.concordance("tdd", "occlusion", "all")["images"].item() == 21
