"""Agreement of metrics with planted evidence, from hand-made records whose rankings are known."""

from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from planted_runs import FALLING, FOUR, RISING, planted_run, rows_of
from segfaith.results.records.runs import Run
from segfaith.results.report.markdown import markdown
from segfaith.results.report.sections import evidence as section
from segfaith.results.statistics import evidence
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.evidence import (
    AGREEMENT_COLUMNS,
    JUDGED,
    Agreement,
    agreement,
    agreements,
    kinds_of,
    leakage,
    scores,
    usable,
)
from segfaith.results.statistics.intervals import LEAST_IMAGES
from segfaith.results.statistics.summary import has_evidence


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return usable([planted_run(rows)])[0]


def page_of(runs: list[Run]) -> str:
    """What the report says of these runs, as Markdown."""
    return markdown([section.section(analyse(runs))])


LEAST_IN_USE, METHODS_IN_USE = evidence.LEAST_SCENES, evidence.VERDICT_METHODS
SEEN = {
    "tdd": "marker",
    "insertion_gain": "marker",
    "leak_abs": "marker",
    "odd_abs": "context",
    "odd_beyond_abs": "context",
}
"""A kind whose evidence each metric can see; stability can see none."""


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five scenes and four methods are enough here, so that tables can be made by hand."""
    monkeypatch.setattr(evidence, "LEAST_SCENES", 5)
    monkeypatch.setattr(evidence, "VERDICT_METHODS", 4)


@pytest.mark.filterwarnings("error")
def test_a_metric_without_any_value_is_not_testable_and_the_page_stands() -> None:
    rows = rows_of(RISING, insertion_gain=nan)
    assert agreement(frame(rows), "marker", "insertion_gain").verdict == "not testable: 0 scenes, at least 5 needed"
    page = page_of([planted_run(rows)])
    assert "| Ins. |" not in page


def test_kinds_without_a_proof_are_left_out_and_said() -> None:
    rows = rows_of(RISING, scenes=6) + rows_of(RISING, scenes=6, first=50, kind="context")
    kept, left_out = usable([planted_run(rows, "marker,plain")])
    assert set(kept["kind"]) == {"marker"}
    assert left_out == {"context": "unproven: the model was not shown to decide by this evidence"}
    page = page_of([planted_run(rows, "marker,plain")])
    assert "- Left out: context: unproven" in page
    assert "| context |" not in page
    assert "Scenes that entered: marker 6." in page


@pytest.mark.parametrize("proven", [None, ""])
def test_a_model_without_any_proof_leaves_nothing(proven: str | None) -> None:
    page = page_of([planted_run(rows_of(RISING), proven)])
    assert "- Left out: marker: unproven" in page
    assert page.endswith("- Nothing is left from which to conclude.\n")
    assert "| tdd" not in page.lower()


def test_wrongly_predicted_regions_are_left_out_and_counted_over_all_runs() -> None:
    """Regions, not rows; of kinds that would have entered."""
    right = rows_of(RISING, scenes=5)
    wrong = rows_of(FALLING, scenes=3, first=50, majority_class=4)
    unproven = rows_of(FALLING, scenes=9, first=90, kind="context", majority_class=4)
    runs = [planted_run(right + wrong + unproven, "marker"), planted_run(right + wrong[:4], "marker")]
    kept, left_out = usable(runs)
    assert not set(kept["sample_id"]) & {row["sample_id"] for row in wrong + unproven}
    assert left_out["predicted wrong"] == "4 region(s) that the model does not predict right"
    assert "- Left out: predicted wrong: 4 region(s)" in page_of(runs)


def test_wired_photographs_need_neither_a_proof_nor_a_right_prediction() -> None:
    """Which half decides does not depend on what the model predicts."""
    rows, left_out = usable([planted_run(rows_of(RISING, kind="wired crossed", majority_class=0), proven=None)])
    assert len(rows) == 8 * 4
    assert left_out == {}
    assert kinds_of(rows) == ["wired crossed"]


def test_a_scene_of_several_runs_is_one_scene() -> None:
    """Copies of a run tell nothing new: the interval stays as wide as it was."""
    one = planted_run(rows_of({name: 0.3 + 0.01 * i for i, name in enumerate(FOUR)}, scenes=6, noise=0.1))
    single, copied = (agreement(usable(runs)[0], "marker", "tdd") for runs in ([one], [one] * 4))
    assert single.low < single.tau
    assert copied == single
    assert "Scenes that entered: marker 6." in page_of([one] * 4)


@pytest.mark.parametrize(("metric", "kind"), SEEN.items())
def test_the_same_ranking_has_tau_1_and_the_reversed_one_minus_1(metric: str, kind: str) -> None:
    """Where lower is better the sign is turned; without noise the interval has no width."""
    same, turned = (agreement(frame(rows_of(RISING, of, kind=kind)), kind, metric) for of in (RISING, FALLING))
    assert same == Agreement(kind, metric, 4, 8, 1.0, 1.0, 1.0, kinds=kind, distinct=4)
    assert turned == Agreement(kind, metric, 4, 8, -1.0, -1.0, -1.0, kinds=kind, distinct=4)
    assert (same.verdict, turned.verdict) == ("agrees", "disagrees")


@pytest.mark.parametrize("kind", ["plain", "marker", "context", "conjunction", "redundancy"])
@pytest.mark.parametrize("metric", JUDGED)
def test_a_metric_that_cannot_see_the_evidence_is_blind_and_has_no_verdict(metric: str, kind: str) -> None:
    """By where the pixels lie: what a metric changes must hold evidence and other pixels, for a map to choose among.

    A target of four pixels and four around it; deletion in the target and insertion choose among the first, deletion
    outside among the others. Leak abs reads both.
    """
    target, outside = {0, 1, 2, 3}, {4, 5, 6, 7}
    planted = {"plain": target, "context": {4, 5}}.get(kind, {0, 1})
    reads = {"tdd": [target], "insertion_gain": [target], "leak_abs": [target, outside], "stability": []}
    changed = reads.get(metric, [outside])
    sees = any(pixels & planted and pixels - planted for pixels in changed)
    for values in (RISING, FALLING):
        found = agreement(frame(rows_of(RISING, values, kind=kind)), kind, metric)
        assert (found.blind == "") == sees
        assert found.verdict.startswith("blind by construction: ") != sees
        assert np.isnan(found.tau) != sees


def test_groups_leave_out_the_kinds_of_which_a_metric_is_blind() -> None:
    """Of marker TDD says the truth; of context and plain it says the reverse, by chance."""
    rows = rows_of(RISING, RISING, scenes=6)
    rows += rows_of(RISING, FALLING, scenes=7, first=50, kind="context")
    rows += rows_of(RISING, FALLING, scenes=8, first=90, kind="plain")
    for kind in ("all but plain", "all"):
        found = agreement(frame(rows), kind, "tdd")
        assert (found.kinds, found.scenes, found.tau) == ("marker", 6, 1)
        outside = agreement(frame(rows), kind, "odd_abs")
        assert (outside.kinds, outside.scenes, outside.tau) == ("context", 7, -1)
    assert "| TDD | all: marker | 1.00 [1.00, 1.00] | 4 | 6 |" in page_of([planted_run(rows)])


def test_few_methods_give_numbers_and_no_verdict_and_variants_are_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "VERDICT_METHODS", METHODS_IN_USE)
    assert METHODS_IN_USE == 8
    eight = {f"m{place}": 0.1 * place for place in range(8)}
    seven = {name: value for name, value in eight.items() if name != "m7"}
    clones = seven | {"dea@alpha=0.5": 0.8, "dea@alpha=0.6": 0.82, "m0@x=1": 0.83}
    found = {name: agreement(frame(rows_of(of)), "marker", "tdd") for name, of in (("8", eight), ("7", seven))}
    assert found["8"].verdict == "agrees"
    assert (found["7"].verdict, found["7"].tau, found["7"].low) == ("too few methods for a verdict", 1, 1)
    many = agreement(frame(rows_of({name: of for name, of in clones.items() if name != "m1"})), "marker", "tdd")
    assert (many.methods, many.distinct, many.verdict) == (9, 7, "too few methods for a verdict")
    page = page_of([planted_run(rows_of(RISING))])
    assert "| TDD | marker | 1.00 [1.00, 1.00] | 4 | 8 | too few methods for a verdict |" in page
    assert "agrees |" not in page


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 1, "agrees"), (-1, -0.2, "disagrees"), (0, 1, "undecided"), (-1, 0, "undecided"), (-0.5, 0.5, "undecided")],
)
def test_the_verdict_follows_from_the_interval(low: float, high: float, words: str) -> None:
    assert Agreement("all", "tdd", 4, 9, 0.3, low, high, distinct=4).verdict == words


def test_tau_by_hand_with_one_pair_exchanged_and_one_tied() -> None:
    exchanged = dict(zip(FOUR, [0.2, 0.1, 0.3, 0.4], strict=True))
    tied = dict(zip(FOUR, [0.1, 0.1, 0.3, 0.4], strict=True))
    assert agreement(frame(rows_of(RISING, exchanged)), "marker", "tdd").tau == pytest.approx(4 / 6)
    assert agreement(frame(rows_of(RISING, tied)), "marker", "tdd").tau == pytest.approx(5 / 30**0.5)


@pytest.mark.parametrize("seed", range(6))
def test_tau_and_interval_are_scipys_scene_by_scene(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over scenes, drawn again with the same generator, one tau at a time; every third value is tied."""
    rng = np.random.default_rng(seed)
    ap, value = rng.random((9, 5)), rng.random((9, 5)).round(1)
    value[:, 1] = value[:, 0]
    rows = [
        {"sample_id": f"{i}", "method": f"m{j}", "kind": "context", "evidence_ap": ap[i, j], "odd_abs": value[i, j]}
        for i in range(9)
        for j in range(5)
    ]
    monkeypatch.setattr(evidence, "RESAMPLES", 100)
    got = agreement(pd.DataFrame(rows).assign(target=""), "context", "odd_abs")
    assert got.tau == pytest.approx(kendalltau(ap.mean(0), -value.mean(0).round(6)).statistic)
    draws = np.random.default_rng(0).integers(0, 9, (100, 9))
    taus = [kendalltau(ap[draw].mean(0).round(6), -value[draw].mean(0).round(6)).statistic for draw in draws]
    assert (got.low, got.high) == pytest.approx(tuple(np.percentile(taus, [2.5, 97.5])))
    assert got.low <= got.tau <= got.high
    assert got.low < got.high


def test_noise_between_scenes_widens_the_interval_and_more_scenes_narrow_it() -> None:
    close = {name: 0.3 + 0.01 * i for i, name in enumerate(FOUR)}
    few, many = (agreement(frame(rows_of(close, scenes=n, noise=0.1)), "marker", "tdd") for n in (6, 600))
    assert few.verdict == "undecided"
    assert few.low < 0 < few.high
    assert many.low > few.low
    assert many.verdict == "agrees"


def test_equal_means_are_tied_and_the_noise_of_a_batch_decides_nothing() -> None:
    """Three methods have the same map, whose scores differ by what single precision leaves."""
    almost = {"gpa": 0.5, "ega": 0.5 + 1e-8, "ria": 0.5 - 1e-8, "dea": 0.6}
    clean = {"gpa": 0.5, "ega": 0.5, "ria": 0.5, "dea": 0.6}
    one, other = (agreement(frame(rows_of(RISING, values)), "marker", "tdd").tau for values in (almost, clean))
    assert one == other == pytest.approx(3 / 18**0.5)


@pytest.mark.parametrize("turned", [False, True])
def test_methods_that_are_all_tied_cannot_be_judged(turned: bool) -> None:
    even = dict.fromkeys(FOUR, 0.5)
    got = agreement(frame(rows_of(even, RISING) if turned else rows_of(RISING, even)), "marker", "tdd")
    assert got.verdict == "not testable: all methods are tied"
    assert np.isnan([got.tau, got.low, got.high]).all()


@pytest.mark.parametrize(
    ("scenes", "methods", "words"),
    [
        (4, 4, "not testable: 4 scenes, at least 5 needed"),
        (5, 4, "agrees"),
        (5, 2, "not testable: 2 methods, at least 3 needed"),
        (5, 3, "too few methods for a verdict"),
    ],
)
def test_too_few_scenes_or_methods_are_not_tested(scenes: int, methods: int, words: str) -> None:
    chosen = {name: RISING[name] for name in FOUR[:methods]}
    assert agreement(frame(rows_of(chosen, scenes=scenes)), "marker", "tdd").verdict == words


def test_only_scenes_of_the_kind_enter_and_all_of_them_in_all() -> None:
    rows = rows_of(RISING, RISING, scenes=6) + rows_of(RISING, FALLING, scenes=5, first=50, kind="conjunction")
    found = {kind: agreement(frame(rows), kind, "tdd") for kind in ("marker", "conjunction", "all")}
    assert {kind: one.scenes for kind, one in found.items()} == {"marker": 6, "conjunction": 5, "all": 11}
    assert (found["marker"].tau, found["conjunction"].tau) == (1, -1)
    assert agreement(frame(rows), "plain", "tdd").verdict == "not testable: 0 scenes, at least 5 needed"


def test_twenty_scenes_are_the_least_that_the_page_draws_conclusions_from() -> None:
    """As everywhere below 20 images there is no interval, from which the verdict would follow."""
    assert LEAST_IN_USE == LEAST_IMAGES == 20


def test_a_metric_on_some_scenes_is_judged_on_these() -> None:
    """On the others the evidence says the reverse, which must not enter."""
    rows = rows_of(RISING, RISING, scenes=6) + rows_of(FALLING, RISING, scenes=20, first=50, insertion_gain=nan)
    got = agreement(frame(rows), "marker", "insertion_gain")
    assert (got.scenes, got.tau) == (6, 1)
    assert agreement(frame(rows), "marker", "tdd").scenes == 26


def test_methods_are_compared_on_the_same_scenes() -> None:
    """One method has no value on the hard scenes; over those where all have one it is the worst, as it should be."""
    easy = rows_of(RISING, {name: value + 0.5 for name, value in RISING.items()}, scenes=6)
    hard = rows_of(RISING, RISING, scenes=5, first=50)
    for row in hard:
        row["insertion_gain"] = nan if row["method"] == "gpa" else row["insertion_gain"]
    got = agreement(frame(easy + hard), "marker", "insertion_gain")
    assert (got.methods, got.scenes, got.tau) == (4, 6, 1)


def test_a_method_without_values_is_left_out_and_the_others_keep_their_scenes() -> None:
    """One method has no value at all; another has it on two scenes of eight."""
    rows = rows_of(RISING | {"maps:theirs": 0.9, "seldom": 0.8})
    for row in rows:
        missing = row["method"] == "maps:theirs" or (row["method"] == "seldom" and row["sample_id"] > "val-0001")
        row["insertion_gain"] = nan if missing else row["insertion_gain"]
    got = agreement(frame(rows), "marker", "insertion_gain")
    assert (got.methods, got.scenes, got.tau) == (4, 8, 1)
    assert agreement(frame(rows), "marker", "tdd").methods == 6


def test_what_was_planted_is_seen_in_the_records() -> None:
    rows = rows_of(RISING)
    assert has_evidence([planted_run(rows)])
    assert not has_evidence([planted_run([{**row, "kind": None} for row in rows])])
    old = replace(planted_run(rows), records=planted_run(rows).records.drop(columns=["kind"]))
    assert not has_evidence([old])
    assert has_evidence([old, planted_run(rows)])
    assert len(usable([old, planted_run(rows)])[0]) == len(rows)


def test_counterparts_are_left_out_with_their_own_reason() -> None:
    rows = rows_of(RISING) + rows_of(RISING, first=50, kind="counterpart", evidence_ap=nan)
    kept, left_out = usable([planted_run(rows)])
    assert set(kept["kind"]) == {"marker"}
    assert left_out == {"counterpart": "decided by the absence of a part, for which no pixels are the evidence"}


def test_failed_and_skipped_rows_do_not_enter() -> None:
    rows = rows_of(RISING) + rows_of(FALLING, first=50, status="failed") + rows_of(FALLING, first=90, status="skipped")
    assert len(frame(rows)) == 8 * 4


def test_a_kind_proven_for_one_run_only_enters_from_it() -> None:
    rows = rows_of(RISING)
    kept, left_out = usable([planted_run(rows, "plain"), planted_run(rows, "marker")])
    assert len(kept) == len(rows)
    assert left_out["marker"].endswith("(in some of these runs; it entered from the others)")


# Tables


def test_scores_are_means_over_scenes_by_kind_and_method() -> None:
    rows = frame(rows_of(RISING, scenes=6, noise=0.1) + rows_of(FALLING, scenes=5, first=50, kind="context"))
    table = scores(rows)
    assert list(table.columns) == ["kind", "method", "evidence_ap", "evidence_mass", "evidence_top"]
    assert table["kind"].unique().tolist() == kinds_of(rows) == ["marker", "context", "all but plain", "all"]
    for kind, kinds in (("marker", ["marker"]), ("all", ["marker", "context"])):
        for method in FOUR:
            own = rows[rows["kind"].isin(kinds) & (rows["method"] == method)]
            (line,) = table[(table["kind"] == kind) & (table["method"] == method)].to_dict("records")
            assert line["evidence_mass"] == pytest.approx(np.mean(own["evidence_mass"]))
    one_kind = frame(rows_of(RISING))
    assert scores(one_kind)["kind"].unique().tolist() == ["marker"], "groups are of several kinds"


def test_a_method_without_scenes_of_a_kind_has_rows_without_values() -> None:
    rows = frame(rows_of(RISING) + rows_of({"gpa": 0.5, "ega": 0.6}, kind="context", first=50))
    context = scores(rows).query("kind == 'context'").set_index("method")
    assert context["evidence_ap"].isna().tolist() == [False, False, True, True]
    leaks = leakage(rows).query("kind == 'context'").set_index("method")
    assert leaks["scenes"].tolist() == [8, 8, 0, 0]
    assert leaks.loc["dea", ["odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond"]].isna().all()


def test_agreements_are_among_the_methods_under_test() -> None:
    """Neither controls nor variants of a method that is there: with them a reversed order of the four would agree."""
    others = {"random": 0.0, "random_cells@grid=7": 0.01, "mask": 0.02, "dea@alpha=0.5": 0.03}
    rows = frame(rows_of(RISING | others, FALLING | others, scenes=6, noise=0.005))
    assert agreement(rows, "marker", "tdd").tau > 0
    own = rows[rows["method"].isin(FOUR)]
    table = agreements(rows)
    assert list(table.columns) == AGREEMENT_COLUMNS
    assert len(table) == len(JUDGED)
    for line in table.to_dict("records"):
        expected = agreement(own, line["kind"], line["metric"])
        assert pd.Series(line).equals(pd.Series(expected.__dict__ | {"verdict": expected.verdict})[AGREEMENT_COLUMNS])
    assert table.set_index("metric").loc["tdd", "verdict"] == "disagrees"


def test_leakage_is_given_with_and_without_the_part_of_the_evidence() -> None:
    """Of Leak abs the median; a scene whose TDD is too low for it counts in neither."""
    rows = frame(rows_of(RISING, scenes=3, kind="context", odd_abs=0.75, odd_beyond_abs=0.125))
    rows.loc[(rows["method"] == "gpa") & (rows["sample_id"] == "val-0000"), "leak_abs"] = nan
    table = leakage(rows).set_index("method")
    assert table["scenes"].tolist() == [2, 3, 3, 3]
    for name, ap in RISING.items():
        assert table.loc[name, ["odd_abs", "odd_beyond_abs"]].tolist() == [0.75, 0.125]
        assert table.loc[name, "leak_abs"] == pytest.approx(1 - ap)
        assert table.loc[name, "leak_beyond"] == pytest.approx(0.125 / ap, rel=1e-4)


def test_tables_of_no_rows_are_empty_with_their_columns() -> None:
    rows, _ = usable([planted_run(rows_of(RISING), "")])
    assert [len(table) for table in (scores(rows), agreements(rows))] == [0, 0]
    assert len(leakage(frame(rows_of(RISING)).iloc[:0])) == 0


# What the report says of the tables


def test_the_page_leaves_the_controls_out_of_agreements_and_says_who_is_blind() -> None:
    controls = {"random": 0.05, "random_cells@grid=7": 0.06, "mask": 0.2}
    rows = rows_of(RISING | controls, FALLING | controls, scenes=6)
    rows += rows_of(RISING | controls, scenes=5, kind="context", first=50)
    page = page_of([planted_run(rows)])
    assert page.startswith("# Who finds the planted evidence\n")
    assert "Scenes that entered: marker 6, context 5." in page
    assert "| marker | gpa | 0.100 | 0.100 | 0.100 |" in page
    lines = [line for line in page.splitlines() if line.startswith("| TDD | ")]
    assert lines[0] == "| TDD | marker | −1.00 [−1.00, −1.00] | 4 | 6 | disagrees |"
    assert lines[1].startswith("| TDD | all but plain: marker | ")
    assert len(lines) == 3, "of context TDD is blind"


def test_the_page_says_how_much_of_the_leakage_is_beyond_the_evidence() -> None:
    page = page_of([planted_run(rows_of(RISING, scenes=2, kind="context", odd_abs=0.75, odd_beyond_abs=0.125))])
    assert "OT abs is 0.750 in the mean over gpa, ega, ria and dea; 0.125 of it is beyond the evidence." in page
    assert page.splitlines()[-4:] == [
        f"| context | {name} | 0.750 | 0.125 | {1 - ap:.3f} | {0.125 / ap:.3f} | 2 |" for name, ap in RISING.items()
    ]


def test_a_method_without_scenes_of_a_kind_is_not_available_on_the_page() -> None:
    page = page_of([planted_run(rows_of(RISING) + rows_of({"gpa": 0.5, "ega": 0.6}, kind="context", first=50))])
    assert "| context | ria | n/a | n/a | n/a |" in page
    absent = [line for line in page.splitlines() if line.endswith("| n/a | n/a | n/a | n/a | 0 |")]
    assert [line.split(" | ")[:2] for line in absent] == [["| context", "ria"], ["| context", "dea"]]
