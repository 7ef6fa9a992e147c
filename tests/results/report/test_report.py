"""The report page: its numbers re-derived, its rules for samples, and that it escapes, resolves and holds together."""

import base64
import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from scipy.stats import spearmanr

from made_runs import description, edit_description, edit_rows, make_run, run_of
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run, load_run, read_description
from segfaith.results.records.select import enough
from segfaith.results.report import gallery as page_gallery
from segfaith.results.report import html as report
from segfaith.results.report import page_charts
from segfaith.results.report.blocks import number, p_value, p_words, spread, words
from segfaith.results.report.glossary import FORMULAS, glossary, unknown
from segfaith.results.report.pictures import pictures
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
EVIL_REASON = '"><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """What the tests ask of a page: tags with their attributes, cells of tables, and what in them is no link."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.linked: dict[str, list[list[str]]] = {}
        self.loose: dict[str, list[str]] = {}
        self._table = ""
        self._cell = self._link = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append((tag, own))
        self._link = self._link or tag == "a"
        if tag == "table":
            self._table = own.get("id") or "gallery"
        elif tag == "tr" and self._table:
            self.rows.setdefault(self._table, []).append([])
            self.linked.setdefault(self._table, []).append([])
        elif tag in ("td", "th") and self._table:
            self.rows[self._table][-1].append("")
            self.linked[self._table][-1].append("")
            self._cell = True
        elif tag == "a" and self._cell:
            self.linked[self._table][-1][-1] = own.get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        self._link = self._link and tag != "a"
        if tag in ("td", "th"):
            self._cell = False
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[self._table][-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")
            if not self._link and len(self.rows[self._table][-1]) > 1:
                self.loose.setdefault(self._table, []).append(data)


def poison(directory: Path) -> None:
    """Turns the last sample's id and the failures' reason into markup."""
    last = read_description(directory)["data"]["samples"][-1]

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            row["sample_id"] = EVIL if row["sample_id"] == last else row["sample_id"]
            row["reason"] = EVIL_REASON if row["status"] == "failed" else row["reason"]
        return rows

    edit_rows(directory / "records" / "00000.parquet", change)
    edit_description(directory, lambda about: about["data"]["samples"].__setitem__(-1, EVIL))


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
    poison(runs[0])
    return [load_run(run) for run in runs]


@pytest.fixture(scope="module")
def text(made: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = report.write_report(made, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_asks_for_nothing(text: str, page: Page) -> None:
    """Addresses are fragments or data; the policy forbids the rest and allows this style and script only."""
    addresses = [
        value
        for _, own in page.tags
        for key, value in own.items()
        if key in ("src", "href", "action", "srcset", "poster")
    ]
    assert len(addresses) > 200
    assert {value for value in addresses if not str(value).startswith(("#", "data:"))} == set()
    style, script = (re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S) for tag in ("style", "script"))
    assert style
    assert script
    assert "@import" not in style[1]
    assert "url(" not in style[1]
    (policy,) = [own["content"] for tag, own in page.tags if tag == "meta" and "http-equiv" in own]
    assert policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, found in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_every_link_leads_somewhere_and_every_id_is_one_of_a_kind(page: Page) -> None:
    ids = Counter(own["id"] for _, own in page.tags if "id" in own)
    assert {name for name, number_ in ids.items() if number_ > 1} == set()
    targets = {str(own["href"])[1:] for tag, own in page.tags if tag == "a" and str(own.get("href")).startswith("#")}
    assert len(targets) > 30
    assert targets - set(ids) == set()
    labels = {str(own["aria-labelledby"]) for _, own in page.tags if "aria-labelledby" in own}
    assert labels - set(ids) == set()


def test_every_number_of_a_table_is_a_link_to_its_definition(page: Page) -> None:
    checked = 0
    for name, rows in page.rows.items():
        for row, links in zip(rows[1:], page.linked[name][1:], strict=True):
            for cell, link in zip(row[1:], links[1:], strict=True):
                if re.match(r"−?\d+\.\d", cell) and name != "provenance":
                    assert link.startswith("#def-"), (name, cell)
                    checked += 1
        if name != "provenance":
            assert [text for text in page.loose.get(name, []) if re.match(r"\W*\d+\.\d", text)] == [], name
    assert checked > 1000
    assert "gallery" in page.rows


def test_names_and_reasons_are_words_never_markup(text: str, page: Page) -> None:
    assert EVIL not in text
    assert EVIL_REASON not in text
    assert str(Markup.escape(EVIL)) in text
    assert str(Markup.escape(EVIL_REASON)) in text
    assert [own for tag, own in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "scores-data"},
        {},
    ]
    assert [own for tag, own in page.tags if tag == "img" and not str(own["src"]).startswith("data:image/webp")] == []


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


def test_all_sections_are_there_in_order(page: Page) -> None:
    sections = [own["id"] for tag, own in page.tags if tag == "section"]
    assert sections == [
        *("summary", "scores", "claims", "significance", "curves", "rankings", "leakage", "denominators"),
        *("properties", "randomisation", "unmeasured", "gallery", "glossary", "runs"),
    ]


def test_the_glossary_defines_all_that_is_asked_for(page: Page) -> None:
    assert set(FORMULAS) == set(METRICS)
    keys = [one.key for one in glossary()]
    assert len(keys) == len(set(keys))
    asked = {str(own["href"])[5:] for tag, own in page.tags if str(own.get("href")).startswith("#def-")}
    assert unknown(asked) == set()
    assert {"tdd", "odd_abs", "stability", "p", "effect", "concordance", "area", "spread"} <= asked


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


def test_no_run_and_a_page_that_does_not_fit_are_errors(
    made: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="expected at least one run to report on; got none"):
        report.write_report([], tmp_path / "page.html")
    monkeypatch.setattr(report, "build_sections", lambda *_, **__: [])
    monkeypatch.setattr(report, "LIMIT", 20_000)
    with pytest.raises(SettingsError, match=r"below 20,000 bytes; got [\d,]+ even without pictures: .* fewer runs"):
        report.write_report(made, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_gives_up_pictures_before_it_grows_too_large(
    made: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "build_sections", lambda *_, **__: [])
    free = report.write_report(made, tmp_path / "free.html").stat().st_size
    monkeypatch.setattr(report, "LIMIT", free - 4_000)
    small = report.write_report(made, tmp_path / "small.html")
    assert small.stat().st_size < free - 4_000
    assert "data:image/webp" in small.read_text(encoding="utf-8")


def item(name: str, value: float = nan, status: str = "ok", run: Run | None = None) -> page_gallery.Item:
    rows = pd.DataFrame([{"method": "ega", "status": status, "reason": "", "s": 0.5, "class_index": 1}])
    return page_gallery.Item(run, "run", "data", name, rows, value)  # type: ignore[arg-type]


def test_the_gallery_chooses_by_its_rules() -> None:
    """50 bad ones and 500 measured: 40 bad, failed first; 80 with the largest values, 80 spread over the others."""
    rng = np.random.default_rng(0)
    values = rng.permutation(500) / 500
    items = [item(f"good{i:03d}", value) for i, value in enumerate(values)]
    items[10:10] = [item(f"skipped{i}", status="skipped") for i in range(25)]
    items[90:90] = [item(f"failed{i}", status="failed") for i in range(25)]
    chosen = page_gallery.choose(items)
    assert len(chosen) == len({one.sample_id for one in chosen}) == 200
    assert Counter(one.status for one in chosen) == {"ok": 160, "failed": 25, "skipped": 15}
    good = sorted((one.disagreement for one in chosen if one.status == "ok"), reverse=True)
    assert good[:80] == sorted(values, reverse=True)[:80]
    rest = np.array(good[80:])
    assert rest[0] == sorted(values)[-81]
    assert rest[-1] == min(values)
    assert -np.diff(rest).min() < 0.02, "no gap wider than the others"
    assert page_gallery.choose(items[:200]) == items[:200], "all that fit are there"
    assert len(page_gallery.choose([item(str(i)) for i in range(300)], 7)) == 7, "without any value, too"


def test_disagreement_is_the_mean_of_one_minus_spearman() -> None:
    """Maps of 56 x 56 are averaged over blocks of 2 x 2."""
    maps = list(np.random.default_rng(1).random((3, 56, 56)).round(2))
    blocks = [one.reshape(28, 2, 28, 2).mean((1, 3)).ravel().round(6) for one in maps]
    by_hand = np.mean([1 - spearmanr(first, second).statistic for first, second in combinations(blocks, 2)])
    assert page_gallery.mean_disagreement(maps) == pytest.approx(by_hand, abs=1e-4)
    assert page_gallery.mean_disagreement([maps[0], maps[0]]) == pytest.approx(0, abs=1e-12)
    ramp = np.arange(784.0).reshape(28, 28)
    assert page_gallery.mean_disagreement([ramp, -ramp]) == pytest.approx(2)
    assert page_gallery.mean_disagreement([ramp, -ramp, np.ones((28, 28))]) == pytest.approx(2), (
        "a constant has no rank"
    )
    assert isnan(page_gallery.mean_disagreement([ramp, np.ones((28, 28))]))


def test_without_all_maps_the_spread_of_tdd_stands_for_disagreement(made: list[Run]) -> None:
    shown = page_gallery.gallery(made)
    assert shown.measure == "spread"
    assert "spread of TDD" in shown.rule
    assert len(shown.items) == 32
    for one in shown.items:
        own = one.rows[one.rows["method"].isin(["gpa", "ega", "ria", "dea"]) & (one.rows["status"] == "ok")]["tdd"]
        expected = own.max() - own.min() if len(own) > 1 else nan
        assert one.disagreement == pytest.approx(expected, nan_ok=True)
    values = [one.disagreement for one in shown.items if not isnan(one.disagreement)]
    assert values == sorted(values, reverse=True)
    assert [isnan(one.disagreement) for one in shown.items][-2:] == [True, True], "skipped ones come last"


def test_with_all_maps_the_maps_are_compared(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", samples=("a", "b", "c", "d"), maps=3, failed=0))
    shown = page_gallery.gallery([run])
    assert shown.measure == "disagreement"
    by_id = {one.sample_id: one for one in shown.items}
    folder = run.directory / "maps" / "b"
    maps = [np.load(folder / f"{name}.npy") for name in ("gpa", "ega", "ria", "dea")]
    assert by_id["b"].disagreement == pytest.approx(page_gallery.mean_disagreement(maps))
    assert isnan(by_id["d"].disagreement)
    assert by_id["d"].reasons == [("all methods", "skipped: no foreground label in the ground truth")]


def test_a_sample_outside_the_run_is_not_read(made: list[Run], tmp_path: Path) -> None:
    """An id that climbs out of maps/ finds nothing, even where there are pictures."""
    run = load_run(make_run(tmp_path / "run", samples=("a", "b"), maps=1, skipped=0, failed=0))
    shutil.copytree(run.directory / "maps" / "a", tmp_path / "secret")
    assert item("a", run=run).folder == (run.directory / "maps" / "a").resolve()
    assert item("../../secret", run=run).folder is None
    assert item(str(tmp_path / "secret"), run=run).folder is None


def test_pictures_stay_within_their_budget(tmp_path: Path) -> None:
    few: Any = {"methods": METHODS, "maps": 3, "skipped": 0, "failed": 0}
    run = load_run(make_run(tmp_path / "run", samples=("a", "b", "c"), size=128, **few))
    items = page_gallery.gallery([run]).items
    full = pictures(items, 10_000_000)
    assert full.bytes == sum(len(uri) for one in full.uris for uri in one.values())
    assert set(full.uris[0]) == {"", *METHODS}
    assert full.words == "Pictures are at most 192 pixels wide."
    sizes = [full.bytes]
    for budget in (full.bytes - 1, full.bytes // 3, full.bytes // 6, full.bytes // 12):
        tight = pictures(items, budget)
        sizes.append(tight.bytes)
        assert 0 < tight.bytes <= budget
    assert sizes == sorted(sizes, reverse=True)
    assert "are left out" in tight.words
    assert all("" in one for one in tight.uris), "the image goes last"
    assert pictures(items, 100).bytes == 0
    assert "left out" in pictures(items, 100).words


def test_a_broken_map_leaves_its_place_empty(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", samples=("a", "b"), maps=2, skipped=0, failed=0))
    (run.directory / "maps" / "a" / "ega.npy").write_bytes(b"no array")
    (run.directory / "maps" / "b" / "target.png").write_bytes(b"no picture")
    shown = page_gallery.gallery([run])
    uris = dict(zip([one.sample_id for one in shown.items], pictures(shown.items, 10**7).uris, strict=True))
    assert "ega" not in uris["a"]
    assert "gpa" in uris["a"]
    assert uris["b"] == {}


def test_the_filter_knows_what_the_records_hold(made: list[Run], text: str) -> None:
    scores = json.loads(re.search(r'id="scores-data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert len(scores) == 32
    assert Counter(one["status"] for one in scores) == {"ok": 28, "failed": 2, "skipped": 2}
    records = pd.concat([one.records for one in made])
    measured = records[(records["status"] == "ok") & (records["method"] == "ria")]
    assert sorted(one["methods"]["ria"]["tdd"] for one in scores if "tdd" in one["methods"].get("ria", {})) == (
        pytest.approx(sorted(measured["tdd"]), abs=1e-5)
    )
    assert Counter(one["class"] for one in scores)["no class"] == 2


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
