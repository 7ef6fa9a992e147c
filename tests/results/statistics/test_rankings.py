"""Rankings under other settings, curves and strata, against loops and against scipy, on made and hand-made runs."""

import itertools
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from made_runs import FRACTIONS, OPERATORS, TDD, make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.schema import RANDOMISATION_COLUMNS
from segfaith.results.statistics import curves, rankings
from segfaith.results.statistics import distributions as strata

CLASSES = ["background", "bird", "boat", "cat"]


def hand(
    values: dict[tuple[str, str, float, str], float],
    kind: str = "target_deletion",
    name: str = "one",
    seed: int = 0,
    **evaluation: Any,
) -> Run:
    """A run whose curves hold values[method, operator, k, sample]; its records are measured samples with s = .5."""
    rows = [
        {"method": method, "occlusion": operator, "k": k, "sample_id": sample, "kind": kind, "s": 0.5, "value": value}
        for (method, operator, k, sample), value in values.items()
    ]
    settings = {"occlusion": ["mean", "blur"], "k": [0.2, 0.1]} | evaluation
    description = {
        "data": {"name": "sbd", "split": "val", "samples": ["a"]},
        "model": {"name": "net", "weights": "net.pth", "classes": CLASSES},
        "settings": {"seed": seed, "name": name, "evaluation": settings},
    }
    measured = pd.DataFrame({"sample_id": ["a"], "method": ["ega"], "s": [0.5], "status": ["ok"]})
    return Run(Path(name), description, measured, pd.DataFrame(rows), pd.DataFrame(columns=[*RANDOMISATION_COLUMNS]))


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


# Kendall's W


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


# Rankings


def test_ranking_over_operators_by_loops(made: list[Run]) -> None:
    """Means of run-level means, over the images that have all methods: the last two miss one."""
    table = rankings.by_setting(made)
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
    (row,) = rankings.concordance(made, methods=four).to_dict("records")
    ranks = rankings.by_setting(made, methods=four).pivot(index="setting", columns="method", values="rank")[four]
    assert ranks.loc["mean"].tolist() == [3, 4, 1, 2]
    sums = ranks.sum().tolist()
    squares = sum((one - sum(sums) / 4) ** 2 for one in sums)
    assert row["w"] == pytest.approx(12 * squares / 540)
    assert row["w"] < 0.7
    assert row["beyond_chance"] == pytest.approx((3 * row["w"] - 1) / 2)
    assert row["p"] == rankings.permutation_p(ranks)
    assert (row["methods"], row["settings"], row["images"], row["why"]) == (4, 3, 22, "")
    (over_k,) = rankings.concordance(made, over="k", methods=four).to_dict("records")
    assert (over_k["over"], over_k["settings"]) == ("k", len(FRACTIONS) - 1)
    assert over_k["w"] > 0.95


def test_settings_of_k_ascend(made: list[Run]) -> None:
    table = rankings.by_setting(made, over="k")
    assert list(table["setting"].unique()) == ["0.05", "0.1", "0.2", "0.4", "0.6", "0.8"], "at 1 all are tied"


def test_lower_is_better_for_leakage_and_ties_share_their_rank() -> None:
    values = at({"mean": {"a": -0.5, "b": 0.1, "c": -0.1, "d": 0.3}, "blur": {"a": 0.0, "b": 0.2, "c": 0.4, "d": 0.6}})
    table = rankings.by_setting([hand(values, "off_deletion")], "odd_abs")
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
    data = [hand(one), hand(at({"mean": other, "blur": other}), name="two")]
    table = rankings.by_setting(data)
    ega = table[(table["setting"] == "mean") & (table["method"] == "ega")].iloc[0]
    assert (ega["mean"], ega["rank"], ega["n"]) == (pytest.approx((0.3 + 0.9) / 2), 1, 3)
    assert rankings.concordance(data)["images"].tolist() == [2], "image a is in both runs"


def test_a_method_with_next_to_no_values_is_left_out_and_empties_nothing() -> None:
    values = {}
    for sample in "abc":
        both = {"gpa": 0.1, "ega": 0.2, "ria": 0.5, "dea": 0.4}
        values |= at({"mean": both, "blur": both}, sample)
    values |= at({"mean": {"theirs": 0.9}, "blur": {"theirs": 0.9}}, "a")
    table = rankings.by_setting([hand(values)])
    assert set(table["method"]) == {"gpa", "ega", "ria", "dea"}
    assert set(table["n"]) == {3}
    assert table.attrs["why"] == "sbd val: left out: theirs (all settings on 1 of 3 images)"


def test_a_setting_that_some_runs_lack_is_left_out() -> None:
    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    data = [
        hand(at({"mean": three, "blur": three, "zero": three})),
        hand(at({"mean": three, "blur": three}), name="two"),
    ]
    table = rankings.by_setting(data)
    assert list(table["setting"].unique()) == ["mean", "blur"]
    assert table.attrs["why"] == "sbd val: left out: zero (not in all runs)"


def test_a_data_set_that_lacks_what_another_has_is_named() -> None:
    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    full, bare = hand(on_ten({"mean": three, "blur": three})), hand({})
    bare = replace(
        bare, description=bare.description | {"data": {"name": "voc2012", "split": "val"}}, curves=full.curves[:0]
    )
    assert rankings.by_setting([full, bare]).attrs["why"] == f"voc2012 val: {curves.NO_CURVES}"
    assert rankings.concordance([full, bare])["why"].tolist() == ["", f"not testable: {curves.NO_CURVES}"]
    run = records(
        {"odd_fair_abs": 0.1, "pointing": 1.0, "s_target_deleted": 0.1, "s_off_deleted": 0.1, "stability": 1.0}
    )
    old = (bare.description, run[1].drop(columns=["odd_fair_abs", "pointing", "s_target_deleted", "stability"]))
    tables = [function([run, old]) for function in (strata.leakage, strata.map_properties, strata.absolute_drops)]
    for table in (*tables, strata.strata([run, old], "stability")):
        assert set(table["data"]) == {"sbd val"}
        assert table.attrs["why"].startswith("voc2012 val: no run has values of ")


def test_why_there_is_no_w() -> None:
    def why(*data: Run, **chosen: Any) -> str:
        (row,) = rankings.concordance(data, **chosen).to_dict("records")
        assert isnan(row["w"])
        return str(row["why"])

    three = {"ega": 0.2, "ria": 0.5, "dea": 0.4}
    assert why(hand(at({"mean": three}))).startswith(
        "not testable: the runs measured 1 of the occlusion operators (mean)"
    )
    two = hand(at({"mean": three, "blur": three}))
    assert why(two, methods=["ega", "ria"]) == "not testable: 2 methods, at least 3 needed"
    assert why(two) == "not testable: 1 images, at least 10 needed"
    flat = dict.fromkeys(three, 0.3)
    assert why(hand(on_ten({"mean": flat, "blur": flat}))) == "not testable: all methods are tied under every setting"
    assert why(two, min_s=0.6) == "not testable: no sample was measured"
    nothing = at({"mean": three, "blur": dict.fromkeys(three, nan)})
    assert why(hand(nothing)) == "not testable: no image has a value under all settings for all methods"


def test_runs_without_curves_give_empty_tables_that_say_why(tmp_path: Path) -> None:
    data = [load_run(make_run(tmp_path / "run", curves=False, randomisation=False, maps=0))]
    for table in (rankings.by_setting(data), curves.curve_means(data), curves.areas(data)):
        assert len(table) == 0
        assert table.attrs["why"] == f"voc2012 val: {curves.NO_CURVES}"
    assert "no rows in randomisation.parquet" in strata.randomisation(data).attrs["why"]


@pytest.mark.parametrize(("metric", "over"), [("stability", "k"), ("tdd", "seed")])
def test_what_cannot_be_ranked_under_settings_is_an_error(made: list[Run], metric: str, over: Any) -> None:
    with pytest.raises(SettingsError, match=f"expected one of tdd, odd_abs, insertion_gain over .* got '{metric}'"):
        rankings.by_setting(made, metric, over)


# Curves


def test_areas_are_those_of_the_curves_that_are_shown() -> None:
    """Pooled over two images with s = .9 and .01; the second one's relative drops, up to -40, would rule a mean."""
    ks, kinds = (0.1, 0.2, 1.0), ("target_deletion", "off_deletion", "insertion")
    values = {("ega", "mean", k, sample): k * slope for k in ks for sample, slope in (("a", 0.5), ("b", -40.0))}
    rows = [hand(values, kind).curves.assign(s=np.tile([0.9, 0.01], 3)) for kind in kinds]
    one = replace(hand(values), curves=pd.concat(rows, ignore_index=True))
    table = curves.areas([one]).set_index("kind")
    shown = curves.curve_means([one])
    for kind in kinds:
        part = shown[shown["kind"] == kind]
        height = np.trapezoid([0.0, *part["value"]], [0.0, *part["k"]])
        assert table.loc[kind, "area"] == pytest.approx(height)
        assert {table.loc[kind, "of"]} == set(part["of"])
    slope = (0.5 * 0.9 - 40 * 0.01) / 0.91
    assert table["area"].to_dict() == pytest.approx(
        {"target_deletion": slope / 2, "off_deletion": slope / 2}
        | {"off_deletion_abs": (0.5 * 0.9 + 40 * 0.01) / 0.91 / 2, "insertion": -39.5 / 2 / 2},
        rel=2e-3,
    )
    assert table.loc["off_deletion_abs", "of"] == "pooled drop"


def test_areas_are_trapezoids_from_zero_over_the_range_of_k() -> None:
    """Points (0, 0), (.1, .2), (.2, .6), (.8, 1): .01 + .04 + .48 = .53, over .8."""
    heights = {0.2: 0.6, 0.1: 0.2, 0.8: 1.0}
    values = {("ega", "mean", k, "a"): value for k, value in heights.items()}
    values |= {("ega", "mean", k, "b"): 0.0 for k in heights}
    values |= {("ega", "blur", k, "a"): 9.0 for k in heights}
    (row,) = curves.areas([hand(values)]).to_dict("records")
    assert row["area"] == pytest.approx((0.53 / 0.8 + 0) / 2)
    assert (row["kind"], row["n"], row["low_k"], row["high_k"]) == ("target_deletion", 2, 0, 0.8)


def test_areas_of_leakage_are_given_signed_and_absolute() -> None:
    values = {("ega", "mean", 0.5, "a"): 0.4, ("ega", "mean", 1.0, "a"): -0.4}
    table = curves.areas([hand(values, "off_deletion")]).set_index("kind")["area"]
    assert table["off_deletion"] == pytest.approx(0.5 * 0.5 * 0.4 + 0)
    assert table["off_deletion_abs"] == pytest.approx(0.5 * 0.5 * 0.4 + 0.5 * 0.4)


def test_areas_use_the_k_that_all_runs_share_and_count_each_image_once() -> None:
    """Image a has 1 and 0 in two runs."""
    first = {("ega", "mean", k, sample): 1.0 for k in (0.1, 0.2, 0.9) for sample in "abc"}
    second = {("ega", "mean", k, "a"): 0.0 for k in (0.1, 0.2)}
    (row,) = curves.areas([hand(first), hand(second, name="two")]).to_dict("records")
    assert row["area"] == pytest.approx(0.15 / 0.2 * (0.5 + 1 + 1) / 3)
    assert (row["n"], row["high_k"]) == (3, 0.2)


def test_curve_means_pool_drops_over_images_not_over_runs() -> None:
    """Image i00 has .1 and .3 in two runs: it counts once, with .2; and images weigh as their s."""
    rng = np.random.default_rng(0)
    values, s = rng.normal(0.3, 0.2, 24), rng.uniform(0.05, 0.9, 24)
    values[0], s[0] = 0.1, 0.4
    first = {("ega", "mean", 0.2, f"i{place:02d}"): value for place, value in enumerate(values)}
    one, two = hand(first), hand({("ega", "mean", 0.2, "i00"): 0.3}, name="two", seed=1)
    one, two = replace(one, curves=one.curves.assign(s=s)), replace(two, curves=two.curves.assign(s=0.4))
    (row,) = curves.curve_means([one, two]).to_dict("records")
    values[0] = 0.2
    pooled = sum(values * s) / sum(s)
    errors = (values - pooled) * s / s.mean()
    half = stats.t.ppf(0.975, 23) * errors.std(ddof=1) / 24**0.5
    assert (row["of"], row["value"], row["n"]) == ("pooled drop", pytest.approx(pooled, abs=1e-5), 24)
    assert (row["low"], row["high"]) == pytest.approx((pooled - half, pooled + half), abs=1e-5)
    assert row["mean"] == pytest.approx(values.mean())
    (few,) = curves.curve_means([replace(one, curves=one.curves[:19])]).to_dict("records")
    assert isnan(few["low"]), "below 20 images there is no interval"
    risen = replace(one, curves=one.curves.assign(kind="insertion"))
    (mean,) = curves.curve_means([risen]).to_dict("records")
    assert (mean["of"], mean["value"]) == ("mean", mean["mean"])


def test_curve_means_of_a_run_are_ordered_by_method_kind_and_k(made: list[Run]) -> None:
    table = curves.curve_means(made)
    methods = list(made[0].curves["method"].unique())
    kinds = ["target_deletion", "off_deletion", "insertion"]
    expected = [(method, kind, k) for method in methods for kind in kinds for k in sorted(FRACTIONS)]
    assert list(zip(table["method"], table["kind"], table["k"], strict=True)) == expected


# Strata


def records(*rows: dict[str, Any]) -> tuple[dict[str, Any], pd.DataFrame]:
    base = {"status": "ok", "method": "ega", "class_index": 1, "target_area": 0.1, "s": 0.5, "tdd": 0.1}
    frame = pd.DataFrame([base | {"sample_id": f"i{place}"} | row for place, row in enumerate(rows)])
    return hand({("ega", "mean", 0.2, "a"): 0}).description, frame


def test_medians_and_trimmed_means_are_not_ruled_by_one_sample() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1000.0]
    table = strata.robust([records(*({"tdd": value, "s": 0.04 if value > 1 else 0.05} for value in values))])
    (row,) = table.to_dict("records")
    assert row["metric"] == "tdd"
    assert row["mean"] == pytest.approx(sum(values) / 10)
    assert row["median"] == pytest.approx(0.55)
    assert row["trimmed"] == pytest.approx(sum(values[1:-1]) / 8), "the lowest and the highest tenth are left out"
    assert (row["n"], row["small_s"]) == (10, 1)


def test_absolute_drops_are_not_divided() -> None:
    run = records(
        {"s": 0.01, "s_target_deleted": 0.005, "s_off_deleted": 0.03},
        {"s": 0.8, "s_target_deleted": 0.5, "s_off_deleted": 0.7},
        {"s": 0.8, "s_target_deleted": 0.5, "s_off_deleted": nan},
        {"s": 0.8, "s_target_deleted": 0.0, "s_off_deleted": 0.0, "status": "failed"},
    )
    table = strata.absolute_drops([run]).set_index("drop")
    assert table.loc["target_drop", "mean"] == pytest.approx((0.005 + 0.3 + 0.3) / 3)
    assert table.loc["target_drop", "median"] == pytest.approx(0.3)
    assert table.loc["off_drop", "mean"] == pytest.approx((0.02 + 0.1) / 2)
    assert table["n"].to_dict() == {"target_drop": 3, "off_drop": 2}


def test_strata_hold_their_lower_border() -> None:
    scores = [0.0, 0.0499, 0.05, 0.3, 0.59, 0.9, 1.0]
    table = strata.strata([records(*({"s": s, "tdd": place} for place, s in enumerate(scores)))], "tdd", "s")
    found = {row["stratum"]: (row["mean"], row["n"]) for row in table.to_dict("records")}
    assert found == {
        "0 <= s < 0.05": (0.5, 2),
        "0.05 <= s < 0.3": (2, 1),
        "0.3 <= s < 0.6": (3.5, 2),
        "0.9 <= s <= 1": (5.5, 2),
    }
    assert list(found) == sorted(found, key=lambda words: float(words.split()[0]))


def test_strata_by_area_and_by_class_with_names() -> None:
    run = records(
        {"target_area": 0.005, "class_index": 3, "tdd": 0.2},
        {"target_area": 0.6, "class_index": 1, "tdd": 0.4},
        {"target_area": 0.7, "class_index": 9, "tdd": 0.6},
        {"target_area": 0.7, "class_index": 3, "tdd": nan},
    )
    by_area = strata.strata([run], "tdd", "target_area")
    assert by_area["stratum"].tolist() == ["0 <= area < 1 %", "40 <= area <= 100 %"]
    assert by_area["mean"].tolist() == pytest.approx([0.2, 0.5])
    by_class = strata.strata([run], "tdd", "class_index")
    assert by_class["stratum"].tolist() == ["bird", "cat", "class 9"]
    assert by_class["n"].tolist() == [1, 1, 1]


def test_strata_of_nothing_known_are_errors_or_say_why() -> None:
    run = records({})
    with pytest.raises(SettingsError, match="expected strata by one of s, target_area, class_index, got 'size'"):
        strata.strata([run], "tdd", "size")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="unknown metric 'tddd'; did you mean 'tdd'"):
        strata.strata([run], "tddd")
    missing = strata.strata([run], "stability")
    assert (len(missing), missing.attrs["why"]) == (
        0,
        "no run has values of stability: an older version made them, or it was not asked for",
    )
    assert (
        "values of target_area"
        in strata.strata([(run[0], run[1].drop(columns="target_area"))], "tdd", "target_area").attrs["why"]
    )


def test_records_without_the_newer_columns_give_empty_tables_that_say_why() -> None:
    run = records({})
    assert len(strata.leakage([run])) == len(strata.map_properties([run])) == len(strata.absolute_drops([run])) == 0
    assert "no run has values of odd_fair_abs" in strata.leakage([run]).attrs["why"]
    assert 'leakage = "detailed"' in strata.leakage([run]).attrs["why"]
    assert "no run has values of pointing" in strata.map_properties([run]).attrs["why"]
    assert "no run has values of s_target_deleted" in strata.absolute_drops([run]).attrs["why"]
    assert strata.robust([]).attrs["why"] == "no sample was measured"


def test_leakage_compares_both_on_the_same_samples() -> None:
    run = records(
        {"odd_abs": 0.6, "odd_fair_abs": 0.2, "odd_near": 0.3, "odd_middle": -0.1, "odd_far": 0.0},
        {"odd_abs": 0.2, "odd_fair_abs": 0.4, "odd_near": 0.1, "odd_middle": 0.3, "odd_far": 0.2},
        {"odd_abs": 50.0, "odd_fair_abs": nan, "odd_near": nan, "odd_middle": nan, "odd_far": nan},
    )
    (row,) = strata.leakage([run]).to_dict("records")
    assert row == pytest.approx(
        {"data": "sbd val", "method": "ega", "odd_abs": 0.4, "odd_fair_abs": 0.3, "n": 2}
        | {"odd_near_abs": 0.2, "odd_middle_abs": 0.2, "odd_far_abs": 0.1}
    )


def test_map_properties_are_means_beside_the_share_of_the_target() -> None:
    run = records(
        {"energy_inside": 0.2, "pointing": 1.0, "gini": 0.5, "target_area": 0.1},
        {"energy_inside": nan, "pointing": 0.0, "gini": nan, "target_area": 0.3},
    )
    (row,) = strata.map_properties([run]).to_dict("records")
    assert row == {
        "data": "sbd val",
        "method": "ega",
        "energy_inside": 0.2,
        "pointing": 0.5,
        "gini": 0.5,
        "target_area": pytest.approx(0.2),
        "n": 2,
    }


def test_randomisation_is_a_mean_per_method_and_stage(made: list[Run]) -> None:
    table = strata.randomisation(made)
    mask = table[table["method"] == "mask"]
    assert mask["stage"].tolist() == [0, 1, 2, 3]
    assert mask["part"].tolist() == ["", "classifier", "layer4", "layer3"]
    assert mask["spearman"].tolist() == pytest.approx([1, 0.9, 0.8, 0.7])
    assert mask["pearson"].tolist() == pytest.approx([1, 0.7, 0.4, 0.1])
    assert mask["s"].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert set(table["n"]) == {2 * 4}
    assert set(table["constant"]) == {0}
    assert table.loc[(table["method"] == "dea") & (table["stage"] == 3), "spearman"].item() == pytest.approx(
        1 - 3 * 0.28
    )


def test_maps_that_failed_in_the_randomisation_are_counted_and_enter_no_mean(made: list[Run]) -> None:
    rows = made[0].randomisation
    gone = {"status": "failed", "spearman": nan, "pearson": nan}
    worse = rows.assign(**gone).where(rows["stage"] == 1, rows, axis=0)
    before, found = (strata.randomisation([replace(made[0], randomisation=one)]) for one in (rows, worse))
    at_first = before["stage"] == 1
    assert found.loc[at_first, "failed"].tolist() == before.loc[at_first, "n"].tolist()
    assert (found.loc[at_first, "n"] == 0).all()
    assert found.loc[at_first, "spearman"].isna().all()
    pd.testing.assert_frame_equal(found[~at_first], before[~at_first])
    skipped = strata.randomisation([replace(made[0], randomisation=rows.assign(status="skipped"))])
    assert skipped.attrs["why"] == "the randomisation check skipped all samples"


def test_the_filter_on_s_reaches_everything(made: list[Run]) -> None:
    """Sample 2 has s = .01, with leakage forty times as high."""
    runs = [one.run for one in made]
    for function in (strata.robust, strata.absolute_drops, strata.leakage, strata.map_properties):
        every, some = function(runs), function(runs, 0.05)
        assert (every.groupby("method")["n"].max() - some.groupby("method")["n"].max()).eq(2).all()
    assert "0 <= s < 0.05" not in set(strata.strata(runs, "tdd", "s", 0.05)["stratum"])
    assert rankings.by_setting(made, min_s=0.05)["n"].unique().tolist() == [2 * 21]
    assert curves.areas(made, min_s=0.05)["n"].max() == 22
    assert curves.curve_means(made, min_s=0.05)["n"].max() == 22
    assert rankings.concordance(made, min_s=0.05)["images"].item() == 21
