"""The paper's claims on hand-made runs, whose every figure is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_runs import run_of
from segfaith.results.records.runs import Run
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.claims import (
    CLAIM_COLUMNS,
    OTHER_WAY,
    alpha_claims,
    interval_words,
    verdict_words,
)
from segfaith.results.statistics.paired import compare, paired
from segfaith.results.statistics.paper import PAPER_METHODS, PAPER_METRICS, TABLE_1
from segfaith.results.statistics.summary import TABLE_METRICS

AS_IN_THE_PAPER: dict[str, dict[str, float]] = {
    "tdd": {"gpa": 0.27, "ega": 0.25, "ria": 0.52, "dea": 0.45} | {f"dea@alpha=0.{i}": 0.4 for i in (5, 6, 7, 8)},
    "odd_abs": {"gpa": 0.5, "ega": 0.4, "ria": 0.2, "dea": 0.3},
    "stability": {"gpa": 0.88, "ega": 0.98, "ria": 0.82, "dea": 0.96},
    "insertion_gain": {"gpa": 0.28, "ega": 0.2, "ria": 0.09, "dea": 0.1},
    "runtime_s": {"gpa": 0.05, "ega": 0.04, "ria": 2.0, "dea": 2.1},
}
ALL = [
    "DEA's TDD is above EGA's in every run",
    "DEA's TDD is above GPA's in every run",
    "RIA has the highest TDD",
    "RIA has the lowest OT abs",
    "RIA has the lowest stability",
    "EGA has the highest stability",
    "EGA has the lowest runtime",
    "DEA lies between EGA and RIA in TDD",
    "DEA lies between EGA and RIA in OT abs",
    "DEA lies between EGA and RIA in stability",
    "GPA has the highest insertion gain",
    *(f"with alpha = 0.{i}, DEA's TDD is above EGA's" for i in (5, 6, 7, 8)),
]
ONLY = ALL[0].replace("every", "the only")


def run(
    name: str,
    changes: Mapping[str, Mapping[str, float]] = {},
    drop: tuple[str, ...] = (),
    data: str = "sbd",
    images: int = 12,
) -> Run:
    """A run whose means are the paper's order but for `changes` (metric to method to mean), without methods `drop`.

    Half of the images lie .01 above the mean, the others as much below.
    """
    methods = [method for method in AS_IN_THE_PAPER["tdd"] if method not in drop]
    rows: list[dict[str, Any]] = []
    for method in methods:
        means = {
            metric: changes.get(metric, {}).get(method, AS_IN_THE_PAPER.get(metric, {}).get(method, nan))
            for metric in TABLE_METRICS
        }
        for place in range(images):
            values = {metric: mean + (0.01 if place % 2 else -0.01) for metric, mean in means.items()}
            rows.append({"sample_id": f"i{place}", "method": method, "s": 0.5, "status": "ok", "reason": ""} | values)
    description = {
        "data": {"name": data, "split": "val", "samples": [f"i{place}" for place in range(images)]},
        "model": {"name": "net", "weights": "net.pth"},
        "settings": {"seed": name, "name": name},
    }
    return run_of(description, pd.DataFrame(rows))


def claims_of(runs: Sequence[Run], **options: Any) -> pd.DataFrame:
    """`check_claims` on each data set, with the tables that an analysis makes for it."""
    return analyse(runs, Options(**options)).table("claims")


def claim(found: pd.DataFrame, words: str) -> dict[str, Any]:
    chosen = found[found["claim"] == words]
    assert len(chosen) == 1, words
    return chosen.to_dict("records")[0]


def test_the_claims_are_those_of_the_specification_and_hold_where_the_order_is_the_papers() -> None:
    found = claims_of([run("one"), run("two")])
    assert list(found.columns) == CLAIM_COLUMNS
    assert list(found["claim"]) == ALL
    assert set(found["holds"]) == {"holds"}
    assert set(found["count"]) == {"2/2 runs"}
    assert set(found["data"]) == {"sbd val"}
    assert claim(found, "EGA has the lowest runtime")["numbers"] == (
        "Time s: EGA 0.0400 ± 0.0000, GPA 0.0500 ± 0.0000, RIA 2.000 ± 0.000, DEA 2.100 ± 0.000"
    )


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (ALL[0], {"tdd": {"dea": 0.24}}),
        (ALL[1], {"tdd": {"gpa": 0.46}}),
        (ALL[2], {"tdd": {"gpa": 0.53}}),
        (ALL[2], {"tdd": {"ega": 0.53}}),
        (ALL[3], {"odd_abs": {"gpa": 0.1}}),
        (ALL[4], {"stability": {"dea": 0.8}}),
        (ALL[5], {"stability": {"gpa": 0.99}}),
        (ALL[6], {"runtime_s": {"gpa": 0.03}}),
        (ALL[7], {"tdd": {"dea": 0.6}}),
        (ALL[8], {"odd_abs": {"dea": 0.1}}),
        (ALL[9], {"stability": {"dea": 0.99}}),
        (ALL[10], {"insertion_gain": {"ria": 0.5}}),
        *((f"with alpha = 0.{i}, DEA's TDD is above EGA's", {"tdd": {f"dea@alpha=0.{i}": 0.2}}) for i in (5, 6, 7, 8)),
    ],
)
def test_each_claim_fails_where_its_own_figures_say_so(words: str, change: dict[str, dict[str, float]]) -> None:
    one = claim(claims_of([run("one", change), run("two", change)]), words)
    assert (one["holds"], one["count"]) == ("fails", "0/2 runs")
    assert one["numbers"].endswith("; not in one, two")


def test_claims_of_every_run_fail_by_one_run_and_the_others_by_the_mean() -> None:
    """DEA .24 in one of three runs, where EGA has .25: its mean .38 is above, yet not in every run."""
    runs = [run("one"), run("two", {"tdd": {"dea": 0.24, "dea@alpha=0.5": 0.1}}), run("three")]
    found = claims_of(runs)
    every, between = claim(found, ALL[0]), claim(found, ALL[7])
    assert (every["holds"], every["count"]) == ("fails", "2/3 runs")
    mean = (0.45 + 0.24 + 0.45) / 3
    std = (((0.45 - mean) ** 2 * 2 + (0.24 - mean) ** 2) / 2) ** 0.5
    assert every["numbers"] == f"TDD: DEA {mean:.3f} ± {std:.3f}, EGA 0.250 ± 0.000; not in two"
    assert (between["holds"], between["count"]) == ("holds", "2/3 runs")
    alpha = claim(found, "with alpha = 0.5, DEA's TDD is above EGA's")
    assert (alpha["holds"], alpha["count"]) == ("holds", "2/3 runs"), "mean .3 is above .25"


def test_a_method_that_some_runs_lack_is_compared_over_the_runs_that_have_it() -> None:
    """As GPA in the ablations. Over its two runs RIA has .3 to its .35; over all, RIA's mean .4 would be above it."""
    shared = {"tdd": {"ria": 0.3, "gpa": 0.35, "ega": 0.1, "dea": 0.2}}
    runs = [run("one", shared), run("two", shared), *(run(f"ablation {i}", drop=("gpa",)) for i in range(2))]
    found = claims_of(runs)
    highest = claim(found, "RIA has the highest TDD")
    assert (highest["holds"], highest["count"]) == ("fails", "2/4 runs")
    assert "GPA 0.350 ± 0.000 (over the 2 runs that have it, where RIA has 0.300 ± 0.000)" in highest["numbers"]
    assert highest["numbers"].startswith("TDD: RIA 0.410 ± 0.127, ")
    above = claim(found, ALL[1])
    assert (above["holds"], above["count"]) == ("fails", "0/2 runs")
    assert claim(found, ALL[0])["count"] == "4/4 runs"


def test_a_claim_of_every_run_does_not_hold_while_one_of_them_cannot_tell() -> None:
    """Unless another one fails already."""
    lacking = run("two", {"tdd": {"ega": nan}})
    unknown = claim(claims_of([run("one"), lacking]), ALL[0])
    assert (unknown["holds"], unknown["count"]) == ("not testable", "1/2 runs"), "two were to tell"
    assert unknown["numbers"].endswith("; no value of one of them in two")
    failed = claim(claims_of([run("one", {"tdd": {"dea": 0.24}}), lacking]), ALL[0])
    assert (failed["holds"], failed["count"]) == ("fails", "0/2 runs")
    assert failed["numbers"].endswith("; not in one; no value of one of them in two")


def test_a_claim_of_every_run_is_about_those_that_were_to_measure_both() -> None:
    """As GPA's on SBD, where the ablations leave it out."""
    found = claim(claims_of([run("one"), run("two"), run("ablation", drop=("gpa",))]), ALL[1])
    assert (found["holds"], found["count"]) == ("holds", "2/2 runs")
    assert found["numbers"].endswith("; not all of them were run in ablation")


@pytest.mark.parametrize("above", [0.0, 1e-8, 0.99e-4, -0.99e-4])
def test_a_difference_below_a_ten_thousandth_is_a_draw(above: float) -> None:
    """Equal means too, also where floating point has 0.1 + 0.2 on one side and 0.3 on the other."""
    level = {"tdd": {"dea": 0.1 + 0.2 + above, "ega": 0.3}, "odd_abs": {"ria": 0.3 - above, "dea": 0.3}}
    found = claims_of([run("one", level), run("two", level)])
    for words in (ALL[0], "DEA lies between EGA and RIA in TDD", "RIA has the lowest OT abs"):
        one = claim(found, words)
        assert (one["holds"], one["count"]) == ("draw", "0/2 runs, 2 draws"), words
        assert one["numbers"].endswith("; a draw in one, two")


@pytest.mark.parametrize(("above", "verdict"), [(1.01e-4, "holds"), (1e-4, "holds"), (-1.01e-4, "fails")])
def test_a_difference_of_a_ten_thousandth_decides(above: float, verdict: str) -> None:
    found = claims_of([run("one", {"tdd": {"dea": 0.25 + above}}), run("two", {"tdd": {"dea": 0.25 + above}})])
    assert claim(found, ALL[0])["holds"] == verdict


def test_one_run_with_a_draw_draws_a_claim_of_every_run_and_a_failing_one_fails_it() -> None:
    draw, fail = run("two", {"tdd": {"dea": 0.25}}), run("three", {"tdd": {"dea": 0.2}})
    one = claim(claims_of([run("one"), draw]), ALL[0])
    assert (one["holds"], one["count"]) == ("draw", "1/2 runs, 1 draw")
    one = claim(claims_of([run("one"), draw, fail]), ALL[0])
    assert (one["holds"], one["count"]) == ("fails", "1/3 runs, 1 draw")
    assert one["numbers"].endswith("; not in three; a draw in two")


@pytest.mark.parametrize(
    ("ega", "verdict"), [(0.184, "draw"), (0.1787, "draw"), (0.1785, "holds"), (0.1973, "draw"), (0.1980, "fails")]
)
def test_runtimes_within_five_in_a_hundred_are_a_draw(ega: float, verdict: str) -> None:
    """Of the longer one, against GPA's .188 s."""
    change = {"runtime_s": {"ega": ega, "gpa": 0.188}}
    assert claim(claims_of([run("one", change), run("two", change)]), "EGA has the lowest runtime")["holds"] == verdict


def test_a_single_run_is_called_the_only_one() -> None:
    found = claims_of([run("one")])
    one = claim(found, ONLY)
    assert (one["holds"], one["count"]) == ("holds", "the only run")
    assert not found["claim"].str.contains("every run").any()
    assert set(found["count"]) == {"the only run"}
    assert claim(claims_of([run("one", {"tdd": {"dea": 0.2}})]), ONLY)["holds"] == "fails"


def test_below_ten_images_no_claim_is_tested() -> None:
    found = claims_of([run("one", images=9), run("two", images=9)])
    assert set(found["holds"]) == {"not testable"}
    one = claim(found, ALL[0])
    assert one["numbers"].startswith("9 images have TDD of dea and ega, at least 10 needed; TDD: DEA 0.4")
    assert interval_words(one) == ""
    assert set(claims_of([run("one", images=10), run("two", images=10)])["holds"]) == {"holds"}
    few = run("one", {}, images=12)
    few.records.loc[(few.records["method"] == "gpa") & (few.records["sample_id"] > "i2"), "tdd"] = nan
    highest = claim(claims_of([few]), "RIA has the highest TDD")
    assert highest["holds"] == "not testable", "the fewest images of any pair count"
    assert highest["numbers"].startswith("5 images have TDD of ria and gpa, at least 10 needed")


def test_beside_a_verdict_stands_the_difference_to_the_rival_with_its_interval() -> None:
    """The pooled drop over images, paired; of the strongest rival, or the nearer end."""
    noise = np.random.default_rng(0).normal(0, 0.05, 24)
    runs = []
    for name in ("one", "two"):
        made = run(name, images=24)
        records = made.records
        own = records["method"] == "dea"
        records.loc[own, "tdd"] += noise
        records["s"] = np.tile(np.linspace(0.1, 0.9, 24), len(records) // 24)
        runs.append(made)
    found = claims_of(runs)
    weights = np.linspace(0.1, 0.9, 24)
    pooled = 0.2 + (noise * weights).sum() / weights.sum()
    one = claim(found, ALL[0])
    assert (one["rival"], one["of"], one["images"]) == ("ega", "pooled drop", 24)
    assert one["difference"] == pytest.approx(pooled, abs=1e-6)
    assert one["low"] < pooled < one["high"]
    (pair,) = compare(paired(runs, "tdd"), ["dea", "ega"]).to_dict("records")
    assert (one["low"], one["high"]) == (pair["low"], pair["high"]), "the interval of the tests"
    assert (
        interval_words(one) == f"to ega, pooled drop: {pooled:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}], 24 images"
    )
    rivals = {row["claim"]: row["rival"] for row in found.to_dict("records")}
    assert rivals["RIA has the highest TDD"] == "dea", ".52 against .45"
    assert rivals["EGA has the lowest runtime"] == "gpa"
    assert rivals["DEA lies between EGA and RIA in TDD"] == "ria", ".45 is nearer to .52 than to .25"
    assert rivals["DEA lies between EGA and RIA in stability"] == "ega", ".96 is nearer to .98 than to .82"
    few = claim(claims_of([run("one", images=12)]), ONLY)
    assert interval_words(few) == "to ega, pooled drop: +0.200 no interval below 20 images, 12 images"


def test_a_difference_that_points_the_other_way_than_the_means_says_so() -> None:
    """One image with s = .0001 and a TDD of 5 more makes DEA's mean the higher one; in the others EGA's is, by .1."""
    runs = []
    for name in ("one", "two"):
        made = run(name, {"tdd": {"dea": 0.15}}, images=24)
        records = made.records
        records.loc[records["sample_id"] == "i0", "s"] = 1e-4
        records.loc[(records["sample_id"] == "i0") & (records["method"] == "dea"), "tdd"] = 5.25
        runs.append(made)
    found = claims_of(runs)
    one = claim(found, ALL[0])
    assert (one["holds"], one["count"]) == ("holds", "2/2 runs")
    assert one["difference"] == pytest.approx(-0.1, abs=1e-3)
    assert interval_words(one).endswith("], 24 images; typical images say the opposite; a few outliers set the mean")
    rest = found[found["claim"] != ALL[0]]
    assert not rest.loc[rest["metric"] != "tdd", "note"].any(), "where both agree, nothing is said"
    assert not claims_of([run("one", images=24), run("two", images=24)])["note"].any()
    level = [run(name, {"tdd": {"dea": 0.25}}, images=24) for name in ("one", "two")]
    assert claim(claims_of(level), ALL[0])["note"] == "", "a draw points nowhere"
    first = runs[0].records["sample_id"].isin([f"i{i}" for i in range(12)])
    few = claim(claims_of([replace(runs[0], records=runs[0].records[first])]), ONLY)
    assert few["note"] == OTHER_WAY, "without an interval too"


def test_verdicts_are_counted_in_words() -> None:
    verdicts = pd.Series(["holds", "draw", "holds", "not testable"])
    assert verdict_words(verdicts) == ["2 hold", "1 is a draw", "1 cannot be tested"]
    assert verdict_words(pd.Series(["draw", "holds", "fails", "draw"])) == ["1 holds", "1 fails", "2 are draws"]


def test_what_was_not_measured_is_not_testable_with_the_reason() -> None:
    found = claims_of([run("one", {"stability": {"gpa": nan}}, drop=("ria", "dea@alpha=0.7"))])
    highest = claim(found, "RIA has the highest TDD")
    assert (highest["holds"], highest["count"], highest["numbers"]) == (
        "not testable",
        "0/0 runs",
        "no run has a value of TDD for ria",
    )
    assert claim(found, "EGA has the highest stability")["numbers"] == "no run has a value of Stab. for gpa, ria"
    alpha = claim(found, "with alpha = 0.7, DEA's TDD is above EGA's")
    assert (alpha["holds"], alpha["numbers"]) == ("not testable", "no run has a value of TDD for dea@alpha=0.7")
    assert claim(found, ONLY)["holds"] == "holds"


def test_methods_that_never_meet_in_a_run_are_not_compared() -> None:
    runs = [run("one", drop=("dea",)), run("two", drop=("ega",))]
    one = claim(claims_of(runs), ALL[0])
    assert (one["holds"], one["count"]) == ("not testable", "0/0 runs")
    assert one["numbers"] == "no run has TDD of all that are compared: dea, ega"


def test_data_sets_do_not_mix() -> None:
    found = claims_of([run("one"), run("two", {"tdd": {"dea": 0.1}}, data="voc2012")])
    assert len(found) == 2 * len(ALL)
    verdicts = found[found["claim"] == ONLY].set_index("data")["holds"].to_dict()
    assert verdicts == {"sbd val": "holds", "voc2012 val": "fails"}


def test_the_filter_on_s_reaches_the_claims() -> None:
    made = run("one")
    records = made.records
    low = records.assign(
        s=0.01, tdd=records["tdd"].where(records["method"] != "dea", 0.0), sample_id="low " + records["sample_id"]
    )
    runs = [replace(made, records=pd.concat([records, low], ignore_index=True))]
    assert claim(claims_of(runs), ONLY)["holds"] == "fails", "DEA's mean is .225 to EGA's .25"
    assert claim(claims_of(runs, min_s=0.05), ONLY)["holds"] == "holds"


def test_variants_between_the_ends_are_claimed_too_and_others_not() -> None:
    names = ["dea", "dea@alpha=0.55", "dea@alpha=0.9", "dea@alpha=0.4", "dea@alpha=0.6,beta=0.5", "ega@window=3"]
    assert [one.methods[0].partition("=")[2] for one in alpha_claims(names)] == ["0.5", "0.55", "0.6", "0.7", "0.8"]


def test_the_papers_numbers_are_complete_and_those_of_its_table() -> None:
    assert len(TABLE_1) == 2 * len(PAPER_METHODS) * len(PAPER_METRICS)
    assert TABLE_1["voc2012", "ega", "odd_abs"] == (0.982, 1.23)
    assert TABLE_1["sbd", "gpa", "insertion_gain"] == (0.281, 0.196)
    for data in ("voc2012", "sbd"):
        tdd = {method: TABLE_1[data, method, "tdd"][0] for method in PAPER_METHODS}
        assert max(tdd, key=tdd.__getitem__) == "ria"
        assert tdd["ega"] < tdd["dea"] < tdd["ria"]
