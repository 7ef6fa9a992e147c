"""What `segfaith report` says of the runs that it is given."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from made_runs import edit_description, make_run
from segfaith.cli import app
from segfaith.results.records.runs import load_runs
from segfaith.results.report.conclusions import write_conclusions
from segfaith.results.statistics.analysis import Options, analyse

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


def test_the_report_names_absent_runs_wherever_it_draws_conclusions(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--html"])
    assert done.exit_code == 0, done.output
    sentence = "net-seed4 is planned, but not here: not started"
    texts = [(suite / name).read_text(encoding="utf-8") for name in ("conclusions.md", "claims.md", "report.html")]
    assert all(sentence in text for text in (done.output, *texts))
    assert "no &lt;weights&gt; file net.pth" in texts[2]
    assert "<weights>" not in texts[2]


def test_a_method_with_several_parameters_can_be_named_to_compare(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, dea@alpha=0.5,beta=0.5,ega"])
    assert "came dea@alpha=0.5,beta=0.5, which no run holds" in " ".join(str(done.exception).split())
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, ega"])
    assert done.exit_code == 0, done.output
    assert "Compared here: gpa, ega." in (suite / "significance.md").read_text()


def test_a_score_that_no_sample_has_is_the_reason_for_every_empty_table(suite: Path) -> None:
    write_conclusions(analyse(load_runs([suite]), Options(min_s=1.1)), suite)
    page = (suite / "conclusions.md").read_text()
    assert "no sample was measured" in page
    assert "older version" not in page
    assert "no run has curves" not in page


def test_the_screen_shows_claims_with_their_difference_and_says_in_the_only_run(tmp_path: Path) -> None:
    ids = tuple(f"i{number:02d}" for number in range(24))
    options = QUICK | {"samples": ids, "methods": ("ega", "dea", "random_cells"), "curves": False}
    make_run(tmp_path / "run", skipped=0, failed=0, **options)  # type: ignore[arg-type]
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "holds voc2012 val: DEA's TDD is above EGA's in the only run (the only run; to ega, pooled drop: +0." in said
    assert "], 24 images; TDD: DEA 0." in said
    assert "every run" not in said
