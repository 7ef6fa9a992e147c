"""The evidence score, and what leaks beyond planted evidence: by loops, by scikit-learn, and by hand."""

from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from rederived import cells, mean_occluded, order, pixels, score, top_count
from segfaith.attribution.methods import Method, resolve_method
from segfaith.benchmark.plan import passes_per_sample
from segfaith.benchmark.settings import EvaluationSettings
from segfaith.benchmark.worker import SampleResult, evaluate_sample
from segfaith.constants import COUNTERPART
from segfaith.evaluation.evidence_score import average_precision, evidence_scores
from segfaith.evaluation.ranking import tie_ranks
from segfaith.evidence.layer import check_layer
from segfaith.randomness import generator
from segfaith.results.records.files import write_rows
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.scores import BatchSize
from segfaith.types import Planted, Target
from toys import SmallCNN, plain

SIZE = (20, 27)
RANKS = tie_ranks(SIZE, "cell", np.random.default_rng(7))
SEED = 3


def block(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# Average precision


def precision_by_loops(values: list[float], truth: list[bool]) -> float:
    """One threshold after the other, counting again each time."""
    rounded = [round(value * 1e6) for value in values]
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(rounded), reverse=True):
        called = [hit for value, hit in zip(rounded, truth, strict=True) if value >= threshold]
        recall = sum(called) / sum(truth)
        area += (recall - recall_before) * sum(called) / len(called)
        recall_before = recall
    return area


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


# Alternatives


def best_by_loops(
    heatmap: NDArray[np.float32], alternatives: list[NDArray[np.bool_]], ranks: NDArray[np.int64], k: float
) -> dict[str, float]:
    """Each alternative without the pixels of the others, one pixel after the other; the best of each figure."""
    found: dict[str, list[float]] = {"evidence_ap": [], "evidence_mass": [], "evidence_top": []}
    for truth in alternatives:
        kept = np.ones(heatmap.shape, dtype=bool)
        for y, x in np.ndindex(heatmap.shape):
            kept[y, x] = truth[y, x] or not any(other[y, x] for other in alternatives)
        total = sum(float(value) for value in heatmap[kept])
        count = top_count(k, int(truth.sum()))
        chosen = order(heatmap, kept, ranks)[:count]
        found["evidence_ap"].append(precision_by_loops(heatmap[kept].tolist(), truth[kept].tolist()))
        found["evidence_mass"] += [sum(float(value) for value in heatmap[truth]) / total] if total else []
        found["evidence_top"].append(sum(bool(truth.flat[i]) for i in chosen) / count)
    return {name: max(values, default=nan) for name, values in found.items()}


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


def test_no_alternatives_leave_everything_undefined() -> None:
    got = evidence_scores(torch.rand(SIZE), [], RANKS, 0.2)
    assert list(got) == ["evidence_ap", "evidence_mass", "evidence_top"]
    assert all(isnan(value) for value in got.values())


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


# In the records

REGION = block(4, 15, 3, 13)
INSIDE, OUTSIDE = block(6, 9, 5, 8), block(2, 10, 15, 20)
FAR, CORNER = block(17, 20, 0, 3), block(0, 2, 26, 27)


class Wide(SmallCNN):
    """The mean of all features enters every pixel's logits, so that what lies far from the target matters too."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        return {"out": self.head(features) + 4 * self.head(features.mean((2, 3), keepdim=True))}


def photograph() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((3, *SIZE), dtype=np.float32))


def ramp(image: Tensor) -> Tensor:
    """A map without ties that rises to the right, so that S_o is a strip at the right edge."""
    return (torch.arange(SIZE[1]).float().repeat(SIZE[0], 1) + torch.linspace(0, 0.5, SIZE[0])[:, None]) / SIZE[1]


OWN = Method("ramp", "here", ("model",), lambda model, image, target: ramp(image))


def evaluated(planted: Planted | None, methods: list[Any], module: Any = None, **changes: Any) -> SampleResult:
    return evaluate_sample(
        plain(module or Wide(), layer="backbone.4"),
        "image",
        photograph(),
        Target(1, changes.pop("region", REGION)),
        [resolve_method(one, {"ria": {"grid": 4}}) for one in [*methods, "random_cells"]],
        EvaluationSettings(**changes),
        seed=SEED,
        batch=BatchSize(8),
        planted=planted,
        stability=False,
    )


def single(image: NDArray[np.float64]) -> float:
    """s_1 over REGION in one pass, by loops."""
    with torch.no_grad():
        coarse = Wide().eval()(torch.from_numpy(image.astype(np.float32))[None])["out"]
    z = F.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=False)[0].numpy()
    return score(z, REGION.numpy(), 1)


def off_target(heatmap: NDArray[np.float32]) -> NDArray[np.bool_]:
    """S_o, by a slow sort."""
    ranks = tie_ranks(SIZE, "cell", generator(SEED, "image", "ties")).numpy()
    ranked = order(heatmap, ~REGION.numpy(), ranks)
    return pixels(ranked[: top_count(0.2, len(ranked))], SIZE)


@pytest.mark.parametrize(
    ("alternatives", "meets"),
    [
        ((block(2, 10, 19, 26),), True),  # outside, in part within S_o
        ((block(2, 10, 5, 26),), True),  # inside and outside
        ((block(2, 6, 24, 27), block(8, 12, 24, 26)), True),  # two alternatives: E is both
        ((INSIDE,), False),  # inside the target
        ((FAR,), False),  # outside, where the map does not point
    ],
)
def test_what_is_lost_beyond_the_evidence_by_loops(alternatives: tuple[Tensor, ...], meets: bool) -> None:
    row = evaluated(Planted("context", alternatives), [OWN]).records[0]
    values = photograph().double().numpy()
    off = off_target(ramp(photograph()).numpy())
    shared = off & np.logical_or.reduce([one.numpy() for one in alternatives])
    assert bool(shared.any()) == meets
    s = single(values)
    s_off, s_shared = single(mean_occluded(values, off)), single(mean_occluded(values, shared))
    assert row["s_off_evidence_deleted"] == pytest.approx(s_shared, abs=2e-6)
    assert row["odd_beyond"] == pytest.approx((s_shared - s_off) / (s + 1e-6), abs=1e-5)
    assert row["odd_beyond_abs"] == abs(row["odd_beyond"])
    if meets:
        assert abs(row["odd_beyond"] - row["odd"]) > 1e-4, "else this test tells nothing"
    else:
        assert row["odd_beyond"] == row["odd"]
        assert row["s_off_evidence_deleted"] == row["s"]


def test_the_evidence_scores_of_a_row_are_those_of_its_map() -> None:
    """With the sample's own tie-break and the first k."""
    planted = Planted("redundancy", (INSIDE, OUTSIDE))
    rows = {row["method"]: row for row in evaluated(planted, [OWN, "mask"], k=[0.3, 0.2]).records}
    ranks = tie_ranks(SIZE, "cell", generator(SEED, "image", "ties")).numpy()
    for name, heatmap in (("ramp", ramp(photograph())), ("mask", REGION.float())):
        expected = best_by_loops(heatmap.numpy(), [INSIDE.numpy(), OUTSIDE.numpy()], ranks, 0.3)
        assert {key: rows[name][key] for key in expected} == pytest.approx(expected, abs=1e-6), name


def test_random_cells_has_the_mean_score_of_its_three_draws() -> None:
    row = evaluated(Planted("marker", (INSIDE,)), []).records[0]
    ranks = tie_ranks(SIZE, "cell", generator(SEED, "image", "ties"))
    assert row["method"] == "random_cells"
    partition = cells(SIZE, 4)
    drawn = [generator(SEED, "image", f"random_cells|clean|{draw}").random(16, dtype=np.float32) for draw in range(3)]
    found = [evidence_scores(torch.from_numpy(one[partition]), [INSIDE], ranks, 0.2) for one in drawn]
    assert len({one["evidence_ap"] for one in found}) == 3
    for name in ("evidence_ap", "evidence_mass", "evidence_top"):
        assert row[name] == pytest.approx(np.mean([one[name] for one in found]), abs=1e-6)


def counted(planted: Planted | None, **changes: Any) -> tuple[int, SampleResult]:
    """How many images went through the model."""
    module, images = Wide(), [0]
    check_layer(plain(module), "backbone.4", photograph())  # once per layer, not per sample

    def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
        images[0] += len(inputs[0])

    module.register_forward_pre_hook(count)
    result = evaluated(planted, ["gpa", "ria", "dea", "mask", OWN], module, **changes)
    return images[0], result


@pytest.mark.parametrize("chosen", [{}, {"k": [0.2, 0.5], "occlusion": ["zero", "mean"]}])
def test_evidence_costs_one_pass_for_each_map_that_marks_it(chosen: dict[str, Any]) -> None:
    """All eight maps (five, and three draws) where it lies everywhere outside; none where it lies inside."""
    methods = [resolve_method(one, {"ria": {"grid": 4}}) for one in ["gpa", "ria", "dea", "mask", OWN, "random_cells"]]
    evaluation = EvaluationSettings(**chosen)
    most = passes_per_sample(methods, evaluation, stability=False, planted=True)
    least = passes_per_sample(methods, evaluation, stability=False)
    assert most == least + 8
    # A module with hooks is not traced, and does without the pass for clean features and those of baselines by a graph.
    hooked = 1 + len(evaluation.occlusion)
    assert counted(None, **chosen)[0] == least - hooked
    assert counted(Planted("marker", (INSIDE,)), **chosen)[0] == least - hooked
    assert counted(Planted(COUNTERPART, ()), **chosen)[0] == least - hooked
    assert counted(Planted("context", (~REGION,)), **chosen)[0] == most - hooked
    assert least < counted(Planted("context", (CORNER,)), **chosen)[0] + hooked < most, "the ramp points there"


def test_curves_know_nothing_of_the_evidence() -> None:
    chosen = {"k": [0.2, 0.5], "occlusion": ["zero", "mean"]}
    without, given_evidence = (evaluated(one, ["mask"], **chosen) for one in (None, Planted("context", (~REGION,))))
    assert len(without.curves) == 2 * 2 * 2 * 3
    pd.testing.assert_frame_equal(pd.DataFrame(without.curves), pd.DataFrame(given_evidence.curves), atol=1e-6)
    shared = [name for name in without.records[0] if not name.startswith(("evidence", "odd_beyond", "runtime"))]
    for one, other in zip(without.records, given_evidence.records, strict=True):
        for name in set(shared) - {"kind", "s_off_evidence_deleted"}:
            assert one[name] == pytest.approx(other[name], abs=1e-5, nan_ok=True) or one[name] == other[name], name


EVIDENCE_COLUMNS = ["odd_beyond", "odd_beyond_abs", "evidence_ap", "evidence_mass", "evidence_top"]


def test_a_counterpart_has_no_scores_and_a_reason() -> None:
    for row in evaluated(Planted(COUNTERPART, ()), ["gpa", "ria", "mask", "random"]).records:
        assert (row["kind"], row["status"]) == ("counterpart", "ok")
        assert all(isnan(row[name]) for name in [*EVIDENCE_COLUMNS, "s_off_evidence_deleted"])
        assert "evidence scores, odd_beyond: what decides this class is the absence of a part" in row["reason"]
        assert not isnan(row["tdd"] + row["odd_abs"])


def test_nothing_planted_is_nothing_said() -> None:
    for row in evaluated(None, ["gpa", "mask"]).records:
        assert row["kind"] is None
        assert "evidence" not in row["reason"]
        assert isnan(row["odd_beyond"])
        assert "evidence_ap" not in row, "a column that no row fills; the file has it as NaN"


def test_every_method_has_scores_and_a_failing_one_its_kind() -> None:
    def fail(model: Any, image: Any, target: Any) -> Tensor:
        raise RuntimeError("no")

    names = ["gpa", "ega", "ria", "dea", "random", "mask"]
    rows = evaluated(Planted("marker", (INSIDE,)), [*names, Method("own", "here", ("model",), fail)]).records
    assert [row["method"] for row in rows] == [*names, "own", "random_cells"]
    for row in rows:
        assert row["kind"] == "marker"
        if row["method"] == "own":
            assert row["status"] == "failed"
            assert "evidence_ap" not in row
        else:
            assert all(not isnan(row[name]) for name in EVIDENCE_COLUMNS), row["method"]
    mask = next(row for row in rows if row["method"] == "mask")
    assert mask["evidence_mass"] == pytest.approx(9 / 110)


def test_a_map_of_zeros_has_a_reason_for_its_missing_mass() -> None:
    zeros = Method("zeros", "here", ("model",), lambda model, image, target: torch.zeros(SIZE))
    row = evaluated(Planted("marker", (INSIDE,)), [zeros]).records[0]
    assert isnan(row["evidence_mass"])
    assert "evidence_mass: the map is zero everywhere" in row["reason"]
    assert row["evidence_ap"] == pytest.approx(9 / 540)


def test_a_target_that_covers_the_image_leaves_nothing_beyond() -> None:
    everywhere = torch.ones(SIZE, dtype=torch.bool)
    row = evaluated(Planted("marker", (INSIDE,)), ["gpa"], region=everywhere).records[0]
    assert isnan(row["odd_beyond"])
    assert isnan(row["s_off_evidence_deleted"])
    assert row["evidence_ap"] > 0


def test_the_majority_class_is_counted_over_the_region() -> None:
    row = evaluated(None, ["mask"]).records[0]
    with torch.no_grad():
        coarse = Wide().eval()(photograph()[None])["out"]
    predicted = F.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=False)[0].argmax(0)
    counts = [int((predicted[REGION] == label).sum()) for label in range(3)]
    assert row["majority_class"] == counts.index(max(counts))


def test_records_with_evidence_come_back_from_their_file(tmp_path: Any) -> None:
    """The kind is null where nothing was planted, and every figure is what it was."""
    rows = evaluated(Planted("marker", (INSIDE,)), ["mask"]).records + evaluated(None, ["mask"]).records
    write_rows(tmp_path / "rows.parquet", rows, RECORD_COLUMNS, "0" * 64)
    back = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(back.columns) == list(RECORD_COLUMNS)
    assert [kind if isinstance(kind, str) else None for kind in back["kind"]] == ["marker", "marker", None, None]
    for name in [*EVIDENCE_COLUMNS, "s_off_evidence_deleted", "majority_class"]:
        expected = [row.get(name, nan) for row in rows]
        assert back[name].tolist() == pytest.approx(expected, abs=0, nan_ok=True), name
        assert back[name].notna().tolist() == [True, True, *([name == "majority_class"] * 2)]
