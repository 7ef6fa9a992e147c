"""The report page in headless Chromium: sorting, filtering, opening, keyboard, narrow screens, silence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from browser import Opened, browser, opened
from made_runs import make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.report.topics import write_report

pytestmark = pytest.mark.browser
SHOWN = "details.sample:not([hidden])"
MEANS = "#means-voc2012-val"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    ids = tuple(f"img{i:02d}" for i in range(16))
    return [load_run(make_run(folder / f"run{seed}", seed=seed, samples=ids, maps=4)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def path(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def desk(running: Any, path: Path) -> Iterator[Opened]:
    with opened(running, path) as found:
        yield found
        assert found.complaints == []
        assert {url for url in found.requests if not url.startswith(("file:", "data:"))} == set()
        assert sum(url.startswith("file:") for url in found.requests) == 1, "the page itself"


def column(page: Any, table: str, place: int) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map(row => row.cells[{place}].dataset.value ?? '')"
    )


def shown(page: Any) -> list[tuple[str, str]]:
    """Id and run of the cards that are seen."""
    return page.eval_on_selector_all(
        SHOWN,
        "cards => cards.map(card => [card.querySelector('.id').textContent, "
        "card.querySelector('.small').textContent.split(' · ')[1]])",
    )


def test_a_table_sorts_by_click_and_by_key(desk: Opened) -> None:
    page = desk.page
    page.locator(f"{MEANS} thead th").nth(1).locator("button").click()
    header = page.locator(f"{MEANS} thead th").nth(1)
    assert header.get_attribute("aria-sort") == "descending", "best first"
    values = [float(one) for one in column(page, MEANS, 1)]
    assert len(values) == 10
    assert values == sorted(values, reverse=True)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(one) for one in column(page, MEANS, 1)] == sorted(values)
    page.locator(f"{MEANS} thead th").nth(0).locator("button").focus()
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") is None, "one column at a time"
    names = column(page, MEANS, 0)
    assert names == sorted(names)
    assert page.locator(f"{MEANS} thead th").nth(3).locator("button").get_attribute("data-first") == "ascending"


def test_what_has_no_value_comes_last_either_way(desk: Opened) -> None:
    page = desk.page
    page.eval_on_selector(f"{MEANS} tbody tr:nth-child(2) td", "cell => delete cell.dataset.value")
    for _ in range(2):
        page.locator(f"{MEANS} thead th").nth(1).locator("button").click()
        values = column(page, MEANS, 1)
        assert values[-1] == ""
        assert "" not in values[:-1]


def test_the_gallery_filters_and_orders(desk: Opened, runs: list[Run]) -> None:
    page = desk.page
    labels = [one.description["settings"]["name"] for one in runs]
    records = pd.concat([one.records.assign(run=label) for label, one in zip(labels, runs, strict=True)])
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
    values = [by_id[(name, run)] for name, run in shown(page)]
    assert values == sorted(values)
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
    values = [float(one.rsplit(" ", 1)[1]) for one in text if not one.endswith("n/a")]
    assert len(values) == 30
    assert np.all(np.diff(values) <= 0)


def test_a_sample_opens_by_mouse_and_by_key(desk: Opened) -> None:
    page = desk.page
    with_picture = page.locator("details.sample:not(.bare)").first
    page.locator("#more").click()
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


def test_a_number_opens_its_definition(desk: Opened) -> None:
    page = desk.page
    page.locator(f"{MEANS} tbody td a.n").first.click()
    dialog = page.locator("#definition")
    assert dialog.is_visible()
    assert "TDD" in page.locator("#definition-title").text_content()
    assert "(s − s(O(x, S_t))) / (|s| + ε)" in dialog.text_content()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    link = page.locator(f"{MEANS} thead a.what").nth(3)
    link.focus()
    page.keyboard.press("Enter")
    assert page.locator("#definition-title").text_content().startswith("OT abs")
    page.locator("#definition-close").click()
    assert link.evaluate("one => document.activeElement === one"), "focus comes back"


def test_the_keyboard_meets_a_skip_link_first_and_sees_where_it_is(desk: Opened) -> None:
    page = desk.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.locator(".skip").bounding_box()["y"] >= 0, "seen while it has focus"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    page.locator(f"{MEANS} thead button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    style = page.evaluate(
        "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert style == ["solid", "2px"]


def test_a_phone_scrolls_in_one_direction(running: Any, path: Path) -> None:
    with opened(running, path, 360, 740, has_touch=True) as found:
        page = found.page
        assert page.locator("#contents").get_attribute("open") is None
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        page.locator("#more").click()
        assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [360, 360]
        wide = page.eval_on_selector(MEANS, "table => [table.scrollWidth, table.parentElement.clientWidth]")
        assert wide[0] > wide[1], "the table scrolls inside its own box"
        page.locator(f"{MEANS} tbody td a.n").first.click()
        box = page.locator("#definition").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert found.complaints == []


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" by WCAG 2."""
    parts = [float(one) / 255 for one in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_both_colour_schemes(running: Any, path: Path, scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2 AA)."""
    with opened(running, path, color_scheme=scheme) as found:
        page = found.page
        ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (ground < 0.1) == (scheme == "dark")
        for selector in ("p", ".remark", "figcaption", "nav a", ".points a:not(.def)", ".good", "td small", ".caption"):
            colour = luminance(page.eval_on_selector(selector, "one => getComputedStyle(one).color"))
            light, dark = max(colour, ground), min(colour, ground)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, selector
        assert found.complaints == []


def test_everything_has_a_name(desk: Opened) -> None:
    page = desk.page
    assert page.eval_on_selector_all("img", "all => all.filter(one => !one.alt.trim()).length") == 0
    assert page.eval_on_selector_all("img", "all => all.length") > 40
    unnamed = "all => all.filter(one => !(one.ariaLabel || one.textContent).trim()).map(one => one.outerHTML)"
    assert page.eval_on_selector_all("button:not([hidden]), a, summary", unnamed) == []
    unlabelled = "all => all.filter(one => !one.labels.length && !one.getAttribute('aria-label')).map(one => one.name)"
    assert page.eval_on_selector_all("select, input", unlabelled) == []
    assert (
        page.eval_on_selector_all("svg[role=img]", "all => all.filter(one => !one.getAttribute('aria-label')).length")
        == 0
    )
    levels = page.eval_on_selector_all("main h2, main h3, header h1", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1, "no level is left out"
    assert page.evaluate("document.documentElement.lang") == "en"


def test_print_unfolds_and_hides_the_controls(desk: Opened) -> None:
    page = desk.page
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("details.fold:not([open])").count() == 0
    assert page.locator("#filters").is_hidden()
    assert page.locator("nav").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.fold:not([open])").count() > 3


def test_without_scripts_everything_is_still_there(running: Any, path: Path) -> None:
    with opened(running, path, java_script_enabled=False) as found:
        assert found.page.locator(SHOWN).count() == 32
        found.page.locator(SHOWN).first.locator("summary").click()
        assert found.page.locator("details.sample[open]").count() == 1
