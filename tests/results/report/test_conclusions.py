"""The page of conclusions and its files."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from made_runs import make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS
from segfaith.results.report.conclusions import markdown_table, write_conclusions
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.claims import verdict_words


def made(folder: Path, seeds: int = 1, **options: Any) -> list[Run]:
    return [load_run(make_run(folder / f"s{seed}", seed=seed, maps=0, **options)) for seed in range(seeds)]


FILES = [
    *("conclusions.md", "claims.md", "table.tex", "runs.csv", "paper.csv", "claims.csv", "wins.csv", "rankings.csv"),
    *("concordance.csv", "areas.csv", "curves.csv", "robust.csv", "drops.csv", "strata.csv", "leakage.csv"),
    *("map_properties.csv", "randomisation.csv"),
]


def test_conclusions_of_full_runs_write_everything(tmp_path: Path) -> None:
    paths = write_conclusions(analyse(made(tmp_path / "runs", 2)), tmp_path / "out")
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    for path in paths:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                assert len(list(csv.DictReader(file))) > 0, path.name
    page = paths[0].read_text(encoding="utf-8")
    assert "not computed" not in page
    verdicts = pd.read_csv(paths[5])["holds"].value_counts()
    assert verdicts.sum() == 15 == verdicts.reindex(["holds", "fails", "draw"]).sum()
    assert f"voc2012 val: {', '.join(verdict_words(pd.read_csv(paths[5])['holds']))}." in page
    assert "| DEA's TDD is above EGA's in every run | holds | 2/2 runs | " in page
    assert "- Kendall's W of voc2012 val: TDD over occlusion operators (own methods): 0." in page
    assert re.search(r"own methods\): 0\.\d\d, beyond chance 0\.\d\d, p 0\.\d{3} \(4 methods, 3 settings", page)
    assert "| voc2012 val | netA | 1 classifier, s 0.700 | 0.720 (8) | " in page
    assert "\n\n\n" not in page
    for heading, block in re.findall(r"^## (.+)\n\n((?:.|\n)+?)(?=\n## |\Z)", page, re.MULTILINE):
        tables = re.findall(r"(?:^\|.*\n?)+", block, re.MULTILINE)
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
            assert len(widths) == 1, (heading, table)
    assert paths[1].read_text(encoding="utf-8").count("| holds |") >= 10


def test_conclusions_of_old_records_say_what_is_missing_and_why(tmp_path: Path) -> None:
    (one,) = made(tmp_path / "runs", methods=("ega", "dea", "random_cells"), data="folder")
    newer = [*("odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far", "energy_inside", "pointing", "gini")]
    newer += [name for name in one.records if re.fullmatch("s_(fair|near|middle|far)_deleted", name)]
    old = replace(
        one,
        records=one.records.drop(columns=newer),
        curves=pd.DataFrame(columns=[*CURVE_COLUMNS]),
        randomisation=pd.DataFrame(columns=[*RANDOMISATION_COLUMNS]),
    )
    paths = write_conclusions(analyse([old]), tmp_path / "out")
    names = {path.name for path in paths}
    absent = {"paper.csv", "rankings.csv", "areas.csv", "curves.csv", "leakage.csv", "map_properties.csv"}
    assert set(FILES) - names == absent | {"randomisation.csv"}
    page = paths[0].read_text(encoding="utf-8")
    for words in (
        "- not computed: the comparison with the paper: the paper's numbers are of its four methods",
        "- not computed: Kendall's W, folder val: not testable: no run has curves; name several operators or several k",
        "; of TDD over occlusion operators (all methods), TDD over occlusion operators (own methods), TDD over values",
        "- not computed: areas: folder val: no run has curves",
        "- not computed: fair leakage: no run has values of odd_fair_abs",
        "- not computed: map properties: no run has values of pointing",
        "- not computed: randomisation: no run has made the randomisation check",
        "| RIA has the highest TDD | not testable | 0/0 runs |  | no run has a value of TDD for ria, gpa |",
    ):
        assert words in page, words


def test_conclusions_obey_the_filter_on_s(tmp_path: Path) -> None:
    data = made(tmp_path / "runs")
    every = pd.read_csv(write_conclusions(analyse(data), tmp_path / "all")[3])
    paths = write_conclusions(analyse(data, Options(min_s=0.05)), tmp_path / "some")
    some = pd.read_csv(paths[3])
    leak = [one[(one["method"] == "ega") & (one["metric"] == "odd_abs")].iloc[0] for one in (every, some)]
    assert leak[0]["n"] - leak[1]["n"] == 1
    assert leak[0]["value"] > 1.5 * leak[1]["value"], "the sample with s = .01 rules the mean"
    assert "Only samples with s >= 0.05 entered." in paths[0].read_text(encoding="utf-8")
    assert "0 <= s < 0.05" not in paths[0].read_text(encoding="utf-8")


def test_bars_within_cells_of_markdown_are_escaped() -> None:
    assert markdown_table([["|a|"], ["b"]]) == [r"| \|a\| |", "| --- |", "| b |"]
