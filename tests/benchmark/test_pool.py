"""Workers of Ray measure what one process measures, row by row, whatever becomes of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import segfaith
from folder_runs import (
    MODEL,
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
from segfaith.benchmark.execution_settings import ExecutionSettings
from segfaith.benchmark.executors import Executors, calibrate, of_suite, powers_of_two
from segfaith.benchmark.plan import make_plan
from segfaith.benchmark.pool import Pace, Pool
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.suites import find_suite, read_suite
from segfaith.errors import SettingsError
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.analysis import analyse

DEADLY = MODEL.replace(
    "        features = self.backbone(x)\n",
    """        import json, pathlib, signal
        death = pathlib.Path(__file__).with_name("death.json")
        if death.exists():
            plan = json.loads(death.read_text())
            deadly = any(abs(float(x[0].mean()) - level) < 1e-6 for level in plan["levels"])
            if deadly and os.getpid() not in plan["spared"] and plan["left"]:
                death.write_text(json.dumps({**plan, "left": plan["left"] - 1}))
                os.kill(os.getpid(), plan["signal"])
        features = self.backbone(x)
""",
)
"""The tiny model, which kills its own process at the image whose mean is in `death.json`, as often as that says."""
CHANGES: dict[str, Any] = {"output": {"maps": True}, "execution": {"device": "cpu", "shard_size": 2}}


@pytest.fixture(scope="module")
def workers() -> Iterator[Pool]:
    """Two workers of a Ray of this machine, for all tests of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # other tests run beside these, and Ray's workers would starve
        own = Pool()
    with own:
        own.hire(2, 1, gpu=False)
        yield own


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A project whose model can kill its process."""
    root = make_project(tmp_path / "project", samples=5)
    (root / "tiny.py").write_text(DEADLY)
    return root


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


def test_workers_write_the_records_of_one_process(workers: Pool, project: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_costs_no_sample(
    workers: Pool, deadly: Path, tmp_path: Path, by: signal.Signals
) -> None:
    workers.fill()
    made = workers.made
    deaths(deadly, "s1", times=2, by=by)
    together = load_run(by_workers(workers, deadly, tmp_path / "together")).records
    alone = run_records(deadly, tmp_path / "alone")
    assert json.loads((deadly / "death.json").read_text())["left"] == 0, "two workers died"
    assert workers.made == made + 2, "and two came for them"
    assert_same_records(alone, together)


def test_samples_that_kill_every_worker_become_failed_rows(workers: Pool, deadly: Path, tmp_path: Path) -> None:
    """The first samples of the run do, before anything is measured."""
    bad_ids = ["s0", "s1", "s2"]
    deaths(deadly, *bad_ids, times=100)
    alone = run_records(deadly, tmp_path / "alone")
    together = load_run(by_workers(workers, deadly, tmp_path / "together")).records
    bad = together["sample_id"].isin(bad_ids)
    assert set(together.loc[bad, "status"]) == {"failed"}
    assert together.loc[bad, "reason"].str.contains("the worker process died while it measured this sample, 3").all()
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


def test_a_node_that_is_lost_costs_no_sample(deadly: Path, tmp_path: Path) -> None:
    """A cluster of two machines, as Ray's own tests make it: one is taken away while it measures."""
    script = tmp_path / "cluster.py"
    script.write_text(
        f"""
import ray
from ray.cluster_utils import Cluster
from pathlib import Path
from folder_runs import content
from segfaith.benchmark.pool import Pool
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "object_store_memory": 10**8}})
other = cluster.add_node(num_cpus=1, object_store_memory=10**8)
cluster.wait_for_nodes()
with Pool(cluster.address) as own:
    own.hire(2, 1, gpu=False)
    prepared = prepare(make_settings(content({str(deadly)!r})))
    directory = Path({str(tmp_path / "together")!r})
    def once(sample_id):
        if other in cluster.list_all_nodes():  # with a worker that measures, or loads its model
            cluster.remove_node(other, allow_graceful=False)
            print("removed", flush=True)
    run_shards(prepared, directory, open_directory(directory, prepared), once, own.measure)
cluster.shutdown()
print("done")
"""
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path, "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = [line for line in done.stdout.splitlines() if line in ("removed", "done")]  # Ray talks of the lost node too
    assert told == ["removed", "done"], done.stdout + done.stderr
    alone = run_records(deadly, tmp_path / "alone")
    assert_same_records(alone, load_run(tmp_path / "together").records)


# Which executor


def chosen(project: Path, samples: int = 100, **asked: Any) -> tuple[Any, str]:
    """What is chosen for a run over the project, and the words that are said."""
    prepared = prepare(make_settings(content(project, methods={"names": ["ria"]})))
    said: list[str] = []
    measure = Executors(ExecutionSettings(**asked), said.append).choose(prepared, samples)
    return measure, " ".join(said)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """A pool that only notes whom it hires, on a machine of eight cores."""
    hired: list[tuple[int, int, bool]] = []

    class Noted:
        def __init__(self, *_: Any) -> None: ...

        def places(self, cores: int, *, gpu: bool) -> tuple[int, int]:
            return 8 // cores, cores

        def hire(self, count: int, cores: int, *, gpu: bool) -> None:
            hired.append((count, cores, gpu))

        def measure(self, *_: Any) -> None: ...

    monkeypatch.setattr(executors, "Pool", Noted)
    monkeypatch.setattr(executors, "cores_here", lambda: 8)
    monkeypatch.setattr(executors, "places", lambda wanted, memory: wanted)
    return hired


TIMES = {1: 1.0, 2: 0.6, 4: 0.2, 8: 0.15}
"""Seconds of an image by threads: four threads are best for the machine, two workers of 4 x 0.2 core seconds."""


def test_small_jobs_run_in_this_process(project: Path, no_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: dict.fromkeys(threads, 1e-6))
    measure, words = chosen(project)
    assert measure is executors.serial
    assert words == "executor  serial: about 0 s of model passes"
    assert no_ray == []


def test_long_jobs_run_on_workers_of_the_size_that_measures_most(
    project: Path, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: {n: TIMES[n] for n in threads})
    monkeypatch.setattr(executors.torch, "get_num_threads", lambda: 8)
    _, words = chosen(project)
    assert no_ray == [(2, 4, False)]
    assert words.startswith("executor  ray: 2 workers, each with 4 cores (one process: 1.0 images/s on 1 core")


def test_a_model_that_cannot_be_timed_runs_in_this_process(
    project: Path, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(*_: Any) -> float:
        raise SystemExit(0)

    monkeypatch.setattr(executors, "_seconds_of_an_image", exits)
    measure, words = chosen(project)
    assert measure is executors.serial
    assert "could not be timed" in words


@pytest.mark.parametrize(
    ("asked", "samples", "expected"),
    [
        ({"cores_per_worker": 1}, 100, (8, 1, False)),
        ({"threads": 2}, 100, (4, 2, False)),
        ({"cores_per_worker": 1, "workers": 3}, 100, (3, 1, False)),
        ({"cores_per_worker": 1}, 5, (5, 1, False)),
        ({"cores_per_worker": 16}, 100, (1, 16, False)),
    ],
    ids=["a core each", "threads", "workers", "few samples", "more cores than there are"],
)
def test_what_is_asked_for_decides(
    project: Path,
    no_ray: Any,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    samples: int,
    expected: tuple[int, int, bool],
) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: {n: TIMES.get(n, 1.0) for n in threads})
    chosen(project, samples, executor="ray", **asked)
    assert no_ray == [expected]


def test_without_ray_auto_is_serial_and_ray_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    assert chosen(project)[0] is executors.serial
    assert "pip install 'segfaith[ray]'" in chosen(project)[1]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="pip install 'segfaith\\[ray\\]'"):
        chosen(project, executor="ray")


@pytest.mark.parametrize(
    ("free", "own", "counts"), [(8e9, 2e9, [1, 3, 3]), (8e9, 8e10, [1, 1, 1]), (None, 2e9, [1, 3, 8])]
)
def test_a_pool_takes_no_more_workers_than_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch, free: float | None, own: float, counts: list[int]
) -> None:
    monkeypatch.setattr(executors, "free_memory", lambda: free)
    monkeypatch.setattr(executors, "own_memory", lambda: own)
    assert [executors.places(count) for count in (1, 3, 8)] == counts


def test_the_calibration_leaves_the_threads_alone(project: Path) -> None:
    import torch

    before = torch.get_num_threads()
    found = calibrate(prepare(make_settings(content(project))), [1, 2])
    assert torch.get_num_threads() == before
    assert list(found) == [1, 2]
    assert all(0 < seconds < 10 for seconds in found.values())
    assert [powers_of_two(most) for most in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2], [1, 2, 4, 8]]


def test_an_address_without_ray_is_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def nobody(*_: Any, **__: Any) -> None:
        raise ConnectionError("Failed to connect\nto the cluster")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(SettingsError, match=r"there is no Ray at '127\.0\.0\.1:1' \(to the cluster\); start one with"):
        Pool("127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"Ray cannot be started on this machine .* use --executor serial"):
        Pool()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(SettingsError, match="this process has a Ray already"):
        Pool("127.0.0.1:1")


def test_runs_of_a_suite_must_ask_for_one_executor() -> None:
    suite = read_suite(find_suite("paper-voc"), ["execution.executor=serial"])
    assert of_suite(suite).executor == "serial"
    first = suite.runs[0]
    other = first.settings.execution.model_copy(update={"executor": "ray"})
    changed = replace(first, settings=first.settings.model_copy(update={"execution": other}))
    suite = replace(suite, runs=[changed, *suite.runs[1:]])
    with pytest.raises(SettingsError, match=r"execution\.executor differs"):
        of_suite(suite)
