"""Every figure of an analysis: drawn once, from its tables, with reasons where it cannot be drawn."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

import segfaith.results
from made_runs import edit_description, make_run
from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.drawings import DRAWINGS, shown_methods
from segfaith.results.figures.style import LOOKS
from segfaith.results.records.runs import load_run
from segfaith.results.records.select import method_labels
from segfaith.results.statistics import cases
from segfaith.results.statistics.analysis import DataAnalysis, Options, analyse
from segfaith.results.statistics.friedman import friedman
from segfaith.results.statistics.paired import paired

FOUR = ("gpa", "ega", "ria", "dea")


def figure(drawing: Drawing) -> Figure:
    assert drawing.figure is not None, drawing.why
    return drawing.figure


def test_all_are_drawn_once_with_a_caption(part: DataAnalysis) -> None:
    for name, draw in DRAWINGS.items():
        drawing = draw(part)
        assert drawing is draw(part)
        assert drawing.name == f"{name}-voc2012-val"
        assert drawing.caption.endswith(".")
        if name != "failure":
            assert drawing.figure is not None, drawing.why
            assert drawing.figure is draw(part).figure
    assert {name for name, draw in DRAWINGS.items() if not draw(part).on_page} == {
        *("success", "failure", "missed", "mechanism")
    }
    assert "none of 44 candidates meets the rule. Failure of DEA" in DRAWINGS["failure"](part).why


def test_photographs_state_their_rules(part: DataAnalysis) -> None:
    choices = {"success": cases.successes, "failure": cases.failures, "missed": cases.missed}
    for name, choose in choices.items():
        assert choose(part).words in DRAWINGS[name](part).remarks
    assert cases.typical(part).words in DRAWINGS["mechanism"](part).remarks
    assert any("Shares of the three summands" in remark for remark in DRAWINGS["mechanism"](part).remarks)


def test_dots_are_the_table_of_values_beside_the_papers(part: DataAnalysis) -> None:
    axes = figure(DRAWINGS["runs"](part)).axes[0]
    assert axes.get_title().startswith("TDD")
    values = part.values[(part.values["metric"] == "tdd") & part.values["method"].isin(shown_methods(part))]
    marked = [line.get_xdata() for line in axes.lines if line.get_marker() not in ("None", "D")]
    assert len(marked) == 2, "all dots of a run are one line"
    dots = sorted(np.concatenate(marked))
    np.testing.assert_allclose(dots, sorted(values["value"]))
    assert len(dots) == 2 * 6
    theirs = part.summary[part.summary["metric"] == "tdd"].dropna(subset="paper_mean")
    diamonds = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds, sorted(theirs["paper_mean"]))
    assert len(diamonds) == 4
    assert "open diamond the paper's mean" in DRAWINGS["runs"](part).caption


def test_curves_and_randomisation_are_their_tables(part: DataAnalysis) -> None:
    axes = figure(DRAWINGS["curves"](part)).axes[0]
    table = part.curve_means
    table = table[(table["kind"] == "target_deletion") & (table["method"] == "dea")].sort_values("k")
    (line,) = [one for one in axes.lines if one.get_marker() == LOOKS["dea"].marker]
    np.testing.assert_allclose(line.get_xdata(), table["k"])
    np.testing.assert_allclose(line.get_ydata(), table["value"])
    again = part.randomisation[part.randomisation["method"] == "ria"].sort_values("stage")
    axes = figure(DRAWINGS["randomisation"](part)).axes[0]
    (line,) = [one for one in axes.lines if one.get_marker() == LOOKS["ria"].marker]
    np.testing.assert_allclose(line.get_ydata(), again["spearman"])


def test_ranks_are_friedmans_and_those_of_the_settings(part: DataAnalysis) -> None:
    axes = figure(DRAWINGS["critical-differences"](part)).axes[0]
    words = {text.get_text() for text in axes.texts}
    assert len(part.ranked["tdd"].ranks) == 4
    for name, rank in part.ranked["tdd"].ranks.items():
        assert {f"{name} {rank:.2f}", f"{rank:.2f} {name}"} & words
    table = part.ranking("tdd", "occlusion")
    axes = figure(DRAWINGS["rankings"](part)).axes[0]
    (line,) = [one for one in axes.lines if one.get_marker() == LOOKS["ria"].marker]
    np.testing.assert_allclose(line.get_ydata(), table[table["method"] == "ria"]["rank"])
    w = part.concordance("tdd", "occlusion").iloc[0]
    assert axes.get_title().startswith(f"Kendall's W = {w['w']:.2f}, beyond chance")


def test_variants_are_left_out_where_the_method_itself_was_run(part: DataAnalysis) -> None:
    assert shown_methods(part) == [*FOUR, "random_cells", "mask"]
    alone = replace(part.runs[0], records=part.runs[0].records[part.runs[0].records["method"] == "dea@alpha=0.5"])
    assert shown_methods(analyse([alone]).parts[0]) == ["dea@alpha=0.5"]


def test_what_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    runs = [
        load_run(make_run(tmp_path / str(seed), seed=seed, curves=False, maps=0, randomisation=False, methods=FOUR))
        for seed in (0, 1)
    ]
    runs = [replace(run, records=run.records.assign(stability=math.nan)) for run in runs]
    part = analyse(runs).parts[0]
    reasons = {
        "success": "no image with s >= 0.3 and IoU of the prediction >= 0.1 has maps of ega, ria, dea",
        "failure": "keep them with [output] maps = true",
        "missed": "no image has maps of a method under test",
        "mechanism": "has maps of ega, ria, dea",
        "tradeoff": "is stability measured?",
        "curves": "expected curves over at least two values of k; got 0",
        "rankings": "expected at least two occlusion operators",
        "randomisation": "expected similarities at two stages or more; got none",
    }
    for name, draw in DRAWINGS.items():
        drawing = draw(part)
        assert (drawing.figure is None) == (name in reasons), name
        assert reasons.get(name, "") in drawing.why
    assert any("No diagram of Stab.: not testable" in one for one in DRAWINGS["critical-differences"](part).remarks)
    single = DRAWINGS["critical-differences"](analyse(runs[:1]).parts[0])
    assert single.why.startswith("No diagram of TDD: not testable: ")


def test_maps_that_cannot_be_read_are_a_reason(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", maps=24, size=8)
    parameters = {"alpha": 0.65, "beta": 0.35}
    edit_description(directory, lambda about: about["methods"]["dea"].update(parameters=parameters))
    part = analyse([load_run(directory)]).parts[0]
    (cases.typical(part).cases[0].folder / "ega.npy").write_bytes(b"no map")
    assert "cannot be read" in DRAWINGS["mechanism"](part).why
    bare = analyse([load_run(make_run(tmp_path / "bare", maps=24, size=8))]).parts[0]
    assert "run.json of bare states no alpha and beta of dea" in DRAWINGS["mechanism"](bare).why


def test_a_method_of_few_runs_does_not_empty_the_critical_differences(tmp_path: Path) -> None:
    lists = ((*FOUR, "mask"), FOUR[1:], FOUR[1:])
    runs = [
        load_run(make_run(tmp_path / str(seed), seed=seed, methods=names, curves=False, maps=0, randomisation=False))
        for seed, names in enumerate(lists)
    ]
    drawing = DRAWINGS["critical-differences"](analyse(runs).parts[0])
    assert "Left out, in fewer than half of the runs: gpa." in drawing.remarks
    axes = figure(drawing).axes
    assert [len(one.get_title()) > 0 for one in axes] == [True] * 4
    words = " ".join(text.get_text() for text in axes[0].texts)
    expected = friedman(paired(runs, "tdd"), FOUR[1:])
    assert all(
        f"{name} {expected.ranks[name]:.2f}" in words or f"{expected.ranks[name]:.2f} {name}" in words
        for name in FOUR[1:]
    )
    assert "mask" not in words
    assert "gpa" not in words


def test_methods_that_were_asked_for_and_single_runs_reach_the_diagrams(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", curves=False, maps=0, randomisation=False))
    options = Options(methods=("dea", "ria", "mask"), single_run=True)
    drawing = DRAWINGS["critical-differences"](analyse([run], options).parts[0])
    words = " ".join(text.get_text() for text in figure(drawing).axes[0].texts)
    assert "mask" in words
    assert "gpa" not in words


def test_own_methods_and_their_labels_are_in_every_gallery(tmp_path: Path) -> None:
    names = {"gpa": "own.py:build", "ria": "lime"}
    directory = make_run(tmp_path / "run", maps=24, size=8, methods=(*names, "random_cells", "mask"))
    for file in sorted((directory / "maps").glob("*/*.npy")):
        file.rename(file.with_name(f"{names.get(file.stem, file.stem)}.npy"))
    run = load_run(directory)
    tables = [table.replace({"method": names}) for table in (run.records, run.curves, run.randomisation)]
    run = replace(run, records=tables[0].assign(odd_abs=0.1), curves=tables[1], randomisation=tables[2])
    methods = {name: {} for name in ("lime", "random_cells", "mask")} | {"own.py:build": {"label": "Ours"}}
    run = replace(run, description=run.description | {"methods": methods})
    part = analyse([run]).parts[0]
    shown = [axes.get_title() for axes in figure(DRAWINGS["success"](part)).axes]
    assert shown[:3] == ["image", "Ours", "lime"]
    for name in ("missed", "tradeoff", "runs", "curves", "randomisation"):
        drawn = figure(DRAWINGS[name](part))
        words = {axes.get_title() for axes in drawn.axes}
        words |= {text.get_text() for legend in drawn.legends for text in legend.get_texts()}
        words |= {text.get_text() for axes in drawn.axes for text in axes.get_yticklabels()}
        assert "Ours" in words, name
        assert "own.py:build" not in words, name


def test_pyplot_is_neither_imported_nor_left_with_figures(part: DataAnalysis) -> None:
    modules = sorted((Path(segfaith.results.__file__).parent / "figures").glob("*.py"))
    assert len(modules) > 8
    for file in modules:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not any("pyplot" in f"{module}.{one}" for one in names), file.name
    assert isinstance(DRAWINGS["runs"](part).figure, Figure)
    assert _pylab_helpers.Gcf.get_all_fig_managers() == []


def test_labels_of_the_made_runs_are_their_names(part: DataAnalysis) -> None:
    assert set(method_labels(part.runs)) == set(pd.concat([run.records for run in part.runs])["method"])


@pytest.mark.parametrize("name", ["tradeoff", "runs"])
def test_words_of_a_drawing_are_sentences(part: DataAnalysis, name: str) -> None:
    for words in (DRAWINGS[name](part).caption, *DRAWINGS[name](part).remarks):
        assert words[0].isupper()
        assert words.endswith(".")
