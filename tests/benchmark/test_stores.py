"""Run directories in an object store: the records of a local run, whatever the store does meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

import segfaith
from folder_runs import assert_same_records, command, content, make_project, write_settings
from segfaith.benchmark import remote_lock, suite_runs
from segfaith.benchmark.lock import RunIsBusyError, at_work, is_at_work
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.suites import PlannedRun, Suite
from segfaith.errors import SettingsError, StorageError
from segfaith.paths import is_remote, place
from segfaith.results.records.files import create_file, move_file, remove_folder, replace_file
from segfaith.results.records.runs import load_run, load_runs
from stores import BUCKET, Weather, store

pytestmark = pytest.mark.usefixtures("as_users")

CHANGES: dict[str, Any] = {
    "output": {"maps": True},
    "methods": {"names": ["gpa", "mask"]},
    "evaluation": {"stability": False, "fidelity": 32, "whole": False},
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of four samples and a run of them in a local folder."""
    root = make_project(tmp_path_factory.mktemp("project"), samples=4)
    segfaith.run(make_settings(content(root, execution={"device": "cpu", "shard_size": 2}, **CHANGES)), root / "run")
    return root


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Iterator[Weather]:
    """A store in good weather, and locks that die soon."""
    monkeypatch.setattr(remote_lock, "RENEWED", 0.2)
    monkeypatch.setattr(remote_lock, "DEAD", 1.0)
    with store() as found:
        yield found


def settings_of(root: Path, **changes: Any) -> Any:
    """Those of the local run."""
    return make_settings(content(root, execution={"device": "cpu", "shard_size": 2}, **(CHANGES | changes)))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run's maps, by their place."""
    return {
        "/".join(file.parts[-2:]): file.read_bytes() for file in folder.rglob("*") if file.suffix in (".npy", ".png")
    }


def test_a_run_in_a_store_has_the_records_and_maps_of_a_local_run(local: Path, weather: Weather) -> None:
    directory = segfaith.run(settings_of(local), f"s3://{BUCKET}/runs/small")
    assert is_remote(directory)
    here, there = load_run(local / "run"), load_run(directory)
    assert_same_records(here.records, there.records)
    assert contents(directory / "maps") == contents(local / "run/maps")
    left = {file.name for file in directory.iterdir()}
    assert left == {"run.json", "records", "maps"}, "no lock and nothing temporary is left"


def test_every_verb_takes_an_address(
    local: Path, weather: Weather, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run in two steps, its state, its report, the check with random weights."""
    settings, address = write_settings(local, **CHANGES), f"s3://{BUCKET}/verbs/small"
    assert command(monkeypatch, "run", settings, "-o", address, "-n", "2") == 0
    assert command(monkeypatch, "run", settings, "-o", address, "-n", "4") == 0
    assert f"extends {address} from 2 to 4 samples" in capsys.readouterr().err
    assert command(monkeypatch, "run", settings, "-o", address, "-n", "4") == 0
    assert "is finished: all 4 samples" in capsys.readouterr().out
    assert command(monkeypatch, "status", f"s3://{BUCKET}/verbs") == 0
    assert "finished      4/4" in " ".join(capsys.readouterr().out.split("small", 1)[1].splitlines()[:1])
    assert command(monkeypatch, "randomise", address, "-n", "1", "--allow-code", f"{local}/tiny.py:build") == 0
    assert command(monkeypatch, "report", address, "--html", "--figures") == 0
    directory = place(address)
    assert {"report.html", "table.csv", "figures", "pictures", "randomisation.parquet"} <= {
        file.name for file in directory.iterdir()
    }
    page = (directory / "report.html").read_text()
    assert "</html>" in page
    assert page.count("data:image/") > 4, "the gallery has the maps"
    assert_same_records(load_run(local / "run").records, load_run(directory).records)


def test_a_suite_lies_in_a_store(local: Path, weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    file = local / "suite.toml"
    file.write_text(
        write_settings(local, **CHANGES).read_text().replace('name = "small"', 'name = "two"\nseeds = [0, 1]')
    )
    assert command(monkeypatch, "suite", file, "-o", f"s3://{BUCKET}/suite", "-n", "2") == 0
    assert len(load_runs([place(f"s3://{BUCKET}/suite")])) == 2


@pytest.mark.parametrize("trouble", ["throttle", "fail", "hang"])
def test_passing_trouble_costs_nothing(local: Path, weather: Weather, trouble: str) -> None:
    """The store refuses or holds back a put, which is tried again."""
    weather.seconds = 4.0  # longer than the client waits
    prepared = prepare(settings_of(local))
    directory = place(f"s3://{BUCKET}/runs/{trouble}")
    todo = open_directory(directory, prepared)
    setattr(weather, trouble, 1)
    run_shards(prepared, directory, todo, lambda sample_id: None)
    assert getattr(weather, trouble) == 0, "it did happen"
    assert_same_records(load_run(local / "run").records, load_run(directory).records)


def test_a_store_that_fails_for_good_stops_the_run_which_resumes(local: Path, weather: Weather) -> None:
    prepared = prepare(settings_of(local))
    directory = place(f"s3://{BUCKET}/runs/down")
    todo = open_directory(directory, prepared)
    told: list[str] = []

    def one(sample_id: str) -> None:
        told.append(sample_id)
        weather.down = len(told) == 3

    with pytest.raises(StorageError, match=r"s3://bucket/runs/down"):
        run_shards(prepared, directory, todo, one)
    weather.down = False
    assert len(load_run(directory).records["sample_id"].unique()) == 2, "the first shard is whole"
    segfaith.run(settings_of(local), directory)
    assert_same_records(load_run(local / "run").records, load_run(directory).records)


def test_a_store_that_cannot_be_reached_is_told_before_any_work(
    local: Path, weather: Weather, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weather.down = True
    address = f"s3://{BUCKET}/runs/never"
    assert command(monkeypatch, "run", write_settings(local, **CHANGES), "-o", address) == 3
    told = capsys.readouterr().err
    assert f"{address}" in told
    assert "check the address, the network and your rights there" in told
    assert "Traceback" not in told
    weather.down = False
    assert command(monkeypatch, "run", write_settings(local), "-o", "s3://nobucket/run") == 3
    assert command(monkeypatch, "report", f"s3://{BUCKET}/nothing") == 2


def test_a_killed_run_is_taken_over(local: Path, weather: Weather, tmp_path: Path) -> None:
    """A process with the lock is killed; the next one waits until its lock is dead, and goes on."""
    script = f"""
import os, signal, sys
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings
from segfaith.paths import place
from test_stores import settings_of
from pathlib import Path
prepared = prepare(settings_of(Path({str(local)!r})))
directory, done = place("s3://{BUCKET}/runs/killed"), []
def dies(sample_id):
    done.append(sample_id)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
run_shards(prepared, directory, open_directory(directory, prepared), dies)
"""
    here = Path(__file__)
    path = f"{here.parent}:{here.parents[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path, prepend=":")
        dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert dead.returncode == -9, dead.stderr
    directory = place(f"s3://{BUCKET}/runs/killed")
    assert (directory / "lock.json").is_file()
    assert is_at_work(directory) in (True, None)
    segfaith.run(settings_of(local), directory)
    assert not (directory / "lock.json").is_file()
    assert_same_records(load_run(local / "run").records, load_run(directory).records)


def test_a_living_process_keeps_the_run_to_itself(weather: Weather) -> None:
    directory = place(f"s3://{BUCKET}/runs/busy")
    assert is_at_work(directory) is False
    with at_work(directory):
        assert is_at_work(directory)
        with pytest.raises(RunIsBusyError, match="another process works on"), at_work(directory):
            pytest.fail("two processes at work")
        owner = json.loads((directory / "lock.json").read_text())
        assert owner["beat"] > 0, "the lock is renewed"
    assert is_at_work(directory) is False
    with at_work(directory):
        pass


def test_a_run_that_was_taken_over_puts_nothing_more(local: Path, weather: Weather) -> None:
    """As where two processes took a dead lock over at one moment, or the owner came back after a long silence."""
    prepared = prepare(settings_of(local))
    directory = place(f"s3://{BUCKET}/runs/lost")
    todo, told = open_directory(directory, prepared), list[str]()

    def other(sample_id: str) -> None:
        told.append(sample_id)
        (directory / "lock.json").write_bytes(remote_lock._content("another", 0).encode())

    with pytest.raises(RunIsBusyError, match=r"another process has taken s3://bucket/runs/lost over"):
        run_shards(prepared, directory, todo, other)
    assert len(told) == 1, "it stopped before it put anything of the second sample"
    assert {file.name for file in (directory / "maps").iterdir()} == {told[0]}
    assert json.loads((directory / "lock.json").read_text())["owner"] == "another", "the other one keeps its lock"


def test_processes_that_begin_a_suite_in_a_store_at_one_moment_keep_each_others_runs(
    local: Path, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them has read `suite.json` before the other writes it, if nothing holds it back."""
    directory = place(f"s3://{BUCKET}/night")
    real = suite_runs.planned_runs

    def slowly(directory: Path) -> dict[str, Any]:
        found = real(directory)
        time.sleep(0.5)
        return found

    monkeypatch.setattr(suite_runs, "planned_runs", slowly)
    names = {"one", "two", "three"}
    suites = [Suite("night", (PlannedRun(name, settings_of(local, name=name)),)) for name in names]
    with ThreadPoolExecutor(len(suites)) as processes:
        list(processes.map(lambda suite: suite_runs._remember(suite, directory), suites))
    assert set(real(directory)) == names
    assert [file.name for file in directory.iterdir()] == ["suite.json"], "no lock is left"


def test_a_lock_that_is_renewed_while_it_is_read_can_be_read(weather: Weather) -> None:
    """Another process renews it at every request for its size or date, and what is read then is the new one."""
    file = place(f"s3://{BUCKET}/renewed/lock.json")
    file.write_bytes(b"first")
    client = boto3.client("s3")
    weather.after_head = lambda: client.put_object(Bucket=BUCKET, Key="renewed/lock.json", Body=b"other")
    assert file.read_bytes() == b"other"
    assert file.read_text() == "other"
    with pytest.raises(FileNotFoundError):
        file.with_name("missing").read_bytes()


def test_files_appear_whole_and_once(weather: Weather) -> None:
    directory = place(f"s3://{BUCKET}/files")
    assert create_file(directory / "one", "first")
    assert not create_file(directory / "one", "second")
    assert (directory / "one").read_text() == "first"
    replace_file(directory / "one", lambda temporary: temporary.write_text("third"))
    move_file(directory / "one", directory / "deep/er/one")
    assert [file.name for file in directory.rglob("*") if file.is_file()] == ["one"]
    assert (directory / "deep/er/one").read_text() == "third"
    remove_folder(directory / "deep")
    remove_folder(directory / "deep")
    assert not directory.exists()
    with pytest.raises(ZeroDivisionError):
        replace_file(directory / "one", lambda temporary: temporary.write_text(str(1 / 0)))
    assert not (directory / "one").exists()


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert place("runs/voc") == Path("runs/voc")
    assert place(f"file://{tmp_path}") == tmp_path
    assert not is_remote(place(f"file://{tmp_path}"))
    with pytest.raises(SettingsError, match=r"nonsense://"):
        place("nonsense://bucket/run")
    monkeypatch.setitem(sys.modules, "segfaith.stores", None)  # as where upath is not installed
    with pytest.raises(SettingsError, match=r"pip install 'segfaith\[s3\]'"):
        place("s3://bucket/run")
