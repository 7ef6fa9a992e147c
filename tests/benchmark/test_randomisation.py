"""The randomisation check: what is drawn anew, in which order, what comes back, and what it says of methods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import segfaith
from folder_runs import command, content, make_project
from segfaith.benchmark import randomisation, runner
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.randomisation import cascade, in_order, parts, randomise
from segfaith.benchmark.settings import make_settings
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.style import literal
from segfaith.results.records.runs import load_run, load_runs
from segfaith.results.report.blocks import Table
from segfaith.results.report.markdown import markdown
from segfaith.results.report.sections import randomisation as section
from segfaith.results.statistics import randomisation as checks
from segfaith.results.statistics.analysis import analyse


class Headed(nn.Module):
    """A head that is registered first, a body of three layers, and a head that is not called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Conv2d(4, 3, 1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)
        )
        self.aux = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu())


PROBE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def ordered(module: nn.Module) -> list[str]:
    return [name for name, _ in in_order(segfaith.wrap(module), PROBE)]


def test_parts_run_last_first_whatever_the_order_of_registration() -> None:
    assert [name for name, _ in parts(Headed())] == ["head", "body.0", "body.2", "body.4", "aux"]
    assert ordered(Headed()) == ["head", "body.4", "body.2", "body.0", "aux"]
    assert ordered(nn.Conv2d(3, 2, 1)) == ["model"]


def test_a_layer_that_runs_twice_counts_by_its_last_run() -> None:
    class Twice(Headed):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body[2](self.body(x).relu()))

    assert ordered(Twice()) == ["head", "body.2", "body.4", "body.0", "aux"]


def test_weights_of_the_root_itself_are_a_part_of_their_own_that_comes_after_what_is_in_it() -> None:
    """As the position embedding of a transformer; every weight is in exactly one part."""
    module = Headed()
    module.position = nn.Parameter(torch.rand(5))
    assert ordered(module) == ["head", "body.4", "body.2", "body.0", "model", "aux"]
    owned = [id(value) for _, owners in parts(module) for one in owners for value in one.parameters(recurse=False)]
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


def test_each_stage_draws_one_part_more_and_all_comes_back() -> None:
    module = Headed().train()
    model = segfaith.wrap(module, layer="body.4")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    changed = {}
    with cascade(model, 0) as stages:
        for stage, part in stages:
            now = module.state_dict()
            changed[stage, part] = {name for name in before if not torch.equal(now[name], before[name])}
    body = {number: {f"body.{number}.weight", f"body.{number}.bias"} for number in (0, 2, 4)}
    head = {"head.weight", "head.bias"}
    assert changed == {
        (0, ""): set(),
        (1, "head"): head,
        (2, "body.4"): head | body[4],
        (3, "body.2"): head | body[4] | body[2],
        (4, "body.0"): head | body[4] | body[2] | body[0],
    }
    assert_as_it_was(module, before)


def assert_as_it_was(module: nn.Module, before: dict[str, Tensor]) -> None:
    """Weights, train flags, no hooks, no gradients."""
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    for one in module.modules():
        assert one.training
        assert not one._forward_pre_hooks
    for value in module.parameters():
        assert value.requires_grad
        assert value.grad is None


def test_weights_are_drawn_anew_with_their_own_mean_and_deviation() -> None:
    """Not permuted; the same seed gives the same ones, another seed others."""
    layer = nn.Conv2d(3, 64, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.rand_like(layer.weight) ** 4 + 1)
    before = layer.weight.detach().clone()

    def drawn(seed: int) -> Tensor:
        with cascade(segfaith.wrap(layer), seed, 16) as stages:
            assert list(stages) == [(0, ""), (1, "model")]
            return layer.weight.detach().clone()

    now = drawn(0)
    assert not torch.equal(now.flatten().sort().values, before.flatten().sort().values)
    assert float(now.mean()) == pytest.approx(float(before.mean()), abs=0.02)
    assert float(now.std()) == pytest.approx(float(before.std()), rel=0.05)
    assert abs(np.corrcoef(now.flatten().numpy(), before.flatten().numpy())[0, 1]) < 0.05
    assert torch.equal(drawn(0), now)
    assert not torch.equal(drawn(1), now)
    assert torch.equal(layer.weight, before)


def test_fresh_tensors_of_one_value_become_weights_but_fresh_biases_and_scales_stay() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 64, 3), nn.Conv2d(64, 1, 1))
    with torch.no_grad():
        module[0].bias.zero_()
        module[2].weight.fill_(0.1)
        module[3].bias.fill_(0.7)
    with cascade(segfaith.wrap(module), 0, 16) as stages:
        assert len(list(stages)) > 1
        assert not module[0].bias.any()
        assert bool((module[1].weight == 1).all())
        assert not module[1].bias.any()
        weight = module[2].weight.detach()
        assert float(weight.std()) == pytest.approx((8 * 9) ** -0.5, rel=0.05)
        assert float(weight.mean()) == pytest.approx(0.1, abs=0.01)
        assert module[3].bias.item() == pytest.approx(0.7)
        assert bool(module[1].running_var.eq(1).all())


def test_tied_weights_are_drawn_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.Conv2d(3, 3, 1, bias=False))
    module[2].weight = module[0].weight
    with cascade(segfaith.wrap(module), 0, 16) as stages:
        assert list(stages) == [(0, ""), (1, "2")], "nothing is left for the first layer"
    assert module[2].weight is module[0].weight


def failing(stages: Iterator[tuple[int, str]]) -> None:
    assert [next(stages), next(stages)][-1] == (1, "head")
    raise RuntimeError("in between")


def test_weights_come_back_when_a_stage_fails() -> None:
    module = Headed().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RuntimeError, match="in between"), cascade(segfaith.wrap(module, layer="body.4"), 0) as stages:
        failing(stages)
    assert_as_it_was(module, before)


def test_hooks_go_when_the_probe_fails() -> None:
    module = Headed().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RuntimeError, match="channels"):
        in_order(segfaith.wrap(nn.Sequential(module, nn.Conv2d(9, 1, 1))), PROBE)
    assert_as_it_was(module, before)


def test_a_model_without_weights_is_refused() -> None:
    with (
        pytest.raises(SettingsError, match="has no floating-point weights, so there is nothing to draw anew"),
        cascade(segfaith.wrap(nn.Sequential(nn.AvgPool2d(1)), layer="0"), 0),
    ):
        pass


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = make_project(tmp_path_factory.mktemp("randomised"), samples=3)
    settings = make_settings(content(root, methods={"names": ["gpa", "ria", "mask", "random"]}))
    prepared = prepare(settings)
    before = {name: value.clone() for name, value in prepared.model.module.state_dict().items()}
    directory = runner.run(prepared, root / "run")
    rows = pd.read_parquet(randomise(prepared, directory, 2))
    assert all(torch.equal(value, before[name]) for name, value in prepared.model.module.state_dict().items())
    return rows


def test_every_sample_method_and_stage_has_a_row(found: pd.DataFrame) -> None:
    stages = found["stage"].nunique()
    assert stages >= 3
    assert len(found) == 2 * 6 * stages
    assert not found.duplicated(["sample_id", "method", "stage"]).any()
    assert set(found["method"]) == {"gpa", "ria", "mask", "random", "random_cells", "gamed"}


def test_maps_are_their_own_likeness_before_anything_is_drawn(found: pd.DataFrame) -> None:
    first = found[(found["stage"] == 0) & (found["reason"] == "")]
    assert len(first)
    np.testing.assert_allclose(first[["pearson", "spearman"]], 1, atol=1e-9)


def test_controls_ignore_the_model_and_methods_do_not(found: pd.DataFrame) -> None:
    last = found[(found["stage"] == found["stage"].max()) & (found["reason"] == "")].groupby("method")["pearson"].mean()
    for control in ("mask", "random", "random_cells"):
        assert last[control] == pytest.approx(1, abs=1e-9), "the same draw, whatever the model"


def test_maps_of_a_trained_model_lose_their_likeness_and_it_loses_the_class(tmp_path: Path) -> None:
    """The embedded model, which is proven to decide by what is planted."""
    settings = {
        "data": {"name": "scenes", "ids": ["val-0000", "val-0001"]},
        "model": {"name": "scenes"},
        "methods": {"names": ["gpa", "ria", "mask"], "ria": {"grid": 4}},
    }
    prepared = prepare(make_settings(settings))
    runner.open_directory(tmp_path, prepared)
    rows = pd.read_parquet(randomise(prepared, tmp_path, 2))
    assert (rows["status"] == "ok").all()
    first, last = (rows[rows["stage"] == stage] for stage in (0, rows["stage"].max()))
    assert rows.loc[rows["stage"] == 1, "part"].unique().tolist() == ["classifier"]
    assert last["part"].unique().tolist() == ["backbone.low"]
    assert first["s"].min() > 0.8
    assert last["s"].max() < 0.3
    means = last.groupby("method")[["pearson", "spearman"]].mean()
    assert (means.loc[["gpa", "ria"]] < 0.6).all(axis=None)
    assert (means.loc[["mask", "random_cells"]] > 1 - 1e-9).all(axis=None)


def test_constant_maps_are_rows_that_say_so_and_are_counted(tmp_path: Path) -> None:
    root = make_project(tmp_path, samples=2)
    (root / "flat.py").write_text("def flat(model, image, target):\n    return image[0] * 0\n")
    names = [f"{root}/flat.py:flat", "mask"]
    prepared = prepare(make_settings(content(root, methods={"names": names})))
    directory = runner.run(prepared, root / "run")
    rows = pd.read_parquet(randomise(prepared, directory, 2))
    flat = rows[rows["method"].str.endswith("flat")]
    assert set(flat["status"]) == {"ok"}
    assert flat["spearman"].isna().all()
    assert set(flat["reason"]) == {"this map or the trained model's is constant"}
    table = checks.randomisation([load_run(directory)]).set_index("method")
    assert (table.loc[flat["method"].iloc[0], ["n", "constant"]] == [0, 2]).all(axis=None)
    assert (table.loc["mask", ["n", "constant"]] == [2, 0]).all(axis=None)
    text = markdown([section.section(analyse([load_run(directory)]))])
    lines = [line for line in text.splitlines() if "flat.py:flat |" in line]
    assert len(lines) == rows["stage"].nunique()
    assert all(line.endswith("| 0 | 2 | 0 |") for line in lines), "n, constant and failed"


def test_the_stages_that_were_done_outlive_ctrl_c_and_reports_say_that_others_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project(tmp_path, samples=2)
    directory = runner.run(make_settings(content(root, methods={"names": ["mask"]})), root / "run")
    assert command(monkeypatch, "randomise", directory, "-n", "2", "--allow-code", f"{root}/tiny.py:build") == 0
    before = load_run(directory).randomisation
    calls, real = [], randomisation._maps

    def stop(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2 * 2 + 2:  # in the third stage of two samples
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(randomisation, "_maps", stop)
    assert command(monkeypatch, "randomise", directory, "-n", "2", "--allow-code", f"{root}/tiny.py:build") == 130
    assert "Stopped in run: the stages that were done are in its" in capsys.readouterr().err
    data = load_run(directory)
    two = before[before["stage"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(data.randomisation.drop(columns="finished"), two.drop(columns="finished"))
    assert before["finished"].all()
    assert not data.randomisation["finished"].any()
    sentence = "run: the randomisation check was stopped after stage 1; the later parts were not drawn anew"
    assert sentence in markdown([section.section(analyse([data]))])


def test_what_must_be_known_of_a_layer_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the check, and by the report with and without its notes on the runs."""
    root = make_project(tmp_path, samples=2)
    for seed in (0, 1):
        settings = content(root, seed=seed, data={"n": 1}, methods={"names": ["gpa"]}, model={"layer": None})
        runner.run(make_settings(settings), root / "suite" / f"a-{seed}")
    note = "backbone: chosen by segfaith: the deepest map before the head"
    capsys.readouterr()
    assert command(monkeypatch, "randomise", root / "suite", "-n", "1", "--allow-code", f"{root}/tiny.py:build") == 0
    assert " ".join(capsys.readouterr().err.split()).count(f"layer {note}") == 1
    for more in ([], ["--verbose"]):
        assert command(monkeypatch, "report", root / "suite", *more) == 0
        assert " ".join(capsys.readouterr().out.split()).count(f"tiny.py:build, layer {note}.") == 1


def test_a_suite_is_checked_run_by_run_and_told_apart_by_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs of one model and one with other weights; what cannot be checked does not stop the others."""
    root = make_project(tmp_path, samples=3)
    state = torch.load(root / "tiny.pth", weights_only=True)  # the very weights that `build` gives: no run of its own
    torch.save(
        {name: value * 1.01 if value.is_floating_point() else value for name, value in state.items()}, root / "tiny.pth"
    )
    for name, weights, seed in (("a-0", None, 0), ("a-1", None, 1), ("b-0", f"{root}/tiny.pth", 0)):
        settings = content(root, seed=seed, data={"n": 2}, methods={"names": ["mask"]}, model={"weights": weights})
        runner.run(make_settings(settings), root / "suite" / name)
    assert command(monkeypatch, "randomise", root / "suite", "-n", "1", "--allow-code", f"{root}/tiny.py:build") == 0
    assert "3 of 3 runs were checked" in capsys.readouterr().out
    data = load_runs([root / "suite"])
    table = checks.randomisation(data)
    counts = table[(table["stage"] == 0) & (table["method"] == "mask")].set_index("model")["n"].to_dict()
    assert counts == {"tiny.py:build, as built by build": 2, "tiny.py:build, tiny.pth": 1}
    assert table["s"].between(0, 1).all()
    assert not table.duplicated(["model", "method", "stage"]).any()

    (shown,) = [block for block in section.section(analyse(data)).blocks() if isinstance(block, Table)]
    assert {row[1].text for row in shown.rows} == set(counts)
    figure = DRAWINGS["randomisation"](analyse(data).parts[0]).figure
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [literal(one) for one in counts]

    (root / "tiny.pth").unlink()
    assert command(monkeypatch, "randomise", root / "suite", "-n", "1", "--allow-code", f"{root}/tiny.py:build") == 1
    output = capsys.readouterr().out
    assert "failed: b-0: " in output
    assert "2 of 3 runs were checked" in output


def test_the_verb_reads_the_run_directory(tmp_path: Path) -> None:
    """As a user calls it: the run says by itself what it was made of; nothing else in it changes."""
    root = make_project(tmp_path, samples=2)
    settings = content(root, methods={"names": ["gpa", "mask"]})
    directory = runner.run(make_settings(settings), root / "run")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    done = CliRunner().invoke(app, ["randomise", str(directory), "-n", "1", "--allow-code", f"{root}/tiny.py:build"])
    assert done.exit_code == 0, done.output
    assert f"written: {directory / 'randomisation.parquet'}" in done.output
    assert {path: path.read_bytes() for path in before} == before
    data = load_run(directory)
    assert data.randomisation["sample_id"].nunique() == 1


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"it has no run\.json; make one with: segfaith run"):
        CliRunner().invoke(app, ["randomise", str(tmp_path)], catch_exceptions=False)
