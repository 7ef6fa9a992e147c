"""Blocks: words are escaped, numbers are written plainly, and a section knows whether it says anything."""

from math import nan

from markupsafe import Markup

from segfaith.results.report.blocks import (
    Cell,
    Column,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    listed,
    missing,
    number,
    p_value,
    p_words,
    spread,
    words,
)


def test_numbers_are_written_plainly() -> None:
    assert [number(value) for value in (0.12345, -0.5, -0.0001, 4321.0, nan)] == [
        "0.123",
        "−0.500",
        "0.000",
        "4.32e+03",
        "n/a",
    ]
    assert [p_value(value) for value in (0.0004, 0.012, 1.0, nan)] == ["<\xa0.001", ".012", "1.000", "n/a"]
    assert [p_words(value) for value in (0.0004, 0.012)] == ["p\xa0<\xa0.001", "p\xa0=\xa0.012"]
    assert spread(0.5, nan) == "0.500"


def test_words_escape_what_is_put_into_them() -> None:
    assert words("{} <b>{x}</b>", "<i>", x="&") == Markup("&lt;i&gt; <b>&amp;</b>")
    assert listed(["a", "<b>", "c"]) == Markup("a, &lt;b&gt; and c")


def test_what_is_missing_names_its_reason_and_its_command() -> None:
    prose = missing("no sample of <set> was measured.", "segfaith run FILE")
    assert prose.kind == "missing"
    assert prose.text == Markup("No sample of &lt;set&gt; was measured. Measure it: <code>segfaith run FILE</code>")
    assert missing("nothing measures it", "").text == "Nothing measures it."


def test_a_section_of_reasons_alone_is_not_measured() -> None:
    reason, heading = missing("nothing", ""), Prose(Markup("sbd val"), "heading")
    assert not Section("x", "X", (heading, reason, reason)).measured
    assert not Section("x", "X", ()).measured
    assert Section("x", "X", (reason, Prose(Markup("All the same.")))).measured
    assert Section("x", "X", (reason, Points((Markup("a"),)))).measured


def test_the_blocks_of_a_section_come_in_reading_order() -> None:
    table = Table("t", Markup("T"), (Column("A"),), ((Cell("1"),),))
    first, last = Prose(Markup("first")), Prose(Markup("last"))
    inner = Fold(Markup("inner"), (table,))
    fold = Fold(Markup("outer"), (first, inner))
    assert list(Section("x", "X", (fold, last)).blocks()) == [fold, first, inner, table, last]
