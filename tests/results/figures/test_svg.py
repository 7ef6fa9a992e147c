"""Figures inlined in a page: well-formed, without styles, ids of their own, the page's colours, the same bytes."""

from collections.abc import Callable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from matplotlib.figure import Figure

from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.style import COLUMN_WIDTH, FULL_WIDTH, canvas
from segfaith.results.figures.svg import inline_svg
from segfaith.results.statistics.analysis import DataAnalysis

SPACE = "{http://www.w3.org/2000/svg}"
ON_PAGE = ("tradeoff", "runs", "curves", "critical-differences", "rankings", "randomisation")


def parsed(text: str) -> Element:
    return ElementTree.fromstring(text)


@pytest.fixture(scope="module")
def inlined(part: DataAnalysis) -> dict[str, str]:
    drawings = {name: DRAWINGS[name](part) for name in ON_PAGE}
    assert all(drawing.on_page and drawing.figure is not None for drawing in drawings.values())
    return {name: inline_svg(one.figure, one.name, "what it shows") for name, one in drawings.items() if one.figure}


def test_a_page_with_every_figure_has_no_styles_and_no_id_twice(inlined: dict[str, str]) -> None:
    page = parsed(f"<body>{''.join(inlined.values())}</body>")
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 20
    for element in page.iter():
        assert element.get("style") is None
        assert element.tag not in (f"{SPACE}style", f"{SPACE}metadata", f"{SPACE}script")
        assert element.get("class", "plot wide") in ("plot wide", "plot narrow")
        for value in element.attrib.values():
            if value.startswith("url("):
                assert value[5:-1] in ids
        if element.tag == f"{SPACE}use":
            assert element.get("href", "")[1:] in ids
    for figure in page:
        assert figure.get("role") == "img"
        assert figure.get("aria-label") == "what it shows"
        assert figure.get("width") is None
        assert len(figure.get("viewBox", "").split()) == 4


def test_greys_are_the_pages_and_methods_keep_their_colours(inlined: dict[str, str]) -> None:
    colours = {
        element.get(key)
        for text in inlined.values()
        for element in parsed(text).iter()
        for key in ("fill", "stroke")
        if element.get(key)
    }
    allowed = {"none", "currentColor", *(f"var(--plot-{name})" for name in ("dark", "middle", "rule", "paper"))}
    coloured = colours - allowed
    assert {"#0072b2", "#d55e00", "#009e73"} <= coloured
    assert all(len({one[1:3], one[3:5], one[5:7]}) > 1 for one in coloured if one)
    assert "DejaVu" not in "".join(inlined.values())


def test_the_same_figure_gives_the_same_bytes_and_few_of_them(part: DataAnalysis, inlined: dict[str, str]) -> None:
    for name, text in inlined.items():
        drawing = DRAWINGS[name](part)
        assert drawing.figure is not None
        assert inline_svg(drawing.figure, drawing.name, "what it shows") == text
        assert len(text.encode()) < 80_000
    assert sum(len(text.encode()) for text in inlined.values()) < 300_000


def test_text_stays_text_at_the_place_of_its_anchor(inlined: dict[str, str]) -> None:
    texts = {text.text: text for text in parsed(inlined["critical-differences"]).iter(f"{SPACE}text")}
    assert "TDD (22 images)" in texts
    assert texts["TDD (22 images)"].get("text-anchor") == "middle"
    assert texts["TDD (22 images)"].get("transform") is None
    assert texts["TDD (22 images)"].get("font-size") == "8"


def drawn(change: Callable[[Figure], object], width: float = COLUMN_WIDTH) -> Element:
    figure = canvas(width, 1.0)
    change(figure)
    return parsed(inline_svg(figure, "one"))


def test_colours_numbers_and_clips_of_a_figure_made_by_hand() -> None:
    def change(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="black", linewidth=1.23456)
        axes.plot([0, 1], [1, 0], color="0.88", linestyle=(0, (1.23456, 2)))
        axes.plot([0.5], [0.5], marker="o", markerfacecolor="white", color="#0072B2", linestyle="")
        axes.axis("off")

    root = drawn(change)
    lines = [one for one in root.iter(f"{SPACE}path") if one.get("clip-path")]
    assert [one.get("stroke") for one in lines] == ["currentColor", "var(--plot-rule)"]
    assert lines[0].get("stroke-width") == "1.23"
    assert lines[1].get("stroke-dasharray") == "1.85 3"
    (mark,) = root.iter(f"{SPACE}use")
    assert (mark.get("fill"), mark.get("stroke")) == ("var(--plot-paper)", "#0072b2")
    numbers = lines[0].get("d", "").replace("M", "").replace("L", " ").split()
    assert len(numbers) == 4
    assert all(len(number.partition(".")[2]) <= 2 for number in numbers)
    clips = [one.get("id") for one in root.iter(f"{SPACE}clipPath")]
    assert lines[0].get("clip-path") == f"url(#{clips[0]})"
    assert clips[0] is not None
    assert clips[0].startswith("one-")
    assert root.get("class") == "plot narrow"
    assert root.get("aria-label") == "one"


def test_a_wide_figure_says_so_and_words_are_escaped() -> None:
    root = drawn(lambda figure: figure.text(0.5, 0.5, "a < b & c"), FULL_WIDTH)
    assert root.get("class") == "plot wide"
    assert [text.text for text in root.iter(f"{SPACE}text")] == ["a < b & c"]


def test_formulas_and_pictures_stay_whole() -> None:
    def change(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(np.eye(3))
        axes.set_title(r"$A_g$ of it")

    root = drawn(change)
    (title,) = [text for text in root.iter(f"{SPACE}text") if len(text)]
    assert "".join(title.itertext()).replace(" ", "").startswith("Ag")
    (picture,) = root.iter(f"{SPACE}image")
    assert picture.get("href", "").startswith("data:image/png;base64,")
