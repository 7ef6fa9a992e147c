"""What the files of a run directory must be: its run's, whole, with each row once; else they are refused or redone."""

import json
import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import segfaith
from folder_runs import assert_same_records, command, content, make_project, run_records, write_settings
from made_runs import edit_description, edit_rows, make_run
from segfaith.benchmark import runner
from segfaith.benchmark.lock import RunIsBusyError, at_work
from segfaith.benchmark.measuring import serial
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.randomisation import randomise
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.status import forget_failed, read_states, run_state
from segfaith.benchmark.suite_runs import _run_one
from segfaith.benchmark.suites import PlannedRun
from segfaith.errors import SettingsError
from segfaith.results.records.runs import load_run
from segfaith.results.records.schema import CURVE_COLUMNS, RECORD_COLUMNS
from segfaith.results.records.seals import DamagedFileError, owner_of, read_table, sealed_table

pytestmark = pytest.mark.usefixtures("as_users")

SMALL: dict[str, Any] = {"samples": ("a", "b", "c", "d"), "methods": ("gpa", "ega"), "maps": 0}
SHARDS: dict[str, Any] = {
    "methods": {"names": ["random"]},
    "evaluation": {"stability": False, "k": [0.2, 0.4]},
    "execution": {"device": "cpu", "shard_size": 2},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("files"), samples=3)


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """A run of two shards with curves, which tests copy."""
    return segfaith.run(make_settings(content(project, **SHARDS)), project / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# Flipped bits


def flipped(whole: bytes, bit: int) -> bytes:
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", ["records", "curves"])
def test_a_flipped_bit_anywhere_in_a_file_is_found_before_it_is_read(kind: str, tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", **SMALL)
    file = directory / kind / "00000.parquet"
    whole, identity = file.read_bytes(), load_run(directory).description["identity_sha256"]
    for bit in np.linspace(0, 8 * len(whole) - 1, 300, dtype=int):
        file.write_bytes(flipped(whole, int(bit)))
        with pytest.raises(DamagedFileError, match=r"00000\.parquet (is damaged|carries no SHA-256)"):
            read_table(file, identity, {"records": RECORD_COLUMNS, "curves": CURVE_COLUMNS}[kind])
    file.write_bytes(whole[:-9])
    with pytest.raises(DamagedFileError, match=r"00000\.parquet (is damaged|carries no SHA-256)"):
        load_run(directory)


def test_a_flipped_bit_in_run_json_changes_nothing_or_is_found(tmp_path: Path) -> None:
    """Among spaces a flip may change nothing that is read."""
    directory = make_run(tmp_path / "run", **SMALL, curves=False, randomisation=False)
    file = directory / "run.json"
    whole, before = file.read_bytes(), load_run(directory).description
    refused = 0
    for bit in np.linspace(0, 8 * len(whole) - 1, 300, dtype=int):
        file.write_bytes(flipped(whole, int(bit)))
        try:
            assert load_run(directory).description == before
        except DamagedFileError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("place", [("settings", "evaluation", "k"), ("identity_sha256",), ("model", "name")])
def test_an_edited_run_json_is_refused_by_every_reader(place: tuple[str, ...], tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", **SMALL)
    about = json.loads((directory / "run.json").read_text())
    inner = about
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "0.05"
    (directory / "run.json").write_text(json.dumps(about))
    readers: list[Callable[[Path], object]] = [load_run, read_states]
    for reader in readers:
        with pytest.raises(SettingsError, match=r"run\.json is damaged or was edited: its content does not match"):
            reader(directory)


def damage(file: Path) -> None:
    file.write_bytes(flipped(file.read_bytes(), 4001))


@pytest.mark.parametrize("kind", ["records", "curves"])
def test_a_damaged_shard_is_an_error_of_readers_and_set_aside_and_measured_again_by_run(
    kind: str,
    project: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = load_run(run)
    damage(run / kind / "00001.parquet")
    damaged, kept = (run / kind / "00001.parquet").read_bytes(), (run / "records" / "00000.parquet").stat().st_mtime_ns
    for verb in ("report", "status"):
        assert command(monkeypatch, verb, run) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{kind}/00001.parquet is damaged: its content does not match its SHA-256; the command that made" in said
    with pytest.raises(DamagedFileError):
        forget_failed(run)

    assert command(monkeypatch, "run", write_settings(project, **SHARDS), "-o", run) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{kind}/00001.parquet is damaged: its content does not match its SHA-256; it was set aside in" in said
    assert "2 of 3 samples are done" in said
    assert "is finished" not in said
    after = load_run(run)
    assert_same_records(before.records, after.records)
    pd.testing.assert_frame_equal(before.curves, after.curves)
    assert (run / "damaged" / f"{kind}-00001.parquet.1").read_bytes() == damaged
    assert (run / "records" / "00000.parquet").stat().st_mtime_ns == kept
    assert len(pd.read_parquet(run / "records")) == len(after.records), "what was set aside is not among the records"


def test_files_that_are_set_aside_never_take_anothers_place(project: Path, run: Path) -> None:
    for number in (1, 2):
        damage(run / "records" / "00000.parquet")
        with pytest.warns(UserWarning, match=r"records.00000\.parquet is damaged.*its samples are measured again"):
            segfaith.run(make_settings(content(project, **SHARDS)), run)
        assert (run / "damaged" / f"records-00000.parquet.{number}").is_file()
        assert run_state(run).complete


def test_a_suite_says_what_it_measured_again(project: Path, run: Path) -> None:
    damage(run / "records" / "00000.parquet")
    planned = PlannedRun("tiny", make_settings(content(project, **SHARDS)))
    outcome = _run_one(planned, run, lambda *_: None, lambda _: None, serial, retry_failed=False)
    assert outcome.state == "finished"
    assert "00000.parquet is damaged: its content does not match its SHA-256; it was set aside in" in outcome.reason


def test_a_shard_that_is_damaged_while_a_suite_works_fails_its_run_alone(project: Path, run: Path) -> None:
    """As a stale shard of another run that lands there late."""
    (run / "records" / "00001.parquet").unlink()
    planned = PlannedRun("tiny", make_settings(content(project, **SHARDS)))

    def meanwhile(sample_id: str) -> None:
        damage(run / "records" / "00000.parquet")

    outcome = _run_one(planned, run, lambda *_: None, meanwhile, serial, retry_failed=False)
    assert (outcome.state, "00000.parquet is damaged" in outcome.reason) == ("failed", True)


def test_a_damaged_randomisation_check_is_refused_and_set_aside(project: Path, run: Path) -> None:
    prepared = prepare(make_settings(content(project, **SHARDS)))
    damage(randomise(prepared, run, 1))
    with pytest.raises(DamagedFileError, match=r"randomisation\.parquet is damaged"):
        load_run(run)
    with pytest.warns(UserWarning, match=r"randomisation\.parquet is damaged.*; segfaith randomise .*run measures it"):
        segfaith.run(prepared, run)
    assert not len(load_run(run).randomisation)


# Files that somebody else made


def sealed(content: bytes) -> bytes:
    """Any bytes with a seal that holds."""
    whole = content + b"segfaith-sha256:" + b"0" * 64
    return whole[:-64] + sha256(whole).hexdigest().encode()


STRANGE: dict[str, bytes | None] = {
    "run.json: deep lists": b"[" * 100_000,
    "run.json: deep tables": b'{"a":' * 100_000,
    "run.json: a pipe": None,
    "records/00000.parquet: a pipe": None,
    "records/00000.parquet: no Parquet, sealed": sealed(b""),
    "records/00000.parquet: broken Parquet, sealed": sealed(b"PAR1") + b"PAR1",
    "curves/00000.parquet: no Parquet, sealed": sealed(b""),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_file_of_a_run_is_said_by_every_reader(case: str, tmp_path: Path) -> None:
    """None of them waits for a pipe."""
    directory = make_run(tmp_path / "run", **SMALL)
    file = directory / case.partition(":")[0]
    file.unlink()
    content = STRANGE[case]
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    readers: list[Callable[[Path], object]] = [load_run]
    for reader in readers if "run.json" not in case or content else []:
        if reader is load_run or "curves" not in case:
            with pytest.raises(SettingsError):
                reader(directory)
    with pytest.raises(SettingsError):
        read_states(directory)


MISSHAPEN: list[tuple[str, Any, str]] = [
    ("identity_sha256", 3, "identity_sha256 is int; expected str"),
    ("identity", [], "identity is list; expected dict"),
    ("settings", None, "settings.seed is missing"),
    ("settings.execution.shard_size", 0, "shard_size is 0; expected at least 1"),
    ("settings.execution.shard_size", "8", "shard_size is str; expected int"),
    ("settings.evaluation", [], "settings.evaluation.occlusion is missing"),
    ("data.samples", "abcd", "data.samples is str; expected list"),
    ("data.name", None, "data.name is missing"),
    ("model", "net", "model.name is missing"),
    ("model.classes", [1], "a list of text"),
    ("data.classes", "box", "data.classes is str; expected list"),
    ("data.classes", [1], "a list of text"),
    ("methods", {"gpa": {"label": 3}}, "the label of each method to be text or null"),
    ("methods", ["gpa"], "methods is list; expected dict"),
    ("methods", {"gpa": 3}, "each of methods a table"),
]


@pytest.mark.parametrize(("key", "value", "words"), MISSHAPEN)
def test_a_sealed_description_of_another_shape_is_said(key: str, value: Any, words: str, tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", **SMALL, curves=False, randomisation=False)

    def change(about: dict[str, Any]) -> None:
        *places, last = key.split(".")
        for place in places:
            about = about[place]
        about[last] = value

    edit_description(directory, change)
    for reader in (load_run, read_states, forget_failed):
        with pytest.raises(DamagedFileError, match=rf"run\.json is no description of a run: .*{words}"):
            reader(directory)  # type: ignore[operator]


@pytest.mark.parametrize("file", ["records/00000.parquet", "curves/00000.parquet", "randomisation.parquet"])
def test_columns_that_are_missing_or_of_another_type_are_said(file: str, tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", **SMALL)
    place = directory / file
    whole, owner = pq.read_table(place), owner_of(place) or ""
    text = pa.array(["x"] * len(whole))
    for name in ("s", "method"):
        number = whole.column_names.index(name)
        for table, words in (
            (whole.drop_columns([name]), f"has no column {name}; expected one of "),
            (whole.set_column(number, name, pa.array([["x"]] * len(whole))), f"has list<.*> column {name}; expected"),
            (whole.append_column("s", text), "has double and string column s; expected one of double"),
        ):
            place.write_bytes(sealed_table(table, owner))
            with pytest.raises(DamagedFileError, match=words):
                load_run(directory)


# Rows that are missing, twice or of others


def without_last(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows[:-1]


def last_twice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows, rows[-1]]


def last_of_another(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[:-1], rows[-1] | {"sample_id": "s0"}]


def last_by_no_method(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[:-1], rows[-1] | {"method": "gpa"}]


WRONG = [
    ("records", without_last, r"expected 2, each once; 1 missing \(s2, random_cells\)"),
    ("records", last_twice, r"expected 2, each once; 1 twice or of no such sample or method \(s2, random_cells\)"),
    ("records", last_of_another, r"1 missing \(s2, random_cells\), 1 twice or of no such .* \(s0, random_cells\)"),
    ("records", last_by_no_method, r"1 missing \(s2, random_cells\), 1 twice or of no such .* \(s2, gpa\)"),
    ("curves", last_twice, r"1 rows twice"),
    ("curves", last_of_another, r"1 twice or of no such sample or method \(s0, random_cells\)"),
]


@pytest.mark.parametrize(("kind", "change", "words"), WRONG)
def test_rows_are_held_against_the_plan(
    kind: str, change: Callable[..., Any], words: str, project: Path, run: Path
) -> None:
    """As files that are whole and of this run, so that only their rows tell. The second shard holds s2 alone."""
    before = load_run(run).records
    edit_rows(run / kind / "00001.parquet", change)
    for reader in (load_run, run_state) if kind == "records" else (load_run,):
        with pytest.raises(DamagedFileError, match=rf"{kind}.00001\.parquet has .*{words}"):
            reader(run)
    with pytest.warns(UserWarning, match=r"00001\.parquet has "):
        segfaith.run(make_settings(content(project, **SHARDS)), run)
    assert run_state(run).state == "finished"
    assert_same_records(before, load_run(run).records)


def test_a_run_with_a_sample_too_few_is_not_called_finished(
    project: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_rows(run / "records" / "00000.parquet", lambda rows: [row for row in rows if row["sample_id"] != "s0"])
    assert command(monkeypatch, "run", write_settings(project, **SHARDS), "-o", run) == 0
    said = capsys.readouterr().out
    assert "is finished" not in said
    assert "3 of 3 samples measured" in said


def test_what_is_missing_at_the_end_of_a_run_is_to_go(
    project: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where somebody removes a shard while the other one is measured."""
    (run / "records" / "00001.parquet").unlink()

    def removes(*arguments: object) -> None:
        (run / "records" / "00000.parquet").unlink(missing_ok=True)
        run_shards(*arguments)  # type: ignore[arg-type]

    run_shards = runner.run_shards
    monkeypatch.setattr(runner, "run_shards", removes)
    file = write_settings(project, **SHARDS)
    assert command(monkeypatch, "run", file, "-o", run) == 1
    said = capsys.readouterr().out
    assert "2 of 3 samples are still to go: give the same command again." in said
    assert "1 of 3 samples measured" in said
    monkeypatch.setattr(runner, "run_shards", run_shards)
    assert command(monkeypatch, "run", file, "-o", run) == 0
    assert "3 of 3 samples measured" in capsys.readouterr().out
    monkeypatch.setattr(runner, "run_shards", removes)
    (run / "records" / "00001.parquet").unlink()
    planned = PlannedRun("tiny", make_settings(content(project, **SHARDS)))
    outcome = _run_one(planned, run, lambda *_: None, lambda _: None, serial, retry_failed=False)
    assert (outcome.state, outcome.reason) == ("failed", "2 of 3 samples are still to go")


def test_a_sample_in_two_shards_and_a_shard_beyond_the_plan(project: Path, run: Path) -> None:
    for name in ("00001", "00007"):
        shutil.copy(run / "records" / "00000.parquet", run / "records" / f"{name}.parquet")
        with pytest.raises(
            DamagedFileError, match=rf"{name}\.parquet (has other rows|is no shard of its run, which has 2)"
        ):
            load_run(run)
        with pytest.warns(UserWarning, match=rf"{name}\.parquet .*; it was set aside"):
            segfaith.run(make_settings(content(project, **SHARDS)), run)
        assert load_run(run).records["sample_id"].nunique() == 3


def test_curves_that_are_gone_are_missed_and_those_of_an_unfinished_shard_are_not_read(run: Path) -> None:
    (run / "records" / "00001.parquet").unlink()
    assert set(load_run(run).curves["sample_id"]) == {"s0", "s1"}
    (run / "curves" / "00000.parquet").unlink()
    with pytest.raises(DamagedFileError, match=r"curves.00000\.parquet cannot be read \(.*No such file"):
        load_run(run)


def test_rows_of_the_randomisation_check_are_of_the_run_and_once(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", **SMALL)
    file = directory / "randomisation.parquet"
    for change in (last_twice, last_of_another):
        whole = file.read_bytes()
        edit_rows(file, change)
        with pytest.raises(DamagedFileError, match=r"randomisation\.parquet has a row of .*, ega, stage 3, twice or"):
            load_run(directory)
        file.write_bytes(whole)


# A run directory that another run takes


@pytest.fixture
def other(project: Path) -> Prepared:
    """The same run at another k: its rows look like the first one's."""
    changed = SHARDS | {"evaluation": {"stability": False, "k": [0.05, 0.4]}}
    return prepare(make_settings(content(project, **changed)))


def test_the_shard_of_another_run_is_refused_and_measured_again(
    project: Path, run: Path, other: Prepared, tmp_path: Path
) -> None:
    before = load_run(run).records
    theirs = segfaith.run(other, tmp_path / "theirs")
    assert load_run(theirs).records["tdd"].tolist() != before["tdd"].tolist()
    shutil.copy(theirs / "records" / "00000.parquet", run / "records")
    for reader in (load_run, run_state):
        with pytest.raises(DamagedFileError, match=r"00000\.parquet is of another run: it carries the identity "):
            reader(run)
    with pytest.warns(UserWarning, match=r"00000\.parquet is of another run.*its samples are measured again"):
        segfaith.run(make_settings(content(project, **SHARDS)), run)
    assert_same_records(before, load_run(run).records)
    (theirs / "run.json").unlink()
    with pytest.raises(SettingsError, match=r"has records but no run\.json, and they are another run's"):
        segfaith.run(make_settings(content(project, **SHARDS)), theirs)


@pytest.mark.parametrize("again", [True, False], ids=["replaced", "removed"])
def test_an_old_process_writes_nothing_into_a_directory_that_another_run_took(
    project: Path, other: Prepared, tmp_path: Path, again: bool
) -> None:
    """It is taken after the first shard, in the middle of the second; maps and curves stay away as well."""
    directory, changed = tmp_path / "run", SHARDS | {"output": {"maps": True}}

    def take(sample_id: str) -> None:
        if sample_id == "s1":
            assert (directory / "maps" / "s1").is_dir()
            directory.rename(tmp_path / "old")
            if again:
                runner.open_directory(directory, other)

    words = rf"run was {'replaced by another run' if again else 'removed or renamed'} while this run worked"
    with pytest.raises(RunIsBusyError, match=words):
        segfaith.run(make_settings(content(project, **changed)), directory, take)
    assert [path.name for path in directory.rglob("*")] == (["run.json"] if again else [])
    assert directory.exists() == again
    if again:
        with at_work(directory):
            assert read_states(directory)[0].state == "running"


def test_an_old_runs_failure_is_not_written_into_the_directory_of_the_new_one(
    project: Path, other: Prepared, tmp_path: Path
) -> None:
    directory = tmp_path / "run"

    def take(sample_id: str) -> None:
        if sample_id == "s0":
            directory.rename(tmp_path / "old")
            runner.open_directory(directory, other)

    planned = PlannedRun("tiny", make_settings(content(project, **SHARDS)))
    outcome = _run_one(planned, directory, lambda *_: None, take, serial, retry_failed=False)
    assert (outcome.state, "was replaced by another run" in outcome.reason) == ("busy", True)
    assert os.listdir(directory) == ["run.json"]


def test_a_randomisation_check_of_a_run_that_was_replaced_is_not_written(
    project: Path, other: Prepared, run: Path
) -> None:
    with pytest.raises(RunIsBusyError, match=r"was replaced by another run"):
        randomise(other, run, 1)
    assert not (run / "randomisation.parquet").exists()


def test_files_of_an_older_version_are_refused_with_words(run: Path, tmp_path: Path) -> None:
    shard = run / "records" / "00000.parquet"
    rows = pd.read_parquet(shard)
    rows.to_parquet(shard)
    with pytest.raises(
        DamagedFileError, match=r"carries no SHA-256: it was made by an older version of segfaith, or is damaged"
    ):
        load_run(run)
    edit_description(run, lambda about: about.update(created="later"))
    (run / "run.json").write_text(json.dumps({"identity": {}, "identity_sha256": ""}))
    with pytest.raises(DamagedFileError, match=r"run\.json .* older version of segfaith, or is damaged; run it again"):
        load_run(run)


def test_a_moved_run_is_the_same_run(project: Path, run: Path, tmp_path: Path) -> None:
    run.rename(tmp_path / "elsewhere")
    records = run_records(project, tmp_path / "elsewhere", **SHARDS)
    assert not (tmp_path / "elsewhere" / "damaged").exists()
    assert set(records["status"]) == {"ok"}


# What lies in a run's place


@pytest.mark.parametrize("name", ["damaged", "records", "maps"])
def test_a_file_where_a_run_has_a_folder_is_said(name: str, project: Path, run: Path) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).write_text("")
    with pytest.raises(SettingsError, match=rf"{name} is a file where a run has a folder; move it away"):
        segfaith.run(make_settings(content(project, **SHARDS)), run)


def test_a_file_where_a_samples_maps_go_is_said(project: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "s0").write_text("mine")
    with pytest.raises(SettingsError, match=r"s0 is a file where the sample's maps go; move it away"):
        segfaith.run(make_settings(content(project, **SHARDS | {"output": {"maps": True}})), tmp_path)
    assert (tmp_path / "maps" / "s0").read_text() == "mine"


def test_a_report_that_cannot_be_written_is_printed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, place = make_run(tmp_path / "run", **SMALL), tmp_path / "place"
    place.write_text("")
    assert command(monkeypatch, "report", directory, "-o", place) == 3
    said = capsys.readouterr()
    assert re.search(r"error: cannot write into .*place: .*; .* or choose another directory", said.err)
    assert "voc2012 val: TDD and OT abs pooled / mean" in said.out


def test_no_member_of_a_suite_that_is_a_link_is_written_through(
    project: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "tiny").symlink_to(run)
    (run / "records" / "00001.parquet").unlink()
    before = sorted(run.rglob("*"))
    code = ["--allow-code", f"{project}/tiny.py:build"]
    shutil.copytree(run, suite / "other")
    assert command(monkeypatch, "randomise", suite, "-n", "1", *code) == 1
    said = capsys.readouterr().out
    assert "failed: tiny: " in said
    assert "tiny is a symbolic link, and nothing is written through it" in said
    assert f"written: {suite / 'other'}" in said
    planned = PlannedRun("tiny", make_settings(content(project, **SHARDS)))
    outcome = _run_one(planned, suite / "tiny", lambda *_: None, lambda _: None, serial, retry_failed=False)
    assert (outcome.state, "tiny is a symbolic link" in outcome.reason) == ("failed", True)
    assert sorted(run.rglob("*")) == before
