"""The report page in headless Chromium: the first screen, sorting, pictures, filters, keyboard, phones, silence."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import Opened, browser, opened
from made_runs import VARIANTS, make_run
from made_sections import made_sections
from segfaith.results.records.runs import Run, load_run
from segfaith.results.report.html import write_page
from segfaith.results.statistics import wilcoxon
from segfaith.results.statistics.analysis import analyse

pytestmark = pytest.mark.browser
SHOWN = "details.sample:not([hidden])"
BOARD = "#leaderboard-voc2012-val"
CONTROLS = ["random_cells", "mask"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    ids = tuple(f"img{i:02d}" for i in range(16))
    directories = [make_run(folder / f"run{seed}", seed=seed, samples=ids, maps=6) for seed in (0, 1)]
    for directory in directories:
        for maps in (directory / "maps").iterdir():
            Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 14)).save(maps / "prediction.png")
    return [load_run(directory) for directory in directories]


@pytest.fixture(scope="module")
def path(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wilcoxon, "RESAMPLES", 199)
        analysis = analyse(runs)
        folder = tmp_path_factory.mktemp("page")
        return write_page(
            analysis, made_sections(analysis), folder / "report.html", author="Ada", files=[folder / "table.csv"]
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def desk(running: Any, path: Path) -> Iterator[Opened]:
    with opened(running, path, height=800) as window:
        yield window
        assert window.complaints == []
        assert {url for url in window.requests if not url.startswith(("file:", "data:"))} == set()
        assert sum(url.startswith("file:") for url in window.requests) == 1, "the page itself"


def names(page: Any, table: str) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr:not(.title)", "rows => rows.map(row => row.cells[0].textContent.trim())"
    )


def values(page: Any, table: str, place: int) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr:not(.title)", f"rows => rows.map(row => row.cells[{place}].dataset.value ?? '')"
    )


def shown(page: Any) -> list[tuple[str, str]]:
    """Id and run of the samples that are seen."""
    return page.eval_on_selector_all(
        SHOWN,
        "all => all.map(one => [one.querySelector('.id').textContent, "
        "one.querySelector('.small').textContent.split(' · ')[1]])",
    )


def unfold(page: Any) -> None:
    """Opens the gallery of all samples."""
    page.locator("#all-samples > summary").click()


def test_the_first_screen_holds_every_verdict(desk: Opened) -> None:
    page = desk.page
    assert page.locator(".verdict-card").count() == 4
    for part in (".verdict-card .headline", ".verdict-card .grade", ".verdict-card h3"):
        for box in (page.locator(part).nth(place).bounding_box() for place in range(4)):
            assert box["y"] + box["height"] < 800, part
            assert box["x"] + box["width"] <= 1280
    tops = page.eval_on_selector_all(".verdict-card", "all => all.map(one => one.getBoundingClientRect().top)")
    assert len(set(tops)) == 1, "side by side"
    checks = page.locator(".verdict-card").first.locator(".check")
    assert checks.count() == 5
    assert all(checks.nth(place).is_visible() for place in range(5))


def planted(run: Run) -> Run:
    """The run as if evidence had been planted and fidelity measured: all columns that there can be."""
    records = run.records.assign(kind="marker", evidence_mass=0.5, evidence_top=0.5, odd_beyond_abs=0.5)
    records["evidence_ap"] = records["tdd"].abs()
    records["fidelity"], records["fidelity_outside"] = records["tdd"] / 2, -records["tdd"] / 2
    model = run.description["model"] | {"proven_kinds": "marker"}
    return replace(run, records=records, description=run.description | {"model": model})


def test_seven_methods_fit_the_first_screen_and_the_leaderboard(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checks are folded; the widest leaderboard, with planted evidence and several runs, is not cut."""
    monkeypatch.setattr(wilcoxon, "RESAMPLES", 199)
    ids, seven = tuple(f"img{i:02d}" for i in range(12)), ("gpa", "ega", "ria", *VARIANTS, *CONTROLS)
    made = [make_run(tmp_path / f"run{seed}", seed=seed, samples=ids, maps=1, methods=seven) for seed in (0, 1)]
    analysis = analyse([planted(load_run(directory)) for directory in made])
    page_path = write_page(analysis, made_sections(analysis), tmp_path / "page.html")
    with opened(running, page_path, height=800) as window:
        page = window.page
        assert page.locator(".verdict-card").count() == 7
        bottoms = page.eval_on_selector_all(".headline", "all => all.map(one => one.getBoundingClientRect().bottom)")
        assert max(bottoms) < 800
        assert not page.locator(".check").first.is_visible()
        page.locator(".checks > summary").first.click()
        assert page.locator(".check").first.is_visible()
        page.get_by_label("Show the paper’s numbers").check()
        assert "Evid. AP" in page.locator(f"{BOARD} thead th").nth(1).text_content(), "the truth comes first"
        sizes = page.eval_on_selector(BOARD, "table => [table.scrollWidth, table.parentElement.clientWidth]")
        assert sizes[0] <= sizes[1]
        assert window.complaints == []


def test_a_rule_unfolds_where_it_is_asked_for(desk: Opened) -> None:
    check = desk.page.locator(".check").first
    rule = check.locator(".rule p")
    assert not rule.is_visible()
    check.locator("summary").focus()
    desk.page.keyboard.press("Enter")
    assert rule.is_visible()
    desk.page.keyboard.press("Escape")
    assert not rule.is_visible()


@pytest.mark.parametrize("paper", [False, True])
def test_the_leaderboard_is_not_cut(desk: Opened, paper: bool) -> None:
    page = desk.page
    if paper:
        page.get_by_label("Show the paper’s numbers").check()
    sizes = page.eval_on_selector(BOARD, "table => [table.parentElement.scrollWidth, table.parentElement.clientWidth]")
    assert sizes[0] <= sizes[1]
    box = page.locator(BOARD).bounding_box()
    assert box["x"] + box["width"] <= 1280


def test_the_papers_numbers_show_when_asked_for(desk: Opened) -> None:
    page = desk.page
    paper = page.locator(f"{BOARD} .paper").first
    assert not paper.is_visible()
    page.get_by_label("Show the paper’s numbers").focus()
    page.keyboard.press("Space")
    assert paper.is_visible()


def test_the_controls_stay_below_whatever_the_sorting(desk: Opened) -> None:
    page = desk.page
    methods = names(page, BOARD)
    assert methods[-2:] == CONTROLS
    heads = page.locator(f"{BOARD} thead button")
    for place in range(heads.count()):
        for _ in range(2):
            heads.nth(place).click()
            ordered = names(page, BOARD)
            assert set(ordered[-2:]) == set(CONTROLS)
            assert set(ordered[:-2]) == set(methods[:-2])
            keys = [float(value) if place else value for value in values(page, BOARD, place)]
            order = page.locator(f"{BOARD} thead th").nth(place).get_attribute("aria-sort")
            for part in (keys[:-2], keys[-2:]):
                assert part == sorted(part, reverse=order == "descending")
    title = page.locator(f"{BOARD} .tail tr").first
    assert "Controls" in title.text_content()


def test_a_table_sorts_by_click_and_by_key(desk: Opened) -> None:
    page = desk.page
    header = page.locator(f"{BOARD} thead th").nth(1)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending", "best first"
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    page.locator(f"{BOARD} thead th").nth(0).locator("button").focus()
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") is None, "one column at a time"
    assert page.locator(f"{BOARD} thead th").nth(2).locator("button").get_attribute("data-first") == "ascending"


def test_what_has_no_value_comes_last_either_way(desk: Opened) -> None:
    page = desk.page
    page.eval_on_selector(f"{BOARD} tbody tr:nth-child(2) td", "cell => delete cell.dataset.value")
    for _ in range(2):
        page.locator(f"{BOARD} thead th").nth(1).locator("button").click()
        keys = values(page, BOARD, 1)[:-2]
        assert keys[-1] == ""
        assert "" not in keys[:-1]


def test_a_picture_opens_large_and_the_arrow_keys_go_on(desk: Opened) -> None:
    page = desk.page
    case = page.locator("#pictures .case").first
    button = case.locator("button.view").first
    button.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    title, total = page.locator("#viewer-title").text_content(), case.locator("img[data-view]").count()
    assert total == 11, "the image and ten maps"
    seen = [page.locator("#viewer-image").get_attribute("src")]
    for place in range(2, total + 1):
        page.keyboard.press("ArrowRight")
        assert page.locator("#viewer-words").text_content().endswith(f"({place} of {total})")
        assert page.locator("#viewer-title").text_content() == title
        seen.append(page.locator("#viewer-image").get_attribute("src"))
    assert len(set(seen)) == total
    page.keyboard.press("ArrowRight")
    other = page.locator("#viewer-title").text_content()
    assert other != title, "then the next case"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#viewer-words").text_content().endswith(f"({total} of {total})")
    page.keyboard.press("ArrowDown")
    assert page.locator("#viewer-title").text_content() == other
    page.locator("#viewer-before").click()
    assert page.locator("#viewer-title").text_content() == title
    box = page.locator("#viewer-image").bounding_box()
    assert box["height"] > 400
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert button.evaluate("one => document.activeElement === one"), "focus comes back"


def test_the_view_stops_at_both_ends(desk: Opened) -> None:
    page = desk.page
    page.locator("#pictures .cases").first.locator("button.view").first.click()
    assert page.locator("#viewer-before").is_disabled()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-after").is_disabled()
    page.locator("#viewer-close").click()
    assert not page.locator("#viewer").is_visible()


def test_nothing_moves_by_itself(running: Any, path: Path) -> None:
    with opened(running, path, reduced_motion="reduce") as window:
        moving = "all => all.filter(one => { const s = getComputedStyle(one); return s.animationName !== 'none' || "
        moving += "s.transitionDuration !== '0s' || s.scrollBehavior === 'smooth'; }).length"
        assert window.page.eval_on_selector_all("*", moving) == 0


def test_a_case_leads_to_its_sample(desk: Opened) -> None:
    page = desk.page
    link = page.locator("#pictures .case .title a").first
    anchor = link.get_attribute("href")
    assert not page.locator(anchor).is_visible()
    link.click()
    page.locator(f"{anchor}[open]").wait_for()
    assert page.locator(anchor).is_visible()
    top = page.locator(anchor).bounding_box()["y"]
    assert 0 <= top < 400


def test_an_address_with_a_sample_opens_it(running: Any, path: Path, runs: list[Run]) -> None:
    """Also that of a card that only "Show more" would show."""
    with opened(running, path) as window:
        page = window.page
        unfold(page)
        last = page.locator("details.sample").last.get_attribute("id")
        assert page.locator(f"#{last}").is_hidden()
        page.evaluate(f"location.hash = '{last}'")
        page.locator(f"#{last}[open]").wait_for()
        page.wait_for_timeout(100)
        assert page.locator(f"#{last}").is_visible()
        assert len(shown(page)) == 32
        page.select_option("[name=class]", "bird")
        assert page.locator(f"#{last}").is_hidden(), "it has no class"
        page.evaluate("location.hash = ''")
        page.evaluate(f"location.hash = '{last}'")
        page.locator(f"#{last}").wait_for()
        assert page.locator("[name=class]").input_value() == ""
        assert window.complaints == []


def test_the_contents_mark_what_is_read(desk: Opened) -> None:
    page = desk.page
    current = page.locator("nav a[aria-current]")
    current.wait_for()
    assert current.get_attribute("href") == "#verdict"
    page.locator("nav a[href='#leaderboard']").click()
    page.locator("nav a[href='#leaderboard'][aria-current]").wait_for()
    assert current.count() == 1
    page.locator("nav a[href='#glossary']").click()
    page.locator("nav a[href='#glossary'][aria-current]").wait_for()
    assert current.count() == 1


def test_the_gallery_filters_and_orders(desk: Opened, runs: list[Run]) -> None:
    page = desk.page
    unfold(page)
    labels = [run.description["settings"]["name"] for run in runs]
    records = pd.concat([run.records.assign(run=label) for label, run in zip(labels, runs, strict=True)])
    assert len(shown(page)) == 24, "some at a time"
    assert page.locator("#shown").text_content() == "24 of 32 matching samples shown (32 in the gallery)"
    page.locator("#more").click()
    assert len(shown(page)) == 32
    assert page.locator("#more").is_hidden()

    def expected(rows: pd.DataFrame) -> set[tuple[str, str]]:
        return set(zip(rows["sample_id"], rows["run"], strict=True))

    def seen() -> set[tuple[str, str]]:
        return {(name, run) for name, run in shown(page)}

    page.select_option("[name=class]", "bird")
    assert seen() == expected(records[records["class_index"] == 1]) != set()
    page.select_option("[name=run]", labels[1])
    assert seen() == expected(records[(records["class_index"] == 1) & (records["run"] == labels[1])])
    page.locator("#filters button[type=reset]").click()
    page.locator(SHOWN).nth(23).wait_for()
    assert len(shown(page)) == 24
    page.select_option("[name=status]", "bad")
    assert seen() == expected(records[records["status"] != "ok"])
    page.select_option("[name=status]", "skipped")
    assert seen() == expected(records[records["status"] == "skipped"])
    page.select_option("[name=status]", "")
    page.select_option("[name=method]", "ria")
    page.select_option("[name=metric]", "tdd")
    middle = float(records[records["method"] == "ria"]["tdd"].median())
    page.fill("[name=low]", str(middle))
    own = records[(records["method"] == "ria") & (records["status"] == "ok")]
    assert seen() == expected(own[own["tdd"].round(5) >= middle])
    page.select_option("[name=order]", "low")
    by_id = {(row["sample_id"], row["run"]): row["tdd"] for row in own.to_dict("records")}
    scores = [by_id[(name, run)] for name, run in shown(page)]
    assert scores == sorted(scores)
    page.locator(SHOWN).first.locator("summary").click()
    tiles = page.eval_on_selector_all(
        f"{SHOWN}[open] tr[data-method]:not([hidden])", "rows => rows.map(row => row.dataset.method)"
    )
    assert tiles == ["ria"], "only the method asked for"
    page.fill("[name=low]", "99")
    assert seen() == set()
    assert page.locator("#shown").text_content() == "No sample meets all conditions."


def test_samples_where_methods_disagree_most_come_first(desk: Opened) -> None:
    text = desk.page.eval_on_selector_all(".sample .brief", "all => all.map(one => one.textContent)")
    spreads = [float(one.rsplit(" ", 1)[1]) for one in text if not one.endswith("n/a")]
    assert len(spreads) == 30
    assert np.all(np.diff(spreads) <= 0)


def test_a_sample_opens_by_mouse_and_by_key(desk: Opened) -> None:
    page = desk.page
    unfold(page)
    page.locator("#more").click()
    with_picture = page.locator("details.sample:not(.bare)").first
    with_picture.locator("summary").click()
    assert with_picture.get_attribute("open") is not None
    assert with_picture.locator(".tiles img").count() == 10
    assert with_picture.locator(".tiles img").first.evaluate("image => image.complete && image.naturalWidth") > 0
    page.keyboard.press("Escape")
    assert with_picture.get_attribute("open") is None
    second = page.locator(SHOWN).nth(3)
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert second.get_attribute("open") is not None
    page.keyboard.press("Tab")
    assert second.evaluate("one => one.contains(document.activeElement) && document.activeElement.matches('a')")
    page.keyboard.press("Escape")
    assert second.get_attribute("open") is None
    assert second.evaluate("one => document.activeElement === one.querySelector('summary')"), "focus comes back"


def test_a_head_opens_its_definition(desk: Opened) -> None:
    page = desk.page
    link = page.locator(f"{BOARD} thead a.what").nth(3)
    assert "Stab." in page.locator(f"{BOARD} thead th").nth(3).text_content()
    link.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#definition")
    assert dialog.is_visible()
    assert page.locator("#definition-title").text_content().startswith("Stab.")
    assert "Pearson" in dialog.text_content()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    link.click()
    page.locator("#definition-close").click()
    assert link.evaluate("one => document.activeElement === one"), "focus comes back"


def test_the_keyboard_meets_a_skip_link_first_and_sees_where_it_is(desk: Opened) -> None:
    page = desk.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.locator(".skip").bounding_box()["y"] >= 0, "seen while it has focus"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    for start in (f"{BOARD} thead button", ".case button.view"):
        page.locator(start).first.focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        )
        assert style == ["solid", "2px"]


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_scrolls_in_one_direction(running: Any, path: Path, width: int) -> None:
    with opened(running, path, width, 844, has_touch=True) as window:
        page = window.page
        assert page.locator("#contents").get_attribute("open") is None
        tops = page.eval_on_selector_all(".headline", "all => all.map(one => one.getBoundingClientRect().top)")
        assert sum(top < 844 for top in tops) >= 3, "the checks are folded, so that the headlines stand together"
        lefts = page.eval_on_selector_all(".verdict-card", "all => all.map(one => one.getBoundingClientRect().left)")
        assert len(set(lefts)) == 1, "one column"
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        page.locator("#more").click()
        assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [width, width]
        wide = page.eval_on_selector(BOARD, "table => [table.scrollWidth, table.parentElement.clientWidth]")
        assert wide[0] > wide[1], "the table scrolls inside its own box"
        page.locator(".case button.view").first.click()
        for part in ("#viewer", "#viewer-image", "#viewer-after"):
            box = page.locator(part).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        assert window.complaints == []


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" or "color(srgb r g b)" by WCAG 2."""
    most = 1 if colour.startswith("color(srgb") else 255
    parts = [float(one) / most for one in re.findall(r"\d[\d.]*", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


GROUND = """one => {
  for (let node = one; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
}"""
"""The colour that stands behind an element."""
WORDS = (
    *("p", ".remark", "figcaption", "nav a", "nav a[aria-current]", ".points a", "td small", ".caption", ".lead"),
    *(".headline", ".grade", ".check", ".check .sign", ".check b", ".rule summary", ".check code"),
    *(".tail td", ".tail .title th", ".tail td small", ".case .why", ".case .small", ".maps summary", ".legend li"),
    *(".drawn svg text", ".badge", "#all-samples > summary"),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_both_colour_schemes(running: Any, path: Path, scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2 AA), on the card, the tint or the page that is behind the words."""
    with opened(running, path, color_scheme=scheme) as window:
        page = window.page
        page.locator("nav a[aria-current]").wait_for()
        ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (ground < 0.1) == (scheme == "dark")
        for selector in WORDS:
            places = page.locator(selector).count()
            assert places, selector
            for place in range(min(places, 8)):
                node = page.locator(selector).nth(place)
                ink = "fill" if "svg" in selector else "color"
                colour = luminance(node.evaluate(f"one => getComputedStyle(one).{ink}"))
                behind = luminance(node.evaluate(GROUND))
                light, dark = max(colour, behind), min(colour, behind)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, selector
        assert window.complaints == []


def test_everything_has_a_name(desk: Opened) -> None:
    page = desk.page
    assert page.eval_on_selector_all("img", "all => all.filter(one => !one.alt.trim()).length") == 0
    assert page.eval_on_selector_all("img", "all => all.length") > 40
    unnamed = (
        "all => all.filter(one => !(one.ariaLabel || one.textContent || one.querySelector('img')?.alt || '').trim())"
    )
    assert page.eval_on_selector_all("button:not([hidden]), a, summary", f"{unnamed}.map(one => one.outerHTML)") == []
    unlabelled = "all => all.filter(one => !one.labels.length && !one.getAttribute('aria-label')).map(one => one.name)"
    assert page.eval_on_selector_all("select, input", unlabelled) == []
    unread = "all => all.filter(one => !one.getAttribute('aria-label')).length"
    assert page.eval_on_selector_all("svg[role=img]", unread) == 0
    levels = page.eval_on_selector_all("main h2, main h3, header h1", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1, "no level is left out"
    assert page.evaluate("document.documentElement.lang") == "en"


def test_print_unfolds_and_hides_the_controls(desk: Opened) -> None:
    page = desk.page
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("details.fold:not([open])").count() == 0
    for hidden in ("#filters", "nav", ".switch", "#downloads", "#all-samples"):
        assert page.locator(hidden).is_hidden(), hidden
    assert page.locator(".check").last.is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.fold:not([open])").count() == 2


def test_paper_is_light_and_wide_enough(running: Any, path: Path) -> None:
    """On A4 (some 720 px between margins), whatever the screen's colours."""
    with opened(running, path, 720, color_scheme="dark") as window:
        page = window.page
        page.emulate_media(media="print")
        assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
        box = page.locator(BOARD).bounding_box()
        assert box["x"] + box["width"] <= 720


def test_without_scripts_everything_is_still_there(running: Any, path: Path) -> None:
    with opened(running, path, java_script_enabled=False) as window:
        page = window.page
        assert page.locator(".check").first.is_visible()
        unfold(page)
        assert page.locator(SHOWN).count() == 32
        page.locator(SHOWN).first.locator("summary").click()
        assert page.locator("details.sample[open]").count() == 1
        page.get_by_label("Show the paper’s numbers").check()
        assert page.locator(f"{BOARD} .paper").first.is_visible()
