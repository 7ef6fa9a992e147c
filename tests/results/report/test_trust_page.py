"""The page on how far to trust the metrics, from hand-made records whose rankings are known."""

from pathlib import Path

import pytest

from planted_runs import FALLING, RISING, planted_run, rows_of
from segfaith.evaluation.metrics import METRICS
from segfaith.results.report.trust_page import trust_page, write_trust
from segfaith.results.statistics import evidence
from segfaith.results.statistics.evidence import JUDGED


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five scenes are enough here, so that tables can be made by hand."""
    monkeypatch.setattr(evidence, "LEAST_SCENES", 5)


def test_the_page_has_its_title_its_scores_and_a_verdict_for_each_metric_and_kind() -> None:
    controls = {"random": 0.05, "random_cells@grid=7": 0.06, "mask": 0.2}
    rows = rows_of(RISING | controls, FALLING | controls, scenes=6)
    rows += rows_of(RISING | controls, scenes=5, kind="context", first=50)
    page = trust_page([planted_run(rows)])
    assert page.startswith("# How far to trust these metrics\n")
    assert "scenes that entered: marker 6, context 5" in page
    assert "| Kind | gpa | ega | ria | dea | random | random_cells@grid=7 | mask |" in page
    assert "| marker | 0.100 / 0.100 / 0.100 | 0.200 / 0.200 / 0.200 |" in page
    for metric in JUDGED:
        lines = [line for line in page.splitlines() if line.startswith(f"| {METRICS[metric].label} | ")]
        assert [line.split(" | ")[1] for line in lines] == ["marker", "context", "all but plain", "all"]
        without = [line.split(" | ")[3] for line in lines]
        assert without[:2] == ["-1.00 [-1.00, -1.00]", "+1.00 [+1.00, +1.00]"], "seven methods less three controls"
        assert [line.split(" | ")[4] for line in lines] == ["6", "5", "11", "11"]
        assert lines[1].endswith("| agrees |")
        assert lines[0].endswith("; without controls: disagrees |"), "the controls alone must not make a metric agree"


def test_the_page_sets_leakage_beside_what_leaks_beyond() -> None:
    rows = rows_of(RISING, scenes=2, kind="context", odd_abs=0.75, odd_beyond_abs=0.125)
    table = trust_page([planted_run(rows)]).split("## What leakage says of a truthful map")[1]
    assert table.splitlines()[-4:] == [
        f"| context | {name} | 0.750 | 0.125 | {1 - ap:.3f} | {0.125 / ap:.3f} | 2 |" for name, ap in RISING.items()
    ]


def test_a_method_that_a_kind_lacks_is_not_available_there() -> None:
    """It failed on all of them, or was not run; the page stands."""
    rows = rows_of(RISING) + rows_of({"gpa": 0.5, "ega": 0.6}, kind="context", first=50)
    page = trust_page([planted_run(rows)])
    (scores,) = [line for line in page.split("## Do the metrics")[0].splitlines() if line.startswith("| context |")]
    assert scores.count("n/a / n/a / n/a") == 2
    assert page.splitlines()[-2:] == [f"| context | {name} | n/a | n/a | n/a | n/a | 0 |" for name in ("ria", "dea")]


def test_the_page_is_the_same_each_time_and_is_written(tmp_path: Path) -> None:
    runs = [planted_run(rows_of(RISING, noise=0.2))]
    path = write_trust(runs, tmp_path / "new")
    assert path == tmp_path / "new" / "trust.md"
    assert path.read_text(encoding="utf-8") == trust_page(runs) == trust_page(runs)
