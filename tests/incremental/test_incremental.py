"""Incremental scores against the one-by-one loop over a zoo of models; windows against brute force; staleness."""

import gc
import math
import platform
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from drops import evidence, loop, occluded, single
from segfaith import process
from segfaith.data.images import load_image
from segfaith.errors import SampleError, SettingsError
from segfaith.evidence.regions import Regions
from segfaith.incremental import differences, winograd
from segfaith.incremental import graph as graph_module
from segfaith.incremental.kernels import LIVE_SHARE, kernel_of, live_share, tap_by_tap
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer, Precision
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.incremental.windows import Box, Kernel, Windows, crop, place, view
from segfaith.incremental.winograd import convolve_rows, pays, transformed
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import BatchSize, score_images
from toys import plain

TIGHT = 2e-6
"""What float32 leaves of the 1e-5 that is promised."""
SIZES = [(37, 53), (8, 8), (40, 24)]


def photograph(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Colours that change slowly, and noise on them."""
    rng = np.random.default_rng(seed)
    slow = F.interpolate(torch.from_numpy(rng.random((1, 3, 4, 4))), size=size, mode="bicubic")[0]
    return (0.8 * slow + 0.2 * torch.from_numpy(rng.random((3, *size)))).clamp(0, 1).float()


def target(size: tuple[int, int], kind: str) -> Tensor:
    """A slanted patch near the lower right corner, or single pixels all over the image."""
    rows, columns = (torch.arange(n)[:, None] if axis == 0 else torch.arange(n) for axis, n in enumerate(size))
    if kind == "scattered":
        return (rows * 5 + columns * 3) % 11 == 0
    patch = (rows >= size[0] * 5 // 8) & (columns >= size[1] // 2) & (columns + rows < sum(size) - 3)
    assert bool(patch.any())
    return patch


def scattered_images(image: Tensor, count: int = 5) -> Tensor:
    """Copies with pixels occluded all over the image, as the metrics ask for, the last of them everywhere."""
    rng = np.random.default_rng(1)
    shares = np.linspace(0.05, 1, count)
    return torch.stack([occluded(image, torch.from_numpy(rng.random(image.shape[1:]) < share)) for share in shares])


# The same scores as the loop


def check_exact(model: SegmentationModel, size: tuple[int, int], kind: str, expected_type: type | None) -> float:
    """Drops of cells and scores of scattered images; returns the largest drop."""
    image, region = photograph(size), target(size, kind)
    class_index = 1 if model.logits(image[None]).shape[1] == 2 else 2
    if expected_type is not None:
        score = single(model, image, region, class_index)
        assert type(scorer_for(model, image, region, class_index, expected=score)) is expected_type
    return check_exact_on(model, image, region, class_index, 5 if min(size) > 10 else 3)


def check_exact_on(
    model: SegmentationModel, image: Tensor, region: Tensor, class_index: int, grid: int, precision: Precision = "fp32"
) -> float:
    drops = loop(model, image, region, class_index, grid)
    for batch in (1, 4, 32):
        got = evidence(model, image, region, class_index, Regions(grid, precision=precision), batch)
        np.testing.assert_allclose(got, drops, rtol=0, atol=TIGHT, err_msg=f"batches of {batch}")
    scorer = scorer_for(model, image, region, class_index, precision)
    altered = scattered_images(image)
    expected = [single(model, one, region, class_index) for one in altered]
    for batch in (1, 3, 8):
        scores = score_images(scorer.score, lambda numbers: altered[numbers], len(altered), BatchSize(batch))
        np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=TIGHT, err_msg=f"batches of {batch}")
    return float(np.abs(drops).max())


@pytest.mark.parametrize("name", zoo.TRACED)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_traced_models_score_as_the_loop(name: str, size: tuple[int, int]) -> None:
    model = plain(zoo.randomised(zoo.TRACED[name]()))
    largest = [check_exact(model, size, kind, IncrementalScorer) for kind in ("patch", "scattered")]
    assert max(largest) > 1e-3


@pytest.mark.parametrize("name", zoo.UNTRACED | zoo.EITHER)
def test_models_that_a_graph_cannot_follow_score_as_the_loop(name: str) -> None:
    """What cannot be traced, and what a trace would get wrong, goes through the module itself."""
    model = plain(zoo.randomised({**zoo.UNTRACED, **zoo.EITHER}[name]()))
    expected = PlainScorer if name in zoo.UNTRACED else None
    if name == "Counting":
        image, region = photograph((37, 53)), target((37, 53), "patch")
        assert type(scorer_for(model, image, region, 2)) is PlainScorer, "its first call is the traced one"
    assert max(check_exact(model, (37, 53), kind, expected) for kind in ("patch", "scattered")) > 1e-3


def test_switches_choose_the_plain_path() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    image, region = photograph((16, 16)), target((16, 16), "patch")
    assert type(scorer_for(model, image, region, 1)) is IncrementalScorer
    model.incremental = False
    assert type(scorer_for(model, image, region, 1)) is PlainScorer
    assert check_exact(model, (16, 16), "patch", PlainScorer) > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_one_graph_serves_images_of_all_sizes_and_regions_of_all_shapes(seed: int) -> None:
    """Which size came first does not matter; regions of one pixel and of the whole image."""
    model = plain(zoo.randomised(zoo.aspp(), seed))
    largest = 0.0
    for size in [(24, 40), (53, 31), (24, 40)]:
        image = photograph(size, seed)
        for rows, columns in [((0, 1), (0, 1)), ((size[0] - 1, size[0]), (3, 4)), ((0, size[0]), (0, size[1]))]:
            region = torch.zeros(size, dtype=torch.bool)
            region[slice(*rows), slice(*columns)] = True
            assert type(scorer_for(model, image, region, 1)) is IncrementalScorer
            drops = loop(model, image, region, 1, 4)
            np.testing.assert_allclose(evidence(model, image, region, 1, Regions(4)), drops, rtol=0, atol=TIGHT)
            largest = max(largest, np.abs(drops).max())
    assert largest > 1e-3


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_target_that_reads_only_padding_has_a_constant_score(corner: tuple[int, int]) -> None:
    """And one at the border between padding and image does not."""
    model, size = plain(zoo.randomised(zoo.overpadded())), (16, 20)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[corner] = True
    assert type(scorer_for(model, image, region, 1)) is IncrementalScorer
    assert check_exact_on(model, image, region, 1, 4) < 1e-6
    region[5, 5] = True
    assert check_exact_on(model, image, region, 1, 4) > 1e-3


@pytest.mark.parametrize("operator", ["zero", "blur", "noise"])
def test_other_operators_alter_no_more_than_their_cell(operator: str) -> None:
    model = plain(zoo.randomised(zoo.residual()))
    image, region = photograph((32, 32)), target((32, 32), "patch")
    asked = Regions(4, operator)
    fast = evidence(model, image, region, 1, asked)
    model.incremental = False
    slow = evidence(model, image, region, 1, asked)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=TIGHT)
    assert np.abs(slow).max() > 1e-3


def test_boxes_may_be_larger_than_what_was_altered() -> None:
    """And of different sizes in one batch, at every border."""
    model, size = plain(zoo.randomised(zoo.odd_kernels())), (30, 26)
    image, region = photograph(size), target(size, "scattered")
    rng = np.random.default_rng(4)
    start = np.stack([rng.integers(0, n - 1, 12) for n in size], 1)
    stop = np.stack([rng.integers(start[:, axis] + 1, n + 1) for axis, n in enumerate(size)], 1)
    start[0], stop[0] = (0, 0), size
    start[1], stop[1] = (size[0] - 1, size[1] - 1), size
    images = image.repeat(12, 1, 1, 1)
    for one, (top, left), (bottom, right) in zip(images, start, stop, strict=True):
        one[:, top : (top + bottom + 1) // 2, left:right] = 0.9
    scorer = scorer_for(model, image, region, 3)
    assert isinstance(scorer, IncrementalScorer)
    expected = np.array([single(model, one, region, 3) for one in images])
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scorer.score(images, (start, stop)).numpy(), expected, rtol=0, atol=TIGHT)
    for batch in (1, 5):
        got = score_images(scorer.score, lambda numbers: images[numbers], 12, BatchSize(batch), (start, stop))
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=TIGHT)


@pytest.mark.realdata
def test_a_trained_model_scores_as_the_loop(trained_model: SegmentationModel, shared: Any) -> None:
    """With its one large 3 x 3 convolution by Winograd."""
    for file in sorted((shared / "voc").rglob("JPEGImages/*.jpg")):
        image = load_image(file, 112)
        labels = trained_model.logits(image[None])[0].argmax(0)
        if 500 < int((labels > 0).sum()) < 6000:
            break
    class_index = int(torch.bincount(labels[labels > 0]).argmax())
    region = labels == class_index
    drops = loop(trained_model, image, region, class_index, 7)
    score = single(trained_model, image, region, class_index)
    assert type(scorer_for(trained_model, image, region, class_index, expected=score)) is IncrementalScorer
    graph = graph_of(trained_model, image)
    assert isinstance(graph, graph_module.Graph)
    assert len(graph.row_weights) == 1
    assert np.abs(drops).max() > 0.01
    got = evidence(trained_model, image, region, class_index, Regions(7))
    np.testing.assert_allclose(got, drops, rtol=0, atol=TIGHT)


# Windows


geometry = st.builds(
    lambda size, stride, padding, dilation: (size, stride, padding, dilation),
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 5), st.integers(1, 4),
)  # fmt: skip


def kernel_from(rows: tuple[int, ...], columns: tuple[int, ...]) -> Kernel:
    return Kernel(*(np.array(pair) for pair in zip(rows, columns, strict=True)))


@settings(deadline=None, max_examples=60)
@given(
    geometry,
    geometry,
    st.tuples(st.integers(0, 20), st.integers(1, 8)),
    st.tuples(st.integers(0, 20), st.integers(1, 8)),
)
def test_a_kernel_changes_what_reads_the_window_and_reads_what_it_covers(
    rows: tuple[int, ...], columns: tuple[int, ...], one: tuple[int, int], other: tuple[int, int]
) -> None:
    """By enumeration along each axis: output o reads from o s - p to o s - p + (k - 1) d."""
    kernel = kernel_from(rows, columns)
    start, length = np.array([one[0], other[0]]), np.array([one[1], other[1]])
    first, last = kernel.changes(start, start + length)
    reads, extent = kernel.reads(start, length)
    for axis, (size, stride, padding, dilation) in enumerate((rows, columns)):
        window = range(start[axis], start[axis] + length[axis])
        spans = {o: (o * stride - padding, o * stride - padding + (size - 1) * dilation) for o in range(-40, 60)}
        touched = [o for o, (low, high) in spans.items() if low < window.stop and high >= window.start]
        assert list(range(first[axis], last[axis])) == touched
        read = [o * stride - padding + tap * dilation for o in window for tap in range(size)]
        assert (reads[axis], reads[axis] + extent[axis]) == (min(read), max(read) + 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_place_keeps_what_it_is_given_inside_the_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    within = Box(rng.integers(0, 5, 2), rng.integers(6, 14, 2))
    start = rng.integers(-4, 12, (4, 2))
    stop = start + rng.integers(1, 8, (4, 2))
    placed, size = place(start, stop, within)
    assert (placed >= within.start).all()
    assert (placed + size <= within.stop).all()
    low, high = np.maximum(start, within.start), np.minimum(stop, within.stop)
    for n in range(4):
        if (high[n] > low[n]).all():
            assert (placed[n] <= low[n]).all()
            assert (placed[n] + size >= high[n]).all()
    assert (size == np.maximum((high - low).max(0), 1)).all()


def pasted(data: Tensor, start: np.ndarray, clean: Tensor) -> Tensor:
    """The whole altered maps: each image's window in a copy of the clean map."""
    maps = clean.repeat(len(data), 1, 1, 1)
    for one, window, (top, left) in zip(maps, data, start.tolist(), strict=True):
        one[:, top : top + window.shape[1], left : left + window.shape[2]] = window
    return maps


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.sampled_from([0.0, -np.inf]))
def test_a_view_is_a_rectangle_of_the_padded_map(seed: int, alike: bool, near: bool, fill: float) -> None:
    """Windows and rectangles at one place or at several; inside the map and across its borders."""
    rng = np.random.default_rng(seed)
    shape, images = rng.integers(4, 9, 2), 3
    size = np.array([rng.integers(1, n + 1) for n in shape])
    start = np.stack([rng.integers(0, shape - size + 1) for _ in range(images)])
    extent = rng.integers(1, 8, 2)
    at = start + rng.integers(0, 2, (images, 2)) if near else rng.integers(1 - extent, shape, (images, 2))
    if alike:
        start, at = start[:1].repeat(images, 0), at[:1].repeat(images, 0)
    clean = torch.from_numpy(rng.random((1, 2, *shape), dtype=np.float32))
    data = torch.from_numpy(rng.random((images, 2, *size), dtype=np.float32))
    full = F.pad(pasted(data, start, clean), (16, 16, 16, 16), value=fill)
    expected = torch.stack([
        one[:, top : top + extent[0], left : left + extent[1]] for one, (top, left) in zip(full, at + 16, strict=True)
    ])  # fmt: skip
    assert torch.equal(view(Windows(data, start), clean, shape, at, extent, fill), expected)
    cut = crop(Windows(data, start), shape, at, extent)
    if cut is not None:
        part, before, after = cut
        grown = F.pad(part, (int(before[1]), int(after[1]), int(before[0]), int(after[0])), value=fill)
        assert torch.equal(grown, expected)
    elif alike:
        inside = [max(0, a) for a in at[0]], [min(n, a + e) for n, a, e in zip(shape, at[0], extent, strict=True)]
        held = all(
            s <= low and high <= s + n and low < high for s, n, low, high in zip(start[0], size, *inside, strict=True)
        )
        assert not held, "a rectangle that the windows hold is cut without a copy"


@pytest.mark.parametrize("dilation", [(1, 1), (3, 5), (12, 12), (40, 2), (36, 36)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 3), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_tap_by_tap_is_the_convolution(dilation: tuple[int, int], kernel_size: tuple[int, int], bias: bool) -> None:
    """On a rectangle that exceeds its map on all sides, where taps meet nothing but padding."""
    module = nn.Conv2d(3, 4, kernel_size, dilation=dilation, bias=bias)
    kernel = kernel_of(module)
    assert kernel is not None
    torch.manual_seed(0)
    part = torch.randn(2, 3, 7, 9)
    extent, before, size = np.array([7, 9]), np.array([11, 6]), np.array([20, 22])
    after = (size - 1) + kernel.reach + 1 - before - extent
    around = (6, int(after[1]), 11, int(after[0]))
    with torch.no_grad():
        got = tap_by_tap(kernel, module.weight, module.bias, part, before, size)
        torch.testing.assert_close(got, module(F.pad(part, around)), rtol=0, atol=1e-5)
    ones = torch.ones(1, 1, *kernel_size)
    live = F.conv2d(F.pad(torch.ones(1, 1, 7, 9), around), ones, dilation=dilation)
    assert live.shape[2:] == (20, 22)
    assert live_share(kernel, extent, before, size) == pytest.approx(float(live.mean()) / np.prod(kernel_size))


def test_dead_taps_are_skipped_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the exactness of the dilated model would say nothing of them."""
    shares: list[float] = []

    def recorded(kernel: Kernel, weight: Tensor, bias: Any, part: Tensor, before: Any, size: Any) -> Tensor:
        shares.append(live_share(kernel, np.array(part.shape[2:]), before, size))
        return tap_by_tap(kernel, weight, bias, part, before, size)

    monkeypatch.setattr(graph_module, "tap_by_tap", recorded)
    model = plain(zoo.randomised(zoo.dilated()))
    assert check_exact(model, (40, 24), "scattered", IncrementalScorer) > 1e-3
    assert shares
    assert max(shares) < LIVE_SHARE


@pytest.mark.parametrize("dilation", [(1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("size", [(4, 5), (7, 1), (16, 9), (1, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (5, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_is_the_convolution(
    dilation: tuple[int, int], size: tuple[int, int], padding: tuple[int, int], bias: bool
) -> None:
    """Also where rows do not fill blocks of four, and where there is more padding than the kernel reads."""
    module = nn.Conv2d(32, 24, 3, padding=padding, dilation=dilation, bias=bias)
    kernel = kernel_of(module)
    assert kernel is not None
    height, width = np.maximum(np.array(size) + kernel.reach - 2 * np.array(padding), 1).tolist()
    torch.manual_seed(0)
    data = torch.randn(2, 32, height, width).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = module.double()(data.double())
        module.float()
        got = convolve_rows(kernel, transformed(module.weight), module.bias, data, padding, np.array(exact.shape[2:]))
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "rows", "expected"),
    [
        (nn.Conv2d(256, 256, 3), 28, True),
        (nn.Conv2d(256, 256, 3), 5, False),  # two blocks of four
        (nn.Conv2d(256, 256, 3, dilation=4), 28, True),
        (nn.Conv2d(256, 256, 3, dilation=4), 20, False),
        (nn.Conv2d(255, 256, 3), 28, False),
        (nn.Conv2d(256, 255, 3), 28, False),
        (nn.Conv2d(256, 256, 3, groups=2), 28, False),
        (nn.Conv2d(256, 256, 3, stride=(1, 2)), 28, False),
        (nn.Conv2d(256, 256, (1, 3)), 28, False),
        (nn.Conv2d(256, 256, 5), 28, False),
    ],
)
def test_winograd_is_for_large_convolutions_that_fill_its_blocks(module: nn.Conv2d, rows: int, expected: bool) -> None:
    kernel = kernel_of(module)
    assert kernel is not None
    assert pays(module, kernel, np.array([rows, 28])) == expected


@pytest.mark.parametrize("name", zoo.TRACED)
def test_models_of_large_convolutions_score_as_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every traceable model with all of its 3 x 3 convolutions done by Winograd."""
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "MOST", np.inf)
    model = plain(zoo.randomised(zoo.TRACED[name]()))
    check_exact(model, (37, 53), "patch", IncrementalScorer)
    graph = graph_of(model, photograph((37, 53)))
    assert isinstance(graph, graph_module.Graph)
    assert graph.winograd, "or it was traced again without"


def test_winograd_is_used_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or their exactness would say nothing of it."""
    done: list[int] = []

    def recorded(kernel: Kernel, kernels: list[Tensor], *arguments: Any) -> Tensor:
        done.append(len(kernels))
        return convolve_rows(kernel, kernels, *arguments)

    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(graph_module, "convolve_rows", recorded)
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 24)
    scorer_for(model, photograph(size), target(size, "scattered"), 2)
    done.clear()  # of the check of the graph
    check_exact(model, size, "scattered", IncrementalScorer)
    assert done


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("expected", [0.9, math.nan])
def test_an_image_that_the_graph_scores_otherwise_is_left_to_the_model_or_refused(
    precision: Precision, expected: float
) -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    image, region = photograph((16, 16)), target((16, 16), "patch")
    if precision == "fp32":
        assert type(scorer_for(model, image, region, 1, expected=expected)) is PlainScorer
    else:
        with pytest.raises(SettingsError, match="its graph scores this image otherwise than the model itself"):
            scorer_for(model, image, region, 1, precision, expected=expected)


def test_a_model_that_amplifies_rounding_is_traced_without_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "FILTERS", winograd.FILTERS * 1.001)
    model = plain(zoo.randomised(zoo.plain_cnn()))
    assert check_exact(model, (40, 24), "scattered", IncrementalScorer) > 1e-3


def test_an_image_on_which_winograd_errs_is_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's check is on noise; that of each image's clean score takes the same convolutions."""
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 24)
    image, region = photograph(size), target(size, "scattered")
    expected = float(PlainScorer(model, region, 2).score(image[None]))
    assert type(scorer_for(model, image, region, 2, expected=expected)) is IncrementalScorer
    monkeypatch.setattr(graph_module, "convolve_rows", lambda *arguments: convolve_rows(*arguments) * 1.01)
    assert type(scorer_for(model, image, region, 2, expected=expected)) is PlainScorer


def test_what_is_no_known_kernel_has_no_geometry() -> None:
    assert kernel_of(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")) is None
    assert kernel_of(nn.Conv2d(3, 3, 3, padding="same")) is None
    assert kernel_of(nn.MaxPool2d(2, ceil_mode=True)) is None
    assert kernel_of(nn.MaxPool2d(2, return_indices=True)) is None
    assert kernel_of(nn.ConvTranspose2d(3, 3, 2)) is None
    assert kernel_of(nn.AvgPool2d(2)) is None
    assert type(kernel_of(nn.MaxPool2d(3))) is Kernel
    known = kernel_of(nn.Conv2d(3, 3, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1)))
    assert known is not None
    assert [pair.tolist() for pair in (known.size, known.stride, known.padding, known.dilation)] == [
        [3, 1], [2, 2], [1, 0], [2, 1]
    ]  # fmt: skip


# What the score does not read is not computed


@pytest.mark.parametrize("name", ["odd_kernels", "strided", "pooled"])
def test_of_the_image_is_needed_what_the_score_depends_on(name: str) -> None:
    """The box around the pixels where the score's gradient is not zero."""
    smooth = {
        "strided": lambda: nn.Sequential(zoo.conv(3, 8, stride=2), nn.SiLU(), zoo.conv(8, 8, dilation=3), zoo.head()),
        "pooled": lambda: nn.Sequential(nn.AvgPool2d(1), zoo.conv(3, 8), nn.SiLU(), zoo.conv(8, 8, 5), zoo.head()),
    }
    module = (zoo.TRACED | smooth)[name]()
    model, size = plain(zoo.randomised(module)), (48, 60)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[9:12, 40:46] = True
    scorer = scorer_for(model, image, region, 1)
    assert isinstance(scorer, IncrementalScorer)
    leaf = image.clone().requires_grad_()
    model.logits(leaf[None]).softmax(1)[0, 1][region].sum().backward()
    assert leaf.grad is not None
    rows, columns = (torch.nonzero(leaf.grad.abs().sum(0).any(1 - axis))[:, 0] for axis in (0, 1))
    needed = scorer.plan.needs[scorer.graph.image]
    if name == "pooled":  # an unknown operation takes, and gives, whole maps
        assert needed.size.tolist() == list(size)
        needed = scorer.plan.needs[scorer.graph.nodes[1]]
    assert needed.start.tolist() == [int(rows[0]), int(columns[0])]
    assert needed.stop.tolist() == [int(rows[-1]) + 1, int(columns[-1]) + 1]
    assert needed.size.prod() < 0.4 * np.prod(size)


def test_pixels_outside_the_cone_are_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may even be NaN; and convolutions compute a small part of their maps."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (64, 64)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[2:7, 50:58] = True
    scorer = scorer_for(model, image, region, 1)
    assert isinstance(scorer, IncrementalScorer)
    scorer.score(image[None])
    computed: list[int] = []

    def convolved(data: Tensor, *arguments: Any) -> Tensor:
        result = torch.conv2d(data, *arguments)
        computed.append(int(np.prod(result.shape[2:])))
        return result

    monkeypatch.setattr(graph_module.F, "conv2d", convolved)
    poisoned = image.clone()
    poisoned[:, 30:] = torch.nan
    poisoned[:, :, :20] = torch.nan
    expected = single(model, image, region, 1)
    computed.clear()  # of the module's own pass
    assert float(scorer.score(poisoned[None])) == pytest.approx(expected, abs=TIGHT)
    assert len(computed) == 4
    assert max(computed) < 0.2 * 32 * 32


def test_only_what_an_alteration_reaches_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pixels of a large image, scored everywhere: the receptive field's rows and columns in each convolution."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (64, 64)
    image, region = photograph(size), torch.ones(size, dtype=torch.bool)
    scorer = scorer_for(model, image, region, 1)
    assert isinstance(scorer, IncrementalScorer)
    assert scorer.clean
    computed: list[list[int]] = []

    def convolved(data: Tensor, *arguments: Any) -> Tensor:
        result = torch.conv2d(data, *arguments)
        computed.append(list(result.shape[2:]))
        return result

    monkeypatch.setattr(graph_module.F, "conv2d", convolved)
    altered = image.repeat(2, 1, 1, 1)
    altered[0, :, 20, 20] = 0
    altered[1, :, 41, 31] = 1
    boxes = (np.array([[20, 20], [41, 31]]), np.array([[21, 21], [42, 32]]))
    got = scorer.score(altered, boxes)
    # An even row is read by one output of the strided convolution, an odd one by two; then 3 x 3, 3 x 3, 1 x 1.
    assert computed == [[2, 2], [4, 4], [6, 6], [6, 6]]
    monkeypatch.undo()
    expected = [single(model, one, region, 1) for one in altered]
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=TIGHT)


# The user's module is followed, and left alone


def with_slope() -> nn.Module:
    """Weights are multiples of 1/64, so that their sums are exact in any order."""
    module = zoo.randomised(nn.Sequential(zoo.unit(3, 8, stride=2), zoo.conv(8, 8), nn.LeakyReLU(0.1), zoo.head()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    return module


def in_place(module: Any) -> None:
    with torch.no_grad():
        module[1].weight.mul_(-0.7)


def through_data(module: Any) -> None:
    module[3].weight.data = module[3].weight.data * 1.5 + 0.1


def inside_data(module: Any) -> None:
    module[3].weight.data[1] *= -2


def loaded(module: Any) -> None:
    module.load_state_dict(zoo.randomised(with_slope(), 7).state_dict())


def submodule_of_another_kind(module: Any) -> None:
    module[2] = nn.Tanh()


def submodule_of_another_slope(module: Any) -> None:
    module[2] = nn.LeakyReLU(0.9)


def running_statistics(module: Any) -> None:
    module[0][1].running_mean += 0.4


def classes_swapped(module: Any) -> None:
    """The sum over each tensor stays what it was."""
    with torch.no_grad():
        module[3].bias.copy_(module[3].bias[[1, 2, 3, 0]])


def kernels_mirrored(module: Any) -> None:
    with torch.no_grad():
        module[1].weight.copy_(module[1].weight.flip(-1))


def another_dilation(module: Any) -> None:
    module[1].dilation, module[1].padding = (3, 3), (3, 3)


def a_hook(module: Any) -> None:
    module[1].register_forward_hook(lambda module, inputs, output: output * 0.3)


@pytest.mark.parametrize(
    "change",
    [
        in_place, through_data, inside_data, loaded, submodule_of_another_kind, submodule_of_another_slope,
        running_statistics, classes_swapped, kernels_mirrored, another_dilation, a_hook,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_scores_follow_a_module_that_changes_after_its_first_use(change: Callable[[Any], None]) -> None:
    module, size = with_slope(), (24, 24)
    model = plain(module)
    image, region = photograph(size), target(size, "patch")
    before = scorer_for(model, image, region, 1)
    assert isinstance(before, IncrementalScorer)
    altered = scattered_images(image)
    old = before.score(altered).numpy()
    change(module)
    expected = np.array([single(model, one, region, 1) for one in altered])
    assert np.abs(expected - old).max() > 1e-3
    np.testing.assert_allclose(scorer_for(model, image, region, 1).score(altered).numpy(), expected, rtol=0, atol=TIGHT)


def test_two_biases_that_swap_beside_millions_of_weights_are_noticed() -> None:
    module = zoo.randomised(zoo.Of(lambda self, x: self.net(x), net=zoo.plain_cnn(), ballast=nn.Linear(2000, 2000)))
    model, size = plain(module), (24, 24)
    image, region = photograph(size), target(size, "patch")
    scorer_for(model, image, region, 1)
    bias: Tensor = list(module.net.children())[-1].bias  # type: ignore[union-attr, operator, assignment]
    with torch.no_grad():
        bias[:2] = bias[:2].flip(0)
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


def test_other_normalisation_is_followed() -> None:
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    scorer_for(model, image, region, 1).score(image[None])
    model.mean, model.std = (0.2, 0.5, 0.4), (0.3, 0.2, 0.5)
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


def description(module: nn.Module) -> dict[str, Any]:
    """All of a module that a user could miss."""
    return {
        name: (
            id(one),
            type(one),
            one.training,
            getattr(one, "inplace", None),
            [len(hooks) for key, hooks in vars(one).items() if key.endswith("_hooks")],
            sorted(one.__dict__),
        )
        for name, one in module.named_modules()
    } | {
        f"tensor {name}": (id(one), one.requires_grad, one.stride(), one.data_ptr(), one.detach().numpy().tobytes())
        for name, one in [*module.named_parameters(), *module.named_buffers()]
    }


@pytest.mark.parametrize("name", ["residual", "aspp", "dilated", "data_dependent", "hooked"])
def test_the_module_comes_back_as_it_was(name: str) -> None:
    """In training mode with one frozen submodule, as a user might be in the middle of something."""
    module = zoo.randomised((zoo.TRACED | zoo.UNTRACED)[name]())
    children = list(module.children())
    module.train()
    children[0].eval()
    for parameter in children[-1].parameters():
        parameter.requires_grad_(False)
    model = plain(module)
    before = description(module)
    evidence(model, photograph((24, 24)), target((24, 24), "patch"), 1, Regions(3))
    assert description(module) == before
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_model_that_is_let_go_leaves_no_graph_behind() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    scorer_for(model, photograph((16, 16)), target((16, 16), "patch"), 1)
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_bad_logits_are_the_samples_error_and_stop_no_other_sample() -> None:
    """A graph is judged by an image with NaN as by any other."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    broken = image.clone()
    broken[:, 20, 20] = torch.nan
    scorer = scorer_for(model, broken, region, 1)
    with pytest.raises(SampleError, match="NaN or infinite"):
        score_images(scorer.score, lambda numbers: broken.expand(len(numbers), -1, -1, -1), 2, BatchSize(2))
    with pytest.raises(SampleError, match="class index 4 is not one of the model's 4 classes"):
        scorer_for(model, image, region, 4)
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


# Precision and compilation


@pytest.mark.parametrize("name", zoo.TRACED)
@pytest.mark.parametrize(("size", "kind"), [((37, 53), "patch"), ((40, 24), "scattered")], ids=str)
def test_differences_from_the_clean_features_add_up_to_the_loop(
    name: str, size: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bf16 computes, without its rounding."""
    monkeypatch.setattr(differences, "SMALL", torch.float32)
    model, image, region = plain(zoo.randomised(zoo.TRACED[name]())), photograph(size), target(size, kind)
    class_index = 1 if model.logits(image[None]).shape[1] == 2 else 2
    assert type(scorer_for(model, image, region, class_index, "bf16").plan) is differences.Differences
    check_exact_on(model, image, region, class_index, 5, "bf16")


@pytest.mark.parametrize("name", zoo.TRACED)
def test_bf16_moves_drops_by_a_small_part_of_themselves(name: str) -> None:
    model, size = plain(zoo.randomised(zoo.TRACED[name]())), (40, 40)
    image, region = photograph(size), target(size, "patch")
    dtypes = {one.dtype for one in model.module.parameters()}
    exact = evidence(model, image, region, 1, Regions(5))
    moved = np.abs(evidence(model, image, region, 1, Regions(5, precision="bf16")) - exact)
    assert (moved < 0.02 * np.abs(exact) + 0.01 * np.abs(exact).max()).all()
    assert moved.max() > 0
    assert {one.dtype for one in model.module.parameters()} == dtypes
    np.testing.assert_array_equal(evidence(model, image, region, 1, Regions(5)), exact)


@pytest.mark.parametrize("how", ["untraceable", "not incremental", "compiled"])
def test_bf16_is_refused_where_no_graph_is_at_hand(how: str) -> None:
    model = plain(zoo.randomised(zoo.data_dependent() if how == "untraceable" else zoo.plain_cnn()))
    model.incremental, model.compile = how != "not incremental", how == "compiled"
    image, region = photograph((16, 16)), target((16, 16), "patch")
    with pytest.raises(SettingsError, match=r"precision 'bf16' needs incremental = true, compile = false and a model"):
        scorer_for(model, image, region, 1, "bf16")


def test_tf32_is_refused_on_the_cpu() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    with pytest.raises(SettingsError, match="'tf32' is a mode of NVIDIA GPUs; on the CPU use 'fp32' or 'bf16'"):
        scorer_for(model, photograph((16, 16)), target((16, 16), "patch"), 1, "tf32")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_scores_as_the_loop() -> None:
    model, size = plain(zoo.randomised(nn.Sequential(zoo.unit(3, 8, stride=2), zoo.head()))), (24, 24)
    model.compile = True
    image, region = photograph(size), target(size, "patch")
    assert type(scorer_for(model, image, region, 1)) is PlainScorer
    got = evidence(model, image, region, 1, Regions(3), batch=9)
    model.compile = False
    drops = loop(model, image, region, 1, 3)
    assert np.abs(drops).max() > 1e-3
    np.testing.assert_allclose(got, drops, rtol=0, atol=1e-5)


# The process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_is_told_to_keep_memory() -> None:
    """In a process of its own, since it holds until the process ends."""
    code = "from segfaith.process import keep_memory; print(keep_memory(), keep_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "True True"


@pytest.mark.parametrize(("taken", "expected"), [(1, True), (0, False)])
def test_what_the_c_library_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, taken: int, expected: bool) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return taken if option == -1 else 1

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert process.keep_memory() is expected
    assert (-4, 0) in calls, "M_MMAP_MAX = 0: no allocation goes back to the system when it is freed"
    assert any(option == -1 and value > 2**30 for option, value in calls), "M_TRIM_THRESHOLD"


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str]) -> None:
    def never(name: str | None) -> None:
        pytest.fail("no C library may be opened")

    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(process.ctypes, "CDLL", never)
    assert process.keep_memory() is False
