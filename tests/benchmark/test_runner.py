"""Runs shard by shard: the same records whatever the order, resumed after any stop, files whole or not there."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import segfaith
from folder_runs import (
    ALL,
    CLASSES,
    OWN_METHODS,
    QUICK,
    SIZE,
    add_sample,
    assert_same_records,
    by_method,
    command,
    content,
    make_project,
    prepared_scenes,
    run_records,
    sample_arrays,
    write_settings,
)
from segfaith.batching import BatchSize
from segfaith.benchmark import measuring, targeting
from segfaith.benchmark import prepared as prepared_module
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.evaluation.subject import Subject
from segfaith.results.records.runs import load_run
from segfaith.storage import temporary_name
from segfaith.targets import find_targets

# The same records whatever the batch, the shard, the order


def of(records: pd.DataFrame, *ids: str) -> pd.DataFrame:
    """The rows of some samples."""
    return records[records["sample_id"].isin(ids)].reset_index(drop=True)


@pytest.mark.parametrize("size", [1, 32])
def test_the_shard_size_changes_nothing(project: Path, full_records: pd.DataFrame, tmp_path: Path, size: int) -> None:
    records = run_records(
        project,
        tmp_path / "run",
        data={"ids": ["s0", "s3", "s5"]},
        evaluation={"stability": True},
        execution={"device": "cpu", "shard_size": size},
    )
    assert len(list((tmp_path / "run" / "records").iterdir())) == (3 if size == 1 else 1)
    assert_same_records(of(full_records, "s0", "s3", "s5"), records)


def test_the_next_sample_is_read_while_the_model_is_at_work(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sample once, the first of the next shard too."""
    prepared = prepare(make_settings(content(project, execution={"device": "cpu", "shard_size": 2})))
    ids, dataset = prepared.plan.ids, prepared.plan.dataset
    loads: list[str] = []
    started = {sample_id: Event() for sample_id in ids}

    def load(sample_id: str, size: Any) -> Any:
        loads.append(sample_id)
        started[sample_id].set()
        return dataset.load(sample_id, size)

    real, waited = measuring.evaluate_sample, []

    def evaluated(subject: Subject, *arguments: Any, **named: Any) -> Any:
        following = ids[ids.index(subject.id) + 1 :][:1]
        waited.extend(sample_id for sample_id in following if started[sample_id].wait(60))
        return real(subject, *arguments, **named)

    monkeypatch.setattr(measuring, "evaluate_sample", evaluated)
    plan = dataclasses.replace(prepared.plan, dataset=dataclasses.replace(dataset, load=load))
    segfaith.run(dataclasses.replace(prepared, plan=plan), tmp_path)
    assert waited == ids[1:]
    assert loads == ids
    assert set(load_run(tmp_path).records["status"]) == {"ok"}


def test_the_batch_size_changes_raw_scores_by_at_most_1e_5(
    project: Path, full_records: pd.DataFrame, tmp_path: Path
) -> None:
    records = run_records(
        project,
        tmp_path / "run",
        data={"ids": ["s0", "s3"]},
        evaluation={"stability": True},
        execution={"device": "cpu", "batch_size": 1},
    )
    assert_same_records(of(full_records, "s0", "s3"), records, derived=1e-4)


def test_the_order_of_named_ids_changes_nothing(project: Path, full_records: pd.DataFrame, tmp_path: Path) -> None:
    records = run_records(project, tmp_path / "run", data={"ids": ["s4", "s0", "s2"]}, evaluation={"stability": True})
    assert list(records["sample_id"].unique()) == ["s0", "s2", "s4"]
    assert_same_records(of(full_records, "s0", "s2", "s4"), records)


def test_global_random_state_changes_nothing_and_stays_as_it_was(project: Path, tmp_path: Path) -> None:
    records = []
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        records.append(run_records(project, tmp_path / name, data={"n": 2}, evaluation={"stability": True}))
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert_same_records(*records)


def test_the_seed_changes_the_controls_and_nothing_of_the_model(project: Path, tmp_path: Path) -> None:
    first, second = (
        run_records(project, tmp_path / f"{seed}", seed=seed, methods={"names": ["gpa", "random"]}) for seed in (0, 1)
    )
    assert np.array_equal(first["s"], second["s"])
    for control in ("random", "random_cells"):
        changed = by_method(first, control)["s_target_deleted"] != by_method(second, control)["s_target_deleted"]
        assert changed.all()


def test_prepared_settings_and_run_of_settings_are_the_same_run(project: Path, tmp_path: Path) -> None:
    prepared = prepare(make_settings(content(project, data={"n": 1}, **QUICK)))
    assert dataclasses.is_dataclass(prepared)
    seen: list[str] = []
    assert segfaith.run(prepared, tmp_path, seen.append) == tmp_path
    assert seen == prepared.plan.ids
    run_records(project, tmp_path, data={"n": 1}, **QUICK)


# Stopped and resumed


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A `segfaith run` of six shards that a signal stopped after the first: what it left and what it said."""

    settings: Path
    directory: Path
    status: int
    errors: str


STOPS = (signal.SIGKILL, signal.SIGINT)


@pytest.fixture(scope="module")
def stopped(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[signal.Signals, Stopped]:
    """Runs in processes of their own, killed (`kill -9`) or interrupted (Ctrl-C) as they hang in their second shard."""
    settings, started = {}, {}
    for how in STOPS:
        root = tmp_path_factory.mktemp(how.name) / "project"
        shutil.copytree(project, root)
        shards = {"device": "cpu", "shard_size": 1}
        settings[how] = write_settings(root, evaluation={"stability": True}, execution=shards)
        started[how] = subprocess.Popen(
            [sys.executable, "-c", "from segfaith.cli import main; main()", "run", settings[how], "-o", root / "run"],
            env=os.environ | {"TINY_HANGS_AT": str(root / "run" / "records" / "00000.parquet")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    waiting, results = dict(started), {}
    deadline = time.monotonic() + 600
    while waiting and time.monotonic() < deadline:
        for how, process in list(waiting.items()):
            if (settings[how].parent / "run" / "records" / "00000.parquet").exists() or process.poll() is not None:
                waiting.pop(how).send_signal(how)
        time.sleep(0.01)
    for how, process in started.items():
        if how in waiting:
            process.kill()
        _, errors = process.communicate(timeout=300)
        results[how] = Stopped(settings[how], settings[how].parent / "run", process.returncode, errors)
    return results


def test_ctrl_c_says_how_to_resume_and_exits_130(stopped: dict[signal.Signals, Stopped]) -> None:
    run = stopped[signal.SIGINT]
    assert run.status == 130, run.errors
    assert "At most the shard in work is lost; the same command resumes" in run.errors
    assert "Traceback" not in run.errors


@pytest.mark.parametrize("how", STOPS, ids=lambda how: how.name)
def test_a_run_that_was_stopped_resumes_to_the_same_records(
    how: signal.Signals,
    stopped: dict[signal.Signals, Stopped],
    full_records: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = stopped[how]
    assert run.status == (130 if how == signal.SIGINT else -9), run.errors
    done = {file: file.stat().st_mtime_ns for file in (run.directory / "records").glob("*.parquet")}
    assert [file.name for file in done] == ["00000.parquet"], "stopped in the second shard"

    assert command(monkeypatch, "run", run.settings, "-o", run.directory) == 0
    output, errors = capsys.readouterr()
    assert "1 of 6 samples are done" in errors
    assert "6 of 6 samples measured" in output
    assert {file: file.stat().st_mtime_ns for file in done} == done, "finished shards are left alone"
    assert_same_records(full_records, load_run(run.directory).records)


def test_a_finished_run_says_so_and_measures_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    settings, directory = write_settings(root, data={"n": 2}), tmp_path / "run"
    assert command(monkeypatch, "run", settings, "-o", directory) == 0
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.rglob("*") if file.is_file()}
    capsys.readouterr()

    passes: list[list[int]] = []
    prepare = prepared_module.prepare

    def watched(settings: Any) -> Prepared:
        prepared = prepare(settings)
        passes.append([0])
        prepared.model.module.register_forward_pre_hook(lambda module, inputs: passes[-1].append(len(inputs[0])))
        return prepared

    monkeypatch.setattr(prepared_module, "prepare", watched)
    assert command(monkeypatch, "run", settings, "-o", directory) == 0
    output = capsys.readouterr().out
    assert f"{directory} is finished: all 2 samples are there" in output
    assert "2 of 2 samples measured" in output
    assert passes == [[0]], "not one image went through the model after it was prepared"
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.rglob("*") if file.is_file()}
    assert after == before


@pytest.fixture
def movable(tmp_path: Path) -> Path:
    """A project that the test may change, of two samples."""
    return make_project(tmp_path / "before", samples=2)


@pytest.mark.parametrize("damage", ["{", "edited"])
def test_a_directory_whose_run_json_is_damaged_is_refused_and_mended_without_it(movable: Path, damage: str) -> None:
    """Moved away, as the message says, it is written anew, since the records say whose they are."""
    before = run_records(movable, movable / "run", **QUICK)
    file, shard = movable / "run" / "run.json", movable / "run" / "records" / "00000.parquet"
    text, written = file.read_text(), shard.stat().st_mtime_ns
    file.write_text(text.replace('"k": 0.2', '"k": 0.3') if damage == "edited" else damage)
    words = "is damaged or was edited: its content" if damage == "edited" else r"cannot be read \("
    with pytest.raises(SettingsError, match=rf"run\.json {words}.*; restore it, or move it away and give the command"):
        run_records(movable, movable / "run", **QUICK)
    file.unlink()
    pd.testing.assert_frame_equal(run_records(movable, movable / "run", **QUICK), before)
    assert shard.stat().st_mtime_ns == written, "nothing was measured again"


def test_a_run_in_which_nothing_succeeded_exits_1(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(damaged, data={"ids": ["red", "empty"]}, methods={"names": ["random"]})
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1
    assert "0 of 2 samples measured, 4 rows not ok" in capsys.readouterr().out
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1, "as before: nothing is better now"
    said = capsys.readouterr().out
    assert "is finished: all 2 samples are there" in said
    assert "The same command with --retry-failed measures again what failed: of use once the cause is gone." in said


# Files are whole or not there


def test_a_run_leaves_only_the_files_of_its_contract(project: Path, full_run: Path) -> None:
    assert sorted(str(file.relative_to(full_run)) for file in full_run.rglob("*") if file.is_file()) == [
        "records/00000.parquet",
        "run.json",
    ]


def test_a_crash_while_a_shard_is_written_leaves_no_half_file_and_resumes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "data": {"n": 2},
        "evaluation": {"stability": False, "k": [0.2, 0.4]},
        "execution": {"device": "cpu", "shard_size": 1},
    }
    whole = run_records(project, tmp_path / "whole", **changes)
    write, calls = Path.write_bytes, []

    def crashing(where: Path, file: bytes) -> int:
        calls.append(where)
        if len(calls) == 4:  # the records of the second shard; its curves were the third
            write(where, b"PAR1 half")
            raise OSError("No space left on device")
        return write(where, file)

    monkeypatch.setattr(Path, "write_bytes", crashing)
    with pytest.raises(OSError, match="No space left"):
        run_records(project, tmp_path / "run", **changes)
    assert [file.name for file in (tmp_path / "run" / "records").iterdir()] == ["00000.parquet"]
    monkeypatch.undo()
    assert_same_records(whole, run_records(project, tmp_path / "run", **changes))
    first, second = (pd.read_parquet(tmp_path / one / "curves") for one in ("run", "whole"))
    assert len(first) == 2 * 8 * 2 * 3
    pd.testing.assert_frame_equal(first, second)


def test_what_a_killed_writer_left_is_no_shard(project: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    temporary_name(tmp_path / "records" / "00000.parquet").write_bytes(b"PAR1 half")
    assert len(run_records(project, tmp_path, data={"n": 1}, **QUICK)) == 2


# Kept maps


def test_kept_maps_are_float32_at_the_images_size_beside_their_pictures(project: Path, kept: Path) -> None:
    samples = sorted(folder.name for folder in (kept / "maps").iterdir())
    assert samples == load_run(kept).description["data"]["samples"]
    for sample in samples:
        files = {file.name for file in (kept / "maps" / sample).iterdir()}
        assert files == {f"{name}.npy" for name in ALL} | {"image.png", "target.png", "prediction.png"}
        for name in ALL:
            array = np.load(kept / "maps" / sample / f"{name}.npy")
            assert (array.dtype, array.shape) == (np.float32, SIZE)
            assert 0 <= array.min() <= array.max() <= 1
        index = int(sample[1:])
        image, labels = sample_arrays(index)
        region = labels == (1 if index % 2 else 2)
        assert np.array_equal(np.asarray(Image.open(kept / "maps" / sample / "image.png")), image)
        picture = np.asarray(Image.open(kept / "maps" / sample / "target.png").convert("L"))
        assert np.array_equal(picture, region * np.uint8(255))
        assert np.array_equal(np.load(kept / "maps" / sample / "mask.npy"), region.astype(np.float32))
        predicted = np.asarray(Image.open(kept / "maps" / sample / "prediction.png").convert("L")) == 255
        records = load_run(kept).records
        overlap = float(records.loc[records["sample_id"] == sample, "target_iou"].iloc[0])
        assert (predicted & region).sum() / (predicted | region).sum() == pytest.approx(overlap)


def test_kept_dea_map_is_the_fusion_of_the_kept_ega_and_ria_maps(kept: Path) -> None:
    for folder in (kept / "maps").iterdir():
        ega, ria, dea = (np.load(folder / f"{name}.npy").astype(np.float64) for name in ("ega", "ria", "dea"))
        fused = 0.65 * ega * (1 + 0.35 * ria) + 0.35 * ria
        np.testing.assert_allclose(dea, (fused - fused.min()) / (fused.max() - fused.min()), atol=1e-6)


def test_records_call_methods_of_others_by_their_last_part(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a place on this machine: rows of two machines must be comparable."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    (root / "code").mkdir()
    (root / "code" / "own.py").write_text(OWN_METHODS)
    (root / "code" / "theirs").mkdir()
    names = ["code/own.py:red", "maps:code/theirs", "dea@alpha=0.8"]
    settings = write_settings(root, data={"n": 1}, methods={"names": names, "ria": {"grid": 4}})
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1, "there are no maps of theirs"
    records = load_run(tmp_path / "run").records
    assert list(records["method"]) == ["own.py:red", "maps:theirs", "dea@alpha=0.8", "random_cells", "gamed"]


# Targets


def test_the_prediction_as_target(project: Path, tmp_path: Path) -> None:
    records = run_records(
        project, tmp_path / "run", target={"source": "prediction"}, methods={"names": ["random"], "ria": {"grid": 4}}
    )
    ok = records[records["status"] == "ok"]
    assert len(ok) > 0
    assert (ok["target_iou"] == 1).all(), "M is the model's own mask"
    skipped = records[records["status"] == "skipped"]
    assert skipped["reason"].str.contains("no foreground in the prediction").all()
    assert len(ok) + len(skipped) == len(records)


def test_a_named_class_as_target(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    image, labels = sample_arrays(1)
    add_sample(root / "data", "boxless", image, np.where(labels == 1, 0, labels).astype(np.uint8))
    records = run_records(root, tmp_path / "run", target={"class": "box"}, methods={"names": ["random"]})
    found = by_method(records, "random")
    assert list(found["class_index"].dropna()) == [1] * 6
    assert found.loc["boxless", "status"] == "skipped"
    assert found.loc["boxless", "reason"] == "class 1 (box) does not occur in the ground truth"
    for index in range(6):
        resized = np.asarray(Image.fromarray(sample_arrays(index)[1]).resize((32, 32), Image.Resampling.NEAREST))
        assert found.loc[f"s{index}", "target_area"] == pytest.approx((resized == 1).mean())


def test_the_evidence_of_a_predicted_region_is_that_of_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted right, a region has its class's evidence. Predicted as a class that is shown elsewhere in the scene, it
    has none: not that of the other object.
    """
    prepared = prepared_scenes(1, target={"source": "prediction"})
    (sample_id,) = prepared.plan.ids
    sample = prepared.plan.dataset.load(sample_id, 64)
    first = find_targets(sample.labels)[0].class_index
    others = [label for label in sample.planted if label != first and sample.planted[label].alternatives]
    swapped = torch.where(
        sample.labels == first, others[0], torch.where(sample.labels == others[0], first, sample.labels)
    )
    found = []
    for labels in (sample.labels, swapped):
        monkeypatch.setattr(targeting, "predicted_classes", lambda model, image, labels=labels: labels)
        result = measuring.run_sample(prepared, sample_id, lambda: sample, BatchSize(8))
        found.append({row["method"]: row for row in result.records}["mask"])
    assert [row["class_index"] for row in found] == [first, others[0]]
    assert found[0]["kind"] == sample.planted[first].kind
    assert found[0]["evidence_ap"] > 0
    assert found[1]["kind"] is None
    assert "evidence_ap" not in found[1]


# What stops a run before it starts


def test_a_class_that_does_not_exist_stops_the_run_before_it_starts(project: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown class 'bax'; the classes are background, box, disc"):
        run_records(project, tmp_path, target={"class": "bax"})
    with pytest.raises(SettingsError, match=r"class 9 is out of range; expected 0 to 2"):
        run_records(project, tmp_path, target={"class": 9})
    assert list(tmp_path.iterdir()) == []


def test_gradient_methods_without_a_layer_get_one_which_the_run_names(project: Path, tmp_path: Path) -> None:
    """Also DEA, whose gradient evidence is one of two kinds."""
    names = ["gpa", "mask", "dea@alpha=0.8"]
    settings = make_settings(content(project, model={"layer": None}, methods={"names": names, "ria": {"grid": 4}}))
    run = load_run(segfaith.run(settings, tmp_path / "run"))
    layer = run.description["model"]["layer"]
    assert "chosen by segfaith" in run.description["model"]["layer_notes"][layer]
    measured = run.records[run.records["status"] == "ok"]
    assert set(measured["method"]) == {*names, "random_cells", "gamed"}


def test_class_names_that_do_not_fit_stop_the_run_before_it_starts(project: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tiny\.py:build has 3 output classes, but 2 class names were given"):
        run_records(project, tmp_path, model={"classes": CLASSES[:2]}, data={"classes": CLASSES[:2]})
    with pytest.raises(SettingsError, match=r"class 1 is 'disc' for the model and 'box' for the data"):
        run_records(project, tmp_path, model={"classes": ["background", "disc", "box"]})
    with pytest.raises(SettingsError, match=r"device 'gpu' cannot be used: .*use 'cpu' or 'auto'"):
        run_records(project, tmp_path, execution={"device": "gpu"})
    assert list(tmp_path.iterdir()) == []
