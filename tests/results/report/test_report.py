"""The report page: its numbers re-derived, its rules for samples, and that it escapes, resolves and holds together."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from html_page import Page
from made_runs import description, make_run
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.report import page_charts
from segfaith.results.report import topics as report
from segfaith.results.report.blocks import number, p_value, p_words, spread, words
from segfaith.results.report.sections import evidence as page_evidence
from segfaith.results.report.sections import scores as page_results
from segfaith.results.report.sections import significance as page_tests
from segfaith.results.report.sections import summary as page_words
from segfaith.results.report.sections.limits import limits
from segfaith.results.report.trust_page import trust_page
from segfaith.results.statistics import evidence as trust
from segfaith.results.statistics import paired as significance
from segfaith.results.statistics import summary as tables

SEVEN = ("gpa", "ega", "ria", "dea", "dea@alpha=0.5", "random_cells", "mask")
METHODS = ("gpa", "ega", "dea", "dea@alpha=0.5", "mask")
COLUMNS = ("sample_id", "method", "status", "s", *tables.TABLE_METRICS)
EVIL = """<img src=x onerror="alert('id')">"""


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """A coarse bootstrap: no test here looks at its intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "RESAMPLES", 199)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("made")
    ids = tuple(f"img{i:02d}" for i in range(16))
    runs = [make_run(folder / f"run{seed}", seed=seed, samples=ids, maps=2, methods=SEVEN) for seed in (0, 1)]
    return [load_run(run) for run in runs]


@pytest.fixture(scope="module")
def text(made: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = report.write_report(made, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_table_holds_the_means_of_run_level_means(made: list[Run], page: Page) -> None:
    header, *body = page.rows["means-voc2012-val"]
    column = [cell.rstrip("?").strip() for cell in header].index("TDD ↑")
    means = {
        method: np.array([run.records[run.records["method"] == method]["tdd"].mean() for run in made])
        for method in made[0].records["method"].unique()
    }
    assert [row[0] for row in body][:4] == ["gpa", "ega", "ria", "dea"]
    assert len(body) == len(means)
    for row in body:
        values = means[row[0]]
        assert row[column].startswith(f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"), row
    ria = next(row for row in body if row[0] == "ria")
    assert ria[column].endswith("paper: 0.522 ± 0.050"), "the paper's figure stands under ours"


def test_the_summary_says_what_the_numbers_say(made: list[Run]) -> None:
    results = page_tests.compare(made, single_run=False)
    said = [one.striptags() for one in page_words.came_out(made, results)]
    tdd = {
        name: np.mean([run.records[run.records["method"] == name]["tdd"].mean() for run in made])
        for name in ("ria", "dea")
    }
    assert f"(TDD): ria is highest, {tdd['ria']:.3f}" in said[0].replace("\xa0", " ")
    assert f"dea follows with {tdd['dea']:.3f}" in said[0].replace("\xa0", " ")
    assert "better in 2 of 2 runs; over images the difference is significant (p < .001)" in said[0].replace("\xa0", " ")
    left = " ".join(one.striptags().replace("\xa0", " ") for one in limits(made, results))
    assert "4 samples were skipped or failed, at least in part" in left
    assert "2 of 30 measured samples have s < .05" in left
    assert "ria under mean and zero and dea under blur" in left
    assert "Stability" not in left
    assert "Stab. rests on 16 of 30 samples." in left


def test_a_single_run_is_not_tested(made: list[Run]) -> None:
    sections = {one.name: one for one in report.build_sections(made[:1])}
    folds = [one for one in sections["significance"].parts if one.kind == "fold"]
    assert folds[0].title.striptags() == "TDD: not testable"
    verdicts = {row[5].text for row in folds[0].parts[-1].rows}
    assert all(one.startswith("not testable: one run") for one in verdicts)
    assert {row[4].text for row in folds[0].parts[-1].rows} == {"n/a"}
    summary = " ".join(str(item) for part in sections["summary"].parts if part.kind == "points" for item in part.items)
    assert "not testable: one run" in summary
    assert "It is a single" in summary


def concluded(sections: list[report.Section]) -> list[tuple[str, list[str]]]:
    """The summary's headings, each with the plain words under it."""
    parts = sections[0].parts
    return [
        (head.text, [one.striptags().replace("\xa0", " ") for one in points.items])
        for head, points in zip(parts[::2], parts[1::2], strict=True)
    ]


def test_a_single_run_is_tested_if_asked(made: list[Run], tmp_path: Path) -> None:
    sections = report.build_sections(made[:1], single_run=True)
    folds = [one for one in next(one for one in sections if one.name == "significance").parts if one.kind == "fold"]
    assert "told apart" in folds[0].title.striptags()
    assert any("is better" in row[5].text and "one run:" in row[5].under for row in folds[0].parts[-1].rows)
    said = " ".join(line for _, lines in concluded(sections) for line in lines)
    assert "over images the difference is significant (p" in said
    assert "It is a single run: nothing here speaks of other seeds or models" in said
    assert "the p-values speak of other images under this run alone" in said
    assert "not tested" not in said
    text = report.write_report(made[:1], tmp_path / "page.html", single_run=True).read_text(encoding="utf-8")
    assert "differences are not tested" not in text


def test_the_best_are_sought_in_the_runs_that_have_all_methods(made: list[Run]) -> None:
    """ega is best in the runs without gpa, whatever it is in the other; so those do not say that it beats gpa."""
    first, second = (replace(one, records=one.records[one.records["method"].isin(("gpa", "ega"))]) for one in made)
    good = second.records["method"] == "ega"
    second = replace(second, records=second.records[good].assign(tdd=1.0))
    own = first.records.assign(tdd=(first.records["method"] == "gpa") * 0.25 + 0.25)
    said = concluded(report.build_sections([replace(first, records=own), second]))[1][1][0]
    assert "gpa is highest, 0.500; ega follows with 0.250 (over the 1 of 2 runs that have all methods)" in said


def test_one_operator_is_said_to_be_the_only_one_also_without_curves(made: list[Run]) -> None:
    bare = []
    for one in made:
        settings = one.description["settings"]
        settings = settings | {"evaluation": settings["evaluation"] | {"occlusion": ["mean"], "k": [0.2]}}
        bare.append(replace(one, curves=one.curves.iloc[:0], description=one.description | {"settings": settings}))
    left = " ".join(concluded(report.build_sections(bare))[-1][1])
    assert "No other operator was measured: their lead may rest on that." in left


def test_runs_without_a_measured_sample_are_no_runs_to_conclude_from(made: list[Run]) -> None:
    skipped = replace(made[1], records=made[1].records.assign(status="skipped"))
    left = " ".join(concluded(report.build_sections([made[0], skipped]))[-1][1])
    assert "It is a single run: nothing here speaks of other seeds or models" in left


def test_absent_runs_come_first_among_what_cannot_be_concluded(made: list[Run], tmp_path: Path) -> None:
    absent = ("voc2012-netB-seed1: planned, but not here: weights missing", EVIL)
    title, lines = concluded(report.build_sections(made, absent=absent))[-1]
    assert title == "What can’t be concluded"
    assert lines[0] == absent[0]
    assert lines[2].startswith("The p-values speak of other images")
    text = report.write_report(made, tmp_path / "page.html", absent=absent).read_text(encoding="utf-8")
    assert absent[0] in text
    assert f"<li>{Markup.escape(EVIL)}</li>" in text
    assert EVIL not in text
    other = load_run(make_run(tmp_path / "sbd", data="sbd", samples=("a", "b"), maps=0, skipped=0, failed=0))
    found = concluded(report.build_sections([*made, other], absent=absent[:1]))
    assert found[-3] == ("What can’t be concluded", [absent[0]])
    assert [title for title, _ in found[-2:]] == [f"What can’t be concluded: {one} val" for one in ("voc2012", "sbd")]


def ruled(made: list[Run], metric: str) -> list[Run]:
    """As if ega were a little above ria by the metric on all images but one, on which ria is far above."""
    runs = []
    for one in made:
        records = one.records[one.records["method"].isin(("ria", "ega"))].copy()
        chosen = records["status"] == "ok"
        place = records["sample_id"].str.removeprefix("img").where(chosen, "0").astype(int)
        value = place / 1000 + (records["method"] == "ega") * (0.01 + place / 10_000)
        value += 5.0 * ((records["method"] == "ria") & (place == 3))
        records.loc[chosen, metric] = value[chosen]
        runs.append(replace(one, records=records))
    return runs


@pytest.mark.parametrize("metric", ["tdd", "odd_abs"])
def test_the_winner_is_by_the_ranks_of_the_test(made: list[Run], metric: str) -> None:
    """tdd: the higher wins; odd_abs: the lower."""
    runs = ruled(made, metric)
    result = page_tests.compare(runs, single_run=False)[metric]
    (row,) = result.pairs.to_dict("records")
    assert row["significant"]
    assert row["effect"] * row["difference"] < 0
    by_ranks, by_means = ("ega", "ria") if metric == "tdd" else ("ria", "ega")
    assert page_tests.winner(row, metric) == by_ranks
    _, fold = page_tests.tests("voc2012 val", {metric: result})
    ((*_, verdict, _, _),) = fold.parts[-1].rows
    assert verdict.text == f"{by_ranks} is better"
    assert "the pooled drop points the other way" in verdict.under
    said = [one.striptags() for one in page_words.came_out(runs, {metric: result})]
    (line,) = [one for one in said if f"({METRICS[metric].label}): {by_means} is " in one]
    assert f"over images the difference is significant in favour of {by_ranks} (p" in line
    assert "the test on ranks points the other way than the means (few images rule the mean)" in line


@pytest.mark.parametrize(
    ("gpa", "words_"), [(0.188, "gpa follows with 0.188 (a draw)"), (0.2, "gpa follows with 0.200;")]
)
def test_the_summary_calls_means_that_hardly_differ_a_draw(gpa: float, words_: str) -> None:
    rows = [
        {"sample_id": "x", "method": name, "status": "ok", "s": 0.5, "runtime_s": seconds}
        for name, seconds in (("ega", 0.184), ("gpa", gpa))
    ]
    about = description(0, ["x"], "voc2012", "netA", ["ega", "gpa"])
    runs = [run_of(about, pd.DataFrame(rows).reindex(columns=COLUMNS))]
    values = tables.run_values(runs)
    said = page_words._best(runs, values[values["metric"] == "runtime_s"], "runtime_s", None).striptags()
    assert words_ in said.replace("\xa0", " ")


def test_bold_is_the_best_mean_but_no_draw_and_no_leakage() -> None:
    """The lowest mean leakage rests on the images on which that method has one."""
    rows = [
        {"method": name, "metric": metric, "mean": mean, "runs": 2}
        for metric, means in {
            **{"tdd": (0.5, 0.50005, 0.4), "odd_abs": (0.0603, 0.06, 0.1), "leak_abs": (0.1, 0.2, 0.3)},
            **{"leak_signed": (0.1, 0.2, 0.3), "runtime_s": (0.184, 0.188, 2.0), "stability": (0.9, 0.8, 0.7)},
        }.items()
        for name, mean in zip(("ria", "ega", "gpa"), means, strict=True)
    ]
    assert page_results._best(pd.DataFrame(rows), "mean") == {"odd_abs": "ega", "stability": "ria"}


def test_of_a_single_run_summary_and_wins_speak_of_the_only_run(made: list[Run]) -> None:
    said = concluded(report.build_sections(made[:1], single_run=True))[1][1][0]
    assert "; better in the only run" in said
    assert "1 of 1" not in said
    (table,) = page_results.scores("voc2012 val", made[:1])[-1].parts
    assert table.caption.striptags() == "voc2012 val: in the only run"
    assert {cell.text for row in table.rows for cell in row[1:]} <= {"better", "worse", "draw", "n/a"}
    (table,) = page_results.scores("voc2012 val", made)[-1].parts
    assert table.caption.striptags() == "voc2012 val: in how many runs"


def test_the_words_of_a_test_turn_only_where_ranks_and_means_differ() -> None:
    row = {"first": "ega", "second": "ria", "why": "", "p_holm": 0.2, "significant": False, "effect": -0.1}

    def told(**changed: Any) -> str:
        return page_words._told(pd.DataFrame([row | changed]), "tdd", ("ria", "ega")).striptags()

    other_way = "; the test on ranks points the other way than the means (few images rule the mean)"
    assert told() == "; over images they are not told apart (p = .200)"
    assert told(effect=0.0) == told(), "ranks that point nowhere"
    assert told(effect=0.1) == told() + other_way
    assert told(significant=True) == "; over images the difference is significant (p = .200)"
    assert "in favour of ega" in told(effect=0.1, significant=True)
    assert told(effect=0.1, significant=True).endswith(other_way)


def test_chance_lists_gains_above_zero_apart_from_the_others() -> None:
    own = pd.DataFrame({"metric": "tdd_gain", "method": ["a", "b", "c", "d"], "mean": [0.3, -0.1, 0.1, 0.0]})
    values = {"a": (0.2, 0.4), "b": (-0.3, 0.1), "c": (-0.1, 0.3), "d": (0.0, 0.0)}
    runs = []
    for place in range(2):
        rows = [
            {"sample_id": "x", "method": name, "status": "ok", "s": 0.5, "tdd_gain": pair[place]}
            for name, pair in values.items()
        ]
        runs.append((description(place, ["x"], "voc2012", "netA", list(values)), pd.DataFrame(rows)))
    assert page_words._chance(own, runs).striptags() == (
        "Mean TDD above that of random cells (TDD gain): a 0.300 and c 0.100. "
        "Mean TDD not above that of random cells (TDD gain): b −0.100 and d 0.000. "
        "Above in the mean, but not in every run: c."
    )
    only = page_words._chance(own[own["method"] == "b"], runs).striptags()
    assert only == "Mean TDD not above that of random cells (TDD gain): b −0.100."


def test_what_was_not_measured_is_said(made: list[Run]) -> None:
    bare = [
        replace(
            one,
            curves=one.curves.iloc[:0],
            randomisation=one.randomisation.iloc[:0],
            records=one.records.assign(odd_fair_abs=nan),
        )
        for one in made
    ]
    sections = {one.name: one for one in report.build_sections(bare)}
    assert not {"curves", "leakage", "randomisation"} & set(sections)
    said = " ".join(item.striptags() for item in sections["unmeasured"].parts[0].items)
    assert "Curves: No run has curves" in said
    assert 'leakage = "detailed"' in said.replace("&#34;", '"')
    assert "Randomised models: No run has made the randomisation check" in said


def test_min_s_leaves_samples_out_of_the_numbers_and_says_so(made: list[Run], tmp_path: Path) -> None:
    kept = enough(made[0], 0.5)
    ok = made[0].records.query("status == 'ok'")
    assert set(kept.records.query("status == 'ok'")["sample_id"]) == set(ok.query("s >= 0.5")["sample_id"])
    assert (kept.records["status"] != "ok").sum() == (made[0].records["status"] != "ok").sum() == 8, "they stay"
    path = report.write_report(made[:1], tmp_path / "deep" / "page.html", min_s=0.5)
    text = path.read_text(encoding="utf-8")
    assert "only samples with s ≥ 0.5" in text
    first = Page(text).rows["means-voc2012-val"][1]
    own = kept.records[kept.records["method"] == "gpa"]["tdd"].mean()
    assert first[1].startswith(f"{own:.3f}")


def test_min_s_holds_for_the_summary_as_for_the_sections(made: list[Run]) -> None:
    sections = report.build_sections(made, 0.4)
    left = " ".join(concluded(sections)[-1][1])
    _, by_tdd, *_ = next(one for one in sections if one.name == "rankings").parts
    (agreed,) = re.findall(
        r"operator: (Kendall’s W = [\d.]+ \(chance 0.33; [−\d.]+ beyond chance, p .*?\)) over",
        by_tdd.parts[0].text.striptags().replace("\xa0", " "),
    )
    assert f"{agreed} over 4 methods" in left
    kept = [enough(one, 0.4) for one in made]
    rows = pd.concat([one.records for one in kept])
    rows = rows[rows["status"] == "ok"]
    counts = rows[rows["method"] == "ria"][["tdd", "stability"]].count()
    assert 0 < counts["tdd"] < 30
    assert f"Stab. rests on {counts['stability']} of {counts['tdd']} samples" in left
    few = " ".join(one.striptags() for one in limits(made, {}, 0.85))
    assert re.search(r"; how far the rankings agree is not testable: \d images, at least 10 needed \(rankings\)", few)
    bad = sum(one.records.loc[one.records["status"] != "ok", "sample_id"].nunique() for one in kept)
    assert f"{bad} samples were skipped or failed" in left
    assert "to go" not in left, "what is left out is finished all the same"
    assert "Only samples with s ≥ 0.4 entered" in left


def test_several_data_sets_stand_under_headings_of_their_own(made: list[Run], tmp_path: Path) -> None:
    other = load_run(make_run(tmp_path / "sbd", data="sbd", samples=("a", "b", "c", "d"), maps=0, curves=False))
    sections = {one.name: one for one in report.build_sections([made[0], other])}
    assert [part.text for part in sections["scores"].parts if part.kind == "heading"] == ["voc2012 val", "sbd val"]
    curves = sections["curves"].parts
    assert [part.kind for part in curves][-1] == "missing", "of the data set without curves"
    headings = [part.text for part in sections["summary"].parts if part.kind == "heading"]
    assert "What came out: sbd val" in headings


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0, 1), (-0.3, 0.47), (0, 1234), (0, 0.00031), (0.2, 0.21)):
        found = page_charts.ticks(low, high)
        assert 2 <= len(found) <= 7
        assert low <= min(found)
        assert max(found) <= high * (1 + 1e-9)
        steps = np.diff(found)
        assert np.allclose(steps, steps[0])
        assert f"{steps[0]:e}"[0] in "125"


def test_charts_are_sound_svg_and_place_what_they_show() -> None:
    evil = 'a<b>"c'
    lines = [
        page_charts.Line(evil, ((0.2, 0.1, 0.05, 0.15), (1.0, 0.5, 0.4, 9.0))),
        page_charts.Line("mask", ((0.2, nan, nan, nan),)),
    ]
    chart = ElementTree.fromstring(page_charts.lines(lines, "T & t", "k"))
    places = [
        float(point) for line in chart.iter("polyline") for point in re.findall(r",([\d.]+)", line.get("points", ""))
    ]
    assert places[0] > places[1], "larger values are higher"
    strip = page_charts.strips(
        [page_charts.Strip("ega", (0.1, 0.3), 0.2, 0.25), page_charts.Strip("mask", (), nan)], "TDD"
    )
    drawn = ElementTree.fromstring(strip)
    (bar,) = [one for one in drawn.iter("line") if one.get("class") == "mean"]
    dots = [one for one in drawn.iter() if one.get("class") == "dot"]
    assert len(dots) == 2
    centres = [np.mean([float(x) for x in re.findall(r"([\d.]+),", one.get("points", ""))]) for one in dots]
    assert np.mean(centres) == pytest.approx(float(bar.get("x1", "")), abs=0.3)
    ranks = ElementTree.fromstring(page_charts.ranks({"b": 1.8, "a": 1.2}, 0.5, "Ranks"))
    names = [one.text for one in ranks.iter("text") if one.get("text-anchor") == "end"]
    assert names == ["a", "b"], "best first"
    reach = [
        float(one.get("x2", "")) - float(one.get("x1", "")) for one in ranks.iter("line") if one.get("class") == "reach"
    ]
    grid = [float(one.get("x1", "")) for one in ranks.iter("line") if one.get("class") == "grid"]
    lengths = [one / (grid[1] - grid[0]) for one in reach]
    assert lengths == pytest.approx([0.5, 0.5], abs=0.02), "as long as the critical difference"
    ElementTree.fromstring(f"<ul>{page_charts.key(['ega', evil], line=True)}</ul>")


def planted(run: Run, scenes: int = 12) -> Run:
    """The run as if evidence had been planted, its average precision in the order of TDD."""
    records = run.records.copy()
    records["kind"] = "marker"
    records["evidence_ap"] = records["method"].map({"gpa": 0.2, "ega": 0.1, "ria": 0.8, "dea": 0.6}).fillna(0.05)
    for name in ("evidence_mass", "evidence_top", "odd_beyond_abs"):
        records[name] = 0.5
    description = run.description | {"model": run.description["model"] | {"proven_kinds": "marker"}}
    return replace(run, records=records, description=description)


def test_the_trust_page_becomes_tables(made: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LEAST_SCENES", 10)  # these runs have fifteen
    runs = [planted(one) for one in made]
    parts = page_evidence.evidence("voc2012 val", runs)
    text = trust_page(runs)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    body = [line for line in lines if set("".join(line)) != {"-"}]
    found = []
    for one in parts:
        if one.kind == "table":
            found += [[column.label for column in one.columns], *([str(cell.text) for cell in row] for row in one.rows)]
    assert found == body
    headings = [str(one.text) for one in parts if one.kind == "heading"]
    assert headings == [line[3:] for line in text.splitlines() if line.startswith("## ")]
    said = page_words.came_out(runs, {})[-1].striptags()
    assert re.search(r"planted evidence \(plain objects left out\): .*agrees: .*TDD", said)


def test_numbers_are_written_plainly() -> None:
    assert [number(one) for one in (0.12345, -0.5, -0.0001, 4321.0, nan)] == [
        "0.123",
        "−0.500",
        "0.000",
        "4.32e+03",
        "n/a",
    ]
    assert [p_value(one) for one in (0.0004, 0.012, 1.0, nan)] == ["<\xa0.001", ".012", "1.000", "n/a"]
    assert [p_words(one) for one in (0.0004, 0.012)] == ["p\xa0<\xa0.001", "p\xa0=\xa0.012"]
    assert spread(0.5, nan) == "0.500"
    assert words("{} <b>{x}</b>", "<i>", x="&") == Markup("&lt;i&gt; <b>&amp;</b>")


def test_wins_and_claims_are_the_tables_own(made: list[Run], page: Page) -> None:
    won = tables.wins(tables.run_values(made), significance.paired(made, "tdd"))
    header, *body = page.rows["wins-voc2012-val"]
    assert "TDD ↑" in header[1]
    shown = {row[0]: row[1] for row in body}
    assert len(shown) == 6
    for row in won.to_dict("records"):
        name = f"{row['first']} better than {row['second']}"
        if name in shown:
            assert shown.pop(name) == row["count"]
    assert shown == {}
