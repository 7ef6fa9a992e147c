"""Segmenters whose right answers are known in closed form, measured through the whole pipeline."""

from itertools import combinations
from math import exp, isnan, nan

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import segfaith
from rederived import cells
from segfaith.attribution.methods import METHODS, Method
from segfaith.types import Target
from segmenters import Symmetric
from toys import PixelScorer, SmallCNN, plain

FOUR = ["gpa", "ega", "ria", "dea"]
SCORES = ["s_target_deleted", "s_off_deleted", "s_inserted"]
EPS = 1e-6

CONSTANT = "stability (noise, brightness, contrast, blur, flip): the map is constant"
LOW = "leak_abs, leak_signed: tdd is not above 0.05"
ZERO = "energy_inside, gini: the map is zero everywhere"


def sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z))


def box(size: tuple[int, int], top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def white_on_black(*patches: Tensor) -> Tensor:
    """An image that is white on the patches and black elsewhere."""
    return torch.stack(patches).any(0).float().expand(3, -1, -1).contiguous()


# A scorer of single pixels: a 1 x 1 convolution


def p_of(value: float) -> float:
    """PixelScorer's probability of class 1 for a pixel of that mean colour."""
    return sigmoid(8 * (value - 0.5))


def coloured(size: tuple[int, int], seed: int) -> tuple[Tensor, np.ndarray]:
    """An image with channels that differ, and its mean colour per pixel."""
    image = torch.from_numpy(np.random.default_rng(seed).random((3, *size), dtype=np.float32))
    return image, image.double().mean(0).numpy()


def test_pixel_scorer_by_hand() -> None:
    """A map that ranks M by brightness, and its opposite: all scores and metrics from a table of sigmoids."""
    size = (12, 15)
    image, bright = coloured(size, 1)
    region = box(size, 2, 7, 4, 12)  # 40 pixels, so n = 8; outside are 140, so n = 28
    inside = sorted(bright[region.numpy()], reverse=True)
    grey = float(image.double().mean())
    s = sum(map(p_of, inside)) / (40 + EPS)
    base = 40 * p_of(grey) / (40 + EPS)
    got = segfaith.evaluate(plain(PixelScorer()), image, Target(1, region), {"best": bright, "worst": 1 - bright})
    for name, top in (("best", inside[:8]), ("worst", inside[-8:])):
        lost = sum(p_of(value) - p_of(grey) for value in top) / (40 + EPS)
        expected = {
            "s": s,
            "s_target_deleted": s - lost,
            "s_off_deleted": s,
            "s_baseline": base,
            "s_inserted": base + lost,
            "tdd": lost / (s + EPS),
            "odd": 0.0,
            "leak_abs": 0.0 if name == "best" else nan,
            "insertion_gain": lost,
            "insertion_gain_rel": lost / (s + EPS),
        }
        assert dict(got.loc[name, list(expected)]) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert got.loc["best", "tdd"] > 0.1
    assert got.loc["worst", "tdd"] < -0.1


def test_best_and_worst_maps_of_a_pixel_scorer_are_attained() -> None:
    """All 45 pairs of 10 pixels, deleted one pair after the other: brightness finds the best, darkness the worst.

    EGA equals brightness on M here, and RIA (whose cells are pixels on a 12 x 14 image) the drop itself.
    """
    size = (12, 14)
    image, bright = coloured(size, 2)
    region = box(size, 5, 7, 4, 9)
    model = plain(PixelScorer(), layer="features")
    maps = {}
    for pair in combinations(np.argwhere(region.numpy()), 2):
        pointing = np.zeros(size)
        for y, x in pair:
            pointing[y, x] = 1
        maps[str(pair)] = pointing
    every = segfaith.evaluate(model, image, Target(1, region), maps | {"bright": bright, "dark": 1 - bright})
    found = segfaith.evaluate(model, image, Target(1, region), FOUR)
    pairs = every.loc[list(maps)]
    assert len(pairs) == 45
    assert pairs["tdd"].nunique() == 45
    for metric in ("tdd", "insertion_gain"):
        assert every.loc["bright", metric] == pytest.approx(pairs[metric].max(), abs=1e-6)
        assert every.loc["dark", metric] == pytest.approx(pairs[metric].min(), abs=1e-6)
        for name in ("ega", "ria", "dea"):
            assert found.loc[name, metric] == pytest.approx(pairs[metric].max(), abs=1e-6)


class Pointwise(nn.Module):
    """A pixel scorer by plain arithmetic: torch may sum a convolution in another order for another batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = self.features(x).unbind(1)
        return torch.stack([blue - red, 4 * (red * green) - blue, 2 * green - 1], 1)


@pytest.mark.parametrize("size", [(28, 42), (27, 33)])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_where_pixels_see_only_themselves_nothing_leaks(size: tuple[int, int], batch_size: int) -> None:
    """ODD is exactly 0 for every method: what is deleted outside M cannot reach M.

    Batches of 8 split the images into batches of unequal size, whose arithmetic may differ in float32's last bit.
    """
    image, _ = coloured(size, 3)
    target = Target(1, box(size, 4, 15, 6, 20))
    got = segfaith.evaluate(plain(Pointwise(), layer="features"), image, target, list(METHODS), batch_size=batch_size)
    assert list(got.index) == list(METHODS)
    for name in METHODS:
        if batch_size == 8:
            assert got.loc[name, "s_off_deleted"] == pytest.approx(got.loc[name, "s"], rel=0, abs=1e-9)
            continue
        assert got.loc[name, "s_off_deleted"] == got.loc[name, "s"]
        for metric in ("odd", "odd_abs"):
            assert got.loc[name, metric] == 0
        for metric in ("leak_abs", "leak_signed"):
            assert got.loc[name, metric] == 0 if got.loc[name, "tdd"] > 0.05 else isnan(got.loc[name, metric])
    assert got.loc["ega", "tdd"] > 0.1


def test_a_convolution_of_single_pixels_leaks_no_more_than_rounding() -> None:
    image, _ = coloured((28, 42), 3)
    model = plain(PixelScorer(), layer="features")
    got = segfaith.evaluate(model, image, Target(1, box((28, 42), 4, 15, 6, 20)), list(METHODS))
    assert got["odd"].abs().max() < 1e-6
    assert got.loc["ega", "tdd"] > 0.1


def test_deleting_all_of_a_target_that_is_the_whole_image() -> None:
    """k = 1: deletion ends at the baseline, and insertion at the image."""
    image, _ = coloured((9, 11), 4)
    everywhere = torch.ones(9, 11, dtype=torch.bool)
    row = segfaith.evaluate(plain(SmallCNN()), image, Target(1, everywhere), ["random"], k=1.0).loc["random"]
    assert row["s_target_deleted"] == pytest.approx(row["s_baseline"], abs=1e-7)
    assert row["s_inserted"] == pytest.approx(row["s"], abs=1e-7)
    assert abs(row["s"] - row["s_baseline"]) > 1e-3


def test_a_target_that_covers_the_image_has_no_off_target_metrics() -> None:
    size = (12, 15)
    image, bright = coloured(size, 5)
    everywhere = torch.ones(size, dtype=torch.bool)
    got = segfaith.evaluate(
        plain(PixelScorer(), layer="features"), image, Target(1, everywhere), list(METHODS), stability=True
    )
    for name in METHODS:
        row = got.loc[name]
        for undefined in ("s_off_deleted", "odd", "odd_abs", "leak_abs", "leak_signed", "tied_share_off"):
            assert isnan(row[undefined])
        assert row["reason"].startswith("odd, leakage: nothing lies outside the target")
        assert row["status"] == "ok"
        assert np.isfinite(row[["tdd", "tdd_gain", "insertion_gain", "tied_share_target"]].astype(float)).all()
    ranked = sorted(bright.flatten(), reverse=True)
    lost = sum(p_of(value) - p_of(float(bright.mean())) for value in ranked[:36])  # n(0.2, 180)
    assert got.loc["ega", "tdd"] == pytest.approx(lost / sum(map(p_of, ranked)), abs=2e-6)
    assert got.loc["mask", "degenerate"]
    assert f"{CONSTANT}; " in got.loc["mask", "reason"]
    assert ZERO in got.loc["mask", "reason"]


def test_constant_maps_are_all_zeros_whoever_made_them() -> None:
    """The mask of a target that covers the image, random values on one cell, and a method of one's own."""
    image, _ = coloured((8, 9), 5)
    everywhere = Target(1, torch.ones(8, 9, dtype=torch.bool))
    own = Method("own", "", ("region",), lambda region: region.float() / 3)
    methods = ["mask", "random_cells@grid=1", own, "random"]
    maps = segfaith.explain(plain(PixelScorer()), image, everywhere, methods)
    assert [float(maps[name].abs().max()) for name in ("mask", "random_cells@grid=1", "own")] == [0, 0, 0]
    assert float(maps["random"].max()) > 0.5


def test_a_target_of_one_pixel() -> None:
    image, bright = coloured((9, 11), 6)
    region = box((9, 11), 4, 5, 6, 7)
    row = segfaith.evaluate(plain(PixelScorer()), image, Target(1, region), ["mask"]).loc["mask"]
    s, base = p_of(bright[4, 6]) / (1 + EPS), p_of(float(bright.mean())) / (1 + EPS)
    assert row["s"] == pytest.approx(s, abs=1e-6)
    assert row["tdd"] == pytest.approx((s - base) / (s + EPS), abs=2e-6)
    assert row["insertion_gain"] == pytest.approx(s - base, abs=1e-6)


# Scorers of patches: every pixel has the logit gain * (level - threshold)


class PatchScorer(nn.Module):
    """One logit for all pixels, of a level in [0, 1] that subclasses read from patches of the features."""

    def __init__(self, *patches: Tensor, gain: float, threshold: float) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.patches, self.gain, self.threshold = patches, gain, threshold

    def level(self, means: list[Tensor]) -> Tensor:
        return means[0]

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        means = [features[:, :, patch].mean((1, 2)) for patch in self.patches]
        z = self.gain * (self.level(means) - self.threshold)
        foreground = z[:, None, None].expand(-1, *x.shape[2:])
        return torch.stack([torch.zeros_like(foreground), foreground], 1)


def test_a_model_that_looks_only_at_the_context() -> None:
    """TDD is 0 and ODD 1 for every method that points at the context: the four of them do.

    28 x 28 pixels, a target of 184 of them, so that S_o has 120: the white patch's pixels, whole cells of RIA's grid.
    """
    size = (28, 28)
    patch, region = box(size, 2, 12, 4, 16), box(size, 18, 26, 3, 26)
    image = white_on_black(patch)
    model = plain(PatchScorer(patch, gain=20, threshold=0.7), layer="features")
    target = Target(1, region)
    got = segfaith.evaluate(model, image, target, FOUR)
    pointing = segfaith.evaluate(model, image, target, {"context": patch.float(), "elsewhere": 1 - patch.float()})
    s, deleted = sigmoid(20 * 0.3), sigmoid(20 * (120 / 784 - 0.7))
    for row in [*(got.loc[name] for name in FOUR), pointing.loc["context"]]:
        assert row["s"] == pytest.approx(s, abs=1e-6)
        assert row["tdd"] == 0
        assert row["s_off_deleted"] == pytest.approx(deleted, abs=1e-6)
        assert row["odd"] == pytest.approx(1, abs=1e-4)
        assert isnan(row["leak_abs"])
        assert LOW in row["reason"]
        assert row["insertion_gain"] == pytest.approx(0, abs=1e-6)
    assert pointing.loc["elsewhere", "odd"] == 0
    for heatmap in segfaith.explain(model, image, target, FOUR).values():
        torch.testing.assert_close(heatmap, patch.float(), rtol=0, atol=1e-3)


class And(PatchScorer):
    """Needs both patches."""

    def level(self, means: list[Tensor]) -> Tensor:
        return torch.minimum(means[0], means[1])


class Or(PatchScorer):
    """Needs one patch, whichever."""

    def level(self, means: list[Tensor]) -> Tensor:
        return torch.maximum(means[0], means[1])


SQUARE = (28, 28)
FIRST, SECOND = box(SQUARE, 10, 12, 8, 10), box(SQUARE, 14, 16, 16, 18)  # a cell of the 14 x 14 grid each
GREY = 8 / 784  # what occlusion puts into a patch
S_BOTH, S_NONE = sigmoid(20 * 0.5), sigmoid(20 * (GREY - 0.5))


def two_patches(kind: type[PatchScorer]) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """RIA and friends, and maps that point at both patches, at one of them, or at neither; S_t has 8 pixels."""
    region = torch.zeros(SQUARE, dtype=torch.bool)
    region[10:15, 8:16] = True
    region |= SECOND
    region[10, 12:16] = False  # 40 pixels, both patches among them
    assert int(region.sum()) == 40
    assert bool(region[FIRST | SECOND].all())
    model = plain(kind(FIRST, SECOND, gain=20, threshold=0.5), layer="features")
    image, target = white_on_black(FIRST, SECOND), Target(1, region)
    one, other = FIRST.float(), SECOND.float()
    pointing = {"both": one + other, "first": (1 + one - other) / 2, "neither": 1 - one - other}
    rows = [segfaith.evaluate(model, image, target, given) for given in (FOUR, pointing)]
    return pd.concat([one.drop(index="random_cells") for one in rows]), segfaith.explain(model, image, target, FOUR)


def test_and_of_two_patches() -> None:
    """Either patch alone costs all; inserting takes both."""
    got, maps = two_patches(And)
    relative = (S_BOTH - S_NONE) / (S_BOTH + EPS)
    for name in ("ria", "ega", "dea", "both", "first"):
        assert got.loc[name, "tdd"] == pytest.approx(relative, abs=1e-6)
    assert got.loc["neither", "tdd"] == 0
    assert got.loc["both", "insertion_gain"] == pytest.approx(S_BOTH - S_NONE, abs=1e-6)
    assert got.loc["first", "insertion_gain"] == pytest.approx(0, abs=1e-6)
    for name in ("ega", "ria", "dea"):
        torch.testing.assert_close(maps[name], (FIRST | SECOND).float(), rtol=0, atol=1e-6)


def test_or_of_two_patches() -> None:
    """One patch at a time costs nothing, so RIA is empty, and says so; deleting both costs all; inserting takes one."""
    got, maps = two_patches(Or)
    relative = (S_BOTH - S_NONE) / (S_BOTH + EPS)
    assert got.loc["ria", "degenerate"]
    assert float(maps["ria"].abs().max()) == 0
    for name in ("ega", "dea", "both"):
        assert got.loc[name, "tdd"] == pytest.approx(relative, abs=1e-6)
    for name in ("first", "neither"):
        assert got.loc[name, "tdd"] == 0
    for name in ("both", "first"):
        assert got.loc[name, "insertion_gain"] == pytest.approx(S_BOTH - S_NONE, abs=1e-6)
    assert got.loc["neither", "insertion_gain"] == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(maps["dea"], maps["ega"], rtol=0, atol=1e-6)


class Saturated(PatchScorer):
    """The level is clamped: beyond 0.6 it is flat, and its gradient exactly 0."""

    def level(self, means: list[Tensor]) -> Tensor:
        return (5 * (means[0] - 0.5) + 0.5).clamp(0, 1)


def test_a_saturated_model_has_drops_without_gradients() -> None:
    region = box(SQUARE, 8, 12, 6, 11)  # 20 pixels, so n = 4: the patch
    model = plain(Saturated(FIRST, gain=20, threshold=0.5), layer="features")
    image, target = white_on_black(FIRST), Target(1, region)
    maps = segfaith.explain(model, image, target, FOUR)
    got = segfaith.evaluate(model, image, target, FOUR, stability=True)
    for name in ("gpa", "ega"):
        assert float(maps[name].abs().max()) == 0
        assert got.loc[name, "degenerate"]
        assert got.loc[name, "tied_share_target"] == 1
        assert isnan(got.loc[name, "stability"])
        assert got.loc[name, "reason"].startswith(f"{CONSTANT}; stability_rank: the map is constant inside")
        assert got.loc[name, "reason"].endswith(ZERO)
    for name in ("ria", "dea"):
        torch.testing.assert_close(maps[name], FIRST.float(), rtol=0, atol=1e-6)
        assert not got.loc[name, "degenerate"]
        assert got.loc[name, "s_target_deleted"] == pytest.approx(sigmoid(-10), abs=1e-6)
        assert got.loc[name, "tdd"] == pytest.approx(1, abs=1e-4)
        assert got.loc[name, "insertion_gain"] == pytest.approx(1, abs=1e-4)
    # the patch is not where its mirror image is, so a flipped image holds nothing that the model looks for
    names = ["stability_noise", "stability_brightness", "stability_contrast", "stability_blur"]
    assert got.loc["ria", names].astype(float).tolist() == pytest.approx([1] * 4, abs=1e-3)
    assert isnan(got.loc["ria", "stability_flip"])
    assert got.loc["ria", "reason"].startswith("stability (flip): a perturbed map is constant; fidelity, ")
    assert got.loc["ria", "stability"] == pytest.approx(got.loc["ria", names].astype(float).mean(), abs=1e-12)


class Constant(nn.Module):
    """The same logits everywhere, for every image: a convolution whose weights are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.score = nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            self.score.weight.zero_()
            self.score.bias.copy_(torch.tensor([0.3, 0.9, -0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.features(x))


@pytest.mark.parametrize(
    ("size", "batch_size"), [((15, 18), 1), ((28, 29), 3), ((15, 17), 8), ((28, 42), 64), ((5, 7), 64)]
)
def test_a_constant_model_has_nothing_to_explain(size: tuple[int, int], batch_size: int) -> None:
    """Deletion and insertion are exactly 0, the maps degenerate, their stability undefined with a reason."""
    image, _ = coloured(size, 7)
    region = box(size, 1, size[0] // 2 + 1, 2, size[1] // 2 + 2)
    got = segfaith.evaluate(
        plain(Constant(), layer="features"),
        image,
        Target(1, region),
        [*FOUR, "random", "mask"],
        stability=batch_size == 8,
        batch_size=batch_size,
    )
    area = int(region.sum())
    probability = exp(0.9) / (exp(0.3) + exp(0.9) + exp(-0.4))
    assert got["s"].tolist() == pytest.approx([probability * area / (area + EPS)] * 8, abs=1e-7)
    for name in SCORES:
        assert got[name].tolist() == pytest.approx(got["s"].tolist(), abs=1e-12)
    for name in ("tdd", "tdd_gain", "odd", "odd_abs", "insertion_gain", "insertion_gain_rel"):
        assert got[name].tolist() == pytest.approx([0] * 8, abs=1e-12)
    assert got[["leak_abs", "leak_signed"]].isna().all(axis=None), "0 would be the best leakage there is"
    for name in FOUR:
        assert got.loc[name, "degenerate"]
        assert got.loc[name, "status"] == "ok"
        assert got.loc[name, "tied_share_target"] == got.loc[name, "tied_share_off"] == 1
        assert isnan(got.loc[name, "stability"])
        if batch_size == 8:
            assert got.loc[name, "reason"].startswith(f"{CONSTANT}; stability_rank: the map is constant inside")
            assert f"; {LOW}; fidelity, " in got.loc[name, "reason"]
            assert got.loc[name, "reason"].endswith(ZERO)
    assert not got.loc["random", "degenerate"]


@pytest.mark.parametrize("size", [(29, 33), (27, 45)])
def test_a_flip_equivariant_model_is_stable_under_flips(size: tuple[int, int]) -> None:
    """Also where cells are of uneven width: a mirrored image has mirrored cells."""
    partition = cells(size, 14)
    assert not np.array_equal(partition % 14, 13 - partition[:, ::-1] % 14)
    image, _ = coloured(size, 0)
    target = Target(1, box(size, 4, size[0] - 5, 3, size[1] // 2))
    got = segfaith.evaluate(plain(Symmetric(), layer="backbone"), image, target, [*FOUR, "mask"], stability=True)
    other = segfaith.evaluate(plain(SmallCNN(), layer="backbone.4"), image, target, [*FOUR, "mask"], stability=True)
    for name in [*FOUR, "mask"]:
        assert not got.loc[name, "degenerate"]
        assert got.loc[name, "stability_flip"] == pytest.approx(1, abs=1e-5)
    for name in FOUR:
        assert got.loc[name, "stability_noise"] < 0.9999  # the maps are not all alike
        assert other.loc[name, "stability_flip"] < 0.95
    assert abs(got.loc["random_cells", "stability_flip"]) < 0.4


# A constant map


def heavy(rows: slice, columns: slice) -> Tensor:
    """White where the target's evidence is, black elsewhere."""
    image = torch.zeros(3, 28, 28)
    image[:, rows, columns] = 1
    return image


@pytest.mark.parametrize(
    "image",
    [
        heavy(slice(4, 8), slice(4, 24)),
        heavy(slice(20, 24), slice(4, 24)),
        heavy(slice(4, 24), slice(4, 8)),
        heavy(slice(4, 24), slice(20, 24)),
    ],
    ids=["top", "bottom", "left", "right"],
)
def test_a_constant_map_deletes_no_part_of_the_target_before_another(image: Tensor) -> None:
    """A fifth of the target (20 x 20) holds all evidence: memory order would delete all of it, or none.

    A random order of cells deletes a fifth of it on average: the mean over 20 seeds is known to 5 standard errors.
    """
    target = Target(1, box(SQUARE, 4, 24, 4, 24))
    white, black, grey = p_of(1), p_of(0), p_of(80 / 784)
    s = (80 * white + 320 * black) / 400
    expected = 0.2 * (s - grey) / s
    model, constant = plain(PixelScorer()), {"constant": torch.full(SQUARE, 0.5)}
    rows = pd.concat(
        [segfaith.evaluate(model, image, target, constant, seed=seed).loc[["constant"]] for seed in range(20)]
    )
    assert rows["tdd"].mean() == pytest.approx(expected, abs=5 * rows["tdd"].std() / 20**0.5)
    assert 0.02 < rows["tdd"].std() < 0.12  # whole cells at a time; pixel by pixel it would be 0.015
    assert rows["tdd"].max() < 0.5
    assert set(rows["tied_share_target"]) == {1}
    assert set(rows["tied_share_off"]) == {1}
    assert rows["degenerate"].all()
    assert rows["odd"].eq(0).all()


def test_leakage_of_the_random_control_is_defined_where_it_is_so_in_every_draw() -> None:
    """Four cells of the target decide, and a few outside: some draws hit one of the target's, others none."""
    patch, region = box((28, 28), 10, 14, 8, 12) | box((28, 28), 20, 24, 8, 12), box((28, 28), 8, 18, 6, 26)
    model = plain(PatchScorer(patch, gain=20, threshold=0.7), layer="features")
    image, target = white_on_black(patch), Target(1, region)
    rows = [segfaith.evaluate(model, image, target, ["random_cells"], seed=seed).iloc[0] for seed in range(40)]
    said = [row["reason"].partition(f"{LOW} in ")[2] for row in rows]
    assert {"", "1 of 3 draws", "2 of 3 draws"} <= set(said)
    for row, low in zip(rows, said, strict=True):
        assert isnan(row["leak_abs"]) == isnan(row["leak_signed"]) == bool(low)
        if not low:
            assert row["tdd"] > 0.05
            assert row["leak_abs"] >= abs(row["odd"]) / 1.0001, "tdd is at most 1"


def test_leakage_is_the_ratio_of_what_both_deletions_cost() -> None:
    """16 pixels of the target decide, and 8 outside; the map marks both."""
    inside, outside, region = (box((28, 28), *one) for one in ((10, 14, 8, 12), (20, 22, 8, 12), (8, 18, 6, 26)))
    model = plain(PatchScorer(inside | outside, gain=20, threshold=0.7), layer="features")
    image = white_on_black(inside, outside)
    row = segfaith.evaluate(model, image, Target(1, region), {"both": (inside | outside).float()}).loc["both"]
    mean, s = 24 / 784, sigmoid(20 * 0.3)
    tdd, odd = (1 - sigmoid(20 * ((24 - lost + lost * mean) / 24 - 0.7)) / s for lost in (16, 8))
    assert row["tdd"] == pytest.approx(tdd, abs=1e-5)
    assert row["odd"] == pytest.approx(odd, abs=1e-5)
    assert row["leak_abs"] == row["leak_signed"] == pytest.approx(odd / tdd, abs=1e-4)
    assert 0.5 < odd / tdd < 0.9, "neither 0 nor 1"
