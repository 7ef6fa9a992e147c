"""Sections as Markdown: what of the markup is kept, what is escaped, and that tables hold together."""

import re

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from segfaith.errors import SettingsError
from segfaith.results.figures.drawing import Drawing
from segfaith.results.report.blocks import (
    Block,
    Card,
    Cards,
    Cell,
    Check,
    Column,
    Figure,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    missing,
    ref,
    words,
)
from segfaith.results.report.markdown import inline, markdown, plain, table_lines
from segfaith.results.report.sections import sections
from segfaith.results.statistics.analysis import Analysis


def test_bars_within_cells_of_markdown_are_escaped() -> None:
    assert table_lines([["|a|"], ["b"]]) == [r"| \|a\| |", "| --- |", "| b |"]


def test_strong_and_code_are_kept_and_links_become_words() -> None:
    template = "<strong>{}</strong> is {} (<code>{}</code>), <span>s <small>&lt; 1</small></span>"
    text = words(template, "ega", ref("p", "best"), "a --b")
    assert inline(text) == "**ega** is best (`a --b`), s < 1"
    assert plain(text) == "ega is best (a --b), s < 1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x>", r"\<img src=x>"),
        ("[a](b)", r"[a]\(b)"),
        ("s < .05", "s < .05"),
        ("a\nb\xa0c", "a b c"),
        ("+0.1 [0.0, 0.2], 8 images", "+0.1 [0.0, 0.2], 8 images"),
    ],
)
def test_names_start_no_tag_link_or_line(text: str, shown: str) -> None:
    """As plain words and as escaped markup."""
    assert inline(text) == inline(words("{}", text)) == shown


def page(*parts: Block, figures: bool = False) -> str:
    return markdown([Section("x", "Title", parts)], figures=figures)


def test_every_block_has_its_form() -> None:
    columns = (Column("Method", numeric=False), Column("TDD"))
    rows = ((Cell("ega"), Cell("0.5", note="(4)", best=True)), (Cell("dea"), Cell("0.4", under="mean 0.3")))
    text = page(
        Prose(Markup("Words.")),
        Prose(Markup("Head"), "heading"),
        missing("nothing", "do it"),
        Points((Markup("a"), Markup("b"))),
        Fold(Markup("<strong>TDD</strong>: more"), (Table("t", Markup("Caption"), columns, rows),)),
        Points(()),
    )
    assert text == (
        "# Title\n\nWords.\n\n### Head\n\nNot measured: Nothing. Measure it: `do it`\n\n- a\n- b\n\n#### TDD: more\n\n"
        "**Caption**\n\n| Method | TDD |\n| --- | --- |\n| ega | **0.5** (4) |\n| dea | 0.4 (mean 0.3) |\n"
    )


def test_several_sections_stand_under_one_title() -> None:
    both = [Section("a", "A", (Prose(Markup("x")),)), Section("b", "B", ())]
    assert markdown(both) == "# What these runs say\n\n## A\n\nx\n\n## B\n"
    assert markdown(both, "Own").startswith("# Own\n\n## A")


def test_cards_say_their_mark_in_words() -> None:
    check = Check("Chance", "fail", Markup("No better than random cells."), Markup("p < .05"))
    card = Card("ega", "Ours", "warn", Markup("Half <strong>good</strong>."), (check,))
    text = page(Cards("voc2012 val", (card,)))
    assert "**Ours** (! warn): Half **good**.\n\n- ✗ fail: Chance: No better than random cells." in text


def test_figures_are_linked_only_where_they_were_drawn() -> None:
    good = Figure(Drawing("runs-voc", "Dots. A dot is a run.", Canvas))

    def refuse() -> Canvas:
        raise SettingsError("too few <runs>")

    bad = Figure(Drawing("curves-voc", "Curves.", refuse))
    text = page(good, bad, figures=True)
    assert "![Dots](figures/runs-voc.png)\n\nDots. A dot is a run." in text
    assert r"Not drawn: too few \<runs>" in text
    assert page(good, bad) == "# Title\n"


def test_the_whole_report_holds_together(analysis: Analysis) -> None:
    text = markdown(sections(analysis))
    assert "\n\n\n" not in text
    assert not re.search(r"</?[a-z]+[ >]", text), "no tag is left"
    assert "&lt;" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 20
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1, table
