"""Ranking, ties and every metric by loops: alone, over the whole table, and for one image from end to end."""

from fractions import Fraction
from math import floor, inf, isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from torch import Tensor
from torch.nn import functional as F

import segfaith
from rederived import (
    blurred,
    cells,
    correlation,
    dea,
    ega,
    gpa,
    mean_occluded,
    order,
    pixels,
    region_drops,
    ria,
    score,
    tied_share,
    top_count,
)
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.settings import EvaluationSettings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.constants import LEAST_TDD
from segfaith.evaluation import metrics, ranking
from segfaith.evaluation.correlation import pearson
from segfaith.evaluation.interventions import rank
from segfaith.evaluation.metrics import METRICS, mean_defined, score_metrics
from segfaith.randomness import generator
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.scores import BatchSize
from segfaith.types import Target
from toys import SmallCNN, plain

SIZE = (20, 27)
SCORES = ["s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"]
FROM_SCORES = ["tdd", "odd", "odd_abs", "leak_abs", "leak_signed", "insertion_gain", "insertion_gain_rel"]
DETAILED = ["odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far"]
BEYOND = ["odd_beyond", "odd_beyond_abs"]
PLANTED = [*BEYOND, "evidence_ap", "evidence_mass", "evidence_top"]
"""Metrics that are defined only where evidence was planted."""


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(seed).random((3, *size), dtype=np.float32))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[4 : size[0] - 5, 3 : size[1] // 2] = True
    return image, Target(1, mask)


# Ranking


@pytest.mark.parametrize("k", ["0.2", "0.1", "0.25", "0.5", "1"])
def test_count_rounds_half_up_and_is_at_least_one(k: str) -> None:
    for pixels_of_region in range(1, 2000):
        expected = max(1, floor(Fraction(k) * pixels_of_region + Fraction(1, 2)))
        assert ranking.top_count(float(k), pixels_of_region) == expected


@pytest.mark.parametrize(("k", "count", "expected"), [(0.2, 1, 1), (0.2, 2, 1), (0.2, 7, 1), (0.2, 8, 2), (0.5, 5, 3)])
def test_counts_by_hand(k: float, count: int, expected: int) -> None:
    assert ranking.top_count(k, count) == expected


def levels(seed: int, values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map with at most that many values."""
    return np.random.default_rng(seed).integers(0, values, size).astype(np.float32) / max(values - 1, 1)


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


# Formulas


def metrics_of(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, s_off_evidence: float = nan, **more: float
) -> dict[str, float]:
    scores = {"s_target_deleted": s_target, "s_off_deleted": s_off, "s_baseline": s_baseline, "s_inserted": s_in}
    return score_metrics(s, scores | {"s_off_evidence_deleted": s_off_evidence} | more)


@pytest.mark.parametrize(
    ("given_scores", "expected"),
    [
        (
            (0.8, 0.2, 0.6, 0.1, 0.5),
            {
                "tdd": 0.6 / 0.800001,
                "odd": 0.2 / 0.800001,
                "odd_abs": 0.2 / 0.800001,
                "leak_abs": (0.2 / 0.800001) / (0.6 / 0.800001 + 1e-6),
                "leak_signed": (0.2 / 0.800001) / (0.6 / 0.800001 + 1e-6),
                "insertion_gain": 0.4,
                "insertion_gain_rel": 0.4 / 0.800001,
            },
        ),
        (  # occlusion raises the score on both sides, and insertion lowers it
            (0.5, 0.6, 0.9, 0.7, 0.4),
            {
                "tdd": -0.1 / 0.500001,
                "odd": -0.4 / 0.500001,
                "odd_abs": 0.4 / 0.500001,
                "leak_abs": nan,
                "leak_signed": nan,
                "insertion_gain": -0.3,
                "insertion_gain_rel": -0.3 / 0.500001,
            },
        ),
        (  # eps keeps a score of 0 and a drop of 0 finite
            (0.0, 0.0, 1e-3, 0.0, 0.0),
            {
                "tdd": 0.0,
                "odd": -1e3,
                "odd_abs": 1e3,
                "leak_abs": nan,
                "leak_signed": nan,
                "insertion_gain": 0.0,
                "insertion_gain_rel": 0.0,
            },
        ),
    ],
)
def test_metrics_by_hand(given_scores: tuple[float, ...], expected: dict[str, float]) -> None:
    got = metrics_of(*given_scores)
    assert set(got) == {*FROM_SCORES, *DETAILED, *BEYOND}
    assert {name: got[name] for name in FROM_SCORES} == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert all(isnan(got[name]) for name in BEYOND), "no evidence was planted"
    assert all(isnan(got[name]) for name in DETAILED), "only the plain scores were measured"


def test_detailed_leakage_by_hand() -> None:
    """Each is the relative loss of its own deletion."""
    more = {"s_fair_deleted": 0.9, "s_near_deleted": 0.4, "s_middle_deleted": 0.8, "s_far_deleted": 0.84}
    got = metrics_of(0.8, 0.2, 0.6, 0.1, 0.5, **more)
    expected = {"odd_fair": -0.125, "odd_fair_abs": 0.125, "odd_near": 0.5, "odd_middle": 0.0, "odd_far": -0.05}
    assert {name: got[name] for name in DETAILED} == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("given_scores", "beyond"),
    [
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.7), 0.1 / 0.800001),  # the evidence within S_o explains half of the loss
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.6), 0.0),  # all of it
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.8), 0.2 / 0.800001),  # none of it: odd itself
        ((0.5, 0.2, 0.9, 0.1, 0.5, 0.3), -0.6 / 0.500001),  # what is beyond the evidence raises the score
    ],
)
def test_what_is_lost_beyond_the_evidence_by_hand(given_scores: tuple[float, ...], beyond: float) -> None:
    got = metrics_of(*given_scores)
    assert got["odd_beyond"] == pytest.approx(beyond, abs=1e-12)
    assert got["odd_beyond_abs"] == pytest.approx(abs(beyond), abs=1e-12)
    bare = metrics_of(*given_scores[:5])
    assert {name: got[name] for name in FROM_SCORES} == {name: bare[name] for name in FROM_SCORES}


@pytest.mark.parametrize(
    ("s", "s_target", "s_off"),
    [
        (0.001, 0.114, 0.0027),  # the deletion raises s a hundredfold: the ratio would be .015
        (0.5, 0.5, 0.5),  # constant logits: the ratio would be 0
        (0.5, 0.4751, 0.1),  # tdd = .0498
        (0.5, 0.5, 0.1),
    ],
)
def test_leakage_is_undefined_where_the_target_deletion_costs_nothing(s: float, s_target: float, s_off: float) -> None:
    got = metrics_of(s, s_target, s_off, 0.1, 0.2)
    assert got["tdd"] <= LEAST_TDD
    assert isnan(got["leak_abs"])
    assert isnan(got["leak_signed"])
    assert got["odd_abs"] == abs(got["odd"]), "defined"


def test_leakage_is_defined_from_the_least_tdd_on() -> None:
    got = metrics_of(0.5, 0.4749, 0.6, 0.1, 0.2)
    assert got["tdd"] == pytest.approx(0.0502, abs=1e-6)
    assert got["leak_abs"] == pytest.approx(0.1 / 0.0251, rel=1e-4)
    assert got["leak_signed"] == pytest.approx(-0.1 / 0.0251, rel=1e-4)


def test_nothing_outside_leaves_the_off_target_metrics_undefined() -> None:
    got = metrics_of(0.8, 0.2, nan, 0.1, 0.5, 0.7)
    undefined = {name for name, value in got.items() if isnan(value)}
    assert undefined == {"odd", "odd_abs", "leak_abs", "leak_signed", *BEYOND, *DETAILED}


def test_means_leave_undefined_values_out() -> None:
    assert mean_defined([1.0, nan, 2.0]) == 1.5
    assert isnan(mean_defined([nan, nan]))
    assert isnan(mean_defined([]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_stability_is_pearsons_correlation(seed: int, mixed: float) -> None:
    first, noise = np.random.default_rng(seed).random((2, 9, 11), dtype=np.float32)
    second = (mixed * first + 0.3 * noise).astype(np.float32)
    got = pearson(torch.from_numpy(first), torch.from_numpy(second))
    assert got == pytest.approx(pearsonr(first.astype(float).ravel(), second.astype(float).ravel())[0], abs=1e-9)
    assert got == pytest.approx(correlation(first.astype(float), second.astype(float)), abs=1e-9)


def test_correlation_at_its_ends_and_for_constant_maps() -> None:
    one = torch.from_numpy(np.random.default_rng(0).random((9, 11), dtype=np.float32))
    assert pearson(one, one) == pytest.approx(1, abs=1e-12)
    assert pearson(one, 1 - one) == pytest.approx(-1, abs=1e-6)
    assert pearson(one, 0.25 * one) == pytest.approx(1, abs=1e-12)
    for constant in (torch.zeros(9, 11), torch.full((9, 11), 0.3)):
        assert isnan(pearson(one, constant))
        assert isnan(pearson(constant, one))
        assert isnan(pearson(constant, constant))


# The table of metrics


def test_the_table_has_every_metric_of_the_spec_with_its_direction() -> None:
    assert {name: metric.better for name, metric in METRICS.items()} == {
        "tdd": "higher",
        "tdd_gain": "higher",
        "odd": None,
        "odd_abs": "lower",
        "leak_abs": "lower",
        "leak_signed": None,
        "insertion_gain": "higher",
        "insertion_gain_rel": "higher",
        "stability": "higher",
        "odd_fair": None,
        "odd_fair_abs": "lower",
        "odd_near": None,
        "odd_middle": None,
        "odd_far": None,
        "energy_inside": None,
        "pointing": None,
        "gini": None,
        "odd_beyond": None,
        "odd_beyond_abs": "lower",
        "evidence_ap": "higher",
        "evidence_mass": "higher",
        "evidence_top": "higher",
        "runtime_s": "lower",
    }


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is_and_has_a_column(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.label
    assert len(metric.meaning.split()) >= 3 or name in ("odd_abs", "leak_signed", "leak_abs")
    assert metric.low < metric.high
    assert RECORD_COLUMNS[name][1] == metric.meaning
    assert len({one.label for one in METRICS.values()}) == len(METRICS)


def test_the_records_have_the_columns_of_the_contract() -> None:
    contract = (
        "sample_id class_index method target_area target_iou s s_target_deleted s_off_deleted s_baseline s_inserted "
        "tdd tdd_gain odd odd_abs leak_abs leak_signed insertion_gain stability stability_noise stability_brightness "
        "stability_contrast stability_blur stability_flip runtime_s degenerate tied_share_target tied_share_off status "
        "reason"
    )
    assert set(contract.split()) <= set(RECORD_COLUMNS)


unit = st.floats(0, 1)


@settings(max_examples=200)
@given(unit, unit, unit, unit, unit, unit)
def test_metrics_stay_in_their_ranges(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, s_off_evidence: float
) -> None:
    """For all scores in [0, 1]; the bounds are reached by the scores named below."""
    more = {f"s_{name}_deleted": s_off for name in ("fair", "near", "middle", "far")}
    for name, value in metrics_of(s, s_target, s_off, s_baseline, s_in, s_off_evidence, **more).items():
        assert METRICS[name].low <= value <= METRICS[name].high or (isnan(value) and name.startswith("leak_"))


def test_bounds_are_tight() -> None:
    best, worst = metrics_of(1, 0, 1, 0, 1), metrics_of(1, 1, 1, 1, 0)
    assert best["tdd"] == metrics_of(1, 0, 0, 0, 1)["odd"] == pytest.approx(1, abs=2e-6)
    assert (METRICS["tdd"].high, METRICS["odd"].high) == (1, 1)
    assert (best["insertion_gain"], worst["insertion_gain"]) == (1, -1)
    assert (METRICS["insertion_gain"].low, METRICS["insertion_gain"].high) == (-1, 1)
    assert (best["odd_abs"], best["leak_abs"]) == (0, 0)
    assert (METRICS["tdd"].low, METRICS["tdd_gain"].low) == (-inf, -inf)
    assert metrics_of(1e-3, 1, 1, 0, 0)["tdd"] < -900


@settings(max_examples=100)
@given(unit, unit, unit, unit, unit, st.floats(1e-6, 1))
def test_metrics_point_where_the_table_says(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, step: float
) -> None:
    """Deleting target pixels that cost more, and inserting ones that bring more, moves a metric its better way."""
    before = metrics_of(s, s_target, s_off, s_baseline, s_in)
    assert metrics_of(s, s_target - step, s_off, s_baseline, s_in)["tdd"] > before["tdd"]
    for name in ("insertion_gain", "insertion_gain_rel"):
        assert metrics_of(s, s_target, s_off, s_baseline, s_in + step)[name] > before[name]
    further = s_off + step if s_off >= s else s_off - step
    for name in ("odd_abs", "leak_abs"):
        after = metrics_of(s, s_target, further, s_baseline, s_in)[name]
        assert after > before[name] or (name == "leak_abs" and before["tdd"] <= LEAST_TDD and isnan(after))


def test_metrics_need_no_torch() -> None:
    assert "torch" not in Path(metrics.__file__).read_text().split('"""', 2)[2]


# One image, end to end


class ByHand:
    """A module's score and maps, one pass at a time, from SPEC's formulas."""

    def __init__(self, module: SmallCNN, class_index: int, grid: int) -> None:
        self.module, self.class_index, self.grid = module.eval(), class_index, grid

    def logits(self, image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            coarse = self.module(torch.from_numpy(image.astype(np.float32))[None])["out"]
        return F.interpolate(coarse, size=image.shape[1:], mode="bilinear", align_corners=False)[0].numpy()

    def score(self, image: np.ndarray, region: np.ndarray) -> float:
        return score(self.logits(image), region, self.class_index)

    def maps(self, image: np.ndarray, region: np.ndarray, partition: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            activation = self.module.backbone(torch.from_numpy(image.astype(np.float32))[None])
        activation.requires_grad_()
        size = (image.shape[1], image.shape[2])
        z = F.interpolate(self.module.head(activation), size=size, mode="bilinear", align_corners=False)
        (gradient,) = torch.autograd.grad(z[0, self.class_index][torch.from_numpy(region.copy())].sum(), activation)
        features = (activation[0].detach().double().numpy(), gradient[0].double().numpy(), size)
        drops = region_drops(image, partition, self.grid**2, lambda one: self.score(one, region))
        maps = {"gpa": gpa(*features), "ega": ega(*features), "ria": ria(drops, partition)}
        return maps | {"dea": dea(maps["ega"], maps["ria"])}


def perturbed(image: np.ndarray, seed: int, sample_id: str) -> dict[str, np.ndarray]:
    """The five variants of SPEC section 3, strength 0.03."""
    noise = generator(seed, sample_id, "perturbation|noise").standard_normal(image.shape, dtype=np.float32)
    mean = image.mean((1, 2), keepdims=True)
    variants = {
        "noise": image + 0.03 * noise,
        "brightness": image + 0.03,
        "contrast": mean + 1.03 * (image - mean),
        "blur": blurred(image, image.shape[1] / 224),
        "flip": image[:, :, ::-1],
    }
    return {name: variant.clip(0, 1) for name, variant in variants.items()}


GRID, SEED = 4, 3
FOUR = {"gpa": "gpa", "ega": "ega", "ria": f"ria@grid={GRID}", "dea": f"dea@grid={GRID}"}


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """Every method on a 20 x 27 image, where cells are uneven."""
    image, target = photograph()
    names = [*FOUR.values(), "random", "random_cells", "mask"]
    model = plain(SmallCNN(), layer="backbone.4")
    return segfaith.evaluate(model, image, target, names, stability=True, seed=SEED)


@pytest.fixture(scope="module")
def maps() -> dict[str, np.ndarray]:
    """The clean image's maps of all methods but random_cells, which has three."""
    image, target = photograph()
    names = [*FOUR.values(), "random", "mask"]
    found = segfaith.explain(plain(SmallCNN(), layer="backbone.4"), image, target, names, seed=SEED)
    return {name: one.numpy() for name, one in found.items()}


def test_maps_of_the_records_are_those_by_hand(maps: dict[str, np.ndarray]) -> None:
    image, target = photograph()
    hand = ByHand(SmallCNN(), 1, GRID).maps(image.double().numpy(), target.region.numpy(), cells(SIZE, GRID))
    for key, name in FOUR.items():
        np.testing.assert_allclose(maps[name], hand[key], rtol=0, atol=1e-4)


def test_scores_of_the_records_are_single_passes(records: pd.DataFrame, maps: dict[str, np.ndarray]) -> None:
    """S_t and S_o by a slow sort, O(x, .) pixel by pixel, s_c by loops: the raw scores of every method."""
    image, target = photograph()
    values, region, hand = image.double().numpy(), target.region.numpy(), ByHand(SmallCNN(), 1, GRID)
    ranks = ranking.tie_ranks(SIZE, "cell", generator(SEED, "image", "ties")).numpy()
    baseline = mean_occluded(values, np.ones(SIZE, bool))
    for name, heatmap in maps.items():
        inside, outside = order(heatmap, region, ranks), order(heatmap, ~region, ranks)
        chosen = pixels(inside[: top_count(0.2, len(inside))], SIZE)
        off = pixels(outside[: top_count(0.2, len(outside))], SIZE)
        expected = {
            "s": hand.score(values, region),
            "s_target_deleted": hand.score(mean_occluded(values, chosen), region),
            "s_off_deleted": hand.score(mean_occluded(values, off), region),
            "s_baseline": hand.score(baseline, region),
            "s_inserted": hand.score(np.where(chosen, values, baseline), region),
            "tied_share_target": tied_share(heatmap, inside, int(chosen.sum())),
            "tied_share_off": tied_share(heatmap, outside, int(off.sum())),
        }
        assert dict(records.loc[name, list(expected)]) == pytest.approx(expected, abs=2e-6), name


def test_metrics_of_the_records_follow_from_their_scores(records: pd.DataFrame) -> None:
    """random_cells holds means over three draws, of which a ratio's mean is not the ratio of means."""
    for name, row in records.drop(index="random_cells").iterrows():
        s, s_t, s_o, s_b, s_i = row[SCORES]
        tdd, odd = (s - s_t) / (abs(s) + 1e-6), (s - s_o) / (abs(s) + 1e-6)
        leak = odd / (abs(tdd) + 1e-6) if tdd > LEAST_TDD else nan
        expected = {
            "tdd": tdd,
            "tdd_gain": tdd - records.loc["random_cells", "tdd"],
            "odd": odd,
            "odd_abs": abs(odd),
            "leak_abs": abs(leak),
            "leak_signed": leak,
            "insertion_gain": s_i - s_b,
            "insertion_gain_rel": (s_i - s_b) / (abs(s) + 1e-6),
        }
        assert dict(row[list(expected)]) == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), name
    assert records.loc["random_cells", "tdd_gain"] == 0


def test_random_cells_is_the_mean_of_three_draws(records: pd.DataFrame) -> None:
    """Its scores are those of three maps, each constant on the cells of RIA's default grid."""
    image, target = photograph()
    values, region, hand = image.double().numpy(), target.region.numpy(), ByHand(SmallCNN(), 1, GRID)
    ranks = ranking.tie_ranks(SIZE, "cell", generator(SEED, "image", "ties")).numpy()
    partition = cells(SIZE, 14)
    deleted = []
    for draw in range(3):
        drawn = generator(SEED, "image", f"random_cells|clean|{draw}").random(196, dtype=np.float32)
        inside = order(drawn[partition], region, ranks)
        chosen = pixels(inside[: top_count(0.2, len(inside))], SIZE)
        deleted.append(hand.score(mean_occluded(values, chosen), region))
    assert len(set(deleted)) == 3
    row = records.loc["random_cells"]
    assert row["s_target_deleted"] == pytest.approx(np.mean(deleted), abs=2e-6)
    assert row["tdd"] == pytest.approx((row["s"] - np.mean(deleted)) / (row["s"] + 1e-6), abs=5e-6)


def test_stability_is_the_mean_correlation_with_the_perturbed_maps(records: pd.DataFrame) -> None:
    """Each perturbed image explained by hand; the flipped one with its own mask and mirrored cells, flipped back."""
    image, target = photograph()
    values, region, hand = image.double().numpy(), target.region.numpy(), ByHand(SmallCNN(), 1, GRID)
    partition = cells(SIZE, GRID)
    clean = hand.maps(values, region, partition)
    found: dict[str, dict[str, float]] = {key: {} for key in FOUR}
    for name, variant in perturbed(values, SEED, "image").items():
        if name == "flip":
            mirrored = hand.maps(variant, region[:, ::-1], partition[:, ::-1])
            other = {key: one[:, ::-1] for key, one in mirrored.items()}
        else:
            other = hand.maps(variant, region, partition)
        for key in FOUR:
            found[key][name] = correlation(clean[key], other[key])
    for key, name in FOUR.items():
        row = records.loc[name]
        for perturbation, expected in found[key].items():
            assert row[f"stability_{perturbation}"] == pytest.approx(expected, abs=1e-4), (name, perturbation)
        assert row["stability"] == pytest.approx(sum(found[key].values()) / 5, abs=1e-4)
    assert abs(found["ria"]["flip"]) < 0.9  # the flip does matter to this model


def test_controls_are_unstable_but_for_the_mask(records: pd.DataFrame) -> None:
    """Random maps are redrawn per variant; the mask follows the flip."""
    names = ["stability_noise", "stability_brightness", "stability_contrast", "stability_blur", "stability_flip"]
    assert (records.loc["random", names].abs() < 0.2).all()
    assert (records.loc["random_cells", names].abs() < 0.3).all()
    assert records.loc["mask", names].tolist() == pytest.approx([1] * 5, abs=1e-12)


def test_the_rest_of_the_row(records: pd.DataFrame) -> None:
    image, target = photograph()
    predicted = ByHand(SmallCNN(), 1, GRID).logits(image.double().numpy()).argmax(0) == 1
    region = target.region.numpy()
    assert set(records["class_index"]) == {1}
    assert records["target_area"].tolist() == pytest.approx([region.mean()] * 7)
    overlap = (predicted & region).sum() / (predicted | region).sum()
    assert 0 < overlap < 1
    assert records["target_iou"].tolist() == pytest.approx([overlap] * 7)
    assert np.ptp(records["s"]) == 0
    assert np.ptp(records["s_baseline"]) < 1e-12  # a mean of three draws for random_cells
    counts = np.bincount(ByHand(SmallCNN(), 1, GRID).logits(image.double().numpy()).argmax(0)[region])
    assert set(records["majority_class"]) == {int(counts.argmax())}
    assert records["kind"].isna().all(), "no evidence was planted"
    assert records["s_off_evidence_deleted"].isna().all()
    assert set(records["status"]) == {"ok"}
    low = "leak_abs, leak_signed: tdd is not above 0.05"  # the model hardly cares
    assert {name: row["reason"] for name, row in records.iterrows()} == {
        name: low + (" in 3 of 3 draws" if name == "random_cells" else "") for name in records.index
    }
    assert (records["runtime_s"] >= 0).all()
    assert not records["degenerate"].astype(bool).any()


def test_records_stay_in_the_ranges_of_the_table(records: pd.DataFrame) -> None:
    for name, metric in METRICS.items():
        if name in PLANTED:
            assert records[name].isna().all(), "no evidence was planted"
        elif name in DETAILED:
            assert records[name].isna().all(), "leakage was measured plainly"
        else:
            defined = records[records["tdd"] > LEAST_TDD] if name.startswith("leak_") else records
            assert defined[name].between(metric.low, metric.high).all()
            assert defined[name].notna().all()


@pytest.fixture(scope="module")
def records_in_batches() -> dict[int, pd.DataFrame]:
    image, target = photograph((14, 18))
    model, names = plain(SmallCNN(), layer="backbone.4"), [*FOUR.values(), "random", "mask"]
    return {n: segfaith.evaluate(model, image, target, names, batch_size=n) for n in (1, 3, 8, 64)}


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_batch_size_does_not_change_the_records(batch_size: int, records_in_batches: dict[int, pd.DataFrame]) -> None:
    one, other = records_in_batches[1], records_in_batches[batch_size]
    for name in SCORES:
        np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(other[FROM_SCORES], one[FROM_SCORES], rtol=1e-3, atol=1e-5)


def test_ties_are_broken_alike_for_every_method_and_unlike_for_every_seed() -> None:
    """Two constant maps of one sample delete the same pixels; another seed deletes others."""
    image, target = photograph((28, 42))
    constant = {"zeros": torch.zeros(28, 42), "halves": torch.full((28, 42), 0.5)}
    model = plain(SmallCNN())
    one, other = (segfaith.evaluate(model, image, target, constant, seed=seed) for seed in (0, 1))
    for name in SCORES:
        assert one.loc["zeros", name] == pytest.approx(one.loc["halves", name], abs=1e-7)
    assert abs(one.loc["zeros", "s_target_deleted"] - other.loc["zeros", "s_target_deleted"]) > 1e-4
    assert abs(one.loc["zeros", "s_off_deleted"] - other.loc["zeros", "s_off_deleted"]) > 1e-4


def test_a_map_means_the_same_in_memory_as_in_a_file(tmp_path: Path) -> None:
    """`maps:DIR` is min-max normalised; a raw attribution given to the Python interface is the same map."""
    image, target = photograph()
    raw = 1e-9 * np.random.default_rng(0).normal(size=SIZE)
    np.save(tmp_path / "image.npy", raw)
    model = plain(SmallCNN())
    from_file = segfaith.evaluate(model, image, target, [f"maps:{tmp_path}"]).iloc[0]
    in_memory = segfaith.evaluate(model, image, target, {"raw": raw}).loc["raw"]
    assert from_file["tied_share_target"] < 0.1
    for name in [*SCORES, "tied_share_target", "tied_share_off"]:
        assert in_memory[name] == pytest.approx(from_file[name], abs=1e-6)


def test_maps_from_elsewhere_have_no_stability_and_no_runtime() -> None:
    image, target = photograph()
    heatmap = torch.from_numpy(np.random.default_rng(0).random(SIZE, dtype=np.float32))
    row = segfaith.evaluate(plain(SmallCNN()), image, target, {"own": heatmap}, stability=True).loc["own"]
    assert isnan(row["stability"])
    assert isnan(row["runtime_s"])
    assert row["reason"].split("; ")[0] == "stability, runtime_s: the maps were computed elsewhere"
    assert row["status"] == "ok"
    assert row[["tdd", "tdd_gain", "odd", "odd_abs", "insertion_gain"]].notna().all()


@pytest.mark.parametrize("ties", ["cell", "pixel"])
def test_the_settings_say_how_ties_are_broken(ties: ranking.Ties) -> None:
    """A constant map deletes the pixels that the sample's own tie ranks put first."""
    image, target = photograph()
    own = segfaith.Method("own", "here", ("model",), lambda model, image, target: torch.ones(SIZE))
    row = evaluate_sample(
        plain(SmallCNN()),
        "image",
        image,
        target,
        [resolve_method(one, {}) for one in (own, "random_cells")],
        EvaluationSettings(ties=ties),
        seed=SEED,
        batch=BatchSize(8),
        stability=False,
    ).records[0]
    ranks = ranking.tie_ranks(SIZE, ties, generator(SEED, "image", "ties")).numpy()
    ranked = order(np.zeros(SIZE), target.region.numpy(), ranks)
    chosen = pixels(ranked[: top_count(0.2, len(ranked))], SIZE)
    expected = ByHand(SmallCNN(), 1, GRID).score(mean_occluded(image.double().numpy(), chosen), target.region.numpy())
    assert row["degenerate"]
    assert row["tied_share_target"] == 1
    assert row["s_target_deleted"] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("ignore", ["include", "exclude"])
def test_ignored_pixels_are_off_target_unless_excluded(ignore: str) -> None:
    """The map points at the ignored pixels, whose deletion is all that S_o could do."""
    image, target = photograph()
    labels = torch.where(target.region, 1, 0)
    labels[:, 22:] = 255
    heatmap = (labels == 255).float()
    own = segfaith.Method("own", "here", ("model",), lambda model, image, target: heatmap)
    given = [resolve_method(one, {}) for one in (own, "random_cells")]
    chosen = EvaluationSettings(ignore=ignore)
    row = evaluate_sample(
        plain(SmallCNN()),
        "image",
        image,
        target,
        given,
        chosen,
        seed=SEED,
        batch=BatchSize(8),
        labels=labels,
        stability=False,
    ).records[0]
    outside = ~target.region.numpy() & ((labels.numpy() != 255) | (ignore == "include"))
    ranks = ranking.tie_ranks(SIZE, "cell", generator(SEED, "image", "ties")).numpy()
    ranked = order(heatmap.numpy(), outside, ranks)
    off = pixels(ranked[: top_count(0.2, int(outside.sum()))], SIZE)
    assert bool((labels.numpy()[off] == 255).all()) == (ignore == "include")
    hand = ByHand(SmallCNN(), 1, GRID)
    expected = hand.score(mean_occluded(image.double().numpy(), off), target.region.numpy())
    assert row["s_off_deleted"] == pytest.approx(expected, abs=2e-6)


def test_several_operators_and_fractions_fill_the_curves() -> None:
    """One row per method, operator, k and kind; the first operator and k are those of the records."""
    image, target = photograph()
    given = [resolve_method(one, {}) for one in ("mask", "random_cells")]
    chosen = EvaluationSettings(k=[0.2, 0.5], occlusion=["zero", "mean"])
    result = evaluate_sample(
        plain(SmallCNN()), "image", image, target, given, chosen, seed=0, batch=BatchSize(8), stability=False
    )
    curves = pd.DataFrame(result.curves).set_index(["method", "occlusion", "k", "kind"])
    assert len(curves) == 2 * 2 * 2 * 3
    assert curves.index.is_unique
    area = int(target.region.sum())
    for (_, _, k, kind), row in curves.iterrows():
        region = SIZE[0] * SIZE[1] - area if kind == "off_deletion" else area
        assert row["pixels"] == floor(k * region + 0.5)
        change = row["score"] - row["s_baseline"] if kind == "insertion" else row["s"] - row["score"]
        assert row["value"] == pytest.approx(change if kind == "insertion" else change / (row["s"] + 1e-6), rel=1e-9)
    first = pd.DataFrame(result.records).set_index("method")
    for method in ("mask", "random_cells"):
        for kind, column in [
            ("target_deletion", "s_target_deleted"),
            ("off_deletion", "s_off_deleted"),
            ("insertion", "s_inserted"),
        ]:
            assert curves.loc[(method, "zero", 0.2, kind), "score"] == pytest.approx(first.loc[method, column])
    black = np.zeros((3, *SIZE))
    assert first.loc["mask", "s_baseline"] == pytest.approx(
        ByHand(SmallCNN(), 1, GRID).score(black, target.region.numpy()), abs=2e-6
    )


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([lambda a: a**2, np.sqrt, lambda a: 0.3 * a + 0.6, lambda a: np.expm1(a) / np.expm1(1)]),
)
def test_only_the_ranking_of_a_map_matters(seed: int, rising) -> None:
    image, target = photograph((14, 15), seed)
    heatmap = levels(seed, 50, (14, 15)).astype(np.float64)
    heatmap.flat[:2] = 0, 1
    given = {"plain": heatmap, "risen": rising(heatmap), "reversed": 1 - heatmap}
    got = segfaith.evaluate(plain(SmallCNN()), image, target, given)
    for name in [*SCORES, "tied_share_target", "tied_share_off"]:
        assert got.loc["risen", name] == pytest.approx(got.loc["plain", name], abs=1e-6)
    assert abs(got.loc["reversed", "s_target_deleted"] - got.loc["plain", "s_target_deleted"]) > 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_replacing_pixels_by_themselves_changes_nothing(seed: int, grey: float) -> None:
    """A uniform image is its own mean: nothing is lost by deletion, nothing gained by insertion."""
    _, target = photograph((14, 15))
    image = torch.full((3, 14, 15), grey)
    heatmap = np.random.default_rng(seed).random((14, 15))
    row = segfaith.evaluate(plain(SmallCNN()), image, target, {"map": heatmap}).loc["map"]
    assert row["s"] > 0
    for name in SCORES[1:]:
        assert row[name] == pytest.approx(row["s"], abs=1e-6)
    assert row["insertion_gain"] == pytest.approx(0, abs=1e-6)
