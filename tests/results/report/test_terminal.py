"""What a terminal shows of a report."""

from dataclasses import replace
from io import StringIO
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import Markup
from rich.console import Console, RenderableType

from made_runs import description, make_run, repeat_targets, run_of
from segfaith.results.records.runs import Run, load_run
from segfaith.results.report import terminal
from segfaith.results.report.blocks import Card, Cards, Fold, Section
from segfaith.results.report.sections import sections
from segfaith.results.statistics.analysis import Analysis, Options, analyse
from segfaith.results.statistics.summary import TABLE_METRICS


def printed(parts: Any, width: int = 80) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, markup=False, highlight=False)
    for part in parts:
        assert isinstance(part, RenderableType)
        console.print(part)
    return stream.getvalue()


def row_of(text: str, method: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [method]]
    return line.replace(" / ", "/").split()


def test_the_table_has_means_with_medians_beside_them_in_80_columns(analysis: Analysis) -> None:
    text = printed(terminal.brief(analysis, sections(analysis)))
    (part,) = analysis.parts
    assert max(map(len, text.splitlines())) <= 80
    tdd = part.summary[part.summary["metric"] == "tdd"].set_index("method")
    for method in part.methods:
        pooled, mean = (f"{tdd.loc[method, name]:.3f}".removeprefix("0") for name in ("value", "mean"))
        assert row_of(text, method)[1] == f"{pooled}/{mean}", "TDD comes first: the pooled drop, then the mean"
    heads = next(line for line in text.splitlines() if line.startswith("Method"))
    assert heads.split() == ["Method", "TDD", "↑", "OT", "abs", "↓", "Ins.", "↑", "Stab.", "↑", "Time", "s", "↓"]
    best = tdd["predicted_value"].round(3).astype(str).str.removeprefix("0")
    for words in (
        f"TDD pooled where the IoU is at least .5 ({int(tdd['predicted_n'].max())} samples): gpa {best['gpa']}, ega ",
        "Image that moves a mean most: TDD img",
    ):
        assert words in " ".join(text.split())
    lead = "voc2012 val: TDD and OT abs pooled / mean, else mean / median, 30 samples of 2 runs,"
    assert f"{lead} stability on 16 of 30 samples" in " ".join(text.split())


def test_what_is_fewer_by_design_is_not_called_undefined(two_runs: list[Run]) -> None:
    """Half of the samples have no stability by the settings; of the others two have a constant map."""
    whole = printed(terminal.table(analyse(two_runs).parts[0]))
    assert whole.endswith("Undefined values: Leak abs 9.\n")
    records = two_runs[0].records.copy()
    chosen = records.index[(records["method"] == "ega") & records["stability"].notna()][:2]
    records.loc[chosen, "stability"] = nan
    records.loc[chosen, "reason"] = "stability (noise): the map is constant"
    part = analyse([replace(two_runs[0], records=records)]).parts[0]
    assert "Undefined values: Leak abs 1, Stab. 2." in printed(terminal.table(part))


def test_labels_are_cut_to_fit() -> None:
    name = "my_long_method_file_name.py:explain_with_everything"
    row = {"sample_id": "x", "status": "ok", "s": 0.5, "reason": ""}
    rows = [row | dict.fromkeys(TABLE_METRICS, -12.5) | {"method": method} for method in (name, "mask")]
    about = description(0, ["x"], "folder", "net", [name, "mask"])
    text = printed(terminal.table(analyse([run_of(about, pd.DataFrame(rows))]).parts[0]))
    assert max(map(len, text.splitlines())) <= 80
    assert "my_lon" in text
    assert "…" in text
    assert text.count("−12.5 / −12.5") == 2 * 4, "numbers are never cut"
    about["methods"][name]["label"] = "Ours"
    text = printed(terminal.table(analyse([run_of(about, pd.DataFrame(rows))]).parts[0]))
    assert row_of(text, "Ours")
    assert "my_l" not in text


def test_metrics_that_do_not_fit_are_left_out() -> None:
    row = {"sample_id": "x", "status": "ok", "s": 0.5, "reason": "", "method": "ega"}
    frame = pd.DataFrame([row | dict.fromkeys(TABLE_METRICS, -987.6)])
    text = printed(terminal.table(analyse([run_of(description(0, ["x"], "folder", "net", ["ega"]), frame)]).parts[0]))
    assert max(map(len, text.splitlines())) <= 80
    assert "−987.6 / −987.6  " in text
    assert "Stab." not in text
    assert "Time s" in text


def test_controls_stand_below_the_methods_apart(analysis: Analysis) -> None:
    lines = [line.strip() for line in printed(terminal.table(analysis.parts[0])).splitlines()]
    names = [line.split()[0] if line else "" for line in lines]
    place = names.index("random_cells")
    assert names[place - 1] == ""
    assert names[place - 2].startswith("dea@")


def test_a_verdict_is_a_line_a_method() -> None:
    cards = Cards(
        "voc2012 val",
        (
            Card("ega", "EGA", "fail", Markup("no <strong>better</strong> than chance"), ()),
            Card("dea", "Ours & theirs", "pass", Markup("passes &amp; all"), ()),
        ),
    )
    within = Section("verdict", "Verdict", (Fold(Markup("more"), (cards,)),))
    assert terminal.verdicts([within]) == [
        "✗ EGA            no better than chance",
        "✓ Ours & theirs  passes & all",
    ]
    assert terminal.verdicts([]) == []


def test_claims_are_printed_for_the_papers_data_alone(analysis: Analysis, tmp_path: Path) -> None:
    text = printed(terminal.more(analysis, sections(analysis)), width=400)
    assert "RIA has the highest TDD (✓ holds; 2/2; to dea, pooled drop: " in text
    other = analyse([load_run(make_run(tmp_path / "other", data="folder", maps=0))])
    text = printed(terminal.more(other, sections(other)), width=400)
    assert "RIA has the highest TDD" not in text
    assert "samples measured" in text


def test_warnings_are_always_there(two_runs: list[Run]) -> None:
    """Absent runs, runs that are not finished, and filters; what each run is comes on request."""
    short = replace(two_runs[0], records=two_runs[0].records[two_runs[0].records["sample_id"] != "img03"])
    analysis = analyse([short], Options(min_s=0.05, min_iou=0.1), ["net-seed2 is planned, but not here: stopped"])
    built = sections(analysis)
    text = printed(terminal.brief(analysis, built))
    for sentence in (
        "net-seed2 is planned, but not here: stopped",
        "voc2012-netA-seed0: not finished, 1 sample to go.",
        "Only samples with s >= 0.05 entered.",
        "Only samples with an IoU of the prediction with the target >= 0.1 entered.",
    ):
        assert sentence in text
    assert "weights netA.pth" not in text
    assert "weights netA.pth" in printed(terminal.more(analysis, built))


def test_no_sample_is_said_in_place_of_a_table(two_runs: list[Run]) -> None:
    analysis = analyse(two_runs, Options(min_s=1.1))
    assert printed(terminal.brief(analysis)).startswith("voc2012 val: no sample was measured\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.4311, ".431"), (-0.05, "−.050"), (1.25, "1.250"), (10.04, "10.0"), (4321.0, "4.32e+03"), (nan, "n/a")],
)
def test_numbers_lose_the_zero_before_the_point(value: float, shown: str) -> None:
    row = {"sample_id": "x", "status": "ok", "s": 0.5, "reason": "", "method": "ega"}
    frame = pd.DataFrame([row | dict.fromkeys(TABLE_METRICS, 0.5) | {"tdd": value}])
    text = printed(terminal.table(analyse([run_of(description(0, ["x"], "folder", "net", ["ega"]), frame)]).parts[0]))
    assert row_of(text, "ega")[2] == f"{shown}/{shown}", "after fidelity"


def test_images_and_targets_are_counted(tmp_path: Path) -> None:
    ids = tuple(f"i{number}" for number in range(6))
    directory = make_run(tmp_path / "run", samples=ids, maps=0, curves=False, skipped=1, failed=0)
    single = " ".join(printed(terminal.brief(analyse([load_run(directory)]))).split())
    assert "5 samples of 1 run, stability on 3 of 5 samples" in single
    assert "target" not in single
    analysis = analyse([load_run(repeat_targets(directory))])
    several = " ".join(printed(terminal.brief(analysis)).split())
    assert "5 samples (10 targets) of 1 run, stability on 3 of 5 samples" in several
    assert "voc2012 val: 5 images (10 targets) entered. Every mean, test and interval is over images:" in several
