"""The time that a dry run announces: that of the work that the run does, counted in passes in place of seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folder_runs import add_sample, content, make_project, sample_arrays
from segfaith.batching import BatchSize
from segfaith.benchmark import forecast, measuring, runner
from segfaith.benchmark.forecast import Pace, pace
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import make_settings
from segfaith.evidence import gradient
from segfaith.incremental.graph import Graph
from segfaith.incremental.window_plan import WindowPlan

FOUR = ["gpa", "ega", "ria", "dea"]
OWN = """
import torch

def explain(model, image, target):
    with torch.no_grad():
        for _ in range(7):
            model.logits(image[None])
    return image[0]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("forecast"), samples=4)
    (root / "mine.py").write_text(OWN)
    return root


class Counter:
    """Images that went through the model, as a clock: a pass through the model or through its graph is a second."""

    def __init__(self, model: type, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = self.graph = 0
        self._count(monkeypatch, model, "forward", "module", lambda module, images: len(images))
        self._count(monkeypatch, Graph, "clean", "graph", lambda graph, image: 1)
        self._count(monkeypatch, WindowPlan, "evaluate", "graph", lambda plan, windows, arithmetic: len(windows.data))
        for place in (forecast, gradient):
            monkeypatch.setattr(place, "clock", lambda device: float(self.module + self.graph))

    def _count(
        self, monkeypatch: pytest.MonkeyPatch, owner: type, function: str, kind: str, images_of: Callable[..., int]
    ) -> None:
        before = getattr(owner, function)

        def counting(*arguments: Any) -> Any:
            setattr(self, kind, getattr(self, kind) + images_of(*arguments))
            return before(*arguments)

        monkeypatch.setattr(owner, function, counting)


def told_and_true(
    project: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Pace, float, int]:
    """The pace, the seconds that it announces for the run, and those that the run takes after its first sample."""
    prepared = prepare(make_settings(content(project, **changes)))
    ids = prepared.plan.ids
    first = prepared.plan.dataset.load(ids[0], 32)
    measuring.run_sample(prepared, first.id, lambda: first, BatchSize(8))
    count = Counter(type(prepared.model.module), monkeypatch)
    timed = pace(prepared)
    assert isinstance(timed, Pace)
    before = count.module, count.graph
    runner.run(prepared, directory)
    spent = count.module + count.graph - sum(before)
    assert bool(count.graph) == changes.get("execution", {}).get("incremental", True)
    return timed, timed.seconds(len(ids), len(prepared.plan.stability_ids)), spent


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("stability", [True, False, 2])
def test_the_time_is_that_of_the_path_that_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, incremental: bool, stability: bool | int
) -> None:
    """In passes through the graph or the model: those of the run, but for a few that do not grow with the maps."""
    timed, announced, spent = told_and_true(
        project,
        tmp_path / "run",
        monkeypatch,
        methods={"names": FOUR, "ria": {"grid": 6}},
        evaluation={"stability": stability},
        execution={"device": "cpu", "incremental": incremental, "batch_size": 8},
    )
    assert announced == pytest.approx(spent, rel=0.05)
    assert timed.plain["occlusions"] == pytest.approx(36, abs=2)


@pytest.mark.parametrize(
    "more", [{"regions": "adaptive", "grid": 6, "passes": 20}, {"regions": "superpixels", "grid": 4}]
)
def test_other_regions_are_timed_as_they_are_cut(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    pytest.importorskip("skimage")
    _, announced, spent = told_and_true(
        project, tmp_path / "run", monkeypatch, methods={"names": ["ria"], "ria": more}, evaluation={"stability": 1}
    )
    assert announced == pytest.approx(spent, rel=0.15)


def test_several_operators_and_fractions_count(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, announced, spent = told_and_true(
        project,
        tmp_path / "run",
        monkeypatch,
        methods={"names": ["ega", "random"]},
        evaluation={"stability": False, "k": [0.1, 0.2, 0.4], "occlusion": ["mean", "zero"]},
    )
    assert announced == pytest.approx(spent, rel=0.1)
    assert timed.plain["metrics"] > 10 * timed.plain["gradients"]
    assert timed.words(1, 0).startswith("metrics ")


def test_a_method_of_ones_own_is_timed_by_a_call(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"names": ["ega", f"{project}/mine.py:explain"]}
    timed, announced, spent = told_and_true(project, tmp_path / "run", monkeypatch, methods=methods)
    assert (timed.plain["own methods"], timed.stability["own methods"]) == (7, 35)
    assert announced == pytest.approx(spent, rel=0.1)


def test_where_all_occlusions_take_long_some_batches_stand_for_all(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 cells in batches of 4, a budget of three batches: every third batch is run."""
    monkeypatch.setattr(forecast, "BUDGET", 12.0)
    prepared = prepare(
        make_settings(
            content(
                project,
                methods={"names": ["ria"], "ria": {"grid": 6}},
                evaluation={"stability": False, "fidelity": 0, "whole": False},
                execution={"device": "cpu", "batch_size": 4, "incremental": False},
            )
        )
    )
    count = Counter(type(prepared.model.module), monkeypatch)
    timed = pace(prepared)
    assert isinstance(timed, Pace)
    assert timed.plain["occlusions"] == 36
    assert count.module < 36 + 12 + 5


def test_a_forecast_needs_a_sample_that_can_be_measured(tmp_path: Path) -> None:
    project = make_project(tmp_path, samples=1)
    image, labels = sample_arrays(0)
    add_sample(project / "data", "a", image, np.zeros_like(labels))
    methods = {"names": ["random"]}
    timed = pace(prepare(make_settings(content(project, methods=methods))))
    assert isinstance(timed, Pace)
    assert timed.sample_id == "s0", "the first sample has no target"
    alone = make_settings(content(project, methods=methods, data={"ids": ["a"]}))
    told = pace(prepare(alone))
    assert isinstance(told, str)
    assert told.startswith("none of the first 1 samples can be measured (a: ")


def test_a_pace_grows_with_samples_and_stability() -> None:
    timed = Pace(
        "a",
        {"occlusions": 2.0, "metrics": 1.0, "gradients": 0.001},
        {"occlusions": 10.0, "metrics": 0.0, "gradients": 0.0},
        (32, 32),
    )
    assert timed.seconds(10, 3) == pytest.approx(60.01)
    assert timed.words(10, 3) == "occlusions 83%, metrics 17%"
