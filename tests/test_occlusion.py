"""Occlusion operators, partitions and perturbations by loops, for every name in their tables."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from rederived import blurred, cells, mean_occluded
from segfaith.errors import SettingsError
from segfaith.occlusion import OPERATORS, ROAD_NOISE, gaussian_blur, grid_partition, mean_colour, occluder
from segfaith.perturbation import PERTURBATIONS, clean_variant, perturbed_variants

SIZE = (29, 34)
NAMES = ["mean", "zero", "dataset_mean", "blur", "noise", "road"]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def image() -> Tensor:
    """Colours that differ from channel to channel and from left to right."""
    values = generator(7).random((3, *SIZE)) * np.array([0.9, 0.5, 0.2])[:, None, None]
    values[0] += np.linspace(0, 0.1, SIZE[1])
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture
def chosen() -> Tensor:
    """Three sets: scattered pixels, a block at the border, one pixel."""
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0] = torch.from_numpy(generator(3).random(SIZE) < 0.3)
    masks[1, 20:, :11] = True
    masks[2, 5, 9] = True
    return masks


# Partitions


@pytest.mark.parametrize("size", [(224, 224), (28, 42), (29, 45), (15, 14), (13, 27), (7, 30), (1, 5), (1, 1)])
@pytest.mark.parametrize("grid", [1, 2, 7, 14])
def test_cells_have_their_borders_at_the_floor_of_i_h_over_g(size: tuple[int, int], grid: int) -> None:
    assert np.array_equal(grid_partition(size, grid).numpy(), cells(size, grid))


def test_fewer_rows_than_cells_leave_cells_without_pixels() -> None:
    used = grid_partition((3, 28), 14).unique().tolist()
    rows = sorted({cell // 14 for cell in used})
    assert rows == [4, 9, 13]  # the rows i with floor(3 i / 14) < floor(3 (i + 1) / 14)
    assert len(used) == 3 * 14


def test_a_grid_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 cell a side, got 0"):
        grid_partition((8, 8), 0)


# Operators


def fills(name: str, image: Tensor) -> np.ndarray:
    """What every pixel becomes, in float64."""
    values = image.double().numpy()
    if name == "mean":
        return mean_occluded(values, np.ones(SIZE, bool))
    if name == "zero":
        return np.zeros_like(values)
    if name == "dataset_mean":
        return np.broadcast_to(np.array([0.485, 0.456, 0.406])[:, None, None], values.shape)
    if name == "blur":
        return blurred(values, 10 * SIZE[0] / 224)
    raise AssertionError(name)


def test_the_table_has_every_operator_of_the_spec() -> None:
    assert list(OPERATORS) == NAMES


@pytest.mark.parametrize("name", ["mean", "zero", "dataset_mean", "blur"])
def test_chosen_pixels_are_replaced(name: str, image: Tensor, chosen: Tensor) -> None:
    expected = fills(name, image)
    for mask, got in zip(chosen, occluder(name, image, generator())(chosen), strict=True):
        wanted = np.where(mask.numpy(), expected, image.double().numpy())
        np.testing.assert_allclose(got.double().numpy(), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_leaves_the_other_pixels_and_the_image_alone(name: str, image: Tensor, chosen: Tensor) -> None:
    before = image.clone()
    occluded = occluder(name, image, generator())(chosen)
    assert occluded.shape == (3, 3, *SIZE)
    assert torch.equal(image, before)
    for mask, got in zip(chosen, occluded, strict=True):
        assert torch.equal(got[:, ~mask], image[:, ~mask])
        assert not torch.equal(got[:, mask], image[:, mask])
    assert float(occluded.min()) >= 0
    assert float(occluded.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_occluding_nothing_is_the_identity(name: str, image: Tensor) -> None:
    nothing = torch.zeros(1, *SIZE, dtype=torch.bool)
    assert torch.equal(occluder(name, image, generator())(nothing)[0], image)


@pytest.mark.parametrize("name", ["mean", "zero", "dataset_mean", "blur"])
def test_the_whole_image_can_be_occluded(name: str, image: Tensor) -> None:
    whole = occluder(name, image, generator())(torch.ones(1, *SIZE, dtype=torch.bool))[0]
    np.testing.assert_allclose(whole.double().numpy(), fills(name, image), rtol=0, atol=2e-6)


def test_mean_is_that_of_the_image_being_occluded(image: Tensor, chosen: Tensor) -> None:
    """Not of another image, of the pixels that stay, or of those that go."""
    darker = image / 2
    for one in (image, darker):
        got = occluder("mean", one, generator())(chosen)[1]
        np.testing.assert_allclose(got[:, 25, 3].double().numpy(), one.double().mean((1, 2)).numpy(), atol=1e-7)
    assert not torch.allclose(image.mean((1, 2)), image[:, ~chosen[1]].mean(1), atol=1e-4)


def test_mean_colour_is_summed_in_float64() -> None:
    image = torch.full((3, 641, 487), 0.1)
    assert torch.equal(mean_colour(image), torch.full((3,), 0.1))


def test_blur_scales_with_the_height() -> None:
    """sigma = 10 px at H = 224: a white line spreads to a standard deviation of 10 at 224 and of 5 at 112."""
    for height in (224, 112):
        image = torch.zeros(3, height, 200)
        image[:, :, 100] = 1.0
        row = occluder("blur", image, generator())(torch.ones(1, height, 200, dtype=torch.bool))[0, 0, 50].double()
        assert float(row.sum()) == pytest.approx(1, abs=1e-5)
        deviation = float((row * (torch.arange(200) - 100) ** 2).sum().sqrt())
        assert deviation == pytest.approx(10 * height / 224, rel=0.02)  # the kernel is cut at 3 sigma
        assert int((row > 0).sum()) == 2 * int(np.ceil(30 * height / 224)) + 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.25])
def test_gaussian_blur_reflects_at_the_border(sigma: float, image: Tensor) -> None:
    expected = blurred(image.double().numpy(), sigma)
    np.testing.assert_allclose(gaussian_blur(image, sigma).double().numpy(), expected, rtol=0, atol=2e-6)


def test_noise_is_uniform_seeded_and_the_same_in_every_set(image: Tensor, chosen: Tensor) -> None:
    whole = torch.ones(1, *SIZE, dtype=torch.bool)
    operator = occluder("noise", image, generator(5))
    values = operator(whole)[0]
    assert kstest(values.flatten().numpy(), "uniform").pvalue > 0.01
    channels = np.corrcoef(values.flatten(1).numpy())
    assert np.abs(channels[~np.eye(3, dtype=bool)]).max() < 0.1
    for mask, got in zip(chosen, operator(chosen), strict=True):
        assert torch.equal(got[:, mask], values[:, mask])
    assert torch.equal(occluder("noise", image, generator(5))(whole)[0], values)
    assert not torch.equal(occluder("noise", image, generator(6))(whole)[0], values)


def test_unknown_operator_offers_the_nearest() -> None:
    with pytest.raises(SettingsError, match="unknown occlusion operator 'blurr'; did you mean 'blur'"):
        occluder("blurr", torch.zeros(3, 4, 4), generator())


# ROAD


class Silent(np.random.Generator):
    """Its normal draws are all 0, so that only the imputation remains."""

    def standard_normal(self, size, dtype=np.float64, out=None):
        return np.zeros(size, dtype)


def imputed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A dense system over all pixels: known ones keep their value, the others are their neighbours' weighted mean."""
    height, width = mask.shape
    matrix, right = np.eye(mask.size), image.reshape(3, -1).T.copy()
    for y, x in np.argwhere(mask):
        i = y * width + x
        near = {(v, u) for v in (y - 1, y, y + 1) for u in (x - 1, x, x + 1)} - {(y, x)}
        weights = {(v, u): 1 / 6 if v == y or u == x else 1 / 12 for v, u in near if 0 <= v < height and 0 <= u < width}
        right[i] = 0
        for (v, u), weight in weights.items():
            matrix[i, v * width + u] = -weight / sum(weights.values())
    return np.linalg.solve(matrix, right).T.reshape(image.shape)


@pytest.mark.parametrize("size", [(9, 12), (1, 8), (8, 1)])
def test_road_solves_for_the_weighted_mean_of_the_neighbours(size: tuple[int, int]) -> None:
    image = generator(1).random((3, *size)).astype(np.float32)
    masks = generator(2).random((4, *size)) < np.array([0.1, 0.5, 0.9, 0.0])[:, None, None]
    masks[3, :, :5] = True
    masks[3, 0, -1] = False
    got = occluder("road", torch.from_numpy(image), Silent(np.random.PCG64(0)))(torch.from_numpy(masks))
    for mask, one in zip(masks, got, strict=True):
        if not mask.all():
            np.testing.assert_allclose(one.numpy(), imputed(image.astype(np.float64), mask), rtol=0, atol=1e-6)


def test_road_adds_noise_of_standard_deviation_one_hundredth() -> None:
    """Of Rong et al.; one field of noise for the image, so that a pixel gets the same in every set."""
    assert ROAD_NOISE == 0.01
    image = torch.full((3, 40, 40), 0.5)
    masks = torch.ones(2, 40, 40, dtype=torch.bool)
    masks[0, 0, 0] = False
    masks[1, 20:] = False
    first, second = occluder("road", image, generator(4))(masks)
    noise = (first - 0.5)[:, masks[0]].double().flatten().numpy()
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.01 / np.sqrt(noise.size))
    assert float(noise.std()) == pytest.approx(0.01, rel=0.05)
    assert kstest(noise / 0.01, "norm").pvalue > 0.01
    both = masks[0] & masks[1]
    torch.testing.assert_close(second[:, both], first[:, both], rtol=0, atol=1e-6)


def test_road_on_the_whole_image_leaves_the_mean_colour_and_noise(image: Tensor) -> None:
    whole = torch.ones(1, *SIZE, dtype=torch.bool)
    expected = image.double().mean((1, 2)).float()[:, None, None].expand_as(image)
    torch.testing.assert_close(
        occluder("road", image, Silent(np.random.PCG64(0)))(whole)[0], expected, rtol=0, atol=1e-6
    )
    noisy = occluder("road", image, generator())(whole)[0]
    assert float((noisy - expected).std()) == pytest.approx(0.01, rel=0.05)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "zero", "dataset_mean", "noise"]))
def test_occluding_in_two_steps_is_occluding_the_union(seed: int, name: str) -> None:
    """Where the fill does not depend on S, O(x, S or S') mixes O(x, S) and O(x, S')."""
    rng = generator(seed)
    image = torch.from_numpy(rng.random((3, 6, 9), dtype=np.float32))
    masks = torch.from_numpy(rng.random((2, 6, 9)) < rng.random())
    operator = occluder(name, image, generator(seed))
    one, other = operator(masks)
    union = operator((masks[0] | masks[1])[None])[0]
    assert torch.equal(union, torch.where(masks[0], one, other))


# Perturbations


def perturbed(image: Tensor, strength: float = 0.03) -> dict[str, Tensor]:
    whole = torch.ones(image.shape[1:], dtype=torch.bool)
    variants = perturbed_variants(image, whole, strength, lambda name: generator(11))
    return dict(zip(variants.names, variants.images, strict=True))


EXPECTED: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brightness": lambda x, t: x + t,
    "contrast": lambda x, t: np.stack([c.mean() + (1 + t) * (c - c.mean()) for c in x]),
    "flip": lambda x, t: x[:, :, ::-1],
}


def test_the_five_perturbations_by_name() -> None:
    assert list(PERTURBATIONS) == ["noise", "brightness", "contrast", "blur", "flip"]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("strength", [0.03, 0.2])
def test_perturbation_is_its_formula_clipped(name: str, strength: float, image: Tensor) -> None:
    bright = image + (1 - image.max())  # the brightest pixel is 1, so that brightness and contrast must be clipped
    assert float(bright.max()) == 1
    raw = EXPECTED[name](bright.double().numpy(), strength)
    if name in ("brightness", "contrast"):
        assert raw.max() > 1
    np.testing.assert_allclose(perturbed(bright, strength)[name].double().numpy(), raw.clip(0, 1), rtol=0, atol=2e-6)


def test_noise_perturbation_is_normal_with_standard_deviation_t_and_clipped() -> None:
    grey = torch.full((3, *SIZE), 0.5)
    noise = (perturbed(grey)["noise"] - 0.5).double().flatten().numpy() / 0.03
    assert kstest(noise, "norm").pvalue > 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size  # independent per pixel and channel
    white = perturbed(torch.ones(3, *SIZE))["noise"]
    assert float(white.max()) == 1.0
    assert float((white == 1).float().mean()) == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(perturbed(grey, 0.06)["noise"] - 0.5, 2 * (perturbed(grey)["noise"] - 0.5))


@pytest.mark.parametrize("height", [112, 224, 300])
def test_blur_perturbation_has_a_sigma_of_one_pixel_at_224(height: int) -> None:
    """Scaled with the height, whatever the strength."""
    image = generator(height).random((3, height, 12), dtype=np.float32)
    got = perturbed(torch.from_numpy(image), 0.5)["blur"].double().numpy()
    np.testing.assert_allclose(got, blurred(image.astype(np.float64), height / 224), rtol=0, atol=2e-6)


def test_strength_zero_changes_nothing_but_blur_and_flip() -> None:
    image = torch.from_numpy(generator().random((3, 224, 9), dtype=np.float32))
    for name, got in perturbed(image, 0.0).items():
        assert torch.allclose(got, image, atol=1e-6) == (name not in ("blur", "flip"))


def test_only_flip_mirrors_the_region_and_maps_are_mirrored_back(image: Tensor) -> None:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[2:9, 1:6] = True
    variants = perturbed_variants(image, region, 0.03, lambda name: generator())
    assert variants.flipped == [False, False, False, False, True]
    for name, one in zip(variants.names, variants.regions, strict=True):
        expected = torch.zeros(SIZE, dtype=torch.bool)
        if name == "flip":
            expected[2:9, SIZE[1] - 6 : SIZE[1] - 1] = True
        else:
            expected[2:9, 1:6] = True
        assert torch.equal(one, expected)
    for mirrored in variants.mirror(variants.regions):
        assert torch.equal(mirrored, region)
    clean = clean_variant(image, region)
    assert clean.names == ("clean",)
    assert torch.equal(clean.mirror(clean.regions)[0], region)


def test_each_perturbation_has_a_generator_of_its_own(image: Tensor) -> None:
    asked: list[str] = []

    def rng(name: str) -> np.random.Generator:
        asked.append(name)
        return generator()

    perturbed_variants(image, torch.ones(SIZE, dtype=torch.bool), 0.03, rng)
    assert asked == list(PERTURBATIONS)
