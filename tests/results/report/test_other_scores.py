"""Reports on runs of a score other than the probability: absolute drops lead, and nothing reads s as a probability."""

from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from made_runs import make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import load_run, load_runs
from segfaith.results.report.blocks import Block, Cards, Prose, Section, Table
from segfaith.results.report.markdown import plain
from segfaith.results.report.sections import topics
from segfaith.results.report.terminal import table
from segfaith.results.report.write import write
from segfaith.results.statistics.analysis import Analysis, Options, analyse

METHODS = ("ega", "dea", "random_cells")


@pytest.fixture(scope="module")
def margin_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("margin") / "run", methods=METHODS, maps=2, score="margin")


@pytest.fixture(scope="module")
def margins(margin_run: Path) -> Analysis:
    return analyse([load_run(margin_run)])


def words(blocks: Iterable[Block]) -> str:
    return " ".join(plain(block.text) for block in blocks if isinstance(block, Prose))


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks() if isinstance(block, Table)]


def test_the_label_names_the_score_and_runs_of_other_scores_are_another_part(margin_run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", methods=METHODS, maps=0, seed=1)
    both = analyse(load_runs([margin_run, other]))
    assert [part.label for part in both.parts] == ["voc2012 val, score margin", "voc2012 val"]
    assert [part.score for part in both.parts] == ["margin", "probability"]
    assert [len(part.runs) for part in both.parts] == [1, 1]


def test_absolute_metrics_are_the_summary(margins: Analysis) -> None:
    (part,) = margins.parts
    expected = ["tdd_drop", "tdd_drop_gain", "odd_drop_abs", "insertion_gain", "stability", "runtime_s"]
    assert part.metrics == expected
    assert list(part.summary["metric"].unique()) == expected
    records = part.runs[0].measured
    for method in METHODS:
        own = records[records["method"] == method]
        (line,) = part.summary[(part.summary["method"] == method) & (part.summary["metric"] == "tdd_drop")].itertuples()
        assert line.mean == pytest.approx((own["s"] - own["s_target_deleted"]).mean())
    assert set(part.wins["metric"]) == set(expected)
    assert {"tdd_drop", "odd_drop_abs"} <= set(part.pairs["metric"]) <= set(expected)
    assert set(part.pairs.loc[part.pairs["metric"] == "tdd_drop", "of"]) == {"mean"}, "no drop is pooled"


def test_leaderboard_terminal_and_cards_show_drops_in_the_unit_of_the_score(margins: Analysis) -> None:
    (part,), built = margins.parts, topics(margins)
    (board,) = tables(built["leaderboard"])
    heads = [column.label for column in board.columns]
    assert heads == ["Method", "TDD drop ↑", "OT drop ↓", "Stab. ↑", "Time s ↓", "n"]
    assert "The score is 'margin', which has no natural zero" in words(built["leaderboard"].blocks())
    stream = StringIO()
    Console(file=stream, width=90, markup=False).print(*table(part), sep="\n")
    assert "TDD drop ↑" in stream.getvalue()
    assert "TDD ↑" not in stream.getvalue()
    chance = {verdict.method: verdict.findings["chance"] for verdict in part.verdicts}
    assert chance["dea"].mark == "pass"
    cards = [card for block in built["verdict"].blocks() if isinstance(block, Cards) for card in block.cards]
    (check,) = [one for one in cards[0].checks if one.name == "Chance"]
    assert "%" not in plain(check.sentence)
    assert f"lowers the score by {chance[cards[0].method].value:.2f}, random cells by" in plain(check.sentence)
    assert "TDD drop is significantly better than that of random cells" in plain(check.rule)


def test_what_reads_s_as_a_probability_says_that_it_does_not_apply(margins: Analysis) -> None:
    (part,), built = margins.parts, topics(margins)
    assert "this does not apply to voc2012 val, score margin" in words(built["denominators"].blocks()).lower()
    assert "no natural zero" in words(built["leakage"].blocks())
    assert "claims are about the probability" in words(built["claims"].blocks())
    assert part.claims.empty
    assert part.strata("tdd_drop", "s").empty
    assert len(part.strata("tdd_drop", "class_index"))
    assert part.robust["small_s"].isna().all()
    assert not any("s < 0.05" in note for note in margins.notes)
    assert part.summary["paper_mean"].isna().all()


def test_a_filter_by_s_is_refused_and_one_by_the_overlap_is_not(margin_run: Path) -> None:
    run = load_run(margin_run)
    with pytest.raises(SettingsError, match=r"min_s = 0.05 leaves out .* but run explains the score 'margin'"):
        analyse([run], Options(min_s=0.05))
    (part,) = analyse([run], Options(min_iou=0.6)).parts
    assert 0 < part.runs[0].measured["sample_id"].nunique() < run.measured["sample_id"].nunique()


def test_curves_hold_drops_as_means(margin_run: Path, margins: Analysis) -> None:
    (part,) = margins.parts
    points = part.curve_means
    assert set(points.loc[points["kind"] == "target_deletion", "of"]) == {"mean"}
    assert len(part.ranking("tdd_drop", "occlusion"))
    assert len(part.ranking("odd_drop_abs", "k"))


def test_a_conditional_probability_is_read_as_a_probability_and_not_as_the_papers(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", methods=METHODS, maps=2, score="conditional"))
    (part,), built = analyse([run], Options(min_s=0.01)).parts, topics(analyse([run]))
    assert part.label == "voc2012 val, score conditional"
    assert {"tdd", "odd_abs", "leak_abs"} <= set(part.metrics)
    records = part.runs[0].measured
    for method in METHODS:
        (line,) = part.summary[(part.summary["method"] == method) & (part.summary["metric"] == "tdd")].itertuples()
        assert line.mean == pytest.approx(records.loc[records["method"] == method, "tdd"].mean())
    assert part.summary["paper_mean"].isna().all()
    assert part.robust["small_s"].notna().all()
    assert len(part.strata("tdd", "s"))
    assert "claims are about the probability" in words(built["claims"].blocks())
    assert part.claims.empty
    assert any("score: conditional" in note and "with s < 0.05" in note for note in analyse([run]).notes)


def test_a_whole_report_is_written(margin_run: Path, tmp_path: Path) -> None:
    written = write([load_run(margin_run)], tmp_path, html=True, figures=True)
    assert not written.refused
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "TDD drop" in page
    for name in ("table.md", "table.tex"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "TDD drop" in text
        assert "Leak abs" not in text
    assert set(pd.read_csv(tmp_path / "rankings.csv")["metric"]) == {"tdd_drop", "odd_drop_abs", "insertion_gain"}
