"""The verdict on each method: every border of its rules, and the mark of the whole."""

from math import isnan, nan
from typing import Any

import pandas as pd
import pytest

from segfaith.results.statistics.verdicts import (
    ENOUGH,
    FEW_MAPS,
    QUICK,
    RULES,
    SAME_MODEL,
    SHAKY,
    SIMILAR,
    SLOW,
    STABLE,
    Verdict,
    verdicts,
)

NOTHING = pd.DataFrame(columns=["first"])


def pair(p: float = 0.001, effect: float = 0.5, images: int = 30, why: str = "", method: str = "ria") -> dict[str, Any]:
    values = {"value_first": 0.4, "value_second": 0.1, "difference": 0.3 * (1 if effect > 0 else -1), "images": images}
    tested = {"p_holm": p, "significant": p < 0.05 and not why, "effect": effect, "why": why}
    return {"first": method, "second": "random_cells"} | values | tested


def kept(value: float, model: str = "net", method: str = "ria", n: int = FEW_MAPS, lost: int = 0) -> dict[str, Any]:
    return {"method": method, "model": model, "kept": value, "n": n, "lost": lost}


def told(
    chance: dict[str, Any] | None = None,
    truth: dict[str, Any] | None = None,
    again: list[dict[str, Any]] | None = None,
    stability: float = 0.95,
    seconds: float = 1.0,
    samples: int = 9,
    mask: dict[str, Any] | None = None,
    **options: bool,
) -> Verdict:
    """The verdict on ria."""
    rows = [("stability", stability), ("runtime_s", seconds)]
    summary = pd.DataFrame([{"method": "ria", "metric": name, "mean": value, "n": samples} for name, value in rows])
    tables = [pd.DataFrame([one]) if one else NOTHING for one in (chance, mask, truth)]
    randomised = pd.DataFrame(again or [], columns=["method", "model", "kept", "n", "lost"])
    (verdict,) = verdicts(["ria"], *tables, randomised, summary, **options)
    return verdict


@pytest.mark.parametrize(
    ("row", "mark"),
    [
        (pair(), "pass"),
        (pair(effect=-0.5), "fail"),
        (pair(p=0.2, images=ENOUGH), "fail"),
        (pair(p=0.2, images=ENOUGH - 1), "warn"),
        (pair(why="not testable: 4 images with a difference, at least 6 needed", images=9), "unknown"),
        (None, "unknown"),
    ],
)
def test_chance_and_truth_follow_the_test_against_random_cells(row: dict[str, Any] | None, mark: str) -> None:
    assert told(chance=row).findings["chance"].mark == mark
    assert told(truth=row).findings["evidence"].mark == mark


@pytest.mark.parametrize(
    ("value", "mark"),
    [(SAME_MODEL, "fail"), (SAME_MODEL - 0.01, "warn"), (SIMILAR, "warn"), (SIMILAR - 0.01, "pass"), (0.0, "pass")],
)
def test_the_model_is_judged_by_what_is_left_of_the_map(value: float, mark: str) -> None:
    finding = told(again=[kept(value)]).findings["model"]
    assert (finding.mark, finding.value, finding.n) == (mark, value, FEW_MAPS)


def test_few_maps_pass_neither_model_nor_stability() -> None:
    assert told(again=[kept(0.1, n=FEW_MAPS - 1)]).findings["model"].mark == "warn"
    assert told(again=[kept(0.1, n=FEW_MAPS, lost=FEW_MAPS + 1)]).findings["model"].mark == "warn"
    assert told(again=[kept(0.9, n=1)]).findings["model"].mark == "fail"
    assert told(samples=FEW_MAPS - 1).findings["stability"].mark == "warn"


def test_of_several_models_the_highest_correlation_counts() -> None:
    finding = told(again=[kept(0.1), kept(0.8, model="other")]).findings["model"]
    assert (finding.mark, finding.value) == ("fail", 0.8)


def test_a_check_that_tells_nothing_is_unknown_with_its_reason() -> None:
    assert "stopped" in told(unfinished=True).findings["model"].why
    assert "constant" in told(again=[kept(nan, n=0, lost=4)]).findings["model"].why
    assert told().findings["model"].why == "not measured"
    assert "none of the planted evidence" in told(planted=True).findings["evidence"].why
    assert told().findings["evidence"].why == "no evidence was planted"


def test_values_that_say_the_opposite_of_the_test_do_not_pass() -> None:
    """Most images speak for the method, and a few outliers turn its value below that of random cells."""
    finding = told(chance=pair() | {"difference": -0.5}).findings["chance"]
    assert finding.mark == "warn"
    assert "typical images say the opposite" in finding.why


def test_equal_maps_on_enough_images_fail() -> None:
    why = "not testable: all differences are zero (30 images)"
    assert told(chance=pair(why=why, images=ENOUGH)).findings["chance"].mark == "fail"
    assert told(chance=pair(why=why, images=ENOUGH - 1)).findings["chance"].mark == "unknown"


@pytest.mark.parametrize(
    ("value", "mark"),
    [(STABLE, "pass"), (STABLE - 0.01, "warn"), (SHAKY, "warn"), (SHAKY - 0.01, "fail"), (nan, "unknown")],
)
def test_stability_has_its_borders(value: float, mark: str) -> None:
    assert told(stability=value).findings["stability"].mark == mark


@pytest.mark.parametrize(
    ("value", "mark"), [(QUICK, "pass"), (QUICK + 1, "warn"), (SLOW, "warn"), (SLOW + 1, "fail"), (nan, "unknown")]
)
def test_time_has_its_borders(value: float, mark: str) -> None:
    assert told(seconds=value).findings["time"].mark == mark


@pytest.mark.parametrize(
    ("mask", "mark"),
    [(None, "pass"), (pair(), "pass"), (pair(effect=-0.5), "warn"), (pair(p=0.2), "warn"), (pair(why="few"), "warn")],
)
def test_what_is_no_better_than_the_mask_does_not_pass(mask: dict[str, Any] | None, mark: str) -> None:
    finding = told(chance=pair(), mask=mask).findings["chance"]
    assert finding.mark == mark
    assert ("mask" in finding.why) == (mark == "warn")
    assert told(chance=pair(effect=-0.5), mask=mask).findings["chance"].mark == "fail", "worse than random cells"


def test_the_whole_passes_only_where_chance_and_model_pass() -> None:
    good = [kept(0.1)]
    assert told(chance=pair(), again=good).mark == "pass"
    assert told(chance=pair()).mark == "warn"  # the model was not measured
    assert told(chance=pair(), again=good, stability=0.1).mark == "warn"
    assert told(chance=pair(), again=[kept(0.9)]).mark == "fail"
    assert told(chance=pair(p=0.5), again=good).mark == "fail"
    assert told(chance=pair(), again=good, truth=pair(effect=-1)).mark == "fail"
    assert told().mark == "unknown"


def test_the_most_trustworthy_method_comes_first() -> None:
    chance = pd.DataFrame([pair(p=0.5, method="a"), pair(method="b"), pair(method="c") | {"value_first": 0.6}])
    again = pd.DataFrame([kept(0.1, method=name) for name in "abc"])
    summary = pd.DataFrame(columns=["method", "metric", "mean", "n"])
    order = [verdict.method for verdict in verdicts(list("abc"), chance, NOTHING, NOTHING, again, summary)]
    assert order == ["c", "b", "a"]


def test_every_question_has_a_rule() -> None:
    findings = told().findings
    assert set(findings) == set(RULES)
    assert all(isnan(finding.value) == (finding.mark == "unknown") for finding in findings.values())
