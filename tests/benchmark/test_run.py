"""Runs from files to records: resume, refusals, bad samples, failing methods, curves, maps, and counted passes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import segfaith
from folder_runs import (
    CLASSES,
    SIZE,
    add_sample,
    assert_same_records,
    by_method,
    command,
    content,
    make_project,
    run_records,
    sample_arrays,
    write_settings,
)
from segfaith.benchmark import runner as executors
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.incremental.graph import Graph
from segfaith.incremental.graph import Plan as GraphPlan
from segfaith.results.records.files import replace_file
from segfaith.results.records.runs import load_run

ALL = ["gpa", "ega", "ria", "dea", "random", "random_cells", "mask"]

SPEC_COLUMNS = [
    "sample_id",
    "class_index",
    "method",
    "target_area",
    "target_iou",
    "s",
    "s_target_deleted",
    "s_off_deleted",
    "s_baseline",
    "s_inserted",
    "tdd",
    "tdd_gain",
    "odd",
    "odd_abs",
    "leak_abs",
    "leak_signed",
    "insertion_gain",
    "stability",
    "stability_noise",
    "stability_brightness",
    "stability_contrast",
    "stability_blur",
    "stability_flip",
    "runtime_s",
    "degenerate",
    "tied_share_target",
    "tied_share_off",
    "status",
    "reason",
]

METRIC_COLUMNS = [*SPEC_COLUMNS[5:17], "degenerate", "tied_share_target", "tied_share_off"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, model and weights that no test changes."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def full_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with stability, at the default batch and shard size."""
    directory = tmp_path_factory.mktemp("runs") / "full"
    run_records(project, directory, evaluation={"stability": True})
    return directory


@pytest.fixture(scope="module")
def full_records(full_run: Path) -> pd.DataFrame:
    return load_run(full_run).records


# What a run leaves behind


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
    detailed = [f"s_{name}_deleted" for name in ("fair", "near", "middle", "far")]
    detailed += ["odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far"]
    assert measured[detailed].isna().all(axis=None), "leakage was measured plainly"
    leaks = measured.loc[full_records["tdd"] > 0.05, ["leak_abs", "leak_signed"]]
    assert len(leaks)
    assert leaks[full_records["method"] != "random_cells"].notna().all(axis=None), "those of a control are in all draws"
    assert measured.drop(columns=[*planted, *detailed, *leaks]).notna().all(axis=None)
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


def test_run_json_describes_the_run(project: Path, full_run: Path) -> None:
    loaded = load_run(full_run)
    description, records = loaded.description, loaded.records
    assert description["settings"]["evaluation"]["k"] == 0.2
    assert description["settings"]["methods"]["ria"] == {"grid": 4}
    assert description["settings"]["seed"] == 0
    assert description["data"]["samples"] == sorted(set(records["sample_id"]))
    assert (description["data"]["name"], description["data"]["split"]) == ("folder", "val")
    assert len(description["data"]["digest"]) == 64
    model = description["model"]
    assert (model["name"], model["weights"], model["layer"]) == ("tiny.py:build", "tiny.pth", "backbone.1")
    assert model["file_sha256"] == sha256((project / "tiny.pth").read_bytes()).hexdigest()
    assert len(model["state_sha256"]) == 64
    assert list(description["methods"]) == ALL
    assert description["methods"]["dea"]["parameters"]["alpha"] == 0.65
    assert description["methods"]["dea"]["parameters"]["grid"] == 4
    assert "equation 2" in description["methods"]["dea"]["paper"]
    assert description["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert description["versions"]["segfaith"] == segfaith.__version__
    assert {"python", "numpy", "pandas", "pyarrow", "torchvision"} <= set(description["versions"])
    assert set(description["machine"]) == {"system", "device", "threads"}
    assert description["created"].startswith("20")
    assert len(description["identity_sha256"]) == 64


def test_random_weights_are_said(project: Path, tmp_path: Path) -> None:
    model = {"name": "lraspp_mobilenet_v3_large", "weights": "random", "layer": None, "classes": "voc"}
    run_records(project, tmp_path, data={"n": 1, "classes": "voc"}, model=model, methods={"names": ["random"]})
    assert load_run(tmp_path).description["model"]["weights"] == "random (seed 0)"


# The same records whatever the batch, the shard, the order


@pytest.mark.parametrize("size", [1, 32])
def test_the_shard_size_changes_nothing(project: Path, full_records: pd.DataFrame, tmp_path: Path, size: int) -> None:
    records = run_records(
        project, tmp_path / "run", evaluation={"stability": True}, execution={"device": "cpu", "shard_size": size}
    )
    assert len(list((tmp_path / "run" / "records").iterdir())) == (6 if size == 1 else 1)
    assert_same_records(full_records, records)


def test_the_next_sample_is_read_while_the_model_is_at_work(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sample once, the first of the next shard too."""
    prepared = executors.prepare(make_settings(content(project, execution={"device": "cpu", "shard_size": 2})))
    ids, dataset = prepared.plan.ids, prepared.plan.dataset
    loads: list[str] = []
    started = {sample_id: Event() for sample_id in ids}

    def load(sample_id: str, size: Any) -> Any:
        loads.append(sample_id)
        started[sample_id].set()
        return dataset.load(sample_id, size)

    real, waited = executors.evaluate_sample, []

    def evaluated(model: Any, sample_id: str, *arguments: Any, **named: Any) -> Any:
        following = ids[ids.index(sample_id) + 1 :][:1]
        waited.extend(one for one in following if started[one].wait(60))
        return real(model, sample_id, *arguments, **named)

    monkeypatch.setattr(executors, "evaluate_sample", evaluated)
    plan = dataclasses.replace(prepared.plan, dataset=dataclasses.replace(dataset, load=load))
    segfaith.run(dataclasses.replace(prepared, plan=plan), tmp_path)
    assert waited == ids[1:]
    assert loads == ids
    assert set(load_run(tmp_path).records["status"]) == {"ok"}


def test_the_batch_size_changes_raw_scores_by_at_most_1e_5(
    project: Path, full_records: pd.DataFrame, tmp_path: Path
) -> None:
    records = run_records(
        project, tmp_path / "run", evaluation={"stability": True}, execution={"device": "cpu", "batch_size": 1}
    )
    assert_same_records(full_records, records, derived=1e-4)


def test_the_order_of_named_ids_changes_nothing(project: Path, full_records: pd.DataFrame, tmp_path: Path) -> None:
    records = run_records(project, tmp_path / "run", data={"ids": ["s4", "s0", "s2"]}, evaluation={"stability": True})
    assert list(records["sample_id"].unique()) == ["s0", "s2", "s4"]
    chosen = full_records[full_records["sample_id"].isin(["s0", "s2", "s4"])].reset_index(drop=True)
    assert_same_records(chosen, records)


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


def test_the_seed_changes_the_subset(project: Path) -> None:
    drawn = [
        tuple(executors.make_plan(make_settings(content(project, seed=seed, data={"n": 3}))).ids) for seed in range(6)
    ]
    assert all(len(set(ids)) == 3 and list(ids) == sorted(ids) for ids in drawn)
    assert len(set(drawn)) > 1
    again = executors.make_plan(make_settings(content(project, data={"n": 3})))
    assert tuple(again.ids) == drawn[0]


def test_more_samples_than_there_are_and_unknown_ids_are_errors(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"n = 7 samples asked for; folder val has 6"):
        executors.make_plan(make_settings(content(project, data={"n": 7})))
    with pytest.raises(SettingsError, match=r"folder val has no sample 's9'; the nearest are s"):
        executors.make_plan(make_settings(content(project, data={"ids": ["s0", "s9"]})))


def test_random_cells_is_there_even_where_it_is_not_named(project: Path, tmp_path: Path) -> None:
    records = run_records(project, tmp_path / "run", data={"n": 2}, methods={"names": ["mask"]})
    assert list(records["method"]) == ["mask", "random_cells"] * 2
    assert records["tdd_gain"].notna().all()


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


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Counts the images that go through a module: the list's one number."""
    total = [0]

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        total[0] += len(inputs[0])

    handle = module.register_forward_pre_hook(count)
    try:
        yield total
    finally:
        handle.remove()


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
    prepare = executors.prepare

    def watched(settings: Any) -> executors.Prepared:
        prepared = prepare(settings)
        passes.append([0])
        prepared.model.module.register_forward_pre_hook(lambda module, inputs: passes[-1].append(len(inputs[0])))
        return prepared

    monkeypatch.setattr(executors, "prepare", watched)
    assert command(monkeypatch, "run", settings, "-o", directory) == 0
    output = capsys.readouterr().out
    assert f"{directory} is finished: all 2 samples are there" in output
    assert "2 of 2 samples measured" in output
    assert passes == [[0]], "not one image went through the model after it was prepared"
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.rglob("*") if file.is_file()}
    assert after == before


# What may change between two calls, and what not


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"evaluation": {"stability": False, "k": 0.3}}, r"settings\.evaluation\.k: 0\.2 -> 0\.3"),
        ({"seed": 1}, r"settings\.seed: 0 -> 1"),
        ({"methods": {"ria": {"grid": 5}}}, r"settings\.methods\.ria\.grid: 4 -> 5"),
        ({"data": {"n": 3}}, r"settings\.data\.n: 2 -> 3"),
        ({"execution": {"device": "cpu", "shard_size": 1}}, r"settings\.execution\.shard_size: 8 -> 1"),
    ],
)
def test_changed_settings_are_refused_with_the_difference(
    project: Path, tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    base: dict[str, Any] = {"data": {"n": 2}, "methods": {"names": ["random"], "ria": {"grid": 4}}}
    run_records(project, tmp_path, **base)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(
        SettingsError, match=rf"holds a run with other settings; choose another directory.*\n(.*\n)* *{difference}"
    ):
        run_records(project, tmp_path, **{**base, **{key: _merged(base.get(key), new) for key, new in change.items()}})
    assert (tmp_path / "run.json").read_bytes() == before


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) else new


def test_stability_on_one_sample_is_not_stability_on_all(project: Path, tmp_path: Path) -> None:
    """`1` and `true` are different settings, though Python calls them equal."""
    changes: dict[str, Any] = {"data": {"n": 2}, "methods": {"names": ["random"], "ria": {"grid": 4}}}
    run_records(project, tmp_path, **changes, evaluation={"stability": 1})
    with pytest.raises(SettingsError, match=r"settings\.evaluation\.stability: 1 -> True"):
        run_records(project, tmp_path, **changes, evaluation={"stability": True})


def test_name_batch_size_and_threads_may_change(project: Path, tmp_path: Path) -> None:
    first = run_records(project, tmp_path, data={"n": 1})
    second = run_records(
        project,
        tmp_path,
        name="other",
        data={"n": 1},
        execution={"device": "cpu", "batch_size": 3, "threads": torch.get_num_threads()},
    )
    assert first.equals(second), "the second call found the run finished"


@pytest.fixture
def movable(tmp_path: Path) -> Path:
    """A project that the test may change, of two samples."""
    return make_project(tmp_path / "before", samples=2)


QUICK = {"methods": {"names": ["random"], "ria": {"grid": 4}}}


def todo_after_moving(root: Path, **changes: Any) -> list[int]:
    """Runs in one place, moves everything, and returns what a second call in the new place would still do."""
    segfaith.run(make_settings(content(root, **changes)), root / "run")
    moved = root.parent / "after"
    shutil.move(root, moved)
    text = json.dumps(content(moved, **changes)).replace(str(root), str(moved))
    return executors.open_directory(moved / "run", executors.prepare(make_settings(json.loads(text))))


def test_a_run_may_move_with_its_data_model_and_weights(movable: Path) -> None:
    assert todo_after_moving(movable, **QUICK) == []


def test_a_run_may_move_with_its_class_name_file(movable: Path) -> None:
    classes = str(movable / "data" / "classes.txt")
    assert todo_after_moving(movable, **QUICK, model={"classes": classes}, data={"classes": classes}) == []


def test_a_run_may_move_with_its_maps_and_its_own_methods(movable: Path) -> None:
    (movable / "theirs").mkdir()
    (movable / "own.py").write_text("def flat(model, image, target):\n    return image[0]\n")
    names = [f"maps:{movable / 'theirs'}", f"{movable / 'own.py'}:flat"]
    assert todo_after_moving(movable, methods={"names": names}) == []


def test_changed_data_are_refused(movable: Path) -> None:
    run_records(movable, movable / "run", **QUICK)
    image, labels = sample_arrays(0)
    image[0, 0, 0] ^= 1
    add_sample(movable / "data", "s0", image, labels)
    with pytest.raises(SettingsError, match=r"data_digest: '[0-9a-f]{64}' -> '[0-9a-f]{64}'"):
        run_records(movable, movable / "run", **QUICK)


def test_an_added_sample_is_refused(movable: Path) -> None:
    run_records(movable, movable / "run", **QUICK)
    add_sample(movable / "data", "s7", *sample_arrays(7))
    with pytest.raises(SettingsError, match=r"samples: 2 -> 3"):
        run_records(movable, movable / "run", **QUICK)


def test_changed_weights_are_refused(movable: Path) -> None:
    run_records(movable, movable / "run", **QUICK)
    state = torch.load(movable / "tiny.pth", weights_only=True)
    state["head.bias"][0] += 1e-3
    torch.save(state, movable / "tiny.pth")
    with pytest.raises(SettingsError, match=r"weights_digest: '[0-9a-f]{64}' -> '[0-9a-f]{64}'"):
        run_records(movable, movable / "run", **QUICK)


def test_changed_class_names_are_refused(movable: Path) -> None:
    """Else a resumed run would explain another class under the same name."""
    box = {**QUICK, "target": {"class": "box"}}
    run_records(movable, movable / "run", **box)
    (movable / "data" / "classes.txt").write_text("background\ndisc\nbox\n")
    with pytest.raises(SettingsError, match="holds a run with other"):
        run_records(movable, movable / "run", **box)


def test_changed_maps_of_others_are_refused(movable: Path) -> None:
    """Maps that were computed elsewhere are data of the run: rows of two versions must not mix."""
    (movable / "theirs").mkdir()
    methods = {"names": [f"maps:{movable / 'theirs'}"]}
    for value in (0, 1):
        for sample in ("s0", "s1"):
            np.save(movable / "theirs" / f"{sample}.npy", np.full((32, 32), value))
        if value == 0:
            run_records(movable, movable / "run", methods=methods)
    with pytest.raises(SettingsError, match="holds a run with other"):
        run_records(movable, movable / "run", methods=methods)


def test_a_map_that_now_belongs_to_another_sample_is_refused(movable: Path) -> None:
    """The same bytes under another id are other maps."""
    (movable / "theirs").mkdir()
    np.save(movable / "theirs" / "s0.npy", np.random.default_rng(0).random((32, 32)))
    methods = {"names": [f"maps:{movable / 'theirs'}"]}
    run_records(movable, movable / "run", methods=methods)
    (movable / "theirs" / "s0.npy").rename(movable / "theirs" / "s1.npy")
    with pytest.raises(SettingsError, match="holds a run with other"):
        run_records(movable, movable / "run", methods=methods)


def test_changed_code_of_the_model_or_of_a_method_is_refused(movable: Path) -> None:
    """Also where both files have one name."""
    (movable / "methods").mkdir()
    own = movable / "methods" / "tiny.py"
    own.write_text("def red(model, image, target):\n    return image[0]\n")
    methods = {"names": [f"{own}:red"]}
    first = run_records(movable, movable / "run", methods=methods)
    assert run_records(movable, movable / "run", methods=methods).equals(first)
    for file in (own, movable / "tiny.py"):
        before = file.read_text()
        file.write_text(before + "\n# changed\n")
        with pytest.raises(SettingsError, match=r"holds a run with other(.|\n)*'[0-9a-f]{64}' -> '[0-9a-f]{64}'"):
            run_records(movable, movable / "run", methods=methods)
        file.write_text(before)


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


# Files are whole or not there


def test_a_run_leaves_only_the_files_of_its_contract(project: Path, full_run: Path) -> None:
    assert sorted(str(file.relative_to(full_run)) for file in full_run.rglob("*") if file.is_file()) == [
        "records/00000.parquet",
        "run.json",
    ]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        assert not path.exists(), "nothing is written under the final name"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert list(path.parent.iterdir()) == []
    replace_file(path, lambda temporary: temporary.write_text("whole"))
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, lambda temporary: fail_over(temporary))
    assert path.read_text() == "whole", "a failing rewrite leaves the old file"
    assert list(path.parent.iterdir()) == [path]


def fail_over(temporary: Path) -> None:
    temporary.write_text("ha")
    raise OSError("disk full")


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
    assert len(first) == 2 * 7 * 2 * 3
    pd.testing.assert_frame_equal(first, second)


def test_what_a_killed_writer_left_is_no_shard(project: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / ".00000.parquet.999999.tmp").write_bytes(b"PAR1 half")
    assert len(run_records(project, tmp_path, data={"n": 1}, **QUICK)) == 2


# Bad samples


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good samples and one of each kind of bad one."""
    root = make_project(tmp_path_factory.mktemp("damaged"), samples=2)
    data = root / "data"
    image, labels = sample_arrays(5)
    (data / "images" / "broken.png").write_bytes(b"\x89PNG no picture")
    Image.fromarray(labels).save(data / "masks" / "broken.png")
    add_sample(data, "sizes", image, labels[:30])
    add_sample(data, "label", image, np.where(labels == 1, 7, labels).astype(np.uint8))
    add_sample(data, "empty", image, np.where(labels == 255, 255, 0).astype(np.uint8))
    add_sample(data, "maskless", image, None)
    red = np.zeros_like(image)
    red[..., 0] = 255
    add_sample(data, "red", red, labels)
    (data / "images" / "text.png").write_text("no picture at all")
    Image.fromarray(labels).save(data / "masks" / "text.png")
    add_sample(data, "colour", image, None)
    Image.fromarray(image).save(data / "masks" / "colour.png")
    return root


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
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 0
    output = capsys.readouterr().out
    records = load_run(tmp_path / "run").records
    assert sorted(records["sample_id"].unique()) == sorted([*BAD, "s0", "s1"])
    figures = [name for name in SPEC_COLUMNS[4:27] if name != "degenerate"]
    for sample, (status, reason) in BAD.items():
        rows = records[records["sample_id"] == sample]
        assert list(rows["method"]) == ["gpa", "ria", "random_cells"], sample
        assert set(rows["status"]) == {status}, sample
        assert rows["reason"].str.contains(reason, regex=True).all(), (sample, set(rows["reason"]))
        assert rows[figures].isna().all(axis=None), sample
    good = records[records["sample_id"].isin(["s0", "s1"])]
    assert set(good["status"]) == {"ok"}
    assert list(good["class_index"]) == [2, 2, 2, 1, 1, 1]
    assert good[["tdd", "odd", "insertion_gain"]].notna().all(axis=None)
    assert "2 of 10 samples measured, 24 rows not ok" in output
    assert "skipped: 1 sample(s), 3 row(s) (empty): no foreground" in output
    assert "failed: 1 sample(s), 3 row(s) (red): the model returned logits" in output


def test_bad_samples_do_not_change_the_good_ones(damaged: Path, tmp_path: Path) -> None:
    methods = {"names": ["gpa", "ria"], "ria": {"grid": 4}}
    together = run_records(damaged, tmp_path / "all", methods=methods)
    alone = run_records(damaged, tmp_path / "good", data={"ids": ["s0", "s1"]}, methods=methods)
    chosen = together[together["sample_id"].isin(["s0", "s1"])].reset_index(drop=True)
    for name in METRIC_COLUMNS:
        pd.testing.assert_series_equal(chosen[name], alone[name], check_exact=True, check_dtype=False)


def test_a_run_in_which_nothing_succeeded_exits_1(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(damaged, data={"ids": ["red", "empty"]}, methods={"names": ["random"]})
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1
    assert "0 of 2 samples measured, 4 rows not ok" in capsys.readouterr().out
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 1, "as before: nothing is better now"
    said = capsys.readouterr().out
    assert "is finished: all 2 samples are there" in said
    assert "The same command with --retry-failed measures again what failed." in said


def test_a_target_that_covers_the_image_has_no_off_target_figures(tmp_path: Path) -> None:
    root = make_project(tmp_path, samples=0)
    image, _ = sample_arrays(0)
    add_sample(root / "data", "whole", image, np.ones(SIZE, dtype=np.uint8))
    records = run_records(root, tmp_path / "run", methods={"names": ["gpa"], "ria": {"grid": 4}})
    assert set(records["status"]) == {"ok"}
    off = ["s_off_deleted", "odd", "odd_abs", "leak_abs", "leak_signed", "tied_share_off"]
    assert records[off].isna().all(axis=None)
    assert records[["tdd", "insertion_gain"]].notna().all(axis=None)
    assert records["reason"].str.contains("odd, leakage: nothing lies outside the target").all()


# Methods of others


OWN = """
import numpy as np
import torch


def raises(model, image, target):
    raise KeyError("no such thing")


def wrong_shape(model, image, target):
    return torch.zeros(3, 3)


def not_a_number(model, image, target):
    return torch.full(image.shape[1:], torch.nan)


def text(model, image, target):
    return "a map"


def red(model, image, target):
    return image[0].numpy()
"""


def test_a_method_that_fails_fails_alone(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
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


def test_records_call_methods_of_others_by_their_last_part(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a place on this machine: rows of two machines must be comparable."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    (root / "code").mkdir()
    (root / "code" / "own.py").write_text(OWN)
    (root / "code" / "theirs").mkdir()
    names = ["code/own.py:red", "maps:code/theirs", "dea@alpha=0.8"]
    settings = write_settings(root, data={"n": 1}, methods={"names": names, "ria": {"grid": 4}})
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 0
    records = load_run(tmp_path / "run").records
    assert list(records["method"]) == ["own.py:red", "maps:theirs", "dea@alpha=0.8", "random_cells"]


@pytest.fixture(scope="module")
def kept(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at the photographs' own size that keeps its maps."""
    directory = tmp_path_factory.mktemp("kept") / "run"
    run_records(project, directory, data={"n": 2, "size": "native"}, output={"maps": True})
    return directory


def test_kept_maps_are_float32_at_the_images_size_beside_their_pictures(project: Path, kept: Path) -> None:
    samples = sorted(folder.name for folder in (kept / "maps").iterdir())
    assert samples == load_run(kept).description["data"]["samples"]
    for sample in samples:
        files = {file.name for file in (kept / "maps" / sample).iterdir()}
        assert files == {f"{name}.npy" for name in ALL} | {"image.png", "target.png"}
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


def test_kept_dea_map_is_the_fusion_of_the_kept_ega_and_ria_maps(kept: Path) -> None:
    for folder in (kept / "maps").iterdir():
        ega, ria, dea = (np.load(folder / f"{name}.npy").astype(np.float64) for name in ("ega", "ria", "dea"))
        fused = 0.65 * ega * (1 + 0.35 * ria) + 0.35 * ria
        np.testing.assert_allclose(dea, (fused - fused.min()) / (fused.max() - fused.min()), atol=1e-6)


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
            tolerance = 1e-5 if folder == "scaled" else 1e-9
            values = theirs[column].astype(float), ours[column].astype(float)
            np.testing.assert_allclose(*values, rtol=0, atol=tolerance, err_msg=f"{folder}: {column}")
        unknown = ["stability", "runtime_s", *(name for name in SPEC_COLUMNS if name.startswith("stability_"))]
        assert theirs[unknown].isna().all(axis=None)
        assert theirs["reason"].str.contains("stability, runtime_s: the maps were computed elsewhere").all()


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


# Curves, targets, and the other settings of the evaluation


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
    assert found.loc["boxless", "reason"] == "class 1 does not occur in the ground truth"
    for index in range(6):
        resized = np.asarray(Image.fromarray(sample_arrays(index)[1]).resize((32, 32), Image.Resampling.NEAREST))
        assert found.loc[f"s{index}", "target_area"] == pytest.approx((resized == 1).mean())


def test_a_class_that_does_not_exist_stops_the_run_before_it_starts(project: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown class 'bax'; the classes are background, box, disc"):
        run_records(project, tmp_path, target={"class": "bax"})
    with pytest.raises(SettingsError, match=r"class 9 is out of range; expected 0 to 2"):
        run_records(project, tmp_path, target={"class": 9})
    assert list(tmp_path.iterdir()) == []


def test_ignored_pixels_left_out_change_only_off_target_columns(
    project: Path, full_records: pd.DataFrame, tmp_path: Path
) -> None:
    records = run_records(project, tmp_path / "run", evaluation={"stability": True, "ignore": "exclude"})
    off = {"s_off_deleted", "odd", "odd_abs", "leak_abs", "leak_signed", "tied_share_off"}
    for name in set(records.columns) - off - {"runtime_s"}:
        same = records[name].eq(full_records[name]) | (records[name].isna() & full_records[name].isna())
        assert same.all(), name
    changed = by_method(records, "random")["s_off_deleted"] != by_method(full_records, "random")["s_off_deleted"]
    assert changed.all(), "each sample has a strip of ignored pixels, which random maps rank like any others"


def test_gradient_methods_without_a_layer_stop_the_run_before_it_starts(project: Path, tmp_path: Path) -> None:
    """Also DEA alone, whose gradient evidence is one of two kinds: no run whose every sample must fail."""
    for names in (["gpa"], ["dea"], ["mask", "dea@alpha=0.8"]):
        settings = make_settings(content(project, model={"layer": None}, methods={"names": names, "ria": {"grid": 4}}))
        with pytest.raises(SettingsError, match=r"gradient methods need a feature layer .*give layer="):
            segfaith.run(settings, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_class_names_that_do_not_fit_stop_the_run_before_it_starts(project: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tiny\.py:build has 3 output classes, but 2 class names were given"):
        run_records(project, tmp_path, model={"classes": CLASSES[:2]}, data={"classes": CLASSES[:2]})
    with pytest.raises(SettingsError, match=r"class 1 is 'disc' for the model and 'box' for the data"):
        run_records(project, tmp_path, model={"classes": ["background", "disc", "box"]})
    with pytest.raises(SettingsError, match=r"device 'gpu' cannot be used: .*use 'cpu' or 'auto'"):
        run_records(project, tmp_path, execution={"device": "gpu"})
    assert list(tmp_path.iterdir()) == []


# Passes, counted


def passes_of_run(project: Path, directory: Path, **changes: Any) -> tuple[int, int]:
    """Images that went through the model in a run after it was prepared, and the number that the plan announced.

    A module with hooks is not traced, so it does without the passes for clean features, and those that hold each
    operator's baseline against the model, that the plan counts.
    """
    prepared = executors.prepare(make_settings(content(project, **changes)))
    with counted(prepared.model.module) as total:
        segfaith.run(prepared, directory)
    assert set(load_run(directory).records["status"]) == {"ok"}
    return total[0], prepared.plan.passes


def test_one_sample_with_the_four_methods_and_stability_at_the_grid_of_spec(project: Path, tmp_path: Path) -> None:
    """6 x (1 + 196) for evidence, 3 for each of four maps and of three draws of random_cells, 2 for image and baseline.

    Announced are 6 more for clean features, and one for the baseline.
    """
    counted_passes, planned = passes_of_run(
        project,
        tmp_path,
        data={"n": 1},
        methods={"names": ["gpa", "ega", "ria", "dea"], "ria": {"grid": 14}},
        evaluation={"stability": True},
    )
    assert counted_passes == 6 * 197 + 3 * 4 + 3 * 3 + 2
    assert planned == counted_passes + 6 + 1


FOUR = ["gpa", "ega", "ria", "dea"]


@pytest.mark.parametrize(
    ("names", "evaluation", "per_sample", "features"),
    [
        (FOUR, {"stability": True}, 6 * (1 + 16) + 3 * (4 + 3) + 2, 6),
        (FOUR, {"stability": False}, (1 + 16) + 3 * (4 + 3) + 2, 1),
        ([*FOUR, "random", "random_cells", "mask"], {"stability": True}, 6 * (1 + 16) + 3 * (6 + 3) + 2, 6),
        ([*FOUR, "dea@alpha=0.5", "dea@alpha=0.8"], {"stability": True}, 6 * (1 + 16) + 3 * (6 + 3) + 2, 6),
        (["ria"], {"stability": True}, 6 * (1 + 16) + 3 * (1 + 3) + 2, 6),
        (["ega"], {"stability": True}, 6 * 1 + 3 * (1 + 3) + 2, 0),
        (["random"], {"stability": True}, 1 + 3 * (1 + 3) + 2, 0),
        (["random_cells"], {"stability": False}, 1 + 3 * 3 + 2, 0),
        (["ria", "ria@grid=3"], {"stability": False}, (1 + 16 + 9) + 3 * (2 + 3) + 2, 2),
        (["ria", "dea@grid=3"], {"stability": True}, 6 * (1 + 16 + 9) + 3 * (2 + 3) + 2, 12),
        (["ria", "ria@occlusion=zero"], {"stability": False}, (1 + 16 + 16) + 3 * (2 + 3) + 2, 2),
        (["gpa", "gpa@objective=prob"], {"stability": True}, 6 * 2 + 3 * (2 + 3) + 2, 0),
        (["gpa", "ega@layer=backbone.0"], {"stability": False}, 2 + 3 * (2 + 3) + 2, 0),
        (["ega"], {"stability": False, "k": [0.1, 0.2, 0.4]}, 1 + 3 * 3 * (1 + 3) + 2, 0),
        (["ega"], {"stability": False, "occlusion": ["mean", "blur"]}, 2 + 2 * (3 * (1 + 3) + 1), 0),
        (["ega"], {"stability": False, "k": [0.1, 0.2], "occlusion": ["mean", "zero"]}, 2 + 2 * (2 * 3 * 4 + 1), 0),
    ],
)
def test_passes_are_those_announced(
    project: Path, tmp_path: Path, names: list[str], evaluation: dict[str, Any], per_sample: int, features: int
) -> None:
    """Each variant's clean features count once for each intervention evidence."""
    methods = {"names": names, "ria": {"grid": 4}}
    counted_passes, planned = passes_of_run(project, tmp_path, data={"n": 2}, methods=methods, evaluation=evaluation)
    baselines = len(evaluation.get("occlusion", ["mean"]))
    assert (counted_passes, planned) == (2 * per_sample, 2 * (per_sample + features + baselines))


def test_passes_with_stability_on_one_sample_of_two(project: Path, tmp_path: Path) -> None:
    counted_passes, planned = passes_of_run(
        project,
        tmp_path,
        data={"n": 2},
        methods={"names": FOUR, "ria": {"grid": 4}},
        evaluation={"stability": 1},
    )
    assert counted_passes == (6 + 1) * (1 + 16) + 2 * (3 * (4 + 3) + 2)
    assert planned == counted_passes + 6 + 1 + 2


def test_passes_of_a_traced_model_are_those_announced(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sample traces the model and holds the trace against it; the second costs what the plan says."""
    changes = {"methods": {"names": FOUR, "ria": {"grid": 4}}, "evaluation": {"stability": True}}
    prepared = executors.prepare(make_settings(content(project, data={"n": 2}, **changes)))
    first, second = (prepared.plan.dataset.load(sample_id, 32) for sample_id in prepared.plan.ids)
    executors.run_sample(prepared, first.id, lambda: first, executors.BatchSize(8))
    images = {"module": 0, "clean": 0, "altered": 0}
    forward, clean, evaluate = type(prepared.model.module).forward, Graph.clean, GraphPlan.evaluate

    def count(name: str, images_of: Callable[..., int], function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            images[name] += images_of(*arguments)
            return function(*arguments)

        return counting

    monkeypatch.setattr(type(prepared.model.module), "forward", count("module", lambda module, x: len(x), forward))
    monkeypatch.setattr(Graph, "clean", count("clean", lambda graph, image: 1, clean))
    monkeypatch.setattr(
        GraphPlan, "evaluate", count("altered", lambda plan, windows, values: len(windows.data), evaluate)
    )
    result = executors.run_sample(prepared, second.id, lambda: second, executors.BatchSize(8))
    assert {row["status"] for row in result.records} == {"ok"}
    assert images == {"module": 6 + 1, "clean": 6, "altered": 6 * 16 + 3 * (4 + 3) + 2}
    assert 2 * sum(images.values()) == prepared.plan.passes


def test_passes_with_the_prediction_as_target(project: Path, tmp_path: Path) -> None:
    """One more a sample, on samples whose prediction has foreground."""
    first = run_records(project, tmp_path / "all", target={"source": "prediction"}, methods={"names": ["random"]})
    ids = list(first[first["status"] == "ok"]["sample_id"].unique())[:2]
    counted_passes, planned = passes_of_run(
        project,
        tmp_path / "two",
        data={"ids": ids},
        target={"source": "prediction"},
        methods={"names": ["ega"]},
        evaluation={"stability": False},
    )
    assert counted_passes == len(ids) * (1 + 1 + 3 * (1 + 3) + 2)
    assert planned == counted_passes + len(ids)


def test_passes_with_maps_computed_elsewhere(project: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for index in range(6):
        np.save(tmp_path / "theirs" / f"s{index}.npy", np.random.default_rng(index).random((32, 32)))
    counted_passes, planned = passes_of_run(
        project,
        tmp_path / "run",
        data={"n": 2},
        methods={"names": [f"maps:{tmp_path / 'theirs'}"]},
        evaluation={"stability": True},
    )
    assert counted_passes == 2 * (1 + 3 * (1 + 3) + 2)
    assert planned == counted_passes + 2


def test_prepared_settings_and_run_of_settings_are_the_same_run(project: Path, tmp_path: Path) -> None:
    prepared = executors.prepare(make_settings(content(project, data={"n": 1}, **QUICK)))
    assert dataclasses.is_dataclass(prepared)
    seen: list[str] = []
    assert segfaith.run(prepared, tmp_path, seen.append) == tmp_path
    assert seen == prepared.plan.ids
    run_records(project, tmp_path, data={"n": 1}, **QUICK)


# Planted evidence


def scenes(tmp_path: Path, n: int = 8, **changes: Any) -> executors.Prepared:
    """A quick run over small scenes with an untrained model."""
    given = {
        "data": {"name": "scenes", "size": 64, "ids": [f"val-{i:04d}" for i in range(n)]},
        "model": {"name": "scenes", "weights": "random"},
        "methods": {"names": ["mask"]},
        "evaluation": {"stability": False},
        "execution": {"device": "cpu"},
    }
    return executors.prepare(make_settings(given | changes))


def test_passes_on_scenes_are_at_most_those_announced(tmp_path: Path) -> None:
    """One for each of the four maps of each sample at most, and none where evidence lies inside the target."""
    prepared = scenes(tmp_path)
    images = [0]
    prepared.model.module.register_forward_pre_hook(
        lambda module, inputs: images.__setitem__(0, images[0] + len(inputs[0]))
    )
    executors.run(prepared, tmp_path / "run")
    records = load_run(tmp_path / "run").records
    assert set(records["status"]) == {"ok"}
    assert set(records["kind"]) == {"plain", "marker", "context", "conjunction", "redundancy"}
    bare = 8 * (1 + 3 * (1 + 3) + 2)
    assert prepared.plan.passes == bare + 8 * (4 + 1)
    assert bare < images[0] <= prepared.plan.passes


def test_the_evidence_of_a_predicted_region_is_that_of_its_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicted right, a region has its class's evidence. Predicted as a class that is shown elsewhere in the scene, it
    has none: not that of the other object.
    """
    prepared = scenes(tmp_path, 1, target={"source": "prediction"})
    (sample_id,) = prepared.plan.ids
    sample = prepared.plan.dataset.load(sample_id, 64)
    first = executors.dominant_target(sample.labels, "ground truth").class_index
    others = [label for label in sample.planted if label != first and sample.planted[label].alternatives]
    swapped = torch.where(
        sample.labels == first, others[0], torch.where(sample.labels == others[0], first, sample.labels)
    )
    found = []
    for labels in (sample.labels, swapped):
        monkeypatch.setattr(executors, "predicted_labels", lambda model, image, labels=labels: labels)
        result = executors.run_sample(prepared, sample_id, lambda: sample, executors.BatchSize(8))
        found.append({row["method"]: row for row in result.records}["mask"])
    assert [row["class_index"] for row in found] == [first, others[0]]
    assert found[0]["kind"] == sample.planted[first].kind
    assert found[0]["evidence_ap"] > 0
    assert found[1]["kind"] is None
    assert "evidence_ap" not in found[1]
