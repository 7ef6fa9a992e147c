"""The evidence score: by loops, by scikit-learn, and by hand."""

from math import isnan

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from rederived import best_by_loops, precision_by_loops
from segfaith.evaluation.evidence_score import average_precision, evidence_ap, evidence_mass, evidence_top
from segfaith.evaluation.ranking import tie_ranks

SIZE = (20, 27)

RANKS = tie_ranks(SIZE, "cell", np.random.default_rng(7))


def block(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def evidence_scores(heatmap: Tensor, alternatives: list[Tensor], ranks: Tensor, k: float) -> dict[str, float]:
    return {
        "evidence_ap": evidence_ap(heatmap, alternatives),
        "evidence_mass": evidence_mass(heatmap, alternatives),
        "evidence_top": evidence_top(heatmap, alternatives, ranks, k),
    }


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 3, 10, 1000]))
def test_average_precision_is_scikit_learns_with_any_ties(seed: int, count: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    heat = (rng.integers(0, values, count) / values).astype(np.float32)
    truth = rng.random(count) < rng.random()
    truth[rng.integers(count)] = True
    got = average_precision(torch.from_numpy(heat), torch.from_numpy(truth))
    assert got == pytest.approx(average_precision_score(truth, heat), abs=1e-12)
    assert got == pytest.approx(precision_by_loops(heat.tolist(), truth.tolist()), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "truth", "expected"),
    [
        ([3, 2, 1, 0], [1, 1, 0, 0], 1.0),
        ([0, 1, 2, 3], [1, 0, 0, 0], 1 / 4),
        ([3, 2, 1, 0], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([1, 1, 1, 1], [1, 0, 0, 0], 1 / 4),  # a constant map: chance, whatever the order of memory
        ([1, 1, 1, 1], [0, 0, 0, 1], 1 / 4),
        ([2, 2, 1, 1], [1, 0, 0, 1], (1 / 2 + 2 / 4) / 2),
    ],
)
def test_average_precision_by_hand(values: list[int], truth: list[int], expected: float) -> None:
    got = average_precision(torch.tensor(values) / 4, torch.tensor(truth, dtype=torch.bool))
    assert got == pytest.approx(expected, abs=1e-12)


def test_values_that_differ_by_less_than_a_millionth_share_a_threshold() -> None:
    truth = torch.tensor([True, False])
    assert average_precision(torch.tensor([0.5, 0.5 + 3e-7]), truth) == 0.5
    assert average_precision(torch.tensor([0.5, 0.5 + 3e-6]), truth) == 0.5
    assert average_precision(torch.tensor([0.5 + 3e-7, 0.5]), truth) == 0.5
    assert average_precision(torch.tensor([0.5 + 3e-6, 0.5]), truth) == 1.0


def test_a_random_map_scores_the_share_of_the_evidence() -> None:
    """The mean over 300 random maps is |E| / |image| within four standard errors; that of the precision a bit more."""
    truth = block(3, 12, 4, 16)
    share = float(truth.double().mean())
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame(
        [evidence_scores(torch.from_numpy(rng.random(SIZE, dtype=np.float32)), [truth], RANKS, 0.2) for _ in range(300)]
    )
    errors = drawn.std() / 300**0.5
    for name in ("evidence_mass", "evidence_top"):
        assert abs(drawn[name].mean() - share) < 4 * errors[name], name
    assert 0 < drawn["evidence_ap"].mean() - share < 0.02


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 1000]), st.integers(1, 3), st.sampled_from([0.1, 0.2, 1.0]))
def test_scores_by_loops_for_any_number_of_alternatives(seed: int, values: int, count: int, k: float) -> None:
    """Also where alternatives overlap, and the map is heavily tied or zero."""
    size = (9, 11)
    rng = np.random.default_rng(seed)
    heatmap = (rng.integers(0, values, size) / values).astype(np.float32)
    masks = [rng.random(size) < 0.15 for _ in range(count)]
    for mask in masks:
        mask[tuple(rng.integers(0, size))] = True
    ranks = tie_ranks(size, "cell", rng)
    got = evidence_scores(torch.from_numpy(heatmap), [torch.from_numpy(mask) for mask in masks], ranks, k)
    assert got == pytest.approx(best_by_loops(heatmap, masks, ranks.numpy(), k), abs=1e-9, nan_ok=True)


LEFT, RIGHT = block(5, 9, 2, 6), block(5, 9, 20, 24)


@pytest.mark.parametrize("marked", [[LEFT], [RIGHT], [LEFT, RIGHT]])
@pytest.mark.parametrize("alternatives", [[LEFT, RIGHT], [RIGHT, LEFT]])
def test_marking_either_alternative_or_both_is_perfect(marked: list[Tensor], alternatives: list[Tensor]) -> None:
    """Even where nothing else is marked, so that the other alternative leaves a map without mass."""
    heatmap = torch.stack(marked).any(0).float()
    assert set(evidence_scores(heatmap, alternatives, RANKS, 0.2).values()) == {1.0}


def test_the_better_alternative_counts_and_not_the_mean() -> None:
    """Half of the left one is marked, and nothing of the right one."""
    heatmap = block(5, 7, 2, 6).float()
    only_left, only_right = (evidence_scores(heatmap, [mask], RANKS, 1.0) for mask in (LEFT, RIGHT))
    assert only_left["evidence_ap"] > 0.5 > only_right["evidence_ap"]
    both = evidence_scores(heatmap, [RIGHT, LEFT], RANKS, 1.0)
    assert both["evidence_mass"] == only_left["evidence_mass"] == 1
    assert both["evidence_ap"] >= only_left["evidence_ap"]


def test_a_conjunction_is_one_alternative_the_union_of_its_parts() -> None:
    """To mark one part of two is half of the truth; of two alternatives it is all of it."""
    heatmap = LEFT.float()
    union, either = ([LEFT | RIGHT], [LEFT, RIGHT])
    assert evidence_scores(heatmap, union, RANKS, 1.0)["evidence_ap"] < 0.6
    assert evidence_scores(heatmap, either, RANKS, 1.0)["evidence_ap"] == 1
    whole = evidence_scores((LEFT | RIGHT).float(), union, RANKS, 1.0)
    assert set(whole.values()) == {1.0}


def test_a_map_of_zeros_has_no_mass_and_chance_precision() -> None:
    got = evidence_scores(torch.zeros(SIZE), [LEFT], RANKS, 0.2)
    assert isnan(got["evidence_mass"])
    assert got["evidence_ap"] == pytest.approx(float(LEFT.double().mean()), abs=1e-12)


def test_ties_in_the_top_go_by_the_ranks_that_are_given() -> None:
    """On a constant map the pixels of the lowest rank are the top ones, here those of the evidence, or none of it."""
    everything = torch.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
    inside_first = torch.where(LEFT, 0, SIZE[0] * SIZE[1]) + everything
    ranks = inside_first.flatten().argsort().argsort().reshape(SIZE)
    constant = torch.full(SIZE, 0.5)
    assert evidence_scores(constant, [LEFT], ranks, 1.0)["evidence_top"] == 1
    assert evidence_scores(constant, [LEFT], ranks.max() - ranks, 1.0)["evidence_top"] == 0
    assert evidence_scores(constant, [LEFT], ranks.max() - ranks, 1.0)["evidence_ap"] == pytest.approx(16 / 540)


def test_the_top_takes_a_fraction_of_the_evidence() -> None:
    """Four of the 16 pixels are marked most, eight more a little, and others in between."""
    heatmap = torch.zeros(SIZE)
    heatmap[LEFT] = torch.tensor([0.9] * 4 + [0.2] * 8 + [0.0] * 4)
    heatmap[15, :4] = 0.5
    for k, expected in ((0.25, 1.0), (0.5, 0.5), (1.0, 12 / 16)):
        assert evidence_scores(heatmap, [LEFT], RANKS, k)["evidence_top"] == pytest.approx(expected), k
