"""The report page: its numbers re-derived, its rules for samples, and that it escapes, resolves and holds together."""

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
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

from made_runs import edit_description, edit_rows, make_run
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run, load_run, read_description
from segfaith.results.records.select import enough
from segfaith.results.report import gallery as page_gallery
from segfaith.results.report import html as report
from segfaith.results.report.glossary import FORMULAS, glossary, unknown
from segfaith.results.report.pictures import pictures
from segfaith.results.report.sections import sections
from segfaith.results.statistics import paired as significance
from segfaith.results.statistics import summary as tables
from segfaith.results.statistics.analysis import Options, analyse

SEVEN = ("gpa", "ega", "ria", "dea", "dea@alpha=0.5", "random_cells", "mask")
METHODS = ("gpa", "ega", "dea", "dea@alpha=0.5", "mask")
COLUMNS = ("sample_id", "method", "status", "s", *tables.TABLE_METRICS)
EVIL = """<img src=x onerror="alert('id')">"""
EVIL_REASON = '"><img src=x onerror=alert(1)>'


def write(runs: list[Run], path: Path, options: Options | None = None) -> Path:
    analysis = analyse(runs, options)
    return report.write_page(analysis, sections(analysis), path)


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
    path = write(made, tmp_path_factory.mktemp("page") / "report.html")
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


def test_all_sections_are_there_in_order(page: Page) -> None:
    sections = [own["id"] for tag, own in page.tags if tag == "section"]
    assert sections == [
        *(
            "verdict",
            "leaderboard",
            "influence",
            "summary",
            "limits",
            "scores",
            "significance",
            "claims",
            "randomisation",
            "rankings",
            "curves",
            "leakage",
        ),
        *("denominators", "properties", "unmeasured", "gallery", "glossary", "runs"),
    ]


def test_the_glossary_defines_all_that_is_asked_for(page: Page) -> None:
    assert set(FORMULAS) == set(METRICS)
    keys = [one.key for one in glossary()]
    assert len(keys) == len(set(keys))
    asked = {str(own["href"])[5:] for tag, own in page.tags if str(own.get("href")).startswith("#def-")}
    assert unknown(asked) == set()
    assert {"tdd", "odd_abs", "stability", "p", "effect", "concordance", "area", "spread"} <= asked


def test_min_s_leaves_samples_out_of_the_numbers_and_says_so(made: list[Run], tmp_path: Path) -> None:
    kept = enough(made[0], 0.5)
    ok = made[0].records.query("status == 'ok'")
    assert set(kept.records.query("status == 'ok'")["sample_id"]) == set(ok.query("s >= 0.5")["sample_id"])
    assert (kept.records["status"] != "ok").sum() == (made[0].records["status"] != "ok").sum() == 8, "they stay"
    path = write(made[:1], tmp_path / "deep" / "page.html", Options(min_s=0.5))
    text = path.read_text(encoding="utf-8")
    assert "only samples with s ≥ 0.5" in text
    first = Page(text).rows["means-voc2012-val"][1]
    own = kept.records[kept.records["method"] == "gpa"]["tdd"].mean()
    assert first[1].startswith(f"{own:.3f}")


def test_no_run_and_a_page_that_does_not_fit_are_errors(
    made: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="expected at least one run to report on; got none"):
        write([], tmp_path / "page.html")
    monkeypatch.setattr(report, "LIMIT", 20_000)
    with pytest.raises(SettingsError, match=r"below 20,000 bytes; got [\d,]+ even without pictures: .* fewer runs"):
        report.write_page(analyse(made), [], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_gives_up_pictures_before_it_grows_too_large(
    made: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analyse(made)
    free = report.write_page(analysis, [], tmp_path / "free.html").stat().st_size
    monkeypatch.setattr(report, "LIMIT", free - 4_000)
    small = report.write_page(analysis, [], tmp_path / "small.html")
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
