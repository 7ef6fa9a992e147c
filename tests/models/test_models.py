"""Models: what counts as logits, where weights and functions come from, and that a model comes back as it was."""

import copy
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import fcn_resnet50

import segfaith
from segfaith import Target, load_model, wrap
from segfaith.batching import BatchSize
from segfaith.errors import SampleError, SettingsError
from segfaith.evidence.gradient import forward_pass, gradient_evidence
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.layer import check_layer
from segfaith.evidence.regions import Regions
from segfaith.models import MODELS
from segfaith.models.probe import probe
from segfaith.models.segmentation import SegmentationModel
from segfaith.models.weights import state_digest
from segfaith.perturbation import clean_variant
from segfaith.scores import Scalar
from servers import FileServer, serve, unreachable_url
from toys import PixelScorer, SmallCNN, plain

SMALL = "lraspp_mobilenet_v3_large"


class Returns(nn.Module):
    """Returns `output` whatever comes in, and keeps its last input."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        self.seen = x
        return self.output


class ModelOutput(OrderedDict):
    """An ordered dict whose items are attributes too, and whose iteration gives keys."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def random_image(size: int = 28, seed: int = 0) -> Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def block_target(size: int = 28, class_index: int = 1) -> Target:
    region = torch.zeros(size, size, dtype=torch.bool)
    region[5:17, 8:21] = True
    return Target(class_index, region)


# Outputs


LOGITS = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS},
        {"aux": LOGITS + 1, "out": LOGITS},
        (LOGITS, torch.zeros(2)),
        [LOGITS],
        SimpleNamespace(logits=LOGITS),
        ModelOutput(loss=torch.tensor(0.0), logits=LOGITS, hidden_states=(LOGITS + 1,)),
        {"out": (None, LOGITS)},
        [{"out": LOGITS}],
        ((LOGITS.flatten(2), LOGITS), LOGITS[0]),
        SimpleNamespace(logits={"out": [LOGITS]}),
        {"masks": LOGITS, "scores": LOGITS.mean((2, 3))},
    ],
    ids=[
        "tensor",
        "dict",
        "dict with more",
        "tuple",
        "list",
        "object",
        "ModelOutput",
        "dict of tuple",
        "list of dict",
        "tuple of tuple",
        "object of dict",
        "dict of one map",
    ],
)
def test_forms_of_output(output: Any) -> None:
    logits = plain(Returns(output)).logits(torch.rand(2, 3, 4, 5))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, LOGITS)


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with align_corners=False, pixel by pixel: source = (i + 1/2) in / out - 1/2, clamped at the border."""
    height, width = values.shape
    result = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            above = values[top, left] * (1 - dx) + values[top, right] * dx
            below = values[bottom, left] * (1 - dx) + values[bottom, right] * dx
            result[i, j] = above * (1 - dy) + below * dy
    return result


@pytest.mark.parametrize("came", [(3, 2), (1, 1), (4, 9), (13, 12)])
def test_other_resolutions_are_resized_bilinearly(came: tuple[int, int], rng: np.random.Generator) -> None:
    output = rng.standard_normal((2, 3, *came)).astype(np.float32)
    logits = plain(Returns(torch.from_numpy(output))).logits(torch.rand(2, 3, 8, 6))
    assert logits.shape == (2, 3, 8, 6)
    for n in range(2):
        for c in range(3):
            assert np.allclose(logits[n, c].numpy(), bilinear(output[n, c], (8, 6)), atol=1e-5)


def test_one_channel_is_a_sigmoid_foreground() -> None:
    z = torch.tensor([[-2.0, 0.0], [1.5, 3.0]])
    logits = plain(Returns(z[None, None])).logits(torch.rand(1, 3, 2, 2))
    assert torch.equal(logits[0, 0], torch.zeros(2, 2))
    assert torch.equal(logits[0, 1], z)
    assert torch.allclose(logits.softmax(1)[0, 1], 1 / (1 + torch.exp(-z)), atol=1e-6)


def test_one_channel_of_lower_resolution() -> None:
    z = torch.tensor([[-2.0, 1.0]])
    logits = plain(Returns(z[None, None])).logits(torch.rand(1, 3, 1, 4))
    assert torch.equal(logits[0, 0], torch.zeros(1, 4))
    assert torch.allclose(logits[0, 1], torch.tensor([[-2.0, -1.25, 0.25, 1.0]]))


EXPECTED = r"expected floating-point logits \(2, classes, height, width\)"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3, 4, 5), r"returned torch\.float32 of shape \(3, 4, 5\); " + EXPECTED),
        (torch.zeros(2, 4, 5, dtype=torch.int64), r"returned torch\.int64 of shape \(2, 4, 5\); " + EXPECTED),
        (torch.zeros(2, 3, 4, 5, dtype=torch.int64), r"returned torch\.int64 of shape \(2, 3, 4, 5\); " + EXPECTED),
        (torch.zeros(1, 3, 4, 5), r"returned torch\.float32 of shape \(1, 3, 4, 5\); " + EXPECTED),
        ({"masks": LOGITS, "scores": LOGITS}, r"logits in a dict with keys \['masks', 'scores'\]; expected a tensor"),
        ((), "logits in a tuple; expected a tensor, a dict with 'out'"),
        (None, r"logits in a NoneType; .* or an object with \.logits"),
        ({"out": None}, "logits in a NoneType"),
        (np.zeros((2, 3, 4, 5)), "logits in a ndarray"),
    ],
)
def test_unusable_outputs_say_what_came(output: Any, message: str) -> None:
    model = wrap(Returns(output))
    with pytest.raises(SampleError, match=message):
        model.logits(torch.rand(2, 3, 4, 5))


# Normalisation and number types


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 2.0)}, (0.5, 0.4, 0.3), (0.25, 0.5, 2.0)),
        ({"mean": (0, 0, 0), "std": (1, 1, 1)}, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_normalisation_is_the_first_step(given: dict[str, Any], mean: tuple[float], std: tuple[float]) -> None:
    module = Returns(torch.zeros(1, 2, 4, 5))
    images = torch.rand(1, 3, 4, 5)
    before = images.clone()
    wrap(module, **given).logits(images)
    assert module.seen is not None
    for channel in range(3):
        expected = (before[0, channel].numpy() - mean[channel]) / std[channel]
        assert np.allclose(module.seen[0, channel].numpy(), expected, atol=1e-6)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "given",
    [{"mean": (0.5, 0.5), "std": (1, 1, 1)}, {"std": (1, 1, 1, 1)}, {"std": (1, 0, 1)}, {"std": (1, 1, -1)}],
    ids=["two means", "four stds", "std zero", "std negative"],
)
def test_normalisation_needs_three_numbers(given: dict[str, Any]) -> None:
    with pytest.raises(
        SettingsError, match=r"mean and std need (three values|2 value\(s\)) each, .*std above 0; got mean="
    ):
        wrap(Returns(None), **given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_module_gets_its_own_number_type_and_logits_are_float32(dtype: torch.dtype) -> None:
    module = PixelScorer().to(dtype)
    seen = []
    module.score.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    images = torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    logits = plain(module).logits(images)
    assert seen == [dtype]
    assert logits.dtype == torch.float32
    assert torch.allclose(logits[0, :, 0], torch.tensor([[0.0, 0.0], [-2.0, 2.0]]), atol=0.05)


def test_a_module_without_parameters_gets_float32() -> None:
    module = Returns(torch.zeros(1, 2, 4, 5))
    model = plain(module)
    model.logits(torch.rand(1, 3, 4, 5))
    assert module.seen is not None
    assert module.seen.dtype == torch.float32
    assert model.device == torch.device("cpu")


# Layers


def test_a_wrong_layer_name_lists_the_nearest_real_ones() -> None:
    with pytest.raises(SettingsError, match=r"SmallCNN has no layer 'backbone\.33'; the nearest are .*backbone\.3\b"):
        plain(SmallCNN(), layer="backbone.33")


def test_a_layer_name_that_resembles_nothing_lists_real_ones() -> None:
    with pytest.raises(SettingsError, match=r"no layer 'zzzz'; the nearest are .*backbone\.4, head"):
        plain(SmallCNN(), layer="zzzz")


def test_load_model_refuses_a_wrong_layer_name() -> None:
    with pytest.raises(SettingsError, match=r"has no layer 'backbone\.layer5'; the nearest are .*backbone\.1"):
        load_model(SMALL, weights="random", layer="backbone.layer5")


def test_a_layer_is_chosen_where_a_gradient_method_needs_one_and_none_is_named() -> None:
    model = plain(SmallCNN())
    segfaith.explain(model, random_image(), block_target(), ["ria@grid=2"])
    assert (model.layer, model.layer_notes) == (None, {})
    chosen = segfaith.explain(model, random_image(), block_target(), ["ega"])["ega"]
    assert model.layer == "backbone.2"
    assert model.layer_notes == {"backbone.2": "chosen by segfaith: the deepest map before the head"}
    named = segfaith.explain(plain(SmallCNN(), layer="backbone.2"), random_image(), block_target(), ["ega"])["ega"]
    assert torch.equal(chosen, named)


class Layers(nn.Module):
    """Feature layers that cannot be used, each for its own reason."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # some draws give outputs that look like probabilities, which is refused first
        self.twice = nn.Conv2d(3, 3, 1)
        self.never = nn.Conv2d(3, 3, 1)
        self.several = Several()
        self.flat = nn.Flatten()
        self.beside = nn.Conv2d(3, 3, 1)
        self.cut = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x))
        self.flat(x)
        self.beside(x)
        x = self.several(x)[0]
        return self.head(self.cut(x).detach() + x.detach())


class Several(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "layer 'twice' runs more than once in a forward pass; name a layer that runs once"),
        ("never", "layer 'never' did not run in Layers's forward pass; name another layer"),
        (
            "several",
            r"layer 'several' returns tuple of \(shape .*, shape .*\); expected a feature map \(N, channels, h, w\)",
        ),
        ("flat", r"layer 'flat' returns shape \(1, 2352\); expected a feature map \(N, channels, h, w\)"),
        ("beside", "the logits do not depend on layer 'beside'"),
        ("cut", "the logits do not depend on layer 'cut'"),
    ],
)
def test_layers_that_cannot_be_used(layer: str, message: str) -> None:
    module = Layers()
    model = plain(module, layer=layer)
    before = Snapshot(module)
    with pytest.raises(SettingsError, match=message):
        segfaith.explain(model, random_image(), block_target(), ["gpa"])
    before.compare()


def test_logits_without_any_gradient() -> None:
    module = Layers().requires_grad_(False)
    with pytest.raises(SettingsError, match="the logits do not depend on layer 'cut' through differentiable steps"):
        segfaith.explain(plain(module, layer="cut"), random_image(), block_target(), ["gpa"])


def evidence_by_hand(module: SmallCNN, last: int, image: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """F and dY/dF after `backbone[last]`, without hooks and without in-place steps; Y sums the logits in M."""
    own = copy.deepcopy(module).eval()
    for part in own.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    features = own.backbone[: last + 1](image[None]).detach().requires_grad_()
    z = own.head(own.backbone[last + 1 :](features))
    z = F.interpolate(z, size=image.shape[1:], mode="bilinear", align_corners=False)
    z[0, target.class_index][target.region].sum().backward()
    assert features.grad is not None
    return features.detach(), features.grad


@pytest.mark.parametrize("last", [0, 1, 2, 3, 4], ids=["conv", "norm, ReLU after it", "ReLU", "conv, ReLU", "ReLU"])
@pytest.mark.parametrize("frozen", [False, True])
def test_in_place_steps_around_the_feature_layer_change_nothing(last: int, frozen: bool) -> None:
    module = SmallCNN().requires_grad_(not frozen)
    image, target = random_image(), block_target()
    model = plain(module, layer=f"backbone.{last}")
    evidence, _, _ = gradient_evidence(model, image[None], target.region[None], Scalar(1), BatchSize(1))
    activation, gradient = evidence_by_hand(module, last, image, target)
    assert float(gradient.abs().max()) > 0.01
    assert torch.allclose(evidence.activation, activation, atol=1e-5)
    assert torch.allclose(evidence.gradient, gradient, atol=1e-5)
    before = model.logits(image[None]).detach()
    assert torch.equal(before, model.logits(image[None]).detach())


# A model comes back as it was


class Snapshot:
    """All that a caller can see of a module: train flags, requires_grad, gradients, tensors and hooks."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.flags = {name: part.training for name, part in module.named_modules()}
        self.parameters = {name: (one, one.requires_grad, one.grad) for name, one in module.named_parameters()}
        self.gradients = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
        self.state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self.hooks = hooks_of(module)

    def compare(self) -> None:
        assert {name: part.training for name, part in self.module.named_modules()} == self.flags
        now = dict(self.module.named_parameters())
        assert list(now) == list(self.parameters)
        for name, (parameter, requires_grad, gradient) in self.parameters.items():
            assert now[name] is parameter
            assert now[name].requires_grad == requires_grad
            assert now[name].grad is gradient
        for name, gradient in self.gradients.items():
            assert torch.equal(now[name].grad, gradient)
        state = self.module.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in self.state.items())
        assert hooks_of(self.module) == self.hooks


def hooks_of(module: nn.Module) -> dict[str, list[Any]]:
    return {
        f"{name}.{attribute}": list(value.values())
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if "hooks" in attribute and isinstance(value, dict)
    }


class Fragile(SmallCNN):
    """Fails at the named step of its n-th forward pass (counted from 0); never with n < 0."""

    def __init__(self, step: str = "", n: int = -1) -> None:
        super().__init__()
        self.step, self.n, self.passes = step, n, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        count, self.passes = self.passes, self.passes + 1
        if count == self.n and self.step == "start":
            raise RuntimeError("broken at the start")
        features = self.backbone(x)
        if count == self.n and self.step == "middle":
            raise RuntimeError("broken in the middle")
        return {"out": self.head(features)}


def used_module(step: str = "", n: int = -1) -> Fragile:
    """As a trainer leaves it: train flags mixed, a frozen part, a gradient here and none there, a hook of its own."""
    module = Fragile(step, n)
    module.train()
    module.backbone[3].eval()
    module.head.eval()
    module.backbone[0].weight.requires_grad_(False)
    module.head.weight.grad = torch.full_like(module.head.weight, 7.0)
    module.head.register_forward_hook(lambda *_: None)
    return module


def used_model(step: str = "", n: int = -1) -> SegmentationModel:
    """That module as a model that was put to the test already, as was its layer; its passes count from here."""
    model = plain(used_module(step), layer="backbone.3")
    probe(model, random_image(), 16)
    check_layer(model, "backbone.3", random_image())
    model.module.n, model.module.passes = n, 0
    return model


def run_logits(model: SegmentationModel) -> None:
    model.logits(random_image()[None])


def run_forward(model: SegmentationModel) -> None:
    forward_pass(model, random_image()[None], block_target().region[None], Scalar(1), BatchSize(2))


def run_gradient(model: SegmentationModel) -> None:
    gradient_evidence(model, random_image()[None], block_target().region[None], Scalar(1), BatchSize(2))


def run_intervention(model: SegmentationModel) -> None:
    variants = clean_variant(random_image(), block_target().region)
    score = torch.tensor([0.5], dtype=torch.float64)
    intervention_evidence(model, variants, Regions(2), score, Scalar(1), BatchSize(3), rng=np.random.default_rng)


def run_explain(model: SegmentationModel) -> None:
    segfaith.explain(model, random_image(), block_target(), ["gpa", "ega", "ria@grid=2"])


def run_evaluate(model: SegmentationModel) -> pd.DataFrame:
    return segfaith.evaluate(model, random_image(), block_target(), ["gpa", "ria@grid=2", "mask"], stability=True)


RAISE = [run_logits, run_forward, run_gradient, run_intervention, run_explain]


@pytest.mark.parametrize("use", [*RAISE, run_evaluate])
@pytest.mark.parametrize("recording", [True, False])
def test_a_model_comes_back_as_it_was(use: Callable[[SegmentationModel], Any], recording: bool) -> None:
    module = used_module()
    model = plain(module, layer="backbone.3")
    before = Snapshot(module)
    with torch.set_grad_enabled(recording):
        use(model)
        assert torch.is_grad_enabled() is recording
        assert not torch.is_inference_mode_enabled()
    assert module.passes > 0
    before.compare()


@pytest.mark.parametrize("use", RAISE)
@pytest.mark.parametrize("step", ["start", "middle"])
@pytest.mark.parametrize("recording", [True, False])
def test_a_model_comes_back_as_it_was_after_an_exception(
    use: Callable[[SegmentationModel], None], step: str, recording: bool
) -> None:
    """`middle` is after the feature layer, where the hook has switched recording on."""
    model = used_model(step, 0)
    module = model.module
    before = Snapshot(module)
    with torch.set_grad_enabled(recording):
        with pytest.raises(RuntimeError, match="broken"):
            use(model)
        assert torch.is_grad_enabled() is recording
        assert not torch.is_inference_mode_enabled()
    before.compare()


@pytest.mark.parametrize("n", [1, 3])
def test_a_model_comes_back_as_it_was_after_a_late_exception(n: int) -> None:
    """Pass 0 is the gradient evidence; the later ones are interventions."""
    model = used_model("middle", n)
    module = model.module
    before = Snapshot(module)
    with pytest.raises(RuntimeError, match="broken in the middle"):
        segfaith.explain(model, random_image(), block_target(), ["gpa", "ria@grid=2"], batch_size=1)
    assert torch.is_grad_enabled()
    before.compare()


@pytest.mark.parametrize("step", ["start", "middle"])
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize(("n", "method"), [(0, "gpa"), (1, "ria@grid=2"), (3, "ria@grid=2")])
def test_a_model_comes_back_as_it_was_after_an_exception_that_became_a_row(
    step: str, recording: bool, n: int, method: str
) -> None:
    """In `evaluate` a failed evidence fails the rows of the methods that need it, and no others."""
    model = used_model(step, n)
    module = model.module
    before = Snapshot(module)
    methods = ["gpa", "ria@grid=2", "mask"]
    with torch.set_grad_enabled(recording):
        frame = segfaith.evaluate(model, random_image(), block_target(), methods, batch_size=1)
        assert torch.is_grad_enabled() is recording
        assert not torch.is_inference_mode_enabled()
    failed = list(frame.index[frame["status"] == "failed"])
    assert failed == ([method, "gamed@grid=2"] if method == "ria@grid=2" else [method]), "gamed reads RIA's evidence"
    assert "broken" in frame.loc[method, "reason"]
    before.compare()


def test_a_model_comes_back_as_it_was_after_unusable_logits() -> None:
    module = SmallCNN()
    with torch.no_grad():
        module.head.bias.fill_(torch.nan)
    module.train()
    model = plain(module, layer="backbone.3")
    before = Snapshot(module)
    before.state.pop("head.bias")
    with pytest.raises(SampleError, match="logits that are NaN or infinite"):
        segfaith.explain(model, random_image(), block_target(), ["gpa"])
    before.compare()


def test_the_module_runs_in_evaluation_mode_whatever_its_flags() -> None:
    image = random_image()[None]
    module = SmallCNN()
    module.backbone[1].running_mean.fill_(0.3)
    expected = copy.deepcopy(module).eval()(image)["out"].detach()
    module.train()
    logits = plain(module).logits(image).detach()
    expected = F.interpolate(expected, size=(28, 28), mode="bilinear", align_corners=False)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert module.training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_explain_works_where_gradients_are_switched_off(mode: Callable[[], Any]) -> None:
    model = plain(SmallCNN(), layer="backbone.3")
    expected = segfaith.explain(model, random_image(), block_target(), ["gpa", "ega"])
    with mode():
        maps = segfaith.explain(model, random_image(), block_target(), ["gpa", "ega"])
    assert float(expected["gpa"].max()) == 1
    assert all(torch.equal(maps[name], expected[name]) for name in expected)


# Models by name


FEATURES = {
    "deeplabv3_resnet50": ("backbone.layer4", "out", (1, 2048, 28, 28)),
    "fcn_resnet50": ("backbone.layer4", "out", (1, 2048, 28, 28)),
    "lraspp_mobilenet_v3_large": ("backbone.16", "high", (1, 960, 14, 14)),
}


@pytest.fixture(scope="module", params=list(FEATURES))
def known(request: pytest.FixtureRequest) -> tuple[str, SegmentationModel, bool]:
    """A model by name with random weights, and whether torch's global generator was left alone."""
    torch.manual_seed(123)
    before = torch.get_rng_state()
    model = load_model(request.param, weights="random")
    return request.param, model, torch.equal(torch.get_rng_state(), before)


def test_the_table_holds_torchvisions_three_models_and_the_embedded_ones() -> None:
    assert set(MODELS) == {*FEATURES, "scenes", "scenes-unhidden"}


def test_known_models_with_random_weights_say_so(known: tuple[str, SegmentationModel, bool]) -> None:
    name, model, untouched = known
    assert untouched
    assert model.name == name
    assert model.weights == "random (seed 0)"
    assert "file_sha256" not in model.provenance
    assert model.mean == (0.485, 0.456, 0.406)
    assert model.std == (0.229, 0.224, 0.225)
    assert model.classes is not None
    assert (len(model.classes), model.classes[0], model.classes[15]) == (21, "background", "person")
    assert not any(part.training for part in model.module.modules())


def test_known_models_feature_layer_is_the_backbones_output(known: tuple[str, SegmentationModel, bool]) -> None:
    name, model, _ = known
    layer, output, shape = FEATURES[name]
    assert model.layer == layer
    seen: dict[str, Any] = {}
    handles = [
        model.module.get_submodule(model.layer).register_forward_hook(lambda _, __, out: seen.update(feature=out)),
        model.module.backbone.register_forward_hook(lambda _, __, out: seen.update(backbone=dict(out))),
    ]
    try:
        with torch.inference_mode():
            logits = model.logits(random_image(224)[None])
    finally:
        for handle in handles:
            handle.remove()
    assert logits.shape == (1, 21, 224, 224)
    assert seen["feature"].shape == shape
    assert float(seen["feature"].std()) > 0
    assert torch.equal(seen["feature"], seen["backbone"][output])


def test_random_weights_depend_on_the_seed_alone() -> None:
    digests = []
    for seed in (0, 0, 1):
        torch.rand(3)
        digests.append(load_model(SMALL, weights="random", seed=seed).provenance["state_sha256"])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_an_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown model 'deeplabv3_resnet51'; did you mean 'deeplabv3_resnet50'"):
        load_model("deeplabv3_resnet51", weights="random")


def test_arguments_of_a_known_model() -> None:
    model = load_model(SMALL, weights="random", args={"num_classes": 3}, classes=["sky", "sea", "land"])
    assert model.classes == ["sky", "sea", "land"]
    with torch.inference_mode():
        assert model.logits(random_image(64)[None]).shape == (1, 3, 64, 64)


# Weights from files


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Weights of the smallest known model that no seed used elsewhere gives."""
    return dict(load_model(SMALL, weights="random", seed=77).module.state_dict())


def holds(model: SegmentationModel, state: dict[str, Tensor]) -> bool:
    loaded = model.module.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("file", "pack"),
    [
        ("plain.pth", lambda state: state),
        ("plain.pt", lambda state: state),
        ("model.pth", lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}}),
        ("lightning.pth", lambda state: {"state_dict": state, "epoch": 3}),
        ("both.pth", lambda state: {"model": {"state_dict": state}}),
    ],
)
def test_weights_from_torch_files(
    file: str, pack: Callable[[dict[str, Tensor]], Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / file
    torch.save(pack(state), path)
    model = load_model(SMALL, weights=str(path))
    assert holds(model, state)
    assert model.weights == file
    assert model.provenance["file_sha256"] == sha256(path.read_bytes()).hexdigest()


def test_weights_from_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    model = load_model(SMALL, weights=path)
    assert holds(model, state)
    assert model.weights == "weights.safetensors"
    assert model.provenance["file_sha256"] == sha256(path.read_bytes()).hexdigest()


def test_the_state_digest_is_the_same_whatever_file_holds_it(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": dict(reversed(state.items()))}, tmp_path / "b.pth")
    one, two = (load_model(SMALL, weights=tmp_path / name) for name in ("a.safetensors", "b.pth"))
    assert one.provenance["state_sha256"] == two.provenance["state_sha256"]
    assert one.provenance["file_sha256"] != two.provenance["file_sha256"]
    with torch.no_grad():
        next(two.module.parameters()).view(-1)[0] += 1e-3
    assert state_digest(two.module) != one.provenance["state_sha256"]


def test_the_state_digest_tells_names_types_and_shapes_apart() -> None:
    def digest(**tensors: Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return state_digest(module)

    digests = {
        digest(a=torch.zeros(4)),
        digest(b=torch.zeros(4)),
        digest(a=torch.zeros(2, 2)),
        digest(a=torch.zeros(4, dtype=torch.int32)),
        digest(a=torch.zeros(2), b=torch.zeros(2)),
        digest(a=torch.zeros(())),
        digest(a=torch.zeros(0)),
    }
    assert len(digests) == 7


@pytest.mark.parametrize(("auxiliary", "prefix"), [(False, ""), (True, ""), (True, "module.")])
def test_weights_with_and_without_an_auxiliary_classifier(auxiliary: bool, prefix: str, tmp_path: Path) -> None:
    """One number for each tensor, so that the file stays small."""
    with torch.device("meta"):
        shapes = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=auxiliary).state_dict()
    values = {name: (i % 97) / 97 + 0.5 for i, name in enumerate(shapes)}
    content = {
        name: torch.tensor(values[name], dtype=torch.float32).to(one.dtype).expand(one.shape)
        for name, one in shapes.items()
    }
    torch.save({f"{prefix}{name}": value for name, value in content.items()}, tmp_path / "fcn.pth")
    model = load_model("fcn_resnet50", weights=tmp_path / "fcn.pth")
    loaded = model.module.state_dict()
    assert loaded.keys() == content.keys()
    assert any(name.startswith("aux_classifier.") for name in loaded) is auxiliary
    for name in ("backbone.conv1.weight", "classifier.4.weight", "classifier.4.bias"):
        assert torch.equal(loaded[name], content[name])


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"model": Code(trace)}, tmp_path / "evil.pth")
    with pytest.raises(SettingsError, match=r"(?s)evil\.pth is not a plain state dict .*save model\.state_dict\(\)"):
        load_model(SMALL, weights=tmp_path / "evil.pth")
    assert not trace.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "whole.pth")
    with pytest.raises(SettingsError, match=r"(?s)whole\.pth is not a plain state dict .*save model\.state_dict\(\)"):
        load_model(SMALL, weights=tmp_path / "whole.pth")


def test_the_refusal_of_a_pickle_is_one_plain_line_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "whole.pth")
    with pytest.raises(SettingsError) as caught:
        load_model(SMALL, weights=tmp_path / "whole.pth")
    message = str(caught.value)
    assert "torch.nn.modules.conv.Conv2d" in message
    assert "\x1b" not in message
    assert "\n" not in message
    assert "trust the source" not in message


def test_missing_weights_file(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"no weights file .*gone\.pth; give a \.pth, \.pt, \.ckpt or \.safetensors"
    ):
        load_model(SMALL, weights=tmp_path / "gone.pth")


def test_weights_file_with_a_wrong_ending(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"expected the ending \.pth, \.pt, \.ckpt, \.safetensors, got '\.onnx'"):
        load_model(SMALL, weights=tmp_path / "weights.onnx")


@pytest.mark.parametrize("file", ["a.pth", "b.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
def test_damaged_weights_files(file: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SettingsError, match=rf"weights file .*{file} (cannot be read|is not a plain state dict)"):
        load_model(SMALL, weights=tmp_path / file)


@pytest.mark.parametrize(("content", "came"), [([torch.zeros(1)], "list"), ({"epoch": 3}, "dict")])
def test_torch_files_without_a_state_dict(content: Any, came: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(SettingsError, match=rf"other\.pth: expected a state dict \(names to tensors\), got {came}"):
        load_model(SMALL, weights=tmp_path / "other.pth")


def test_weights_that_do_not_fit(state: dict[str, Tensor], tmp_path: Path) -> None:
    name = "classifier.low_classifier.bias"
    less = {key: value for key, value in state.items() if key != name}
    for content, difference in [
        (less, rf'Missing key.*"{name}"'),
        (state | {"extra.weight": torch.zeros(1)}, r'Unexpected key.*"extra\.weight"'),
        (state | {name: torch.zeros(5)}, rf"size mismatch for {name}"),
    ]:
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(SettingsError, match=rf"the weights of other\.pth do not fit LRASPP: .*{difference}"):
            load_model(SMALL, weights=tmp_path / "other.pth")


# Weights from the net


@pytest.fixture
def published(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FileServer, Callable[[str], None], str]]:
    """A server with the small model's weights, under a name that holds their hash, in the place of torchvision's."""
    folder = tmp_path / "server"
    folder.mkdir()
    torch.save(state, folder / "file")
    digest = sha256((folder / "file").read_bytes()).hexdigest()
    name = f"weights-{digest[:8]}.pth"
    (folder / "file").rename(folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def publish(url: str) -> None:
        monkeypatch.setattr(MODELS[SMALL].weights.value, "url", url)

    with serve(folder) as server:
        publish(f"{server.url}/{name}")
        yield server, publish, name


def test_downloads_once_with_a_progress_bar(
    published: Any, state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    server, _, name = published
    model = load_model(SMALL)
    assert holds(model, state)
    assert server.requests == [f"/{name}"]
    assert "100%" in capsys.readouterr().err
    assert model.weights == "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1"
    assert model.provenance["url"] == f"{server.url}/{name}"
    again = load_model(SMALL)
    assert holds(again, state)
    assert server.requests == [f"/{name}"]
    assert "100%" not in capsys.readouterr().err


def test_the_builtin_weights_are_the_ones_on_voc_labels() -> None:
    for entry in (MODELS[name] for name in FEATURES):
        assert entry.weights.name == "COCO_WITH_VOC_LABELS_V1"
        assert entry.weights.meta["categories"][:3] == ["__background__", "aeroplane", "bicycle"]


REMEDY = r'Fetch that file on a machine with a network and give weights = FILE, or use weights = "random"'


def test_an_unreachable_server_gives_the_address_and_remedies(published: Any, tmp_path: Path) -> None:
    url = unreachable_url() + "/weights-01234567.pth"
    published[1](url)
    with pytest.raises(SettingsError, match=rf"the weights of {SMALL} could not be downloaded from {url}: .*{REMEDY}"):
        load_model(SMALL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_address_without_a_file(published: Any) -> None:
    server, publish, _ = published
    publish(f"{server.url}/gone-01234567.pth")
    with pytest.raises(SettingsError, match=rf"from {server.url}/gone-01234567\.pth: HTTP Error 404: .*{REMEDY}"):
        load_model(SMALL)


def test_a_download_with_another_hash_is_refused_and_not_kept(published: Any, tmp_path: Path) -> None:
    server, publish, name = published
    (tmp_path / "server" / name).rename(tmp_path / "server" / "weights-00000000.pth")
    publish(f"{server.url}/weights-00000000.pth")
    with pytest.raises(
        SettingsError, match=rf'weights-00000000\.pth: invalid hash value \(expected "00000000".*{REMEDY}'
    ):
        load_model(SMALL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
def test_a_damaged_file_in_the_download_cache(content: bytes, published: Any, tmp_path: Path) -> None:
    server, _, name = published
    cache = tmp_path / "cache" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / name).write_bytes(content)
    with pytest.raises(SettingsError, match=rf"the weights of {SMALL} .*checkpoints/{name}"):
        load_model(SMALL)
    assert server.requests == []


# Models by file or module and function


CUSTOM = '''
"""A user's own model."""
from torch import nn

CONSTANT = 3


class Net(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.head(self.backbone(x))


def build(width=4, classes=2):
    return Net(width, classes)


def no_module():
    return {"not": "a module"}
'''


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "nets" / "my_net.py"
    path.parent.mkdir()
    path.write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize("relative", [False, True])
def test_a_model_from_a_file(relative: bool, custom: Path) -> None:
    place = "nets/my_net.py" if relative else str(custom)
    before = torch.get_rng_state()
    model = load_model(f"{place}:build", args={"width": 5}, layer="backbone", classes=["no", "yes"])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.name == "my_net.py:build"
    assert model.weights == "as built by build"
    assert model.module.backbone.out_channels == 5
    assert model.module.training is False
    assert model.classes == ["no", "yes"]
    maps = segfaith.explain(model, random_image(), block_target(), ["gpa"])
    assert maps["gpa"].shape == (28, 28)


def test_a_model_from_an_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "segfaith_example_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("segfaith_example_package.nets:build", args={"classes": 4})
    assert model.name == "segfaith_example_package.nets:build"
    assert model.module.head.out_channels == 4


def test_a_custom_model_with_weights(custom: Path, tmp_path: Path) -> None:
    state = load_model(f"{custom}:build", seed=5).module.state_dict()
    torch.save(state, tmp_path / "own.pth")
    model = load_model(f"{custom}:build", weights=tmp_path / "own.pth")
    assert holds(model, dict(state))
    assert model.weights == "own.pth"
    assert model.provenance["file_sha256"] == sha256((tmp_path / "own.pth").read_bytes()).hexdigest()
    with pytest.raises(SettingsError, match=r"the weights of own\.pth do not fit Net: .*size mismatch for backbone"):
        load_model(f"{custom}:build", weights=tmp_path / "own.pth", args={"width": 6})


def test_a_custom_model_is_built_by_its_seed(custom: Path) -> None:
    digests = [load_model(f"{custom}:build", seed=seed).provenance["state_sha256"] for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_a_custom_model_has_no_other_random_weights(custom: Path) -> None:
    with pytest.raises(SettingsError, match=r"weights = 'random' is for the models of `segfaith list models`; leave"):
        load_model(f"{custom}:build", weights="random")


def test_a_model_file_may_use_dataclasses(tmp_path: Path) -> None:
    """`dataclass` looks its module up in sys.modules when annotations are strings."""
    (tmp_path / "modern.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n\n\n"
        "@dataclass\nclass Config:\n    width: int = 2\n\n\n"
        "def build():\n    return nn.Conv2d(3, Config().width, 1)\n"
    )
    model = load_model(f"{tmp_path / 'modern.py'}:build")
    assert model.module.out_channels == 2


def test_a_model_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "segfaith_test_layers.py").write_text("WIDTH = 6\n")
    (tmp_path / "net.py").write_text(
        "from segfaith_test_layers import WIDTH\nfrom torch import nn\n\n\n"
        "def build():\n    return nn.Conv2d(3, WIDTH, 1)\n"
    )
    path = list(sys.path)
    assert load_model(f"{tmp_path / 'net.py'}:build").module.out_channels == 6
    assert sys.path == path


def test_two_model_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for folder, width in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir()
        code = f"from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, {width}, 1)\n"
        (tmp_path / folder / "net.py").write_text(code)
    models = [load_model(f"{tmp_path / folder / 'net.py'}:build") for folder in ("a", "b", "a")]
    assert [model.module.out_channels for model in models] == [2, 3, 2]


def test_a_model_file_may_have_the_name_of_a_module_in_use(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, 2, 1)\n")
    load_model(f"{tmp_path / 'json.py'}:build")
    import json as imported

    assert imported is json
    assert imported.loads("[1]") == [1]


def test_errors_of_custom_models(custom: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "grammar.py").write_text("def build(:\n")
    for name, message in [
        ("nets/gone.py:build", r"no file nets.gone\.py \(from 'nets/gone\.py:build'\); expected path/to/file\.py:func"),
        ("nets/my_net.py:biuld", r"my_net\.py has no function 'biuld'; it has .*build, no_module"),
        ("nets/my_net.py:CONSTANT", r"my_net\.py has no function 'CONSTANT'; it has .*build"),
        ("broken.py:build", r"importing 'broken\.py' .*failed: ModuleNotFoundError: .*a_module_that_nobody_has"),
        ("grammar.py:build", r"importing 'grammar\.py' .*failed: SyntaxError"),
        ("no_such_package.nets:build", r"importing 'no_such_package\.nets' .*failed: ModuleNotFoundError"),
        ("torch.nn:no_such_function", r"torch\.nn has no function 'no_such_function'"),
        ("nets/my_net.py:no_module", r"my_net\.py:no_module returned a dict; expected a torch\.nn\.Module"),
    ]:
        with pytest.raises(SettingsError, match=message):
            load_model(name)


def test_arguments_that_the_function_does_not_take(custom: Path) -> None:
    with pytest.raises(SettingsError, match=r"my_net\.py:build.* unexpected keyword argument 'wdith'"):
        load_model("nets/my_net.py:build", args={"wdith": 3})


# Really trained weights


def deeplab(shared: Path, width: float, file: str) -> SegmentationModel:
    return load_model(
        f"{shared / 'weights' / 'deeplab_mnv2.py'}:build",
        args={"width_mult": width},
        weights=shared / "weights" / file,
        layer="backbone.17",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes="voc",
    )


def accuracy_and_score(model: SegmentationModel, shared: Path, sample_id: str) -> tuple[float, float]:
    """Share of the labelled pixels that are right, and mean probability of the labels' top class on its pixels."""
    voc = shared / "voc" / "VOCdevkit" / "VOC2012"
    labels = np.array(PillowImage.open(voc / "SegmentationClass" / f"{sample_id}.png"))
    image = segfaith.load_image(voc / "JPEGImages" / f"{sample_id}.jpg")
    with torch.inference_mode():
        z = model.logits(image[None])[0].double().numpy()
    known = labels != 255
    accuracy = float((z.argmax(0) == labels)[known].mean())
    counts = {c: int((labels == c).sum()) for c in range(1, 21)}
    top = max(counts, key=lambda c: counts[c])
    exponent = np.exp(z - z.max(0))
    return accuracy, float((exponent[top] / exponent.sum(0))[labels == top].mean())


@pytest.mark.realdata
def test_trained_weights_load_strictly_and_see(trained_model: SegmentationModel, shared: Path) -> None:
    path = shared / "weights" / "deeplabv3_mnv2_w0.5_voc21.pth"
    ids = (shared / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").read_text().split()[:3]
    results = [accuracy_and_score(trained_model, shared, one) for one in ids]
    assert min(accuracy for accuracy, _ in results) > 0.8
    assert np.mean([score for _, score in results]) > 0.5
    assert trained_model.name == "deeplab_mnv2.py:build"
    assert trained_model.weights == path.name
    assert trained_model.provenance["file_sha256"] == sha256(path.read_bytes()).hexdigest()


@pytest.mark.realdata
def test_trained_weights_have_a_stable_digest(trained_model: SegmentationModel, shared: Path) -> None:
    again = deeplab(shared, 0.5, "deeplabv3_mnv2_w0.5_voc21.pth")
    wider = deeplab(shared, 1.0, "deeplabv3_mnv2_w1.0_voc21.pth")
    state = torch.load(shared / "weights" / "deeplabv3_mnv2_w0.5_voc21.pth", weights_only=True)
    assert again.module.state_dict().keys() == state.keys()
    assert again.provenance == trained_model.provenance
    assert wider.provenance["state_sha256"] != again.provenance["state_sha256"]
    sample_id = (shared / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").read_text().split()[0]
    assert accuracy_and_score(wider, shared, sample_id)[0] > 0.8


@pytest.mark.realdata
def test_trained_weights_of_another_width_are_refused(shared: Path) -> None:
    with pytest.raises(SettingsError, match=r"deeplabv3_mnv2_w1\.0_voc21\.pth do not fit DeepLabV3: .*size mismatch"):
        deeplab(shared, 0.5, "deeplabv3_mnv2_w1.0_voc21.pth")
