"""Cross-fitted rankings by hand: no method is scored by an operator that built any of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from hand_runs import by_image, with_curves
from segfaith.results.records.runs import Run
from segfaith.results.statistics import crossfit, rankings

MEAN = {"gpa": None, "ria": "mean", "dea": "mean"}
TWO_IMAGES = {
    "mean": {"gpa": [0.1, 0.3], "ria": [0.8, 0.6], "dea": [0.5, 0.5]},
    "zero": {"gpa": [0.2, 0.2], "ria": [0.4, 0.2], "dea": [0.5, 0.3]},
    "blur": {"gpa": [0.6, 0.4], "ria": [0.1, 0.3], "dea": [0.4, 0.4]},
}


def made(
    values: Mapping[str, Mapping[str, list[float]]],
    built: Mapping[str, str | None],
    kind: str = "target_deletion",
    seed: int = 0,
) -> Run:
    """A run at k = .2, by operator, method and image, whose methods were built with the operators given."""
    points = {
        (method, operator, 0.2, f"s{place}"): value
        for operator, methods in values.items()
        for method, column in methods.items()
        for place, value in enumerate(column)
    }
    run = with_curves(points, kind, seed=seed)
    methods = {name: {"parameters": {"occlusion": own} if own else {}} for name, own in built.items()}
    return replace(run, description=run.description | {"methods": methods})


def fitted(*runs: Run, metric: str = "tdd") -> pd.DataFrame:
    values = rankings.complete(runs, metric)
    return crossfit.cross_fitted(values, crossfit.building_operators(runs, values.methods))


LEAST_IN_USE = crossfit.LEAST_IMAGES


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossfit, "LEAST_IMAGES", 1)


def test_few_images_rank_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossfit, "LEAST_IMAGES", LEAST_IN_USE)
    table = fitted(made(TWO_IMAGES, MEAN))
    assert len(table) == 0
    assert table.attrs["why"] == "2 images have all values, at least 10 are needed"


def test_means_and_ranks_by_hand() -> None:
    """Under mean: gpa .2, ria .7, dea .5. Over zero and blur: gpa (.2 + .5) / 2, ria (.3 + .2) / 2, dea .4."""
    table = fitted(made(TWO_IMAGES, MEAN)).set_index("method")
    assert table["mean_building"].to_dict() == pytest.approx({"gpa": 0.2, "ria": 0.7, "dea": 0.5})
    assert table["rank_building"].to_dict() == {"gpa": 3, "ria": 1, "dea": 2}
    assert table["mean_crossfitted"].to_dict() == pytest.approx({"gpa": 0.35, "ria": 0.25, "dea": 0.4})
    assert table["rank_crossfitted"].to_dict() == {"gpa": 2, "ria": 3, "dea": 1}
    assert table["built_with"].to_dict() == {"gpa": "", "ria": "mean", "dea": "mean"}
    assert set(table["building"]) == {"mean"}
    assert set(table["others"]) == {"zero blur"}
    assert set(table["images"]) == {2}
    assert crossfit.changed_places(table.reset_index()) == [("gpa", "ria"), ("ria", "dea")]


def test_lower_is_better_for_leakage() -> None:
    table = fitted(made(TWO_IMAGES, MEAN, "off_deletion"), metric="odd_abs").set_index("method")
    assert table["rank_building"].to_dict() == {"gpa": 1, "ria": 3, "dea": 2}
    assert table["rank_crossfitted"].to_dict() == {"gpa": 2, "ria": 1, "dea": 3}


def test_operators_of_all_methods_and_all_runs_are_left_out() -> None:
    """dea is built with zero here, and ria with zero in a second run: blur is all that is left."""
    table = fitted(made(TWO_IMAGES, MEAN | {"dea": "zero"})).set_index("method")
    assert set(table["others"]) == {"blur"}
    assert set(table["building"]) == {"mean zero"}
    assert table["mean_crossfitted"].to_dict() == pytest.approx({"gpa": 0.5, "ria": 0.2, "dea": 0.4})
    assert table["mean_building"].to_dict() == pytest.approx({"gpa": 0.2, "ria": 0.5, "dea": 0.45})
    runs = made(TWO_IMAGES, MEAN), made(TWO_IMAGES, MEAN | {"ria": "zero"}, seed=1)
    table = fitted(*runs).set_index("method")
    assert set(table["others"]) == {"blur"}
    assert table.loc["ria", "built_with"] == "mean zero"


@pytest.mark.parametrize(
    ("operators", "built", "why"),
    [
        (["mean"], MEAN, "no other operator was measured than mean, which a method here was built with"),
        (
            ["mean", "zero"],
            MEAN | {"dea": "zero"},
            "no other operators were measured than mean and zero, which a method",
        ),
        (
            ["zero", "blur"],
            MEAN,
            "no method here was built with zero or blur, so all rankings are cross-fitted as they",
        ),
        (["mean", "blur"], dict.fromkeys(MEAN), "no method here is known to be built by occlusion"),
    ],
)
def test_where_nothing_can_be_left_out_the_table_says_why(operators: list[str], built: Any, why: str) -> None:
    table = fitted(made({name: TWO_IMAGES[name] for name in operators}, built))
    assert list(table.columns) == crossfit.CROSSFIT_COLUMNS
    assert not len(table)
    assert table.attrs["why"].startswith(why)


def test_without_curves_the_table_says_so() -> None:
    run = made(TWO_IMAGES, MEAN)
    assert fitted(replace(run, curves=run.curves.iloc[:0])).attrs["why"].startswith("no run has curves")


def test_ties_are_no_change_of_places() -> None:
    ranks = {"method": ["a", "b", "c"], "rank_building": [1.5, 1.5, 3], "rank_crossfitted": [1, 2, 3]}
    assert crossfit.changed_places(pd.DataFrame(ranks)) == []


def test_of_maps_and_functions_of_others_nothing_is_known() -> None:
    assert crossfit.unknown(["gpa", "ria@occlusion=blur", "maps:mine", "mine.py:explain"]) == [
        "maps:mine",
        "mine.py:explain",
    ]


def test_fidelity_is_by_its_own_operator_or_else_by_the_runs_first() -> None:
    measured = by_image({"ria": [0.1, 0.2]}, metric="fidelity")

    def by(evaluation: dict[str, Any], run: Run = measured) -> Run:
        settings = {"evaluation": {"k": 0.2} | evaluation}
        return replace(run, description=run.description | {"settings": settings})

    assert crossfit.fidelity_operators([by({"occlusion": ["zero", "mean"], "fidelity_occlusion": None})]) == ["zero"]
    assert crossfit.fidelity_operators([by({"occlusion": ["mean"], "fidelity_occlusion": "blur"})]) == ["blur"]
    without = by_image({"ria": [0.1, 0.2]})
    assert crossfit.fidelity_operators([by({"occlusion": ["mean"]}, without)]) == [], "without fidelity"
