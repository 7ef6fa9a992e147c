"""The page on significance and its files."""

from pathlib import Path

import pandas as pd
import pytest

from hand_runs import by_image, drawn, twice
from made_runs import make_run
from segfaith.results.records.runs import load_run
from segfaith.results.report.significance_page import page, write_significance
from segfaith.results.statistics import paired as significance
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.paired import compare, paired


def test_of_leakages_the_difference_is_not_that_of_the_two_trimmed_means_and_the_page_says_so() -> None:
    """The trimmed mean of d_i; by hand over ten images, of which the lowest and the highest are cut."""
    values = {"a": [*[0.0] * 9, 9.0], "b": [*[0.1] * 8, 4.0, 9.0]}
    runs = twice(values, metric="leak_abs")
    (row,) = compare(paired(runs, "leak_abs")).to_dict("records")
    assert row["difference"] == pytest.approx(-0.1)
    assert row["value_first"] - row["value_second"] == pytest.approx(0 - (0.7 + 4) / 8)
    said = page(analyse(runs))
    assert "of leakages the trimmed mean (without the lowest and the highest tenth) of the differences image by" in said
    assert "which is not the first's trimmed mean minus the second's" in said


def test_the_page_and_its_files(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / f"run{seed}", seed=seed, curves=False, maps=0)) for seed in (0, 1)]
    analysis = analyse(runs)
    paths = write_significance(analysis, tmp_path / "out")
    assert [path.name for path in paths] == ["significance.csv", "significance.md"]
    table = pd.read_csv(paths[0], keep_default_na=False, na_values=[""])
    assert list(table.columns) == list(significance.COLUMNS)
    assert len(table) == 6 * 10, "four methods and random_cells by six metrics"
    assert table["why"].isna().all()
    text = paths[1].read_text(encoding="utf-8")
    assert text == page(analysis)
    found = compare(paired(runs, "tdd")).set_index(["first", "second"]).loc[("ega", "ria")]
    (line,) = [one for one in section(text, "### TDD (tdd)") if one.startswith("| ega | ria |")]
    assert line.startswith(f"| ega | ria | {found['images']} | 2 | {found['value_first']:.3f} | ")
    assert f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" in line
    assert line.endswith("| < 0.001 | < 0.001 | ria better |")
    assert any(one.startswith("- Mean ranks over 22 images: ria 1.") for one in section(text, "### TDD (tdd)"))
    # lower is better: RIA's leakage of 0.2 against GPA's of 0.3
    (line,) = [one for one in section(text, "### OT abs (odd_abs)") if one.startswith("| gpa | ria |")]
    assert line.endswith("| ria better |")
    assert "Only samples" not in text
    assert "Only samples with s >= 0.05 entered." in page(analyse(runs, Options(min_s=0.05)))


def section(text: str, heading: str) -> list[str]:
    return text.partition(heading + "\n")[2].partition("\n#")[0].splitlines()


def test_the_page_refuses_in_words() -> None:
    alone = page(analyse([by_image(drawn(12, a=0.5, b=0.4, c=0.3))]))
    lines = section(alone, "### TDD (tdd)")
    assert sum("not testable: one run, " in line for line in lines) == 4, "three pairs and Friedman"
    assert "Holm's correction is over 0 of 3 pairs, those that are testable." in lines
    assert sum("| 12 | 1 |" in line for line in lines) == 3
    assert " better" not in alone.partition("## voc")[2]
    nobody = page(analyse(twice(drawn(12, dea=0.5, mask=0.4))))
    assert "- not testable: fewer than two methods but for controls and variants" in nobody
