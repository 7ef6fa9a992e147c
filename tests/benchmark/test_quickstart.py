"""The quickstart as the README shows it: the embedded model, the packaged settings, the expected table."""

import itertools
import re
from math import nan
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from segfaith.benchmark.settings import PACKAGED, find_settings, read_settings
from segfaith.cli import app
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.summary import TABLE_METRICS, summarise

pytestmark = pytest.mark.usefixtures("as_users")

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
METHODS = ["gpa", "ega", "ria", "dea", "mea", "random", "random_cells", "mask", "gamed"]
ROWS = [*METHODS, "truth"]


def table_of(text: str) -> list[list[str]]:
    """The cells of the first Markdown table whose header names a method."""
    body = itertools.takewhile(lambda line: line.startswith("|"), text[text.index("| Method |") :].splitlines())
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body if "---" not in line]


def number(cell: str) -> float:
    """The number of a cell, without the count in brackets that may follow it."""
    return nan if cell == "n/a" else float(re.sub(r" \(\d+\)$", "", cell))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("quick") / "run"
    done = CliRunner().invoke(app, ["run", "quickstart", "-o", str(directory)])
    assert done.exit_code == 0, done.output
    return directory, done.output


def test_the_settings_are_those_of_the_issue() -> None:
    """At least 16 scenes, the planted question, four methods, three controls, stability on four, one process."""
    settings = read_settings(find_settings("quickstart"))
    assert find_settings("quickstart") == PACKAGED / "quickstart.toml"
    assert settings.data.ids is not None
    assert len(settings.data.ids) == len(set(settings.data.ids)) == 16
    assert settings.methods.names == METHODS
    changed = settings.model_dump(exclude_defaults=True)
    assert changed == {
        "name": "quickstart",
        "data": {"name": "scenes", "ids": settings.data.ids},
        "model": {"name": "scenes"},
        "target": {"score": "conditional", "versus": "twin"},
        "methods": {"names": METHODS},
        "evaluation": {"stability": 4, "whole": False},
        "output": {"maps": True},
        "execution": {"executor": "serial"},
    }


def test_every_sample_is_measured(finished: tuple[Path, str]) -> None:
    run = load_run(finished[0])
    records = run.records
    assert list(records["method"]) == ROWS * 16
    assert (records["status"] == "ok").all()
    assert (records["majority_class"] == records["class_index"]).all()
    assert records["stability"].notna().groupby(records["sample_id"]).any().sum() == 4
    twins = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 9: 10}
    assert (records["score"] == [f"conditional against class {twins[label]}" for label in records["class_index"]]).all()
    assert records["tdd"].notna().all(), "a share of a probability can be lost"
    assert set(records["kind"]) == set(run.description["model"]["proven_kinds"].split(","))


def test_the_numbers_are_those_of_the_readme(finished: tuple[Path, str]) -> None:
    """Runtimes aside, within 0.002."""
    summary = summarise([load_run(finished[0])]).set_index(["method", "metric"])
    labels = {metric.label: name for name, metric in METRICS.items()}
    header, *lines = table_of(README)
    assert [line[0] for line in lines] == ROWS
    assert {"TDD ↑", "OT abs ↓", "Stab. ↑", "Evid. AP ↑"} <= set(header)
    for line in lines:
        own = summary.loc[line[0]]
        ours = {"n": own["n"].max(), "undef.": own.loc[list(TABLE_METRICS), "undefined"].sum()}
        for head, cell in zip(header[1:], line[1:], strict=True):
            metric = labels.get(head.rstrip(" ↑↓"))
            if metric != "runtime_s":
                value = own.loc[metric, "mean"] if metric else ours[head]
                assert number(cell) == pytest.approx(value, abs=0.0021, nan_ok=True), (line[0], head)


def test_it_ends_with_the_table_and_the_path_of_the_pictures(finished: tuple[Path, str]) -> None:
    directory, output = finished
    lines = [line for line in output.splitlines() if line.strip()]
    assert lines[-1] == f"Next: segfaith report {directory}"
    overview, folder = directory / "pictures.png", directory / "pictures"
    assert lines[-2] == f"pictures: {overview}, and one for each sample in {folder}"
    assert all(any(line.split()[:1] == [name] for line in lines) for name in ("gpa", "ega", "ria", "dea", "mea"))
    ids = pd.unique(load_run(directory).records["sample_id"])
    assert {path.stem for path in folder.glob("*.png")} == set(ids)
    rows = [Image.open(folder / f"{name}.png") for name in ids]
    assert Image.open(overview).size == (rows[0].width, sum(row.height for row in rows))


def test_the_report_says_how_far_to_trust_the_metrics(finished: tuple[Path, str]) -> None:
    done = CliRunner().invoke(app, ["report", str(finished[0]), "--verbose"])
    assert done.exit_code == 0, done.output
    page = (finished[0] / "trust.md").read_text(encoding="utf-8")
    assert "How far to trust these metrics" in done.output
    assert page.startswith("# How far to trust these metrics")
    assert "Scenes that entered: plain 4, marker 4, context 4, conjunction 2, redundancy 2" in page
