"""Fidelity, by loops over sets and pixels; how its sets are drawn; and what it says of maps whose worth is known."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import isnan, nan

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import segfaith
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.partition import check_partition, fidelity_sets
from segfaith.benchmark.worker import evaluate_sample
from segfaith.errors import SettingsError
from segfaith.evaluation.fidelity import LEAST_SETS, Per, Sets, draw_sets, fidelity, fidelity_inside, fidelity_outside
from segfaith.evaluation.subject import Subject
from segfaith.occlusion import grid_partition
from segfaith.randomness import generator
from segfaith.types import Target
from toys import SmallCNN, plain

SIZE = (44, 55)


def region(rows: slice = slice(8, 31), columns: slice = slice(10, 41)) -> torch.Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def drawn(
    count: int = 96, size: int = 8, target: torch.Tensor | None = None, seed: int = 0, per: Per = "pixel"
) -> Sets:
    mask = region() if target is None else target
    return draw_sets(grid_partition(SIZE, 11), mask, ~mask, 96, size, np.random.default_rng(seed), per=per)


def test_half_of_the_sets_lie_anywhere_and_a_quarter_on_each_side() -> None:
    sets, mask = drawn(), region()
    assert [sets.areas.count(area) for area in ("anywhere", "inside", "outside")] == [48, 24, 24]  # type: ignore[arg-type]
    for number, area in enumerate(sets.areas):
        chosen = sets.mask(number)
        if area == "inside":
            assert not (chosen & ~mask).any()
        if area == "outside":
            assert not (chosen & mask).any()
    masks = [sets.mask(number).numpy().tobytes() for number in range(len(sets))]
    assert len(set(masks)) == len(masks), "no set is drawn twice"


def test_a_set_anywhere_holds_whole_cells() -> None:
    cells, sets = grid_partition(SIZE, 11), drawn(size=5)
    for number, area in enumerate(sets.areas):
        chosen = sets.mask(number)
        touched = cells[chosen].unique()
        assert len(touched) == 5
        if area == "anywhere":
            assert int(chosen.sum()) == sum(int((cells == cell).sum()) for cell in touched)


def test_sets_depend_on_the_generator_alone() -> None:
    one, again, other = drawn(seed=3), drawn(seed=3), drawn(seed=4)
    assert torch.equal(one.members, again.members)
    assert not torch.equal(one.members, other.members)


def test_pixels_that_do_not_count_lie_in_no_set_outside() -> None:
    mask = region()
    ignored = region(slice(31, 35), slice(0, 55))
    sets = draw_sets(grid_partition(SIZE, 11), mask, ~mask & ~ignored, 96, 8, np.random.default_rng(0))
    for number, area in enumerate(sets.areas):
        assert area == "anywhere" or not (sets.mask(number) & ignored).any()


@pytest.mark.parametrize(("side", "inside"), [(4, 0), (6, 4), (12, 9)])
def test_small_targets_have_fewer_sets_and_no_repetition(side: int, inside: int) -> None:
    """Cells are 4 x 5 px. A target of 4 x 5 is one cell; of 6 x 6 it cuts four, of which one at a time can be drawn."""
    mask = region(slice(8, 8 + side), slice(10, 10 + side + (side == 4)))
    sets = drawn(target=mask)
    found = sets.areas.count("inside")
    if side == 12:  # nine parts, two at a time: 36 different sets
        assert found == 24
    else:
        assert found == inside
    heatmap = torch.rand(SIZE)
    assert isnan(fidelity_inside(heatmap, sets, torch.rand(len(sets), dtype=torch.float64))) == (found < LEAST_SETS)


def slowly(heatmap: torch.Tensor, sets: Sets, drops: Sequence[float], area: str, per: Per = "pixel") -> float:
    totals, chosen = [], []
    for number, where in enumerate(sets.areas):
        if where != area:
            continue
        total, count = 0, 0
        for y, x in sets.mask(number).nonzero().tolist():
            total += round(float(heatmap[y, x]) * 1e6)
            count += 1
        totals.append(total / count if per == "pixel" else total)
        chosen.append(max(0, round(drops[number] * 1e6)) / (count if per == "pixel" else 1))
    return float(spearmanr(totals, chosen).statistic)


@pytest.mark.parametrize("per", ["pixel", "set"])
def test_fidelity_is_the_rank_correlation_of_means_and_drops(per: Per) -> None:
    sets = drawn(per=per)
    heatmap = (torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) * 4).round() / 4
    drops = torch.rand(len(sets), dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 0.3
    for function, area in ((fidelity, "anywhere"), (fidelity_inside, "inside"), (fidelity_outside, "outside")):
        expected = slowly(heatmap, sets, drops.tolist(), area, per)
        assert function(heatmap, sets, drops) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("unit", [1.0, 40.0])
def test_drops_of_the_size_of_rounding_errors_rank_nothing(unit: float) -> None:
    """Inside M the parts differ in area: divided by it, equal noise would rank sets by their size."""
    sets = drawn()
    small = torch.full((len(sets),), 0.9e-5 * unit, dtype=torch.float64)
    assert torch.equal(sets.losses(torch.cat([small[1:], torch.tensor([unit])])).bool().sum(), torch.tensor(1))
    heatmap = torch.rand(SIZE)
    assert isnan(fidelity_inside(heatmap, sets, torch.full_like(small, 0.9e-5)))
    assert not isnan(fidelity_inside(heatmap, sets, torch.full_like(small, 1.2e-5)))


@pytest.mark.parametrize("per", ["pixel", "set"])
def test_a_map_that_is_the_additive_truth_has_fidelity_one_and_its_opposite_minus_one(per: Per) -> None:
    sets, truth = drawn(per=per), torch.rand(SIZE)
    drops = torch.tensor([float(truth[sets.mask(number)].double().sum()) for number in range(len(sets))]).double()
    for function in (fidelity, fidelity_inside, fidelity_outside):
        assert function(truth, sets, drops) > 0.999
        if per == "pixel":
            assert function(1 - truth, sets, drops) < -0.999


def test_by_sums_a_random_map_predicts_what_large_sets_cost_and_per_pixel_it_does_not() -> None:
    """Every pixel of M costs the same; parts inside M differ in area."""
    values: dict[Per, list[float]] = {"set": [], "pixel": []}
    for seed in range(60):
        noise = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))
        for per, found in values.items():
            sets = drawn(seed=seed, per=per)
            cost = torch.tensor([float((sets.mask(j) & region()).sum()) for j in range(len(sets))]).double()
            cost += torch.from_numpy(np.random.default_rng(seed).normal(0, 3, len(sets)))
            found.append(fidelity_inside(noise, sets, cost))
    assert np.mean(values["set"]) > 0.3
    assert abs(np.mean(values["pixel"])) < 0.08


def test_no_difference_is_undefined() -> None:
    sets = drawn()
    drops = torch.rand(len(sets), dtype=torch.float64)
    assert isnan(fidelity(torch.zeros(SIZE), sets, drops))
    assert isnan(fidelity(torch.full(SIZE, 0.3), sets, drops)), "the means over sets are equal to the last bit"
    assert isnan(fidelity_inside(region().float(), sets, drops))
    assert isnan(fidelity(torch.rand(SIZE), sets, torch.full((len(sets),), 1e-9, dtype=torch.float64)))


def subject(seed: int = 0) -> Subject:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(4))
    return Subject(plain(SmallCNN()), "image", image, Target(1, region()), seed, BatchSize(8))


def single(model: object, altered: torch.Tensor, target: Target) -> float:
    with torch.no_grad():
        probability = model.logits(altered[None]).softmax(1)[0, target.class_index]  # type: ignore[attr-defined]
    return float(probability[target.region].double().sum() / (int(target.region.sum()) + 1e-6))


@pytest.mark.parametrize("operator", ["mean", "zero"])
def test_the_records_hold_fidelity_by_single_passes(operator: str) -> None:
    """The sets are those of the seed; each drop is that of one pass with the set's pixels occluded."""
    of = subject()
    evaluation = EvaluationSettings(fidelity_occlusion=operator)
    result = evaluate_sample(of, [resolve_method(one, {}) for one in ("ria", "random_cells")], evaluation)
    sets = draw_sets(
        grid_partition(SIZE, 17), of.target.region, ~of.target.region, 96, 8, generator(0, "image", "fidelity")
    )
    fill = of.image.mean((1, 2)) if operator == "mean" else torch.zeros(3)
    s = single(of.model, of.image, of.target)
    drops = []
    for number in range(len(sets)):
        altered = of.image.clone()
        altered[:, sets.mask(number)] = fill[:, None]
        drops.append(s - single(of.model, altered, of.target))
    row, heatmap = result.records[0], torch.from_numpy(result.maps["ria"])
    for name, area in (("fidelity", "anywhere"), ("fidelity_inside", "inside"), ("fidelity_outside", "outside")):
        assert row[name] == pytest.approx(slowly(heatmap, sets, drops, area), abs=2e-3), name


def test_without_fidelity_its_columns_are_undefined_and_nothing_is_occluded() -> None:
    methods = [resolve_method(one, {}) for one in ("mask", "random_cells")]
    result = evaluate_sample(subject(), methods, EvaluationSettings(fidelity=0, whole=False), stability=False)
    row = result.records[0]
    assert all(isnan(row.get(name, nan)) for name in ("fidelity", "fidelity_inside", "deletion_area", "insertion_area"))
    assert "fidelity" not in row["reason"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ria@grid=17", {}, "the regions of 'ria@grid=17', on a grid of 17 cells a side, share borders with those of"),
        (
            "ria@grid=6",
            {"fidelity_grid": 15},
            "on a grid of 6 cells a side, share borders with those of fidelity, 15 a",
        ),
        ("dea@grid=34", {}, "shares no divisor with 34"),
        ("ria", {"fidelity_grid": 7}, "shares no divisor with 14"),
        ("ria@regions=adaptive,grid=33,passes=400", {}, "shares no divisor with 68"),
        ("ria@regions=adaptive", {"fidelity_grid": 9 * 4}, "on a grid of 28 cells a side"),
        (
            "ria@regions=superpixels",
            {"fidelity_parts": "superpixels"},
            "superpixels are the regions .* evaluation.fidelity_parts = 'grid'",
        ),
    ],
)
def test_a_partition_that_a_method_used_is_refused(name: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        check_partition([resolve_method(name, {})], EvaluationSettings(**changes))  # type: ignore[arg-type]
    check_partition([resolve_method(name, {})], EvaluationSettings(**changes, fidelity=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ria", "ega", "ria@regions=superpixels", "ria@regions=adaptive", "ria@grid=7"])
def test_partitions_of_other_periods_are_fine(name: str) -> None:
    check_partition([resolve_method(name, {})], EvaluationSettings())


def test_a_grid_of_borders_of_its_own_is_fine_and_no_two_grids_that_pass_share_a_border() -> None:
    for own, grid in ((14, 17), (6, 35), (1, 2)):
        check_partition([resolve_method(f"ria@grid={own}", {})], EvaluationSettings(fidelity_grid=grid))
        lines = [{Fraction(i, cells) for i in range(1, cells)} for cells in (own, grid)]
        assert not lines[0] & lines[1]


def test_python_names_its_own_argument() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    image, target = torch.rand(3, *SIZE), Target(1, torch.ones(SIZE, dtype=torch.bool))
    with pytest.raises(SettingsError, match="no divisor with 17, or evaluate with thorough=False") as error:
        segfaith.evaluate(model, image, target, ["ria@grid=34"])
    assert "evaluation." not in str(error.value)
    rows = segfaith.evaluate(model, image, target, ["ria@grid=34"], thorough=False)
    assert rows.loc["ria@grid=34", "status"] == "ok"


def test_superpixels_serve_as_parts() -> None:
    of = subject()
    slope = torch.linspace(0, 1, SIZE[1]).expand(3, *SIZE)
    of = replace(of, image=(0.9 * slope + 0.1 * of.image).clamp(0, 1))
    sets = fidelity_sets(of, ~of.target.region, EvaluationSettings(fidelity_parts="superpixels", fidelity_grid=6))
    assert len(sets) == 96
    assert 20 < sets.members.shape[1] / 3 < 60
