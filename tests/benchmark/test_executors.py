"""Which processes measure a run, and what is asked, timed and started before they do."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import segfaith
from folder_runs import command, content, make_project, write_settings
from segfaith.batching import LARGEST
from segfaith.benchmark import executors
from segfaith.benchmark.execution_settings import ExecutionSettings
from segfaith.benchmark.executors import Executors, calibrate, of_suite, powers_of_two
from segfaith.benchmark.lock import RunIsBusyError, at_work
from segfaith.benchmark.pool import Pool
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.runner import open_directory
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.suites import find_suite, read_suite
from segfaith.errors import SettingsError

pytestmark = pytest.mark.usefixtures("as_users")


@pytest.fixture(scope="module")
def ready(project: Path) -> Prepared:
    """A run over the project, which no test changes."""
    return prepare(make_settings(content(project, methods={"names": ["ria"]})))


def chosen(ready: Prepared, samples: int = 100, **asked: Any) -> tuple[Any, str]:
    """What is chosen for a run over the project, and the words that are said."""
    said: list[str] = []
    measure = Executors(ExecutionSettings(**asked), said.append).choose(ready, samples)
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


def test_small_jobs_run_in_this_process(ready: Prepared, no_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: dict.fromkeys(threads, 1e-6))
    measure, words = chosen(ready)
    assert measure is executors.serial
    assert words == "executor  serial: about 0 s of model passes"
    assert no_ray == []


def test_long_jobs_run_on_workers_of_the_size_that_measures_most(
    ready: Prepared, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: {n: TIMES[n] for n in threads})
    monkeypatch.setattr(executors.torch, "get_num_threads", lambda: 8)
    _, words = chosen(ready)
    assert no_ray == [(2, 4, False)]
    assert words.startswith("executor  ray: 2 workers, each with 4 cores (one process: 1.0 images/s on 1 core")


def test_a_model_that_cannot_be_timed_runs_in_this_process(
    ready: Prepared, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(*_: Any) -> float:
        raise SystemExit(0)

    monkeypatch.setattr(executors, "_seconds_of_an_image", exits)
    measure, words = chosen(ready)
    assert measure is executors.serial
    assert "could not be timed" in words


@pytest.mark.parametrize(
    ("cores", "room", "asked", "seconds", "expected"),
    [
        (8, 8, {}, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}, (8, 1)),
        (8, 8, {"workers": 2}, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}, (2, 4)),
        (8, 1, {}, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}, (1, 8)),
        (6, 6, {}, {1: 1.0, 2: 0.49, 4: 0.24}, (3, 2)),
        (8, 8, {}, {}, (8, 1)),
    ],
    ids=["all cores", "few workers", "little memory", "cores that would be left over", "nothing could be timed"],
)
def test_workers_have_the_cores_with_which_all_together_measure_most(
    ready: Prepared,
    no_ray: Any,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    room: int,
    asked: dict[str, Any],
    seconds: dict[int, float],
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(executors, "cores_here", lambda: cores)
    monkeypatch.setattr(executors, "places", lambda wanted, memory: room)
    monkeypatch.setattr(executors.Pool, "places", lambda self, each, *, gpu: (cores // each, each))
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: seconds)
    chosen(ready, executor="ray", **asked)
    assert no_ray == [(*expected, False)]


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
    ready: Prepared,
    no_ray: Any,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    samples: int,
    expected: tuple[int, int, bool],
) -> None:
    monkeypatch.setattr(executors, "calibrate", lambda prepared, threads: {n: TIMES.get(n, 1.0) for n in threads})
    chosen(ready, samples, executor="ray", **asked)
    assert no_ray == [expected]


def test_without_ray_auto_is_serial_and_ray_is_refused(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    assert chosen(ready)[0] is executors.serial
    assert "pip install 'segfaith[ray]'" in chosen(ready)[1]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="pip install 'segfaith\\[ray\\]'"):
        chosen(ready, executor="ray")


@pytest.mark.parametrize(
    ("free", "own", "counts"), [(8e9, 2e9, [1, 3, 3]), (8e9, 8e10, [1, 1, 1]), (None, 2e9, [1, 3, 8])]
)
def test_a_pool_takes_no_more_workers_than_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch, free: float | None, own: float, counts: list[int]
) -> None:
    monkeypatch.setattr(executors, "free_memory", lambda: free)
    monkeypatch.setattr(executors, "own_memory", lambda: own)
    assert [executors.places(count) for count in (1, 3, 8)] == counts


def test_the_calibration_leaves_the_threads_alone(ready: Prepared) -> None:
    before = torch.get_num_threads()
    found = calibrate(ready, [1, 2])
    assert torch.get_num_threads() == before
    assert list(found) == [1, 2]
    assert all(0 < seconds < 10 for seconds in found.values())
    assert [powers_of_two(most) for most in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2], [1, 2, 4, 8]]


def slow_passes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Lets each batch of a calibration take so long, by a clock of its own; gives the time at the end of each."""
    ends = [0.0]
    monkeypatch.setattr(executors, "time", SimpleNamespace(monotonic=lambda: ends[-1]))
    monkeypatch.setattr(executors, "clock", lambda device: ends[-1])
    monkeypatch.setattr(executors, "score_images", lambda *_: ends.append(ends[-1] + seconds))
    return ends


def test_a_calibration_of_a_slow_model_ends(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = slow_passes(monkeypatch, 60)
    assert calibrate(ready, [1, 2, 4, 8]) == {1: pytest.approx(60 / LARGEST)}
    assert ends == [0, 60], "one batch, after which the limit is over"


def test_a_calibration_makes_do_with_what_it_measured(
    ready: Prepared, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 5 s: four with one thread, two with two threads."""
    ends = slow_passes(monkeypatch, 5)
    _, words = chosen(ready, executor="ray")
    assert ends[-1] == executors.LIMIT
    assert no_ray == [(8, 1, False)], "two threads took as long as one"
    assert "9.8 images/s on 1 core, 9.8 images/s on 2 cores; more cores were not timed: set execution.cores" in words


def test_a_gpu_that_is_named_is_no_gpu_for_workers(
    ready: Prepared, no_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ready.plan.settings
    execution = settings.execution.model_copy(update={"device": "cuda:1"})
    named = replace(ready, plan=replace(ready.plan, settings=settings.model_copy(update={"execution": execution})))
    with pytest.raises(SettingsError, match=r"execution\.device = 'cuda:1' names one GPU.*use 'cuda', or executor"):
        chosen(named, executor="ray")
    measure, words = chosen(named)
    assert measure is executors.serial
    assert words == "executor  serial: the settings name one GPU, cuda:1"
    assert no_ray == []


def test_a_process_that_must_not_write_starts_no_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another one works in the directory: that is told before Ray is started."""
    started: list[str] = []

    class Started(Exception):
        pass

    def start(*_: Any) -> None:
        started.append("Ray")
        raise Started

    monkeypatch.setattr(executors, "Pool", start)
    root = make_project(tmp_path / "project", samples=2)
    asked = {"methods": {"names": ["mask"]}, "execution": {"device": "cpu", "executor": "ray"}}
    settings, run = write_settings(root, **asked), tmp_path / "run"
    made = make_settings(content(root, **asked))
    open_directory(run, prepare(made))
    with at_work(run):
        assert command(monkeypatch, "run", settings, "-o", run) == 3
        assert "another process works on" in capsys.readouterr().err
        with pytest.raises(RunIsBusyError):
            segfaith.run(made, run)
    assert started == []
    with pytest.raises(Started):
        segfaith.run(made, run)


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
