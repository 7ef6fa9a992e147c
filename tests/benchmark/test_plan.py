"""The plan of a run: its samples, its model passes as counted, and what makes two runs the same."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import segfaith
from folder_runs import (
    QUICK,
    add_sample,
    content,
    make_project,
    prepared_scenes,
    run_records,
    sample_arrays,
)
from segfaith.attribution.methods import DEFAULT_METHODS, resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark import measuring, runner
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.passes import passes_per_sample
from segfaith.benchmark.plan import Plan, make_plan, settings_in_use
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.incremental.graph import Graph
from segfaith.incremental.window_plan import WindowPlan
from segfaith.results.records.runs import load_run

# Samples and methods


def test_the_seed_changes_the_subset(project: Path) -> None:
    drawn = [tuple(make_plan(make_settings(content(project, seed=seed, data={"n": 3}))).ids) for seed in range(6)]
    assert all(len(set(ids)) == 3 and list(ids) == sorted(ids) for ids in drawn)
    assert len(set(drawn)) > 1
    again = make_plan(make_settings(content(project, data={"n": 3})))
    assert tuple(again.ids) == drawn[0]


def test_more_samples_than_there_are_and_unknown_ids_are_errors(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"n = 7 samples asked for; folder val has 6: give at most that many"):
        make_plan(make_settings(content(project, data={"n": 7})))
    with pytest.raises(SettingsError, match=r"folder val has no sample 's9'; the nearest are s"):
        make_plan(make_settings(content(project, data={"ids": ["s0", "s9"]})))


def test_random_cells_is_there_even_where_it_is_not_named(project: Path, tmp_path: Path) -> None:
    records = run_records(project, tmp_path / "run", data={"n": 2}, methods={"names": ["mask"]})
    assert list(records["method"]) == ["mask", "random_cells"] * 2
    assert records["tdd_gain"].notna().all()


# What may change between two calls, and what not


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"evaluation": {"stability": False, "k": 0.3}}, r"settings\.evaluation\.k: 0\.2 -> 0\.3"),
        ({"seed": 1}, r"settings\.seed: 0 -> 1"),
        ({"methods": {"ria": {"grid": 5}}}, r"settings\.methods\.ria\.grid: 4 -> 5"),
        ({"data": {"n": 3, "size": 24}}, r"settings\.data\.n: 2 -> 3\n *settings\.data\.size: 32 -> 24"),
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


def todo_after_moving(root: Path, **changes: Any) -> list[int]:
    """Runs in one place, moves everything, and returns what a second call in the new place would still do."""
    segfaith.run(make_settings(content(root, **changes)), root / "run")
    moved = root.parent / "after"
    shutil.move(root, moved)
    text = json.dumps(content(moved, **changes)).replace(str(root), str(moved))
    return runner.open_directory(moved / "run", prepare(make_settings(json.loads(text))))


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


# Passes, counted


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


def passes_of_run(project: Path, directory: Path, **changes: Any) -> tuple[int, int]:
    """Images that went through the model in a run after it was prepared, and the number that the plan announced.

    A module with hooks is not traced, so it does without the passes for clean features, and those that hold each
    operator's baseline against the model, that the plan counts.
    """
    prepared = prepare(make_settings(content(project, **changes)))
    with counted(prepared.model.module) as total:
        segfaith.run(prepared, directory)
    assert set(load_run(directory).records["status"]) == {"ok"}
    return total[0], prepared.plan.passes


def test_one_sample_with_the_four_methods_and_stability_at_the_grid_of_spec(project: Path, tmp_path: Path) -> None:
    """6 x (1 + 196) for evidence, 3 for each of five maps and of three draws of random_cells, 2 for image and baseline.

    The fifth is the control gamed, which comes with RIA's evidence. Announced are 6 more for clean features, and one
    for the baseline.
    """
    counted_passes, planned = passes_of_run(
        project,
        tmp_path,
        data={"n": 1},
        methods={"names": ["gpa", "ega", "ria", "dea"], "ria": {"grid": 14}},
        evaluation={"stability": True},
    )
    assert counted_passes == 6 * 197 + 3 * 5 + 3 * 3 + 2 + resisting(5 + 3)
    assert planned == counted_passes + 6 + 1


FOUR = ["gpa", "ega", "ria", "dea"]


def test_the_metrics_that_resist_gaming_cost_at_most_a_quarter_more() -> None:
    """Of the seven methods of the default settings and gamed, with stability: they are ten maps."""
    methods = [resolve_method(name, {}) for name in DEFAULT_METHODS]
    bare = EvaluationSettings(fidelity=0, whole=False)
    before = passes_per_sample([one for one in methods if one.name != "gamed"], bare, stability=True) - 9  # odd_fair
    now = passes_per_sample(methods, EvaluationSettings(), stability=True)
    assert (before, now) == (1218, 1218 + 3 + resisting(10))
    assert now <= 1.25 * before


def resisting(maps: int) -> int:
    """A sample's passes of fidelity, of the curves over the whole image, and of odd_fair."""
    return 96 + (2 * 6 + 1) * maps


@pytest.mark.parametrize(
    ("names", "evaluation", "per_sample", "maps", "features"),
    [
        (FOUR, {"stability": True}, 6 * (1 + 16) + 3 * (5 + 3) + 2, 8, 6),
        (FOUR, {"stability": False}, (1 + 16) + 3 * (5 + 3) + 2, 8, 1),
        ([*FOUR, "random", "random_cells", "mask"], {"stability": True}, 6 * (1 + 16) + 3 * (7 + 3) + 2, 10, 6),
        ([*FOUR, "dea@alpha=0.5", "dea@alpha=0.8"], {"stability": True}, 6 * (1 + 16) + 3 * (7 + 3) + 2, 10, 6),
        (["ria"], {"stability": True}, 6 * (1 + 16) + 3 * (2 + 3) + 2, 5, 6),
        (["ega"], {"stability": True}, 6 * 1 + 3 * (1 + 3) + 2, 4, 0),
        (["random"], {"stability": True}, 1 + 3 * (1 + 3) + 2, 4, 0),
        (["random_cells"], {"stability": False}, 1 + 3 * 3 + 2, 3, 0),
        (["ria", "ria@grid=3"], {"stability": False}, (1 + 16 + 9) + 3 * (3 + 3) + 2, 6, 2),
        (["ria", "dea@grid=3"], {"stability": True}, 6 * (1 + 16 + 9) + 3 * (3 + 3) + 2, 6, 12),
        (["ria", "ria@occlusion=zero"], {"stability": False}, (1 + 16 + 16) + 3 * (3 + 3) + 2, 6, 2),
        (["gpa", "gpa@objective=prob"], {"stability": True}, 6 * 2 + 3 * (2 + 3) + 2, 5, 0),
        (["gpa", "ega@layer=backbone.0"], {"stability": False}, 2 + 3 * (2 + 3) + 2, 5, 0),
        (["ega"], {"stability": False, "k": [0.1, 0.2, 0.4]}, 1 + 3 * 3 * (1 + 3) + 2, 4, 0),
        (["ega"], {"stability": False, "occlusion": ["mean", "blur"]}, 2 + 2 * (3 * (1 + 3) + 1), 4, 0),
        (["ega"], {"stability": False, "k": [0.1, 0.2], "occlusion": ["mean", "zero"]}, 2 + 2 * (2 * 3 * 4 + 1), 4, 0),
    ],
)
def test_passes_are_those_announced(
    project: Path,
    tmp_path: Path,
    names: list[str],
    evaluation: dict[str, Any],
    per_sample: int,
    maps: int,
    features: int,
) -> None:
    """Each variant's clean features count once for each intervention evidence."""
    per_sample += resisting(maps)
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
    assert counted_passes == (6 + 1) * (1 + 16) + 2 * (3 * (5 + 3) + 2 + resisting(8))
    assert planned == counted_passes + 6 + 1 + 2


def test_passes_of_a_traced_model_are_those_announced(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sample traces the model and holds the trace against it; the second costs what the plan says."""
    changes = {"methods": {"names": FOUR, "ria": {"grid": 4}}, "evaluation": {"stability": True}}
    prepared = prepare(make_settings(content(project, data={"n": 2}, **changes)))
    first, second = (prepared.plan.dataset.load(sample_id, 32) for sample_id in prepared.plan.ids)
    measuring.run_sample(prepared, first.id, lambda: first, BatchSize(8))
    images = {"module": 0, "clean": 0, "altered": 0}
    forward, clean, evaluate = type(prepared.model.module).forward, Graph.clean, WindowPlan.evaluate

    def count(name: str, images_of: Callable[..., int], function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            images[name] += images_of(*arguments)
            return function(*arguments)

        return counting

    monkeypatch.setattr(type(prepared.model.module), "forward", count("module", lambda module, x: len(x), forward))
    monkeypatch.setattr(Graph, "clean", count("clean", lambda graph, image: 1, clean))
    monkeypatch.setattr(
        WindowPlan, "evaluate", count("altered", lambda plan, windows, arithmetic: len(windows.data), evaluate)
    )
    result = measuring.run_sample(prepared, second.id, lambda: second, BatchSize(8))
    assert {row["status"] for row in result.records} == {"ok"}
    assert images == {"module": 6 + 1, "clean": 6, "altered": 6 * 16 + 3 * (5 + 3) + 2 + resisting(8)}
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
    assert counted_passes == len(ids) * (1 + 1 + 3 * (1 + 3) + 2 + resisting(4))
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
    assert counted_passes == 2 * (1 + 3 * (1 + 3) + 2 + resisting(4))
    assert planned == counted_passes + 2


def test_passes_on_scenes_are_at_most_those_announced(tmp_path: Path) -> None:
    """One for each of the five maps of each sample at most, the truth's among them, and none where evidence lies
    inside the target."""
    prepared = prepared_scenes()
    images = [0]
    prepared.model.module.register_forward_pre_hook(
        lambda module, inputs: images.__setitem__(0, images[0] + len(inputs[0]))
    )
    runner.run(prepared, tmp_path / "run")
    records = load_run(tmp_path / "run").records
    assert set(records["status"]) == {"ok"}
    assert set(records["kind"]) == {"plain", "marker", "context", "conjunction", "redundancy"}
    bare = 8 * (1 + 3 * (1 + 3 + 1) + 2 + resisting(5))
    assert prepared.plan.passes == bare + 8 * (5 + 1)
    assert bare < images[0] <= prepared.plan.passes


def test_every_image_more_is_counted() -> None:
    methods = [resolve_method(one, {}) for one in ("mask", "random_cells")]

    def passes(**changes: object) -> int:
        return passes_per_sample(methods, EvaluationSettings(**changes), stability=False)  # type: ignore[arg-type]

    plain_passes = 1 + 1 + 2 + 4 * 4  # s, the image, the baseline by graph and model, four for each of 1 + 3 maps
    assert passes() == plain_passes + 96 + 4 * 12
    bare: dict[str, object] = {"fidelity": 0, "whole": False}
    assert passes(**bare) == plain_passes
    assert passes(**bare, own_null=True) == plain_passes + 4 * 16
    assert passes(**bare, leakage="detailed") == plain_passes + 4 * 3
    several = {"k": [0.2, 0.5, 1.0], "occlusion": ["zero", "mean"]} | bare
    assert passes(**several) == 1 + 1 + 2 * 2 + 4 * 3 * 4 + 3 * 2 + 4, "at k = 1 all maps delete the same"
    assert passes(**several, curves="each") == 1 + 1 + 2 * 2 + 4 * 3 * 3 + 3 + 4


def test_a_run_records_the_normalisation_in_use() -> None:
    """Settings that leave mean and std to the model and settings that give the same values are one run."""
    model: Any = SimpleNamespace(input_channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    left, given = (
        settings_in_use(
            cast(Plan, SimpleNamespace(settings=make_settings({"model": {"name": "smp:Unet"} | more}))), model
        )
        for more in ({}, {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    )
    assert left["model"]["mean"] == [0.1, 0.2, 0.3]
    assert left == given
