"""Workers of Ray measure what one process measures, row by row, whatever becomes of them."""

import json
import os
import shutil
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segfaith
from folder_runs import (
    add_sample,
    assert_same_records,
    command,
    content,
    make_project,
    run_records,
    sample_arrays,
    write_settings,
)
from segfaith.benchmark import executors, pool
from segfaith.benchmark.description import machine_words
from segfaith.benchmark.plan import make_plan
from segfaith.benchmark.pool import Pace, Pool
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.analysis import analyse

pytestmark = pytest.mark.usefixtures("as_users")

CHANGES: dict[str, Any] = {"output": {"maps": True}, "execution": {"device": "cpu", "shard_size": 2}}


@pytest.fixture(scope="module")
def workers() -> Iterator[Pool]:
    """Two workers of a Ray of this machine, for all tests of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # other tests run beside these, and Ray's workers would starve
        patch.setattr(pool, "cores_here", lambda: 2)  # also on a machine of one core
        own = Pool()
    with own:
        own.hire(2, 1, gpu=False)
        yield own


def by_workers(workers: Pool, root: Path, directory: Path, **changes: Any) -> Path:
    """A run that the pool measures."""
    prepared = prepare(make_settings(content(root, **changes)))
    ids: list[str] = []
    run_shards(prepared, directory, open_directory(directory, prepared), ids.append, workers.measure)
    assert sorted(ids) == sorted(prepared.plan.ids), "each sample is told once"
    return directory


def deaths(root: Path, *ids: str, times: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Lets workers die that measure these samples, so many of them; this process is spared."""
    prepared = prepare(make_settings(content(root)))
    levels = [float(prepared.plan.dataset.load(sample_id, 32).image.mean()) for sample_id in ids]
    plan = {"levels": levels, "left": times, "spared": [os.getpid()], "signal": int(by)}
    (root / "death.json").write_text(json.dumps(plan))


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file of a folder, by its place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def both_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives out samples when all workers are ready, so that none measures everything while another one still starts."""
    real = pool._Round._give_out

    def patiently(self: Any) -> None:
        waiting, ready = self.waiting, all(hand.host for hand in self.pool.hands)
        self.waiting = waiting if ready else deque()
        real(self)
        self.waiting = waiting

    monkeypatch.setattr(pool._Round, "_give_out", patiently)


def test_workers_write_the_records_of_one_process(
    workers: Pool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_measure(monkeypatch)
    paces: list[Pace] = []
    workers.on_pace = paces.append
    changes = CHANGES | {"evaluation": {"stability": 2, "k": [0.2, 0.5]}}
    alone = segfaith.run(make_settings(content(project, **changes)), tmp_path / "alone")
    together = by_workers(workers, project, tmp_path / "together", **changes)
    first, second = load_run(alone), load_run(together)
    assert_same_records(first.records, second.records)
    assert_same_records(first.curves, second.curves)
    assert files(alone / "maps") == files(together / "maps")
    assert first.description["identity_sha256"] == second.description["identity_sha256"]
    assert set(first.records["workers"]) == {1.0}
    device = first.description["machine"]["device"]
    assert set(first.records["machine"]) == {machine_words(prepare(make_settings(content(project))).model)}
    assert set(second.records["machine"]) == {f"{device}, 1 thread"}, "of the workers"
    assert 2.0 in set(second.records["workers"]), "rows say that their runtimes are contended"
    (note,) = analyse([second]).runtime_notes
    assert "up to 2 processes measured side by side" in note
    assert note in analyse([second]).notes
    assert analyse([first]).runtime_notes == []
    assert {pace.worker.split(" (")[0] for pace in paces} == {"worker 1", "worker 2"}
    assert sum(max(one.samples for one in paces if one.worker == name) for name in {one.worker for one in paces}) == 6
    assert all(pace.seconds > 0 for pace in paces)


def test_bad_samples_have_the_rows_that_they_have_in_one_process(workers: Pool, damaged: Path, tmp_path: Path) -> None:
    alone = run_records(damaged, tmp_path / "alone")
    together = load_run(by_workers(workers, damaged, tmp_path / "together")).records
    assert {"failed", "skipped", "ok"} == set(together["status"])
    assert_same_records(alone, together)


@pytest.mark.parametrize(("by", "times"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
def test_a_worker_that_is_killed_costs_no_sample(
    workers: Pool, deadly: Path, tmp_path: Path, by: signal.Signals, times: int
) -> None:
    workers.fill()
    made = workers.made
    deaths(deadly, "s1", times=times, by=by)
    together = load_run(by_workers(workers, deadly, tmp_path / "together")).records
    alone = run_records(deadly, tmp_path / "alone")
    assert json.loads((deadly / "death.json").read_text())["left"] == 0, "workers died"
    assert workers.made == made + times, "and others came for them"
    assert_same_records(alone, together)


def test_samples_that_kill_every_worker_become_failed_rows(
    workers: Pool, deadly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first samples of the run do, before anything is measured: one for each worker."""
    bad_ids = ["s0", "s1"]
    monkeypatch.setattr(pool, "TRIES", 2)
    deaths(deadly, *bad_ids, times=100)
    alone = run_records(deadly, tmp_path / "alone")
    together = load_run(by_workers(workers, deadly, tmp_path / "together")).records
    bad = together["sample_id"].isin(bad_ids)
    assert set(together.loc[bad, "status"]) == {"failed"}
    assert together.loc[bad, "reason"].str.contains("the worker process died while it measured this sample, 2").all()
    assert_same_records(
        alone[~alone["sample_id"].isin(bad_ids)].reset_index(drop=True), together[~bad].reset_index(drop=True)
    )


def test_workers_that_see_other_code_or_data_stop_the_run(workers: Pool, tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", samples=3)
    prepared = prepare(make_settings(content(root)))
    todo = open_directory(tmp_path / "run", prepared)
    real = pool.sample_identity

    def before(*arguments: Any) -> Any:
        return {**real(*arguments), "sources": {"model": "0" * 64}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "sample_identity", before)
        with pytest.raises(SettingsError, match=r"would measure another run(.|\n)*sources\.model"):
            run_shards(prepared, tmp_path / "run", todo, lambda sample_id: None, workers.measure)
    assert not list((tmp_path / "run/records").glob("*"))


def test_workers_take_the_draw_of_the_process_that_began_the_run(workers: Pool, tmp_path: Path) -> None:
    """The folder grows after that, and would be drawn otherwise: the same samples have stability all the same."""
    root = make_project(tmp_path / "project", samples=6)
    changes: dict[str, Any] = {"evaluation": {"stability": 2}, "data": {"n": 5}}
    prepared = prepare(make_settings(content(root, **changes)))
    todo = open_directory(tmp_path / "together", prepared)
    alone = run_records(root, tmp_path / "alone", **changes)
    for number in range(6, 12):
        add_sample(root / "data", f"s{number}", *sample_arrays(number))
    assert make_plan(make_settings(content(root, **changes))).stability_ids != prepared.plan.stability_ids
    run_shards(prepared, tmp_path / "together", todo, lambda sample_id: None, workers.measure)
    assert_same_records(alone, load_run(tmp_path / "together").records)


def test_a_model_that_workers_cannot_load_stops_the_run(workers: Pool, tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", samples=3)
    prepared = prepare(make_settings(content(root)))
    todo = open_directory(tmp_path / "run", prepared)
    (root / "tiny.pth").unlink()
    with pytest.raises(SettingsError, match=r"tiny\.pth"):
        run_shards(prepared, tmp_path / "run", todo, lambda sample_id: None, workers.measure)


def test_runs_of_a_suite_share_the_workers(workers: Pool, project: Path, tmp_path: Path) -> None:
    """Two models, one pool: the workers stay and change their model."""
    by_workers(workers, project, tmp_path / "first", methods={"names": ["gpa"]})
    made = workers.made
    by_workers(workers, project, tmp_path / "second", seed=1, methods={"names": ["gpa"]})
    assert workers.made == made


def test_the_command_starts_and_ends_a_ray_of_its_own(
    workers: Pool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module's pool stands for it, since a process has one Ray; that it ends is seen in a process of its own."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    settings = write_settings(root, data={"n": 3}, execution={"device": "cpu", "cores_per_worker": 1})
    monkeypatch.setattr(executors, "Pool", lambda address, on_pace: workers)
    monkeypatch.setattr(pool.Pool, "__exit__", lambda *_: None)
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run", "--executor", "ray") == 0
    told = capsys.readouterr()
    assert "executor  ray: 2 workers, each with 1 core" in told.err
    assert "3 of 3 samples measured" in told.out
    assert set(load_run(tmp_path / "run").records["sample_id"]) <= {f"s{number}" for number in range(6)}
