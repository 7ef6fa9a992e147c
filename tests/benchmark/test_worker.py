"""One sample from end to end by loops; samples and methods that fail become rows."""

from math import floor, isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import segfaith
from by_hand import FOUR, GRID, SCORES, SEED, SIZE, ByHand, levels, perturbed, photograph
from folder_runs import (
    METRIC_COLUMNS,
    OWN_METHODS,
    SPEC_COLUMNS,
    add_sample,
    by_method,
    command,
    make_project,
    run_records,
    sample_arrays,
    write_settings,
)
from rederived import (
    cells,
    correlation,
    mean_occluded,
    order,
    pixels,
    tied_share,
    top_count,
)
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.constants import LEAST_TDD
from segfaith.evaluation import ranking
from segfaith.evaluation.metrics import METRICS
from segfaith.evaluation.subject import Subject
from segfaith.randomness import generator
from segfaith.results.records.runs import load_run
from toys import SmallCNN, plain

# One image, end to end

FROM_SCORES = ["tdd", "odd", "odd_abs", "leak_abs", "leak_signed", "insertion_gain", "insertion_gain_rel"]
DETAILED = ["odd_near", "odd_middle", "odd_far"]
OWN_NULL = ["tdd_own", "tdd_gain_own", "own_half"]
PLANTED = ["odd_beyond", "odd_beyond_abs", "evidence_ap", "evidence_mass", "evidence_top"]
"""Metrics that are defined only where evidence was planted."""


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
    assert records["target_area"].tolist() == pytest.approx([region.mean()] * 8)
    overlap = (predicted & region).sum() / (predicted | region).sum()
    assert 0 < overlap < 1
    assert records["target_iou"].tolist() == pytest.approx([overlap] * 8)
    assert np.ptp(records["s"]) == 0
    assert np.ptp(records["s_baseline"]) < 1e-12  # a mean of three draws for random_cells
    counts = np.bincount(ByHand(SmallCNN(), 1, GRID).logits(image.double().numpy()).argmax(0)[region])
    assert set(records["majority_class"]) == {int(counts.argmax())}
    assert records["kind"].isna().all(), "no evidence was planted"
    assert records["s_off_evidence_deleted"].isna().all()
    assert set(records["status"]) == {"ok"}
    low = "leak_abs, leak_signed: tdd is not above 0.05"  # the model hardly cares
    few = "the map or the drops are the same for all sets, or the region holds too few different sets"
    more = {
        "random_cells": " in 3 of 3 draws",
        "mask": f"; fidelity_inside, fidelity_outside: {few}",
    }
    flat = "stability_rank: the map is constant inside the target and outside; "
    assert {name: row["reason"] for name, row in records.iterrows()} == {
        name: flat * (name == "mask") + low + more.get(str(name), "") for name in records.index
    }
    assert (records["runtime_s"] >= 0).all()
    assert not records["degenerate"].astype(bool).any()


def test_records_stay_in_the_ranges_of_the_table(records: pd.DataFrame) -> None:
    for name, metric in METRICS.items():
        if name in PLANTED:
            assert records[name].isna().all(), "no evidence was planted"
        elif name in DETAILED:
            assert records[name].isna().all(), "leakage was measured plainly"
        elif name in OWN_NULL:
            assert records[name].isna().all(), "neither shifted copies nor wired photographs were asked for"
        else:
            defined = records[records["tdd"] > LEAST_TDD] if name.startswith("leak_") else records
            if name in (
                "stability_rank",
                "fidelity_inside",
                "fidelity_outside",
            ):  # undefined of a map that is constant there
                defined = defined.drop("mask")
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
    assert row["reason"].split("; ")[0] == "stability, runtime_s: the maps were given"
    assert row["status"] == "ok"
    assert row[["tdd", "tdd_gain", "odd", "odd_abs", "insertion_gain"]].notna().all()


@pytest.mark.parametrize("ties", ["cell", "pixel"])
def test_the_settings_say_how_ties_are_broken(ties: ranking.Ties) -> None:
    """A constant map deletes the pixels that the sample's own tie ranks put first."""
    image, target = photograph()
    own = segfaith.Method("own", "here", ("model",), lambda model, image, target: torch.ones(SIZE))
    subject = Subject(plain(SmallCNN()), "image", image, target, SEED, BatchSize(8))
    methods = [resolve_method(method, {}) for method in (own, "random_cells")]
    row = evaluate_sample(subject, methods, EvaluationSettings(ties=ties), stability=False).records[0]
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
    subject = Subject(plain(SmallCNN()), "image", image, target, SEED, BatchSize(8), labels=labels)
    row = evaluate_sample(subject, given, chosen, stability=False).records[0]
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
    subject = Subject(plain(SmallCNN()), "image", image, target, 0, BatchSize(8))
    result = evaluate_sample(subject, given, chosen, stability=False)
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
    moved = [abs(got.loc["reversed", name] - got.loc["plain", name]) for name in SCORES[1:]]
    assert max(moved) > 1e-6  # of one score alone, two sets of pixels may cost the same by chance


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


# Bad samples


BAD = {
    "broken": ("failed", r"image .*broken\.png cannot be read"),
    "colour": ("failed", r"label mask .*colour\.png has mode RGB; expected palette \(P\) or index"),
    "empty": ("skipped", r"no foreground in the ground truth"),
    "label": ("failed", r"label 7 is out of range; expected 0 to 2, or 255"),
    "maskless": ("failed", r"label mask .*maskless\.png cannot be read"),
    "red": ("failed", r"the model returned logits that are NaN or infinite"),
    "sizes": ("failed", r"image and label mask differ in size: \(40, 56\) and \(30, 56\)"),
    "text": ("failed", r"image .*text\.png cannot be read"),
}


def test_a_bad_sample_becomes_rows_and_the_run_goes_on(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(damaged, methods={"names": ["gpa", "ria"], "ria": {"grid": 4}})
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1
    output = capsys.readouterr().out
    records = load_run(tmp_path / "run").records
    assert sorted(records["sample_id"].unique()) == sorted([*BAD, "s0", "s1"])
    figures = [name for name in SPEC_COLUMNS[4:27] if name != "degenerate"]
    for sample, (status, reason) in BAD.items():
        rows = records[records["sample_id"] == sample]
        assert list(rows["method"]) == ["gpa", "ria", "random_cells", "gamed"], sample
        assert set(rows["status"]) == {status}, sample
        assert rows["reason"].str.contains(reason, regex=True).all(), (sample, set(rows["reason"]))
        assert rows[figures].isna().all(axis=None), sample
    good = records[records["sample_id"].isin(["s0", "s1"])]
    assert set(good["status"]) == {"ok"}
    assert list(good["class_index"]) == [2, 2, 2, 2, 1, 1, 1, 1]
    assert good[["tdd", "odd", "insertion_gain"]].notna().all(axis=None)
    assert "2 of 10 samples measured, 32 rows not ok" in output
    assert "skipped: 1 sample(s), 4 row(s) (empty): no foreground" in output
    assert "failed: 1 sample(s), 4 row(s) (red): the model returned logits" in output


def test_bad_samples_do_not_change_the_good_ones(damaged: Path, tmp_path: Path) -> None:
    methods = {"names": ["gpa", "ria"], "ria": {"grid": 4}}
    together = run_records(damaged, tmp_path / "all", methods=methods)
    alone = run_records(damaged, tmp_path / "good", data={"ids": ["s0", "s1"]}, methods=methods)
    chosen = together[together["sample_id"].isin(["s0", "s1"])].reset_index(drop=True)
    for name in METRIC_COLUMNS:
        pd.testing.assert_series_equal(chosen[name], alone[name], check_exact=True, check_dtype=False)


def test_a_target_that_covers_the_image_has_no_off_target_figures(tmp_path: Path) -> None:
    root = make_project(tmp_path, samples=0)
    image, _ = sample_arrays(0)
    add_sample(root / "data", "whole", image, np.ones(image.shape[:2], dtype=np.uint8))
    records = run_records(root, tmp_path / "run", methods={"names": ["gpa"], "ria": {"grid": 4}})
    assert set(records["status"]) == {"ok"}
    off = ["s_off_deleted", "odd", "odd_abs", "leak_abs", "leak_signed", "tied_share_off"]
    assert records[off].isna().all(axis=None)
    assert records[["tdd", "insertion_gain"]].notna().all(axis=None)
    assert records["reason"].str.contains("odd, leakage: nothing lies outside the target").all()


# Methods of others


def test_a_method_that_fails_fails_alone(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN_METHODS)
    functions = ["raises", "wrong_shape", "not_a_number", "text", "red"]
    names = [f"{own}:{function}" for function in functions]
    records = run_records(
        project,
        tmp_path / "run",
        data={"n": 2},
        methods={"names": [names[0], "gpa", *names[1:]], "ria": {"grid": 4}},
        evaluation={"stability": True},
    )
    assert len(records) == 2 * 7
    ends = {function: records[records["method"].str.endswith(f":{function}")] for function in functions}
    for function, reason in {
        "raises": r"KeyError: 'no such thing'",
        "wrong_shape": r"returned \(3, 3\); expected a map of shape \(32, 32\), the image's \(H, W\)",
        "not_a_number": r"returned 1024 values that are NaN or infinite",
        "text": r"returned str; expected a map of shape \(32, 32\)",
    }.items():
        assert set(ends[function]["status"]) == {"failed"}, function
        assert ends[function]["reason"].str.contains(reason, regex=True).all(), set(ends[function]["reason"])
        assert ends[function][["tdd", "runtime_s"]].isna().all(axis=None)
        assert ends[function]["s"].notna().all(), "the sample itself was measured"
    for rows in (ends["red"], by_method(records, "gpa"), by_method(records, "random_cells")):
        assert set(rows["status"]) == {"ok"}
        assert rows[["tdd", "tdd_gain", "odd", "stability", "runtime_s"]].notna().all(axis=None)
    assert len(ends["red"]) == 2


def test_maps_computed_elsewhere_score_as_the_same_maps_computed_inside(
    project: Path, kept: Path, tmp_path: Path
) -> None:
    """As .npy, as .npy on another scale, and as a grey PNG."""
    inside = load_run(kept).records
    samples = list(inside["sample_id"].unique())
    for folder in ("ega", "scaled", "mask"):
        (tmp_path / folder).mkdir()
    for sample in samples:
        ega = np.load(kept / "maps" / sample / "ega.npy")
        np.save(tmp_path / "ega" / f"{sample}.npy", ega)
        np.save(tmp_path / "scaled" / f"{sample}.npy", ega.astype(np.float64) * 1e-9 - 4e-9)
        region = np.load(kept / "maps" / sample / "mask.npy")
        Image.fromarray((region * 255).astype(np.uint8)).save(tmp_path / "mask" / f"{sample}.png")
    names = [f"maps:{tmp_path / folder}" for folder in ("ega", "scaled", "mask")]
    records = run_records(
        project,
        tmp_path / "run",
        data={"n": 2, "size": "native"},
        methods={"names": names, "ria": {"grid": 4}},
        evaluation={"stability": True},
    )
    for folder, same in (("ega", "ega"), ("scaled", "ega"), ("mask", "mask")):
        theirs, ours = by_method(records, f"maps:{folder}"), by_method(inside, same)
        assert set(theirs["status"]) == {"ok"}
        for column in METRIC_COLUMNS:
            tolerance = 1e-5 if folder == "scaled" else 1e-6  # other batches move a score's last digits
            values = theirs[column].astype(float), ours[column].astype(float)
            np.testing.assert_allclose(*values, rtol=0, atol=tolerance, err_msg=f"{folder}: {column}")
        unknown = ["stability", "runtime_s", *(name for name in SPEC_COLUMNS if name.startswith("stability_"))]
        assert theirs[unknown].isna().all(axis=None)
        assert theirs["reason"].str.contains("stability, runtime_s: the maps were given").all()


def test_maps_that_are_missing_or_unusable_fail_alone(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    np.save(folder / "s0.npy", np.random.default_rng(0).random((32, 32)))
    np.save(folder / "s2.npy", np.zeros((40, 56)))
    np.save(folder / "s3.npy", np.full((32, 32), np.inf))
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "s4.png")
    (folder / "s5.npy").write_bytes(b"no array")
    records = run_records(project, tmp_path / "run", methods={"names": ["gpa", f"maps:{folder}"]})
    theirs = by_method(records, "maps:theirs")
    assert list(theirs["status"]) == ["ok", "failed", "failed", "failed", "failed", "failed"]
    for sample, reason in {
        "s1": r"no map for s1: expected .*s1\.npy or s1\.png beside it",
        "s2": r"s2\.npy has shape \(40, 56\); expected \(32, 32\), the evaluated image's \(H, W\)",
        "s3": r"s3\.npy holds 1024 values that are NaN or infinite",
        "s4": r"s4\.png has shape \(32, 32, 3\).*a coloured picture of a heatmap holds colours",
        "s5": r"s5\.npy cannot be read",
    }.items():
        assert pd.Series([theirs.loc[sample, "reason"]]).str.contains(reason, regex=True).all(), sample
    assert set(by_method(records, "gpa")["status"]) == {"ok"}


# Settings of the evaluation


def test_stability_on_some_samples_only(project: Path, full_records: pd.DataFrame, tmp_path: Path) -> None:
    records = run_records(project, tmp_path / "run", evaluation={"stability": 2})
    measured = records[records["stability"].notna()]
    assert measured["sample_id"].nunique() == 2
    assert set(measured["method"]) >= {"gpa", "ega", "ria", "dea", "random", "random_cells", "mask"}
    others = records[~records["sample_id"].isin(measured["sample_id"])]
    assert others["sample_id"].nunique() == 4
    assert others["reason"].str.contains("stability: not measured on this sample").all()
    assert set(others["status"]) == {"ok"}
    everywhere = full_records.set_index(["sample_id", "method"])["stability"]
    for row in measured.to_dict("records"):
        assert row["stability"] == everywhere[row["sample_id"], row["method"]]


def test_ignored_pixels_left_out_change_only_off_target_columns(
    project: Path, full_records: pd.DataFrame, tmp_path: Path
) -> None:
    records = run_records(project, tmp_path / "run", evaluation={"stability": True, "ignore": "exclude"})
    off = {"s_off_deleted", "odd", "odd_abs", "odd_drop", "odd_drop_abs", "leak_abs", "leak_signed", "tied_share_off"}
    off |= {
        "s_fair_deleted",
        "odd_fair",
        "odd_fair_abs",
        "fidelity_outside",
        "stability_rank",
        "stability_top",
        "reason",
    }
    whole = {name for name in records.columns if "whole" in name or name.startswith(("deletion_", "insertion_a"))}
    for name in set(records.columns) - off - whole - {"runtime_s"}:
        same = records[name].eq(full_records[name]) | (records[name].isna() & full_records[name].isna())
        assert same.all(), name
    changed = by_method(records, "random")["s_off_deleted"] != by_method(full_records, "random")["s_off_deleted"]
    assert changed.all(), "each sample has a strip of ignored pixels, which random maps rank like any others"
