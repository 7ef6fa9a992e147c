"""Convolutions of parts of maps against torch's, and the choice between their ways."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from exactness import check_exact
from segfaith.incremental import convolution, winograd
from segfaith.incremental.convolution import (
    LIVE_SHARE,
    Convolution,
    convolution_of,
    convolve,
    kernel_of,
    live_share,
    tap_by_tap,
)
from segfaith.incremental.operations import _activation
from segfaith.incremental.scorers import IncrementalScorer
from segfaith.incremental.windows import Kernel
from toys import plain


@pytest.mark.parametrize("dilation", [(1, 1), (3, 5), (12, 12), (40, 2), (36, 36)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 3), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_tap_by_tap_is_the_convolution(dilation: tuple[int, int], kernel_size: tuple[int, int], bias: bool) -> None:
    """On a rectangle that exceeds its map on all sides, where taps meet nothing but padding."""
    module = nn.Conv2d(3, 4, kernel_size, dilation=dilation, bias=bias)
    whole = convolution_of(module)
    assert whole is not None
    kernel = whole.kernel
    torch.manual_seed(0)
    part = torch.randn(2, 3, 7, 9)
    extent, before, size = np.array([7, 9]), np.array([11, 6]), np.array([20, 22])
    after = (size - 1) + kernel.reach + 1 - before - extent
    around = (6, int(after[1]), 11, int(after[0]))
    with torch.no_grad():
        got = tap_by_tap(whole, part, before, size)
        torch.testing.assert_close(got, module(F.pad(part, around)), rtol=0, atol=1e-5)
    ones = torch.ones(1, 1, *kernel_size)
    live = F.conv2d(F.pad(torch.ones(1, 1, 7, 9), around), ones, dilation=dilation)
    assert live.shape[2:] == (20, 22)
    assert live_share(kernel, extent, before, size) == pytest.approx(float(live.mean()) / np.prod(kernel_size))


def test_dead_taps_are_skipped_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the exactness of the dilated model would say nothing of them."""
    shares: list[float] = []

    def recorded(of: Convolution, part: Tensor, before: Any, size: Any) -> Tensor:
        shares.append(live_share(of.kernel, np.array(part.shape[2:]), before, size))
        return tap_by_tap(of, part, before, size)

    monkeypatch.setattr(convolution, "tap_by_tap", recorded)
    model = plain(zoo.randomised(zoo.dilated()))
    assert check_exact(model, (40, 24), "scattered", IncrementalScorer) > 1e-3
    assert shares
    assert max(shares) < LIVE_SHARE


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


# The choice of the way


def convolution_with(inputs: int, outputs: int, kernel_size: Any = 3, **options: Any) -> Convolution:
    made = convolution_of(zoo.conv(inputs, outputs, kernel_size, **options).requires_grad_(False))
    assert made is not None
    return made


def padded(part: Tensor, before: Any, after: Any) -> Tensor:
    return F.pad(part, (int(before[1]), int(after[1]), int(before[0]), int(after[0])))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_every_way_is_the_convolution_of_the_padded_part(seed: int, alike: bool, large: bool, taps: bool) -> None:
    """Any kernel, stride, dilation and groups; also other padding before the part than after it."""
    rng = np.random.default_rng(seed)
    size, dilation = rng.integers(1, 5, 2), rng.integers(1, 5, 2)
    stride, groups = (np.ones(2, dtype=int), 1) if large else (rng.integers(1, 4, 2), int(rng.integers(1, 3)))
    size = np.array([3, 3]) if large else size
    pair = {"stride": tuple(stride.tolist()), "dilation": tuple(dilation.tolist()), "padding": 0}
    made = convolution_with(4, 6, tuple(size.tolist()), groups=groups, bias=bool(rng.integers(2)), **pair)
    before = rng.integers(0, 9, 2)
    after = before if alike else rng.integers(0, 9, 2)
    least = np.maximum(made.kernel.reach + 1 - before - after, 1)
    part = torch.from_numpy(rng.random((2, 4, *(least + rng.integers(0, 9, 2)).tolist()), dtype=np.float32))
    extent = np.array(part.shape[2:]) + before + after
    outputs = (extent - made.kernel.reach - 1) // stride + 1
    after = after - (extent - made.kernel.reach - 1) % stride  # no padding that no output reads
    if (after < 0).any():
        return
    expected = F.conv2d(padded(part, before, after), made.weight, made.bias, **(pair | {"groups": groups}))
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(winograd, "CHANNELS", 1)
            patch.setattr(winograd, "MOST", np.inf)
        found = convolve(made, part, before, after, outputs, skip_dead_taps=taps)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "options", "small", "taps", "expected"),
    [
        (8, {}, False, True, "torch"),
        (256, {}, False, True, "rows"),
        (256, {}, True, True, "torch"),
        (8, {"dilation": 24}, False, True, "taps"),
        (8, {"dilation": 24}, True, True, "taps"),
        (8, {"dilation": 24}, False, False, "torch"),
        (8, {"dilation": 24, "groups": 8}, False, True, "torch"),
        (8, {"dilation": 24, "stride": 2}, False, True, "torch"),
    ],
)
def test_each_convolution_goes_its_fastest_way(
    channels: int, options: Any, small: bool, taps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[str] = []
    where = {
        "torch": (convolution, "_conv2d"),
        "rows": (winograd, "convolve_rows"),
        "taps": (convolution, "tap_by_tap"),
    }
    made = convolution_with(channels, channels, **options)
    data = torch.rand(1, channels, 28, 28)
    if small:
        made, data = made.linear(torch.bfloat16), data.bfloat16()
        assert made.bias is None
        assert made.weight.dtype == torch.bfloat16
    padding = made.kernel.padding
    outputs = made.kernel.outputs(np.array([28, 28]), padding)
    for way, (owner, name) in where.items():
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, way=way, real=real: ways.append(way) or real(*given))
    assert convolve(made, data, padding, padding, outputs, skip_dead_taps=taps).dtype == data.dtype
    assert ways[0] == expected
    assert expected == "taps" or len(ways) == 1  # each tap is a convolution of its own


ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(), "clamp": nn.Hardtanh(-0.3, 0.7), "relu6": nn.ReLU6(), "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("way", ["rows", "taps", "onednn", "torch"])
def test_an_activation_follows_the_convolution_on_each_way(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "torch":
        monkeypatch.setattr(convolution, "_calls_onednn", lambda device, dtype: False)
    channels, options = (256, {}) if way == "rows" else (8, {"dilation": 24} if way == "taps" else {})
    made = convolution_with(channels, channels, **options)
    torch.manual_seed(0)
    data, activation = torch.randn(2, channels, 28, 28), _activation(ACTIVATIONS[name])
    assert activation is not None
    padding = made.kernel.padding
    before = convolve(made, data, padding, padding, np.array([28, 28]))
    kept = before.clone()
    found = convolve(made, data, padding, padding, np.array([28, 28]), activation)
    torch.testing.assert_close(found, ACTIVATIONS[name](before), rtol=1e-6, atol=1e-5)
    assert torch.equal(before, kept)
    assert not torch.equal(found, kept)
    data[1, 3, 14, 14] = torch.nan
    spoilt = convolve(made, data, padding, padding, np.array([28, 28]), activation)
    assert bool(spoilt[1, :, 14, 14].isnan().all())  # oneDNN's own ReLU would give 0


def test_onednn_is_called_on_the_processors_of_the_tests() -> None:
    assert convolution._calls_onednn(torch.device("cpu"), torch.float32)
    assert not convolution._calls_onednn(torch.device("meta"), torch.float32)


def test_linear_parts_are_made_once() -> None:
    made = convolution_with(8, 8)
    assert made.linear(torch.bfloat16) is made.linear(torch.bfloat16)
    assert made.linear(torch.float32).weight is made.weight
    assert not made.linear(torch.float32).winograd


def test_a_single_column_of_a_stride_in_bfloat16_is_the_convolution() -> None:
    """With AMX, oneDNN reads beyond the map in some of these geometries; all geometries take the same detour."""
    rng = np.random.default_rng(0)
    memory = torch.full((1 << 20,), torch.inf, dtype=torch.bfloat16)  # what a process may have left behind the map
    del memory
    for _ in range(300):
        size, stride, dilation = rng.integers(1, 6, 2), rng.integers(1, 5, 2), rng.integers(1, 4, 2)
        channels, outputs = int(rng.integers(1, 17)), np.array([int(rng.integers(1, 5)), 1])
        pairs = {"stride": tuple(stride.tolist()), "dilation": tuple(dilation.tolist()), "padding": 0}
        exact = convolution_with(channels, 8, tuple(size.tolist()), **pairs)
        reach = exact.kernel.reach
        before, after = rng.integers(0, np.minimum(reach, 4) + 1), rng.integers(0, np.minimum(reach, 4) + 1)
        extent = (outputs - 1) * stride + reach + 1 - before - after
        if (extent < 1).any():
            continue
        part = torch.randn(6, channels, *extent.tolist()).bfloat16().contiguous(memory_format=torch.channels_last)
        made = exact.linear(torch.bfloat16)
        expected = F.conv2d(padded(part, before, after).double(), made.weight.double(), None, **pairs)
        found = convolve(made, part, before, after, outputs, skip_dead_taps=False)
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))
