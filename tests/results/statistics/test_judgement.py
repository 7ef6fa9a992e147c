"""Verdicts on metrics, from made values whose property is known."""

from collections.abc import Callable
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segfaith.errors import SettingsError
from segfaith.results.statistics.judgement import by_metric, judge, judged, leaders, packaged, read

DOSES = np.linspace(-1, 1, 11)
METHODS = ("gpa", "ega", "ria", "dea", "gamed")


def made(
    by_dose: Callable[[float, np.random.Generator], float],
    by_method: dict[str, float],
    styled: float = 0.0,
    *,
    metric: str = "tdd",
    kind: str = "marker",
    samples: int = 12,
) -> pd.DataFrame:
    """Rows of samples in which the metric follows the dose, and has these values for methods and their styles."""
    rows = []
    for number in range(samples):
        rng = np.random.default_rng(number)
        base = {"sample_id": f"s{number}", "kind": kind, "measured": "as asked", "usable": True}
        rows += [
            base | {"role": "dose", "dose": dose, "of": "", "method": f"d{dose}", metric: by_dose(dose, rng)}
            for dose in DOSES
        ]
        rows += [
            base | {"role": "method", "dose": nan, "of": "", "method": name, metric: value}
            for name, value in by_method.items()
        ]
        rows += [
            base | {"role": "form", "dose": nan, "of": "ria", "method": "masked", metric: by_method["ria"] - 1 * worse}
            for worse in ([-1.0] if metric == "odd_abs" else [1.0])
        ]
        rows += [
            base | {"role": "style", "dose": nan, "of": of, "method": f"{of} {style}", metric: by_method[of] + styled}
            for of in ("ega", "ria")
            for style in ("square", "root", "blur")
        ]
    return pd.DataFrame(rows)


SPREAD = {"gpa": 0.1, "ega": 0.3, "ria": 0.7, "dea": 0.5, "gamed": 0.2}


def verdict(rows: pd.DataFrame, what: str, metric: str = "tdd") -> pd.Series:
    table = judge(rows, "probability").set_index(["metric", "property"])
    row = table.loc[(metric, what)]
    return row if isinstance(row, pd.Series) else row.iloc[0]


def test_a_metric_that_follows_the_dose_is_monotone() -> None:
    row = verdict(made(lambda dose, rng: dose, SPREAD), "truth")
    assert (row["value"], row["low"], row["high"], row["n"], row["verdict"]) == (1, 1, 1, 12, "yes")


def test_where_lower_is_better_the_sign_is_turned() -> None:
    rows = made(lambda dose, rng: 1 - dose, SPREAD, metric="odd_abs", kind="context")
    assert verdict(rows, "truth", "odd_abs")["verdict"] == "yes"
    rows = made(lambda dose, rng: 1 + dose, SPREAD, metric="odd_abs", kind="context")
    assert verdict(rows, "truth", "odd_abs")["verdict"] == "reversed"


def test_noise_is_undecided_and_a_weak_trend_is_called_weak() -> None:
    assert verdict(made(lambda dose, rng: rng.random(), SPREAD, samples=40), "truth")["verdict"] == "undecided"
    weak = verdict(made(lambda dose, rng: 0.15 * dose + rng.random(), SPREAD, samples=60), "truth")
    assert 0 < weak["low"] < 0.3
    assert weak["verdict"] == "weakly"


def test_a_constant_metric_has_no_tau() -> None:
    row = verdict(made(lambda dose, rng: 0.5, SPREAD), "truth")
    assert isnan(row["value"])
    assert (row["n"], row["verdict"], row["why"]) == (0, "no verdict", "fewer than 8 samples have a value")


def test_a_metric_that_cannot_see_the_evidence_is_blind() -> None:
    row = verdict(made(lambda dose, rng: dose, SPREAD, kind="context"), "truth")
    assert row["verdict"] == "blind"
    assert "outside the target" in row["why"]


@pytest.mark.parametrize(("gamed", "expected"), [(0.2, "yes"), (0.7, "no"), (0.9, "no")])
def test_gaming_compares_an_honest_map_with_the_gamed_one(gamed: float, expected: str) -> None:
    row = verdict(made(lambda dose, rng: dose, SPREAD | {"gamed": gamed}), "gaming")
    assert row["verdict"] == expected
    assert row["why"] == ("gamed equals RIA on every sample" if gamed == 0.7 else "")


def test_style_is_measured_by_the_spread_of_methods() -> None:
    spread = float(np.std([0.1, 0.3, 0.7, 0.5], ddof=1))
    little, much = (verdict(made(lambda dose, rng: dose, SPREAD, moved), "style") for moved in (0.05, 0.6))
    assert little["value"] == pytest.approx(0.05 / spread)
    assert much["value"] == pytest.approx(0.6 / spread)
    assert (little["verdict"], much["verdict"]) == ("yes", "no")


def with_forms(gains: dict[str, float]) -> pd.DataFrame:
    """RIA's value is .7; a form's is lower by its gain."""
    rows = made(lambda dose, rng: dose, SPREAD)
    methods = rows[(rows["role"] == "method") & (rows["method"] == "ria")]
    forms = [methods.assign(role="form", method=form, of="ria", tdd=0.7 - gain) for form, gain in gains.items()]
    return pd.concat([rows, *forms])


def test_no_form_of_a_map_should_beat_the_map() -> None:
    spread = float(np.std([0.1, 0.3, 0.7, 0.5], ddof=1))
    rows = with_forms({"halftone": -0.09 * spread, "thresholded": -0.11 * spread})
    table = judge(rows, "probability")
    forms = table[table["property"] == "forms"].set_index("kind")
    assert forms["value"].to_dict() == {"masked": 1, "halftone": 0.5, "thresholded": 0}
    assert forms["verdict"].to_dict() == {"masked": "yes", "halftone": "yes", "thresholded": "no"}
    assert leaders(table) == []
    assert leaders(judge(with_forms({"halftone": 0.0}), "probability")) == ["tdd"]


def test_evidence_that_is_not_known_to_decide_has_no_truth() -> None:
    rows = made(lambda dose, rng: dose, SPREAD).assign(usable=False)
    assert "truth" not in set(judge(rows, "probability")["property"])
    mixed = pd.concat([made(lambda dose, rng: dose, SPREAD), made(lambda dose, rng: -dose, SPREAD, samples=30)])
    mixed["usable"] = [True] * (len(mixed) - 30 * 23) + [False] * (30 * 23)
    mixed.loc[~mixed["usable"], "sample_id"] += "w"
    row = verdict(mixed, "truth")
    assert (row["value"], row["n"]) == (1, 12)


def test_few_samples_give_no_verdict() -> None:
    row = verdict(made(lambda dose, rng: dose, SPREAD, samples=7), "truth")
    assert (row["value"], row["verdict"]) == (1, "no verdict")


def test_what_may_lead_is_monotone_somewhere_reversed_nowhere_and_resists_gaming() -> None:
    good = made(lambda dose, rng: dose, SPREAD)
    assert leaders(judge(good, "probability")) == ["tdd"]
    gamed = made(lambda dose, rng: dose, SPREAD | {"gamed": 0.9})
    assert leaders(judge(gamed, "probability")) == []
    bad = made(lambda dose, rng: -dose, SPREAD, kind="conjunction").assign(
        sample_id=lambda rows: rows["sample_id"] + "c"
    )
    assert leaders(judge(pd.concat([good, bad]), "probability")) == []


def test_drops_are_judged_where_their_relative_forms_are_undefined() -> None:
    assert "tdd" in judged("probability")
    assert "tdd_drop" not in judged("probability")
    assert "tdd_drop" in judged("logit")
    assert "tdd" not in judged("logit")
    assert not {"runtime_s", "evidence_ap", "stability"} & {*judged("probability")}


def test_the_packaged_judgement_is_of_todays_metrics_and_rules() -> None:
    table = packaged()
    assert set(table["metric"]) <= set(judged("probability"))
    assert {"truth", "gaming", "forms", "style", "fills", "removal", "seeds", "images", "ranking", "power"} == set(
        table["property"]
    )
    assert leaders(table)[0] == "fidelity"
    assert "odd_abs" not in leaders(table)
    assert "tdd" not in leaders(table)


def test_a_written_judgement_is_read_as_it_was(tmp_path: Path) -> None:
    table = judge(made(lambda dose, rng: dose, SPREAD, kind="context", metric="odd_abs"), "probability")
    table.to_csv(tmp_path / "judgement.csv", index=False)
    pd.testing.assert_frame_equal(read(tmp_path / "judgement.csv"), table, check_dtype=False)


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n"])
def test_a_file_that_is_no_judgement_is_refused_in_words(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "judgement.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="judgement of metrics" if content is None else "judge-metrics"):
        read(file)


def test_verdicts_in_words() -> None:
    both = pd.concat(
        [
            made(lambda dose, rng: dose, SPREAD),
            made(lambda dose, rng: dose, SPREAD, kind="context").assign(sample_id=lambda rows: rows["sample_id"] + "c"),
        ]
    )
    told = by_metric(judge(both, "probability"))["tdd"]
    assert told["truth"] == "yes (marker); blind (context)"
    assert told["gaming"] == "yes (ria, truth)"
