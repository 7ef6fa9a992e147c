"""The gallery: which samples it holds, in which order, where they stand, and the disagreement of their maps."""

import shutil
from collections import Counter
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from made_runs import edit_description, make_run, repeat_targets
from segfaith.results.records.runs import Run, load_run
from segfaith.results.report import gallery
from segfaith.results.statistics.analysis import analyse


def sample(
    name: str, value: float = nan, status: str = "ok", run: Run | None = None, label: str = "run"
) -> gallery.Sample:
    rows = pd.DataFrame([{"method": "ega", "status": status, "reason": "", "s": 0.5, "class_index": 1}])
    run = run or Run(Path("runs") / label, {}, rows, rows.iloc[:0], rows.iloc[:0])
    return gallery.Sample(run, label, name, rows, value)


def shown(*directories: Path, **options: Any) -> gallery.Gallery:
    return gallery.gallery(analyse([load_run(directory) for directory in directories]).parts, **options)


def test_the_gallery_chooses_by_its_rules() -> None:
    """50 bad ones and 500 measured: 40 bad, failed first; 80 with the largest values, 80 spread over the others."""
    rng = np.random.default_rng(0)
    values = rng.permutation(500) / 500
    samples = [sample(f"good{i:03d}", value) for i, value in enumerate(values)]
    samples[10:10] = [sample(f"skipped{i}", status="skipped") for i in range(25)]
    samples[90:90] = [sample(f"failed{i}", status="failed") for i in range(25)]
    chosen = gallery.choose(samples)
    assert len(chosen) == len({one.sample_id for one in chosen}) == 200
    assert Counter(one.status for one in chosen) == {"ok": 160, "failed": 25, "skipped": 15}
    good = sorted((one.disagreement for one in chosen if one.status == "ok"), reverse=True)
    assert good[:80] == sorted(values, reverse=True)[:80]
    rest = np.array(good[80:])
    assert rest[0] == sorted(values)[-81]
    assert rest[-1] == min(values)
    assert -np.diff(rest).min() < 0.02, "no gap wider than the others"
    assert gallery.choose(samples[:200]) == samples[:200], "all that fit are there"
    assert len(gallery.choose([sample(str(i)) for i in range(300)], 7)) == 7, "without any value, too"


def test_samples_that_are_asked_for_are_always_there() -> None:
    samples = [sample(f"good{i:03d}", i / 300) for i in range(300)]
    wanted = {samples[3].key, samples[150].key}
    without = {one.sample_id for one in gallery.choose(samples, 20)}
    assert not {"good003", "good150"} & without
    chosen = gallery.choose(samples, 20, wanted)
    assert len(chosen) == len({one.key for one in chosen}) == 20
    assert wanted <= {one.key for one in chosen}


def test_disagreement_is_the_mean_of_one_minus_spearman() -> None:
    """Maps of 56 x 56 are averaged over blocks of 2 x 2."""
    maps = list(np.random.default_rng(1).random((3, 56, 56)).round(2))
    averaged = [one.reshape(28, 2, 28, 2).mean((1, 3)).ravel().round(6) for one in maps]
    by_hand = np.mean([1 - spearmanr(first, second).statistic for first, second in combinations(averaged, 2)])
    assert gallery.mean_disagreement(maps) == pytest.approx(by_hand, abs=1e-4)
    assert gallery.mean_disagreement([maps[0], maps[0]]) == pytest.approx(0, abs=1e-12)
    ramp = np.arange(784.0).reshape(28, 28)
    assert gallery.mean_disagreement([ramp, -ramp]) == pytest.approx(2)
    assert gallery.mean_disagreement([ramp, -ramp, np.ones((28, 28))]) == pytest.approx(2), "a constant has no rank"
    assert isnan(gallery.mean_disagreement([ramp, np.ones((28, 28))]))


def test_without_all_maps_the_spread_of_tdd_stands_for_disagreement(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run{seed}", seed=seed, maps=2, curves=False) for seed in (0, 1)]
    found = shown(*runs)
    assert found.measure == "spread"
    assert "spread of TDD" in found.rule
    assert len(found.samples) == 48
    for one in found.samples:
        own = one.rows[one.rows["method"].isin(["gpa", "ega", "ria", "dea"]) & (one.rows["status"] == "ok")]["tdd"]
        expected = own.max() - own.min() if len(own) > 1 else nan
        assert one.disagreement == pytest.approx(expected, nan_ok=True)
    values = [one.disagreement for one in found.samples if not isnan(one.disagreement)]
    assert values == sorted(values, reverse=True)
    assert [isnan(one.disagreement) for one in found.samples][-2:] == [True, True], "skipped ones come last"
    anchors = [one.anchor for one in found.samples]
    assert len(set(anchors)) == 48
    assert "sample-voc2012-netA-seed0-img00" in anchors


def test_with_all_maps_the_maps_are_compared(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", samples=("a", "b", "c", "d"), maps=3, failed=0)
    found = shown(directory)
    assert found.measure == "disagreement"
    by_id = {one.sample_id: one for one in found.samples}
    maps = [np.load(directory / "maps" / "b" / f"{name}.npy") for name in ("gpa", "ega", "ria", "dea")]
    assert by_id["b"].disagreement == pytest.approx(gallery.mean_disagreement(maps))
    assert by_id["b"].anchor == "sample-b"
    assert isnan(by_id["d"].disagreement)
    assert by_id["d"].reasons == [("all methods", "skipped: no foreground label in the ground truth")]


def test_ids_that_look_alike_as_anchors_stay_apart(tmp_path: Path) -> None:
    ids = ("a&b", "a b", "a-b", "a-b-2")
    found = shown(make_run(tmp_path / "run", samples=ids, maps=0, skipped=0, failed=0, curves=False))
    anchors = [one.anchor for one in found.samples]
    assert len(set(anchors)) == 4
    assert all(anchor.startswith("sample-a-b") for anchor in anchors)


def test_classes_have_names_also_where_the_data_alone_name_them(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", samples=("a", "b"), maps=0, skipped=0, failed=0, curves=False)
    edit_description(directory, lambda about: about["model"].update(classes=None))
    assert {one.class_name for one in shown(directory).samples} == {"class 1", "class 2"}
    edit_description(directory, lambda about: about["data"].update(classes=["ground", "sky", "lesion"]))
    assert {one.class_name for one in shown(directory).samples} == {"sky", "lesion"}


def test_a_sample_outside_the_run_is_not_read(tmp_path: Path) -> None:
    """An id that climbs out of maps/ finds nothing, even where there are pictures."""
    run = load_run(make_run(tmp_path / "run", samples=("a", "b"), maps=1, skipped=0, failed=0))
    shutil.copytree(run.directory / "maps" / "a", tmp_path / "secret")
    assert sample("a", run=run).folder == (run.directory / "maps" / "a").resolve()
    assert sample("../../secret", run=run).folder is None
    assert sample(str(tmp_path / "secret"), run=run).folder is None


def test_each_target_of_an_image_is_a_sample(tmp_path: Path) -> None:
    directory = repeat_targets(make_run(tmp_path / "run", samples=("a", "b"), maps=2, skipped=0, failed=0, size=32))
    chosen = shown(directory)
    assert sorted(sample.name for sample in chosen.samples) == ["a, dog", "a, dog-2", "b, dog", "b, dog-2"]
    assert sorted(sample.anchor for sample in chosen.samples) == [
        f"sample-{i}-{t}" for i in "ab" for t in ("dog", "dog-2")
    ]
    assert len({sample.key for sample in chosen.samples}) == 4
    for sample in chosen.samples:
        assert sample.folder == (directory / "maps" / f"{sample.sample_id}@{sample.target}").resolve()
        assert set(sample.rows["target"]) == {sample.target}
    assert chosen.measure == "disagreement", "all maps are there"
    assert "or one of the targets of an image that has several" in chosen.rule
    assert "targets" not in shown(make_run(tmp_path / "other", samples=("a",), maps=1, skipped=0, failed=0)).rule
