"""The sections that answer first: verdict cards, the leaderboard, and the influence of one image."""

from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_runs import edit_description, make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.report.blocks import Cards, Points, Prose, Table, number, rows_by, spread
from segfaith.results.report.sections import influence, leaderboard, verdict
from segfaith.results.statistics.analysis import Analysis, Options, analyse
from segfaith.results.statistics.judgement import COLUMNS
from segfaith.results.statistics.summary import TABLE_METRICS

METHODS = ("gpa", "ega", "ria", "dea", "random_cells", "mask")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        make_run(root / f"run{seed}", seed=seed, methods=METHODS)
    make_run(root / "alone", methods=METHODS, randomisation=False, data="sbd")
    return root


def analysis_of(folder: Path, *names: str, options: Options | None = None) -> Analysis:
    return analyse([load_run(folder / name) for name in names], options)


def cards(analysis: Analysis) -> Cards:
    (block,) = [block for block in verdict.section(analysis).parts if isinstance(block, Cards)]
    return block


def test_a_card_says_the_mark_the_reason_and_the_numbers(folder: Path) -> None:
    analysis = analysis_of(folder, "run0", "run1")
    (part,) = analysis.parts
    found = {card.method: card for card in cards(analysis).cards}
    assert set(found) == {"gpa", "ega", "ria", "dea"}
    row = part.chance[part.chance["first"] == "ria"].iloc[0]
    assert row["significant"]
    chance = next(check for check in found["ria"].checks if check.name == "Chance")
    assert chance.mark == "pass"
    numbers = f"lowers the score by {row['value_first']:.0%}, random cells by {row['value_second']:.0%}"
    numbers = numbers.replace("%", " %")
    assert numbers in chance.sentence.striptags()
    model = next(check for check in found["ria"].checks if check.name == "Model")
    last = part.randomisation[(part.randomisation["method"] == "ria") & (part.randomisation["stage"] == 3)]
    assert f"correlates {last['spearman'].max():.2f} with the original" in model.sentence.striptags()
    assert "Better than random cells" in found["ria"].headline
    assert all(check.rule for card in found.values() for check in card.checks)


def with_fidelity(run: Run, **values: float) -> Run:
    """The run with a fidelity of each method, and seeded noise."""
    noise = np.random.default_rng(int(run.description["settings"]["seed"])).normal(0, 0.02, len(run.records))
    means = run.records["method"].map(lambda name: values.get(name, 0.0)).astype(float)
    return replace(run, records=run.records.assign(fidelity=means + noise, fidelity_outside=means + noise))


def judgement(**gaming: str) -> pd.DataFrame:
    """A table by which each metric rises with the truth and has this verdict on gaming."""
    rows = [[metric, "truth", "marker", 1.0, 1.0, 1.0, 20, "yes", ""] for metric in gaming]
    rows += [[metric, "gaming", "", 1.0, 1.0, 1.0, 20, verdict, ""] for metric, verdict in gaming.items()]
    rows += [[metric, "forms", "masked", 1.0, 1.0, 1.0, 20, "yes", ""] for metric in gaming]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_first_metric_that_may_lead_decides_and_the_page_says_why(folder: Path) -> None:
    runs = [
        with_fidelity(load_run(folder / f"run{seed}"), gpa=0.6, ria=-0.3, ega=0.0, dea=0.2, mask=0.2)
        for seed in range(2)
    ]
    options = Options(judgement=judgement(odd_abs="yes", fidelity="yes", tdd="yes"))  # the first is better where lower
    analysis = analyse(runs, options)
    (part,) = analysis.parts
    assert part.lead == "fidelity"
    found = {card.method: card for card in cards(analysis).cards}
    checks = {name: next(check for check in card.checks if check.name == "Chance") for name, card in found.items()}
    assert {name: check.mark for name, check in checks.items()} == {
        "gpa": "pass",
        "ria": "fail",
        "ega": "fail",
        "dea": "warn",  # as good as the mask
    }
    said = checks["gpa"].sentence.striptags()
    row = part.chance.set_index("first").loc["gpa"]
    own, cells = (number(row[name], 2) for name in ("value_first", "value_second"))
    assert said.startswith(f"Fidelity, how well the map predicts what removal costs: {own}, random cells {cells} (")
    assert "Fidelity is significantly better" in checks["gpa"].rule
    words = " ".join(block.text.striptags() for block in verdict.section(analysis).parts if isinstance(block, Prose))
    assert "Fidelity decides: it may lead a conclusion" in words
    assert "no better than the target’s mask" in found["dea"].headline.lower()
    assert "says where the target is and no more" in checks["dea"].sentence
    assert next(card.method for card in cards(analysis).cards) == "gpa"


def test_where_nothing_that_may_lead_was_measured_tdd_decides_and_the_page_says_so(folder: Path) -> None:
    analysis = analysis_of(folder, "run0", "run1", options=Options(judgement=judgement(fidelity="yes", tdd="no")))
    assert [part.lead for part in analysis.parts] == ["tdd"]
    words = " ".join(block.text.striptags() for block in verdict.section(analysis).parts if isinstance(block, Prose))
    assert "TDD decides, though a map made to win is not beaten by it" in words
    assert "no metric that may lead (Fidelity) has values here" in words
    assert "fidelity = 96" in words


def test_what_was_not_measured_names_the_command(folder: Path) -> None:
    (card, *_) = cards(analysis_of(folder, "alone")).cards
    said = {check.name: check.sentence.striptags() for check in card.checks if check.mark == "unknown"}
    assert f"segfaith randomise {folder / 'alone'}" in said["Model"]
    assert "segfaith check-method" in said["Truth"]
    chance = next(check for check in card.checks if check.name == "Chance")
    assert chance.mark == "pass"  # one run alone is tested over its images


def test_controls_come_last_and_a_control_that_wins_is_named(folder: Path) -> None:
    analysis = analysis_of(folder, "run0", "run1")
    (part,) = analysis.parts
    table = leaderboard.leaderboard(part)
    assert [row[0].text for row in table.rows[-table.tail :]] == part.references == ["random_cells", "mask"]
    bold = {
        (row[0].text, column.define)
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if cell.best
    }
    shown = {column.define for column in table.columns}
    assert bold == {(best.method, name) for name, best in part.best.items() if best.method and name in shown}
    assert {"stability", "runtime_s"} <= {name for _, name in bold}
    assert part.best["odd_abs"].control
    points = [block for block in verdict.section(analysis).parts if isinstance(block, Points)]
    text = " ".join(item.striptags() for block in points for item in block.items)
    assert f"{part.best['odd_abs'].control}, which explains nothing, is better still" in text


def test_the_papers_figures_stand_apart_from_ours(folder: Path) -> None:
    (part,) = analysis_of(folder, "run0", "run1").parts
    table = leaderboard.leaderboard(part)
    place = [column.label for column in table.columns].index("TDD, pooled ↑")
    cells = {str(row[0].text): row[place] for row in table.rows}
    (line,) = part.summary.query("method == 'ria' and metric == 'tdd'").to_dict("records")
    assert cells["ria"].paper == f"{spread(0.522, 0.05)}<br>our mean: {spread(line['mean'], line['std'])}"
    assert "0.522" not in cells["ria"].text
    assert cells["mask"].paper == ""


def test_the_leaderboard_is_short(folder: Path) -> None:
    """Pooled drops with their intervals, predicted targets in one line below these alone, and a few means."""
    (part,) = analysis_of(folder, "run0", "run1").parts
    table = leaderboard.leaderboard(part)
    heads = [column.label for column in table.columns]
    assert heads == ["Method", "TDD, pooled ↑", "OT abs, pooled ↓", "Stab. ↑", "Time s ↓", "n"]
    by_cell = rows_by(part.summary, "method", "metric")
    for method, row in zip(part.methods, table.rows, strict=True):
        for place, metric in ((1, "tdd"), (2, "odd_abs")):
            line = by_cell[method, metric]
            low, high = (number(line[end]) for end in ("low", "high"))
            assert row[place].text == f"{number(line['value'])} [{low}, {high}]"
            assert row[place].under == f"IoU\N{NO-BREAK SPACE}≥\N{NO-BREAK SPACE}.5: {number(line['predicted_value'])}"
        assert [cell.under for cell in row[3:]] == ["", "", ""]
    (remark, *_) = [block for block in leaderboard.section(analyse(part.runs)).parts if isinstance(block, Prose)]
    assert "Of pooled drops none is bold: compare their intervals." in remark.text.striptags()
    assert "over the targets alone that the model predicts" in remark.text.striptags()


def test_fidelity_leads_where_it_was_measured(folder: Path) -> None:
    """Means over samples, in the leaderboard and in the table of means; no column where no row has a value."""
    run = load_run(folder / "run0")
    records = run.records.assign(fidelity=run.records["tdd"] / 2, fidelity_outside=-run.records["tdd"] / 4)
    (part,) = analyse([replace(run, records=records)]).parts
    assert part.table == list(TABLE_METRICS)
    table = leaderboard.leaderboard(part)
    heads = [column.label for column in table.columns]
    assert heads[1:3] == ["Fidelity ↑", "Fid. outside ↑"]
    for method, row in zip(part.methods, table.rows, strict=True):
        own = [line["tdd"] for line in records.to_dict("records") if line["method"] == method]
        mean = np.nanmean(np.array(own, float))
        assert row[1].value == pytest.approx(mean / 2)
        assert row[2].value == pytest.approx(-mean / 4)
    alone = replace(run, records=records.assign(fidelity_outside=nan))
    assert set(TABLE_METRICS) - set(analyse([alone]).parts[0].table) == {"fidelity_outside"}
    (without,) = analyse([run]).parts
    assert set(TABLE_METRICS) - set(without.metrics) == {"fidelity", "fidelity_outside"}
    assert not {"fidelity", "fidelity_outside"} & {*without.wins["metric"], *without.values["metric"]}


def test_labels_of_the_settings_stand_in_every_block(folder: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "labelled", methods=METHODS)
    edit_description(tmp_path / "labelled", lambda about: about["methods"]["ria"].update(label="Ours"))
    analysis = analysis_of(tmp_path, "labelled")
    assert "Ours" in [card.label for card in cards(analysis).cards]
    assert "Ours" in [row[0].text for row in leaderboard.leaderboard(analysis.parts[0]).rows]
    (table,) = [block for block in influence.section(analysis).blocks() if isinstance(block, Table)]
    names = {row[0].text for row in table.rows}
    assert "Ours" in names
    assert "ria" not in names


def test_targets_that_the_model_misses_are_counted_and_can_be_left_out(folder: Path) -> None:
    (part,) = analysis_of(folder, "run0").parts
    everything = part.runs[0].records
    chosen = everything[(everything["status"] == "ok") & (everything["target_iou"] >= 0.6)]["sample_id"].nunique()
    (kept,) = analysis_of(folder, "run0", options=Options(min_iou=0.6)).parts
    measured = kept.runs[0].records
    assert measured[measured["status"] == "ok"]["sample_id"].nunique() == chosen > 0
    assert int(kept.summary["n"].max()) == chosen


def test_several_data_sets_have_a_verdict_each(folder: Path) -> None:
    analysis = analysis_of(folder, "run0", "alone")
    blocks = verdict.section(analysis).parts
    assert [block.data for block in blocks if isinstance(block, Cards)] == ["voc2012 val", "sbd val"]
    assert len([block for block in leaderboard.section(analysis).parts if isinstance(block, Table)]) == 2
