"""The page: it escapes, resolves and holds together; what stands first; what it links; and that it stays small."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from PIL import Image

from html_page import Page
from made_runs import edit_description, edit_rows, make_run, repeat_targets
from made_sections import CAVEAT, made_sections
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import load_run, read_description
from segfaith.results.report import html
from segfaith.results.report.arrange import arranged
from segfaith.results.report.blocks import Cards, Prose, Section
from segfaith.results.report.glossary import glossary, unknown
from segfaith.results.statistics import wilcoxon
from segfaith.results.statistics.analysis import Analysis, Options, analyse

METHODS = ("gpa", "ega", "ria", "dea", "dea@alpha=0.5", "random_cells", "mask")
IDS = tuple(f"img{i:02d}" for i in range(16))
EVIL = """<img src=x onerror="alert('id')">"""
EVIL_REASON = '"><img src=x onerror=alert(1)>'


def poison(directory: Path) -> None:
    """Turns the last sample's id and the failures' reason into markup, and gives a method such a label."""
    last = read_description(directory)["data"]["samples"][-1]

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            row["sample_id"] = EVIL if row["sample_id"] == last else row["sample_id"]
            row["reason"] = EVIL_REASON if row["status"] == "failed" else row["reason"]
        return rows

    edit_rows(directory / "records" / "00000.parquet", change)
    edit_description(directory, lambda about: about["data"]["samples"].__setitem__(-1, EVIL))
    edit_description(directory, lambda about: about["methods"]["ria"].update(label=f"Ours {EVIL}"))


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """A coarse bootstrap: no test here looks at its intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wilcoxon, "RESAMPLES", 199)
        yield


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    folder = tmp_path_factory.mktemp("made")
    runs = [make_run(folder / f"run{seed}", seed=seed, samples=IDS, maps=6, methods=METHODS) for seed in (0, 1)]
    poison(runs[0])
    mask = np.zeros((48, 48, 3), dtype=np.uint8)
    mask[10:30, 10:30] = 255
    for run in runs:
        for folder in (run / "maps").iterdir():
            Image.fromarray(mask).save(folder / "prediction.png")
    return analyse([load_run(run) for run in runs])


@pytest.fixture(scope="module")
def text(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = html.write_page(analysis, made_sections(analysis), tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_asks_for_nothing(text: str, page: Page) -> None:
    """Addresses are fragments or data; the policy forbids the rest and allows this style and script only."""
    addresses = [value for key in ("src", "href", "action", "srcset", "poster") for value in page.values(key)]
    assert len(addresses) > 200
    assert {value for value in addresses if not value.startswith(("#", "data:"))} == set()
    style, script = (re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S) for tag in ("style", "script"))
    assert style
    assert script
    assert "@import" not in style[1]
    assert "url(" not in style[1]
    (policy,) = [str(own["content"]) for tag, own in page.tags if tag == "meta" and "http-equiv" in own]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for kind, asset in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(asset[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_nothing_is_styled_or_scripted_inline(page: Page) -> None:
    """The policy would drop it."""
    names = {name for _, own in page.tags for name in own}
    assert {name for name in names if name == "style" or name.startswith("on")} == set()
    assert sum(tag == "svg" for tag, _ in page.tags) == 1
    assert sum(tag == "style" for tag, _ in page.tags) == 1


def test_every_link_leads_somewhere_and_every_id_is_one_of_a_kind(page: Page) -> None:
    ids = Counter(page.values("id"))
    assert {name for name, times in ids.items() if times > 1} == set()
    targets = {address[1:] for address in page.values("href", "a") if address.startswith("#")}
    assert len(targets) > 30
    assert targets - set(ids) == set()
    assert set(page.values("aria-labelledby")) - set(ids) == set()


def test_definitions_are_linked_in_heads_and_numbers_are_plain_text(page: Page) -> None:
    checked = 0
    for name, rows in page.links.items():
        assert any(address.startswith("#def-") for cell in rows[0] for address in cell), name
        for links, cells in zip(rows, page.rows[name], strict=True):
            if cells[0].startswith(("Method", "Metric")):
                continue
            for addresses, cell in zip(links, cells, strict=True):
                assert addresses == [], (name, cell)
                checked += bool(re.match(r"−?\d+\.\d", cell))
    assert checked > 1000
    assert set(page.links) == {"leaderboard-voc2012-val", "judgement", "numbers", "gallery"}


def test_names_and_reasons_are_words_never_markup(text: str, page: Page) -> None:
    assert EVIL not in text
    assert EVIL_REASON not in text
    assert str(Markup.escape(EVIL)) in text
    assert str(Markup.escape(EVIL_REASON)) in text
    scripts = [own for tag, own in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "scores-data"}, {}]
    assert {source.partition(";")[0] for source in page.values("src", "img")} == {"data:image/webp"}


def test_the_answer_comes_first_then_the_leaderboard_then_pictures(page: Page) -> None:
    sections = [own["id"] for tag, own in page.tags if tag == "section"]
    assert sections == ["verdict", "leaderboard", "pictures", "worth", "parts", "gallery", "glossary", "runs"]
    entries = [address[1:] for address in page.values("href", "a") if address[1:] in sections]
    assert list(dict.fromkeys(entries)) == sections, "the contents name them in this order"


def test_without_cards_and_leaderboard_the_first_section_leads() -> None:
    plain = [Section(name, name, (Prose(Markup("words")),)) for name in ("first", "runs", "second")]
    lead, rest, last = arranged(plain)
    assert [[section.name for section in part] for part in (lead, rest, last)] == [["first"], ["second"], ["runs"]]


def test_cards_hold_the_mark_as_sign_and_word_and_each_rule(analysis: Analysis, text: str) -> None:
    (block,) = [block for block in made_sections(analysis)[0].parts if isinstance(block, Cards)]
    shown = re.findall(r'<article class="verdict-card (\w+)">(.*?)</article>', text, re.S)
    assert [mark for mark, _ in shown] == [card.mark for card in block.cards]
    for card, (_, inside) in zip(block.cards, shown, strict=True):
        assert str(card.headline) in inside
        assert html.SIGNS[card.mark] in inside
        assert html.MARK_WORDS[card.mark] in inside
        assert [str(check.rule) in inside for check in card.checks] == [True] * 5
        assert [str(check.sentence) in inside for check in card.checks] == [True] * 5
    assert '<a href="#leaderboard">The numbers</a>' in text
    assert "#randomisation" not in text, "no link to what this page does not hold"


def test_the_controls_have_a_body_of_their_own(text: str) -> None:
    table = text[text.index('<table id="leaderboard-voc2012-val"') :]
    above, below = table[: table.index("</table>")].split('<tbody class="tail">')
    names = [re.findall(r"<th scope=row[^>]*>([^<]*)", part) for part in (above, below)]
    assert names[0][:2] == ["gpa", "ega"]
    assert names[1] == ["random_cells", "mask"]


def test_the_papers_numbers_stand_behind_a_switch(text: str, analysis: Analysis, tmp_path: Path) -> None:
    assert text.count('<input type="checkbox"') == 1
    assert '<small class="under paper">paper: 0.522' in text
    other = analyse([load_run(make_run(tmp_path / "other", data="scenes", samples=IDS, maps=0, curves=False))])
    plain = html.write_page(other, made_sections(other), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "checkbox" not in plain, "the paper says nothing of these data"


def test_remarks_are_said_once_and_empty_parts_do_not_open(analysis: Analysis, text: str) -> None:
    assert text.count(CAVEAT) == 1
    assert "A remark of its own." in text
    folds = re.findall(r'<details class="fold"><summary>(.*?)</summary>', text)
    assert folds == ["Numbers", "A point"]
    assert '<p class="remark">Curves: not measured. No run has curves.</p>' in text
    assert "Not drawn: no run has curves" in text
    assert "Photographs." not in text, "not for the page"
    assert "hollow" not in {section.name for section in made_sections(analysis)}


def test_who_when_and_on_what(text: str, analysis: Analysis, tmp_path: Path) -> None:
    head = text[text.index("<header") : text.index("</header>")]
    assert re.search(r'<time datetime="\d{4}-\d\d-\d\d">', head)
    assert "voc2012 val" in head
    assert "2 runs · 17 images" in head
    runs = [run for part in analysis.parts for run in part.read][1:]
    other = analyse(runs, Options(min_s=0.3, min_iou=0.4))
    path = html.write_page(other, [], tmp_path / "deep" / "page.html", title="Lesions <b>", author="A & B")
    head = path.read_text(encoding="utf-8")
    assert "<h1>Lesions &lt;b&gt;</h1>" in head
    assert '<meta name="author" content="A &amp; B">' in head
    assert "only samples with s ≥ 0.3 · only samples with IoU of the prediction ≥ 0.4" in head


def test_files_beside_the_page_are_linked_relative_to_it(analysis: Analysis, tmp_path: Path) -> None:
    names = ("table.csv", "table.tex", "figures/dots.png", "figures/dots.pdf", "a b.md")
    files = [*(tmp_path / name for name in names), tmp_path.parent / "outside.csv"]
    path = html.write_page(analysis, made_sections(analysis), tmp_path / "page.html", files=files)
    text = path.read_text(encoding="utf-8")
    links = [link for link in Page(text).values("href", "a") if not link.startswith("#")]
    assert Counter(links) == {
        "table.csv": 1,
        "table.tex": 1,
        "a%20b.md": 1,
        "figures/dots.png": 2,
        "figures/dots.pdf": 2,
    }
    drawn = text[text.index('<figure class="drawn" id="figure-dots">') :]
    assert "figures/dots.pdf" in drawn[: drawn.index("</figure>")]


def test_cases_stand_beside_the_best_methods_map_and_lead_to_their_sample(analysis: Analysis, text: str) -> None:
    (block,) = [block for block in made_sections(analysis)[0].parts if isinstance(block, Cards)]
    part = text[text.index('<section id="pictures"') : text.index('<section id="parts"')]
    assert re.findall(r"<h3>(.*?)</h3>", part) == [
        "Best",
        "Typical",
        "Worst",
        "Missed by the model",
    ]
    cases = re.findall(r'<article class="case".*?</article>', part, re.S)
    assert len(cases) == 6, "an image is in one kind only"
    label = block.cards[0].label
    for case in cases:
        pair = case[: case.index("</div>")]
        assert re.findall(r"<figcaption>(?:<b>)?([^<]*)", pair) == ["image", str(Markup.escape(label))]
        assert "prediction in yellow dashes" in pair
        (anchor,) = re.findall(r'<a href="#(sample-[^"]*)"', case)
        assert f'<details class="sample" id="{anchor}"' in text
    assert part.count("prediction in yellow dashes</li>") == 1, "outlines are explained once"
    assert part.count('alt="Colour scale') == 1


def test_without_maps_there_are_no_pictures_but_all_samples(tmp_path: Path) -> None:
    other = analyse([load_run(make_run(tmp_path / "run", samples=IDS, maps=0, curves=False))])
    text = html.write_page(other, made_sections(other), tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="pictures"' not in text
    assert text.count('<details class="sample bare"') == 16


def test_the_filter_knows_what_the_records_hold(analysis: Analysis, text: str) -> None:
    scores = json.loads(re.search(r'id="scores-data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert len(scores) == 32
    assert Counter(one["status"] for one in scores) == {"ok": 28, "failed": 2, "skipped": 2}
    records = pd.concat([run.records for run in analysis.read])
    measured = records[(records["status"] == "ok") & (records["method"] == "ria")]
    assert sorted(one["methods"]["ria"]["tdd"] for one in scores if "tdd" in one["methods"].get("ria", {})) == (
        pytest.approx(sorted(measured["tdd"]), abs=1e-5)
    )
    assert Counter(one["class"] for one in scores)["no class"] == 2


def test_the_glossary_defines_all_that_is_asked_for(page: Page) -> None:
    formulas = {entry.key: entry.formula for entry in glossary() if entry.formula}
    assert formulas == {name: metric.formula for name, metric in METRICS.items()}
    keys = [entry.key for entry in glossary()]
    assert len(keys) == len(set(keys))
    asked = {address[5:] for address in page.values("href", "a") if address.startswith("#def-")}
    assert unknown(asked) == set()
    assert {"tdd", "odd_abs", "stability", "control", "n", "method"} <= asked


def test_pictures_are_given_up_before_the_page_grows_too_large(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the gallery first, then the large ones; a page that does not fit even then is an error."""

    def small() -> str:
        return html.write_page(analysis, [], tmp_path / "page.html").read_text(encoding="utf-8")

    free = small()
    bare = len(re.sub(r"data:image/webp[^\"]*", "", free).encode())
    pictured = len(free.encode()) - bare
    monkeypatch.setattr(html, "LIMIT", bare + pictured * 3 // 4)
    less = small()
    assert len(less.encode()) < html.LIMIT
    assert "so that the page stays small" in less
    large = re.compile(r'<article class="case".*?</article>', re.S)
    assert large.findall(less) == large.findall(free), "the large ones are whole"
    monkeypatch.setattr(html, "LIMIT", bare + 9_000)
    least = small()
    assert len(least.encode()) < html.LIMIT
    assert large.findall(least) != large.findall(free)
    (tmp_path / "page.html").unlink()
    monkeypatch.setattr(html, "LIMIT", 20_000)
    with pytest.raises(SettingsError, match=r"below 20,000 bytes; got [\d,]+ even without pictures: .* fewer runs"):
        small()
    assert not (tmp_path / "page.html").exists()


def test_images_and_their_targets_are_counted_and_named(tmp_path: Path) -> None:
    """Of each image two targets: the head counts both, samples and cases bear both names, and pictures are there."""
    directory = make_run(tmp_path / "run", samples=IDS[:5], maps=5, methods=METHODS[:4], skipped=0, failed=0, size=32)
    analysis = analyse([load_run(repeat_targets(directory))])
    path = html.write_page(analysis, made_sections(analysis), tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "1 run · 5 images (10 targets)" in text
    assert "voc2012 val: 5 images (10 targets) entered. Every mean, test and interval is over images" in text
    assert "img01, dog-2" in text
    assert 'id="sample-img01-dog-2"' in text
    assert len(re.findall(r'class="thumb" src="data:image/webp', text)) == 10
    assert 'alt="Map of ega for img01, dog' in text
