"""The randomisation check: what is shuffled, in which order, what comes back, and what it says of methods."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import segfaith
from folder_runs import content, make_project
from segfaith.benchmark import executors
from segfaith.benchmark.randomisation import cascade, parts, randomise
from segfaith.benchmark.settings import make_settings
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.results.records import load_run


class Headed(nn.Module):
    """A body of three layers, a head, and an auxiliary head on which the output does not depend."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)
        )
        self.head = nn.Conv2d(4, 3, 1)
        self.aux = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu())


def test_parts_go_from_the_head_to_the_first_layer() -> None:
    assert [name for name, _ in parts(Headed())] == ["aux", "head", "body.4", "body.2", "body.0"]
    assert [name for name, _ in parts(nn.Conv2d(3, 2, 1))] == ["model"]


def test_weights_of_the_root_itself_are_a_part_of_their_own() -> None:
    """As the position embedding of a transformer; every weight is in exactly one part."""
    module = Headed()
    module.position = nn.Parameter(torch.rand(5))
    found = parts(module)
    assert [name for name, _ in found] == ["aux", "head", "body.4", "body.2", "body.0", "model"]
    assert [key for key, _ in found[-1][1]] == ["position"]
    owned = [id(value) for _, values in found for _, value in values]
    assert sorted(owned) == sorted(id(value) for value in module.parameters())


def test_a_model_of_one_input_size_is_probed_at_that_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)
            self.position = nn.Parameter(torch.rand(1, 2, 12, 12))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.position

    with cascade(segfaith.wrap(Fixed(), layer="layer"), 0, 12) as stages:
        assert [part for _, part in stages] == ["", "layer", "model"]


def test_each_stage_shuffles_one_part_more_and_all_comes_back() -> None:
    module = Headed()
    model = segfaith.wrap(module, layer="body.4")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    changed = {}
    with cascade(model, 0) as stages:
        for stage, part in stages:
            now = module.state_dict()
            changed[stage, part] = {name for name in before if not torch.equal(now[name], before[name])}
            for name, value in now.items():
                assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values), "only shuffled"
    assert list(changed) == [(0, ""), (1, "head"), (2, "body.4"), (3, "body.2"), (4, "body.0")]
    assert changed[0, ""] == set()
    assert {"head.weight"} <= changed[1, "head"] <= {"head.weight", "head.bias", "aux.weight", "aux.bias"}
    assert {"head.weight", "body.4.weight", "body.2.weight", "body.0.weight"} <= changed[4, "body.0"]
    assert "body.0.weight" not in changed[3, "body.2"]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def failing(stages: Iterator[tuple[int, str]]) -> None:
    assert [next(stages), next(stages)][-1] == (1, "head")
    raise RuntimeError("in between")


def test_weights_come_back_when_a_stage_fails() -> None:
    module = Headed()
    before = module.head.weight.detach().clone()
    with pytest.raises(RuntimeError, match="in between"), cascade(segfaith.wrap(module, layer="body.4"), 0) as stages:
        failing(stages)
    assert torch.equal(module.head.weight, before)


def test_a_model_without_weights_is_refused() -> None:
    with (
        pytest.raises(SettingsError, match="has no weights, so there is nothing to shuffle"),
        cascade(segfaith.wrap(nn.Sequential(nn.AvgPool2d(1)), layer="0"), 0),
    ):
        pass


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = make_project(tmp_path_factory.mktemp("randomised"), samples=3)
    settings = make_settings(content(root, methods={"names": ["gpa", "ria", "mask", "random"]}))
    prepared = executors.prepare(settings)
    before = {name: value.clone() for name, value in prepared.model.module.state_dict().items()}
    directory = executors.run(prepared, root / "run")
    rows = pd.read_parquet(randomise(prepared, directory, 2))
    assert all(torch.equal(value, before[name]) for name, value in prepared.model.module.state_dict().items())
    return rows


def test_every_sample_method_and_stage_has_a_row(found: pd.DataFrame) -> None:
    stages = found["stage"].nunique()
    assert stages >= 3
    assert len(found) == 2 * 5 * stages
    assert not found.duplicated(["sample_id", "method", "stage"]).any()
    assert set(found["method"]) == {"gpa", "ria", "mask", "random", "random_cells"}


def test_maps_are_their_own_likeness_before_anything_is_shuffled(found: pd.DataFrame) -> None:
    first = found[(found["stage"] == 0) & (found["reason"] == "")]
    assert len(first)
    np.testing.assert_allclose(first[["pearson", "spearman"]], 1, atol=1e-9)


def test_controls_ignore_the_model_and_methods_do_not(found: pd.DataFrame) -> None:
    last = found[(found["stage"] == found["stage"].max()) & (found["reason"] == "")].groupby("method")["pearson"].mean()
    for control in ("mask", "random", "random_cells"):
        assert last[control] == pytest.approx(1, abs=1e-9), "the same draw, whatever the model"
    assert last["ria"] < 0.99


def test_the_verb_reads_the_run_directory(tmp_path: Path) -> None:
    """As a user calls it: the run says by itself what it was made of; nothing else in it changes."""
    root = make_project(tmp_path, samples=2)
    settings = content(root, methods={"names": ["gpa", "mask"]})
    directory = executors.run(make_settings(settings), root / "run")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    done = CliRunner().invoke(app, ["randomise", str(directory), "-n", "1"])
    assert done.exit_code == 0, done.output
    assert f"written: {directory / 'randomisation.parquet'}" in done.output
    assert {path: path.read_bytes() for path in before} == before
    data = load_run(directory)
    assert data.randomisation["sample_id"].nunique() == 1


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"it has no run\.json; make one with: segfaith run"):
        CliRunner().invoke(app, ["randomise", str(tmp_path)], catch_exceptions=False)
