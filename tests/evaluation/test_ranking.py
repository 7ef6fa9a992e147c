"""Ranking and ties, by slow sorts."""

from fractions import Fraction
from math import floor, isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from by_hand import SIZE, levels
from rederived import (
    cells,
    order,
    pixels,
    tied_share,
    top_count,
)
from segfaith.evaluation import ranking
from segfaith.evaluation.ranking import rank
from segfaith.types import Target


@pytest.mark.parametrize("k", ["0.2", "0.1", "0.25", "0.5", "1"])
def test_count_rounds_half_up_and_is_at_least_one(k: str) -> None:
    for pixels_of_region in range(1, 2000):
        expected = max(1, floor(Fraction(k) * pixels_of_region + Fraction(1, 2)))
        assert ranking.top_count(float(k), pixels_of_region) == expected


@pytest.mark.parametrize(("k", "count", "expected"), [(0.2, 1, 1), (0.2, 2, 1), (0.2, 7, 1), (0.2, 8, 2), (0.5, 5, 3)])
def test_counts_by_hand(k: float, count: int, expected: int) -> None:
    assert ranking.top_count(k, count) == expected


@pytest.mark.parametrize("ties", ["cell", "pixel"])
@pytest.mark.parametrize("values", [1, 2, 5, 10_000])
@pytest.mark.parametrize("size", [SIZE, (9, 31)])
def test_ranking_is_a_slow_sort(ties: ranking.Ties, values: int, size: tuple[int, int]) -> None:
    heatmap, ranks = levels(values, values, size), ranking.tie_ranks(size, ties, np.random.default_rng(3))
    region = np.random.default_rng(4).random(size) < 0.6
    one = rank(torch.from_numpy(heatmap), Target(1, torch.from_numpy(region)), torch.from_numpy(~region), ranks)
    for got, chosen_from in ((one.inside, region), (one.outside, ~region)):
        assert got.tolist() == order(heatmap, chosen_from, ranks.numpy())
    for k in (0.05, 0.2, 1.0):
        count = top_count(k, int(region.sum()))
        mask = ranking.top_pixels(one.inside, count, size)
        assert np.array_equal(mask.numpy(), pixels(one.inside.tolist()[:count], size))
        assert int(mask.sum()) == count
        expected = [
            tied_share(heatmap, found, top_count(k, len(found)))
            for found in (one.inside.tolist(), one.outside.tolist())
        ]
        assert one.tied_share(k) == pytest.approx(expected, abs=1e-12)


def test_values_are_rounded_to_a_millionth_before_they_are_ranked() -> None:
    """Differences of 4e-7 around one level are ties, 1e-6 is not; otherwise noise of float32 would decide."""
    heatmap = torch.full((4, 5), 0.5)
    heatmap[1, 1] += 4e-7
    heatmap[2, 2] -= 4e-7
    heatmap[3, 3] += 1e-6
    ranks = ranking.tie_ranks((4, 5), "pixel", np.random.default_rng(0))
    got = ranking.rank_region(heatmap, torch.ones(4, 5, dtype=torch.bool), ranks).tolist()
    assert got[0] == 3 * 5 + 3
    assert got[1:] == [i for i in ranks.flatten().argsort().tolist() if i != 18]


@pytest.mark.parametrize("size", [(28, 42), SIZE, (9, 31), (300, 200)])
def test_tied_pixels_come_cell_by_cell(size: tuple[int, int]) -> None:
    """The order of a constant map visits the 14 x 14 cells one after the other, each in a random pixel order."""
    ranks = ranking.tie_ranks(size, "cell", np.random.default_rng(1))
    assert ranks.shape == size
    assert sorted(ranks.flatten().tolist()) == list(range(size[0] * size[1]))
    visited = cells(size, 14).flatten()[ranks.flatten().argsort().numpy()]
    changes = int((visited[1:] != visited[:-1]).sum())
    assert changes == len(np.unique(visited)) - 1
    sequence = visited[np.r_[True, visited[1:] != visited[:-1]]]
    assert abs(np.corrcoef(sequence, np.arange(len(sequence)))[0, 1]) < 0.35  # not in memory order
    if size == (300, 200):
        first = ranks.flatten().argsort().numpy()[visited == sequence[0]]
        assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.35


def test_ties_by_pixel_scatter() -> None:
    ranks = ranking.tie_ranks((28, 42), "pixel", np.random.default_rng(1))
    assert sorted(ranks.flatten().tolist()) == list(range(28 * 42))
    visited = cells((28, 42), 14).flatten()[ranks.flatten().argsort().numpy()]
    assert int((visited[1:] == visited[:-1]).sum()) < 40  # by cell it would be 980


def test_tie_ranks_depend_on_the_generator_alone() -> None:
    one, same, other = (ranking.tie_ranks(SIZE, "cell", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_tied_cell_has_the_same_chance() -> None:
    """The mean position of a pixel in a constant map's order, over 400 draws, is the middle for every pixel."""
    size = (14, 14)
    mean = np.mean([ranking.tie_ranks(size, "cell", np.random.default_rng(i)).numpy() for i in range(400)], axis=0)
    spread = 196 / np.sqrt(12 * 400)
    assert np.abs(mean - 97.5).max() < 4.5 * spread


@pytest.mark.parametrize(
    ("values", "count", "share"),
    [
        ([4, 3, 2, 1], 2, 0.0),  # the map decides
        ([4, 2, 2, 1], 3, 0.0),  # all of the tied ones are chosen
        ([4, 2, 2, 1], 2, 0.5),  # one of two tied pixels is chosen
        ([4, 4, 1, 1, 1], 4, 0.5),
        ([1, 1, 1, 1], 2, 1.0),  # chance decides
        ([1, 1, 1, 1], 4, 0.0),  # nothing is left to choose from
    ],
)
def test_tied_share_by_hand(values: list[int], count: int, share: float) -> None:
    heatmap = torch.tensor([values]) / 4
    assert ranking.tied_share(heatmap, torch.arange(len(values)), count) == share


def test_tied_share_of_nothing_outside_is_undefined() -> None:
    everywhere = torch.ones(4, 5, dtype=torch.bool)
    ranks = ranking.tie_ranks((4, 5), "cell", np.random.default_rng(0))
    inside, outside = rank(torch.zeros(4, 5), Target(1, everywhere), ~everywhere, ranks).tied_share(0.2)
    assert inside == 1
    assert isnan(outside)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([lambda a: a**2, np.sqrt, lambda a: 0.3 * a + 0.6, lambda a: np.expm1(a) / np.expm1(1)]),
)
def test_only_the_order_of_values_is_ranked(seed: int, rising) -> None:
    """A rising transformation that keeps values apart by more than the rounding changes no choice, ties included."""
    heatmap = levels(seed, 50)
    ranks = ranking.tie_ranks(SIZE, "cell", np.random.default_rng(seed))
    region = torch.from_numpy(np.random.default_rng(seed).random(SIZE) < 0.5)
    one, other = (
        ranking.rank_region(torch.from_numpy(values.astype(np.float32)), region, ranks)
        for values in (heatmap, rising(heatmap.astype(np.float64)))
    )
    assert torch.equal(one, other)
    reverse = ranking.rank_region(torch.from_numpy(1 - heatmap), region, ranks)
    assert not torch.equal(one, reverse)


def test_the_whole_image_is_ranked_in_one_order() -> None:
    heatmap = torch.from_numpy(levels(3, 50))
    region = torch.from_numpy(np.random.default_rng(3).random(SIZE) < 0.5)
    ignored = torch.zeros(SIZE, dtype=torch.bool)
    ignored[:2] = True
    ranks = ranking.tie_ranks(SIZE, "cell", np.random.default_rng(0))
    outside = ~region & ~ignored
    got = rank(heatmap, Target(1, region), outside, ranks)
    assert sorted(got.whole.tolist()) == sorted([*got.inside.tolist(), *got.outside.tolist()])
    for part in ("inside", "outside"):
        members = set(got.region(part).tolist())  # type: ignore[arg-type]
        assert [pixel for pixel in got.whole.tolist() if pixel in members] == got.region(part).tolist()  # type: ignore[arg-type]
    assert len(got.top("whole", 0.1)) == top_count(0.1, len(got.whole))


def test_shifted_copies_rank_the_same_region_by_a_map_that_lies_elsewhere() -> None:
    heatmap = torch.from_numpy(levels(3, 50))
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[2:9, 3:8] = True
    ranks = ranking.tie_ranks(SIZE, "cell", np.random.default_rng(0))
    shifts = ranking.draw_shifts(SIZE, 3, np.random.default_rng(1))
    got = rank(heatmap, Target(1, region), ~region, ranks, shifts)
    for number, (down, right) in enumerate(shifts):
        moved = torch.zeros(SIZE)
        for y, x in np.ndindex(SIZE):
            moved[(y + down) % SIZE[0], (x + right) % SIZE[1]] = heatmap[y, x]
        expected = ranking.rank_region(moved, region, ranks)
        assert torch.equal(got.shifted(number, 0.2), expected[: top_count(0.2, len(expected))])
    assert not len(rank(heatmap, Target(1, region), ~region, ranks).shifted(0, 0.2))


@pytest.mark.parametrize("size", [(224, 224), (9, 11), (4, 4), (1, 8)])
def test_a_shift_is_by_a_quarter_of_the_image_or_more_either_way(size: tuple[int, int]) -> None:
    shifts = np.array(ranking.draw_shifts(size, 500, np.random.default_rng(0)))
    for shift, side in zip(shifts.T, size, strict=True):
        least = -(-side // 4)
        assert shift.min() >= least
        assert shift.max() <= max(least, side - least)
        if side > 4:
            assert shift.min() == least
            assert shift.max() == side - least
