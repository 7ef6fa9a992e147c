"""Runs with several targets an image, with drawn regions, and with regions that the prediction gives."""

import shutil
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import segfaith
from folder_runs import (
    QUICK,
    add_sample,
    assert_same_records,
    by_method,
    command,
    content,
    make_project,
    prepared_scenes,
    sample_arrays,
    write_settings,
)
from segfaith.attribution import maps
from segfaith.batching import BatchSize
from segfaith.benchmark import measuring
from segfaith.benchmark.fast_modes import verify_precision
from segfaith.benchmark.pool_worker import sample_identity
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.randomisation import randomise
from segfaith.benchmark.settings import find_settings, make_settings, read_settings
from segfaith.benchmark.status import run_state
from segfaith.benchmark.targeting import all_targets, load_sample, planted_of, targets_of
from segfaith.classes import SCENE_CLASSES
from segfaith.errors import SettingsError
from segfaith.randomness import generator
from segfaith.results.figures.tiles import write_pictures
from segfaith.results.records.files import write_rows
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.results.records.seals import DamagedFileError
from segfaith.results.report import gallery
from segfaith.results.statistics.analysis import analyse
from segfaith.types import Target

METHODS = ["ega", "random", "random_cells"]
EACH = {"per_image": "all", "part": "each"}
EXPECTED = {"empty": [""], "s0": ["box", "disc"], "s1": ["box", "disc"], "two": ["box", "box-2", "disc"]}
"""The targets of each sample of `project`."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples with a box and a disc, one with a second box, and one without any."""
    root = make_project(tmp_path_factory.mktemp("targets"), samples=2)
    image, labels = sample_arrays(0)
    labels[30:38, 4:14] = 1
    add_sample(root / "data", "two", image, np.where(labels == 1, 1, labels))
    add_sample(root / "data", "empty", image, np.zeros_like(labels))
    labels[8:26] = np.where(labels[8:26] == 2, 1, labels[8:26])  # the large region is a box too
    labels[30:36, 40:50] = 2
    add_sample(root / "data", "two", image, labels)
    return root


def table(project: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a quick run of all targets, with curves, in shards of two."""
    base: dict[str, Any] = {
        "target": EACH,
        "methods": {"names": METHODS, "ria": {"grid": 2}},
        "evaluation": {"stability": 3, "k": [0.2, 0.5]},
        "execution": {"device": "cpu", "shard_size": 2},
    }
    return content(project, **base | changes)


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run that keeps its maps."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    segfaith.run(make_settings(table(project, output={"maps": True})), directory)
    return load_run(directory)


def targets(records: pd.DataFrame) -> dict[str, list[str]]:
    return {str(name): list(rows["target"].unique()) for name, rows in records.groupby("sample_id")}


# Several targets an image


def test_every_target_has_a_row_for_each_method(whole: Run) -> None:
    records = whole.records
    assert targets(records) == EXPECTED
    assert (records.groupby(["sample_id", "target"])["method"].agg(list).map(lambda names: names == METHODS)).all()
    assert set(records.loc[records["sample_id"] == "empty", "status"]) == {"skipped"}
    measured = whole.measured
    assert set(zip(measured["target"], measured["class_index"], strict=True)) == {("box", 1), ("box-2", 1), ("disc", 2)}
    assert list(whole.curves.columns[:4]) == ["sample_id", "class_index", "target", "method"]
    assert targets(whole.curves) == {name: names for name, names in EXPECTED.items() if name != "empty"}
    assert run_state(whole.directory).ok == 3, "samples, not targets"


def test_the_areas_are_those_of_the_components(project: Path, whole: Run) -> None:
    labels = np.asarray(Image.open(project / "data/masks/two.png").resize((32, 32), Image.Resampling.NEAREST))
    areas = by_method(whole.records, "ega").loc["two"].set_index("target")["target_area"]
    assert areas["disc"] == pytest.approx((labels == 2).mean())
    assert areas["box"] + areas["box-2"] == pytest.approx((labels == 1).mean())
    assert areas["box"] == pytest.approx((labels[:22] == 1).sum() / labels.size)


def test_maps_and_pictures_have_a_folder_for_each_target(whole: Run, tmp_path: Path) -> None:
    folders = {f"{sample}@{target}" for sample, names in EXPECTED.items() for target in names if target}
    directory = tmp_path / "run"
    shutil.copytree(whole.directory, directory)
    assert {folder.name for folder in (directory / "maps").iterdir()} == folders
    regions = [np.asarray(Image.open(directory / f"maps/two@{name}/target.png")).any(2) for name in EXPECTED["two"]]
    assert not (regions[0] & regions[1]).any()
    overview, *pictures = write_pictures(directory, whole.description, whole.records)
    assert {picture.stem for picture in pictures} == folders
    assert overview.is_file()
    shown = gallery.gallery(analyse([load_run(directory)]).parts)
    assert {f"{sample.sample_id}@{sample.target}" for sample in shown.samples if sample.folder} == folders
    assert len({sample.anchor for sample in shown.samples}) == len(folders) + 1
    assert "or one of the targets of an image that has several" in shown.rule


def test_a_run_that_is_stopped_and_resumed_has_the_same_records(project: Path, whole: Run, tmp_path: Path) -> None:
    settings = make_settings(table(project, output={"maps": True}))

    def stops(sample_id: str) -> None:
        if sample_id == "s1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segfaith.run(settings, tmp_path / "run", stops)
    assert len(list((tmp_path / "run/records").iterdir())) == 1
    again: list[str] = []
    segfaith.run(settings, tmp_path / "run", again.append)
    assert again == ["s1", "two"]
    run = load_run(tmp_path / "run")
    assert_same_records(whole.records, run.records)
    pd.testing.assert_frame_equal(whole.curves, run.curves)


def test_a_run_of_fewer_samples_is_extended_to_the_same_records(project: Path, whole: Run, tmp_path: Path) -> None:
    stable = {"stability": True, "k": [0.2, 0.5]}
    changes = {"output": {"maps": True}, "evaluation": stable, "seed": 1}
    fresh = segfaith.run(make_settings(table(project, **changes)), tmp_path / "fresh")
    small = table(project, **changes)
    small["data"]["n"] = 3
    segfaith.run(make_settings(small), tmp_path / "run")
    held = load_run(tmp_path / "run").records["sample_id"].unique()
    shutil.rmtree(tmp_path / f"run/maps/{held[-1]}@disc")
    measured: list[str] = []
    real = measuring.run_sample

    def noted(prepared: Any, sample_id: str, *arguments: Any) -> Any:
        measured.append(sample_id)
        return real(prepared, sample_id, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "run_sample", noted)
        segfaith.run(make_settings(table(project, **changes)), tmp_path / "run")
    new = set(EXPECTED) - set(held)
    assert set(measured) == new | {held[-1]}, "of one target a map was missing"
    assert_same_records(load_run(fresh).records, load_run(tmp_path / "run").records)


def test_rows_that_are_missing_or_twice_are_damage(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.directory, tmp_path / "run")
    file = tmp_path / "run/records/00001.parquet"
    rows = pq.read_table(file).to_pylist()
    identity = whole.description["identity_sha256"]
    for wrong, words in [
        ([row for row in rows if (row["target"], row["method"]) != ("box-2", "ega")], r"1 missing \(two, box-2, ega\)"),
        ([*rows, rows[-1]], r"1 twice or of no such sample or method \(two, disc, random_cells\)"),
        ([*rows, rows[-1] | {"target": ""}], r"1 twice or of no such sample or method \(two, random_cells\)"),
        ([row for row in rows if row["sample_id"] != "two"], r"missing \(two, ega\)"),
        ([*rows[:-1], rows[-1] | {"target": "../../disc"}], r"has a target '\.\./\.\./disc', which cannot name files"),
    ]:
        write_rows(file, wrong, RECORD_COLUMNS, identity)
        with pytest.raises(DamagedFileError, match=words):
            load_run(tmp_path / "run")


def test_random_numbers_are_the_targets_own_and_unnamed_targets_keep_theirs() -> None:
    digest = sha256(b"3|a|ties").digest()
    old = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(4)
    assert np.array_equal(generator(3, "a", "ties", "").random(4), old)
    digits = {tuple(generator(3, "a", "ties", name).random(4)) for name in ("", "dog", "dog-2")}
    assert len(digits) == 3


def test_the_dominant_class_alone_has_the_numbers_of_the_same_region_but_for_what_is_random(
    project: Path, whole: Run, tmp_path: Path
) -> None:
    """s0's dominant class is its disc: EGA's map and s do not depend on a target's name; random maps do."""
    changes = {"target": {"class": "disc"}, "output": {"maps": True}, "data": {"ids": ["s0"]}}
    directory = segfaith.run(make_settings(table(project, **changes)), tmp_path / "run")
    alone, beside = directory / "maps/s0", whole.directory / "maps/s0@disc"
    assert np.array_equal(np.load(alone / "ega.npy"), np.load(beside / "ega.npy"))
    assert not np.array_equal(np.load(alone / "random.npy"), np.load(beside / "random.npy"))


def test_the_randomisation_check_and_the_fast_modes_take_every_target(project: Path, tmp_path: Path) -> None:
    settings = make_settings(table(project, evaluation={"stability": False}, data={"ids": ["empty", "two"]}))
    prepared = prepare(settings)
    segfaith.run(prepared, tmp_path / "run")
    randomise(prepared, tmp_path / "run", 2)
    rows = load_run(tmp_path / "run").randomisation
    assert targets(rows) == {"empty": [""], "two": EXPECTED["two"]}
    start = rows[(rows["stage"] == 0) & (rows["sample_id"] == "two")]
    assert np.allclose(start["pearson"], 1)
    steps: list[str] = []
    frame = verify_precision(prepared, ["exact"], stability=False, on_step=steps.append)
    assert frame.attrs["samples"] == 3
    assert any(words.startswith("two@box-2: exact") for words in steps)
    assert frame.loc["exact", "drop_error"] < 1e-5


def test_maps_computed_elsewhere_are_read_by_target(project: Path, whole: Run, tmp_path: Path) -> None:
    for folder in (whole.directory / "maps").iterdir():
        (tmp_path / "theirs").mkdir(exist_ok=True)
        shutil.copy(folder / "ega.npy", tmp_path / "theirs" / f"{folder.name}.npy")
    names = {"names": [f"maps:{tmp_path / 'theirs'}", "ega"], "ria": {"grid": 2}}
    run = load_run(segfaith.run(make_settings(table(project, methods=names)), tmp_path / "run"))
    theirs, ours = (by_method(run.measured, name) for name in ("maps:theirs", "ega"))
    assert len(theirs) == 7
    np.testing.assert_array_equal(theirs["tdd"], ours["tdd"])
    digest = run.description["identity"]["sources"]["maps:theirs"]
    shutil.copy(tmp_path / "theirs/s0@box.npy", tmp_path / "theirs/two@box-2.npy")
    other = prepare(make_settings(table(project, methods=names)))
    assert other.description["identity"]["sources"]["maps:theirs"] != digest
    maps._names_by_id.cache_clear()
    for sample_id in other.plan.ids:  # as the workers of a pool ask
        sources = sample_identity(other, sample_id)["sources"]
        assert sources["maps:theirs"] != other.description["identity"]["sources"]["maps:theirs"]
    assert maps._names_by_id.cache_info().misses == 1, "the folder is listed once for all samples"


def test_a_dry_run_says_that_it_counts_one_target(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for target, words in ((EACH, "passes    at least "), ({"class": "box"}, "passes    ")):
        settings = write_settings(project, **QUICK, target=target)
        assert command(monkeypatch, "run", settings, "--dry-run") == 0
        shown = capsys.readouterr().out
        assert words in shown
        assert ("an image may have several targets" in shown) == ("time      at least" in shown) == (target == EACH)


# Regions of the prediction, and of classes that overlap


@pytest.mark.parametrize("head", [None, "sigmoid"])
def test_what_the_model_misses_and_invents(project: Path, tmp_path: Path, head: str | None) -> None:
    """Hits and misses make up the truth; no miss is predicted as the class."""
    changes: dict[str, Any] = {"methods": {"names": ["random"], "ria": {"grid": 2}}, "model": {"head": head}}
    areas: dict[str, float] = {}
    for source in ("ground_truth", "hit", "missed"):
        target = {"source": source, "class": "box"}
        settings = make_settings(table(project, **changes, target=target, data={"ids": ["s1"]}, evaluation={}))
        records = load_run(segfaith.run(settings, tmp_path / source)).records
        (row,) = records[records["method"] == "random"].to_dict("records")
        areas[source] = 0.0 if row["status"] == "skipped" else row["target_area"]
        if source == "missed" and row["status"] == "ok":
            assert row["target_iou"] == 0
    assert areas["hit"] + areas["missed"] == pytest.approx(areas["ground_truth"])
    assert areas["ground_truth"] > 0


def test_a_prediction_of_overlapping_classes_is_where_each_sigmoid_is_above_a_half() -> None:
    class Bands(torch.nn.Module):
        """Two classes that overlap in the middle, and a third that is nowhere."""

        def __init__(self) -> None:
            super().__init__()
            self.unit = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            column = torch.arange(x.shape[-1], dtype=x.dtype).expand(x.shape[0], *x.shape[-2:])
            return torch.stack([5 - column, column - 2.5, -1 - 0 * column], 1) * self.unit + 0 * x.mean()

    model = segfaith.wrap(Bands(), mean=(0, 0, 0), std=(1, 1, 1), head="sigmoid", classes=["a", "b", "c"])
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert segfaith.predicted_target(model, image, "a").region[0].tolist() == [True] * 5 + [False] * 3
    assert segfaith.predicted_target(model, image, "b").region[0].tolist() == [False] * 3 + [True] * 5
    with pytest.raises(segfaith.SampleError, match=r"class 2 \(c\) does not occur in the prediction"):
        segfaith.predicted_target(model, image, "c")
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[:, 4:] = True
    frame = segfaith.evaluate(model, image, Target(0, region), ["random"])
    row = frame.loc["random"]
    assert row["majority_class"] == 1
    assert row["target_iou"] == pytest.approx(8 / (5 * 8 + 4 * 8 - 8)), "of the pixels whose sigmoid is above 1/2"


def test_planted_evidence_of_classes_that_overlap_needs_most_of_the_region() -> None:
    prepared = prepared_scenes(1)
    sample = prepared.plan.dataset.load(prepared.plan.ids[0], 64)
    (target,) = prepared.targets(sample)
    region = target.region
    assert planted_of(replace(sample, masks={target.class_index: region}), target) is not None
    assert planted_of(replace(sample, masks={target.class_index: ~region, 99: region}), target) is None
    assert planted_of(replace(sample, masks={99: region}), target) is None


# Drawn regions


def draw(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file)


def run_of_mask(project: Path, directory: Path, mask: Path, **data: Any) -> pd.DataFrame:
    target = {"class": "box", "mask": str(mask)}
    changes = {"target": target, "methods": {"names": ["random"]}, "evaluation": {}, "output": {"maps": True}}
    settings = make_settings(table(project, **changes, data={"ids": ["s0", "s1"], **data}))
    return by_method(load_run(segfaith.run(settings, directory)).records, "random")


def test_a_drawn_mask_at_the_original_size_is_resized_and_at_the_evaluated_size_is_not(
    project: Path, tmp_path: Path
) -> None:
    original, evaluated = np.zeros((40, 56)), np.zeros((32, 32))
    original[5:15, 7:30] = 200
    evaluated[4:9, 20:31] = 1
    draw(tmp_path / "masks/s0.png", original)
    draw(tmp_path / "masks/s1.png", evaluated)
    rows = run_of_mask(project, tmp_path / "run", tmp_path / "masks")
    assert set(rows["class_index"]) == {1}
    kept = {name: np.asarray(Image.open(tmp_path / f"run/maps/{name}/target.png")).any(2) for name in ("s0", "s1")}
    assert np.array_equal(kept["s1"], evaluated > 0)
    nearest = Image.fromarray(original.astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST)
    assert np.array_equal(kept["s0"], np.asarray(nearest) > 0)


def test_a_drawn_mask_is_turned_upright_as_its_file_says(project: Path, tmp_path: Path) -> None:
    values = np.zeros((32, 32))
    values[4:9, 20:31] = 1
    draw(tmp_path / "masks/s0.png", values[::-1, ::-1])
    exif = Image.Exif()
    exif[0x112] = 3  # turned by 180 degrees
    Image.open(tmp_path / "masks/s0.png").save(tmp_path / "masks/s0.png", exif=exif)
    run_of_mask(project, tmp_path / "run", tmp_path / "masks", ids=["s0"])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "run/maps/s0/target.png")).any(2), values > 0)


def test_a_drawn_mask_that_cannot_be_used_is_a_row_that_says_why(project: Path, tmp_path: Path) -> None:
    draw(tmp_path / "masks/s0.png", np.ones((40, 55)))
    draw(tmp_path / "masks/s1.png", np.zeros((40, 56)))
    rows = run_of_mask(project, tmp_path / "run", tmp_path / "masks")
    assert rows["status"].to_dict() == {"s0": "failed", "s1": "skipped"}
    assert "is 40 x 55 px (H x W); expected the image's 40 x 56, or 32 x 32" in rows.loc["s0", "reason"]
    assert "has no pixel other than 0" in rows.loc["s1", "reason"]


def test_another_drawing_in_the_same_file_is_another_run(project: Path, tmp_path: Path) -> None:
    draw(tmp_path / "mask.png", np.ones((40, 56)))
    run_of_mask(project, tmp_path / "run", tmp_path / "mask.png")
    assert load_run(tmp_path / "run").data.endswith("target box, mask mask.png")
    values = np.ones((40, 56))
    values[0] = 0
    draw(tmp_path / "mask.png", values)
    with pytest.raises(SettingsError, match="target mask"):
        run_of_mask(project, tmp_path / "run", tmp_path / "mask.png")
    with pytest.raises(SettingsError, match=r"target\.mask: there is no .*nowhere"):
        run_of_mask(project, tmp_path / "run", tmp_path / "nowhere")


# Settings


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"mask": "m.png"}, "mask is a region without a class; give class = NAME too"),
        ({"mask": "m.png", "class": 1, "part": "largest"}, "mask is the whole region, so part would do nothing"),
        ({"mask": "m.png", "class": 1, "source": "hit", "box": [0, 0, 2, 2]}, "so source and box would do nothing"),
        ({"point": [0, 0], "box": [0, 0, 2, 2]}, "point and box exclude each other"),
        ({"point": [0, 0], "part": "each"}, "point names one component"),
        ({"part": "half"}, "target.part = 'half'"),
        ({"box": [0, 0, 2]}, "target.box"),
        ({"box": [0, 0, 33, 2]}, r"target.box = \[0, 0, 33, 2\] lies outside the image.* data.size = 32"),
        ({"point": [32, 0]}, r"target.point = \[32, 0\] lies outside the image"),
        ({"classes": []}, "expected at least one class"),
        ({"class": 1, "classes": [1]}, "class and classes exclude each other"),
        ({"versus": "disc"}, "versus is the other class of score = 'conditional' or 'margin'"),
        ({"minarea": 3}, "did you mean 'min_area'"),
    ],
)
def test_settings_that_exclude_each_other_say_what_to_do(project: Path, target: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_settings(content(project, target=target))


def test_classes_are_named_and_the_margin_is_to_a_class(project: Path, tmp_path: Path) -> None:
    target = {"classes": ["disc", 0], "per_image": "all", "score": "margin", "versus": "box"}
    settings = make_settings(content(project, **QUICK, target=target))
    prepared = prepare(settings)
    assert (prepared.choice.classes, prepared.choice.versus) == ((2, 0), 1)
    result = measuring.run_sample(prepared, "s0", lambda: prepared.plan.dataset.load("s0", 32), BatchSize(4))
    assert [row["target"] for row in result.records if row["method"] == "random"] == ["background", "disc"]
    assert {row["score"] for row in result.records} == {"margin to class 1"}
    with pytest.raises(SettingsError, match="unknown class 'ball'"):
        prepare(make_settings(content(project, **QUICK, target={"classes": ["ball"]})))
    sigmoid = content(project, **QUICK, target={"score": "margin"})
    sigmoid["model"]["head"] = "sigmoid"
    with pytest.raises(SettingsError, match="score = 'margin' compares classes, but"):
        prepare(make_settings(sigmoid))


def test_a_class_is_asked_for_among_two(project: Path) -> None:
    target = {"class": "disc", "score": "conditional", "versus": "box"}
    prepared = prepare(make_settings(table(project, target=target, methods={"names": ["mask"]}, evaluation={})))
    load = partial(load_sample, prepared.plan, prepared.model, "s0")
    (row, _) = measuring.run_sample(prepared, "s0", load, BatchSize(4)).records
    assert (row["score"], row["status"]) == ("conditional against class 1", "ok")
    sample = load()
    with torch.no_grad():
        p = prepared.model.logits(sample.image[None])[0].double().softmax(0)
    region = sample.labels == 2
    share = (p[2] / (p[2] + p[1]))[region]
    assert row["s"] == pytest.approx(float(share.sum() / (len(share) + 1e-6)), abs=1e-6)
    assert row["tdd"] == pytest.approx((row["s"] - row["s_target_deleted"]) / (row["s"] + 1e-6), rel=1e-9)


def test_twins_are_those_of_data_sets_that_know_them(project: Path) -> None:
    target = {"score": "conditional", "versus": "twin"}
    words = "versus = 'twin': the data set folder knows no twins of its classes, as 'scenes' does; name the other class"
    with pytest.raises(SettingsError, match=words):
        prepare(make_settings(content(project, **QUICK, target=target)))
    with pytest.raises(SettingsError, match="versus is the other class of score = 'conditional' or 'margin'"):
        make_settings(content(project, target={"versus": "twin"}))
    plain = read_settings(find_settings("quickstart"), ["target.score=probability", "target.versus=none"])
    assert (plain.target.score, plain.target.versus) == ("probability", None)


@pytest.mark.parametrize("score", ["conditional", "margin"])
def test_each_target_of_a_scene_is_compared_with_its_twin(score: str) -> None:
    content: dict[str, Any] = {
        "data": {"name": "scenes", "ids": ["val-0006"], "size": 64},
        "model": {"name": "scenes"},
        "target": {"per_image": "all", "score": score, "versus": "twin"},
    }
    prepared = prepare(make_settings(content))
    sample = load_sample(prepared.plan, prepared.model, "val-0006")
    targets = targets_of(prepared.plan, prepared.model, prepared.choice, sample)
    names = SCENE_CLASSES
    pairs = {("plain_rings", "plain_rays"), ("marker_upright", "marker_level"), ("context_above", "context_below")}
    pairs |= {("both", "not_both"), ("either", "neither")}
    assert len(targets) > 1
    for target in targets:
        assert target.score == score
        two = names[target.class_index], names[target.versus or 0]
        assert two in pairs or two[::-1] in pairs
    own = targets[0].class_index
    background = content | {"target": content["target"] | {"classes": [0, own]}}
    prepared = prepare(make_settings(background))
    (first, why), *rest = all_targets(prepared.plan, prepared.model, prepared.choice, sample)
    assert (first.class_index, [target.class_index for target, _ in rest]) == (0, [own])
    assert "class 0 has no twin; leave versus out to compare with the strongest other" in str(why)
    assert rest[0][1] is None


def test_targets_that_the_model_does_not_miss_have_rows_that_say_so(project: Path) -> None:
    """`versus = "predicted"`: no target vanishes, and every row names the score."""
    target = EACH | {"score": "margin", "versus": "predicted"}
    prepared = prepare(make_settings(table(project, target=target, methods={"names": ["mask"]}, evaluation={})))
    told: dict[str, list[str]] = {}
    for sample_id, names in EXPECTED.items():
        load = partial(load_sample, prepared.plan, prepared.model, sample_id)
        records = measuring.run_sample(prepared, sample_id, load, BatchSize(4)).records
        rows = [row for row in records if row["method"] == "mask"]
        assert [row["target"] for row in rows] == names
        for row in rows:
            told.setdefault(row["status"], []).append(row["score"])
            if row["target"]:
                assert ("the target is not missed" in row["reason"]) == (row["status"] == "skipped")
    assert set(told) == {"ok", "skipped"}
    assert set(told["skipped"]) == {"margin"}
    assert all(score.startswith("margin to class ") for score in told["ok"])
