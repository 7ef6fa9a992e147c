"""What a map looks like, by hand."""

from math import isnan

import pytest
import torch

from segfaith.evaluation import map_properties


def gini(values: list[float]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    pairs = [abs(a - b) for a in values for b in values]
    return sum(pairs) / len(pairs) / (2 * sum(values) / len(values))


def looks(heatmap: torch.Tensor, region: torch.Tensor) -> dict[str, float]:
    return {
        "energy_inside": map_properties.energy_inside(heatmap, region),
        "pointing": map_properties.pointing(heatmap, region),
        "gini": map_properties.gini(heatmap),
    }


def test_what_a_map_looks_like_by_hand() -> None:
    heatmap = torch.tensor([[1.0, 0.25, 0.0], [0.5, 1.0, 0.25]])
    region = torch.tensor([[True, True, False], [False, False, False]])
    properties = looks(heatmap, region)
    assert properties["energy_inside"] == pytest.approx(1.25 / 3)
    assert properties["pointing"] == 0.5, "one of the two maxima"
    assert properties["gini"] == pytest.approx(gini(heatmap.flatten().tolist()))


def test_looks_of_extreme_maps() -> None:
    region = torch.zeros(4, 5, dtype=torch.bool)
    region[0] = True
    one = torch.zeros(4, 5)
    one[0, 2] = 1
    assert looks(one, region) == {"energy_inside": 1, "pointing": 1, "gini": pytest.approx(1 - 1 / 20)}
    assert looks(torch.ones(4, 5), region) == {
        "energy_inside": pytest.approx(0.25),
        "pointing": 0.25,
        "gini": pytest.approx(0),
    }
    nothing = looks(torch.zeros(4, 5), region)
    assert nothing["pointing"] == 0.25
    assert isnan(nothing["energy_inside"])
    assert isnan(nothing["gini"])
