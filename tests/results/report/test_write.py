"""The one call behind `segfaith report`: which files it writes, and that what was asked reaches all of them."""

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from html_page import Page
from made_runs import edit_description, make_run
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS
from segfaith.results.report.blocks import Figure
from segfaith.results.report.glossary import unknown
from segfaith.results.report.write import FILES, write
from segfaith.results.statistics import paired
from segfaith.results.statistics.analysis import Options
from segfaith.results.statistics.claims import verdict_words

TEXTS = ["conclusions.md", "table.md", "claims.md", "significance.md", "trust.md", "leaderboard.md", "table.tex"]


def made(folder: Path, seeds: int = 1, **options: object) -> list[Run]:
    return [load_run(make_run(folder / f"s{seed}", seed=seed, maps=0, **options)) for seed in range(seeds)]  # type: ignore[arg-type]


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_of_full_runs_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = write(made(tmp_path / "runs", 2), out)
    assert written.refused == ""
    assert [path.name for path in written.paths] == [*FILES, *TEXTS]
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, *TEXTS])
    assert all(len(lines_of(out / name)) for name in FILES)
    page = (out / "conclusions.md").read_text(encoding="utf-8")
    assert "Not measured" not in page
    verdicts = pd.read_csv(out / "claims.csv")["holds"].value_counts()
    assert verdicts.sum() == 15 == verdicts.reindex(["holds", "fails", "draw"]).sum()
    said = " and ".join(verdict_words(pd.read_csv(out / "claims.csv")["holds"]))
    assert f"voc2012 val: {said}." in page
    assert "| DEA's TDD is above EGA's in every run | ✓ holds | 2/2 | " in page
    pattern = r"By operator: Kendall’s W = 0\.\d\d \(chance 0\.33; .* over 3 settings, 4 methods and 2\d image"
    assert re.search(pattern, page)
    assert "Among all 10 methods, controls included, which raise it, W is 0." in page
    assert "| ega | netA | classifier | 0.720 | 0.700 | 0.700 | 8 | 0 | 0 |" in page
    assert (out / "claims.md").read_text(encoding="utf-8").count("| ✓ holds |") >= 10


def test_pages_of_one_section_have_its_title_and_the_runs(two_runs: list[Run], tmp_path: Path) -> None:
    write(two_runs, tmp_path)
    titles = {"table.md": "Scores", "claims.md": "The paper’s claims", "significance.md": "Significance"}
    for name, title in titles.items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {title}\n\n")
        assert text.count(f"# {title}\n") == 1
        assert text.count("- voc2012 val: netA, weights netA.pth, seed ") == 2


def test_the_leaderboard_has_a_line_a_method_the_best_first(tmp_path: Path) -> None:
    """Of two models a table of both and one of each, controls marked, and why rows failed."""
    runs = [*made(tmp_path / "a"), *made(tmp_path / "b", model="netB", failed=0)]
    write(runs, tmp_path / "out")
    page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert page.startswith("# Leaderboard\n\n")
    captions = re.findall(r"^\*\*(.*)\*\*$", page, flags=re.MULTILINE)
    both = "netA netA.pth, netB netB.pth"
    assert captions == [
        f"voc2012 val: 2 models ({both}); up to 23 images",
        "voc2012 val: netA netA.pth; up to 23 images",
        "voc2012 val: netB netB.pth; up to 23 images",
    ]
    tables = [part.splitlines() for part in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)]
    header = [cell.strip() for cell in tables[0][0].strip("|").split("|")]
    assert header == ["Method", "Groups", "TDD, pooled ↑", "OT abs, pooled ↓", "Seconds", "Passes", "Failed"]
    csv_rows = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    for lines, models in zip(tables, (both, "netA netA.pth", "netB netB.pth"), strict=True):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
        of_models = csv_rows[csv_rows["models"] == models]
        marks = {"mask": "mask (control)", "random_cells": "random_cells (control)"}
        assert [line[0] for line in cells] == [marks.get(name, name) for name in of_models["method"]]
        assert [float(line[2].split(" ")[0]) for line in cells] == pytest.approx(list(of_models["tdd"]), abs=6e-4)
        assert cells[0][0] == "ria"
        assert cells[0][1].startswith("a")
        fewer = {line[0]: line[2].rpartition(" ")[2] for line in cells if line[2].endswith(")")}
        assert fewer == ({"gpa": "(22)"} if models == "netA netA.pth" else {}), "over how many images, where fewer"
    assert {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in tables[0]}["gpa"] == "1 of 48"
    assert page.count("- gpa: ValueError: made to fail") == 2


def test_table_csv_is_the_summary(two_runs: list[Run], tmp_path: Path) -> None:
    analysis = write(two_runs, tmp_path).analysis
    rows = lines_of(tmp_path / "table.csv")
    assert list(rows[0])[:4] == ["data", "weights", "method", "metric"]
    assert list(rows[0])[4:] == [
        *("mean", "std", "median", "runs", "n", "undefined", "not_ok", "iqm"),
        *("of", "value", "low", "high", "backbones", "images", "predicted_mean", "predicted_value", "predicted_n"),
    ]
    assert {row["weights"] for row in rows} == {"netA.pth"}
    summary = analysis.parts[0].summary
    assert [float(row["mean"]) for row in rows if row["metric"] == "tdd"] == list(
        summary[summary["metric"] == "tdd"]["mean"]
    )
    dea = next(row for row in rows if (row["method"], row["metric"]) == ("dea", "stability"))
    assert (dea["n"], dea["undefined"]) == ("16", "14"), "also what was not to be measured"


def test_the_rows_of_several_data_sets_stand_by_metric(tmp_path: Path) -> None:
    """In wins and tests: first all pairs by TDD of every data set, then those by the next metric."""
    runs = [*made(tmp_path / "a"), *made(tmp_path / "b", data="sbd")]
    write(runs, tmp_path / "out")
    for name in ("wins.csv", "significance.csv", "rankings.csv", "strata.csv"):
        rows = lines_of(tmp_path / "out" / name)
        blocks = list(dict.fromkeys((row["metric"], row["data"]) for row in rows))
        assert [data for _, data in blocks[:4]] == ["voc2012 val", "sbd val"] * 2, name


def test_old_records_say_what_is_missing_and_why(tmp_path: Path) -> None:
    (run,) = made(tmp_path / "runs", methods=("ega", "dea", "random_cells"), data="folder")
    newer = [*("odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far", "energy_inside", "pointing", "gini")]
    newer += [name for name in run.records if re.fullmatch("s_(fair|near|middle|far)_deleted", name)]
    old = replace(
        run,
        records=run.records.drop(columns=newer),
        curves=pd.DataFrame(columns=[*CURVE_COLUMNS]),
        randomisation=pd.DataFrame(columns=[*RANDOMISATION_COLUMNS]),
    )
    names = {path.name for path in write([old], tmp_path / "out").paths}
    absent = {
        "paper.csv",
        "rankings.csv",
        "crossfit.csv",
        "areas.csv",
        "curves.csv",
        "leakage.csv",
        "map_properties.csv",
    }
    assert set(FILES) - names == absent | {"randomisation.csv"}
    page = (tmp_path / "out" / "conclusions.md").read_text(encoding="utf-8")
    for words in (
        "**Rankings under other settings**: These runs were scored under one operator and one k; the maps of dea were",
        "**Curves**: These runs were scored at a single k, so there are no curves. Measure it: `segfaith run",
        "**Leakage**: Leakage by area and distance was not measured. Measure it: `segfaith run FILE --set '",
        "**What the maps look like**: What the maps look like was not measured: an older version made these records.",
        "**Randomised models**: Whether the maps depend on what the model has learnt was not measured. Mea",
        "**Who finds the planted evidence**: No evidence was planted here",
        "| RIA has the highest TDD | ? not testable | 0/0 | n/a | no run has a value of TDD for ria, gpa |",
    ):
        assert words in page, words


def test_a_score_that_no_sample_has_is_refused_with_the_highest(two_runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no target is left with s >= 1\.1, of which the highest is 0\.939; give"):
        write(two_runs, tmp_path, Options(min_s=1.1))


def test_runs_of_failed_samples_are_the_reason_for_every_empty_table(two_runs: list[Run], tmp_path: Path) -> None:
    failed = [replace(run, records=run.records.assign(status="failed", reason="no memory")) for run in two_runs]
    written = write(failed, tmp_path, Options())
    page = (tmp_path / "conclusions.md").read_text(encoding="utf-8")
    assert "**Scores**: No sample was measured." in page
    assert "**Leakage**: No sample was measured." in page
    assert "older version" not in page
    assert "single k" not in page
    assert {"table.csv", "significance.csv", "significance.md"} <= {path.name for path in written.paths}


def test_filters_reach_every_number(two_runs: list[Run], tmp_path: Path) -> None:
    every = write(two_runs[:1], tmp_path / "all").analysis
    write(two_runs[:1], tmp_path / "some", Options(min_s=0.05))
    tables = [pd.read_csv(tmp_path / name / "runs.csv") for name in ("all", "some")]
    leak = [table[(table["method"] == "ega") & (table["metric"] == "odd_abs")].iloc[0] for table in tables]
    assert leak[0]["n"] - leak[1]["n"] == 1
    assert leak[0]["value"] > 1.5 * leak[1]["value"], "the sample with s = .01 sets the mean"
    page = (tmp_path / "some" / "conclusions.md").read_text(encoding="utf-8")
    assert "Only samples with s >= 0.05 entered." in page
    assert "0 ≤ s < 0.05" not in page
    records = every.runs[0].records
    limit = float(records["target_iou"].median())
    write(two_runs[:1], tmp_path / "iou", Options(min_iou=limit))
    kept = records[(records["status"] == "ok") & (records["target_iou"] >= limit) & (records["method"] == "ria")]
    runs = pd.read_csv(tmp_path / "iou" / "runs.csv")
    assert runs[(runs["method"] == "ria") & (runs["metric"] == "tdd")]["n"].item() == len(kept) < 15
    assert "with the target >= " in (tmp_path / "iou" / "table.md").read_text(encoding="utf-8")


def test_what_is_compared_and_a_single_run_reach_the_tests(two_runs: list[Run], tmp_path: Path) -> None:
    write(two_runs[:1], tmp_path, Options(methods=("ria", "mask"), single_run=True))
    rows = lines_of(tmp_path / "significance.csv")
    assert list(rows[0]) == [*paired.COLUMNS, *paired.PAGE_COLUMNS]
    assert {(row["first"], row["second"]) for row in rows} == {("ria", "mask")}
    assert {row["why"] for row in rows} == {""}
    text = (tmp_path / "significance.md").read_text(encoding="utf-8")
    assert "Compared here: ria and mask." in text
    assert "Random cells are chance" not in text
    assert "ria is better (one run: says nothing of other seeds or models" in text


def test_absent_runs_are_named_wherever_conclusions_are_drawn(two_runs: list[Run], tmp_path: Path) -> None:
    sentence = "net-seed4 is planned, but not here: <not> started"
    write(two_runs, tmp_path, absent=[sentence])
    for name in ("conclusions.md", "claims.md", "significance.md"):
        assert r"net-seed4 is planned, but not here: \<not> started" in (tmp_path / name).read_text(encoding="utf-8")


def test_figures_and_the_page_come_only_if_asked_for(two_runs: list[Run], tmp_path: Path) -> None:
    told: list[str] = []
    written = write(two_runs, tmp_path, html=True, figures=True, tell=told.append)
    assert told == ["drawing figures", "writing the page"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    page = (tmp_path / "conclusions.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((figures/[^)]+)\)", page)
    assert "figures/runs-voc2012-val.png" in links
    assert len(links) >= 4
    for link in links:
        assert tmp_path / link in written.paths
    plain = write(two_runs, tmp_path / "plain").paths
    assert not {"report.html", "figures"} & {path.relative_to(tmp_path / "plain").parts[0] for path in plain}
    assert "](figures" not in (tmp_path / "plain" / "conclusions.md").read_text(encoding="utf-8")


def test_a_directory_that_refuses_is_said_and_the_words_are_there(two_runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    written = write(two_runs, tmp_path / "file")
    assert "cannot write into" in written.refused
    assert written.refused.endswith("move it away, or choose another directory")
    assert written.paths == []
    assert [section.name for section in written.sections][:2] == ["verdict", "leaderboard"]


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected at least one run to report on; got none"):
        write([], tmp_path)


def test_the_files_are_the_same_each_time(two_runs: list[Run], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(two_runs, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_the_page_holds_every_section_and_draws_every_figure_once(two_runs: list[Run], tmp_path: Path) -> None:
    """Of real sections: no name is there twice, and every link leads to a section, a sample or a definition."""
    written = write(two_runs, tmp_path, html=True)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [own["id"] for tag, own in page.tags if tag == "section"] == [
        *("verdict", "leaderboard", "influence", "summary", "limits", "scores", "worth", "significance", "claims"),
        *("randomisation", "rankings", "curves", "leakage", "denominators", "properties", "unmeasured"),
        *("gallery", "glossary", "runs"),
    ]
    ids = Counter(page.values("id"))
    assert {name for name, times in ids.items() if times > 1} == set()
    targets = {address[1:] for address in page.values("href", "a") if address.startswith("#")}
    assert targets - set(ids) == set()
    assert set(page.values("aria-labelledby")) - set(ids) == set()
    asked = {target.removeprefix("def-") for target in targets if target.startswith("def-")}
    assert len(asked) > 25
    assert unknown(asked) == set()
    part = written.analysis.parts[0]
    drawings = [draw(part) for draw in DRAWINGS.values()]
    shown = [drawing.name for drawing in drawings if drawing.on_page and drawing.figure]
    assert len(shown) == 6
    held = [block.drawing for section in written.sections for block in section.blocks() if isinstance(block, Figure)]
    assert all(any(drawing is one for one in drawings) for drawing in held), "a copy would be drawn again"
    assert sorted(re.findall(r'<figure class="drawn" id="figure-([\w-]+)">', text)) == sorted(shown)
    assert sum(tag == "svg" for tag, _ in page.tags) == len(shown)


def quick(directory: Path, seed: int = 0) -> Path:
    ids = tuple(f"i{number}" for number in range(8))
    return make_run(directory, seed=seed, samples=ids, maps=0, randomisation=False)


def test_the_command_names_absent_runs_and_hands_title_and_author_on(tmp_path: Path) -> None:
    """A suite of a finished run, one that has begun without a shard, one that failed, and one that never began."""
    quick(tmp_path / "net-seed0")
    begun = tmp_path / "net-seed1"
    begun.mkdir()
    shutil.copy(tmp_path / "net-seed0" / "run.json", begun)
    edit_description(begun, lambda about: about["settings"].update(seed=1))
    (tmp_path / "net-seed2").mkdir()
    (tmp_path / "net-seed2" / "failure.json").write_text(json.dumps({"reason": "no <weights> file net.pth"}))
    planned = {f"net-seed{seed}": {"samples": 8} for seed in range(4)}
    (tmp_path / "suite.json").write_text(json.dumps({"runs": planned}))
    arguments = ["report", str(tmp_path), "--html", "--title", "Lesions", "--author", "Ada"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    sentence = "net-seed3 is planned, but not here: not started"
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("conclusions.md", "claims.md", "report.html")]
    assert all(sentence in text for text in (done.output, *texts))
    assert "no &lt;weights&gt; file net.pth" in texts[2]
    assert "<weights>" not in texts[2]
    assert "<h1>Lesions</h1>" in texts[2]
    assert '<meta name="author" content="Ada">' in texts[2]


def test_a_method_with_several_parameters_can_be_named_to_compare(tmp_path: Path) -> None:
    run = str(quick(tmp_path / "run"))
    done = CliRunner().invoke(app, ["report", run, "--compare", "gpa, dea@alpha=0.5,beta=0.5,ega"])
    assert "came dea@alpha=0.5,beta=0.5, which no run holds" in " ".join(str(done.exception).split())
    done = CliRunner().invoke(app, ["report", run, "--compare", "gpa, ega", "--single-run"])
    assert done.exit_code == 0, done.output
    assert "Compared here: gpa and ega." in (tmp_path / "run" / "significance.md").read_text(encoding="utf-8")


def test_the_screen_shows_claims_with_their_difference_and_says_in_the_only_run(tmp_path: Path) -> None:
    ids = tuple(f"i{number:02d}" for number in range(24))
    few = {"methods": ("ega", "dea", "random_cells"), "curves": False, "randomisation": False}
    run = make_run(tmp_path / "run", samples=ids, maps=0, skipped=0, failed=0, **few)  # type: ignore[arg-type]
    done = CliRunner().invoke(app, ["report", str(run), "--verbose"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "DEA's TDD is above EGA's in the only run" in words
    assert "to ega, pooled drop: +0." in words
    assert "EGA's in every run" not in words
