"""Methods of one's own that write where they must not: the others' rows are right, and theirs say what happened."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import segfaith
from segfaith import Method, Target
from segfaith.attribution import guard
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.randomisation import randomise
from segfaith.benchmark.runner import run
from segfaith.benchmark.settings import read_settings
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from segfaith.results.records.runs import load_run
from toys import SmallCNN, plain

SIZE = (20, 24)
OTHERS = ["gpa", "ria@grid=3", "random_cells@grid=3", "random_cells"]


def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((3, *SIZE), dtype=np.float32))


def target() -> Target:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[4:15, 3:18] = True
    return Target(1, region)


def evaluated(model: SegmentationModel, methods: list[str | Method]) -> pd.DataFrame:
    return segfaith.evaluate(model, image(), target(), methods, stability=True).drop(columns="runtime_s")


@pytest.fixture(scope="module")
def undisturbed() -> pd.DataFrame:
    return evaluated(plain(SmallCNN(), layer="backbone.4"), OTHERS)


def state(model: SegmentationModel) -> list[Any]:
    """All that a method could have left on a model."""
    module = model.module
    values = [(name, value.dtype, value.tolist()) for name, value in module.state_dict().items()]
    flags = [(name, one.training, len(one._forward_hooks), sorted(vars(one))) for name, one in module.named_modules()]
    gradients = [(name, one.requires_grad, one.grad is None, id(one)) for name, one in module.named_parameters()]
    return [values, flags, gradients, model.mean, model.std, model.incremental, id(module)]


Act = Callable[[SegmentationModel, Tensor, Target], Any]


def acting(act: Act) -> Method:
    def combine(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        act(model, image, target)
        return image.mean(0)

    return Method("own", "here", ("model",), combine)


def zeroed(model: SegmentationModel, image: Tensor, target: Target) -> None:
    with torch.no_grad():
        model.module.head.weight.zero_()


def swapped(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.head.weight.data = model.module.head.weight.data * 2


def resized(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.head.weight.data = torch.zeros(3, 12, 3, 3)


def trained(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.train()
    model.module(image[None])


def halved(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.half()


def replaced(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.backbone[3] = nn.Conv2d(8, 12, 3, padding=1)


def raised(model: SegmentationModel, image: Tensor, target: Target) -> None:
    zeroed(model, image, target)
    raise RuntimeError("no map today")


def exited(model: SegmentationModel, image: Tensor, target: Target) -> None:
    zeroed(model, image, target)
    sys.exit(0)


FAILING: dict[str, tuple[Act, str]] = {
    "weights": (
        zeroed,
        r"method 'own' changed the model \(head.weight\), so its maps may belong to the changed model; ",
    ),
    "weights' memory": (swapped, r"changed the model \(head.weight\)"),
    "a weight's shape": (resized, r"changed the model \(head.weight\)"),
    "buffers": (trained, r"changed the model \(backbone.1.running_mean, backbone.1.running_var, backbone.1.num_ba"),
    "types": (
        halved,
        r"changed the model \(backbone.1.running_mean, backbone.1.running_var, backbone.0.weight and",
    ),
    "modules": (replaced, r"changed the model \(backbone.3\)"),
    "weights before an error": (raised, "RuntimeError: no map today"),
    "the process": (exited, r"method 'own' called exit\(0\); expected a map"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_method_that_changes_the_model_fails_alone(name: str, undisturbed: pd.DataFrame) -> None:
    act, words = FAILING[name]
    model = plain(SmallCNN(), layer="backbone.4")
    before = state(model)
    rows = evaluated(model, [acting(act), *OTHERS])
    assert rows.loc["own", "status"] == "failed"
    assert pd.Series([rows.loc["own", "reason"]]).str.contains(words).all(), rows.loc["own", "reason"]
    pd.testing.assert_frame_equal(rows.loc[OTHERS], undisturbed.loc[OTHERS], rtol=0, atol=0, check_dtype=False)
    assert state(model) == before


def hooked(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.backbone[1].register_forward_hook(lambda module, inputs, output: output * 2)
    model.module.register_forward_pre_hook(lambda module, inputs: inputs[0] * 0)


def patched(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.head.forward = lambda x: torch.zeros(len(x), 3, *x.shape[2:])


def flagged(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.module.train()
    model.module.head.requires_grad_(False)
    with model.evaluating():
        model.logits(image[None])[0, 1].sum().backward()


def renamed(model: SegmentationModel, image: Tensor, target: Target) -> None:
    model.mean, model.incremental, model.module = (0.5, 0.5, 0.5), False, SmallCNN(seed=1)


def normalised(model: SegmentationModel, image: Tensor, target: Target) -> None:
    for one in model._normalisation[1]:
        one.add_(0.5)


def written(model: SegmentationModel, image: Tensor, target: Target) -> None:
    image.zero_()
    target.region.fill_(True)


SILENT: dict[str, Act] = {one.__name__: one for one in [hooked, patched, flagged, renamed, normalised, written]}


@pytest.mark.parametrize("name", SILENT)
def test_what_else_a_method_leaves_behind_is_put_back(name: str, undisturbed: pd.DataFrame) -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    model.module.backbone[0].requires_grad_(False)
    before = state(model)
    rows = evaluated(model, [acting(SILENT[name]), *OTHERS])
    assert rows.loc["own", "status"] == "ok"
    pd.testing.assert_frame_equal(rows.loc[OTHERS], undisturbed.loc[OTHERS], rtol=0, atol=0, check_dtype=False)
    assert state(model) == before


def test_gradients_of_the_callers_own_keep_their_values() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    model.module.head.bias.grad = torch.tensor([1.0, 2.0, 3.0])
    segfaith.explain(model, image(), target(), [acting(flagged)])
    assert model.module.head.bias.grad.tolist() == [1, 2, 3]


def test_a_method_cannot_write_into_shared_evidence(undisturbed: pd.DataFrame) -> None:
    def combine(gradient: Any, intervention: Any, region: Tensor, partition: Tensor) -> Tensor:
        heatmap = intervention.drop.mean().sigmoid() * region.float()
        for tensor in (
            gradient.activation,
            gradient.gradient,
            intervention.drop,
            intervention.value,
            region,
            partition,
        ):
            tensor.zero_()
        intervention.regions.zero_()
        return heatmap

    needs = ("gradient", "intervention", "region", "partition")
    own = Method("own", "here", needs, combine)
    rows = evaluated(plain(SmallCNN(), layer="backbone.4"), [own, "ria", *OTHERS, "mask"])
    expected = evaluated(plain(SmallCNN(), layer="backbone.4"), ["ria", *OTHERS, "mask"])
    assert rows.loc["own", "status"] == "ok"
    others = rows.loc[expected.index]  # another method changes the size of a batch, and so a score's last digit
    pd.testing.assert_frame_equal(others, expected, rtol=0, atol=1e-7, check_dtype=False)


def test_a_map_is_what_was_returned_and_not_what_became_of_it() -> None:
    """One tensor for all maps, which each call overwrites; arrays that run backwards."""
    kept = torch.zeros(SIZE)

    def reused(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return kept.copy_(image.mean(0))

    def mirrored(model: SegmentationModel, image: Tensor, target: Target) -> np.ndarray:
        return image.mean(0).flip(-1).numpy()[:, ::-1]

    methods = [Method(one.__name__, "here", ("model",), one) for one in (reused, mirrored)]
    rows = evaluated(plain(SmallCNN(), layer="backbone.4"), [acting(lambda *given: None), *methods])
    for name in ("reused", "mirrored"):
        pd.testing.assert_series_equal(rows.loc[name], rows.loc["own"], check_names=False)


def test_global_state_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(model: SegmentationModel, image: Tensor, target: Target) -> None:
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_float32_matmul_precision("medium")
        torch.set_autocast_enabled("cpu", True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        torch.backends.mkldnn.enabled = False
        torch.backends.cudnn.enabled = False
        torch.backends.cudnn.benchmark = True
        os.chdir(tmp_path)

    monkeypatch.chdir(Path.cwd())  # and back, whatever happens here
    before = {name: read() for name, (read, _) in guard.GLOBAL_STATE.items()}
    try:
        segfaith.explain(plain(SmallCNN()), image(), target(), [acting(everything)])
        after = {name: read() for name, (read, _) in guard.GLOBAL_STATE.items()}
    finally:
        for name, (_, put_back) in guard.GLOBAL_STATE.items():
            put_back(before[name])
    assert after == before
    assert not torch.is_anomaly_enabled()
    assert torch.is_anomaly_check_nan_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled
    assert not torch.backends.cudnn.benchmark
    assert len(before) == 12


def test_explain_says_that_a_method_changed_the_model() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    before = state(model)
    with pytest.raises(SampleError, match=r"method 'own' changed the model \(head.weight\)"):
        segfaith.explain(model, image(), target(), ["gpa", acting(zeroed)])
    assert state(model) == before


def test_weights_that_are_nan_are_not_a_change() -> None:
    model = plain(SmallCNN(), layer="backbone.4")
    model.module.register_buffer("unused", torch.tensor([float("nan"), 1.0]))
    assert "own" in segfaith.explain(model, image(), target(), [acting(lambda *given: None)])


def test_a_models_own_lazy_settings_come_back_whole() -> None:
    """What a model builds in its first pass, within a method, is built again later: no half of it stays."""

    class Lazy(SmallCNN):
        ready = False

        def forward(self, x: Tensor) -> Any:
            if not self.ready:
                self.ready = True
                self.backbone.register_forward_hook(lambda module, inputs, output: self.kept.append(output))
            self.kept: list[Tensor] = []
            super().forward(x)
            return self.head(self.kept[0])

    model = plain(Lazy(), layer="backbone.4")
    maps = segfaith.explain(model, image(), target(), [acting(lambda model, image, target: model.logits(image[None]))])
    assert set(maps) == {"own"}
    expected = plain(SmallCNN()).logits(image()[None])
    torch.testing.assert_close(model.logits(image()[None]), expected)


def test_the_guards_time_is_not_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = guard._kept

    def slow(model: SegmentationModel) -> Any:
        time.sleep(0.5)
        return kept(model)

    monkeypatch.setattr(guard, "_kept", slow)
    rows = segfaith.evaluate(plain(SmallCNN(), layer="backbone.4"), image(), target(), [acting(lambda *given: None)])
    assert rows.loc["own", "runtime_s"] < 0.4


def test_built_in_methods_and_ready_maps_are_not_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_kept", None)
    model = plain(SmallCNN(), layer="backbone.4")
    segfaith.evaluate(model, image(), target())
    segfaith.evaluate(model, image(), target(), {"theirs": image()[0]})


SETTINGS = """
name = "guarded"
[data]
name = "scenes"
n = 1
size = 64
[model]
name = "scenes"
[methods]
names = ["own.py:explain", "gpa"]
[evaluation]
stability = false
"""


def test_a_run_and_its_randomisation_are_guarded(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def explain(model, image, target):\n"
        "    for weight in model.module.parameters():\n"
        "        weight.data += 1\n"
        "    return image.mean(0)\n",
        encoding="utf-8",
    )
    found = {}
    for number, names in enumerate(('["own.py:explain", "gpa"]', '["gpa"]')):
        file = tmp_path / "settings.toml"
        file.write_text(SETTINGS.replace('["own.py:explain", "gpa"]', names), encoding="utf-8")
        prepared = prepare(read_settings(file))
        rows = load_run(run(prepared, tmp_path / str(number))).records.set_index("method")
        stages = pd.read_parquet(randomise(prepared, tmp_path / str(number), 1)).set_index("method")
        found[number] = rows.loc["gpa", "tdd"], stages.loc["gpa", "pearson"].tolist()
        if not number:
            assert "changed the model (" in rows.loc["own.py:explain", "reason"]
            assert stages.loc["own.py:explain", "reason"].str.contains("changed the model").all()
    assert found[0] == found[1]
    assert len(found[0][1]) > 2
