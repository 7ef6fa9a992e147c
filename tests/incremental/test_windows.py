"""Windows and kernels against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from segfaith.incremental.windows import NEARLY_ALL, Box, Kernel, Windows, crop, pad, place, view

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
    hull = np.maximum((high - low).max(0), 1)
    nearly_all = hull.prod() >= NEARLY_ALL * within.size.prod()
    assert (size == (within.size if nearly_all else hull)).all()


@pytest.mark.parametrize(("rows", "whole"), [(6, False), (7, True), (10, True)])
def test_windows_of_nearly_all_become_all(rows: int, whole: bool) -> None:
    within = Box(np.array([2, 3]), np.array([12, 13]))
    start = np.array([[2, 3], [12 - rows, 3]])
    placed, size = place(start, start + np.array([rows, 10]), within)
    assert size.tolist() == [10 if whole else rows, 10]
    assert placed.tolist() == ([[2, 3]] * 2 if whole else start.tolist())


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
    windows = Windows(data, start, shape)
    assert torch.equal(view(windows, clean, at, extent, fill), expected)
    if fill == 0.0:
        zeros = view(windows, None, at, extent)
        assert torch.equal(zeros, view(windows, torch.zeros_like(clean), at, extent)), "None stands for a map of zeros"
    cropped = crop(windows, at, extent)
    if cropped is not None:
        part, before, after = cropped
        assert part.untyped_storage().data_ptr() == data.untyped_storage().data_ptr(), "nothing is copied"
        assert torch.equal(pad(part, before, after, fill), expected)
    elif alike:
        inside = [max(0, a) for a in at[0]], [min(n, a + e) for n, a, e in zip(shape, at[0], extent, strict=True)]
        held = all(
            s <= low and high <= s + n and low < high for s, n, low, high in zip(start[0], size, *inside, strict=True)
        )
        assert not held, "a rectangle that the windows hold is cut without a copy"
