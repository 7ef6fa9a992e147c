"""Several targets of one image: means by hand, tests on images, and targets that add no image."""

from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats

from hand_runs import row, run_of_rows, with_curves
from made_runs import make_run, repeat_targets
from planted_runs import RISING, planted_run, rows_of
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.report.write import FILES
from segfaith.results.statistics import evidence, rankings
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.curves import points
from segfaith.results.statistics.distributions import absolute_drops, robust, strata
from segfaith.results.statistics.influence import best, influence, missed
from segfaith.results.statistics.paired import compare, paired
from segfaith.results.statistics.randomisation import kept, randomisation
from segfaith.results.statistics.samples import samples
from segfaith.results.statistics.summary import notes, run_values, summarise, wins
from segfaith.results.statistics.targets import counted, target_note

NAMES = ("dog", "dog-2", "cat")


def of_targets(values: dict[str, dict[str, list[float]]], metric: str = "tdd", **columns: Any) -> Run:
    """A run in which a method has values[method][image][t] on target t of an image; named where there are several."""
    return run_of_rows(
        *(
            row(image, method, **{metric: value}, **columns) | {"target": NAMES[place] if len(targets) > 1 else ""}
            for method, images in values.items()
            for image, targets in images.items()
            for place, value in enumerate(targets)
        )
    )


def test_a_mean_is_over_images_of_the_mean_over_their_targets() -> None:
    run = of_targets({"ega": {"a": [0.1, 0.2, 0.6], "b": [0.9]}})
    (line,) = summarise([run]).query("metric == 'tdd'").to_dict("records")
    assert line["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert line["median"] == pytest.approx(0.6)
    assert line["n"] == 2
    (value,) = run_values([run]).query("metric == 'tdd'").to_dict("records")
    assert (value["value"], value["n"]) == (pytest.approx(0.6), 2)
    (typical,) = robust(samples([run])).query("metric == 'tdd'").to_dict("records")
    assert [typical[name] for name in ("mean", "median", "n")] == [pytest.approx(0.6), pytest.approx(0.6), 2]


def test_undefined_values_are_left_out_of_an_images_mean_and_counted_by_target() -> None:
    run = of_targets({"ega": {"a": [0.1, nan], "b": [0.9], "c": [nan, nan]}})
    (line,) = summarise([run]).query("metric == 'tdd'").to_dict("records")
    assert line["mean"] == pytest.approx(0.5)
    assert (line["n"], line["undefined"]) == (2, 3)


def test_methods_are_compared_on_the_same_targets() -> None:
    """On a, DEA lacks a value of the first target: the second alone counts, though EGA has both."""
    run = of_targets({"ega": {"a": [0.9, 0.3], "b": [0.2]}, "dea": {"a": [nan, 0.4], "b": [0.6]}})
    (pair,) = compare(paired([run], "tdd"), ["dea", "ega"], single_run=True).to_dict("records")
    assert pair["images"] == 2
    assert pair["value_second"] == pytest.approx((0.3 + 0.2) / 2)
    assert pair["difference"] == pytest.approx((0.1 + 0.4) / 2)


def test_wilcoxons_test_is_on_the_means_of_images() -> None:
    images = [f"i{number:02d}" for number in range(12)]
    ega = {name: [0.01 * number, 0.02 * number, 0.3] for number, name in enumerate(images)}
    dea = {name: [0.05 * number, 0.4 - 0.03 * number**1.5, 0.2] for number, name in enumerate(images)}
    run = of_targets({"ega": ega, "dea": dea})
    (pair,) = compare(paired([run], "tdd"), ["dea", "ega"], single_run=True).to_dict("records")
    means = [[sum(method[name]) / 3 for name in images] for method in (dea, ega)]
    result = stats.wilcoxon(
        [round(x - y, 12) for x, y in zip(*means, strict=True)], zero_method="pratt", method="exact"
    )
    assert pair["images"] == 12
    assert pair["p"] == pytest.approx(result.pvalue, rel=1e-12)


COUNTED = ["undefined", "not_ok", "constant", "failed", "rows"]
"""Columns that count rows."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of 24 images, and the same with each target a second time."""
    folder = tmp_path_factory.mktemp("both")
    methods = ("gpa", "ega", "ria", "dea", "random_cells")
    paths = [make_run(folder / name / "run", methods=methods, maps=1, size=32) for name in ("single", "double")]
    return paths[0], repeat_targets(paths[1])


def test_a_target_that_is_there_twice_moves_no_number(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No mean, p-value or interval may change: the targets of an image are not independent."""
    monkeypatch.setattr(rankings, "EVERY", 0)
    monkeypatch.setattr(rankings, "DRAWS", 99)
    single, double = (analyse([load_run(path)], Options(single_run=True)) for path in both)
    for name, table in FILES.items():
        before, after = table(single), table(double)
        assert_frame_equal(
            after.drop(columns=COUNTED, errors="ignore"),
            before.drop(columns=COUNTED, errors="ignore"),
            check_exact=False,
            rtol=1e-9,
            obj=name,
        )
        assert len(before) or name == "paper.csv", name
    (ours,), (theirs,) = single.parts, double.parts
    assert ours.ranked["tdd"].p == theirs.ranked["tdd"].p
    assert_frame_equal(ours.chance, theirs.chance)
    assert_frame_equal(ours.influence, theirs.influence)
    assert ours.best == theirs.best
    assert [finding.n for verdict in ours.verdicts for finding in verdict.findings.values()] == [
        finding.n for verdict in theirs.verdicts for finding in verdict.findings.values()
    ]


def test_planted_evidence_counts_scenes_and_not_regions() -> None:
    rows = rows_of(RISING, scenes=24, noise=0.1)
    one, two = planted_run(rows), planted_run([line | {"target": name} for line in rows for name in NAMES[:2]])
    tables: list[Callable[[pd.DataFrame], pd.DataFrame]] = [evidence.scores, evidence.agreements, evidence.leakage]
    for table in tables:
        assert_frame_equal(*(table(evidence.usable([run])[0]) for run in (one, two)))
    wrong = planted_run([line | {"target": name, "majority_class": 1} for line in rows[:4] for name in NAMES[:2]])
    assert "2 region(s)" in evidence.usable([wrong])[1]["predicted wrong"]


def test_evidence_by_kind_is_the_mean_over_a_scenes_regions_of_that_kind() -> None:
    rows = [
        {**rows_of({"ega": ap}, scenes=1, kind=kind)[0], "target": name, "sample_id": scene}
        for scene, name, kind, ap in (
            *(("a", "dog", "marker", 0.2), ("a", "dog-2", "marker", 0.4), ("a", "cat", "context", 0.8)),
            ("b", "", "marker", 0.9),
        )
    ]
    table = evidence.scores(evidence.usable([planted_run(rows)])[0]).set_index("kind")["evidence_ap"]
    assert table["marker"] == pytest.approx((0.3 + 0.9) / 2)
    assert table["all"] == pytest.approx(((0.2 + 0.4 + 0.8) / 3 + 0.9) / 2)


def test_the_influence_of_an_image_is_that_of_all_its_targets() -> None:
    run = of_targets(
        {"ega": {"a": [0.9, 0.7], "b": [0.1], "c": [0.3]}, "dea": {"a": [0.2, 0.2], "b": [0.3], "c": [0.5]}}
    )
    images = paired([run], "tdd")
    line = influence({"tdd": images}).set_index("method").loc["ega"]
    assert line["mean"] == pytest.approx((0.8 + 0.1 + 0.3) / 3)
    assert (line["image"], line["images"]) == ("a", 3)
    assert line["without"] == pytest.approx(0.2)
    leader = best(images, ["ega", "dea"], 1)
    assert (leader.method, leader.flipped, leader.instead) == ("ega", "a", "dea")


def test_missed_targets_are_counted_and_filters_leave_out_targets() -> None:
    run = run_of_rows(
        row("a", "ega", 0.1, target="dog", target_iou=0.05, s=0.2),
        row("a", "ega", 0.5, target="dog-2", target_iou=0.9, s=0.6),
        row("b", "ega", 0.3, target="", target_iou=0.04, s=0.7),
    )
    assert missed([run]) == (2, 3)
    left = [
        list(zip(part.records["sample_id"], part.records["target"], strict=True))
        for part in (enough(run, min_iou=0.1), enough(run, min_s=0.3))
    ]
    assert left == [[("a", "dog-2")], [("a", "dog-2"), ("b", "")]]


def test_each_target_is_in_its_own_stratum() -> None:
    """Image a has two targets of high s, which count as one value, and one of low s; image b one of high s."""
    run = run_of_rows(
        *(
            row("a", "ega", tdd, target=name, s=s)
            for name, tdd, s in zip(NAMES, (0.1, 0.3, 0.8), (0.7, 0.8, 0.2), strict=True)
        ),
        row("b", "ega", 0.6, target="", s=0.65),
    )
    table = strata(samples([run]), "tdd", "s").set_index("stratum")
    assert table["n"].to_dict() == {"0.05 <= s < 0.3": 1, "0.6 <= s < 0.9": 2}
    assert table.loc["0.6 <= s < 0.9", "mean"] == pytest.approx((0.2 + 0.6) / 2)
    assert table.loc["0.05 <= s < 0.3", "mean"] == pytest.approx(0.8)


def test_small_scores_and_drops_of_targets() -> None:
    scores = {"s_target_deleted": 0.0, "s_off_deleted": 0.5}
    run = run_of_rows(
        row("a", "ega", 0.1, target="dog", s=0.01, **scores),
        row("a", "ega", 0.2, target="dog-2", s=0.9, **scores),
        row("b", "ega", 0.3, target="", s=0.7, **scores),
    )
    assert robust(samples([run])).query("metric == 'tdd'")["small_s"].to_list() == [1]
    drops = absolute_drops(samples([run])).set_index("drop")
    assert drops.loc["target_drop", "mean"] == pytest.approx((0.455 + 0.7) / 2)
    assert drops.loc["off_drop", "mean"] == pytest.approx(((0.49 + 0.4) / 2 + 0.2) / 2), "absolute before the mean"
    assert drops["n"].to_list() == [2, 2]


def test_wins_by_leakage_are_over_the_targets_of_both() -> None:
    run = of_targets({"ega": {"a": [0.1, 0.9], "b": [0.4]}, "dea": {"a": [0.2, nan], "b": [0.35]}}, metric="leak_abs")
    line = wins(run_values([run]), paired([run], "leak_abs")).iloc[0]
    assert (line["first"], line["second"], line["count"]) == ("ega", "dea", "better"), "0.25 against 0.275"


def test_curves_and_rankings_are_over_images() -> None:
    values = {("ega", "mean", k, f"i{image}"): 0.1 * image for k in (0.2, 0.4) for image in range(3)}
    run = with_curves(values, occlusion="mean", k=[0.2, 0.4])
    extra = run.curves[run.curves["sample_id"] == "i2"].assign(target="dog-2", value=0.6)
    run.curves.loc[run.curves["sample_id"] == "i2", "target"] = "dog"
    several = Run(run.directory, run.description, run.records, pd.concat([run.curves, extra]), run.randomisation)
    table = points([several])
    assert table["mean"].to_list() == [pytest.approx((0.0 + 0.1 + 0.4) / 3)] * 2
    assert table["n"].to_list() == [3, 3]
    entered = rankings.complete([several], "tdd", "k")
    assert entered.images == 3
    assert rankings.by_setting(entered)[["mean", "n"]].to_numpy().tolist() == [[pytest.approx(0.5 / 3), 3]] * 2


def test_maps_of_randomised_models_count_by_image() -> None:
    """Image a keeps |rho| of .2 and .6 of two targets, c none of its two: n is 2 and one image is lost."""
    rows = [
        {"sample_id": sample, "target": target, "method": "ega", "stage": 1, "part": "head", "spearman": rho, "s": 0.5}
        | {"pearson": rho, "status": "ok", "finished": True}
        for sample, target, rho in (
            *(("a", "dog", 0.2), ("a", "dog-2", -0.6), ("b", "", 0.8)),
            *(("c", "dog", nan), ("c", "dog-2", nan)),
        )
    ]
    base = of_targets({"ega": {"a": [0.1]}})
    run = Run(base.directory, base.description, base.records, base.curves, pd.DataFrame(rows))
    (line,) = kept([run]).to_dict("records")
    assert (line["kept"], line["n"], line["lost"]) == (pytest.approx((0.4 + 0.8) / 2), 2, 1)
    (stage,) = randomisation([run]).to_dict("records")
    assert (stage["spearman"], stage["n"], stage["constant"]) == (pytest.approx((-0.2 + 0.8) / 2), 2, 2)


def test_notes_count_images_and_targets() -> None:
    run = of_targets({"ega": {"a": [0.1, 0.2, 0.3], "b": [0.9]}})
    assert "2 of 2 samples (4 of 4 targets) measured" in notes([run])[0]
    assert target_note([run]).startswith("voc2012 val: 2 images (4 targets) entered. Every mean, test and interval is")
    assert analyse([run], Options(min_s=0.1)).notes[-2:] == [target_note([run]), "Only targets with s >= 0.1 entered."]
    without = row("c", "ega", status="skipped") | {"target": ""}
    some = run_of_rows(*run.records.to_dict("records"), without)
    assert "2 of 3 samples (4 of 4 targets) measured, 1 skipped" in notes([some])[0]
    assert counted([some.records]) == (3, 4), "an image without a target is no target"
    single = of_targets({"ega": {"a": [0.1], "b": [0.9]}})
    assert not any("target" in sentence for sentence in analyse([single]).notes)
