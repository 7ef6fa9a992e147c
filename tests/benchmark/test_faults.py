"""Faults of directories and files: told before any work, or at the next write; what was measured is kept.

Disks are really full where the system can be told so: a limit on the size of files (`RLIMIT_FSIZE`) refuses writes as a
full disk does. Directories that are read-only, and full disks that refuse every byte, are acted: a superuser may write
anywhere.
"""

import builtins
import errno
import io
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import segfaith
from folder_runs import assert_same_records, command, content, make_project, toml, write_settings
from made_runs import make_run
from segfaith import photograph, storage
from segfaith.benchmark import measuring
from segfaith.benchmark import prepared as prepared_module
from segfaith.benchmark.lock import RunIsGoneError
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.suite_runs import run_suite
from segfaith.benchmark.suites import PlannedRun, Suite
from segfaith.data import datasets
from segfaith.errors import StorageError
from segfaith.planted import card
from segfaith.results.records.files import create_file, replace_file, write_rows
from segfaith.results.records.runs import load_run
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.storage import make_ready, remove_leftovers, temporary_name

pytestmark = pytest.mark.usefixtures("as_users")

SHARDS: dict[str, Any] = {
    "methods": {"names": ["random"]},
    "evaluation": {"stability": False, "k": [0.2, 0.4], "fidelity": 0, "whole": False},
    "execution": {"device": "cpu", "shard_size": 2},
}
MADE: dict[str, Any] = {
    "samples": ("a", "b", "c", "d"),
    "methods": ("gpa", "ega"),
    "size": 16,
    "skipped": 0,
    "failed": 0,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, model and settings of a run and of a suite, which no test changes."""
    root = make_project(tmp_path_factory.mktemp("faults"), samples=6)
    write_settings(root, **SHARDS)
    model = content(".")["model"] | {"label": "a"}
    tables = {key: value for key, value in content(".", **SHARDS).items() if key not in ("model", "name")}
    lines = "\n".join(f"{key} = {value!r}" for key, value in model.items())
    (root / "suite.toml").write_text(f'name = "night"\n{toml(tables)}\n[[models]]\n{lines}\n')
    return root


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """A run of three shards with curves, which tests copy."""
    return segfaith.run(make_settings(content(project, **SHARDS)), project / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# Directories that cannot be written


def refuse_writes(monkeypatch: pytest.MonkeyPatch, root: Path, number: int) -> None:
    """Lets every file and folder below `root` be refused with that error, as a full or read-only disk does."""
    real_open, real_mkdir = io.open, os.mkdir

    def refuse(path: Any) -> None:
        if isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(root):
            raise OSError(number, os.strerror(number), str(path))

    def opened(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(file)
        return real_open(file, mode, *more, **options)

    def made(path: Any, *more: Any, **options: Any) -> None:
        refuse(path)
        real_mkdir(path, *more, **options)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", opened)
    monkeypatch.setattr(os, "mkdir", made)


FAULTS: dict[str, tuple[str, int, str]] = {
    "a file": ("file", 0, "; a file stands where a folder is needed: move it away"),
    "below a file": ("file/out", 0, "; a file stands where a folder is needed: move it away"),
    "a long name": ("n" * 300, 0, "File name too long; choose a shorter path"),
    "a long path": ("/".join(["n" * 200] * 25), 0, "File name too long; choose a shorter path"),
    "read-only": ("out", errno.EROFS, "Read-only file system; make it writable, or choose another directory"),
    "no permission": ("out", errno.EACCES, "Permission denied; make it writable, or choose another directory"),
    "full": ("out", errno.ENOSPC, "No space left on device; make room there and give the command again"),
}
"""The output, the error of every write there (0: the directory's own), and the words."""
VERBS: dict[str, list[str]] = {
    "run": ["{project}/settings.toml", "-o", "{out}"],
    "suite": ["{project}/suite.toml", "-o", "{out}"],
    "report": ["{made}", "-o", "{out}"],
    "randomise": ["{out}", "--allow-code", "{project}/tiny.py:build"],
    "train-scenes": ["-o", "{out}"],
    "explain": ["{project}/data/images/s0.png", "--model", "scenes", "-o", "{out}"],
    "judge-metrics": ["-o", "{out}"],
    "download": ["voc2012", "{out}"],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_directory_that_cannot_be_written_is_told_before_any_work(
    verb: str,
    fault: str,
    project: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With exit status 3, and nothing is left behind. A report is printed all the same: it loads no model."""
    place, number, words = FAULTS[fault]
    out = tmp_path / "place" / place
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "file").write_text("mine")
    if verb == "randomise":
        out = shutil.copytree(finished, tmp_path / "place" / "out")
        number = number or errno.EROFS
        words = words if FAULTS[fault][1] else FAULTS["read-only"][2]
    made = make_run(tmp_path / "made", **MADE, maps=0, curves=False) if verb == "report" else None
    before = sorted((tmp_path / "place").rglob("*"))

    def work(*all: Any, **more: Any) -> None:
        raise AssertionError("work before the check")

    for module, name in ((prepared_module, "prepare"), (card, "train"), (photograph, "explain_photo")):
        monkeypatch.setattr(module, name, work)
    monkeypatch.setattr(datasets, "VOCSegmentation", work)
    if number:
        refuse_writes(monkeypatch, tmp_path / "place", number)
    arguments = [part.format(project=project, made=made, out=out) for part in VERBS[verb]]
    assert command(monkeypatch, verb, *arguments) == 3
    said = capsys.readouterr()
    assert f"error: cannot write into {out}: " in said.err
    assert words in said.err
    assert verb != "report" or "TDD and OT abs" in said.out
    assert sorted((tmp_path / "place").rglob("*")) == before
    assert (tmp_path / "place" / "file").read_text() == "mine"


def test_a_directory_is_tried_and_not_made(tmp_path: Path) -> None:
    make_ready(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"cannot write into .*link: .* is no folder"):
        make_ready(tmp_path / "link")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Really refuses to let files grow beyond that size, as a full disk refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("maps", [True, False], ids=["at a map", "at a shard"])
def test_a_disk_that_is_full_in_the_middle_of_a_run_stops_it_and_keeps_what_is_there(
    maps: bool, project: Path, finished: Path, tmp_path: Path
) -> None:
    settings = make_settings(content(project, **SHARDS, output={"maps": maps}))
    directory, soft = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(sample_id: str) -> None:
        if sample_id == "s2":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, soft[1]))

    try:
        with pytest.raises(StorageError, match=r"cannot write into .*: File too large; the system allows no larger"):
            segfaith.run(settings, directory, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert [file.name for file in (directory / "records").iterdir()] == ["00000.parquet"]
    kept = (directory / "records" / "00000.parquet").stat().st_mtime_ns
    assert_same_records(load_run(finished).records, load_run(segfaith.run(settings, directory)).records)
    assert (directory / "records" / "00000.parquet").stat().st_mtime_ns == kept
    assert not list(directory.rglob("*.tmp"))


def test_a_full_disk_stops_a_suite_and_is_no_failure_of_one_run(project: Path, tmp_path: Path) -> None:
    runs = [PlannedRun("a", make_settings(content(project, **SHARDS, seed=seed, name=f"run{seed}"))) for seed in (0, 1)]
    outcomes = run_suite(Suite("night", tuple(runs)), tmp_path / "out")
    with no_file_above(2000), pytest.raises(StorageError, match="File too large"):
        next(outcomes)
    outcomes = run_suite(Suite("night", tuple(runs)), tmp_path / "out")
    assert next(outcomes).state == "finished"


def gone(how: str, directory: Path) -> None:
    if how == "renamed":
        directory.rename(directory.with_name("elsewhere"))
    else:
        shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["removed", "renamed"])
@pytest.mark.parametrize("verb", ["run", "suite"])
def test_a_run_whose_directory_goes_stops_at_the_next_shard(
    verb: str,
    how: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It goes in the second of three shards, whose two samples are the last that are measured."""
    directory, real, measured = tmp_path / "out", measuring.run_sample, list[str]()

    def sample(prepared: Any, sample_id: str, *all: Any) -> Any:
        measured.append(sample_id)
        if sample_id == "s2" and directory.exists():
            gone(how, directory)
        return real(prepared, sample_id, *all)

    monkeypatch.setattr(measuring, "run_sample", sample)
    settings = project / ("settings.toml" if verb == "run" else "suite.toml")
    assert command(monkeypatch, verb, settings, "-o", directory) == 3
    assert "was removed or renamed while this " in capsys.readouterr().err
    assert measured == ["s0", "s1", "s2", "s3"]
    assert not directory.exists()
    if how == "renamed":
        measured.clear()
        assert command(monkeypatch, verb, settings, "-o", directory.with_name("elsewhere")) == 0
        assert measured == ["s2", "s3", "s4", "s5"]


# Damaged files


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["records", "curves"])
def test_an_empty_or_cut_shard_is_words_of_readers_and_measured_again(
    kind: str,
    damage: str,
    project: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, file = load_run(run), run / kind / "00001.parquet"
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    for verb in ("report", "status"):
        assert command(monkeypatch, verb, run) == 2
        said = capsys.readouterr().err
        assert f"{kind}/00001.parquet {'is empty' if damage == 'empty' else ''}" in said
        assert "the command that made the run sets it aside and measures it again" in said
    assert command(monkeypatch, "run", project / "settings.toml", "-o", run) == 0
    assert "it was set aside in" in capsys.readouterr().err
    after = load_run(run)
    assert_same_records(before.records, after.records)
    pd.testing.assert_frame_equal(before.curves, after.curves)


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{}", '{"settings": {}}', "{"])
def test_a_run_json_that_is_none_is_words_of_every_verb(
    text: str, project: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").write_text(text)
    before = sorted(run.rglob("*"))
    for arguments in (["report", run], ["status", run], ["randomise", run]):
        assert command(monkeypatch, *arguments) == 2
        assert re.search(r"error: .*run\.json (is empty|cannot be read|carries no SHA-256)", capsys.readouterr().err)
    assert command(monkeypatch, "run", project / "settings.toml", "-o", run) == 2
    assert "run.json" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


# What killed writers leave


def left(folder: Path, name: str, *, host: str = storage._HERE, process: int = 2**22 + 1, days: float = 0) -> Path:
    """A file in the making, of a process that does not run: Linux has no such number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.{host}-{process}.tmp"
    path.write_bytes(b"half")
    os.utime(path, (path.stat().st_mtime - 86_400 * days,) * 2)
    return path


def test_what_dead_processes_were_making_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    dead = [left(run / folder, "one") for folder in ("", "records", "curves", "maps", "pictures", "figures")]
    dead.append(left(run, "of another machine, two days ago", host="ffff", days=2))
    (run / "maps" / ".s0.npy").mkdir()
    folder = run / "maps" / f".s0.{storage._HERE}-{2**22 + 1}.tmp"
    folder.mkdir()
    (folder / "ega.npy").write_bytes(b"half")
    outside = left(tmp_path / "outside", "one")
    (run / "curves" / outside.name.replace("one", "link")).symlink_to(outside)
    alive = [
        left(run, "of this process", process=os.getpid()),
        left(run, "of another machine", host="ffff"),
        left(run / "data", "in a folder that is no run's"),
    ]
    for name in (".mine.tmp", ".swap.123.tmp", "one.tmp"):
        (run / name).write_text("mine")
        alive.append(run / name)
    remove_leftovers(run)
    assert [path for path in (*dead, folder) if path.exists()] == []
    assert [path for path in (*alive, outside) if not path.exists()] == []
    assert list((run / "curves").iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "suite", "report"])
def test_the_next_command_in_a_directory_removes_what_a_killed_one_left(
    verb: str, project: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "suite" if verb == "suite" else run
    dead = [left(directory, "suite.json"), left(directory / "records", "00000.parquet")]
    if verb == "suite":
        dead.append(left(directory / "folder-a-seed0" / "records", "00000.parquet"))
    arguments = {"run": ["settings.toml", "-o"], "suite": ["suite.toml", "-o"], "report": []}[verb]
    assert command(monkeypatch, verb, *(project / one if "." in one else one for one in arguments), directory) == 0
    assert [path for path in dead if path.exists()] == []


@pytest.mark.parametrize("how", ["shard", "run.json"])
def test_a_file_is_on_the_disk_before_it_counts(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it gets its name, and then its folder."""
    done: list[tuple[str, str]] = []
    real_sync, real_replace, real_link = os.fsync, os.replace, os.link

    def fsync(handle: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{handle}") if sys.platform == "linux" else ""))
        real_sync(handle)

    def named(kind: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def change(old: Any, new: Any) -> None:
            done.append(("name", str(new)))
            kind(old, new)

        return change

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", named(real_replace))
    monkeypatch.setattr(os, "link", named(real_link))
    path = tmp_path / "file"
    if how == "shard":
        write_rows(path, [], RECORD_COLUMNS, "identity")
    else:
        create_file(path, "text")
    temporary = str(temporary_name(path)) if sys.platform == "linux" else ""
    assert done == [("sync", temporary), ("name", str(path)), ("sync", str(tmp_path) if temporary else "")]
    done.clear()
    replace_file(tmp_path / "table.csv", lambda one: one.write_text("derived"))
    assert [kind for kind, _ in done] == ["name"], "what can be made again is not waited for"


def test_a_suite_whose_directory_goes_is_said(project: Path, tmp_path: Path) -> None:
    runs = [PlannedRun("a", make_settings(content(project, **SHARDS, seed=seed, name=f"run{seed}"))) for seed in (0, 1)]

    def go(sample_id: str) -> None:
        if (tmp_path / "out").exists():
            shutil.rmtree(tmp_path / "out")

    outcomes = run_suite(Suite("night", tuple(runs)), tmp_path / "out", on_sample=go)
    first = next(outcomes)
    assert (first.state, "was removed or renamed" in first.reason) == ("failed", True)
    with pytest.raises(RunIsGoneError, match="while this suite worked"):
        next(outcomes)
    assert not (tmp_path / "out").exists()
