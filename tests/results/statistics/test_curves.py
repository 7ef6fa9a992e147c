"""Curves over k and the areas under them, against loops and formulas."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hand_runs import with_curves
from made_runs import FRACTIONS, make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.statistics.analysis import OVERS, Options, analyse
from segfaith.results.statistics.curves import NO_CURVES, areas, curve_means, points
from segfaith.results.statistics.rankings import by_setting, complete


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("made")
    return [load_run(make_run(folder / f"seed{seed}", seed=seed, maps=0)) for seed in (0, 1)]


def areas_of(runs: Sequence[Run]) -> pd.DataFrame:
    return areas(runs, points(runs))


def means_of(runs: Sequence[Run]) -> pd.DataFrame:
    return curve_means(runs, points(runs))


def test_areas_are_those_of_the_curves_that_are_shown() -> None:
    """Pooled over two images with s = .9 and .01; the second one's relative drops, up to -40, would rule a mean."""
    ks, kinds = (0.1, 0.2, 1.0), ("target_deletion", "off_deletion", "insertion")
    values = {("ega", "mean", k, sample): k * slope for k in ks for sample, slope in (("a", 0.5), ("b", -40.0))}
    rows = [with_curves(values, kind).curves.assign(s=np.tile([0.9, 0.01], 3)) for kind in kinds]
    one = replace(with_curves(values), curves=pd.concat(rows, ignore_index=True))
    table = areas_of([one]).set_index("kind")
    shown = means_of([one])
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
    (row,) = areas_of([with_curves(values)]).to_dict("records")
    assert row["area"] == pytest.approx((0.53 / 0.8 + 0) / 2)
    assert (row["kind"], row["n"], row["low_k"], row["high_k"]) == ("target_deletion", 2, 0, 0.8)


def test_areas_of_leakage_are_given_signed_and_absolute() -> None:
    values = {("ega", "mean", 0.5, "a"): 0.4, ("ega", "mean", 1.0, "a"): -0.4}
    table = areas_of([with_curves(values, "off_deletion")]).set_index("kind")["area"]
    assert table["off_deletion"] == pytest.approx(0.5 * 0.5 * 0.4 + 0)
    assert table["off_deletion_abs"] == pytest.approx(0.5 * 0.5 * 0.4 + 0.5 * 0.4)


def test_areas_use_the_k_that_all_runs_share_and_count_each_image_once() -> None:
    """Image a has 1 and 0 in two runs."""
    first = {("ega", "mean", k, sample): 1.0 for k in (0.1, 0.2, 0.9) for sample in "abc"}
    second = {("ega", "mean", k, "a"): 0.0 for k in (0.1, 0.2)}
    (row,) = areas_of([with_curves(first), with_curves(second, name="two")]).to_dict("records")
    assert row["area"] == pytest.approx(0.15 / 0.2 * (0.5 + 1 + 1) / 3)
    assert (row["n"], row["high_k"]) == (3, 0.2)


def test_curve_means_pool_drops_over_images_not_over_runs() -> None:
    """Image i00 has .1 and .3 in two runs: it counts once, with .2; and images weigh as their s."""
    rng = np.random.default_rng(0)
    values, s = rng.normal(0.3, 0.2, 24), rng.uniform(0.05, 0.9, 24)
    values[0], s[0] = 0.1, 0.4
    first = {("ega", "mean", 0.2, f"i{place:02d}"): value for place, value in enumerate(values)}
    one, two = with_curves(first), with_curves({("ega", "mean", 0.2, "i00"): 0.3}, name="two", seed=1)
    one, two = replace(one, curves=one.curves.assign(s=s)), replace(two, curves=two.curves.assign(s=0.4))
    (row,) = means_of([one, two]).to_dict("records")
    values[0] = 0.2
    pooled = sum(values * s) / sum(s)
    errors = (values - pooled) * s / s.mean()
    half = stats.t.ppf(0.975, 23) * errors.std(ddof=1) / 24**0.5
    assert (row["of"], row["value"], row["n"]) == ("pooled drop", pytest.approx(pooled, abs=1e-5), 24)
    assert (row["low"], row["high"]) == pytest.approx((pooled - half, pooled + half), abs=1e-5)
    assert row["mean"] == pytest.approx(values.mean())
    (few,) = means_of([replace(one, curves=one.curves[:19])]).to_dict("records")
    assert isnan(few["low"]), "below 20 images there is no interval"
    risen = replace(one, curves=one.curves.assign(kind="insertion"))
    (mean,) = means_of([risen]).to_dict("records")
    assert (mean["of"], mean["value"]) == ("mean", mean["mean"])


def test_curve_means_of_a_run_are_ordered_by_method_kind_and_k(made: list[Run]) -> None:
    table = means_of(made)
    methods = list(made[0].curves["method"].unique())
    kinds = ["target_deletion", "off_deletion", "insertion"]
    expected = [(method, kind, k) for method in methods for kind in kinds for k in sorted(FRACTIONS)]
    assert list(zip(table["method"], table["kind"], table["k"], strict=True)) == expected


@pytest.mark.parametrize("kind", ["lowest_deletion", "off_deletion_abs"])
def test_a_kind_that_a_user_added_is_left_out(made: list[Run], kind: str) -> None:
    """Even if it bears the name of the curve of absolute values."""
    curves = made[0].curves
    added = curves[curves["kind"] == "off_deletion"].assign(kind=kind, value=0.5)
    more = replace(made[0], curves=pd.concat([curves, added], ignore_index=True))
    pd.testing.assert_frame_equal(points([more]), points(made[:1]))
    pd.testing.assert_frame_equal(areas_of([more]), areas_of(made[:1]))
    only = replace(made[0], curves=added)
    assert len(points([only])) == 0


def test_runs_without_curves_give_empty_tables_that_say_why(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / "run", curves=False, randomisation=False, maps=0))]
    for table in (by_setting(complete(runs)), means_of(runs), areas_of(runs)):
        assert len(table) == 0
        assert table.attrs["why"] == f"voc2012 val: {NO_CURVES}"


def test_areas_need_two_k_that_all_runs_share() -> None:
    one = {("ega", "mean", k, "a"): 0.5 for k in (0.1, 0.2)}
    other = {("ega", "mean", k, "a"): 0.5 for k in (0.2, 0.3)}
    table = areas_of([with_curves(one), with_curves(other, name="two")])
    assert len(table) == 0
    assert table.attrs["why"] == "sbd val: areas need curves over at least two k that all runs share, got 1"


def test_absolute_values_have_an_area_and_no_curve() -> None:
    values = {("ega", "mean", k, "a"): -0.4 for k in (0.5, 1.0)}
    runs = [with_curves(values, "off_deletion")]
    assert set(areas_of(runs)["kind"]) == {"off_deletion", "off_deletion_abs"}
    assert set(means_of(runs)["kind"]) == {"off_deletion"}


def test_the_filter_on_s_reaches_the_curves(made: list[Run]) -> None:
    """Sample 2 has s = .01."""
    every, some = (analyse(made, Options(min_s=least)).parts[0] for least in (None, 0.05))
    assert every.areas["n"].max() - some.areas["n"].max() == 1
    assert every.curve_means["n"].max() - some.curve_means["n"].max() == 1


def test_absolute_values_of_curves_are_means_over_draws(tmp_path: Path) -> None:
    """A control of three draws whose signed values cancel leaks all the same."""
    ids = tuple(f"i{number}" for number in range(8))
    made = make_run(tmp_path / "run", samples=ids, maps=0, methods=("gpa", "ega", "random_cells"), skipped=0, failed=0)
    one = load_run(made)
    off = one.curves["kind"] == "off_deletion"
    own = off & (one.curves["method"] == "random_cells")
    one.curves.loc[own, "value"] = 0.0
    one.curves.loc[own, "value_abs"] = 0.7
    for over in OVERS:
        table = by_setting(complete([one], "odd_abs", over))
        assert (table.loc[table["method"] == "random_cells", "mean"] - 0.7).abs().max() < 1e-12
        expected = one.curves[off & (one.curves["method"] == "gpa")]
        means = table[(table["method"] == "gpa")].set_index("setting")["mean"]
        chosen = expected[expected["occlusion"] == "zero"] if over == "occlusion" else expected[expected["k"] == 0.4]
        assert means["zero" if over == "occlusion" else "0.4"] == pytest.approx(chosen["value"].abs().mean())
    found = areas_of([one]).set_index(["method", "kind"])["area"]
    assert found["random_cells", "off_deletion_abs"] == pytest.approx(0.7 * (1 - 0.05 / 2))
    assert found["random_cells", "off_deletion"] == 0
