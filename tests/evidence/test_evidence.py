"""Gradient evidence against autograd by hand, intervention evidence against single passes, batches and flips."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from rederived import cells, mean_occluded, pixel_numbers, region_drops, score
from segfaith.attribution.explain import Gathered, gather, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.errors import SampleError, SettingsError
from segfaith.evidence.gradient import forward_pass, gradient_evidence
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.layer import check_layer
from segfaith.evidence.regions import Regions
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import OPERATORS, occluder
from segfaith.perturbation import Variants, clean_variant
from segfaith.scores import Scalar
from segfaith.types import Target
from segmenters import LinearScore, Symmetric
from toys import SmallCNN, plain

SIZE = (23, 30)


def cnn(seed: int = 0) -> SegmentationModel:
    return plain(SmallCNN(seed=seed), layer="backbone.4")


def three_variants(size: tuple[int, int] = SIZE) -> Variants:
    """Three images with regions of their own, the last one mirrored."""
    rng = np.random.default_rng(1)
    images = torch.from_numpy(rng.random((3, 3, *size), dtype=np.float32))
    regions = torch.zeros(3, *size, dtype=torch.bool)
    regions[0, 4:15, 3:20] = True
    regions[1] = torch.from_numpy(rng.random(size) < 0.2)
    regions[2] = regions[0].flip(-1)
    return Variants(("clean", "noise", "flip"), images, regions)


def scored(model: SegmentationModel, region: Tensor, class_index: int):
    """s_c of one image (3, H, W) in numpy, by a model pass of its own."""

    def compute(image: np.ndarray) -> float:
        with torch.no_grad():
            logits = model.logits(torch.from_numpy(image.astype(np.float32))[None])
        return score(logits[0].numpy(), region.numpy(), class_index)

    return compute


# Gradient evidence


def test_class_0_of_one_channel_is_explained_by_its_own_logit() -> None:
    """-z: its stand-in, the constant 0, would give an empty map."""
    net = zoo.randomised(nn.Sequential(zoo.conv(3, 4), nn.ReLU(), zoo.conv(4, 1, gain=1.0)))
    variants, model = three_variants(), plain(net, layer="1")
    found = [
        gradient_evidence(model, variants.images, variants.regions, Scalar(index), BatchSize(3))[0].gradient
        for index in (0, 1)
    ]
    assert float(found[1].abs().max()) > 1e-3
    assert torch.equal(found[0], -found[1])


@pytest.mark.parametrize("objective", ["logits", "prob"])
@pytest.mark.parametrize("layer", ["backbone.4", "backbone.0"])
def test_gradient_is_that_of_the_full_graph(objective: str, layer: str) -> None:
    """G = dY/dF, one variant at a time, with the whole graph recorded from the image on."""
    variants, module, c = three_variants(), SmallCNN(), 1
    evidence, passed, seconds = gradient_evidence(
        plain(module), variants.images, variants.regions, Scalar(c), BatchSize(2), layer=layer, objective=objective
    )
    assert evidence.size == SIZE
    assert seconds >= passed.seconds > 0
    module.eval()
    for n in range(3):
        captured: list[Tensor] = []
        handle = module.get_submodule(layer).register_forward_hook(lambda m, i, o, kept=captured: kept.append(o))
        x = variants.images[n : n + 1].clone().requires_grad_()
        # the batch norm after backbone.0 works out of place, so what was captured is what it received
        coarse = module(x)["out"]
        handle.remove()
        z = F.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=False)[0]
        mask = variants.regions[n].float()
        p = torch.exp(z[c]) / torch.exp(z).sum(0)
        value = (mask * z[c]).sum() if objective == "logits" else (mask * p).sum() / (mask.sum() + 1e-6)
        (gradient,) = torch.autograd.grad(value, captured)
        scale = float(gradient.abs().max())
        assert scale > 0
        torch.testing.assert_close(evidence.activation[n], captured[0][0].detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(evidence.gradient[n], gradient[0], rtol=0, atol=1e-5 * scale)
        expected = score(z.detach().numpy(), variants.regions[n].numpy(), c)
        assert passed.score[n].item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(passed.prediction[n], z.detach().argmax(0))


GRADIENT_SCALARS = [
    Scalar(2),
    Scalar(2, "logit"),
    Scalar(2, "log_odds"),
    Scalar(2, "margin"),
    Scalar(2, "margin", 0),
    Scalar(2, "conditional"),
    Scalar(2, "conditional", 0),
    Scalar(2, independent=True),
    Scalar(2, "log_odds", independent=True),
]


@pytest.mark.parametrize("objective", ["logits", "prob"])
@pytest.mark.parametrize("scalar", GRADIENT_SCALARS, ids=str)
def test_gradients_of_each_score_are_finite_differences(scalar: Scalar, objective: str) -> None:
    """Y of shifted features F, in float64 from the head on: the sum over M of the score's number, or s."""
    size = (9, 12)
    image = torch.from_numpy(np.random.default_rng(2).random((1, 3, *size), dtype=np.float32))
    region = torch.zeros(1, *size, dtype=torch.bool)
    region[0, 2:7, 3:9] = True
    module = SmallCNN()
    model = plain(module, layer="backbone.4")
    evidence, passed, _ = gradient_evidence(model, image, region, scalar, BatchSize(1), objective=objective)
    head = deepcopy(module.head).double()

    def value(features: Tensor, kind: str) -> float:
        with torch.no_grad():
            z = F.interpolate(head(features[None]), size=size, mode="bilinear", align_corners=False)[0, :, region[0]]
        numbers = pixel_numbers(z.numpy(), scalar.class_index, kind, scalar.versus, scalar.independent)
        return sum(numbers) if objective == "logits" else sum(numbers) / (len(numbers) + 1e-6)

    unsaturated = {"probability": "logit", "conditional": "margin"} if objective == "logits" else {}
    kind = unsaturated.get(scalar.kind, scalar.kind)
    features = evidence.activation[0].double()
    numbers = pixel_numbers(
        F.interpolate(head(features[None]), size=size, mode="bilinear", align_corners=False)[0, :, region[0]]
        .detach()
        .numpy(),
        *(scalar.class_index, scalar.kind, scalar.versus, scalar.independent),
    )
    assert passed.score[0].item() == pytest.approx(sum(numbers) / (len(numbers) + 1e-6), abs=1e-5)
    scale = float(evidence.gradient.abs().max())
    assert scale > 1e-6
    rng = np.random.default_rng(3)
    for _ in range(12):
        place = tuple(int(rng.integers(0, length)) for length in features.shape)
        step = torch.zeros_like(features)
        step[place] = 1e-5
        slope = (value(features + step, kind) - value(features - step, kind)) / 2e-5
        assert evidence.gradient[0][place].item() == pytest.approx(slope, rel=1e-3, abs=1e-4 * scale)


def test_variants_do_not_mix_in_a_norm_of_batch_statistics() -> None:
    """Each is the only image of its batch, whatever the batch size."""
    variants = three_variants()
    model = plain(zoo.randomised(zoo.batch_statistics()), layer="0")

    def of(part: slice, batch: int) -> tuple[Tensor, ...]:
        images, regions = variants.images[part], variants.regions[part]
        evidence, passed, _ = gradient_evidence(model, images, regions, Scalar(1), BatchSize(batch))
        return evidence.activation, evidence.gradient, passed.score

    together = of(slice(3), 3)
    apart = [torch.cat(parts) for parts in zip(*(of(slice(n, n + 1), 1) for n in range(3)), strict=True)]
    for got, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    passed = forward_pass(model, variants.images, variants.regions, Scalar(1), BatchSize(3))
    torch.testing.assert_close(passed.score, apart[2], rtol=0, atol=1e-6)


def test_gradient_of_a_hand_made_layer() -> None:
    """z_1 = 3 F_0 - 2 F_1 on features of the image's size: the gradient is (3, -2) on M and 0 elsewhere."""

    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            f = self.features(x[:, :2])
            return torch.stack([torch.zeros_like(f[:, 0]), 3 * f[:, 0] - 2 * f[:, 1]], 1)

    variants = three_variants()
    evidence, _, _ = gradient_evidence(
        plain(Hand(), layer="features"), variants.images, variants.regions, Scalar(1), BatchSize(3)
    )
    for n in range(3):
        assert torch.equal(evidence.activation[n], variants.images[n, :2])
        assert torch.equal(evidence.gradient[n, 0], 3.0 * variants.regions[n])
        assert torch.equal(evidence.gradient[n, 1], -2.0 * variants.regions[n])


def test_an_in_place_step_after_the_layer_does_not_reach_the_evidence() -> None:
    """backbone.3 is followed by an in-place ReLU: its activation keeps its negative values."""
    variants, module = three_variants(), SmallCNN()
    evidence, _, _ = gradient_evidence(
        plain(module), variants.images, variants.regions, Scalar(1), BatchSize(3), layer="backbone.3"
    )
    module.eval()
    with torch.no_grad():
        before = module.backbone[:4](variants.images)
    torch.testing.assert_close(evidence.activation, before, rtol=0, atol=1e-6)
    assert float(before.min()) < 0
    assert bool((evidence.gradient[before < 0] == 0).all())
    assert bool((evidence.gradient[before > 0] != 0).any())


def test_the_model_comes_back_as_it_was() -> None:
    module = SmallCNN()
    module.backbone.eval()
    module.head.weight.requires_grad_(False)
    train = {name: one.training for name, one in module.named_modules()}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    variants = three_variants()
    gradient_evidence(plain(module, layer="backbone.4"), variants.images, variants.regions, Scalar(1), BatchSize(3))
    with pytest.raises(SampleError, match="class index 9 is not one of the model's 3 classes"):
        gradient_evidence(plain(module, layer="backbone.4"), variants.images, variants.regions, Scalar(9), BatchSize(3))
    assert {name: one.training for name, one in module.named_modules()} == train
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [name for name, one in module.named_parameters() if not one.requires_grad] == ["head.weight"]
    assert not any(one._forward_hooks or one._backward_hooks for one in module.modules())
    assert torch.is_grad_enabled()


class Layers(nn.Module):
    """Modules that cannot serve as a feature layer, each for its own reason."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.aside, self.twice = nn.Identity(), nn.Identity(), nn.Identity()
        self.pooled, self.cut = nn.AdaptiveAvgPool2d(1), nn.Identity()
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        self.flat(x)
        y = self.twice(self.twice(x)).mean(1, keepdim=True) + self.cut(x).detach().mean()
        return torch.cat([-y, y], 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unused", "layer 'unused' did not run in Layers's forward pass; name another layer"),
        ("aside", "logits do not depend on layer 'aside'"),
        ("cut", "logits do not depend on layer 'cut' through differentiable steps; name another layer"),
        ("twice", "layer 'twice' runs more than once in a forward pass; name a layer that runs once"),
        ("flat", r"layer 'flat' returns shape \(1, 2070\); expected a feature map \(N, channels, h, w\)"),
        ("pooledd", "Layers has no layer 'pooledd'; the nearest are pooled"),
    ],
)
def test_layers_that_cannot_serve_are_named(layer: str, message: str) -> None:
    variants = three_variants()
    with pytest.raises(SettingsError, match=message):
        gradient_evidence(plain(Layers()), variants.images, variants.regions, Scalar(1), BatchSize(3), layer=layer)


# Intervention evidence


def test_drops_are_differences_of_single_passes() -> None:
    """delta_r = s(x) - s(O(x, r)) with the mean colour of the variant that is being occluded, on its own region."""
    variants, model, grid = three_variants(), cnn(), 4
    clean = torch.from_numpy(cells(SIZE, grid))
    partition = torch.stack([clean, clean, clean.flip(-1)])
    passed = forward_pass(model, variants.images, variants.regions, Scalar(2), BatchSize(8))
    evidence = intervention_evidence(
        model,
        variants,
        Regions(grid),
        passed.score,
        Scalar(2),
        BatchSize(5),
        rng=lambda: np.random.default_rng(0),
    )
    assert evidence.drop.dtype == torch.float64
    assert torch.equal(evidence.regions, partition)
    assert bool((evidence.drop < 0).any())  # signed: clipping is the method's business
    for n in range(3):
        expected = region_drops(
            variants.images[n].double().numpy(),
            partition[n].numpy(),
            grid * grid,
            scored(model, variants.regions[n], 2),
        )
        np.testing.assert_allclose(evidence.drop[n].numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_serves_interventions(name: str) -> None:
    variants, model = three_variants(), cnn()
    methods = [resolve_method(f"ria@grid=2,occlusion={name}", {})]
    rng = sample_rng(0, "a")
    got = gather(model, variants, Target(1, variants.regions[0]), methods, BatchSize(3), rng)
    asked = Regions(2, name)
    assert list(got.intervention) == [asked]
    for n in range(3):
        operator = occluder(name, variants.images[n], rng(f"evidence|{name}"))
        score_of = scored(model, variants.regions[n], 1)
        for r in range(4):
            occluded = operator((got.intervention[asked].regions[n] == r)[None])[0].numpy()
            expected = score_of(variants.images[n].numpy()) - score_of(occluded)
            assert got.intervention[asked].drop[n, r].item() == pytest.approx(expected, abs=2e-6)


def test_cells_without_pixels_drop_nothing() -> None:
    variants = three_variants((5, 17))
    got = gather(
        cnn(), variants, Target(1, variants.regions[0]), [resolve_method("ria", {})], BatchSize(16), sample_rng(0, "a")
    )
    evidence = got.intervention[Regions()]
    used = np.unique(evidence.regions.numpy())
    assert len(used) == 5 * 14
    empty = np.setdiff1d(np.arange(196), used)
    np.testing.assert_allclose(evidence.drop[:, empty].numpy(), 0, rtol=0, atol=1e-6)
    assert float(evidence.drop[:, used].abs().max()) > 1e-3


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "zero", "dataset_mean", "noise"]), st.integers(1, 6))
def test_on_a_linear_model_region_drops_add_up(seed: int, operator: str, grid: int) -> None:
    """The drop of a union of cells is the sum of theirs, and all cells together give s(x) - s(O(x, all))."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.random((3, 13, 17), dtype=np.float32))
    region = torch.from_numpy(rng.random((13, 17)) < 0.3)
    region[6, 6] = True
    model = plain(LinearScore(seed), layer="features")
    name = f"ria@grid={grid},occlusion={operator}"
    make = sample_rng(seed, "a")
    got = gather(
        model,
        clean_variant(image, region),
        Target(1, clean_variant(image, region).regions[0]),
        [resolve_method(name, {})],
        BatchSize(16),
        make,
    )
    evidence = got.intervention[Regions(grid, operator)]
    drops, partition = evidence.drop[0].numpy(), evidence.regions[0].numpy()
    score_of = scored(model, region, 1)
    occlude = occluder(operator, image, make(f"evidence|{operator}"))
    for union in (np.arange(grid * grid), np.flatnonzero(rng.random(grid * grid) < 0.5)):
        occluded = occlude(torch.from_numpy(np.isin(partition, union))[None])[0].numpy()
        assert drops[union].sum() == pytest.approx(score_of(image.numpy()) - score_of(occluded), abs=2e-6)


# All evidence of a sample


def close(one: Gathered, other: Gathered, tolerance: float) -> None:
    assert list(one.gradient) == list(other.gradient)
    assert list(one.intervention) == list(other.intervention)
    for key, gradient in one.gradient.items():
        torch.testing.assert_close(gradient.activation, other.gradient[key].activation, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradient.gradient, other.gradient[key].gradient, rtol=tolerance, atol=tolerance)
    for key, intervention in one.intervention.items():
        torch.testing.assert_close(intervention.drop, other.intervention[key].drop, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.forward.score, other.forward.score, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def evidence_in_batches() -> dict[int, Gathered]:
    """The same evidence in batches of 1, 3, 8 and 64, which cross from one variant to the next."""
    methods = [resolve_method(name, {}) for name in ("dea@grid=5", "ega@objective=prob", "ria@grid=3,occlusion=blur")]
    return {
        images: gather(
            cnn(),
            three_variants((12, 17)),
            Target(1, three_variants((12, 17)).regions[0]),
            methods,
            BatchSize(images),
            sample_rng(0, "a"),
        )
        for images in (1, 3, 8, 64)
    }


@pytest.mark.parametrize("images", [3, 8, 64])
def test_batch_size_does_not_change_the_evidence(images: int, evidence_in_batches: dict[int, Gathered]) -> None:
    close(evidence_in_batches[images], evidence_in_batches[1], 1e-6)


class Counted(SmallCNN):
    """Counts the images that go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.passes += len(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (["gpa", "ega", "ria", "dea", "dea@alpha=0.8", "random", "random_cells", "mask"], 1 + 196),
        (["gpa"], 1),
        (["ria"], 1 + 196),
        (["ria", "ria@grid=7"], 1 + 196 + 49),
        (["ria", "dea@occlusion=zero"], 1 + 196 + 196),
        (["gpa", "gpa@layer=backbone.1"], 2),
        (["random"], 1),
    ],
)
def test_each_piece_of_evidence_is_gathered_once(names: list[str], passes: int) -> None:
    model = plain(Counted(), layer="backbone.4")
    model.incremental = False  # a traced copy would not count
    methods = [resolve_method(name, {}) for name in names]
    variants = three_variants((9, 14))
    for layer in ("backbone.4", "backbone.1"):
        check_layer(model, layer, variants.images[0])  # once per layer, however many samples follow
    model.module.passes = 0
    got = gather(model, variants, Target(1, variants.regions[0]), methods, BatchSize(32), sample_rng(0, "a"))
    assert model.module.passes == 3 * passes
    if names[0] == "gpa" and len(names) > 2:
        cost = {method.name: got.cost(method) for method in methods}
        assert cost["gpa"] == cost["ega"] > 0
        assert cost["dea"] == cost["dea@alpha=0.8"] > cost["ria"] > cost["random"] == cost["mask"] == 0
        assert cost["dea"] == pytest.approx(sum(got.seconds.values()))
        assert cost["ria"] == pytest.approx(got.seconds[Regions()] + got.forward.seconds)


def test_a_mirrored_variant_has_mirrored_evidence() -> None:
    """Cells of uneven width included: 27 x 33 pixels under a 14 x 14 grid."""
    size = (27, 33)
    image = torch.from_numpy(np.random.default_rng(2).random((3, *size), dtype=np.float32))
    region = torch.zeros(size, dtype=torch.bool)
    region[5:20, 2:15] = True
    variants = Variants(("clean", "flip"), torch.stack([image, image.flip(-1)]), torch.stack([region, region.flip(-1)]))
    assert not torch.equal(torch.from_numpy(cells(size, 14) % 14), 13 - torch.from_numpy(cells(size, 14) % 14).flip(-1))
    model = plain(Symmetric(), layer="backbone")
    got = gather(
        model, variants, Target(1, variants.regions[0]), [resolve_method("dea", {})], BatchSize(8), sample_rng(0, "a")
    )
    (gradient,) = got.gradient.values()
    torch.testing.assert_close(gradient.activation[1].flip(-1), gradient.activation[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient.gradient[1].flip(-1), gradient.gradient[0], rtol=0, atol=1e-4)
    (intervention,) = got.intervention.values()
    torch.testing.assert_close(intervention.drop[1], intervention.drop[0], rtol=0, atol=1e-6)
    assert torch.equal(intervention.regions[1].flip(-1), intervention.regions[0])
    assert float(intervention.drop.abs().max()) > 1e-3


def test_occluding_the_mean_by_hand_agrees_with_numpy() -> None:
    """The helper of these tests replaces what is chosen and nothing else."""
    image = np.arange(24.0).reshape(3, 2, 4)
    chosen = np.array([[True, False, False, False], [False, False, False, True]])
    expected = image.copy()
    for channel, mean in enumerate((3.5, 11.5, 19.5)):
        expected[channel, 0, 0] = expected[channel, 1, 3] = mean
    assert np.array_equal(mean_occluded(image, chosen), expected)
