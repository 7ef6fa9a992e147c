"""Sobol: its formula by a loop, scores whose indices are known, and what it refuses."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from SALib.analyze.sobol import analyze
from SALib.sample.sobol import sample
from torch import Tensor, nn
from typer.testing import CliRunner

import segfaith
from segfaith import Target
from segfaith.attribution.methods import DEFAULT_METHODS, resolve_method
from segfaith.attribution.sobol import _total_order, sobol
from segfaith.batching import BatchSize
from segfaith.benchmark.settings import read_settings
from segfaith.cli import app
from segfaith.errors import SampleError, SettingsError
from segfaith.halves import Wiring
from segfaith.models.segmentation import SegmentationModel
from toys import SmallCNN, plain

SIZE = (21, 26)


class Weighed(nn.Module):
    """Of every pixel the logits of two classes: half of sum_p w_p x_p, negative and positive; x of one channel."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        total = (x[:, :1] * self.weights).sum((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])
        return torch.cat([-total / 2, total / 2], 1)


def given() -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(0).random((3, *SIZE), dtype=np.float32))
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[2:12, 3:15] = True
    return image, Target(1, region)


def found(
    model: SegmentationModel, image: Tensor, target: Target, batch: int = 4, seed: int = 3, **options: Any
) -> Any:
    options = {"grid": 3, "samples": 4, "fill": "zero"} | options
    return sobol(model, image, target, BatchSize(batch), np.random.default_rng(seed), **options).numpy()


def places(grid: int) -> list[tuple[int, int, int, int]]:
    """First and last rows and columns of each cell."""
    rows, columns = ([i * side // grid for i in range(grid + 1)] for side in SIZE)
    return [(rows[i], rows[i + 1], columns[j], columns[j + 1]) for i in range(grid) for j in range(grid)]


def by_loop(model: SegmentationModel, image: Tensor, target: Target, grid: int, samples: int) -> np.ndarray:
    """Jansen's estimator, from the same design and one pass for each of its rows."""
    inputs = grid**2
    problem = {"num_vars": inputs, "names": list(map(str, range(inputs))), "bounds": [[0, 1]] * inputs}
    design = sample(problem, samples, calc_second_order=False, seed=np.random.default_rng(3))
    scores = []
    for row in design:
        seen = image.clone()
        for value, (top, bottom, left, right) in zip(row, places(grid), strict=True):
            seen[:, top:bottom, left:right] *= value
        with torch.no_grad():
            p = model.logits(seen[None]).softmax(1)[0, target.class_index][target.region].double()
        scores.append(float(p.sum()) / (int(target.region.sum()) + 1e-6))
    firsts = scores[:: inputs + 2]
    lasts = scores[inputs + 1 :: inputs + 2]
    mean = sum(firsts + lasts) / (2 * samples)
    variance = sum((one - mean) ** 2 for one in firsts + lasts) / (2 * samples)
    heatmap = np.zeros(SIZE)
    for cell, (top, bottom, left, right) in enumerate(places(grid)):
        swapped = scores[cell + 1 :: inputs + 2]
        total = sum((one - other) ** 2 for one, other in zip(firsts, swapped, strict=True))
        heatmap[top:bottom, left:right] = total / (2 * samples) / variance
    return heatmap


@pytest.mark.parametrize("batch", [1, 5])
def test_sobol_is_its_formula(batch: int) -> None:
    image, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    ours = found(model, image, target, batch)
    expected = by_loop(model, image, target, 3, 4)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_of_a_sum_the_index_is_the_share_of_the_variance() -> None:
    """The margin is sum_i c_i m_i, m_i uniform, so S_Ti = c_i^2 / sum_j c_j^2 exactly; two cells count for nothing."""
    effects = np.array([2.0, 0.0, 1.0, -2.0, 0.5, 0.0, 1.0, 0.0, -1.0])
    weights = torch.zeros(SIZE)
    for effect, (top, bottom, left, right) in zip(effects, places(3), strict=True):
        weights[top:bottom, left:right] = effect / ((bottom - top) * (right - left))
    _, target = given()
    target = Target(1, target.region, score="margin")
    heatmap = found(plain(Weighed(weights)), torch.ones(3, *SIZE), target, 16, samples=512)
    got = np.array([heatmap[top, left] for top, _, left, _ in places(3)])
    np.testing.assert_allclose(got, effects**2 / (effects**2).sum(), atol=0.02)
    assert got[effects == 0].max() < 1e-9
    for value, (top, bottom, left, right) in zip(got, places(3), strict=True):
        assert (heatmap[top:bottom, left:right] == value).all()


@pytest.mark.parametrize("gain", [0.0, 1e-9])
def test_a_score_that_does_not_vary_gives_zeros_without_a_warning(gain: float) -> None:
    _, target = given()
    model = plain(Weighed(torch.full(SIZE, gain)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (found(model, torch.ones(3, *SIZE), target) == 0).all()
    rows = segfaith.evaluate(model, torch.ones(3, *SIZE), target, ["sobol@grid=2,samples=2"])
    assert bool(rows.loc["sobol@grid=2,samples=2", "degenerate"])


def test_resamples_of_equal_scores_do_not_warn() -> None:
    """SALib draws the rows of its resamples by a seed of its own; only rows that it leaves out differ here."""
    drawn = np.random.default_rng(1).integers(8, size=(8, 2))
    (left_out, *_) = set(range(8)) - set(drawn.ravel().tolist())
    scores = np.zeros((8, 4))
    scores[left_out, 0] = scores[left_out, 1] = 1.0
    problem = {"num_vars": 2, "names": ["a", "b"], "bounds": [[0, 1]] * 2}
    with pytest.warns(UserWarning, match="Constant values encountered"):
        analyze(problem, scores.ravel(), calc_second_order=False, num_resamples=2, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _total_order(problem, scores)
    np.testing.assert_allclose(found, [0, 1 / 16 / (1 / 16 - 1 / 256)], atol=1e-12)


def test_the_fill_is_what_hidden_cells_show() -> None:
    image = torch.full((3, *SIZE), 0.5)
    _, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    assert not found(model, image, target, fill="mean").any()
    assert found(model, image, target, fill="zero").any()


def test_sobol_repeats_with_the_seed() -> None:
    image, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    name = "sobol@grid=4,samples=2"
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    maps = [segfaith.explain(model, image, target, [name], seed=seed)[name] for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2], atol=1e-2)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_what_it_cannot_explain_is_refused() -> None:
    image, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    with pytest.raises(SampleError, match="the cells of grid = 22 are more than the image, 21 x 26, has rows"):
        found(model, image, target, grid=22)
    model.wiring = Wiring(1.0)
    with pytest.raises(SampleError, match="a mask would run across both of wired photographs; use ria"):
        found(model, image, target)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("samples=6", "parameter samples: .*expected a power of 2, as Sobol sequences need, got 6"),
        ("samples=0", "parameter samples: Input should be greater"),
        ("grid=103", "parameter grid: Input should be less than or equal to 102"),
        ("cells=7", "parameter cells: unknown.*; it has grid, samples, fill"),
    ],
)
def test_parameters_out_of_range_are_refused(parameter: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        resolve_method(f"sobol@{parameter}", {})


def test_the_largest_grid_has_a_sequence() -> None:
    """Two numbers for each cell."""
    from scipy.stats import qmc

    assert 2 * 102**2 <= qmc.Sobol.MAXDIM < 2 * 103**2


def test_without_salib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfaith.attribution.libraries.entry.find_spec", lambda module: None)
    words = "SALib is not installed; install it with: pip install 'segfaith[sobol]'"
    with pytest.raises(SettingsError, match=r"method 'sobol@grid=3': SALib is not installed.*\[sobol\]"):
        resolve_method("sobol@grid=3", {})
    lines = CliRunner().invoke(app, ["list", "methods"]).output.splitlines()
    (line,) = [line for line in lines if line.split()[0] == "sobol"]
    assert line.endswith(f"Fel et al. 2021; needs no gradients; not available: {words}")


def test_it_has_a_table_and_a_cost_and_is_no_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[data]\nname = "scenes"\n[model]\nname = "scenes"\n[methods]\nnames = ["sobol"]\nsobol = { grid = 5 }\n'
    )
    settings = read_settings(file, ["methods.sobol.samples=4"])
    assert resolve_method("sobol", settings.methods.tables()).options == {"grid": 5, "samples": 4, "fill": "mean"}
    printed = CliRunner().invoke(app, ["list", "methods", str(file)]).output
    assert "Fel et al. 2021; needs no gradients; 217 passes\n" in printed  # 8 (25 + 2) + 1
    assert "sobol" not in DEFAULT_METHODS
