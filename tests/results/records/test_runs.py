"""Which runs a report is made of: read once, counted once, and named where they are absent."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from made_runs import edit_description, edit_rows, make_run, repeat_targets
from segfaith.benchmark.status import absent_runs, read_states
from segfaith.errors import SettingsError
from segfaith.results.records.runs import find_runs, load_run, load_runs
from segfaith.results.records.seals import DamagedFileError, read_json, sealed_table

QUICK = {"samples": tuple(f"i{number}" for number in range(8)), "maps": 0, "randomisation": False}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two finished runs, one that has begun without a shard, one that failed, one that never began."""
    for seed in (0, 1):
        make_run(tmp_path / f"net-seed{seed}", seed=seed, **QUICK)
    begun = tmp_path / "net-seed2"
    begun.mkdir()
    shutil.copy(tmp_path / "net-seed0" / "run.json", begun)
    edit_description(begun, lambda about: about["settings"].update(seed=2))
    (tmp_path / "net-seed3").mkdir()
    (tmp_path / "net-seed3" / "failure.json").write_text(json.dumps({"reason": "no <weights> file net.pth"}))
    planned = {f"net-seed{seed}": {"samples": 8} for seed in range(5)}
    (tmp_path / "suite.json").write_text(json.dumps({"runs": planned}))
    return tmp_path


def test_runs_without_records_are_no_part_of_a_suites_report_but_are_named(suite: Path) -> None:
    assert [path.name for path in find_runs([suite])] == ["net-seed0", "net-seed1"]
    assert absent_runs(suite) == [
        "net-seed2 is planned, but not here: stopped",
        "net-seed3 is planned, but not here: no <weights> file net.pth",
        "net-seed4 is planned, but not here: not started",
    ]
    assert absent_runs(suite / "net-seed0") == []


def test_a_suite_in_which_nothing_has_records_says_so(suite: Path) -> None:
    for shard in suite.glob("*/records/*"):
        shard.unlink()
    with pytest.raises(SettingsError, match=r"no run in .* has records yet; go on with: segfaith suite NAME -o"):
        find_runs([suite])


def test_a_broken_file_is_the_failure_of_its_run_alone(suite: Path) -> None:
    (suite / "net-seed1" / "run.json").write_text("{")
    states = {one.name: one for one in read_states(suite)}
    assert states["net-seed0"].state == "finished"
    assert states["net-seed1"].state == "failed"
    assert "run.json cannot be read" in states["net-seed1"].reason


def test_a_path_named_twice_counts_once(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite)
    twice = [Path("net-seed0"), suite / "net-seed0", suite / "net-seed1" / ".." / "net-seed0"]
    assert len(find_runs(twice)) == 1
    assert len(load_runs([*twice, suite / "net-seed1"])) == 2


def test_copies_of_a_run_are_refused(suite: Path) -> None:
    make_run(suite / "copy", seed=0, **QUICK)
    with pytest.raises(SettingsError, match=r"copy and .*net-seed0 hold the same run; name one of them"):
        load_runs([suite])


def test_versions_of_results_are_not_averaged(suite: Path) -> None:
    """Runs that do not say theirs, as here, mix with any."""
    edit_description(suite / "net-seed0", lambda about: about.update(identity={"results_version": 3}))
    assert len(load_runs([suite])) == 2
    edit_description(suite / "net-seed1", lambda about: about.update(identity={"results_version": 4}))
    with pytest.raises(SettingsError, match=r"'voc2012 val' to share one version .*seed0 has 3 and .*seed1 4"):
        load_runs([suite])


def test_a_run_is_its_description_and_its_tables(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", samples=("a", "b", "c", "d"), maps=0, skipped=1, failed=1))
    assert (run.label, run.data) == ("run", "voc2012 val")
    assert set(run.records["status"]) == {"ok", "skipped", "failed"}
    assert set(run.measured["status"]) == {"ok"}
    assert len(run.measured) == (run.records["status"] == "ok").sum() < len(run.records)
    assert len(run.curves)
    assert len(run.randomisation)
    bare = load_run(make_run(tmp_path / "bare", samples=("a",), maps=0, curves=False, randomisation=False, skipped=0))
    for table, filled in ((bare.curves, run.curves), (bare.randomisation, run.randomisation)):
        assert len(table) == 0
        assert set(table.columns) == set(filled.columns)


def test_several_targets_of_an_image_are_read_and_must_be_whole(tmp_path: Path) -> None:
    directory = repeat_targets(make_run(tmp_path / "run", **QUICK | {"randomisation": True}))
    run = load_run(directory)
    for table in (run.records, run.curves, run.randomisation):
        assert set(table["target"]) == {"dog", "dog-2"}
    assert run.records.groupby(["sample_id", "method"]).size().eq(2).all()
    edit_rows(directory / "records/00000.parquet", lambda rows: rows[:-1])
    with pytest.raises(DamagedFileError, match=r"1 missing \(i7, dog-2, dea@alpha=0.8\)"):
        load_run(directory)


@pytest.mark.parametrize("file", ["curves/00000.parquet", "randomisation.parquet"])
def test_rows_of_one_target_that_are_there_twice_are_refused(file: str, tmp_path: Path) -> None:
    directory = repeat_targets(make_run(tmp_path / "run", **QUICK | {"randomisation": True}))
    edit_rows(directory / file, lambda rows: [row | {"target": "dog"} for row in rows])
    with pytest.raises(DamagedFileError, match="twice"):
        load_run(directory)


def test_older_records_name_no_target(tmp_path: Path) -> None:
    """Each file without the column reads as with it, empty; so do nulls."""
    directory = make_run(tmp_path / "run", **QUICK | {"randomisation": True})
    null = load_run(directory)
    identity = read_json(directory / "run.json")["identity_sha256"]
    for file in directory.rglob("*.parquet"):
        file.write_bytes(sealed_table(pq.read_table(file).drop_columns(["target"]), identity))
    older = load_run(directory)
    for name in ("records", "curves", "randomisation"):
        table = getattr(older, name)
        assert set(table["target"]) == {""}, name
        assert_frame_equal(table, getattr(null, name), check_like=True)
    states = read_states(directory)
    assert [state.state for state in states] == ["finished"]
