"""What each section says: its numbers re-derived, its verdicts in words, and what it leaves to the last section."""

import re
from copy import deepcopy
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_runs import description, edit_rows, make_run, repeat_targets, run_of
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.report.blocks import Fold, Points, Prose, Section, Table, metric_ref
from segfaith.results.report.glossary import unknown
from segfaith.results.report.markdown import markdown, plain
from segfaith.results.report.sections import (
    TOPICS,
    claims,
    curves,
    evidence,
    limits,
    provenance,
    randomisation,
    rankings,
    scores,
    sections,
    significance,
    summary,
    topics,
    verdict,
    worth,
)
from segfaith.results.statistics import evidence as trust
from segfaith.results.statistics import wilcoxon
from segfaith.results.statistics.analysis import Analysis, Options, analyse
from segfaith.results.statistics.paired import compare
from segfaith.results.statistics.power import images_needed
from segfaith.results.statistics.summary import TABLE_METRICS


def tables(section: Section) -> dict[str, Table]:
    return {block.name: block for block in section.blocks() if isinstance(block, Table)}


def points(section: Section) -> list[str]:
    return [plain(item) for block in section.blocks() if isinstance(block, Points) for item in block.items]


def texts(section: Section) -> str:
    """All sentences of a section."""
    prose = [plain(block.text) for block in section.blocks() if isinstance(block, Prose)]
    return " ".join([*prose, *points(section)])


def cells(table: Table) -> dict[str, list[str]]:
    """The words of each row by its first cell."""
    return {plain(row[0].text): [plain(cell.text) for cell in row[1:]] for row in table.rows}


def folds(section: Section) -> list[Fold]:
    return [block for block in section.blocks() if isinstance(block, Fold)]


# The report as a whole


def test_all_topics_come_in_reading_order(analysis: Analysis) -> None:
    names = [section.name for section in sections(analysis)]
    assert names == [
        *(
            "verdict",
            "leaderboard",
            "influence",
            "summary",
            "limits",
            "scores",
            "worth",
            "significance",
            "claims",
            "randomisation",
            "rankings",
            "curves",
            "leakage",
        ),
        *("denominators", "properties", "unmeasured", "runs"),
    ]
    assert len(topics(analysis)) == len(TOPICS)
    assert set(topics(analysis)) == {*names, "evidence"} - {"unmeasured"}


def test_names_of_sections_and_tables_are_one_of_a_kind_and_rows_are_whole(analysis: Analysis) -> None:
    found = [table for section in sections(analysis) for table in tables(section).values()]
    names = [table.name for table in found] + [section.name for section in sections(analysis)]
    assert len(names) == len(set(names)) > 30
    for table in found:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.name


def test_everything_that_is_linked_to_a_definition_has_one(analysis: Analysis) -> None:
    built = sections(analysis)
    defined = {column.define for section in built for table in tables(section).values() for column in table.columns}
    linked = set(re.findall(r"#def-([\w-]+)", str(built)))
    assert len(defined | linked) > 25
    assert unknown((defined | linked) - {""}) == set()


def test_links_lead_to_sections_that_may_be_there(analysis: Analysis) -> None:
    targets = set(re.findall(r'href="#(?!def-)([\w-]+)"', str(sections(analysis))))
    assert targets <= {*topics(analysis), "gallery"}
    assert targets


def test_what_was_not_measured_is_gathered_with_the_command_that_measures_it(two_runs: list[Run]) -> None:
    bare = [
        replace(
            run,
            curves=run.curves.iloc[:0],
            randomisation=run.randomisation.iloc[:0],
            records=run.records.assign(odd_fair_abs=nan),
        )
        for run in two_runs
    ]
    built = {section.name: section for section in sections(analyse(bare))}
    assert not {"curves", "rankings", "leakage", "randomisation", "evidence"} & set(built)
    said = points(built["unmeasured"])
    for title, command in {
        "Curves": "segfaith run FILE --set 'evaluation.k=[",
        "Rankings under other settings": "segfaith run FILE --set 'evaluation.occlusion=[",
        "Leakage": "segfaith run FILE --set 'evaluation.leakage=\"detailed\"'",
        "Randomised models": "segfaith randomise DIR",
        "Who finds the planted evidence": "segfaith run quickstart",
    }.items():
        (line,) = [line for line in said if line.startswith(f"{title}: ")]
        assert f"Measure it: {command}" in line
    assert len(said) == 5
    whole = " ".join(texts(section) for section in built.values())
    assert whole.count("what the model has learnt was not measured") == 1, "repeated caveats are said once"


def test_several_data_sets_stand_under_headings_of_their_own(two_runs: list[Run], tmp_path: Path) -> None:
    other = load_run(make_run(tmp_path / "sbd", data="sbd", samples=("a", "b", "c", "d"), maps=0, curves=False))
    built = {section.name: section for section in sections(analyse([two_runs[0], other]))}
    headings = {
        name: [plain(part.text) for part in section.parts if isinstance(part, Prose) and part.kind == "heading"]
        for name, section in built.items()
    }
    assert headings["scores"] == ["voc2012 val", "sbd val"]
    assert headings["limits"] == ["voc2012 val", "sbd val"]
    assert headings["summary"] == ["What was run", "What came out: voc2012 val"]
    last = built["curves"].parts[-1]
    assert isinstance(last, Prose)
    assert last.kind == "missing", "of the data set without curves"
    names = [table for section in built.values() for table in tables(section)]
    assert len(names) == len(set(names))


# Scores


def test_the_table_holds_the_means_of_run_level_means(two_runs: list[Run], analysis: Analysis) -> None:
    built = tables(scores.section(analysis))
    means = built["means-voc2012-val"]
    place = [column.label for column in means.columns].index("TDD ↑") - 1
    body = cells(means)
    assert list(body)[:4] == ["gpa", "ega", "ria", "dea"]
    assert set(body) == set(two_runs[0].records["method"])
    for method, row in body.items():
        values = np.array([run.records[run.records["method"] == method]["tdd"].mean() for run in two_runs])
        assert row[place] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"
    ria = cells(built["paper-voc2012-val"])["ria"]
    assert ria[:2] == [body["ria"][place], "0.522 ± 0.050"], "ours and the paper's"


def measured(sample: str, method: str, **values: float) -> dict[str, Any]:
    base = dict.fromkeys(TABLE_METRICS, 0.0) | {"s": 0.5, "status": "ok", "reason": ""}
    return {"sample_id": sample, "method": method} | base | values


def test_the_table_has_the_controls_and_says_how_many_entered_and_what_is_undefined() -> None:
    values = {"tdd_gain": 0.1, "odd_abs": 0.2, "leak_abs": 0.4, "insertion_gain": 0.05, "stability": nan}
    rows = [
        measured("a", "dea", tdd=0.5, runtime_s=2, **values),
        measured("b", "dea", tdd=0.25, runtime_s=1, **values),
        measured("a", "ria", stability=nan),
        measured("b", "ria", stability=0.8),
        *(measured(sample, "random_cells", tdd=0.4) for sample in "ab"),
    ]
    about = description(0, ["a", "b"], "voc2012", "net", ["dea", "ria", "random_cells"])
    table = tables(scores.section(analyse([run_of(about, pd.DataFrame(rows))])))["means-voc2012-val"]
    assert [column.label for column in table.columns] == [
        *(
            "Method",
            "TDD, pooled ↑",
            "OT abs, pooled ↓",
            "TDD ↑",
            "TDD gain ↑",
            "OT abs ↓",
            "Leak abs ↓",
            "Ins. ↑",
            "Fidelity ↑",
            "Fid. outside ↑",
            "Stab. ↑",
            "Time s ↓",
        ),
        *("n", "Undef.", "Not ok"),
    ]
    body = cells(table)
    assert list(body) == ["ria", "dea", "random_cells"]
    assert body["dea"] == [
        *("0.375", "0.200", "0.375", "0.100", "0.200", "0.400", "0.050"),
        *("0.000", "0.000", "n/a", "1.500", "2", "2", "0"),
    ]
    assert body["random_cells"][0] == "0.400"
    assert {row[0].text: row[3].under for row in table.rows}[
        "dea"
    ] == "median\N{NO-BREAK SPACE}0.375; IQM\N{NO-BREAK SPACE}0.375"
    notes = {row[0].text: row[10].note for row in table.rows}
    assert notes == {"dea": "(0)", "ria": "(1)", "random_cells": ""}


def test_undefined_counts_what_was_to_be_measured(two_runs: list[Run], analysis: Analysis) -> None:
    """Stability is asked for on half of the samples; the others are no undefined values."""
    section = scores.section(analysis)
    means = tables(section)["means-voc2012-val"]
    labels = [column.label for column in means.columns]
    for row in means.rows:
        method = str(row[0].text)
        records = pd.concat([run.records for run in two_runs])
        own = records[(records["method"] == method) & (records["status"] == "ok")]
        undefined = own[analysis.parts[0].table].isna().sum().sum() - own["stability"].isna().sum()
        assert row[labels.index("Undef.")].text == str(undefined)
        assert row[labels.index("Stab. ↑")].note == "", "fewer by the settings, which one sentence says"
    assert "The settings ask for stability on 16 of 30 samples." in texts(section)
    assert analysis.parts[0].summary["undefined"].sum() > 100, "the file counts them all"


def test_bold_is_the_best_of_the_analysis(analysis: Analysis) -> None:
    means = tables(scores.section(analysis))["means-voc2012-val"]
    bold = {
        (str(row[0].text), means.columns[place].define)
        for row in means.rows
        for place, cell in enumerate(row)
        if cell.best
    }
    assert bold == {(best.method, metric) for metric, best in analysis.parts[0].best.items() if best.method}
    assert ("ria", "tdd") in bold
    assert "leak_abs" not in {metric for _, metric in bold}


def test_wins_are_the_tables_own(two_runs: list[Run], analysis: Analysis) -> None:
    table = tables(scores.section(analysis))["wins-voc2012-val"]
    assert table.columns[1].label == "TDD ↑"
    assert plain(table.caption) == "voc2012 val: in how many runs"
    shown = {name: row[0] for name, row in cells(table).items()}
    assert len(shown) == 6
    own = analysis.parts[0].wins
    for row in own[own["metric"] == "tdd"].to_dict("records"):
        name = f"{row['first']} against {row['second']}"
        if name in shown:
            assert shown.pop(name) == row["count"]
    assert shown == {}
    only = tables(scores.section(analyse(two_runs[:1])))["wins-voc2012-val"]
    assert plain(only.caption) == "voc2012 val: in the only run"
    assert {cell for row in cells(only).values() for cell in row} <= {"better", "worse", "draw", "n/a"}


# Summary


def came_out(analysis: Analysis) -> list[str]:
    _, second = [block for block in summary.section(analysis).parts if isinstance(block, Points)]
    return [plain(item) for item in second.items]


def leaders(analysis: Analysis) -> list[str]:
    """The points under the verdict's cards."""
    return points(verdict.section(analysis))


def test_the_verdict_and_the_summary_say_what_the_numbers_say(two_runs: list[Run], analysis: Analysis) -> None:
    gains = {
        name: np.mean([run.records[run.records["method"] == name]["tdd_gain"].mean() for run in two_runs])
        for name in ("ria", "dea")
    }
    (line,) = [line for line in leaders(analysis) if "TDD gain" in line]
    assert f"ria (mean TDD gain {gains['ria']:.3f}), then dea ({gains['dea']:.3f}); better in 2 of 2 runs" in line
    pairs = analysis.parts[0].pairs.set_index(["metric", "first", "second"])
    p = f"{pairs.loc[('tdd_gain', 'ria', 'dea'), 'p_page']:.3f}".removeprefix("0")
    assert f"; over images ria is significantly better (p = {p})." in line
    said = came_out(analysis)
    assert said[0] == "All four are significantly better than random cells by TDD (p < .05)."
    assert any(re.match(r"Of the paper’s 15 claims \d+ hold", line) for line in said)


def test_the_best_are_sought_in_the_runs_that_have_all_methods(two_runs: list[Run]) -> None:
    """ega is best in the runs without gpa, whatever it is in the other; so those do not say that it beats gpa."""
    first, second = (replace(run, records=run.records[run.records["method"].isin(("gpa", "ega"))]) for run in two_runs)
    second = replace(second, records=second.records[second.records["method"] == "ega"].assign(odd_abs=0.0))
    own = first.records.assign(odd_abs=0.5 - (first.records["method"] == "gpa") * 0.25)
    lines = leaders(analyse([replace(first, records=own), second]))
    assert any("gpa (mean OT abs 0.250), then ega (0.500)" in line for line in lines)
    assert any("over the 1 of 2 runs that have all methods." in line for line in lines)


@pytest.mark.parametrize(
    ("gpa", "words_"), [(0.18405, "the best two are a draw"), (0.2, "ega (mean OT abs 0.184), then gpa")]
)
def test_the_verdict_calls_means_that_hardly_differ_a_draw(gpa: float, words_: str) -> None:
    rows = [
        dict.fromkeys(TABLE_METRICS, nan)
        | {"sample_id": "x", "method": name, "status": "ok", "reason": "", "s": 0.5, "odd_abs": value}
        for name, value in (("ega", 0.184), ("gpa", gpa))
    ]
    run = run_of(description(0, ["x"], "voc2012", "netA", ["ega", "gpa"]), pd.DataFrame(rows))
    (line,) = leaders(analyse([run]))
    assert words_ in line


def test_the_verdict_says_where_the_best_mean_is_of_easier_images() -> None:
    """GPA failed on the hard image y: its mean of .3 is below EGA's .45, but EGA leaks less on x."""
    values = {("x", "ega"): 0.2, ("y", "ega"): 0.7, ("x", "gpa"): 0.3}
    rows = [
        dict.fromkeys(TABLE_METRICS, nan)
        | {"sample_id": image, "method": name, "status": "ok", "reason": "", "s": 0.5, "odd_abs": value}
        for (image, name), value in values.items()
    ]
    run = run_of(description(0, ["x", "y"], "voc2012", "netA", ["ega", "gpa"]), pd.DataFrame(rows))
    (line,) = leaders(analyse([run]))
    assert "gpa has the best mean OT abs 0.300, but over the images that both have ega is ahead." in line


def test_gains_that_are_not_above_zero_in_every_run_are_named() -> None:
    values = {"ega": (0.2, 0.4), "gpa": (-0.3, 0.1), "ria": (-0.1, 0.3), "dea": (0.0, 0.0)}
    runs = []
    for place in range(2):
        rows = [
            dict.fromkeys(TABLE_METRICS, nan)
            | {"sample_id": "x", "method": name, "status": "ok", "reason": "", "s": 0.5, "tdd_gain": pair[place]}
            for name, pair in values.items()
        ]
        runs.append(run_of(description(place, ["x"], "voc2012", "netA", list(values)), pd.DataFrame(rows)))
    assert came_out(analyse(runs)) == ["TDD gain: above 0 in the mean, but not in every run: ria."]


def test_the_test_against_chance_is_told_in_words() -> None:
    def told(**verdicts: tuple[bool, float]) -> list[str]:
        rows = [
            {"first": name, "significant": significant, "effect": effect}
            for name, (significant, effect) in verdicts.items()
        ]
        called = {name: name.upper() for name in verdicts}
        return [plain(sentence) for sentence in summary.against_chance(pd.DataFrame(rows), called, metric_ref("tdd"))]

    good, bad, open_ = (True, 0.9), (True, -0.9), (False, 0.1)
    assert told(gpa=good, ega=good) == ["Both are significantly better than random cells by TDD (p < .05)."]
    assert told(gpa=bad) == ["GPA is significantly worse than random cells by TDD (p < .05)."]
    assert told(gpa=good, ega=open_, dea=good) == [
        "GPA and DEA are significantly better than random cells by TDD (p < .05).",
        "EGA: the test does not tell it from random cells.",
    ]
    assert told(gpa=open_, ega=open_) == ["Both: the test does not tell them from random cells."]


def outlier(runs: list[Run], metric: str) -> list[Run]:
    """As if ega were a little above ria by the metric on all images but one, on which ria is far above."""
    changed = []
    for run in runs:
        records = run.records[run.records["method"].isin(("ria", "ega"))].copy()
        chosen = records["status"] == "ok"
        place = records["sample_id"].str.removeprefix("img").where(chosen, "0").astype(int)
        value = place / 1000 + (records["method"] == "ega") * (0.01 + place / 10_000)
        value += 5.0 * ((records["method"] == "ria") & (place == 3))
        records.loc[chosen, metric] = value[chosen]
        changed.append(replace(run, records=records))
    return changed


@pytest.mark.parametrize("metric", ["tdd", "odd_abs"])
def test_the_winner_is_by_the_ranks_of_the_test(two_runs: list[Run], metric: str) -> None:
    """tdd: the higher wins; odd_abs: the lower. One image sets the means, and the report says so."""
    changed = analyse(outlier(two_runs, metric))
    pairs = changed.parts[0].pairs
    (row,) = pairs[pairs["metric"] == metric].to_dict("records")
    assert row["significant"]
    assert row["effect"] * row["difference"] < 0
    by_ranks, by_means = ("ega", "ria") if metric == "tdd" else ("ria", "ega")
    assert significance.winner(row, metric) == by_ranks
    (cells_,) = tables(significance.section(changed))[f"pairs-{metric}-voc2012-val"].rows
    verdict = cells_[1]
    assert verdict.text == f"{by_ranks} is better"
    assert "the pooled drop says the opposite of typical images; a few outliers set it" in verdict.under
    if metric == "odd_abs":  # of the metrics whose best method is named
        (line,) = [line for line in leaders(changed) if f"{by_means} (mean {METRICS[metric].label}" in line]
        assert f"over images {by_ranks} is significantly better (p" in line
        assert "typical images say the opposite of these means, which a few outliers set" in line


# Limits


def test_the_limits_say_what_is_missing(analysis: Analysis) -> None:
    left = " ".join(points(limits.section(analysis)))
    assert "The p-values speak of other images under this one model, not of other models." in left
    assert "4 samples were skipped or failed, at least in part" in left
    assert "2 of 30 measured samples have s < .05" in left
    assert "Highest TDD by operator: ria under mean and zero and dea under blur; Kendall’s W = " in left


def test_a_single_run_is_not_tested(two_runs: list[Run]) -> None:
    single = analyse(two_runs[:1])
    section = significance.section(single)
    first = folds(section)[0]
    assert plain(first.title) == "TDD: not testable"
    table = tables(section)["pairs-tdd-voc2012-val"]
    heads = [column.label for column in table.columns]
    assert {plain(row[heads.index("Verdict")].text) for row in table.rows} == {"not testable: one run"}
    assert not {"p", "p (Holm)", "Effect", "95 % interval"} & set(heads), "no column without any value"
    assert "This is a single run, so differences are not tested" in texts(section)
    assert "--single-run" in texts(section)
    assert "over images" not in " ".join(leaders(single)), "no test is told where none was made"
    assert "It is a single run: nothing here speaks of other seeds or models" in texts(limits.section(single))


def test_a_single_run_is_tested_if_asked(two_runs: list[Run]) -> None:
    single = analyse(two_runs[:1], Options(single_run=True))
    section = significance.section(single)
    assert "told apart" in plain(folds(section)[0].title)
    rows = tables(section)["pairs-tdd-voc2012-val"].rows
    assert any("is better" in row[1].text and "one run:" in row[1].under for row in rows)
    assert re.search(r"over images \w+ is significantly better \(p", " ".join(leaders(single)))
    left = " ".join(points(limits.section(single)))
    assert "It is a single run: nothing here speaks of other seeds or models" in left
    assert "the p-values speak of other images under this run alone" in left
    assert "not tested" not in left


def test_one_operator_is_said_to_be_the_only_one_also_without_curves(two_runs: list[Run]) -> None:
    bare = []
    for run in two_runs:
        settings = run.description["settings"]
        settings = settings | {"evaluation": settings["evaluation"] | {"occlusion": ["mean"], "k": [0.2]}}
        bare.append(replace(run, curves=run.curves.iloc[:0], description=run.description | {"settings": settings}))
    left = " ".join(points(limits.section(analyse(bare))))
    assert "No other operator was measured: their lead may rest on that." in left


def test_runs_without_a_measured_sample_are_no_runs_to_conclude_from(two_runs: list[Run]) -> None:
    skipped = replace(two_runs[1], records=two_runs[1].records.assign(status="skipped"))
    left = " ".join(points(limits.section(analyse([two_runs[0], skipped]))))
    assert "It is a single run: nothing here speaks of other seeds or models" in left


def test_absent_runs_come_first_among_what_cannot_be_concluded(two_runs: list[Run], tmp_path: Path) -> None:
    absent = ("voc2012-netB-seed1: planned, but not here: weights missing", "<b>")
    section = limits.section(analyse(two_runs, absent=absent))
    assert section.title == "What can’t be concluded"
    assert points(section)[:2] == list(absent)
    assert points(section)[2].startswith("The p-values speak of other images")
    assert "&lt;b&gt;" in str(section)
    other = load_run(make_run(tmp_path / "sbd", data="sbd", samples=("a", "b"), maps=0, skipped=0, failed=0))
    several = limits.section(analyse([*two_runs, other], absent=absent[:1]))
    assert isinstance(several.parts[0], Points)
    assert [plain(item) for item in several.parts[0].items] == [absent[0]]
    headings = [plain(part.text) for part in several.parts if isinstance(part, Prose)]
    assert headings == ["voc2012 val", "sbd val"]


def test_filters_hold_for_all_sections(two_runs: list[Run]) -> None:
    filtered = analyse(two_runs, Options(min_s=0.4))
    left = " ".join(points(limits.section(filtered)))
    (agreed,) = re.findall(
        r"By operator: (Kendall’s W = [\d.]+ \(chance 0.33; [−\d.]+ beyond chance, p .*?\)) over",
        texts(rankings.section(filtered)),
    )[:1]
    assert f"{agreed} over 4 methods" in left
    kept = [enough(run, 0.4) for run in two_runs]
    rows = pd.concat([run.records for run in kept])
    counts = rows[(rows["status"] == "ok") & (rows["method"] == "ria")][["tdd", "stability"]].count()
    assert 0 < counts["tdd"] < 30
    assert f"stability on {counts['stability']} of {counts['tdd']} samples" in texts(scores.section(filtered))
    few = " ".join(points(limits.section(analyse(two_runs, Options(min_s=0.85)))))
    assert re.search(r"; how far the rankings agree is not testable: \d images, at least 10 needed \(rankings\)", few)
    bad = sum(run.records.loc[run.records["status"] != "ok", "sample_id"].nunique() for run in kept)
    assert f"{bad} samples were skipped or failed" in left
    assert "to go" not in left, "what is left out is finished all the same"
    assert "Only samples with s >= 0.4 entered" in left
    assert "have s < .05" not in left


# Significance


def test_the_tests_are_those_of_the_pairs(two_runs: list[Run], analysis: Analysis) -> None:
    section = significance.section(analysis)
    assert "Compared here: gpa, ega, ria, dea and random_cells." in texts(section)
    row = compare(analysis.parts[0].paired("tdd")).set_index(["first", "second"]).loc[("ega", "ria")]
    line = cells(tables(section)["pairs-tdd-voc2012-val"])["ega − ria"]
    numbers = [f"{row[name]:.3f}".replace("-", "−") for name in ("value_first", "value_second", "difference")]
    assert line[:4] == ["ria is better", *numbers]
    page = analysis.parts[0].pairs.set_index(["metric", "first", "second"]).loc[("tdd", "ega", "ria"), "p_page"]
    assert page > row["p_holm"], "over the pairs by all metrics"
    assert line[5:-1] == ["< .001", f"{page:.3f}".removeprefix("0"), str(row["images"]), "2"]
    counted = re.search(r"Holm’s correction is over (\d+) tests. TDD gain repeats (\d+) tests of TDD", texts(section))
    assert counted
    pairs = analysis.parts[0].pairs
    tested = pairs[pairs["why"] == ""]
    again = int((tested["metric"] == "tdd_gain").sum())
    assert [int(number) for number in counted.groups()] == [len(tested) - again, again]
    heads = [column.label for column in tables(section)["pairs-tdd-voc2012-val"].columns]
    assert "95 % interval" not in heads, "no interval below twenty images"
    leak = cells(tables(section)["pairs-odd_abs-voc2012-val"])["gpa − ria"]
    assert leak[0] == "ria is better", "lower is better: RIA's leakage of 0.2 against GPA's of 0.3"
    ranks = next(plain(block.text) for block in folds(section)[0].parts if isinstance(block, Prose))
    assert re.match(r"Mean ranks over 1\d images \(1 is best\): ria 1\.\d\d, dea ", ranks)
    assert "Friedman’s test: chi-square " in ranks
    assert plain(folds(section)[-1].title) == "How to read these tables"


def test_the_section_says_how_many_images_would_tell_the_best_two_apart(
    two_runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ria is ahead of dea by .1 on ten images of fifteen, and as far behind on five."""
    monkeypatch.setattr(wilcoxon, "RESAMPLES", 199)  # no p of these ties is read
    changed = []
    for run in two_runs:
        behind = run.records["sample_id"].str.removeprefix("img").astype(int) % 3 == 0
        lead = pd.Series(np.where(behind, -0.1, 0.1), run.records.index)
        values = run.records["method"].map({"ria": 0.5, "dea": 0.5}).fillna(0.1)
        values -= lead.where(run.records["method"] == "dea", 0)
        changed.append(replace(run, records=run.records.assign(fidelity=values)))
    section = significance.section(analyse(changed))
    said = [line for line in points(section) if " by Fidelity; " in line]
    assert images_needed([-1] * 5 + [1] * 10) == 95
    assert said == ["About 95 images would tell ria from dea by Fidelity; these runs have 15."]
    pairs = tables(section)["pairs-tdd-voc2012-val"]
    assert pairs.columns[-1].label == "Images needed"
    assert cells(pairs)["ria − dea"][-1] == "11"
    flat = [replace(run, records=run.records.assign(fidelity=0.1)) for run in two_runs]
    assert not [line for line in points(significance.section(analyse(flat))) if "Fidelity" in line], "a draw"


def test_what_cannot_be_tested_says_why(two_runs: list[Run]) -> None:
    few = [replace(run, records=run.records[run.records["sample_id"] < "img04"]) for run in two_runs]
    section = significance.section(analyse(few))
    verdicts = {plain(row[1].text) for row in tables(section)["pairs-tdd-voc2012-val"].rows}
    assert any(re.fullmatch(r"not testable: \d images with a difference, at least 6 needed", one) for one in verdicts)
    assert "Friedman’s test is not testable: " in texts(section)
    alone = [replace(run, records=run.records[run.records["method"].isin(("dea", "mask"))]) for run in two_runs]
    nobody = significance.section(analyse(alone))
    assert not nobody.measured
    assert (
        "Not testable: fewer than two methods besides controls and variants. Measure it: segfaith report DIR --compare"
        in texts(nobody)
    )


# Claims, randomisation, provenance


def test_claims_are_the_tables_own(analysis: Analysis, tmp_path: Path) -> None:
    section = claims.section(analysis)
    body = cells(tables(section)["claims-voc2012-val"])
    for row in analysis.parts[0].claims.to_dict("records"):
        name = row["claim"][0].upper() + row["claim"][1:]
        assert body[name][0].split()[1] == row["holds"].split()[0]
        assert body[name][1] == row["count"].replace(" runs", "")
        assert body[name][3] == row["numbers"]
    assert folds(section) == []
    other = claims.section(analyse([load_run(make_run(tmp_path / "other", data="folder", maps=0))]))
    assert [plain(fold.title) for fold in folds(other)] == ["The claims on these data"]
    assert "These data are not the paper’s: its claims are not about them." in texts(other)


def test_a_stopped_check_is_said_and_constant_maps_are_counted(two_runs: list[Run]) -> None:
    again = two_runs[0].randomisation.copy()
    again["finished"] = False
    again.loc[again["method"] == "ega", ["spearman", "pearson"]] = nan
    section = randomisation.section(analyse([replace(two_runs[0], randomisation=again)]))
    assert "run0: the randomisation check was stopped after stage 3; the later parts were not drawn anew" in texts(
        section
    )
    rows = tables(section)["randomisation-voc2012-val"].rows
    counts = {row[7].text for row in rows if row[0].text == "ega"}
    assert counts == {"4"}, "constant maps of four samples, at each stage"
    assert {row[7].text for row in rows if row[0].text == "ria"} == {"0"}


def test_provenance_has_a_row_a_run_and_a_sentence_on_each(analysis: Analysis) -> None:
    section = provenance.section(analysis)
    rows = cells(tables(section)["provenance"])
    assert list(rows) == ["voc2012-netA-seed0", "voc2012-netA-seed1"]
    assert rows["voc2012-netA-seed0"][1:3] == ["netA", "netA.pth"]
    said = points(section)
    assert said[0] == (
        "voc2012 val: netA, weights netA.pth, seed 0; 15 of 16 samples measured, 1 skipped, 0 failed; 1 with s < 0.05"
    )
    assert said[-1].endswith("so their spread says nothing of other images.")


def test_areas_and_ranks_are_the_tables_own(analysis: Analysis) -> None:
    (part,) = analysis.parts
    areas = cells(tables(curves.section(analysis))["areas-voc2012-val"])
    own = part.areas[part.areas["kind"] == "target_deletion"].set_index("method")["area"]
    assert {name: row[0] for name, row in areas.items()} == {name: f"{own[name]:.3f}" for name in areas}
    assert "dea@alpha=0.5" not in areas, "variants are left out"
    ranks = tables(rankings.section(analysis))["ranks-occlusion-tdd-voc2012-val"]
    table = part.ranking("tdd", "occlusion")
    for row in table.to_dict("records"):
        place = [column.label for column in ranks.columns].index(row["setting"]) - 1
        assert cells(ranks)[row["method"]][place] == f"{row['rank']:g}"


def test_the_cross_fitted_ranking_stands_beside_the_others(analysis: Analysis) -> None:
    """ria loses its lead under blur, and with it its place."""
    section = rankings.section(analysis)
    table = tables(section)["crossfit-tdd-voc2012-val"]
    own = analysis.parts[0].cross_fitted("tdd").set_index("method")
    assert {name: row[0] for name, row in cells(table).items()} == {
        **{"gpa": "none", "ega": "none"},
        **{"ria": "mean", "dea": "mean"},
    }
    for name, row in cells(table).items():
        assert row[1:] == [
            *(f"{own.loc[name, 'mean_building']:.3f}", f"{own.loc[name, 'rank_building']:g}"),
            *(f"{own.loc[name, 'mean_crossfitted']:.3f}", f"{own.loc[name, 'rank_crossfitted']:g}"),
        ]
    assert [column.label for column in table.columns][2:5:2] == [
        "Building operator (mean)",
        "Cross-fitted (zero, blur)",
    ]
    said = "ria and dea change places (by means; no test stands behind it)."
    assert f"Cross-fitted, over {own['images'].iloc[0]} images: {said}" in texts(section)
    assert {"crossfit-odd_abs", "crossfit-insertion_gain"} <= {
        name.replace("-voc2012-val", "").replace("odd-", "odd_").replace("insertion-", "insertion_")
        for name in tables(section)
    }


def of_one_operator(run: Run, **evaluation: Any) -> Run:
    """The run as if it had been scored under its first operator alone."""
    settings = run.description["settings"]
    asked = settings["evaluation"] | {"occlusion": ["mean"]} | evaluation
    about = run.description | {"settings": settings | {"evaluation": asked}}
    return replace(run, description=about, curves=run.curves[run.curves["occlusion"] == "mean"])


def test_with_one_operator_the_section_says_how_to_measure_another(two_runs: list[Run]) -> None:
    """With several k there are rankings all the same; with one there are none."""
    command = 'segfaith run FILE --set \'evaluation.occlusion=["mean","blur","zero"]\''
    section = rankings.section(analyse([of_one_operator(run) for run in two_runs]))
    said = texts(section)
    assert "Cross-fitted: no other operator was measured than mean, which a method here was built with." in said
    assert f"Measure it: {command}" in said.replace("`", "")
    bare = [of_one_operator(run, k=0.2) for run in two_runs]
    nothing = rankings.section(analyse([replace(run, curves=run.curves.iloc[:0]) for run in bare]))
    assert not nothing.measured
    assert (
        "the maps of ria and dea were made by that operator, so that their ranks may rest on it. Measure it: "
        in texts(nothing)
    )


def test_fidelity_by_the_building_operator_is_called_circular(two_runs: list[Run]) -> None:
    with_fidelity = [replace(run, records=run.records.assign(fidelity=0.3)) for run in two_runs]
    said = texts(rankings.section(analyse(with_fidelity)))
    assert "Fidelity occluded its sets by mean, the operator behind the maps of ria and dea: for them it is" in said
    assert "--set evaluation.fidelity_occlusion=blur" in said
    mended = [of_one_operator(run, fidelity_occlusion="blur") for run in with_fidelity]
    assert "circular" not in texts(rankings.section(analyse(mended)))
    assert "Fidelity occluded" not in texts(rankings.section(analyse(two_runs))), "it was not measured"


# Planted evidence


def planted(run: Run, **changes: Any) -> Run:
    """The run as if evidence had been planted, its average precision in the order of TDD."""
    records = run.records.copy()
    records["kind"] = "marker"
    records["evidence_ap"] = records["method"].map({"gpa": 0.2, "ega": 0.1, "ria": 0.8, "dea": 0.6}).fillna(0.05)
    for name in ("evidence_mass", "evidence_top", "odd_beyond_abs"):
        records[name] = 0.5
    records["majority_class"] = records["class_index"]
    about = run.description | {"model": run.description["model"] | {"proven_kinds": "marker"}}
    return replace(run, records=records.assign(**changes), description=about)


def test_metrics_are_held_against_planted_evidence(two_runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LEAST_SCENES", 10)  # these runs have fifteen
    analysis = analyse([planted(run) for run in two_runs])
    section = evidence.section(analysis)
    said = points(section)
    assert said[0] == "Scenes that entered: marker 15."
    found = tables(section)
    body = cells(found["evidence-scores-voc2012-val"])
    assert len(found["evidence-scores-voc2012-val"].rows) == 7
    assert body["marker"][1:] == ["0.050", "0.500", "0.500"], "of the last method"
    tdd = found["agreement-voc2012-val"].rows[0]
    row = analysis.parts[0].evidence_agreements.iloc[0]
    assert plain(tdd[2].text).startswith(f"{row['tau']:.2f} [{row['low']:.2f}, ")
    assert [plain(part.text) for part in section.parts if isinstance(part, Prose) and part.kind == "heading"] == [
        "Who finds the evidence",
        "What leakage says of a true map",
    ]
    assert plain(tdd[-1].text) == "too few methods for a verdict"


def test_of_scenes_it_is_said_that_the_probability_also_needs_the_kind(two_runs: list[Run]) -> None:
    def said(run: Run, name: str, score: str) -> bool:
        about = deepcopy(planted(run).description)
        about["data"]["name"] = name
        about["settings"]["target"] = {"score": score}
        section = evidence.section(analyse([replace(planted(run), description=about)]))
        return any("target.versus=twin" in part.text for part in section.parts if isinstance(part, Prose))

    assert said(two_runs[0], "scenes", "probability")
    assert not said(two_runs[0], "scenes", "conditional")
    assert not said(two_runs[0], "folder", "probability")


def test_of_few_scenes_no_ranking_is_shown(two_runs: list[Run]) -> None:
    section = evidence.section(analyse([planted(run) for run in two_runs]))
    assert "agreement-voc2012-val" not in tables(section)


def test_kinds_without_a_proof_leave_nothing_to_conclude_from(two_runs: list[Run]) -> None:
    section = evidence.section(analyse([planted(two_runs[0], kind="context")]))
    assert points(section) == [
        "Left out: context: unproven: the model was not shown to decide by this evidence.",
        "Nothing is left from which to conclude.",
    ]
    assert tables(section) == {}
    assert section.measured


def test_the_judgement_shows_the_metrics_that_were_measured_and_which_may_lead(two_runs: list[Run]) -> None:
    runs = [replace(run, records=run.records.assign(fidelity=run.records["tdd"])) for run in two_runs]
    section = worth.section(analyse(runs))
    body = cells(tables(section)["judgement"])
    assert body["Fidelity"][0] == "yes"
    assert body["TDD"][0] == "no"
    assert body["OT abs"][1] == "blind (marker, plain, conjunction, redundancy); reversed (context)"
    assert "Fid. outside" not in body
    assert "May lead a conclusion: Fidelity." in texts(section)
    bare = worth.section(analyse(two_runs))
    assert "May lead a conclusion: no metric that was measured here." in texts(bare)
    assert "Fidelity" not in cells(tables(bare)["judgement"])


def test_a_report_is_the_same_each_time(two_runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wilcoxon, "RESAMPLES", 199)
    first, second = (markdown(sections(analyse([planted(run) for run in two_runs]))) for _ in range(2))
    assert first == second


def test_what_is_counted_by_target_says_so(tmp_path: Path) -> None:
    """Six images of two targets each, of one of which the model misses both."""
    directory = make_run(tmp_path / "run", samples=tuple("abcdef"), maps=0, curves=False, skipped=0, failed=0)

    def miss(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | ({"target_iou": 0.01, "s": 0.01} if row["sample_id"] == "b" else {"s": 0.5}) for row in rows]

    edit_rows(directory / "records/00000.parquet", miss)
    single = analyse([load_run(directory)])
    assert "The model misses the target in 1 of 6 images" in markdown(sections(single))
    analysis = analyse([load_run(repeat_targets(directory))])
    text = markdown(sections(analysis))
    assert "The model misses 2 of 12 targets (IoU below 0.1)" in text
    assert "2 of 12 measured targets have" in text
    assert "6 images (12 targets)" in markdown([summary.section(analysis)])
    assert "Spearman, maps of 4 images" in markdown([verdict.section(analysis)])
    assert "6 of 6 samples (12 of 12 targets) measured" in markdown([provenance.section(analysis)])
    note = "Every mean, test and interval is over images: the value of an image is the mean over its targets"
    for topic in (verdict, scores, significance, randomisation, provenance):
        assert note in markdown([topic.section(analysis)]), topic.__name__
        assert note not in markdown([topic.section(single)]), topic.__name__
