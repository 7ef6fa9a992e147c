"""Which runs a report is made of: found once, counted once, and named where they are absent."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from made_runs import edit_description, make_run
from segfaith.benchmark.status import absent_runs, read_states
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.results.conclusions import write_conclusions
from segfaith.results.curves import areas
from segfaith.results.rankings import by_setting
from segfaith.results.records import create_file, find_runs, load_runs

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


def test_the_report_names_absent_runs_wherever_it_draws_conclusions(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--html"])
    assert done.exit_code == 0, done.output
    sentence = "net-seed4 is planned, but not here: not started"
    texts = [(suite / name).read_text(encoding="utf-8") for name in ("conclusions.md", "claims.md", "report.html")]
    assert all(sentence in text for text in (done.output, *texts))
    assert "no &lt;weights&gt; file net.pth" in texts[2]
    assert "<weights>" not in texts[2]


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


def test_a_method_with_several_parameters_can_be_named_to_compare(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, dea@alpha=0.5,beta=0.5,ega"])
    assert "came dea@alpha=0.5,beta=0.5, which no run holds" in " ".join(str(done.exception).split())
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, ega"])
    assert done.exit_code == 0, done.output
    assert "Compared here: gpa, ega." in (suite / "significance.md").read_text()


def test_a_score_that_no_sample_has_is_the_reason_for_every_empty_table(suite: Path) -> None:
    write_conclusions(load_runs([suite]), suite, min_s=1.1)
    page = (suite / "conclusions.md").read_text()
    assert "no sample was measured" in page
    assert "older version" not in page
    assert "no run has curves" not in page


def test_a_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    assert create_file(file, "first")
    assert not create_file(file, "second")
    assert file.read_text() == "first"
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


def test_absolute_values_of_curves_are_means_over_draws(tmp_path: Path) -> None:
    """A control of three draws whose signed values cancel leaks all the same."""
    make_run(tmp_path / "run", **QUICK, methods=("gpa", "ega", "random_cells"), skipped=0, failed=0)
    (one,) = load_runs([tmp_path / "run"])
    off = one.curves["kind"] == "off_deletion"
    own = off & (one.curves["method"] == "random_cells")
    one.curves.loc[own, "value"] = 0.0
    one.curves.loc[own, "value_abs"] = 0.7
    for over in ("occlusion", "k"):
        table = by_setting([one], "odd_abs", over)
        assert (table.loc[table["method"] == "random_cells", "mean"] - 0.7).abs().max() < 1e-12
        expected = one.curves[off & (one.curves["method"] == "gpa")]
        got = table[(table["method"] == "gpa")].set_index("setting")["mean"]
        chosen = expected[expected["occlusion"] == "zero"] if over == "occlusion" else expected[expected["k"] == 0.4]
        assert got["zero" if over == "occlusion" else "0.4"] == pytest.approx(chosen["value"].abs().mean())
    found = areas([one]).set_index(["method", "kind"])["area"]
    assert found["random_cells", "off_deletion_abs"] == pytest.approx(0.7 * (1 - 0.05 / 2))
    assert found["random_cells", "off_deletion"] == 0
