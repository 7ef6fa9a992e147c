"""Layers that give no maps (N, K, h, w): read as if a reshaping layer stood behind them, or refused in words."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer

import zoo
from segfaith.batching import BatchSize
from segfaith.errors import SettingsError
from segfaith.evidence.forms import Form, convolves, form_of
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.layer import check_layer
from segfaith.models.wrapping import wrap
from segfaith.scores import Scalar
from toys import plain


class Tokens(nn.Module):
    """Patches of 8 pixels as tokens behind some leading ones, mixed by attention, and a head on the grid."""

    def __init__(self, leading: int = 0, fixed: bool = False) -> None:
        super().__init__()
        self.patches, self.leading, self.fixed = nn.Conv2d(3, 6, 8, 8), nn.Parameter(torch.rand(1, leading, 6)), fixed
        self.layer = nn.LayerNorm(6)
        self.mixed, self.maps, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Identity(), zoo.conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        f = self.patches(F.interpolate(x, (64, 64)) if self.fixed else x)
        count = self.leading.shape[1]
        tokens = torch.cat([self.leading.expand(len(f), -1, -1), f.flatten(2).transpose(1, 2)], 1)
        tokens = self.layer(tokens)
        patches = self.maps(tokens[:, count:].transpose(1, 2).unflatten(2, tuple(f.shape[2:])).clone())
        tokens = torch.cat([tokens[:, :count], patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + self.mixed(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(tokens[:, count:].transpose(1, 2).unflatten(2, tuple(f.shape[2:])))


class ChannelsLast(nn.Module):
    """A Swin transformer, whose stages give (N, h, w, K)."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.layer, self.maps = SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4]).features, nn.Identity()
        self.head, self.fixed = zoo.conv(16, 3), fixed

    def forward(self, x: Tensor) -> Tensor:
        f = self.layer(F.interpolate(x, (64, 64)) if self.fixed else x)
        return self.head(self.maps(f.permute(0, 3, 1, 2).clone()))


def evidence_at(module: nn.Module, layer: str, size: tuple[int, int], **options: Any) -> Any:
    model = wrap(module.eval(), layer=layer, mean=(0, 0, 0), std=(1, 1, 1), **options)
    x, regions = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)), torch.zeros(2, *size).bool()
    regions[0, :20, 10:] = regions[1, 12:, :30] = True
    return gradient_evidence(model, x, regions, Scalar(1), BatchSize(2))[0], model


READ: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], dict[str, Any], str]] = {
    "tokens": (Tokens, (64, 64), {}, "tokens (1, 64, 6), read row by row as 8 x 8"),
    "a class token": (lambda: Tokens(1), (64, 96), {}, "read row by row as 8 x 12 without 1 leading token"),
    "a class token and registers": (lambda: Tokens(5), (64, 64), {}, "as 8 x 8 without 5 leading tokens"),
    "more tokens than are looked for": (lambda: Tokens(9), (64, 64), {"tokens": 9}, "without 9 leading tokens"),
    "a wide image": (lambda: Tokens(1), (176, 320), {}, "tokens (1, 881, 6), read row by row as 22 x 40 without 1"),
    "a high image": (lambda: Tokens(1), (320, 176), {}, "as 40 x 22 without 1 leading token"),
    "a size that patches do not divide": (lambda: Tokens(1), (70, 45), {}, "as 8 x 5 without 1 leading token"),
    "tokens of one size": (lambda: Tokens(1, fixed=True), (50, 90), {}, "as 8 x 8 without 1 leading token"),
    "channels last": (ChannelsLast, (64, 96), {}, "channels last (1, 8, 12, 16), read as 16 maps of 8 x 12"),
    "channels last of one size": (lambda: ChannelsLast(fixed=True), (50, 50), {}, "read as 16 maps of 8 x 8"),
    "a reshape": (
        lambda: Tokens(2),
        (64, 64),
        {"reshape": lambda tokens: tokens[:, 2:].transpose(1, 2).unflatten(2, (8, 8))},
        "(1, 66, 6) by the given reshape, read as (1, 6, 8, 8)",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_layer_of_another_form_is_read_as_the_maps_behind_it(name: str) -> None:
    build, size, options, words = READ[name]
    module = zoo.randomised(build())
    found, model = evidence_at(module, "layer", size, **options)
    expected, _ = evidence_at(module, "maps", size)
    torch.testing.assert_close(found.activation, expected.activation)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    assert float(expected.gradient.abs().max()) > 1e-3
    assert words in model.layer_notes["layer"]


def test_images_of_other_sizes_get_grids_of_their_own() -> None:
    module = zoo.randomised(Tokens(1)).eval()
    model = plain(module, layer="layer")
    form = check_layer(model, "layer", torch.rand(3, 64, 64))
    assert form.maps(torch.rand(1, 1 + 22 * 40, 6), (176, 320)).shape == (1, 6, 22, 40)
    with pytest.raises(SettingsError, match="881 tokens without 1 leading tokens fill no single grid for an image of"):
        form.maps(torch.rand(1, 881, 6), (64, 64))


REFUSED: dict[str, tuple[list[tuple[int, ...]], Any, str]] = {
    "no grid": ([(1, 75, 6)], "auto", "tokens must be .*0 to 8 leading tokens: tried 8 x 8 leaves 11"),
    "several grids": ([(1, 5, 6)], "auto", "tried 2 x 2 leaves 1, 1 x 1 leaves 4"),
    "another number": ([(1, 65, 6)], 2, "rows times the columns .* and 2 leading tokens: tried 8 x 8 leaves 1"),
    "another growth": ([(1, 65, 6), (1, 100, 6)], "auto", r"\(1, 100, 6\) for one of 64 x 128; tokens must be"),
    "ten leading tokens": ([(1, 74, 6), (1, 138, 6)], "auto", "0 to 8 leading tokens: tried 8 x 8 leaves 10"),
    "channels before tokens": ([(1, 64, 64), (1, 64, 128)], "auto", r"tokens must be \(N, L, C\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tokens_that_fill_no_single_grid_are_refused_with_what_was_tried(name: str) -> None:
    shapes, tokens, words = REFUSED[name]
    fault = form_of(shapes, (64, 64), tokens, None)
    assert isinstance(fault, str)
    assert re.search(words, fault), fault


def test_a_cube_of_a_model_of_one_size_may_be_channels_first_or_last() -> None:
    """As the first stage of a Swin transformer of 96 channels at 384 x 384; a wider image would tell."""
    for shape, size in (((1, 12, 12, 12), (96, 96)), ((1, 16, 24, 24), (64, 96))):
        fault = form_of([shape], size, "auto", None)
        assert isinstance(fault, str)
        assert "the last axis or the second may be the channels: the model takes images of a single size" in fault
        assert form_of([shape], size, "auto", None, convolves=True) == Form("maps")
        given = form_of([shape], size, "auto", lambda output: output.permute(0, 3, 1, 2))
        assert not isinstance(given, str)
        assert given.words.endswith(f"by the given reshape, read as {(1, shape[3], *shape[1:3])}")
    for wide, kind in (((1, 8, 8, 16), "maps"), ((1, 8, 16, 8), "channels last")):
        form = form_of([(1, 8, 8, 8), wide], (64, 64), "auto", None)
        assert not isinstance(form, str)
        assert form.kind == kind


def test_a_layer_of_convolutions_has_its_channels_second() -> None:
    assert all(map(convolves, (zoo.conv(3, 4), zoo.unit(3, 4), nn.GroupNorm(2, 4))))
    assert not any(map(convolves, (nn.LayerNorm(4), nn.Sequential(zoo.conv(3, 4), nn.LayerNorm(4)), nn.ReLU())))


def test_patches_of_one_stride_must_explain_both_images() -> None:
    """10 leading tokens and 4 x 6 patches are also 6 and 4 x 7, and for the wider image 6 and 4 x 13."""
    for shapes in ([(1, 34, 6), (1, 58, 6)], [(1, 34, 6)]):
        assert isinstance(form_of(shapes, (64, 96), "auto", None), str)
        form = form_of(shapes, (64, 96), 10, None)
        assert not isinstance(form, str)
        assert "as 4 x 6 without 10 leading tokens" in form.words


def test_the_wider_image_tells_how_many_tokens_lead() -> None:
    form = form_of([(1, 5, 6), (1, 9, 6)], (64, 64), "auto", None)
    assert not isinstance(form, str)
    assert (form.leading, form.maps(torch.rand(1, 5, 6), (64, 64)).shape) == (1, (1, 6, 2, 2))


RESHAPES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a mean": (lambda t: t.mean(2, keepdim=True).unflatten(1, (8, 8)).permute(0, 3, 1, 2), "makes other values"),
    "a repetition": (lambda t: t.transpose(1, 2).unflatten(2, (8, 8)).repeat(1, 2, 1, 1), "makes other values"),
    "three axes": (lambda t: t, r"of which reshape makes \(1, 64, 6\); expected \(1, channels, h, w\)"),
    "an error": (lambda t: t.unflatten(1, (7, 7)), "on which reshape fails: RuntimeError"),
    "other axes": (lambda t: t.unflatten(1, (4, 16)).permute(0, 3, 1, 2), r"expected \(1, channels, h, w\)"),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_a_reshape_that_gives_no_maps_is_refused(name: str) -> None:
    reshape, words = RESHAPES[name]
    model = wrap(Tokens().eval(), layer="layer", reshape=reshape)
    with pytest.raises(SettingsError, match=words):
        check_layer(model, "layer", torch.rand(3, 64, 64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": -1}, "tokens = -1: expected 'auto', or how many leading tokens"),
        ({"tokens": "1"}, "tokens = '1': expected 'auto'"),
        ({"reshape": 3}, "reshape is a int; expected a function"),
        ({"reshape": torch.relu, "tokens": 1}, "tokens = 1 and reshape both say how a layer is read"),
    ],
)
def test_settings_of_forms_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(SettingsError, match=words):
            wrap(Tokens(), **options)
    finally:
        config.update("jaxtyping_disable", False)
