"""What must not pass in silence: borrowed directories, evidence that fails, weights that are random, odd sizes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import segfaith
from folder_runs import content, make_project, run_records
from made_runs import run_of
from segfaith.benchmark.settings import make_settings
from segfaith.classes import class_index
from segfaith.errors import SampleError, SettingsError
from segfaith.occlusion import gaussian_blur
from segfaith.perturbation import PERTURBATIONS
from segfaith.results.statistics.summary import summarise
from toys import SmallCNN, plain


def box(height: int = 28, width: int = 36) -> segfaith.Target:
    region = torch.zeros(height, width, dtype=torch.bool)
    region[height // 4 : height // 2, width // 4 : width // 2 + 1] = True
    return segfaith.Target(1, region)


def photograph(height: int = 28, width: int = 36) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def test_records_whose_run_json_is_gone_are_nobodys(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", 2)
    run_records(project, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SettingsError, match=r"has records but no run\.json.*choose another directory"):
        segfaith.run(make_settings(content(project, seed=7)), tmp_path / "run")


class NaNFeatures(nn.Module):
    """Finite logits beside a feature layer that is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.layer.weight, torch.nan)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + 0 * torch.nan_to_num(self.layer(x)).mean(1, keepdim=True)


def test_gradient_evidence_that_cannot_be_had_stops_only_the_methods_that_need_it() -> None:
    model = plain(NaNFeatures(), layer="layer")
    scores = segfaith.evaluate(model, photograph(), box(), ["gpa", "dea@grid=4", "ria@grid=4", "mask"], stability=True)
    assert scores["status"].to_dict() == {
        "gpa": "failed", "dea@grid=4": "failed", "ria@grid=4": "ok", "mask": "ok", "random_cells": "ok",
        "gamed@grid=4": "ok",
    }  # fmt: skip
    assert "activations or gradients at layer 'layer' are NaN" in scores.loc["gpa", "reason"]
    assert scores.loc["mask", "stability"] == 1
    assert np.isfinite(scores.loc["ria@grid=4", "tdd"])


def test_a_wrong_layer_of_one_method_is_its_own_row_in_python() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    scores = segfaith.evaluate(model, photograph(), box(), ["gpa@layer=bogus", "ega", "mask"])
    assert scores["status"].tolist() == ["failed", "ok", "ok", "ok"]
    assert "no layer 'bogus'" in scores.loc["gpa@layer=bogus", "reason"]
    with pytest.raises(SettingsError, match="no layer 'bogus'"):
        segfaith.explain(model, photograph(), box(), ["gpa@layer=bogus"])


def test_a_map_cannot_take_the_controls_name() -> None:
    with pytest.raises(SettingsError, match="'random_cells', the control"):
        segfaith.evaluate(plain(SmallCNN()), photograph(), box(), {"random_cells": torch.rand(28, 36)})


def test_random_weights_are_for_the_known_models(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, 2, 1)\n")
    with pytest.raises(SettingsError, match=r"weights = 'random' is for the models of `segfaith list models`; leave"):
        segfaith.load_model(f"{tmp_path / 'own.py'}:build", weights="random")
    with pytest.raises(SettingsError, match=r"args of lraspp_mobilenet_v3_large cannot hold weights"):
        segfaith.load_model("lraspp_mobilenet_v3_large", weights="random", args={"weights": "DEFAULT"})


def test_a_frame_says_where_the_weights_come_from() -> None:
    model = segfaith.load_model("lraspp_mobilenet_v3_large", weights="random", seed=3)
    scores = segfaith.evaluate(model, photograph(64, 64), box(64, 64), ["mask"])
    assert scores.attrs["weights"] == "random (seed 3)"


@pytest.mark.parametrize(("name", "top"), [(-1, 2), (3, 2), (255, 2)])
def test_a_class_index_out_of_range(name: int, top: int) -> None:
    with pytest.raises(SettingsError, match=rf"class {name} is out of range; expected 0 to {top}"):
        class_index(name, ["a", "b", "c"])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (224, 25), (7, 5)])
def test_images_smaller_than_the_blur_reaches(size: tuple[int, int]) -> None:
    """The blur's kernel ends where reflection would; every operator and perturbation is defined on every size."""
    image = photograph(*size)
    blurred = gaussian_blur(image, 10 * size[0] / 224)
    assert blurred.shape == image.shape
    assert float(blurred.min()) >= float(image.min()) - 1e-6
    assert float(blurred.max()) <= float(image.max()) + 1e-6
    for name, perturb in PERTURBATIONS.items():
        assert perturb(image, 0.03, np.random.default_rng(0)).shape == image.shape, name
    target = segfaith.Target(1, torch.ones(size, dtype=torch.bool))
    scores = segfaith.evaluate(plain(SmallCNN()), image, target, ["mask"], occlusion="blur", stability=True)
    assert (scores["status"] == "ok").all()


def test_an_unknown_operator_or_fraction_is_named_in_plain_words() -> None:
    model = plain(SmallCNN())
    with pytest.raises(SettingsError, match=r"^unknown occlusion operator 'meen'; did you mean 'mean'"):
        segfaith.evaluate(model, photograph(), box(), ["mask"], occlusion="meen")
    with pytest.raises(SettingsError, match=r"^k must be above 0 and at most 1, got 0(\.0)?$"):
        segfaith.evaluate(model, photograph(), box(), ["mask"], k=0)


def test_softmax_is_right_at_large_logits() -> None:
    """Logits of 9,999 and 10,000: a rounded log-sum-exp would be off by 2e-4."""

    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.full_like(x[:, 0], 9999.0), torch.full_like(x[:, 0], 10000.0)], 1)

    s = segfaith.evaluate(plain(Large()), photograph(), box(), ["mask"]).loc["mask", "s"]
    assert s == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


def test_logits_that_are_not_finite_leave_nothing_to_explain() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2, *x.shape[2:]), torch.inf)

    with pytest.raises(SampleError, match="logits that are NaN or infinite"):
        segfaith.evaluate(plain(Broken()), photograph(), box(), ["mask"])


def test_the_table_says_how_many_entered_each_value_and_whose_weights() -> None:
    records = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c"], "method": "gpa", "status": "ok", "s": 0.5, "tdd": [0.1, 0.2, 0.6],
            "tdd_gain": 0.0, "odd_abs": 0.1, "leak_abs": 1.0, "insertion_gain": 0.0, "runtime_s": 1.0,
            "stability": [0.5, np.nan, 0.7],
        }
    )  # fmt: skip
    description = {
        "data": {"name": "voc2012", "split": "val", "samples": ["a", "b", "c"]},
        "model": {"name": "m", "weights": "random (seed 0)"},
        "settings": {"seed": 0},
    }
    summary = summarise([run_of(description, records)])
    assert set(summary["weights"]) == {"random (seed 0)"}
    rows = summary.set_index("metric")
    assert rows.loc["tdd", ["mean", "n", "undefined"]].tolist() == [pytest.approx(0.3), 3, 0]
    assert rows.loc["stability", ["mean", "n", "undefined"]].tolist() == [pytest.approx(0.6), 2, 1]
