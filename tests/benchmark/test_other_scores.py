"""Rows and curves of scores other than the probability, and one-channel models beside their twins of two channels."""

from dataclasses import replace
from math import isnan

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import zoo
from segfaith import Target, evaluate
from segfaith.batching import BatchSize
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.plan import resolve_methods
from segfaith.benchmark.worker import evaluate_sample
from segfaith.evaluation.metrics import METRICS, is_relative
from segfaith.evaluation.subject import Subject
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Score
from toys import SmallCNN, plain

SIZE = (24, 28)
METHODS = ["gpa", "ega", "ria@grid=3", "dea@grid=3", "random_cells"]


def image() -> Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))


def target(score: Score = "probability", class_index: int = 1, versus: int | None = None) -> Target:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[5:17, 6:20] = True
    return Target(class_index, region, score, versus)


@pytest.mark.parametrize(
    ("explained", "name"),
    [
        (target("logit"), "logit"),
        (target("log_odds"), "log_odds"),
        (target("margin"), "margin"),
        (target("margin", versus=2), "margin to class 2"),
    ],
)
def test_rows_hold_drops_and_say_why_there_are_no_relative_ones(explained: Target, name: str) -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    rows = evaluate(model, image(), explained, METHODS).reset_index().to_dict("records")
    (control,) = [row for row in rows if row["method"] == "random_cells"]
    for row in rows:
        assert row["score"] == name
        assert row["tdd_drop"] == pytest.approx(row["s"] - row["s_target_deleted"], abs=1e-9)
        assert row["odd_drop"] == pytest.approx(row["s"] - row["s_off_deleted"], abs=1e-9)
        assert row["tdd_drop_gain"] == pytest.approx(row["tdd_drop"] - control["tdd_drop"], abs=1e-9)
        assert row["insertion_gain"] == pytest.approx(row["s_inserted"] - row["s_baseline"], abs=1e-9)
        assert all(isnan(row[metric]) for metric in METRICS if is_relative(metric))
        words = (
            f"and what follows from them: score '{name}' has no natural zero, so a drop relative to it means nothing"
        )
        assert words in row["reason"]
        assert row["reason"].count("natural zero") == 1


def test_of_the_probability_both_kinds_of_drops_stand_side_by_side() -> None:
    rows = evaluate(plain(SmallCNN(), layer="backbone.4"), image(), target(), METHODS)
    assert (rows["score"] == "probability").all()
    np.testing.assert_allclose(rows["tdd"], rows["tdd_drop"] / (rows["s"] + 1e-6), rtol=1e-12)
    np.testing.assert_allclose(rows["odd"], rows["odd_drop"] / (rows["s"] + 1e-6), rtol=1e-12)
    np.testing.assert_allclose(rows["odd_abs"], rows["odd_drop_abs"] / (rows["s"] + 1e-6), rtol=1e-12)
    assert not rows["reason"].str.contains("natural zero").any()


def test_curves_of_a_margin_hold_drops() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    model.logits(image()[None])
    subject = Subject(model, "x", image(), target("margin"), 0, BatchSize(8))
    settings = EvaluationSettings(k=[0.2, 0.5])
    result = evaluate_sample(subject, resolve_methods(["gpa"], {}), settings, stability=False)
    curves = pd.DataFrame(result.curves)
    deleted = curves[curves["kind"] != "insertion"]
    assert len(deleted)
    np.testing.assert_allclose(deleted["value"], deleted["s"] - deleted["score"], atol=1e-9)
    probability = evaluate_sample(
        replace(subject, target=target()), resolve_methods(["gpa"], {}), settings, stability=False
    )
    curves = pd.DataFrame(probability.curves)
    deleted = curves[(curves["kind"] != "insertion") & (curves["method"] == "gpa")]
    np.testing.assert_allclose(deleted["value"], (deleted["s"] - deleted["score"]) / (deleted["s"] + 1e-6), atol=1e-9)


class Twin(nn.Module):
    """The two channels [0, z] of a module of one channel z."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        z = self.module(x)
        return torch.cat([torch.zeros_like(z), z], 1)


def one_channel_unet() -> nn.Module:
    module = nn.Sequential(zoo.unet(), nn.ReLU(), zoo.conv(zoo.CLASSES, 1, 1))
    return zoo.randomised(module)


TWINS = [(score, c) for score in ("log_odds", "margin") for c in (0, 1)] + [("probability", 1), ("logit", 1)]
"""Without logits of class 0, in gradients too: those of the twin are the constant 0, and -z for one channel."""


@pytest.mark.parametrize(("score", "c"), TWINS)
def test_a_model_of_one_channel_equals_its_twin_of_two_in_every_column(score: Score, c: int) -> None:
    def measured(model: SegmentationModel) -> pd.DataFrame:
        return evaluate(model, image(), target(score, c), METHODS, stability=True)

    one, two = one_channel_unet(), Twin(one_channel_unet())
    alone, twin = measured(plain(one, layer="1")), measured(plain(two, layer="module.1"))
    assert (alone["status"] == "ok").all(), alone["reason"].tolist()
    assert (list(alone["head"].unique()), list(twin["head"].unique())) == (["sigmoid"], ["softmax"])
    same = [name for name in alone if name not in ("head", "runtime_s")]
    pd.testing.assert_frame_equal(alone[same], twin[same], rtol=1e-5, atol=1e-5)
