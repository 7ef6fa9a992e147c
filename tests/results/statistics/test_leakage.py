"""Leakage that is fair to the areas, and by distance, from samples made by hand."""

from math import nan

import pytest

from hand_runs import with_samples
from segfaith.results.statistics.leakage import leakage
from segfaith.results.statistics.samples import samples


def test_leakage_compares_both_on_the_same_samples() -> None:
    run = with_samples(
        {"odd_abs": 0.6, "odd_fair_abs": 0.2, "odd_near": 0.3, "odd_middle": -0.1, "odd_far": 0.0},
        {"odd_abs": 0.2, "odd_fair_abs": 0.4, "odd_near": 0.1, "odd_middle": 0.3, "odd_far": 0.2},
        {"odd_abs": 50.0, "odd_fair_abs": nan, "odd_near": nan, "odd_middle": nan, "odd_far": nan},
    )
    (row,) = leakage(samples([run])).to_dict("records")
    assert row == pytest.approx(
        {"data": "sbd val", "method": "ega", "odd_abs": 0.4, "odd_fair_abs": 0.3, "n": 2}
        | {"odd_near_abs": 0.2, "odd_middle_abs": 0.2, "odd_far_abs": 0.1}
    )


def test_records_without_the_detailed_columns_say_how_to_measure_them() -> None:
    table = leakage(samples([with_samples({})]))
    assert len(table) == 0
    assert "no run has values of odd_fair_abs" in table.attrs["why"]
    assert "version 8" in table.attrs["why"]
