"""The rows of a sample: every column follows from the scores, with planted evidence and without."""

from collections.abc import Iterator
from itertools import combinations, count
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import segfaith
from folder_runs import (
    ALL,
    SPEC_COLUMNS,
    by_method,
    run_records,
    sample_arrays,
)
from rederived import best_by_loops, cells, mean_occluded, order, pixels, score, top_count
from segfaith.attribution.methods import Method, resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.passes import passes_per_sample
from segfaith.benchmark.worker import SampleResult, evaluate_sample
from segfaith.constants import COUNTERPART
from segfaith.errors import SettingsError
from segfaith.evaluation.evidence_score import evidence_ap, evidence_mass, evidence_top
from segfaith.evaluation.interventions import score_columns
from segfaith.evaluation.metrics import METRICS, QUANTITIES, Metric, add_metric
from segfaith.evaluation.ranking import tie_ranks
from segfaith.evaluation.subject import Subject
from segfaith.evidence.layer import check_layer
from segfaith.randomness import generator
from segfaith.results.records.files import write_rows
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.types import Planted, Target
from toys import SmallCNN, plain

# Of a run


def test_one_row_per_sample_and_method_with_everything_measured(full_records: pd.DataFrame) -> None:
    assert list(full_records["sample_id"]) == [f"s{i}" for i in range(6) for _ in ALL]
    assert list(full_records["method"]) == ALL * 6
    assert set(full_records["status"]) == {"ok"}
    assert list(by_method(full_records, "gpa")["class_index"]) == [2, 1, 2, 1, 2, 1]
    figures = full_records.drop(columns=["stability"]).select_dtypes("float")
    measured = figures.drop(columns=[name for name in figures if name.startswith("stability_")])
    planted = [name for name in measured if name.startswith(("evidence_", "odd_beyond", "s_off_evidence"))]
    assert len(planted) == 6
    assert measured[planted].isna().all(axis=None), "nothing was planted in photographs"
    assert full_records["kind"].isna().all()
    detailed = [f"s_{name}_deleted" for name in ("near", "middle", "far")] + ["odd_near", "odd_middle", "odd_far"]
    detailed += [f"s_shifted_deleted_{number}" for number in range(1, 17)] + ["tdd_own", "tdd_gain_own", "own_half"]
    assert measured[detailed].isna().all(axis=None), "neither detailed leakage nor shifted copies were asked for"
    flat = ["fidelity_inside", "fidelity_outside"]
    assert measured.loc[full_records["method"] == "mask", flat].isna().all(axis=None), "the mask is constant there"
    assert measured.loc[~full_records["method"].isin(["mask"]), flat].notna().mean().min() > 0.6
    leaks = measured.loc[full_records["tdd"] > 0.05, ["leak_abs", "leak_signed"]]
    assert len(leaks)
    assert leaks[full_records["method"] != "random_cells"].notna().all(axis=None), "those of a control are in all draws"
    assert measured.drop(columns=[*planted, *detailed, *leaks, *flat]).notna().all(axis=None)
    random_rows = by_method(full_records, "random")
    assert (random_rows["stability"].abs() < 0.2).all(), "a random map is drawn anew for each variant"
    assert (full_records["runtime_s"] >= 0).all()


def test_derived_columns_follow_from_the_raw_scores(full_records: pd.DataFrame) -> None:
    """Equations 3 to 5 on each row; random_cells holds means over draws, of which only the linear ones follow."""
    eps = 1e-6
    for row in full_records.to_dict("records"):
        tdd = (row["s"] - row["s_target_deleted"]) / (row["s"] + eps)
        odd = (row["s"] - row["s_off_deleted"]) / (row["s"] + eps)
        assert row["tdd"] == pytest.approx(tdd, abs=1e-9)
        assert row["odd"] == pytest.approx(odd, abs=1e-9)
        assert row["insertion_gain"] == pytest.approx(row["s_inserted"] - row["s_baseline"], abs=1e-9)
        names = ["noise", "brightness", "contrast", "blur", "flip"]
        five = [row[f"stability_{name}"] for name in names if not np.isnan(row[f"stability_{name}"])]
        assert row["stability"] == pytest.approx(np.mean(five) if five else np.nan, abs=1e-9, nan_ok=True)
        if row["method"] != "random_cells":
            assert row["odd_abs"] == pytest.approx(abs(odd), abs=1e-9)
            leak = odd / (abs(tdd) + eps) if tdd > 0.05 else np.nan
            assert row["leak_abs"] == pytest.approx(abs(leak), rel=1e-6, nan_ok=True)
            assert row["leak_signed"] == pytest.approx(leak, rel=1e-6, nan_ok=True)


def test_tdd_gain_is_tdd_minus_the_mean_of_random_cells(full_records: pd.DataFrame) -> None:
    control = by_method(full_records, "random_cells")["tdd"]
    for row in full_records.to_dict("records"):
        assert row["tdd_gain"] == pytest.approx(row["tdd"] - control[row["sample_id"]], abs=1e-12)
    assert (by_method(full_records, "random_cells")["tdd_gain"] == 0).all()
    assert by_method(full_records, "mask")["tdd_gain"].abs().max() > 0.001


def test_records_hold_every_column_of_spec_and_say_what_it_means(full_run: Path) -> None:
    (file,) = (full_run / "records").iterdir()
    schema = pq.read_schema(file)
    assert [name for name in SPEC_COLUMNS if name not in schema.names] == []
    descriptions = {name: (schema.field(name).metadata or {}).get(b"description", b"") for name in schema.names}
    assert [name for name, words in descriptions.items() if len(words) < 5] == []
    assert b"fraction" in descriptions["target_area"]
    assert b"seconds" in descriptions["runtime_s"]


def test_target_area_and_iou_are_those_of_the_mask(project: Path, full_records: pd.DataFrame) -> None:
    """Re-derived from the files: labels resized to 32 x 32 by pixel centres, the model's argmax by hand."""
    model = segfaith.load_model(f"{project / 'tiny.py'}:build", mean=(0, 0, 0), std=(1, 1, 1))
    for index in (0, 3):
        labels = np.asarray(Image.fromarray(sample_arrays(index)[1]).resize((32, 32), Image.Resampling.NEAREST))
        region = labels == (1 if index % 2 else 2)
        image = segfaith.load_image(project / "data" / "images" / f"s{index}.png", 32)
        predicted = model.module(image[None]).detach()
        logits = nn.functional.interpolate(predicted, size=(32, 32), mode="bilinear", align_corners=False)[0]
        found = logits.argmax(0).numpy() == (1 if index % 2 else 2)
        row = by_method(full_records, "ria").loc[f"s{index}"]
        assert row["target_area"] == pytest.approx(region.sum() / 1024)
        assert row["target_iou"] == pytest.approx((found & region).sum() / (found | region).sum())
        probability = logits.double().softmax(0)[1 if index % 2 else 2].numpy()
        assert row["s"] == pytest.approx((probability * region).sum() / (region.sum() + 1e-6), abs=1e-5)


def test_curves_hold_a_row_per_sample_method_operator_k_and_kind(project: Path, tmp_path: Path) -> None:
    names = ["ega", "random_cells"]
    records = run_records(
        project,
        tmp_path / "run",
        data={"n": 2},
        methods={"names": names, "ria": {"grid": 4}},
        evaluation={"stability": False, "k": [0.2, 0.5], "occlusion": ["zero", "mean"]},
    )
    (file,) = (tmp_path / "run" / "curves").iterdir()
    curves = pd.read_parquet(file)
    keys = ["sample_id", "method", "occlusion", "k", "kind"]
    assert len(curves) == 2 * 2 * 2 * 2 * 3
    assert not curves.duplicated(keys).any()
    assert set(curves["occlusion"]) == {"zero", "mean"}
    assert set(curves["k"]) == {0.2, 0.5}
    assert set(curves["kind"]) == {"target_deletion", "off_deletion", "insertion"}
    columns = {"target_deletion": "tdd", "off_deletion": "odd", "insertion": "insertion_gain"}
    raw = {"target_deletion": "s_target_deleted", "off_deletion": "s_off_deleted", "insertion": "s_inserted"}
    main = curves[(curves["occlusion"] == "zero") & (curves["k"] == 0.2)]
    for row in main.to_dict("records"):
        record = by_method(records, row["method"]).loc[row["sample_id"]]
        assert row["value"] == pytest.approx(record[columns[row["kind"]]], abs=1e-12)
        assert row["score"] == pytest.approx(record[raw[row["kind"]]], abs=1e-12)
        assert (row["s"], row["s_baseline"]) == (record["s"], record["s_baseline"])
        area = round(record["target_area"] * 1024)
        size = 1024 - area if row["kind"] == "off_deletion" else area
        assert row["pixels"] == int(0.2 * size + 0.5)
    described = pq.read_schema(file)
    assert all((described.field(name).metadata or {}).get(b"description") for name in described.names)

    other = run_records(
        project,
        tmp_path / "other",
        data={"n": 2},
        methods={"names": names, "ria": {"grid": 4}},
        evaluation={"stability": False, "k": 0.5, "occlusion": ["mean"]},
    )
    assert not (tmp_path / "other" / "curves").exists(), "one operator and one k need no curves"
    rest = curves[(curves["occlusion"] == "mean") & (curves["k"] == 0.5) & (curves["kind"] == "target_deletion")]
    for row in rest.to_dict("records"):
        record = by_method(other, row["method"]).loc[row["sample_id"]]
        assert row["score"] == pytest.approx(record["s_target_deleted"], abs=1e-6)


# With planted evidence

SIZE = (20, 27)

SEED = 3


def block(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


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
    model, target = plain(module or Wide(), layer="backbone.4"), Target(1, changes.pop("region", REGION))
    subject = Subject(model, "image", photograph(), target, SEED, BatchSize(8), planted=planted)
    instances = [resolve_method(method, {"ria": {"grid": 4}}) for method in [*methods, "random_cells"]]
    return evaluate_sample(subject, instances, EvaluationSettings(**changes), stability=False)


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
    maps = [torch.from_numpy(values[partition]) for values in drawn]
    expected = {
        "evidence_ap": [evidence_ap(heatmap, [INSIDE]) for heatmap in maps],
        "evidence_mass": [evidence_mass(heatmap, [INSIDE]) for heatmap in maps],
        "evidence_top": [evidence_top(heatmap, [INSIDE], ranks, 0.2) for heatmap in maps],
    }
    assert len(set(expected["evidence_ap"])) == 3
    for name, values in expected.items():
        assert row[name] == pytest.approx(np.mean(values), abs=1e-6)


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
        assert all(isnan(row[name]) for name in ("odd_beyond", "odd_beyond_abs", "s_off_evidence_deleted"))
        assert "evidence_ap" not in row, "a column that no row fills; the file has it as NaN"
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


def test_curves_hold_the_absolute_leakage_of_each_draw() -> None:
    """The records' odd_abs, which for random_cells is a mean over three draws, stands in the curves too."""
    result = evaluated(None, ["mask"], occlusion=["zero", "mean"])
    curves = pd.DataFrame(result.curves).set_index(["method", "occlusion", "kind"])
    for record in result.records:
        row = curves.loc[(record["method"], "zero", "off_deletion")]
        assert row["value_abs"] == pytest.approx(record["odd_abs"], rel=1e-12)
        assert row["value"] == pytest.approx(record["odd"], rel=1e-9)


@pytest.fixture
def metrics() -> Iterator[None]:
    """METRICS comes back as it was."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def test_a_metric_that_is_undefined_has_its_own_words_as_reason(metrics: None) -> None:
    """Of scores, of the map, and of means; a need that is unknown is no reason of the metric's own."""
    never = {"formula": "none", "better": "higher", "function": lambda *values: nan}
    add_metric(Metric("of_scores", "A", "never defined", needs=("tdd",), undefined="the moon is full", **never))
    add_metric(Metric("of_map", "B", "never defined", needs=("heatmap",), undefined="the moon is full", **never))
    add_metric(Metric("of_means", "C", "never defined", needs=("seconds",), **never))
    add_metric(Metric("of_control", "D", "never defined", needs=("control_tdd",), undefined="the tide is low", **never))
    add_metric(Metric("of_near", "E", "never defined", needs=("odd_near",), undefined="the tide is low", **never))
    row, control = evaluated(None, [OWN]).records
    reasons = row["reason"].split("; ")
    assert "of_scores: the moon is full" in reasons
    assert "of_map: the moon is full" in reasons
    assert "of_means: the value is undefined" in reasons
    assert "of_control: the tide is low" in reasons
    assert "of_near" not in row["reason"], "leakage was measured plainly"
    assert "of_scores: the moon is full in 3 of 3 draws" in control["reason"].split("; ")
    assert all(isnan(row[name]) for name in ("of_scores", "of_map", "of_means", "of_control", "of_near"))


def test_every_combination_of_needs_that_is_accepted_has_a_value(metrics: None) -> None:
    """Whatever pair of needs is accepted: its metric is defined where both needs are."""
    needs = [
        one for one in (*score_columns(), *QUANTITIES, *METRICS) if one not in ("half", "own_half")
    ]  # of wired ones
    needs += [f"control_{name}" for name in METRICS]
    accepted = 0
    for number, pair in enumerate(combinations(needs, 2)):
        try:
            add_metric(Metric(f"new_{number}", "New", "words", "formula", None, pair, lambda *values: 0.25))
        except SettingsError:
            continue
        accepted += 1
    assert accepted > 1000
    for row in evaluated(Planted("marker", (INSIDE,)), [OWN], leakage="detailed").records:
        assert row["status"] == "ok"
        assert sum(row.get(name) == 0.25 for name in METRICS if name.startswith("new_")) == accepted


def _fails_once() -> Any:
    """A function of a map that fails at its second call alone."""
    calls = count(-1)
    return lambda heatmap: 1 / next(calls)


def test_a_metric_that_fails_is_nan_names_itself_and_leaves_the_others(metrics: None) -> None:
    before = {row["method"]: row for row in evaluated(None, [OWN, "mask"]).records}
    words: dict[str, Any] = {"formula": "none", "better": None, "undefined": "the moon is full"}
    add_metric(Metric("of_scores", "A", "words", needs=("tdd",), function=lambda tdd: 1 / 0, **words))
    add_metric(Metric("of_map", "B", "words", needs=("heatmap",), function=lambda heatmap: heatmap.sum(0), **words))
    add_metric(Metric("of_means", "C", "words", needs=("seconds",), function=lambda seconds: None, **words))
    add_metric(Metric("of_control", "D", "words", needs=("control_tdd",), function=lambda tdd: inf, **words))
    add_metric(Metric("second", "E", "words", needs=("heatmap",), function=_fails_once(), **words))
    rows = {row["method"]: row for row in evaluated(None, [OWN, "mask"]).records}
    assert list(rows) == list(before)
    for name, row in rows.items():
        reasons = row["reason"].split("; ")
        assert row["status"] == "ok"
        assert all(isnan(row[column]) for column in ("of_scores", "of_map", "of_means", "of_control"))
        assert "metric of_scores: ZeroDivisionError: division by zero" in reasons
        assert any(reason.startswith("metric of_map: ValueError: only one element tensors") for reason in reasons)
        assert any(reason.startswith("metric of_means: TypeError: float() argument") for reason in reasons)
        assert "metric of_control: ValueError: the value is inf" in reasons
        assert "moon" not in row["reason"], "a failure is no undefined value"
        for column in set(before[name]) - {"reason", "runtime_s"}:
            same = row[column] == before[name][column]
            assert same or (isnan(row[column]) and isnan(before[name][column])), column
    failure = "metric second: ZeroDivisionError: division by zero"
    assert {name: failure in row["reason"] for name, row in rows.items()} == {
        "ramp": False,
        "mask": True,
        "random_cells": False,
    }
    assert rows["ramp"]["second"] == -1
    assert isnan(rows["mask"]["second"])


def test_a_metric_that_fails_for_a_single_draw_is_nan(metrics: None) -> None:
    add_metric(Metric("second", "E", "words", "none", None, ("heatmap",), _fails_once()))
    (control,) = evaluated(None, []).records
    assert control["method"] == "random_cells"
    assert isnan(control["second"])
    assert control["reason"].split("; ").count("metric second: ZeroDivisionError: division by zero") == 1


def test_a_metric_cannot_change_the_map_that_is_saved(metrics: None) -> None:
    def zeroed(heatmap: Tensor, region: Tensor) -> float:
        return float(heatmap.zero_().sum() + region.zero_().sum())

    before = evaluated(None, [OWN])
    add_metric(Metric("zeroed", "Z", "words", "none", None, ("heatmap", "region"), zeroed))
    after = evaluated(None, [OWN])
    assert after.maps["ramp"].max() > 0
    assert np.array_equal(after.maps["ramp"], before.maps["ramp"])
    assert after.records[0]["zeroed"] == 0
    assert after.records[0]["target_area"] == before.records[0]["target_area"]


def test_without_the_control_tdd_gain_is_undefined_and_says_so() -> None:
    subject = Subject(plain(Wide()), "image", photograph(), Target(1, REGION), SEED, BatchSize(8))
    (row,) = evaluate_sample(subject, [resolve_method(OWN, {})], EvaluationSettings(), stability=False).records
    assert isnan(row["tdd_gain"])
    assert not isnan(row["tdd"])
    assert row["reason"].split("; ")[-1] == "tdd_gain, tdd_drop_gain, deletion_auc, insertion_auc: random_cells failed"
