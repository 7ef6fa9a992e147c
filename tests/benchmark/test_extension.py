"""A run with a larger n extends the run that is there: to the records of a fresh run, whatever interrupts it."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import segfaith
from folder_runs import assert_same_records, command, content, make_project, write_settings
from segfaith.benchmark import extension, measuring, runner
from segfaith.benchmark import lock as lock_module
from segfaith.benchmark import prepared as prepared_module
from segfaith.benchmark.lock import RunIsBusyError, at_work, is_at_work
from segfaith.benchmark.plan import make_plan
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.randomisation import randomise
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.settings import make_settings
from segfaith.data.dataset import Dataset
from segfaith.errors import SettingsError
from segfaith.results.records.files import replace_file
from segfaith.results.records.runs import load_run
from segfaith.results.records.seals import owner_of

pytestmark = pytest.mark.usefixtures("as_users")

STABLE = 2
SEED = 3
"""Of the 3 samples that it draws, 2 keep their rows among 7; the third loses its stability."""
MAPS: dict[str, Any] = {"evaluation": {"stability": False}, "output": {"maps": True}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("extension"), samples=9)


def settings_of(project: Path, n: int | None, **changes: Any) -> Settings:
    """Shards of two samples, stability on two, curves at two k."""
    table: dict[str, Any] = {
        "seed": SEED,
        "data": {"n": n} if n else {},
        "methods": {"names": ["ega", "ria", "random"], "ria": {"grid": 2}},
        "evaluation": {"stability": STABLE, "k": [0.2, 0.5], "fidelity": 32, "whole": False},
        "execution": {"device": "cpu", "shard_size": 2},
    }
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value}
    return make_settings(content(project, **table))


@pytest.fixture(scope="module")
def small(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 samples: a whole shard and half a shard."""
    return segfaith.run(settings_of(project, 3), tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="module")
def fresh(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh run of 7 samples."""
    return segfaith.run(settings_of(project, 7), tmp_path_factory.mktemp("fresh") / "run")


@pytest.fixture
def run(small: Path, tmp_path: Path) -> Path:
    """A copy of the small run."""
    return shutil.copytree(small, tmp_path / "run")


def assert_same_runs(first: Path, second: Path) -> None:
    """Both directories hold the same run: the same rows in the same order and the same files, but for runtimes."""
    left, right = load_run(first), load_run(second)
    assert left.description["identity_sha256"] == right.description["identity_sha256"]
    assert_same_records(left.records, right.records)
    pd.testing.assert_frame_equal(left.curves, right.curves, check_exact=True)
    names = [sorted(str(path.relative_to(place)) for path in place.rglob("*.parquet")) for place in (first, second)]
    assert names[0] == names[1]
    assert not (first / "smaller").exists()


def files_of(directory: Path) -> dict[str, bytes]:
    """The content of each file of a run directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def measured_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that `run_sample` is called with from now on."""
    ids: list[str] = []
    once = measuring.run_sample

    def watched(prepared: Prepared, sample_id: str, *rest: Any) -> Any:
        ids.append(sample_id)
        return once(prepared, sample_id, *rest)

    monkeypatch.setattr(measuring, "run_sample", watched)
    return ids


def not_kept(project: Path) -> list[str]:
    """What a run of 7 must measure after a run of 3: new samples, and samples with stability in only one run."""
    small, large = (make_plan(settings_of(project, n)) for n in (3, 7))
    moved = small.stability_ids ^ large.stability_ids
    return [name for name in large.ids if name not in small.ids or name in moved]


@pytest.mark.parametrize("seed", range(20))
def test_a_smaller_draw_is_part_of_a_larger_draw_and_keeps_its_order(seed: int) -> None:
    ids = [f"s{number:03d}" for number in range(100)]
    dataset = Dataset("made", "val", ids, None, lambda *_: None, lambda _: b"")  # type: ignore[arg-type, return-value]
    few, many = dataset.choose(7, None, seed), dataset.choose(60, None, seed)
    assert [name for name in many if name in few] == few
    assert many[:7] != few, "new ids come between the old ids"


def test_an_extended_run_is_the_fresh_run_row_by_row(
    project: Path, run: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((run / "run.json").read_text())
    ids = measured_ids(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segfaith.run(settings_of(project, 7), run)
    assert ids == not_kept(project)
    assert len(ids) == 5, "some samples stay, and some are measured again for their stability"
    assert_same_runs(run, fresh)
    after = json.loads((run / "run.json").read_text())
    assert [(entry["samples"], entry["created"], entry["machine"]) for entry in after["extended_from"]] == [
        (3, before["created"], before["machine"])
    ]
    assert "extended_from" not in json.loads((fresh / "run.json").read_text())


def test_without_stability_nothing_is_measured_twice(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = segfaith.run(settings_of(project, 3, **MAPS), tmp_path / "run")
    old = load_run(directory).records.set_index(["sample_id", "method"])
    maps = {path: path.stat().st_mtime_ns for path in directory.glob("maps/*/*.npy")}
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, None, **MAPS), directory)
    records = load_run(directory).records
    assert sorted([*ids, *old.index.unique("sample_id")]) == [f"s{number}" for number in range(9)]
    pd.testing.assert_frame_equal(records.set_index(["sample_id", "method"]).loc[old.index], old)
    assert {path: path.stat().st_mtime_ns for path in maps} == maps
    assert len(list(directory.glob("maps/*/ria.npy"))) == 9


@pytest.mark.parametrize("missing", ["folder", "map", "image"])
def test_a_sample_whose_maps_are_missing_is_measured_again(
    project: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = segfaith.run(settings_of(project, 3, **MAPS), tmp_path / "run")
    old = load_run(directory).records["sample_id"].unique().tolist()
    lost = directory / "maps" / old[1]
    if missing == "folder":
        shutil.rmtree(lost)
    else:
        (lost / {"map": "ria.npy", "image": "image.png"}[missing]).unlink()
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, 7, **MAPS), directory)
    assert {*ids} & {*old} == {old[1]}
    files = [
        "ega.npy",
        "gamed.npy",
        "image.png",
        "prediction.png",
        "random.npy",
        "random_cells.npy",
        "ria.npy",
        "target.png",
    ]
    for sample_id in load_run(directory).records["sample_id"].unique():
        assert sorted(path.name for path in (directory / "maps" / sample_id).iterdir()) == files


def test_a_process_that_dies_while_it_writes_maps_leaves_none_or_whole_ones(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger run dies as it writes the maps of a new sample; the next call writes them anew."""
    directory = segfaith.run(settings_of(project, 3, **MAPS), tmp_path / "run")
    old = [path.name for path in directory.glob("maps/*")]
    with monkeypatch.context() as dying:
        write = Path.write_bytes
        dying.setattr(Path, "write_bytes", lambda path, data: dies() if path.suffix == ".png" else write(path, data))
        with pytest.raises(KeyboardInterrupt):
            segfaith.run(settings_of(project, 7, **MAPS), directory)
    assert sorted(path.name for path in directory.glob("maps/[!.]*")) == sorted(old)
    assert list(directory.glob("maps/.*.tmp/*.npy")), "it died between a sample's maps and pictures"
    segfaith.run(settings_of(project, 7, **MAPS), directory)
    assert len(list(directory.glob("maps/*/target.png"))) == len(list((directory / "maps").iterdir())) == 7


@pytest.mark.parametrize("step", ["take_place", "take_over", "second shard", "last shard"])
def test_a_process_that_dies_on_the_way_loses_nothing(
    project: Path, run: Path, fresh: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call dies at that step; the next call goes on and measures only what nobody has measured."""
    ids = measured_ids(monkeypatch)
    with monkeypatch.context() as dying:
        if step == "take_place":
            replace = extension.replace_file
            dying.setattr(
                extension,
                "replace_file",
                lambda path, *rest, **more: dies() if path.parent == run else replace(path, *rest, **more),
            )
        elif step == "take_over":
            move = extension.move_file
            moved: list[Path] = []

            def once(source: Path, target: Path) -> None:
                if source.parent.name in ("records", "curves") and target.parent.parent.parent.name == "smaller":
                    moved.append(source)
                    if len(moved) > 1:
                        dies()
                move(source, target)

            dying.setattr(extension, "move_file", once)
        else:
            write, number = runner.write_rows, 1 if step == "second shard" else 3

            def crash(path: Path, *rest: Any) -> None:
                if path == run / "records" / f"{number:05d}.parquet":
                    dies()
                write(path, *rest)

            dying.setattr(runner, "write_rows", crash)
        with pytest.raises(KeyboardInterrupt):
            segfaith.run(settings_of(project, 7), run)
    shards = make_plan(settings_of(project, 7)).shards
    lost = {"second shard": shards[1], "last shard": shards[3]}.get(step, [])
    segfaith.run(settings_of(project, 7), run)
    assert sorted(ids) == sorted([*not_kept(project), *(name for name in lost if name in not_kept(project))])
    assert_same_runs(run, fresh)


def dies() -> None:
    raise KeyboardInterrupt


def test_the_smaller_command_still_resumes_before_the_larger_run_took_its_place(
    project: Path, run: Path, small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        replace = extension.replace_file
        dying.setattr(
            extension,
            "replace_file",
            lambda path, *rest, **more: dies() if path.parent == run else replace(path, *rest, **more),
        )
        with pytest.raises(KeyboardInterrupt):
            segfaith.run(settings_of(project, 7), run)
    assert (run / "smaller").is_dir()
    (run / "records" / "00001.parquet").unlink()
    segfaith.run(settings_of(project, 3), run)
    assert_same_runs(run, small)
    segfaith.run(settings_of(project, 7), run)
    assert_same_runs(run, fresh)


def test_a_stopped_extension_can_be_extended_once_more(
    project: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 3 to 5 samples, stopped after its first shard, to 9: the rows of both smaller runs are taken."""
    prepared = prepare(settings_of(project, 5, evaluation={"stability": STABLE}))
    todo = runner.open_directory(run, prepared)
    runner.run_shards(prepared, run, todo[:1], lambda sample_id: None)
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, 9), run)
    assert len(ids) < 9
    monkeypatch.undo()
    assert_same_runs(run, segfaith.run(settings_of(project, 9), tmp_path / "nine"))
    assert [entry["samples"] for entry in json.loads((run / "run.json").read_text())["extended_from"]] == [3, 5]


def test_an_unfinished_run_is_extended_too(project: Path, run: Path, fresh: Path) -> None:
    (run / "records" / "00000.parquet").unlink()
    segfaith.run(settings_of(project, 7), run)
    assert_same_runs(run, fresh)


def test_a_damaged_shard_of_the_smaller_run_is_set_aside_and_measured_again(
    project: Path, run: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = run / "records" / "00000.parquet"
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    ids = measured_ids(monkeypatch)
    with pytest.warns(UserWarning, match="set aside"):
        segfaith.run(settings_of(project, 7), run)
    assert len(ids) > len(not_kept(project))
    assert_same_runs(run, fresh)


def test_a_shard_of_a_stranger_is_not_taken(project: Path, run: Path, fresh: Path, tmp_path: Path) -> None:
    other = segfaith.run(settings_of(project, 3, evaluation={"strength": 0.1}), tmp_path / "other")
    shutil.copy(other / "records" / "00000.parquet", run / "records" / "00000.parquet")
    with pytest.warns(UserWarning, match="is of another run"):
        segfaith.run(settings_of(project, 7), run)
    assert_same_runs(run, fresh)


def test_a_strangers_run_in_the_folder_of_smaller_runs_is_not_taken(
    project: Path, run: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = segfaith.run(settings_of(project, 5, evaluation={"strength": 0.1}), tmp_path / "other")
    name = json.loads((other / "run.json").read_text())["identity_sha256"]
    shutil.copytree(other, run / "smaller" / name)
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, 7), run)
    assert ids == not_kept(project)
    assert_same_runs(run, fresh)


def test_changed_data_are_refused_though_n_is_larger(small: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", samples=9)
    run = shutil.copytree(small, tmp_path / "run")
    name = json.loads((run / "run.json").read_text())["data"]["samples"][0]
    file = project / "data" / "masks" / f"{name}.png"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SettingsError, match="holds a run with other settings"):
        segfaith.run(settings_of(project, 7), run)


def test_fewer_samples_are_refused_with_how_many_there_are(project: Path, fresh: Path) -> None:
    before = {path: path.read_bytes() for path in fresh.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=r"with more samples, 7, than the 3 that are asked for.*give -n 7"):
        segfaith.run(settings_of(project, 3), fresh)
    assert {path: path.read_bytes() for path in fresh.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("first", [9, None], ids=["of all samples, then none", "none, then of all samples"])
def test_the_same_samples_under_another_n_are_the_same_run(
    project: Path, tmp_path: Path, first: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run stays as it is, byte for byte; an unfinished run goes on under the `n` that it began with."""
    second, told = None if first else 9, list[str]()
    directory = segfaith.run(settings_of(project, first), tmp_path / "run")
    before = files_of(directory)
    ids = measured_ids(monkeypatch)
    for n in (second, first, second):
        prepared = prepare(settings_of(project, n))
        assert runner.open_directory(directory, prepared, on_extension=told.append) == []
        assert segfaith.run(prepared, directory) == directory
    assert (told, ids) == ([], [])
    assert files_of(directory) == before
    records = load_run(directory).records
    (directory / "records" / "00001.parquet").unlink()
    segfaith.run(settings_of(project, second), directory)
    assert len(ids) == 2
    assert_same_records(load_run(directory).records, records)
    assert (directory / "run.json").read_bytes() == before["run.json"]


def test_a_run_without_n_extends_to_more_samples_and_takes_their_rows_under_another_n(
    project: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 3 samples to all, stopped after the first shard, then the same samples with their number as `n`."""
    prepared = prepare(settings_of(project, None))
    runner.run_shards(prepared, run, runner.open_directory(run, prepared)[:1], lambda sample_id: None)
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, 9), run)
    assert 0 < len(ids) < 7, "seven samples were to do, and the smaller run has rows of some"
    assert [entry["samples"] for entry in json.loads((run / "run.json").read_text())["extended_from"]] == [3]
    assert not (run / "smaller").exists()


def test_failed_samples_are_measured_again(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"evaluation": {"stability": False}}

    def fails(*_: Any) -> Any:
        raise OSError("a full disk")

    with monkeypatch.context() as bad:
        bad.setattr(measuring, "all_targets", fails)
        segfaith.run(settings_of(project, 3, **plain), tmp_path / "run")
    assert (load_run(tmp_path / "run").records["status"] == "failed").all()
    ids = measured_ids(monkeypatch)
    segfaith.run(settings_of(project, 7, **plain), tmp_path / "run")
    assert len(ids) == 7
    assert (load_run(tmp_path / "run").records["status"] == "ok").all()


def test_the_randomisation_check_stays(project: Path, run: Path) -> None:
    prepared = prepare(settings_of(project, 3))
    randomise(prepared, run, 1)
    before = load_run(run).randomisation
    assert len(before)
    segfaith.run(settings_of(project, 7), run)
    pd.testing.assert_frame_equal(load_run(run).randomisation, before)
    assert owner_of(run / "randomisation.parquet") == json.loads((run / "run.json").read_text())["identity_sha256"]


def test_a_process_at_work_on_the_smaller_run_is_not_disturbed(project: Path, run: Path) -> None:
    with at_work(run), pytest.raises(RunIsBusyError):
        segfaith.run(settings_of(project, 7), run)
    assert not (run / "smaller").exists()


def test_a_smaller_command_that_digests_the_data_meanwhile_moves_nothing_of_the_larger_run(
    project: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = prepared_module.describe

    def slow(*arguments: Any) -> dict[str, Any]:
        description = describe(*arguments)
        monkeypatch.setattr(prepared_module, "describe", describe)
        segfaith.run(settings_of(project, 7), run)
        larger.update(files_of(run))
        return description

    larger: dict[str, bytes] = {}
    smaller = prepare(settings_of(project, 3))
    monkeypatch.setattr(prepared_module, "describe", slow)
    with pytest.raises(SettingsError, match="with more samples, 7, than the 3"):
        runner.open_directory(run, smaller)
    assert larger
    assert files_of(run) == larger


@pytest.mark.parametrize("step", ["take_over", "set_damaged_aside"])
def test_a_smaller_command_moves_nothing_after_the_larger_run_took_its_place(
    project: Path, run: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger run takes the directory after the smaller command has read `run.json`, before it moves files."""
    once = getattr(runner, step)

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(runner, step, once)
        segfaith.run(settings_of(project, 7), run)
        if step == "take_over":  # as where a process died in `extend`, and its smaller run went on
            shutil.copytree(run, run / "smaller" / json.loads((run / "run.json").read_text())["identity_sha256"])
        larger.update(files_of(run))
        return once(*arguments)

    larger: dict[str, bytes] = {}
    monkeypatch.setattr(runner, step, late)
    with pytest.raises(RunIsBusyError, match="was replaced by another run"):
        segfaith.run(settings_of(project, 3), run)
    assert larger
    assert files_of(run) == larger


@pytest.mark.parametrize("left", ["a shard", "nothing"])
def test_a_stale_smaller_process_forgets_no_rows_that_the_larger_run_still_needs(
    project: Path, run: Path, fresh: Path, left: str
) -> None:
    """The larger run takes the directory, writes as many shards as the smaller run has, and stops."""
    if left == "a shard":
        (run / "records" / "00000.parquet").unlink()
    smaller, larger = (prepare(settings_of(project, n)) for n in (3, 7))
    todo = runner.open_directory(run, smaller)
    assert todo == ([0] if left == "a shard" else [])
    runner.run_shards(larger, run, runner.open_directory(run, larger)[:2], lambda sample_id: None)
    before = files_of(run)
    assert any(name.startswith("smaller") for name in before)
    with pytest.raises(RunIsBusyError, match="was replaced by another run"):
        runner.run_shards(smaller, run, todo, lambda sample_id: None)
    assert files_of(run) == before
    segfaith.run(settings_of(project, 7), run)
    assert_same_runs(run, fresh)


def test_a_finished_smaller_command_forgets_no_rows_of_a_run_that_takes_its_place_meanwhile(
    project: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger run takes the directory when the smaller command has listed its shards and finds none to do."""
    listed, larger = runner._to_do, prepare(settings_of(project, 7))

    def late(*arguments: Any) -> list[int]:
        todo = listed(*arguments)
        monkeypatch.setattr(runner, "_to_do", listed)
        runner.open_directory(run, larger)
        return todo

    monkeypatch.setattr(runner, "_to_do", late)
    with pytest.raises(RunIsBusyError, match="was replaced by another run"):
        runner.open_directory(run, prepare(settings_of(project, 3)))
    assert len(list((run / "smaller").rglob("*.parquet"))) == 4


def test_the_lock_is_on_the_file_that_lies_in_place(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process puts a new `run.json` in place while this process waits for the old file, or just locked it."""
    lock, attempts = lock_module._lock, []

    def meanwhile(file: int, *, exclusive: bool) -> bool | None:
        attempts.append(file)
        if len(attempts) == 1:
            replace_file(run / "run.json", lambda temporary: shutil.copyfile(run / "run.json", temporary))
        return lock(file, exclusive=exclusive)

    monkeypatch.setattr(lock_module, "_lock", meanwhile)
    with at_work(run):
        monkeypatch.undo()
        assert len(attempts) == 2
        assert is_at_work(run) is True
    assert is_at_work(run) is False


def test_a_link_in_place_of_the_folder_of_smaller_runs_is_refused(project: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / "smaller").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="symbolic link"):
        segfaith.run(settings_of(project, 7), run)


def test_the_command_says_that_it_extends(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(
        project,
        methods={"names": ["random"]},
        evaluation={"stability": 1},
        execution={"device": "cpu", "shard_size": 2},
    )
    arguments = ("run", settings, "-o", tmp_path / "run")
    assert command(monkeypatch, *arguments, "-n", "3") == 0
    capsys.readouterr()
    assert command(monkeypatch, *arguments, "-n", "7") == 0
    heard = capsys.readouterr()
    assert f"extends {tmp_path / 'run'} from 3 to 7 samples" in heard.err
    assert "7 of 7 samples measured" in heard.out
    assert command(monkeypatch, *arguments, "-n", "3") == 2
    assert "samples can be added to a run, not taken away" in capsys.readouterr().err
