"""What the maps look like, from samples made by hand."""

from math import isnan, nan

import pytest

from hand_runs import with_samples
from segfaith.results.statistics.maps import map_properties
from segfaith.results.statistics.samples import samples


def test_map_properties_are_means_beside_the_share_of_the_target() -> None:
    run = with_samples(
        {"energy_inside": 0.2, "pointing": 1.0, "gini": 0.5, "own_half": 0.25, "target_area": 0.1},
        {"energy_inside": nan, "pointing": 0.0, "gini": nan, "own_half": 0.75, "target_area": 0.3},
    )
    (row,) = map_properties(samples([run])).to_dict("records")
    assert row == {
        "data": "sbd val",
        "method": "ega",
        "energy_inside": 0.2,
        "pointing": 0.5,
        "gini": 0.5,
        "own_half": 0.5,
        "target_area": pytest.approx(0.2),
        "n": 2,
    }


def test_single_photographs_and_older_records_have_no_half() -> None:
    (row,) = map_properties(samples([with_samples({"pointing": 1.0})])).to_dict("records")
    assert isnan(row["own_half"])


def test_records_without_the_columns_give_an_empty_table_that_says_why() -> None:
    table = map_properties(samples([with_samples({})]))
    assert len(table) == 0
    assert "no run has values of pointing" in table.attrs["why"]
