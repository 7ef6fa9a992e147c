"""The control gamed on scenes: it equals RIA in what the paper measures, and loses to it in fidelity."""

import pandas as pd
import pytest

import segfaith
from segfaith.data import open_dataset
from segfaith.types import Target

SCENES = ("val-0002", "val-0003", "val-0004", "val-0005", "val-0010", "val-0012")


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """RIA and gamed on six scenes at 112 px; a row for each, with the scene's id."""
    scenes, model = open_dataset("scenes", None), segfaith.load_model("scenes")
    frames = []
    for sample_id in SCENES:
        sample = scenes.load(sample_id, 112)
        index = max(sample.planted, key=lambda one: int((sample.labels == one).sum()))
        target = Target(index, sample.labels == index)
        rows = segfaith.evaluate(model, sample.image, target, ["ria", "mask"])
        frames.append(rows.assign(sample_id=sample_id).reset_index())
    return pd.concat(frames).set_index(["method", "sample_id"])


def test_it_equals_ria_where_only_the_order_inside_is_read(measured: pd.DataFrame) -> None:
    ria, gamed = measured.loc["ria"], measured.loc["gamed"]
    for name in ("tdd", "insertion_gain"):
        assert (ria[name] - gamed[name]).abs().max() < 1e-5


def test_it_leaks_less_than_ria_at_no_cost(measured: pd.DataFrame) -> None:
    assert measured.loc["gamed", "odd_abs"].median() < 0.5 * measured.loc["ria", "odd_abs"].median()


def test_it_loses_in_fidelity(measured: pd.DataFrame) -> None:
    """Over the whole image on each scene; outside the target, where it hides what was measured, by far in the mean."""
    ria, gamed = measured.loc["ria"], measured.loc["gamed"]
    assert (ria["fidelity"] - gamed["fidelity"]).min() > 0.02
    assert (ria["fidelity"] - gamed["fidelity"]).mean() > 0.15
    assert (ria["fidelity_outside"] - gamed["fidelity_outside"]).mean() > 0.4
    assert (ria["fidelity_outside"] > gamed["fidelity_outside"]).mean() > 0.6
