"""The sections that answer first: verdict cards, the leaderboard, and the influence of one image."""

from pathlib import Path

import pytest

from made_runs import edit_description, make_run
from segfaith.results.records.runs import load_run
from segfaith.results.report.blocks import Cards, Points, Table
from segfaith.results.report.sections import influence, leaderboard, verdict
from segfaith.results.statistics.analysis import Analysis, Options, analyse

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
    assert [row[0].text for row in table.rows[-table.tail :]] == part.controls == ["random_cells", "mask"]
    bold = {
        (row[0].text, column.define)
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if cell.best
    }
    assert bold == {(best.method, name) for name, best in part.best.items() if best.method}
    assert part.best["odd_abs"].control
    points = [block for block in verdict.section(analysis).parts if isinstance(block, Points)]
    text = " ".join(item.striptags() for block in points for item in block.items)
    assert f"{part.best['odd_abs'].control}, which explains nothing, is better still" in text


def test_the_papers_figures_stand_apart_from_ours(folder: Path) -> None:
    (part,) = analysis_of(folder, "run0", "run1").parts
    table = leaderboard.leaderboard(part)
    place = [column.define for column in table.columns].index("tdd")
    cells = {str(row[0].text): row[place] for row in table.rows}
    assert "0.522" in cells["ria"].paper
    assert "0.522" not in cells["ria"].text
    assert cells["mask"].paper == ""


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
