"""captum's and grad-cam's methods by name: their own numbers, on the target's score, and nothing left behind."""

import importlib.util
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import captum.attr as attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import segfaith
from segfaith import Target
from segfaith.attribution.libraries import LIBRARIES
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.foreign import code_named
from segfaith.benchmark.settings import make_settings
from segfaith.cli.screen import app
from segfaith.errors import SampleError, SettingsError
from segfaith.halves import Wiring
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import gaussian_blur
from toys import PixelScorer, SmallCNN, plain

SIZE = (28, 36)
LAYER = "backbone.4"
FEW = {
    "captum:IntegratedGradients": "n_steps=6",
    "captum:GradientShap": "n_samples=3,stdev=0.1",
    "captum:NoiseTunnel": "n_samples=3",
    "captum:Occlusion": "window=8,stride=5",
    "captum:FeatureAblation": "grid=3",
    "captum:FeaturePermutation": "grid=3",
    "captum:ShapleyValueSampling": "grid=3,n_samples=2",
    "captum:KernelShap": "grid=3,n_samples=40",
    "captum:Lime": "grid=3,n_samples=40",
    "gradcam:RefineCAM": "layer=backbone.1+backbone.4",
}
"""Parameters that make a method quick, or without which it cannot run."""
NAMES = [
    name + (f"@{FEW[name]}" if name in FEW else "")
    for name in (f"{prefix}:{one}" for prefix, library in LIBRARIES.items() for one in library.entries)
]
CHANCE = ("Gradient", "Noise", "FeaturePermutation", "Shapley", "Kernel", "Lime")
RANDOM = [name for name in NAMES if name.split(":")[1].startswith(CHANCE)]


def image(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((3, *size), dtype=np.float32))


def target(size: tuple[int, int] = SIZE, class_index: int = 1, **more: Any) -> Target:
    region = torch.zeros(size, dtype=torch.bool)
    region[4:20, 5:25] = True
    return Target(class_index, region, **more)


def explained(model: SegmentationModel, name: str, asked: Target | None = None, **more: Any) -> np.ndarray:
    asked = target() if asked is None else asked
    return segfaith.explain(model, image(tuple(asked.region.shape)), asked, [name], **more)[name].numpy()


def scaled(values: Tensor | np.ndarray) -> np.ndarray:
    values = torch.as_tensor(values).detach().double().numpy()
    return (values - values.min()) / (values.max() - values.min())


class ByHand(nn.Module):
    """The masked mean of the class probability, or of its logit, as one would write it for captum."""

    def __init__(self, module: nn.Module, asked: Target, logits: bool = False, total: bool = False) -> None:
        super().__init__()
        self.module = deepcopy(module).eval()
        for part in self.module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False
        self.asked, self.logits, self.total = asked, logits, total

    def forward(self, x: Tensor) -> Tensor:
        z = F.interpolate(self.module(x)["out"], size=x.shape[-2:], mode="bilinear", align_corners=False)
        values = (z if self.logits else z.softmax(1))[:, self.asked.class_index].double()
        total = (values * self.asked.region).sum((1, 2))
        return total if self.total else total / (self.asked.region.sum() + 1e-6)


def summed(attribution: Tensor) -> Tensor:
    return attribution.detach().double().sum(1)[0]


BY_HAND: dict[str, tuple[bool, Callable[[ByHand, Tensor], Tensor]]] = {
    "Saliency": (False, lambda f, x: summed(attr.Saliency(f).attribute(x))),
    "Saliency@sign=positive": (False, lambda f, x: summed(attr.Saliency(f).attribute(x, abs=False)).clamp(min=0)),
    "InputXGradient": (False, lambda f, x: summed(attr.InputXGradient(f).attribute(x)).clamp(min=0)),
    "InputXGradient@sign=absolute": (False, lambda f, x: summed(attr.InputXGradient(f).attribute(x)).abs()),
    "InputXGradient@objective=logits": (True, lambda f, x: summed(attr.InputXGradient(f).attribute(x)).clamp(min=0)),
    "IntegratedGradients@n_steps=7": (
        False,
        lambda f, x: summed(attr.IntegratedGradients(f).attribute(x, 0, n_steps=7)).clamp(min=0),
    ),
    "IntegratedGradients@baseline=mean": (
        False,
        lambda f, x: summed(
            attr.IntegratedGradients(f).attribute(x, x.mean((2, 3), keepdim=True).expand_as(x), n_steps=32)
        ).clamp(min=0),
    ),
    "GuidedBackprop": (False, lambda f, x: summed(attr.GuidedBackprop(f).attribute(x)).abs()),
    "Deconvolution": (False, lambda f, x: summed(attr.Deconvolution(f).attribute(x)).abs()),
    "DeepLift": (True, lambda f, x: summed(attr.DeepLift(f).attribute(x, 0)).clamp(min=0)),
    "DeepLiftShap@baselines=zero+blur": (
        True,
        lambda f, x: summed(
            attr.DeepLiftShap(f).attribute(
                x, torch.stack([torch.zeros_like(x[0]), gaussian_blur(x[0], 10 / 224 * SIZE[0])])
            )
        ).clamp(min=0),
    ),
    "GuidedGradCam": (
        False,
        lambda f, x: summed(attr.GuidedGradCam(f, f.module.get_submodule(LAYER)).attribute(x)).clamp(min=0),
    ),
    "Occlusion@window=8,stride=5,occlusion=zero": (
        False,
        lambda f, x: (
            attr.Occlusion(f)
            .attribute(x, sliding_window_shapes=(3, 8, 8), strides=(3, 5, 5), baselines=0)[0, 0]
            .clamp(min=0)
        ),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_captums_maps_are_those_of_captum_called_by_hand(name: str) -> None:
    logits, attribute = BY_HAND[name]
    module = SmallCNN(seed=3)
    theirs = scaled(attribute(ByHand(module, target(), logits), image()[None]))
    ours = explained(plain(module, layer=LAYER), f"captum:{name}")
    assert theirs.std() > 0.02
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_is_captums_with_its_own_noise(kind: str) -> None:
    """Its noise is drawn in captum, so the comparison is that of two large samples' maps."""
    module = SmallCNN(seed=3)
    f, x = ByHand(module, target()), image()[None]
    stdev = 0.15 * float(x.max() - x.min())
    torch.manual_seed(5)
    theirs = attr.NoiseTunnel(attr.Saliency(f)).attribute(x, nt_type=kind, nt_samples=400, stdevs=stdev)
    ours = explained(plain(module, layer=LAYER), f"captum:NoiseTunnel@type={kind},n_samples=400")
    assert np.corrcoef(ours.ravel(), summed(theirs).numpy().ravel())[0, 1] > 0.97


@pytest.mark.parametrize("method", ["DeepLift", "DeepLiftShap", "GradientShap"])
def test_noise_tunnel_of_vanishing_noise_is_the_method_itself(method: str) -> None:
    """Of those that compare with baselines, of which captum's tunnel would take one for each noisy image."""
    model = plain(SmallCNN(seed=3), layer=LAYER)
    more = f"method={method},n_samples=9,objective=logits,sign=positive"
    ours = explained(model, f"captum:NoiseTunnel@{more},stdev=1e-7")
    alone = "captum:GradientShap@n_samples=180,objective=logits" if method == "GradientShap" else f"captum:{method}"
    theirs = explained(model, alone)
    if method == "GradientShap":
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    else:
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert abs(explained(model, f"captum:NoiseTunnel@{more},stdev=0.3") - ours).max() > 0.05


def test_gradient_shap_is_near_expected_gradients() -> None:
    """Of a single baseline and no noise, points on the line: integrated gradients, by chance."""
    model = plain(SmallCNN(seed=3), layer=LAYER)
    shap = explained(model, "captum:GradientShap@baselines=zero,n_samples=300")
    line = explained(model, "captum:IntegratedGradients@n_steps=50")
    assert np.corrcoef(shap.ravel(), line.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["InputXGradient", "IntegratedGradients", "DeepLift", "GradientShap@baselines=zero"])
def test_of_a_linear_model_each_pixel_gives_its_colour(name: str) -> None:
    """z_1 = gain * (mean colour - threshold): a pixel inside the region contributes its mean colour, others nothing."""
    joined = "," if "@" in name else "@"
    ours = explained(plain(PixelScorer()), f"captum:{name}{joined}objective=logits")
    expected = image().double().mean(0) * target().region
    np.testing.assert_allclose(ours, scaled(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["FeatureAblation@", "ShapleyValueSampling@n_samples=1,", "KernelShap@n_samples=200,"])
def test_of_an_additive_score_region_methods_give_each_cells_own_part(name: str) -> None:
    """Black cells: s loses the mean over the region of gain * the cell's colour, whatever else is occluded."""
    asked = target(score="logit")
    ours = explained(plain(PixelScorer()), f"captum:{name}grid=4,occlusion=zero", asked)
    colours, expected = image().double().mean(0) * asked.region, torch.zeros(SIZE, dtype=torch.float64)
    for row in range(4):
        for column in range(4):
            cell = np.s_[row * 7 : row * 7 + 7, column * 9 : column * 9 + 9]
            expected[cell] = colours[cell].sum()
    np.testing.assert_allclose(ours, scaled(expected), atol=1e-4)


def test_lime_ranks_the_cells_of_an_additive_score() -> None:
    asked = target(score="logit")
    lime = explained(plain(PixelScorer()), "captum:Lime@grid=4,occlusion=zero,n_samples=600,alpha=0.01", asked)
    exact = explained(plain(PixelScorer()), "captum:FeatureAblation@grid=4,occlusion=zero", asked)
    assert np.corrcoef(lime.ravel(), exact.ravel())[0, 1] > 0.99


def test_feature_ablation_is_ria_with_signs() -> None:
    model = plain(SmallCNN(seed=3), layer=LAYER)
    maps = segfaith.explain(model, image(), target(), ["ria@grid=3", "captum:FeatureAblation@grid=3"])
    np.testing.assert_array_equal(*(one.numpy() for one in maps.values()))
    other = explained(model, "captum:FeatureAblation@grid=3,sign=absolute")
    assert abs(other - maps["ria@grid=3"].numpy()).max() > 0.05


def test_region_methods_run_on_superpixels() -> None:
    """Four flat quarters, of which the first holds the region: they are found, and it takes the whole score."""
    quarters = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(14, 1)
    region = torch.zeros(28, 36, dtype=torch.bool)
    region[2:10, 2:12] = True
    asked = Target(1, region, score="logit")
    name = "captum:ShapleyValueSampling@regions=superpixels,grid=2,occlusion=zero,n_samples=1"
    ours = segfaith.explain(plain(PixelScorer()), quarters.repeat_interleave(18, 2), asked, [name])[name]
    expected = torch.zeros(28, 36)
    expected[:14, :18] = 1
    assert torch.equal(ours, expected)


CAMS = [name for name in LIBRARIES["gradcam"].entries if name != "RefineCAM"]


@pytest.mark.parametrize("name", CAMS)
def test_grad_cams_maps_are_those_of_grad_cam_called_by_hand(name: str) -> None:
    module = SmallCNN(seed=3)
    f = ByHand(module, target(), total=name not in ("ScoreCAM", "AblationCAM"))
    layers = [] if name == "FullGrad" else [f.module.get_submodule(LAYER)]
    with getattr(pytorch_grad_cam, name)(model=f, target_layers=layers) as explainer:
        theirs = explainer(input_tensor=image()[None], targets=[lambda output: output])[0]
    assert theirs.std() > 0.02
    np.testing.assert_allclose(explained(plain(module, layer=LAYER), f"gradcam:{name}"), scaled(theirs), atol=1e-4)


def test_refine_cam_multiplies_layers() -> None:
    model = plain(SmallCNN(seed=3))
    one, other = (explained(model, f"gradcam:GradCAMPlusPlus@layer={name}") for name in ("backbone.1", LAYER))
    ours = explained(model, f"gradcam:RefineCAM@layer=backbone.1+{LAYER}")
    np.testing.assert_allclose(ours, scaled(one * other), atol=1e-3)


class WritesLater(SmallCNN):
    """A function writes into the layer's output after it."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(F.hardtanh_(self.backbone(x) * 1, 0.0, 0.7))}


class WritesInto(SmallCNN):
    """The same, into the output itself."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone[:4](x)
        F.relu_(features)
        return {"out": self.head(features)}


@pytest.mark.parametrize("module", [SmallCNN, WritesLater, WritesInto])
@pytest.mark.parametrize("settings", [{}, {"pad": 32}])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gradcam:GradCAM", "gpa"), ("gradcam:HiResCAM", "ega"), ("captum:LayerGradCam", "gpa")],
)
def test_their_cams_are_ours(module: type[SmallCNN], settings: dict[str, Any], theirs: str, ours: str) -> None:
    """Also where a later step writes into what the layer gave, and where images are padded."""
    layer = "backbone.3" if module is WritesInto else LAYER
    for objective in ("logits", "prob"):
        model = segfaith.wrap(module(seed=2), layer=layer, mean=(0, 0, 0), std=(1, 1, 1), **settings)
        maps = [explained(model, f"{name}@objective={objective}") for name in (theirs, ours)]
        assert maps[0].std() > 0.05
        np.testing.assert_allclose(*maps, atol=1e-4)


class Tokens(nn.Module):
    """A patch embedding whose output is tokens, with a leading one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x)
        tokens = self.mix(F.pad(maps.flatten(2).transpose(1, 2), (0, 0, 1, 0)))
        tokens = tokens + tokens.mean(1, keepdim=True).relu()
        return self.head(tokens)[:, 1:].transpose(1, 2).unflatten(2, maps.shape[2:])


def test_grad_cam_reads_tokens_and_captum_refuses_them() -> None:
    with torch.random.fork_rng():
        model = plain(Tokens(), layer="mix")
    np.testing.assert_allclose(explained(model, "gradcam:GradCAM"), explained(model, "gpa@objective=prob"), atol=1e-4)
    with pytest.raises(SampleError, match=r"reads maps \(N, K, h, w\); layer 'mix' gives tokens"):
        explained(model, "captum:LayerGradCam")


def state(model: SegmentationModel) -> list[Any]:
    """All that a method could have left behind."""
    module = model.module
    values = [(name, value.dtype, value.tolist()) for name, value in module.state_dict().items()]
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    flags = [
        (
            name,
            part.training,
            getattr(part, "inplace", None),
            sorted(vars(part)),
            [len(vars(part)[one]) for one in tables],
        )
        for name, part in module.named_modules()
    ]
    weights = [
        (name, one.requires_grad, one.grad is None or one.grad.tolist()) for name, one in module.named_parameters()
    ]
    return [values, flags, weights, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]  # noqa: NPY002


@pytest.mark.parametrize("name", [name for name in NAMES if "FeatureAblation" not in name])
def test_model_and_random_states_are_left_as_found(name: str) -> None:
    """Without the guard that runs put around methods: each must be clean by itself, as check-method asks."""
    module = SmallCNN(seed=3)
    module.train()
    module.head.weight.grad = torch.ones_like(module.head.weight)
    model = plain(module, layer=LAYER)
    asked = target()
    explained(model, "ega")  # what segfaith itself learns of a model at its first use
    before, given = state(model), image()
    more: dict[str, Any] = {"batch": segfaith.batching.BatchSize(4), "rng": np.random.default_rng(1)}
    if "partition" in resolve_method(name, {}).method.needs:
        more["partition"] = segfaith.occlusion.grid_partition(SIZE, 3)
    resolve_method(name, {}).method.combine(model, given, asked, **more)
    assert state(model) == before
    assert torch.equal(given, image())
    assert not given.requires_grad


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_follow_from_the_seed_whatever_the_batch(name: str) -> None:
    model = plain(SmallCNN(seed=3), layer=LAYER)
    first = explained(model, name, batch_size=16)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    np.testing.assert_allclose(first, explained(model, name, batch_size=1), atol=1e-5)
    assert abs(first - explained(model, name, seed=1)).max() > 1e-3


def test_a_benchmark_measures_them_and_says_why_it_cannot() -> None:
    names = ["captum:InputXGradient", "gradcam:LayerCAM", "gradcam:RefineCAM", "rise@masks=20"]
    rows = segfaith.evaluate(plain(SmallCNN(), layer=LAYER), image(), target(), names, stability=True)
    assert rows.loc[[names[0], names[1], names[3]], "status"].tolist() == ["ok"] * 3
    assert rows.loc[[names[0], names[1], names[3]], ["tdd", "odd", "stability"]].notna().all(axis=None)
    assert rows.loc[names[2], "status"] == "failed"
    assert "name them: layer=first+second" in rows.loc[names[2], "reason"]


class Functional(nn.Module):
    """ReLUs that are functions, and no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.module = SmallCNN(seed=1).backbone[0]
        self.module.bias, self.head = None, nn.Conv2d(8, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.module(x) - 0.3))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("captum:GuidedBackprop", "of Functional 1 of 1 are functions"),
        ("captum:Deconvolution", "modules of the class torch.nn.ReLU"),
        ("captum:NoiseTunnel@method=GuidedBackprop", "are functions"),
        ("captum:NoiseTunnel@method=DeepLift,objective=logits", "the contributions sum to"),
        ("captum:GuidedGradCam", "are functions"),
        ("captum:DeepLift", "non-linear steps that captum has no rule for: functional ReLUs"),
        ("captum:DeepLiftShap", "the contributions sum to"),
        ("gradcam:FullGrad", "Functional has none"),
    ],
)
def test_what_a_model_cannot_give_is_a_reason(name: str, words: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = plain(Functional(), layer="module")
    with pytest.raises(SampleError, match=words):
        explained(model, name)


def test_deep_lift_of_a_probability_names_the_remedy() -> None:
    with pytest.raises(SampleError, match="use objective=logits"):
        explained(plain(SmallCNN(), layer=LAYER), "captum:DeepLift@objective=prob")


class Disordered(SmallCNN):
    """Its head is made first, so the order in the module is not that of the pass."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        parts = dict(self._modules)
        self._modules.clear()
        self._modules.update(head=parts["head"], backbone=parts["backbone"])


def test_full_grad_refuses_another_order_of_biases() -> None:
    with pytest.raises(SampleError, match="runs them in another order"):
        explained(plain(Disordered(), layer=LAYER), "gradcam:FullGrad")


def test_ablation_cam_refuses_a_score_below_zero() -> None:
    model = plain(SmallCNN(seed=3), layer=LAYER)
    logit = target(score="logit")
    low = int(model.logits(image()[None])[0][:, logit.region].mean(1).argmin())
    with pytest.raises(SampleError, match="at or below 0 its signs mean nothing"):
        explained(model, "gradcam:AblationCAM", replace(logit, class_index=low))


class Failing(SmallCNN):
    """Runs out of memory, or fails, at one of its passes."""

    at, passes, words = -1, 0, ""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.passes += 1
        if self.passes == self.at:
            raise RuntimeError(self.words)
        return super().forward(x)


def test_a_method_that_fails_halfway_leaves_the_model_as_found() -> None:
    """The library puts its own layer in the place of the model's, and does not take it away when a pass fails."""
    module = Failing(seed=3)
    module.words = "broken"
    model, method = plain(module, layer=LAYER), resolve_method("gradcam:AblationCAM", {}).method
    more: dict[str, Any] = {"batch": segfaith.batching.BatchSize(4), "rng": np.random.default_rng(1)}
    method.combine(model, image(), target(), **more)
    before = [*module.named_modules()], state(model)
    module.at = module.passes + 4
    with pytest.raises(SampleError, match="broken"):
        method.combine(model, image(), target(), **more)
    module.at = -1
    assert [*module.named_modules()] == before[0]
    del vars(module)["at"], vars(module)["passes"]
    assert [one[:3] for one in state(model)[1][1:]] == [one[:3] for one in before[1][1][1:]]


def test_memory_that_runs_out_halfway_changes_no_map() -> None:
    module = Failing(seed=3)
    module.words = "CPU: out of memory"
    model, method = plain(module, layer=LAYER), resolve_method("gradcam:AblationCAM", {}).method
    maps, batch = [], segfaith.batching.BatchSize(4, follows=True)
    for _ in range(2):
        maps.append(method.combine(model, image(), target(), batch=batch, rng=np.random.default_rng(1)).numpy())
        module.at = module.passes + 4
    assert batch.images == 2, "it ran out"
    assert not batch.follows
    np.testing.assert_allclose(*maps, atol=1e-5)


class AddsLater(SmallCNN):
    """Adds into the layer's output after it, as residual blocks do."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        features += 1
        return {"out": self.head(features)}


def test_ablation_cam_keeps_the_layers_output_before_later_parts_write_into_it() -> None:
    class AddsApart(SmallCNN):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.head(self.backbone(x) + 1)}

    maps = [explained(plain(kind(seed=3), layer=LAYER), "gradcam:AblationCAM") for kind in (AddsLater, AddsApart)]
    assert maps[0].std() > 0.02
    np.testing.assert_allclose(*maps, atol=1e-5)


class Steep(SmallCNN):
    """Finite logits, whose gradient at the layer is infinite or NaN at some pixels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.backbone(x).square().sqrt())}


@pytest.mark.parametrize(
    "name", [name for name in CAMS if name not in ("EigenCAM", "ScoreCAM", "AblationCAM", "FullGrad")]
)
def test_gradients_that_are_not_finite_fail(name: str) -> None:
    """The library's principal components take NaN for 0."""
    with pytest.raises(SampleError, match="NaN or infinite"):
        explained(plain(Steep(seed=3), layer=LAYER), f"gradcam:{name}")


class Alias(SmallCNN):
    """Has a layer under two names, which the library reads as two."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.stages = nn.ModuleList([self.backbone[0]])


def test_full_grad_refuses_a_layer_under_two_names() -> None:
    with pytest.raises(SampleError, match="has one under two names"):
        explained(plain(Alias(), layer=LAYER), "gradcam:FullGrad")


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "AblationCAM"])
def test_grad_cam_reads_models_in_bfloat16(name: str) -> None:
    low = explained(plain(SmallCNN(seed=3).to(torch.bfloat16), layer=LAYER), f"gradcam:{name}")
    full = explained(plain(SmallCNN(seed=3), layer=LAYER), f"gradcam:{name}")
    assert np.corrcoef(low.ravel(), full.ravel())[0, 1] > 0.9


def test_a_model_without_gradients_says_so() -> None:
    class Apart(SmallCNN):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                features = self.backbone(x)
            return {"out": self.head(features)}

    for name in ("captum:Saliency", "gradcam:GradCAM"):
        with pytest.raises(SampleError, match="no gradient reaches the image"):
            explained(plain(Apart(seed=3), layer=LAYER), name)


def test_a_single_region_is_too_few_for_a_regression() -> None:
    with pytest.raises(SampleError, match="the image is a single region"):
        explained(plain(PixelScorer()), "captum:KernelShap@grid=1")


@pytest.mark.parametrize("name", ["KernelShap", "Lime", "ShapleyValueSampling"])
def test_of_a_score_that_does_not_vary_regions_have_no_part(name: str) -> None:
    """A regression would make a map of rounding."""
    module = SmallCNN(seed=3)
    with torch.no_grad():
        module.head.weight[2] = 0
    asked = target(class_index=2, score="logit")
    assert not explained(plain(module, layer=LAYER), f"captum:{name}@grid=4,n_samples=60", asked).any()


REGIONAL = ("FeatureAblation@", "ShapleyValueSampling@n_samples=1,", "KernelShap@n_samples=150,")


@pytest.mark.parametrize("name", REGIONAL)
def test_of_an_additive_score_adaptive_cells_have_their_own_part(name: str) -> None:
    """Each part of a partition that followed the drops gives what it takes from s, painted on its pixels."""
    asked = target(score="logit")
    method = f"captum:{name}grid=4,regions=adaptive,passes=12,occlusion=zero"
    ours = explained(plain(PixelScorer()), method, asked)
    colours, parts = image().double().mean(0) * asked.region, np.unique(ours)
    areas = {value: float(colours[torch.from_numpy(ours == value)].sum()) for value in parts}
    assert len(parts) > 5
    largest = max(areas.values())
    sizes = {value: (ours == value).sum() for value in parts}
    for value, total in areas.items():
        if value > 0.01:  # cells beside the region share the value 0
            assert value == pytest.approx(total / largest, abs=0.02), sizes[value]


WIRED = ("Saliency", *REGIONAL[:2], "Lime@n_samples=300,alpha=0.01,")


@pytest.mark.parametrize("name", WIRED)
def test_of_wired_photographs_the_other_half_says_nothing(name: str) -> None:
    """Logits of the left half that follow from it alone: its map is that of the photograph alone, the rest is 0."""
    asked, joined = target(score="logit"), "" if name == "Saliency" else "grid=2"
    single = explained(plain(PixelScorer()), f"captum:{name}{joined}", asked)
    model = plain(PixelScorer())
    model.wiring = Wiring(1.0)
    canvas = torch.cat([image(), image().flip(1)], 2)
    both = replace(asked, region=torch.cat([asked.region, torch.zeros_like(asked.region)], 1))
    ours = segfaith.explain(model, canvas, both, [f"captum:{name}{joined}"])[f"captum:{name}{joined}"].numpy()
    np.testing.assert_allclose(ours[:, : SIZE[1]], single, atol=0.05)
    assert ours[:, SIZE[1] :].max() < 0.05


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gradcam:GradCAM", "reads a layer, which sees wired photographs as a batch of two"),
        ("captum:LayerGradCam", "reads a layer, which sees wired photographs as a batch of two"),
        ("captum:Occlusion@window=8,stride=8", "would run across both of wired photographs"),
    ],
)
def test_what_would_mix_wired_photographs_is_refused(name: str, words: str) -> None:
    model = plain(SmallCNN(), layer=LAYER)
    model.wiring = Wiring(1.0)
    with pytest.raises(SampleError, match=words):
        explained(model, name)


def test_layers_of_tiled_models_are_refused() -> None:
    model = segfaith.wrap(SmallCNN(), layer=LAYER, mean=(0, 0, 0), std=(1, 1, 1), tile=16, overlap=4)
    for name in ("gradcam:GradCAM", "captum:LayerGradCam"):
        with pytest.raises(SampleError, match="runs on tiles"):
            explained(model, name)


@pytest.mark.parametrize(("name", "extra"), [("captum:Saliency", "captum"), ("gradcam:GradCAM", "grad-cam")])
def test_a_missing_library_is_named_with_its_extra(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfaith.attribution.libraries.entry.find_spec", lambda module: None)
    with pytest.raises(SettingsError, match=rf"not installed; install it with: pip install 'segfaith\[{extra}\]'"):
        resolve_method(name, {})


def test_a_method_that_the_installed_version_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pytorch_grad_cam, "RefineCAM")
    with pytest.raises(SettingsError, match="the installed pytorch_grad_cam has no RefineCAM"):
        resolve_method("gradcam:RefineCAM@layer=a+b", {})


def test_unknown_names_and_parameters_say_what_there_is() -> None:
    with pytest.raises(
        SettingsError, match=r"unknown method of captum 'Salience'; did you mean 'Saliency'.*known: .*Occlusion"
    ):
        resolve_method("captum:Salience", {})
    with pytest.raises(SettingsError, match=r"n_step: unknown; did you mean 'n_steps'\?; it has sign, .* n_steps"):
        resolve_method("captum:IntegratedGradients@n_step=3", {})
    with pytest.raises(SettingsError, match="n_steps: Input should be greater"):
        resolve_method("captum:IntegratedGradients@n_steps=0", {})
    with pytest.raises(SettingsError, match=r"parameter baseline: .*unknown fill 'grey'; known: mean, zero"):
        resolve_method("captum:DeepLift@baseline=grey", {})
    with pytest.raises(SettingsError, match=r"unknown method 'gradcam'; expected gradcam:NAME, of GradCAM, .*Refine"):
        resolve_method("gradcam", {})
    for name, whole in (("Saliency", "captum:Saliency"), ("GradCam", "gradcam:GradCAM"), ("LIME", "captum:Lime")):
        with pytest.raises(SettingsError, match=rf"unknown method '{name}'; did you mean '{whole}'\?"):
            resolve_method(name, {})
    with pytest.raises(SettingsError, match="unknown method for NoiseTunnel 'Lime'"):
        resolve_method("captum:NoiseTunnel@method=Lime", {})
    with pytest.raises(SettingsError, match="stride = 16 would leave pixels between windows of 8; give both"):
        resolve_method("captum:Occlusion@window=8", {})
    with pytest.raises(SettingsError, match="pixels are exchanged, not occluded"):
        resolve_method("captum:FeaturePermutation@occlusion=zero", {})
    with pytest.raises(SettingsError, match="at least two baselines"):
        resolve_method("captum:DeepLiftShap@baselines=zero", {})


def test_libraries_are_imported_only_when_a_method_is_used() -> None:
    import subprocess
    import sys

    code = "import sys, segfaith; assert not {'captum', 'pytorch_grad_cam', 'sklearn', 'SALib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert importlib.util.find_spec("captum")


def test_aliases_are_the_methods_that_they_name() -> None:
    model = plain(SmallCNN(seed=3), layer=LAYER)
    for alias, name in (
        ("seg-grad-cam", "gpa"),
        ("seg-hires-grad-cam", "ega"),
        ("seg-xres-cam@window=4", "ega@window=4"),
    ):
        np.testing.assert_array_equal(explained(model, alias), explained(model, name))


def test_every_method_has_its_section_and_is_listed() -> None:
    page = (Path(segfaith.__file__).parents[2] / "docs/methods.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(\S+)`$", page, re.M)
    names = [f"{prefix}:{name}" for prefix, library in LIBRARIES.items() for name in library.entries]
    assert sorted(headings) == sorted([*names, "rise", "sobol"])
    printed = CliRunner().invoke(app, ["list", "methods"]).output
    for name in (*names, "rise", "sobol", "seg-grad-cam"):
        assert re.search(rf"^{re.escape(name)}\s+\S", printed, re.M), name
    assert "982 fast passes" in printed
    assert "not available" not in printed


def test_a_library_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a system's library that it needs."""

    def fails(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("segfaith.attribution.libraries.gradcam.import_module", fails)
    with pytest.raises(SettingsError, match=r"pytorch_grad_cam cannot be imported: .*libGL"):
        resolve_method("gradcam:GradCAM", {})
    assert "not available: pytorch_grad_cam cannot be imported" in CliRunner().invoke(app, ["list", "methods"]).output


class OfBatch(SmallCNN):
    """Its batch norm has no running statistics."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.backbone[1] = nn.BatchNorm2d(8, track_running_stats=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("captum:DeepLift", "runs an image and its baseline at once, and batch norms without running statistics"),
        ("gradcam:FullGrad", "reads the running statistics of batch norms, and some have none"),
    ],
)
def test_batch_norms_without_statistics_are_a_reason(name: str, words: str) -> None:
    with pytest.raises(SampleError, match=words):
        explained(plain(OfBatch(), layer=LAYER), name)


def test_the_list_says_why_a_method_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pytorch_grad_cam, "SegEigenCAM")
    lines = CliRunner().invoke(app, ["list", "methods"]).output.splitlines()
    words = {line.split()[0]: line for line in lines}
    assert "not available: the installed pytorch_grad_cam has no SegEigenCAM" in words["gradcam:SegEigenCAM"]
    assert "not available" not in words["gradcam:GradCAM"]


def test_the_list_has_the_costs_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[data]\nname = "scenes"\nsize = 96\n[model]\nname = "scenes"\nlayer = "a+b"\n[methods]\n'
        'names = ["ria@grid=5", "captum:Lime@n_samples=7"]\n"captum:IntegratedGradients" = { n_steps = 9 }\n'
    )
    printed = CliRunner().invoke(app, ["list", "methods", str(file), "--set", "methods.rise.masks=20"]).output
    for name, cost in (
        ("captum:IntegratedGradients", "9 passes with gradients"),
        ("captum:Occlusion", "27 fast passes"),
        ("gradcam:GradCAM", "2 passes with gradients"),
        ("gradcam:ScoreCAM", "a pass for each channel of the layer, and 1"),
        ("rise", "21 passes"),
        ("gpa", "2 passes with gradients, shared"),
        ("dea", "2 passes with gradients and 197 fast passes, shared"),
        ("ria@grid=5", "26 fast passes, shared"),
        ("captum:Lime@n_samples=7", "8 passes"),
    ):
        assert re.search(rf"^{re.escape(name)}\s.*; {re.escape(cost)}$", printed, re.M), name
    assert "of images of 96 x 96 pixels" in printed


def test_a_stored_run_with_library_methods_names_no_code_of_strangers() -> None:
    settings = make_settings(
        {
            "model": {"name": "scenes"},
            "data": {"name": "scenes"},
            "methods": {"names": ["captum:Saliency", "gradcam:GradCAM@layer=a", "os:getcwd"]},
        },
        "here",
    )
    assert code_named(settings) == [("method", "os:getcwd")]
