"""Every method of the table by loops: from evidence alone, and from an image through the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

import segfaith
from rederived import bilinear, block_pool, cells, dea, ega, gpa, minmax, region_drops, ria, score
from segfaith.attribution import cam, controls, fusion, heatmap, region
from segfaith.attribution.explain import gather, heatmaps, sample_rng
from segfaith.attribution.maps import read_map
from segfaith.attribution.methods import METHODS, resolve_method
from segfaith.batching import BatchSize
from segfaith.errors import SampleError
from segfaith.evidence.regions import Regions
from segfaith.perturbation import perturbed_variants
from segfaith.types import GradientEvidence, InterventionEvidence, Target
from segmenters import Symmetric
from toys import SmallCNN, plain

SIZE = (20, 27)


def gradient_evidence(seed: int, variants: int = 2, shape: tuple[int, int, int] = (5, 7, 9)) -> GradientEvidence:
    rng = np.random.default_rng(seed)
    activation, gradient = rng.normal(size=(2, variants, *shape)).astype(np.float32)
    return GradientEvidence(torch.from_numpy(activation), torch.from_numpy(gradient), SIZE)


def intervention_evidence(seed: int, variants: int = 2, grid: int = 6) -> InterventionEvidence:
    rng = np.random.default_rng(seed)
    partition = torch.from_numpy(cells(SIZE, grid)).expand(variants, *SIZE)
    drop = torch.from_numpy(rng.normal(0.1, 0.3, (variants, grid * grid)))
    return InterventionEvidence(partition, drop, drop.clamp(min=0))


def arrays(evidence: GradientEvidence, n: int) -> tuple[np.ndarray, np.ndarray]:
    return evidence.activation[n].double().numpy(), evidence.gradient[n].double().numpy()


def close(got: Tensor, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.double().numpy(), expected, rtol=0, atol=tolerance)


# Shared last steps


def test_minmax_is_per_map_and_flat_maps_become_zeros(rng: np.random.Generator) -> None:
    maps = rng.normal(0, 5, (3, 4, 6))
    maps[1] = 0.7
    maps[2] *= 1e-9  # small, but no constant
    got = heatmap.minmax(torch.from_numpy(maps)).numpy()
    np.testing.assert_allclose(got, [minmax(one) for one in maps], rtol=0, atol=1e-12)
    assert [one.min() for one in got] == [0, 0, 0]
    assert [one.max() for one in got] == [1, 0, 1]


@pytest.mark.parametrize(("span", "degenerate"), [(0.9e-12, True), (1.1e-12, False)])
def test_a_range_below_1e_12_is_degenerate(span: float, degenerate: bool) -> None:
    one = torch.zeros(1, 3, 3, dtype=torch.float64)
    one[0, 1, 1] = span
    got = heatmap.minmax(one)
    assert float(got.max()) == (0 if degenerate else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_range_that_is_beyond_the_float_type_is_no_nan(dtype: torch.dtype) -> None:
    """As of infinities that `numpy.nan_to_num` made finite."""
    most = torch.finfo(dtype).max
    maps = torch.tensor([[[-most, 0, most / 2, most]], [[0, 1, 2, 4]]], dtype=dtype)
    torch.testing.assert_close(heatmap.minmax(maps), torch.tensor([[[0, 0.5, 0.75, 1]], [[0, 0.25, 0.5, 1]]]).to(dtype))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 9), (20, 27), (30, 40)])
def test_upsampling_is_bilinear_without_aligned_corners(shape: tuple[int, int], rng: np.random.Generator) -> None:
    coarse = rng.normal(size=shape)
    got = heatmap.upsample(torch.from_numpy(coarse)[None], SIZE)[0].numpy()
    np.testing.assert_allclose(got, bilinear(coarse, SIZE), rtol=0, atol=1e-12)


# From evidence


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 4, 4), (3, 1, 6)])
def test_gpa_weighs_channels_by_their_mean_gradient(shape: tuple[int, int, int]) -> None:
    evidence = gradient_evidence(0, shape=shape)
    for n, got in enumerate(cam.gpa(evidence)):
        close(got, gpa(*arrays(evidence, n), SIZE))
        assert got.shape == SIZE


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 8, 11, 30])
def test_ega_weighs_pixels_by_their_pooled_gradient(pool: str, window: int) -> None:
    """Windows that do not divide 7 x 9, and windows beyond it."""
    evidence = gradient_evidence(1)
    pooled = cam.block_pool(evidence.gradient, pool, window)
    for n, got in enumerate(cam.ega(evidence, pool=pool, window=window)):
        expected = block_pool(evidence.gradient[n].double().numpy(), pool, window)
        np.testing.assert_allclose(pooled[n].double().numpy(), expected, rtol=0, atol=1e-6)
        close(got, ega(*arrays(evidence, n), SIZE, pool, window))


def test_a_window_of_one_pools_nothing() -> None:
    evidence = gradient_evidence(2)
    for pool in ("mean", "max"):
        assert torch.equal(cam.block_pool(evidence.gradient, pool, 1), evidence.gradient)


@pytest.mark.parametrize("window", [9, 10, 64])
def test_mean_pooling_over_the_whole_map_is_gpa(window: int) -> None:
    evidence = gradient_evidence(3)
    whole = cam.ega(evidence, pool="mean", window=window)
    torch.testing.assert_close(whole, cam.gpa(evidence), rtol=0, atol=1e-5)
    assert not torch.allclose(cam.ega(evidence, pool="max", window=window), cam.gpa(evidence), atol=1e-2)


def test_relu_comes_before_upsampling() -> None:
    """A negative sum next to a positive one does not lower the pixels between them."""
    activation = torch.tensor([[[[1.0, -1.0]]]])
    evidence = GradientEvidence(activation, torch.ones(1, 1, 1, 2), (1, 4))
    close(cam.ega(evidence, pool="mean", window=1)[0], np.array([[1, 0.75, 0.25, 0]]))


def test_ria_paints_the_value_of_a_region_and_not_its_drop() -> None:
    """Adaptive regions spread a cell's drop over its parts, so the two differ."""
    evidence = intervention_evidence(0)
    value = torch.from_numpy(np.random.default_rng(3).random(evidence.drop.shape))
    for n, got in enumerate(region.ria(InterventionEvidence(evidence.regions, evidence.drop, value))):
        close(got, ria(value[n].tolist(), evidence.regions[n].numpy()))


def test_ria_paints_each_cell_with_its_clipped_drop() -> None:
    evidence = intervention_evidence(0)
    assert bool((evidence.drop < 0).any())
    for n, got in enumerate(region.ria(evidence)):
        close(got, ria(evidence.drop[n].tolist(), evidence.regions[n].numpy()))
        for cell in range(36):
            assert len(got[evidence.regions[n] == cell].unique()) == 1
        assert bool((got[evidence.drop[n][evidence.regions[n]] <= 0] == 0).all())


def test_ria_without_any_drop_is_degenerate() -> None:
    evidence = intervention_evidence(0)
    harm = -evidence.drop.abs()
    harmless = InterventionEvidence(evidence.regions, harm, harm.clamp(min=0))
    assert torch.equal(region.ria(harmless), torch.zeros(2, *SIZE))


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.65, 0.35), (0.5, 0.5), (0.8, 0.35), (0.0, 0.35), (1.0, 0.0), (0.3, 4.0)]
)
def test_dea_is_equation_two(alpha: float, beta: float) -> None:
    gradient, intervention = gradient_evidence(4), intervention_evidence(4)
    fused = fusion.dea(gradient, intervention, alpha=alpha, beta=beta, pool="mean", window=1)
    for n, got in enumerate(fused):
        gradient_map = ega(*arrays(gradient, n), SIZE)
        region_map = ria(intervention.drop[n].tolist(), intervention.regions[n].numpy())
        close(got, dea(gradient_map, region_map, alpha, beta), 5e-6)


@pytest.mark.parametrize(("alpha", "beta", "interpolation"), [(0.02, 0.35, 0.35), (0.0, 1.0, 1.0), (0.3, 0.0, 0.0)])
def test_mea_refines_what_was_measured(alpha: float, beta: float, interpolation: float) -> None:
    gradient, intervention = gradient_evidence(3), intervention_evidence(4)
    fused = fusion.mea(
        gradient, intervention, alpha=alpha, beta=beta, interpolation=interpolation, pool="mean", window=1
    )
    for n, got in enumerate(fused):
        gradient_map = ega(*arrays(gradient, n), SIZE)
        region_map = ria(intervention.drop[n].tolist(), intervention.regions[n].numpy())
        reach = 2  # 540 pixels in 36 regions: 3.9 pixels a side
        between = np.zeros(SIZE)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                window = region_map[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
                between[row, column] = window.mean()
        measured = minmax((1 - interpolation) * region_map + interpolation * between)
        close(got, minmax(measured * (1 + beta * gradient_map) + alpha * gradient_map), 5e-6)


def test_mea_of_wired_photographs_is_that_of_each_half() -> None:
    """A drop at the seam must not reach the other photograph."""
    partition = torch.from_numpy(cells((20, 40), 10))
    drop = torch.zeros(1, 100, dtype=torch.float64)
    drop[0, partition[:, 19].unique()] = torch.linspace(0.1, 0.9, 10, dtype=torch.float64)
    intervention = InterventionEvidence(partition[None], drop, drop)
    parameters = {"alpha": 0.0, "beta": 0.0, "interpolation": 1.0}
    nothing = torch.zeros(1, 20, 40)
    apart = fusion.refine(nothing, intervention, **parameters, wired=True)
    assert apart[0, :, :20].max() == 1
    assert apart[0, :, 20:].max() == 0
    assert fusion.refine(nothing, intervention, **parameters)[0, :, 20:].max() > 0


def test_meas_window_is_that_of_the_half_where_photographs_are_wired() -> None:
    """Superpixels and adaptive cells may be fewer in one half than in the other."""
    left, right = torch.from_numpy(cells((20, 20), 5)), torch.from_numpy(cells((20, 20), 2)) + 25
    drop = torch.zeros(1, 29, dtype=torch.float64)
    drop[0, 12] = 0.5
    wired = InterventionEvidence(torch.cat([left, right], -1)[None], drop, drop)
    alone = InterventionEvidence(left[None], drop[:, :25], drop[:, :25])
    parameters = {"alpha": 0.0, "beta": 0.0, "interpolation": 1.0}
    got = fusion.refine(torch.zeros(1, 20, 40), wired, **parameters, wired=True)
    torch.testing.assert_close(got[..., :20], fusion.refine(torch.zeros(1, 20, 20), alone, **parameters))


def test_mea_is_ria_where_nothing_refines_it() -> None:
    gradient, intervention = gradient_evidence(3), intervention_evidence(4)
    plain_map = fusion.mea(gradient, intervention, alpha=0.0, beta=0.0, interpolation=0.0, pool="mean", window=1)
    assert torch.equal(plain_map, region.ria(intervention))


def test_dea_at_its_ends_is_one_of_its_sources() -> None:
    gradient, intervention = gradient_evidence(5), intervention_evidence(5)
    ends = [fusion.dea(gradient, intervention, alpha=a, beta=0.0, pool="max", window=2) for a in (1.0, 0.0)]
    torch.testing.assert_close(ends[0], cam.ega(gradient, pool="max", window=2), rtol=0, atol=1e-6)
    torch.testing.assert_close(ends[1], region.ria(intervention), rtol=0, atol=1e-6)


def test_the_defaults_are_those_of_the_paper() -> None:
    given = resolve_method("dea", {}).parameters.model_dump()
    assert given == {
        "alpha": 0.65,
        "beta": 0.35,
        "pool": "mean",
        "window": 1,
        "grid": 14,
        "occlusion": "mean",
        "regions": "grid",
        "passes": 80,
        "refine": "drop",
        "precision": "fp32",
        "objective": "logits",
        "layer": None,
    }


# Controls


def test_random_is_uniform_per_pixel_and_random_cells_per_cell() -> None:
    regions = torch.zeros(2, 60, 70, dtype=torch.bool)
    pixels = controls.random_pixels(regions, [np.random.default_rng(n) for n in range(2)])
    assert pixels.shape == (2, 60, 70)
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) < 1
    assert len(pixels[0].unique()) > 4000
    assert float(pixels.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(pixels.var()) == pytest.approx(1 / 12, abs=0.005)
    across = np.corrcoef(pixels.flatten(1).numpy())[0, 1]
    beside = np.corrcoef(pixels[0, :, 1:].flatten().numpy(), pixels[0, :, :-1].flatten().numpy())[0, 1]
    assert abs(across) < 0.06
    assert abs(beside) < 0.06
    partition = torch.from_numpy(cells((60, 70), 14)).expand(2, -1, -1)
    coarse = controls.random_cells(partition, [np.random.default_rng(n) for n in range(2)])
    for one in coarse:
        values = [one[partition[0] == cell].unique() for cell in range(196)]
        assert {len(value) for value in values} == {1}
        assert len(torch.cat(values).unique()) == 196
    assert abs(np.corrcoef(coarse.flatten(1).numpy())[0, 1]) < 0.25


def test_mask_is_the_region_itself() -> None:
    regions = torch.from_numpy(np.random.default_rng(0).random((2, *SIZE)) < 0.5)
    assert torch.equal(controls.mask(regions), torch.where(regions, 1.0, 0.0))


def test_gamed_is_the_mask_with_two_hidden_orders() -> None:
    """By loops; inside M it ranks as RIA does, outside in the reverse order of what was measured."""
    evidence = intervention_evidence(5)
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[:, 5:14, 6:20] = True
    got = controls.gamed(evidence, masks)
    for n in range(2):
        drop, partition = evidence.drop[n].tolist(), evidence.regions[n].tolist()
        shares = ria(np.array(drop), np.array(partition))
        absolute = minmax(np.array([[abs(drop[cell]) for cell in row] for row in partition]))
        raw = np.zeros(SIZE)
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                raw[y, x] = 1 + 0.02 * shares[y, x] if masks[n, y, x] else 0.02 * (1 - absolute[y, x])
        np.testing.assert_allclose(got[n].numpy(), minmax(raw), atol=1e-6)
        inside, outside = masks[n].numpy(), ~masks[n].numpy()
        assert spearmanr(got[n].numpy()[inside], shares[inside]).statistic == pytest.approx(1)
        assert spearmanr(got[n].numpy()[outside], absolute[outside]).statistic == pytest.approx(-1)
        assert np.corrcoef(got[n].numpy().ravel(), inside.ravel())[0, 1] > 0.999


# From an image, through the model


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(seed).random((3, *size), dtype=np.float32))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[4 : size[0] - 5, 3 : size[1] // 2] = True
    return image, Target(1, mask)


def by_hand(module: SmallCNN, image: Tensor, target: Target, partition: np.ndarray, grid: int) -> dict[str, np.ndarray]:
    """GPA, EGA, RIA and DEA of one image, from the module alone; `partition` says which pixels a cell has."""
    size = (image.shape[1], image.shape[2])
    module.eval()
    with torch.no_grad():
        activation = module.backbone(image[None])
    activation.requires_grad_()
    z = F.interpolate(module.head(activation), size=size, mode="bilinear", align_corners=False)
    (gradient,) = torch.autograd.grad(z[0, target.class_index][target.region].sum(), activation)
    features = (activation[0].detach().double().numpy(), gradient[0].double().numpy(), size)

    def scored(values: np.ndarray) -> float:
        with torch.no_grad():
            coarse = module(torch.from_numpy(values.astype(np.float32))[None])["out"]
        logits = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]
        return score(logits.numpy(), target.region.numpy(), target.class_index)

    maps = {"gpa": gpa(*features), "ega": ega(*features)}
    maps["ria"] = ria(region_drops(image.double().numpy(), partition, grid * grid, scored), partition)
    maps["dea"] = dea(maps["ega"], maps["ria"])
    return maps


def test_explain_gives_what_loops_give() -> None:
    """The four methods with their defaults, but a grid of 5 to spare passes."""
    image, target = photograph()
    module, names = SmallCNN(), {"gpa": "gpa", "ega": "ega", "ria": "ria@grid=5", "dea": "dea@grid=5"}
    got = segfaith.explain(plain(module, layer="backbone.4"), image, target, list(names.values()))
    expected = by_hand(module, image, target, cells(SIZE, 5), 5)
    for key, name in names.items():
        assert expected[key].max() == 1
        close(got[name], expected[key], 1e-4)  # the largest drop is small, so min-max enlarges float32's rounding


def test_every_variant_is_explained_as_an_image_of_its_own() -> None:
    """The perturbed image with its own mask, its own mean colour, and for `flip` the mirrored partition."""
    image, target = photograph()
    module, grid = SmallCNN(), 4
    variants = perturbed_variants(image, target.region, 0.03, lambda name: np.random.default_rng(0))
    methods = [
        resolve_method(f"{name}@grid={grid}" if name in ("ria", "dea") else name, {}) for name in list(METHODS)[:4]
    ]
    rng = sample_rng(0, "a")
    gathered = gather(
        plain(module, layer="backbone.4"), variants, Target(1, variants.regions[0]), methods, BatchSize(7), rng
    )
    maps = {one.method.name: heatmaps(plain(module), gathered, one, rng, "a") for one in methods}
    for n, name in enumerate(variants.names):
        partition = cells(SIZE, grid)[:, ::-1] if name == "flip" else cells(SIZE, grid)
        own = Target(1, variants.regions[n])
        for key, expected in by_hand(module, variants.images[n], own, partition.copy(), grid).items():
            close(maps[key][n], expected, 2e-4)


def test_controls_are_redrawn_for_every_variant_and_draw() -> None:
    image, target = photograph((40, 42))
    variants = perturbed_variants(image, target.region, 0.03, lambda name: np.random.default_rng(0))
    methods = [resolve_method(name, {}) for name in ("random", "random_cells", "mask")]
    rng, model = sample_rng(0, "a"), plain(SmallCNN())
    gathered = gather(model, variants, Target(1, variants.regions[0]), methods, BatchSize(8), rng)
    for one in methods[:2]:
        assert one.method.draws == (3 if one.name == "random_cells" else 1)
        drawn = [heatmaps(model, gathered, one, rng, "a", draw) for draw in range(2)]
        every = np.corrcoef(torch.cat(drawn).flatten(1).double().numpy())
        assert np.abs(every[~np.eye(10, dtype=bool)]).max() < 0.35  # ten maps, none like another
        assert torch.equal(heatmaps(model, gathered, one, rng, "a", 1), drawn[1])
        other = heatmaps(model, gathered, one, sample_rng(1, "a"), "a")
        assert not torch.equal(other, drawn[0])
    partition = torch.from_numpy(cells((40, 42), 14))
    for name, one in zip(variants.names, heatmaps(model, gathered, methods[1], rng, "a"), strict=True):
        own = partition.flip(-1) if name == "flip" else partition
        assert all(len(one[own == cell].unique()) == 1 for cell in range(196))
    masks = heatmaps(model, gathered, methods[2], rng, "a")
    assert torch.equal(masks, variants.regions.float())


def test_random_cells_follows_the_grid_of_ria() -> None:
    given = resolve_method("random_cells", {"ria": {"grid": 7, "occlusion": "zero"}})
    assert given.regions == Regions(7, "zero")
    assert resolve_method("random_cells@grid=3", {"ria": {"grid": 7}}).regions == Regions(3)
    assert given.options == {}


@pytest.mark.parametrize("size", [(28, 42), (42, 84)])
def test_flipping_image_and_mask_flips_the_map(size: tuple[int, int]) -> None:
    """On an equivariant model, with cells of even width."""
    image, target = photograph(size)
    model = plain(Symmetric(), layer="backbone")
    names = ["gpa", "ega", "ria", "dea", "mea"]
    maps = segfaith.explain(model, image, target, names, batch_size=64)
    flipped = segfaith.explain(model, image.flip(-1), Target(1, target.region.flip(-1)), names, batch_size=64)
    for name in names:
        assert float(maps[name].max()) == 1
        assert not torch.allclose(maps[name], maps[name].flip(-1), atol=0.1)
        torch.testing.assert_close(flipped[name].flip(-1), maps[name], rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "max"]), st.integers(1, 5))
def test_the_order_of_channels_does_not_matter(seed: int, pool: str, window: int) -> None:
    evidence = gradient_evidence(seed, shape=(6, 5, 4))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(6))
    shuffled = GradientEvidence(evidence.activation[:, order], evidence.gradient[:, order], SIZE)
    for method in (cam.gpa, lambda one: cam.ega(one, pool=pool, window=window)):
        torch.testing.assert_close(method(shuffled), method(evidence), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_the_numbers_of_regions_do_not_matter(seed: int, grid: int) -> None:
    evidence = intervention_evidence(seed, grid=grid)
    numbers = torch.from_numpy(np.random.default_rng(seed).permutation(grid * grid))
    drop = torch.empty_like(evidence.drop)
    drop[:, numbers] = evidence.drop
    shuffled = InterventionEvidence(numbers[evidence.regions], drop, drop.clamp(min=0))
    assert torch.equal(region.ria(shuffled), region.ria(evidence))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_scale_of_the_evidence_does_not_matter(seed: int, scale: float) -> None:
    """Gradients of a sum over M grow with M; min-max takes that out, and every map stays in [0, 1]."""
    evidence, drops = gradient_evidence(seed), intervention_evidence(seed)
    larger = GradientEvidence(evidence.activation, scale * evidence.gradient, SIZE)
    more = InterventionEvidence(drops.regions, scale * drops.drop, scale * drops.value)
    parameters = {"alpha": 0.65, "beta": 0.35, "pool": "mean", "window": 1}
    for one, other in [
        (cam.gpa(evidence), cam.gpa(larger)),
        (region.ria(drops), region.ria(more)),
        (fusion.dea(evidence, drops, **parameters), fusion.dea(larger, more, **parameters)),
        (
            fusion.mea(evidence, drops, **parameters, interpolation=0.4),
            fusion.mea(larger, more, **parameters, interpolation=0.4),
        ),
    ]:
        torch.testing.assert_close(other, one, rtol=0, atol=1e-4)
        assert float(one.min()) == 0
        assert float(one.max()) == 1


def test_a_method_of_ones_own_is_checked_and_normalised() -> None:
    image, target = photograph()

    def red(model: segfaith.SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return 5 * image[0] - 2

    def transposed(model: segfaith.SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return image[0].T

    def broken(model: segfaith.SegmentationModel, image: Tensor, target: Target) -> np.ndarray:
        values = image[0].numpy().copy()
        values[:2, 0] = np.nan
        return values

    def spectrum(model: segfaith.SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return torch.fft.fft2(image[0])

    def own(function) -> segfaith.Method:
        return segfaith.Method(function.__name__, "here", ("model",), function)

    model = plain(SmallCNN())
    close(segfaith.explain(model, image, target, [own(red)])["red"], minmax(image[0].double().numpy()))
    with pytest.raises(SampleError, match=r"'transposed' returned \(27, 20\); expected a map of shape \(20, 27\)"):
        segfaith.explain(model, image, target, [own(transposed)])
    with pytest.raises(SampleError, match="'broken' returned 2 values that are NaN or infinite"):
        segfaith.explain(model, image, target, [own(broken)])
    with pytest.raises(SampleError, match=r"'spectrum' returned torch.complex64; expected real numbers"):
        segfaith.explain(model, image, target, [own(spectrum)])


def test_a_map_stored_as_a_palettes_indices_is_refused(tmp_path: Path) -> None:
    """Its numbers are places in a table of colours, whose order says nothing."""
    PillowImage.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(SampleError, match=r"a\.png holds palette indices, not values; expected a grey image"):
        read_map(tmp_path, "a", (3, 4))
    PillowImage.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "a.png")
    assert read_map(tmp_path, "a", (3, 4)).flatten().tolist() == pytest.approx([value / 11 for value in range(12)])
