"""Friedman's test and mean ranks: against scipy and loops, refusals, and the false-positive rate."""

from collections.abc import Sequence
from itertools import combinations
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hand_runs import by_chance, by_image, drawn, repeated, twice
from segfaith.results.records.runs import Run
from segfaith.results.statistics.friedman import Friedman, friedman
from segfaith.results.statistics.paired import paired

WORDS = "not testable: "


def friedman_of(runs: Sequence[Run], metric: str, **options: Any) -> Friedman:
    return friedman(paired(runs, metric), **options)


def test_friedman_ranks_and_critical_difference_by_hand() -> None:
    values = drawn(14, 2, a=0.5, b=0.42, c=0.48, d=0.3)
    values["b"][0] = values["a"][0]
    one = friedman_of(twice(values), "tdd")
    expected = stats.friedmanchisquare(*(np.round(column, 12) for column in values.values()))
    assert (one.data, one.metric, one.images, one.runs, one.why, one.note) == ("voc2012 val", "tdd", 14, 2, "", "")
    assert (one.statistic, one.p) == pytest.approx((expected.statistic, expected.pvalue))
    for name in values:
        ranks = []
        for i in range(14):
            mine = round(values[name][i], 12)
            others = [round(values[other][i], 12) for other in values if other != name]
            ranks.append(1 + sum(other > mine for other in others) + sum(other == mine for other in others) / 2)
        assert one.ranks[name] == pytest.approx(np.mean(ranks)), name
    # Demsar (2006), table 5: q of four methods at .05 is 2.569
    assert one.critical_difference == pytest.approx(2.569 * sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    for first, second in combinations(values, 2):
        distance = abs(one.ranks[first] - one.ranks[second])
        q = distance / sqrt(4 * 5 / (6 * 14)) * sqrt(2)
        assert one.nemenyi.loc[first, second] == pytest.approx(float(stats.studentized_range.sf(q, 4, inf)))
        assert (one.nemenyi.loc[first, second] < 0.05) == (distance > one.critical_difference)


@pytest.mark.parametrize(("metric", "best"), [("tdd", "a"), ("odd_abs", "c"), ("stability", "a"), ("runtime_s", "c")])
def test_rank_one_is_the_best_by_the_metrics_direction(metric: str, best: str) -> None:
    runs = twice({"a": [0.9] * 12, "b": [0.5] * 12, "c": [0.1] * 12}, metric=metric)
    one = friedman_of(runs, metric)
    assert one.ranks == {best: 1.0, "b": 2.0, "c" if best == "a" else "a": 3.0}


def test_friedman_takes_images_on_which_one_run_has_all_methods() -> None:
    values = drawn(15, a=0.5, b=0.4, c=0.3)
    holes = {
        name: [nan if i == place else one for i, one in enumerate(column)]
        for place, (name, column) in enumerate(values.items())
    }
    lacking = by_image(drawn(15, 9, a=0.9, b=0.9), seed=2)
    one = friedman_of([*twice(holes), lacking], "tdd")
    expected = friedman_of(twice({name: column[3:] for name, column in values.items()}), "tdd")
    assert one.images == 12
    assert one.ranks == expected.ranks
    assert one.p == pytest.approx(expected.p)
    assert one.note == "2 of 3 runs entered: no image of the others has a value of all methods"


def test_friedmans_refusals() -> None:
    values = drawn(9, a=0.5, b=0.4, c=0.3)
    few = friedman_of(twice(values), "tdd")
    assert few.why == WORDS + "9 images with a value of all methods, at least 10 needed"
    tied = friedman_of(repeated(by_image({name: [0.3] * 12 for name in "abc"})), "tdd")
    assert tied.why == WORDS + "all methods are tied on all 12 images"
    assert set(tied.ranks.values()) == {2.0}
    two = friedman_of(twice(drawn(12, a=0.5, b=0.4) | {"c": [nan] * 12}), "tdd")
    assert two.why == WORDS + "2 methods with a value, at least 3 needed"
    assert two.note == "left out, without a value here: c"
    assert two.methods == ("a", "b")
    apart = friedman_of([by_image({"a": [0.1] * 12, "b": [0.2] * 12}), by_image({"c": [0.2] * 12}, seed=1)], "tdd")
    assert apart.why == WORDS + "0 images with a value of all methods, at least 10 needed"
    for one in (few, tied, two, apart):
        assert np.isnan([one.p, one.statistic, one.critical_difference]).all()
        assert one.nemenyi.empty


def test_friedmans_false_positive_rate_under_the_null() -> None:
    rng, trials = np.random.default_rng(12), 150
    rejected = [friedman_of(by_chance(rng, 0), "tdd").p < 0.05 for _ in range(trials)]
    assert 0 < np.mean(rejected) < 0.05 + 3 * sqrt(0.05 * 0.95 / trials)
    assert np.mean([friedman_of(by_chance(rng, 0.3), "tdd").p < 0.05 for _ in range(20)]) > 0.8
