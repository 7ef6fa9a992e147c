"""Methods of libraries against formulas written anew: by loops, by recorded images, and exactly where sets are few."""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeaturePermutation
from torch import Tensor, nn
from torch.nn import functional as F

import segfaith
from segfaith import Target
from segfaith.occlusion import grid_partition
from toys import SmallCNN, plain

SIZE = (24, 30)
LAYER = "backbone.4"


def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(4).random((3, *SIZE), dtype=np.float32))


def target(**more: Any) -> Target:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[4:17, 6:22] = True
    return Target(1, region, **more)


def network(seed: int = 3) -> SmallCNN:
    module = SmallCNN(seed=seed).eval()
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    return module


def probability(z: Tensor) -> Tensor:
    """The mean probability of class 1 over the region, from the outputs of a network for one image."""
    z = F.interpolate(z, size=SIZE, mode="bilinear", align_corners=False)
    inside = target().region
    return z.softmax(1)[0, 1][inside].double().sum() / (int(inside.sum()) + 1e-6)


def score(module: nn.Module, x: Tensor) -> Tensor:
    return probability(module(x[None])["out"])


def gradient(module: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(score(module, x), x)[0].double()


def scaled(values: Tensor | np.ndarray) -> np.ndarray:
    values = torch.as_tensor(values).detach().double().numpy()
    return (values - values.min()) / (values.max() - values.min())


def explained(module: nn.Module, name: str, **more: Any) -> np.ndarray:
    maps = segfaith.explain(plain(module, layer=LAYER), image(), target(), [name], **more)
    return maps[name].numpy()


def test_integrated_gradients_are_a_riemann_sum() -> None:
    module, x = network(), image()
    fill = x.mean((1, 2), keepdim=True).expand_as(x)
    steps = 400
    mean = sum(gradient(module, fill + (i + 0.5) / steps * (x - fill)) for i in range(steps)) / steps
    expected = (mean * (x - fill)).sum(0).clamp(min=0)
    ours = explained(module, "captum:IntegratedGradients@n_steps=200,baseline=mean")
    np.testing.assert_allclose(ours, scaled(expected), atol=0.02)


class Recording(SmallCNN):
    """Keeps the images of each pass that records gradients."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.requires_grad:
            self.seen += list(x.detach().clone())
        return super().forward(x)


def recorded(name: str) -> tuple[np.ndarray, list[Tensor]]:
    module = Recording()
    model = plain(module, layer=LAYER)
    segfaith.explain(model, image(), target(), ["ria@grid=2"])  # tests of the model are over
    module.seen.clear()
    return segfaith.explain(model, image(), target(), [name])[name].numpy(), list(module.seen)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_is_the_mean_or_variance_over_the_images_that_ran(kind: str) -> None:
    ours, seen = recorded(f"captum:NoiseTunnel@type={kind},n_samples=7")
    assert len(seen) == 7
    noise = torch.stack(seen) - image()
    assert float(noise.std()) == pytest.approx(0.15 * float(image().max() - image().min()), rel=0.05)
    maps = torch.stack([gradient(network(), x).abs() for x in seen])
    expected = {
        "smoothgrad": maps.mean(0),
        "smoothgrad_sq": (maps**2).mean(0),
        "vargrad": (maps**2).mean(0) - maps.mean(0) ** 2,
    }[kind]
    np.testing.assert_allclose(ours, scaled(expected.sum(0)), atol=2e-4)


def test_gradient_shap_is_the_mean_over_the_images_that_ran() -> None:
    ours, seen = recorded("captum:GradientShap@baselines=zero,n_samples=9")
    assert len(seen) == 9
    expected = sum((gradient(network(), x) * image()).sum(0) for x in seen) / 9
    np.testing.assert_allclose(ours, scaled(expected.clamp(min=0)), atol=2e-4)


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad.clamp(min=0) * ((x > 0) if ctx.guided else 1), None


class GuidedRelu(nn.Module):
    """A ReLU whose gradient passes only what is positive."""

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided = guided

    def forward(self, x: Tensor) -> Tensor:
        return _Guided.apply(x, self.guided)


@pytest.mark.parametrize(("name", "guided"), [("GuidedBackprop", True), ("Deconvolution", False)])
def test_guided_gradients_are_those_of_a_changed_relu(name: str, guided: bool) -> None:
    module = network()
    module.backbone[2], module.backbone[4] = GuidedRelu(guided), GuidedRelu(guided)
    expected = gradient(module, image()).sum(0).abs()
    np.testing.assert_allclose(explained(network(), f"captum:{name}"), scaled(expected), atol=2e-4)


def test_occlusion_is_the_mean_drop_of_the_windows_over_a_pixel() -> None:
    module, x, window, stride = network(), image(), 9, 4
    fill = x.double().mean((1, 2), keepdim=True).float()
    total, count = np.zeros(SIZE), np.zeros(SIZE)
    with torch.no_grad():
        clean = float(score(module, x))
        starts = [range(0, stride * -(-(side - window) // stride) + 1, stride) for side in SIZE]
        for top in starts[0]:
            for left in starts[1]:
                place = np.s_[top : top + window, left : left + window]
                hidden = x.clone()
                hidden[:, place[0], place[1]] = fill
                total[place] += clean - float(score(module, hidden))
                count[place] += 1
    assert count.min() > 0
    ours = explained(module, f"captum:Occlusion@window={window},stride={stride}")
    np.testing.assert_allclose(ours, scaled((total / count).clip(min=0)), atol=2e-4)


def test_feature_permutation_exchanges_the_pixels_of_each_region() -> None:
    """Every image that runs has the colours of the image, those of each cell among themselves, in one cell altered."""
    module, seen = network(), []
    model = plain(module, layer=LAYER)
    name = "captum:FeaturePermutation@grid=2,n_samples=3,sign=absolute"
    segfaith.explain(model, image(), target(), [name])  # tests of the model are over
    module.register_forward_hook(lambda part, given, output: seen.extend(given[0].clone()))
    ours = segfaith.explain(model, image(), target(), [name])[name].numpy()
    cells, x, drops = grid_partition(SIZE, 2), image(), torch.zeros(4, dtype=torch.float64)
    altered = [one for one in seen if not torch.equal(one, x)]
    assert len(altered) == 3 * 4
    with torch.no_grad():
        for one in altered:
            (cell,) = cells[(one != x).any(0)].unique().tolist()
            inside = cells == cell
            colours = [sorted(map(tuple, image[:, inside].T.tolist())) for image in (one, x)]
            assert colours[0] == colours[1]
            drops[cell] += (score(network(), x) - score(network(), one)) / 3
    np.testing.assert_allclose(ours, scaled(drops.abs()[cells]), atol=2e-4)
    np.testing.assert_allclose(ours, explained(network(), name), atol=2e-4)  # by fast passes


def test_feature_permutation_of_a_batch_of_one_would_be_zero() -> None:
    """captum skips such a batch, so it gets copies."""
    explainer = FeaturePermutation(lambda images: images.sum((1, 2, 3)), perm_func=lambda images, mask: images.flip(-1))
    assert not explainer.attribute(image()[None], feature_mask=grid_partition(SIZE, 2)[None, None]).any()


def worth() -> tuple[np.ndarray, Tensor]:
    """s with each set of the cells of a 2 x 2 grid there, the others at the mean colour, by the bits of its number."""
    module, x, cells = network(), image(), grid_partition(SIZE, 2)
    fill = x.double().mean((1, 2), keepdim=True).float()
    values = np.zeros(16)
    with torch.no_grad():
        for number in range(16):
            there = torch.tensor([bool(number >> cell & 1) for cell in range(4)])[cells]
            values[number] = float(score(module, torch.where(there, x, fill)))
    return values, cells


def shapley(values: np.ndarray) -> np.ndarray:
    worths = np.zeros(4)
    for cell in range(4):
        others = [one for one in range(4) if one != cell]
        for size in range(4):
            for chosen in combinations(others, size):
                number = sum(1 << one for one in chosen)
                worths[cell] += (values[number | 1 << cell] - values[number]) / (4 * comb(3, size))
    return worths


def lime(values: np.ndarray) -> np.ndarray:
    """Least squares over all sets, weighed by the exponential kernel of their cosine distance to the whole."""
    sets = np.array([[number >> cell & 1 for cell in range(4)] for number in range(16)], dtype=float)
    sizes = sets.sum(1)
    cosine = np.divide(sizes, np.sqrt(sizes) * 2, out=np.zeros(16), where=sizes > 0)
    weights = np.exp(-((1 - cosine) ** 2) / (2 * 0.25**2))
    design = np.hstack([np.ones((16, 1)), sets])
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(design * root, values * root[:, 0], rcond=None)[0][1:]


@pytest.mark.parametrize(
    ("name", "solve"),
    [
        ("ShapleyValueSampling@n_samples=300", shapley),
        ("KernelShap@n_samples=6000", shapley),
        ("Lime@n_samples=6000,alpha=0.0001", lime),
    ],
)
def test_region_methods_come_near_their_exact_values_on_four_cells(name: str, solve: Callable[..., np.ndarray]) -> None:
    values, cells = worth()
    exact = solve(values)
    ours = explained(network(), f"captum:{name},grid=2,sign=absolute")
    np.testing.assert_allclose(ours, scaled(np.abs(exact)[cells.numpy()]), atol=0.05)


@pytest.fixture(scope="module")
def layer() -> tuple[Tensor, Tensor]:
    """Activations of the layer, and the gradient of s there, (K, h, w)."""
    module = network()
    features = module.backbone(image()[None]).detach().requires_grad_()
    s = probability(module.head(features))
    return features[0].detach().double(), torch.autograd.grad(s, features)[0][0].double()


def enlarged(cam: Tensor) -> Tensor:
    return F.interpolate(cam[None, None], size=SIZE, mode="bilinear", align_corners=False)[0, 0]


CAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam:GradCAM": lambda a, g: (g.mean((1, 2), keepdim=True) * a).sum(0),
    "captum:LayerGradCam": lambda a, g: (g.mean((1, 2), keepdim=True) * a).sum(0),
    "gradcam:HiResCAM": lambda a, g: (g * a).sum(0),
    "gradcam:GradCAMElementWise": lambda a, g: (g * a).clamp(min=0).sum(0),
    "gradcam:LayerCAM": lambda a, g: (g.clamp(min=0) * a).sum(0),
    "gradcam:XGradCAM": lambda a, g: ((g * a).sum((1, 2), keepdim=True) / a.sum((1, 2), keepdim=True) * a).sum(0),
}


@pytest.mark.parametrize("name", CAMS)
def test_cams_are_their_formulas(name: str, layer: tuple[Tensor, Tensor]) -> None:
    expected = enlarged(CAMS[name](*layer).clamp(min=0))
    assert expected.std() > 0
    np.testing.assert_allclose(explained(network(), name), scaled(expected), atol=2e-3)


def test_score_cam_is_its_formula(layer: tuple[Tensor, Tensor]) -> None:
    module, x, activations = network(), image(), layer[0]
    worths = []
    with torch.no_grad():
        for channel in activations:
            seen = F.interpolate(channel[None, None], size=SIZE, mode="bilinear", align_corners=True)[0, 0]
            seen = (seen - seen.min()) / (seen.max() - seen.min() + 1e-8)
            worths.append(float(score(module, x * seen.float())))
    weights = torch.tensor(worths, dtype=torch.float64).softmax(0)
    expected = enlarged((weights[:, None, None] * activations).sum(0).clamp(min=0))
    np.testing.assert_allclose(explained(network(), "gradcam:ScoreCAM"), scaled(expected), atol=2e-3)


def ablated(module: SmallCNN, name: str) -> np.ndarray:
    """AblationCAM by a loop: a channel's weight is the relative drop of s when the layer gives 0 there."""
    part = module.get_submodule(name)
    kept: list[Tensor] = []
    with torch.no_grad():
        handle = part.register_forward_hook(lambda part, given, output: kept.append(output.detach().clone()))
        clean = float(score(module, image()))
        handle.remove()
        weights = []
        for channel in range(kept[0].shape[1]):
            without = kept[0].clone()
            without[:, channel] = 0
            handle = part.register_forward_hook(lambda part, given, output, new=without: new)
            weights.append((clean - float(score(module, image()))) / clean)
            handle.remove()
    cam = (torch.tensor(weights, dtype=torch.float64)[:, None, None] * kept[0][0].double()).sum(0)
    return scaled(enlarged(cam.clamp(min=0)))


@pytest.mark.parametrize("name", ["backbone.4", "backbone.0"])
@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_ablation_cam_sets_channels_to_zero_also_where_activations_have_signs(name: str, batch_size: int) -> None:
    module = network()
    ours = explained(module, f"gradcam:AblationCAM@layer={name}", batch_size=batch_size)
    np.testing.assert_allclose(ours, ablated(network(), name), atol=2e-3)
