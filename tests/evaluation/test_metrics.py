"""Every metric by hand, and what every entry of the table must say."""

from collections.abc import Iterator
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segfaith.constants import LEAST_TDD
from segfaith.errors import SettingsError
from segfaith.evaluation import metrics
from segfaith.evaluation.computing import compute_metrics
from segfaith.evaluation.fidelity import draw_sets
from segfaith.evaluation.interventions import score_columns
from segfaith.evaluation.metrics import (
    METRICS,
    QUANTITIES,
    STABILITIES,
    Metric,
    add_metric,
    leading,
    mean_defined,
    scale,
)
from segfaith.evaluation.names import FIXED_COLUMNS
from segfaith.results.records.schema import RECORD_COLUMNS


@pytest.fixture
def metrics_restored() -> Iterator[None]:
    """METRICS comes back as it was."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


FROM_SCORES = ["tdd", "odd", "odd_abs", "leak_abs", "leak_signed", "insertion_gain", "insertion_gain_rel"]

DROPPED = ["tdd_drop", "odd_drop", "odd_drop_abs"]

DETAILED = ["odd_fair", "odd_fair_abs", "odd_near", "odd_middle", "odd_far"]

BEYOND = ["odd_beyond", "odd_beyond_abs"]

WHOLE = ["deletion_area", "insertion_area", "tdd_own", "tdd_gain_own"]


def metrics_of(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, s_off_evidence: float = nan, **more: float
) -> dict[str, float]:
    scores = {
        "s": s,
        "s_target_deleted": s_target,
        "s_off_deleted": s_off,
        "s_baseline": s_baseline,
        "s_inserted": s_in,
    }
    given_scores = scores | {"s_off_evidence_deleted": s_off_evidence} | more
    return computed(dict.fromkeys(score_columns(), nan) | given_scores | {"scale": scale(s, "probability")})


def computed(known: dict[str, Any]) -> dict[str, float]:
    """The metrics that follow; none of them fails."""
    faults: dict[str, str] = {}
    values = compute_metrics(known, faults)
    assert faults == {}
    return values


@pytest.mark.parametrize(
    ("given_scores", "expected"),
    [
        (
            (0.8, 0.2, 0.6, 0.1, 0.5),
            {
                "tdd": 0.6 / 0.800001,
                "odd": 0.2 / 0.800001,
                "odd_abs": 0.2 / 0.800001,
                "leak_abs": (0.2 / 0.800001) / (0.6 / 0.800001 + 1e-6),
                "leak_signed": (0.2 / 0.800001) / (0.6 / 0.800001 + 1e-6),
                "insertion_gain": 0.4,
                "insertion_gain_rel": 0.4 / 0.800001,
            },
        ),
        (  # occlusion raises the score on both sides, and insertion lowers it
            (0.5, 0.6, 0.9, 0.7, 0.4),
            {
                "tdd": -0.1 / 0.500001,
                "odd": -0.4 / 0.500001,
                "odd_abs": 0.4 / 0.500001,
                "leak_abs": nan,
                "leak_signed": nan,
                "insertion_gain": -0.3,
                "insertion_gain_rel": -0.3 / 0.500001,
            },
        ),
        (  # eps keeps a score of 0 and a drop of 0 finite
            (0.0, 0.0, 1e-3, 0.0, 0.0),
            {
                "tdd": 0.0,
                "odd": -1e3,
                "odd_abs": 1e3,
                "leak_abs": nan,
                "leak_signed": nan,
                "insertion_gain": 0.0,
                "insertion_gain_rel": 0.0,
            },
        ),
    ],
)
def test_metrics_by_hand(given_scores: tuple[float, ...], expected: dict[str, float]) -> None:
    got = metrics_of(*given_scores)
    assert set(got) == {*FROM_SCORES, *DROPPED, *DETAILED, *BEYOND, *WHOLE}
    assert all(isnan(got[name]) for name in WHOLE), "no other curve was measured"
    s, s_target, s_off, *_ = given_scores
    assert [got[name] for name in DROPPED] == [s - s_target, s - s_off, abs(s - s_off)]
    assert {name: got[name] for name in FROM_SCORES} == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert all(isnan(got[name]) for name in BEYOND), "no evidence was planted"
    assert all(isnan(got[name]) for name in DETAILED), "only the plain scores were measured"


def test_detailed_leakage_by_hand() -> None:
    """Each is the relative loss of its own deletion."""
    more = {"s_fair_deleted": 0.9, "s_near_deleted": 0.4, "s_middle_deleted": 0.8, "s_far_deleted": 0.84}
    got = metrics_of(0.8, 0.2, 0.6, 0.1, 0.5, **more)
    expected = {"odd_fair": -0.125, "odd_fair_abs": 0.125, "odd_near": 0.5, "odd_middle": 0.0, "odd_far": -0.05}
    assert {name: got[name] for name in DETAILED} == pytest.approx(expected, abs=2e-6)


def test_areas_over_the_whole_image_by_hand() -> None:
    """Trapezia between k = 0, .01, .05, .1, .2, .4, .7 and 1; at 0 nothing is altered, at 1 everything."""
    deleted, inserted = [0.8, 0.7, 0.6, 0.4, 0.3, 0.2], [0.1, 0.1, 0.2, 0.3, 0.5, 0.9]
    places = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1]
    more = {
        f"s_whole_{kind}_{round(100 * k):02d}": value
        for kind, values in (("deletion", deleted), ("insertion", inserted))
        for k, value in zip(places[1:-1], values, strict=True)
    }
    got = metrics_of(0.8, 0.2, 0.6, 0.1, 0.5, **more)
    drops = [0.8 - value for value in (0.8, *deleted, 0.1)]
    rises = [value - 0.1 for value in (0.1, *inserted, 0.8)]
    assert got["deletion_area"] == pytest.approx(np.trapezoid(drops, places))
    assert got["insertion_area"] == pytest.approx(np.trapezoid(rises, places))
    known = {"deletion_area": got["deletion_area"], "control_deletion_area": 0.25, "scale": 0.5}
    assert computed(known)["deletion_auc"] == pytest.approx((got["deletion_area"] - 0.25) / 0.5)
    known = {"insertion_area": got["insertion_area"], "control_insertion_area": 0.25, "scale": 0.5}
    assert computed(known)["insertion_auc"] == pytest.approx((got["insertion_area"] - 0.25) / 0.5)


def test_the_gain_over_shifted_copies_by_hand() -> None:
    shifted = {f"s_shifted_deleted_{number}": 0.8 - 0.025 * number for number in range(1, 17)}
    got = metrics_of(0.8, 0.2, 0.6, 0.1, 0.5, **shifted)
    assert got["tdd_own"] == pytest.approx(0.025 * 8.5 / 0.800001)
    assert got["tdd_gain_own"] == pytest.approx(0.6 / 0.800001 - 0.025 * 8.5 / 0.800001)


@pytest.mark.parametrize(
    ("given_scores", "beyond"),
    [
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.7), 0.1 / 0.800001),  # the evidence within S_o explains half of the loss
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.6), 0.0),  # all of it
        ((0.8, 0.2, 0.6, 0.1, 0.5, 0.8), 0.2 / 0.800001),  # none of it: odd itself
        ((0.5, 0.2, 0.9, 0.1, 0.5, 0.3), -0.6 / 0.500001),  # what is beyond the evidence raises the score
    ],
)
def test_what_is_lost_beyond_the_evidence_by_hand(given_scores: tuple[float, ...], beyond: float) -> None:
    got = metrics_of(*given_scores)
    assert got["odd_beyond"] == pytest.approx(beyond, abs=1e-12)
    assert got["odd_beyond_abs"] == pytest.approx(abs(beyond), abs=1e-12)
    bare = metrics_of(*given_scores[:5])
    assert {name: got[name] for name in FROM_SCORES} == {name: bare[name] for name in FROM_SCORES}


@pytest.mark.parametrize(
    ("s", "s_target", "s_off"),
    [
        (0.001, 0.114, 0.0027),  # the deletion raises s a hundredfold: the ratio would be .015
        (0.5, 0.5, 0.5),  # constant logits: the ratio would be 0
        (0.5, 0.4751, 0.1),  # tdd = .0498
        (0.5, 0.5, 0.1),
    ],
)
def test_leakage_is_undefined_where_the_target_deletion_costs_nothing(s: float, s_target: float, s_off: float) -> None:
    got = metrics_of(s, s_target, s_off, 0.1, 0.2)
    assert got["tdd"] <= LEAST_TDD
    assert isnan(got["leak_abs"])
    assert isnan(got["leak_signed"])
    assert got["odd_abs"] == abs(got["odd"]), "defined"


def test_leakage_is_defined_from_the_least_tdd_on() -> None:
    got = metrics_of(0.5, 0.4749, 0.6, 0.1, 0.2)
    assert got["tdd"] == pytest.approx(0.0502, abs=1e-6)
    assert got["leak_abs"] == pytest.approx(0.1 / 0.0251, rel=1e-4)
    assert got["leak_signed"] == pytest.approx(-0.1 / 0.0251, rel=1e-4)


def test_nothing_outside_leaves_the_off_target_metrics_undefined() -> None:
    got = metrics_of(0.8, 0.2, nan, 0.1, 0.5, 0.7)
    undefined = {name for name, value in got.items() if isnan(value)}
    dropped = {"odd_drop", "odd_drop_abs"}
    assert undefined == {"odd", "odd_abs", "leak_abs", "leak_signed", *dropped, *BEYOND, *DETAILED, *WHOLE}


def test_means_leave_undefined_values_out() -> None:
    assert mean_defined([1.0, nan, 2.0]) == 1.5
    assert isnan(mean_defined([nan, nan]))
    assert isnan(mean_defined([]))


# The table of metrics


def test_the_table_has_every_metric_of_the_spec_with_its_direction() -> None:
    spec = {
        "tdd": "higher",
        "tdd_gain": "higher",
        "tdd_drop": "higher",
        "tdd_drop_gain": "higher",
        "odd_drop": None,
        "odd_drop_abs": "lower",
        "odd": None,
        "odd_abs": "lower",
        "leak_abs": "lower",
        "leak_signed": None,
        "insertion_gain": "higher",
        "insertion_gain_rel": "higher",
        "stability": "higher",
        "stability_rank": "higher",
        "stability_top": "higher",
        "fidelity": "higher",
        "fidelity_inside": "higher",
        "fidelity_outside": "higher",
        "deletion_area": "higher",
        "deletion_auc": "higher",
        "insertion_area": "higher",
        "insertion_auc": "higher",
        "tdd_own": None,
        "tdd_gain_own": "higher",
        "odd_fair": None,
        "odd_fair_abs": "lower",
        "odd_near": None,
        "odd_middle": None,
        "odd_far": None,
        "energy_inside": None,
        "own_half": None,
        "pointing": None,
        "gini": None,
        "odd_beyond": None,
        "odd_beyond_abs": "lower",
        "evidence_ap": "higher",
        "evidence_mass": "higher",
        "evidence_top": "higher",
        "runtime_s": "lower",
    }
    assert {name: METRICS[name].better for name in spec} == spec


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is_and_has_a_column(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.label
    assert len(metric.meaning.split()) >= 3 or name in ("odd_abs", "odd_drop_abs")
    assert metric.low < metric.high
    assert RECORD_COLUMNS[name][1] == metric.meaning
    assert len({one.label for one in METRICS.values()}) == len(METRICS)


def test_the_records_have_the_columns_of_the_contract() -> None:
    contract = (
        "sample_id class_index method target_area target_iou s s_target_deleted s_off_deleted s_baseline s_inserted "
        "tdd tdd_gain odd odd_abs leak_abs leak_signed insertion_gain stability stability_noise stability_brightness "
        "stability_contrast stability_blur stability_flip runtime_s degenerate tied_share_target tied_share_off status "
        "reason"
    )
    assert set(contract.split()) <= set(RECORD_COLUMNS)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_formula_and_needs_what_was_known_before_it(name: str) -> None:
    metric, before = METRICS[name], list(METRICS)[: list(METRICS).index(name)]
    assert metric.formula
    assert metric.needs
    known = {*score_columns(), *QUANTITIES, *before, *(f"control_{earlier}" for earlier in before)}
    assert set(metric.needs) <= known


def test_every_metric_follows_from_the_quantities() -> None:
    """Of a map and scores made up here: no entry is left out, and none needs what nobody gives."""
    rng = np.random.default_rng(0)
    region = torch.zeros(14, 14, dtype=torch.bool)
    region[2:9, 3:8] = True
    of_map = {
        "heatmap": torch.from_numpy(rng.random((14, 14), dtype=np.float32)),
        "region": region,
        "alternatives": (region,),
        "half": region,
        "ranks": torch.arange(196).reshape(14, 14),
        "k": 0.2,
        "sets": draw_sets(torch.arange(196).reshape(14, 14), region, ~region, 96, 8, rng),
        "set_drops": torch.from_numpy(rng.random(96)),
    }
    known = dict(zip(score_columns(), rng.random(len(score_columns())), strict=True))
    known |= dict.fromkeys(STABILITIES, 0.25) | {"seconds": 2.0, "scale": 0.900001} | of_map
    known |= {"rank_agreement": 0.3, "top_agreement": 0.4}
    known |= {"s": 0.9, "s_target_deleted": 0.1, **{f"control_{name}": 0.5 for name in METRICS}}
    values = computed(known)
    assert list(values) == list(METRICS)
    for name, value in values.items():
        assert METRICS[name].low <= value <= METRICS[name].high, name
    assert values["tdd_gain"] == values["tdd"] - 0.5
    assert (values["stability"], values["runtime_s"]) == (0.25, 2.0)
    assert set(QUANTITIES) <= set(known)


def test_what_is_not_known_leaves_out_the_metrics_that_need_it() -> None:
    known = {"s": 0.8, "s_target_deleted": 0.2}
    assert computed(known) == {"tdd_drop": pytest.approx(0.6)}
    assert computed(known | {"scale": 0.8}) == {"tdd_drop": pytest.approx(0.6), "tdd": pytest.approx(0.75)}
    assert computed(known | {"tdd_drop": 0.5}) == {}, "what is known is not computed again"


def _metric(name: str, *needs: str) -> Metric:
    return Metric(name, "label", "words", "formula", "higher", needs, lambda *values: 0.0)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (_metric("tdd", "s"), "the name 'tdd' is taken"),
        (_metric("s_inserted", "s"), "the name 's_inserted' is taken"),
        (_metric("new", "s", "s_target_deletd"), "unknown need of the metric 'new': 's_target_deletd'; did you mean"),
        (_metric("new", "control_s"), "unknown need of the metric 'new': 'control_s'"),
    ],
)
def test_an_entry_that_cannot_be_computed_is_refused(metric: Metric, message: str) -> None:
    before = dict(METRICS)
    with pytest.raises(SettingsError, match=message):
        add_metric(metric)
    assert before == METRICS


def test_the_fixed_columns_are_those_of_the_records_that_are_neither_scores_nor_metrics() -> None:
    assert set(FIXED_COLUMNS) == set(RECORD_COLUMNS) - {*score_columns(), *METRICS, *STABILITIES}
    assert len(FIXED_COLUMNS) > 10


@pytest.mark.parametrize("name", [*RECORD_COLUMNS, *QUANTITIES, "control_tdd", "control_new"])
def test_a_metric_of_a_name_that_is_taken_is_refused(name: str) -> None:
    before = dict(METRICS)
    words = rf"the name '{name}' (is taken by a|begins with 'control_').*; give the metric '{name}' another one"
    with pytest.raises(SettingsError, match=words):
        add_metric(_metric(name, "s"))
    assert before == METRICS


@pytest.mark.parametrize("of_map", ["heatmap", "region", "alternatives", "ranks", "k"])
@pytest.mark.parametrize("other", ["tdd", "s", "seconds", "stability_blur", "control_tdd", "tdd_gain", "control_gini"])
def test_what_is_never_known_together_is_refused(of_map: str, other: str) -> None:
    before = dict(METRICS)
    for needs in ((of_map, other), (other, of_map)):
        with pytest.raises(SettingsError, match=f"'new' cannot need {of_map} together with {other}: .* Add one metric"):
            add_metric(_metric("new", *needs))
    assert before == METRICS


def test_a_need_of_the_controls_own_gain_is_refused() -> None:
    before = dict(METRICS)
    with pytest.raises(
        SettingsError, match="'new' cannot need 'control_tdd_gain': tdd_gain is itself computed against"
    ):
        add_metric(_metric("new", "tdd", "control_tdd_gain"))
    assert before == METRICS


def _zeroed(heatmap: torch.Tensor, alternatives: tuple[torch.Tensor, ...]) -> float:
    return float(heatmap.zero_().sum() + sum(mask.zero_().sum() for mask in alternatives))


def test_a_metric_cannot_change_what_it_is_given(metrics_restored: None) -> None:
    add_metric(Metric("zeroed", "Z", "words", "formula", None, ("heatmap", "alternatives"), _zeroed))
    heatmap, mask = torch.rand(4, 5), torch.ones(4, 5, dtype=torch.bool)
    known = {"heatmap": heatmap.clone(), "alternatives": (mask.clone(), mask.clone())}
    assert computed(known)["zeroed"] == 0
    assert torch.equal(known["heatmap"], heatmap)
    assert all(torch.equal(given, mask) for given in known["alternatives"])


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (inf, "ValueError: the value is inf"),
        (-inf, "ValueError: the value is -inf"),
        (None, "TypeError: float() argument must be a string or a real number, not 'NoneType'"),
        (torch.ones(2), "only one element tensors can be converted to Python scalars"),
    ],
)
def test_a_value_that_is_no_number_is_nan_and_the_fault_is_told(metrics_restored: None, value: Any, fault: str) -> None:
    add_metric(Metric("bad", "B", "words", "formula", None, ("tdd",), lambda tdd: value))
    faults: dict[str, str] = {}
    values = compute_metrics({"s": 0.8, "s_target_deleted": 0.2, "scale": 0.8}, faults)
    assert isnan(values["bad"])
    assert values["tdd"] == pytest.approx(0.75, abs=1e-5)
    assert list(faults) == ["bad"]
    assert fault in faults["bad"]


@pytest.mark.parametrize("value", [1, True, np.float32(0.5), torch.tensor(0.5), nan])
def test_a_value_becomes_a_float(metrics_restored: None, value: Any) -> None:
    add_metric(Metric("new", "N", "words", "formula", None, ("s",), lambda s: value))
    new = computed({"s": 0.8})["new"]
    assert type(new) is float
    assert new == pytest.approx(float(value), nan_ok=True)


unit = st.floats(0, 1)


@settings(max_examples=200)
@given(unit, unit, unit, unit, unit, unit)
def test_metrics_stay_in_their_ranges(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, s_off_evidence: float
) -> None:
    """For all scores in [0, 1]; the bounds are reached by the scores named below."""
    more = {f"s_{name}_deleted": s_off for name in ("fair", "near", "middle", "far")}
    for name, value in metrics_of(s, s_target, s_off, s_baseline, s_in, s_off_evidence, **more).items():
        if name not in WHOLE:  # their scores are not among these
            assert METRICS[name].low <= value <= METRICS[name].high or (isnan(value) and name.startswith("leak_"))


def test_bounds_are_tight() -> None:
    best, worst = metrics_of(1, 0, 1, 0, 1), metrics_of(1, 1, 1, 1, 0)
    assert best["tdd"] == metrics_of(1, 0, 0, 0, 1)["odd"] == pytest.approx(1, abs=2e-6)
    assert (METRICS["tdd"].high, METRICS["odd"].high) == (1, 1)
    assert (best["insertion_gain"], worst["insertion_gain"]) == (1, -1)
    assert (METRICS["insertion_gain"].low, METRICS["insertion_gain"].high) == (-inf, inf), (
        "of a margin it has no bounds"
    )
    assert (best["odd_abs"], best["leak_abs"]) == (0, 0)
    assert (METRICS["tdd"].low, METRICS["tdd_gain"].low) == (-inf, -inf)
    assert metrics_of(1e-3, 1, 1, 0, 0)["tdd"] < -900


@settings(max_examples=100)
@given(unit, unit, unit, unit, unit, st.floats(1e-6, 1))
def test_metrics_point_where_the_table_says(
    s: float, s_target: float, s_off: float, s_baseline: float, s_in: float, step: float
) -> None:
    """Deleting target pixels that cost more, and inserting ones that bring more, moves a metric its better way."""
    before = metrics_of(s, s_target, s_off, s_baseline, s_in)
    assert metrics_of(s, s_target - step, s_off, s_baseline, s_in)["tdd"] > before["tdd"]
    for name in ("insertion_gain", "insertion_gain_rel"):
        assert metrics_of(s, s_target, s_off, s_baseline, s_in + step)[name] > before[name]
    further = s_off + step if s_off >= s else s_off - step
    for name in ("odd_abs", "leak_abs"):
        after = metrics_of(s, s_target, further, s_baseline, s_in)[name]
        assert after > before[name] or (name == "leak_abs" and before["tdd"] <= LEAST_TDD and isnan(after))


def test_metrics_need_no_torch() -> None:
    assert "import torch" not in Path(metrics.__file__).read_text()


# Scores without a natural zero


@pytest.mark.parametrize("score", ["logit", "log_odds", "margin", "margin to class 3"])
def test_relative_metrics_are_undefined_where_the_score_has_no_natural_zero(score: str) -> None:
    scores = {"s": -2.0, "s_target_deleted": -5.5, "s_off_deleted": -1.5, "s_baseline": -6.0, "s_inserted": -2.5}
    more = {f"s_{name}_deleted": -2.5 for name in ("fair", "near", "middle", "far", "off_evidence")}
    got = computed(scores | more | {"scale": scale(-2.0, score)})
    defined = {"tdd_drop": 3.5, "odd_drop": -0.5, "odd_drop_abs": 0.5, "insertion_gain": 3.5}
    assert {name: value for name, value in got.items() if not isnan(value)} == defined
    assert {name for name in got if isnan(got[name])} == {name for name in got if metrics.is_relative(name)}


def test_the_scale_is_s_of_a_probability_alone() -> None:
    assert scale(0.25, "probability") == 0.250001
    assert scale(0.0, "probability") == 1e-6
    assert scale(0.25, "conditional") == scale(0.25, "conditional against class 3") == 0.250001
    assert isnan(scale(0.25, "margin"))


def test_absolute_metrics_take_the_place_of_relative_ones() -> None:
    names = ["tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability", "odd_beyond_abs"]
    assert leading(names, "probability") == leading(names, "conditional") == names
    assert leading(names, "margin") == ["tdd_drop", "tdd_drop_gain", "odd_drop_abs", "insertion_gain", "stability"]
    assert leading(["odd", "insertion_gain_rel", "odd_fair", "evidence_ap"], "logit") == ["odd_drop", "evidence_ap"]
    assert all(METRICS[drop].better == METRICS[name].better for name, drop in metrics.DROPS.items())


def test_a_metric_that_follows_from_a_relative_one_is_relative_too(metrics_restored: None) -> None:
    add_metric(_metric("focus", "tdd", "odd"))
    add_metric(_metric("own_gain", "stability", "control_tdd"))
    add_metric(_metric("plain", "tdd_drop", "odd_drop"))
    assert [metrics.is_relative(name) for name in ("focus", "own_gain", "plain")] == [True, True, False]
    assert leading(["focus", "plain"], "logit") == ["plain"]
