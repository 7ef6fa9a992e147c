"""What users of other libraries asked for: it works, or is refused in words. docs/models.md has a table of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from segfaith.api import evaluate, explain
from segfaith.attribution.methods import Method
from segfaith.errors import SegfaithError
from segfaith.evidence.layer import REPEATS
from segfaith.models import load_model, wrap
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Target

SIZE = (32, 40)
REGION = torch.zeros(SIZE, dtype=torch.bool)
REGION[4:18, 5:25] = True
BOX = Target(1, REGION)
METHODS = ["gpa", "ega", "ria@grid=2"]


def image(bands: int = 3) -> Tensor:
    return torch.rand(bands, *SIZE, generator=torch.Generator().manual_seed(0))


class UNet(nn.Module):
    """Two levels and a skip connection."""

    def __init__(self, bands: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.first, self.deep = zoo.unit(bands, 8), zoo.unit(8, 8, stride=2)
        self.decoder, self.segmentation_head = zoo.unit(16, 8), zoo.head(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        deep = F.interpolate(self.deep(skip), scale_factor=2, mode="bilinear")
        return self.segmentation_head(self.decoder(torch.cat([skip, deep], 1)))


def unet(**options: int) -> nn.Module:
    return zoo.randomised(UNet(**options), seed=1).eval()


def wrapped(module: nn.Module, layer: str | None = "deep", **options: Any) -> SegmentationModel:
    return wrap(module, layer=layer, **options)


def assert_maps(maps: dict[str, Tensor]) -> None:
    assert list(maps) == METHODS
    for method, heatmap in maps.items():
        assert heatmap.shape == SIZE
        if method != "gpa":  # a random model's may be empty
            assert float(heatmap.max()) == 1
            assert float(heatmap.std()) > 0.01


# Channels in, channels out


@pytest.mark.parametrize("bands", [1, 3, 4, 6], ids=["grey", "RGB", "RGB and depth", "six bands"])
def test_a_u_net_of_other_bands_and_one_channel_is_explained(bands: int) -> None:
    model = wrapped(unet(bands=bands, classes=1))
    assert model.input_channels == bands
    assert_maps(explain(model, image(bands), BOX, METHODS))


def test_one_channel_is_explained_as_the_two_channels_that_it_stands_for() -> None:
    single = unet(classes=1)
    twin = zoo.Of(lambda self, x: torch.cat([torch.zeros_like(z := self.net(x)), z], 1), net=single)
    one, two = wrapped(single), wrapped(twin, "net.deep")
    for method, heatmap in explain(two, image(), BOX, METHODS).items():
        torch.testing.assert_close(explain(one, image(), BOX, [method])[method], heatmap, rtol=0, atol=1e-5)
    columns = ["s", "tdd"]
    rows = [evaluate(model, image(), BOX, METHODS)[columns].to_numpy(float) for model in (one, two)]
    np.testing.assert_allclose(*rows, rtol=0, atol=1e-5)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = unet(bands=4)

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        return self.net(torch.cat([rgb, depth], 1))


def test_a_depth_of_its_own_is_refused_until_a_module_splits_the_channels() -> None:
    with pytest.raises(SegfaithError, match=r"cannot be run on images .* missing 1 required positional argument"):
        explain(wrapped(TwoInputs(), None, channels=4), image(4), BOX, METHODS)
    split = zoo.Of(lambda self, x: self.net(x[:, :3], x[:, 3:]), net=TwoInputs())
    found = explain(wrapped(split, "net.net.deep", channels=4), image(4), BOX, METHODS)
    expected = explain(wrapped(unet(bands=4)), image(4), BOX, METHODS)
    for method in METHODS:
        torch.testing.assert_close(found[method], expected[method], rtol=0, atol=1e-5)


# Layers


def test_the_segmentation_head_as_layer_is_told_to_repeat_the_prediction() -> None:
    model = wrapped(unet(), "segmentation_head")
    explain(model, image(), BOX, ["ega"])
    assert model.layer_notes == {"segmentation_head": REPEATS}


class Prompted(nn.Module):
    """The decoder sees the image once for each prompt (N x P), as in models of the Segment Anything kind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = zoo.unit(3, 8, stride=2), zoo.unit(8, 8), zoo.head(8, 1)

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        maps = self.encoder(x)
        queries = (maps[:, None] * prompts[None, :, :, None, None]).flatten(0, 1)
        return self.head(self.decoder(queries)).unflatten(0, (len(x), len(prompts)))[:, :, 0]


def test_a_prompted_model_needs_its_prompts_and_a_layer_that_sees_each_image_once() -> None:
    net, prompts = zoo.randomised(Prompted()).eval(), 0.5 + torch.rand(3, 8, generator=torch.Generator().manual_seed(2))
    with pytest.raises(SegfaithError, match="missing 1 required positional argument: 'prompts'"):
        explain(wrapped(net, "encoder"), image(), BOX, METHODS)
    held = zoo.Of(lambda self, x: self.net(x, self.prompts), net=net, prompts=prompts)
    assert_maps(explain(wrapped(held, "net.encoder"), image(), BOX, METHODS))
    with pytest.raises(SegfaithError, match=r"net.decoder.*\(3, 8, 16, 20\)"):
        explain(wrapped(held, "net.decoder"), image(), BOX, ["ega"])


class Patches(nn.Module):
    """Tokens of overlapping patches."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, kernel, stride, padding)
        self.layer, self.head = nn.LayerNorm(6), zoo.conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.embed(x)
        tokens = self.layer(maps.flatten(2).transpose(1, 2))
        return self.head(tokens.transpose(1, 2).unflatten(2, tuple(maps.shape[2:])))


def test_padded_overlapping_patches_are_a_grid_and_others_need_a_reshape() -> None:
    padded, cut = (zoo.randomised(Patches(*sizes)).eval() for sizes in ((7, 4, 3), (16, 6, 0)))
    model = wrapped(padded, "layer")
    assert_maps(explain(model, image(), BOX, METHODS))
    assert "read row by row as 8 x 10" in model.layer_notes["layer"]
    with pytest.raises(SegfaithError, match=r"tokens must be .* or give reshape"):
        explain(wrapped(cut, "layer"), image(), BOX, ["ega"])
    given = wrapped(cut, "layer", reshape=lambda tokens: tokens.transpose(1, 2).unflatten(2, (3, -1)))
    assert_maps(explain(given, image(), BOX, METHODS))


# Modes and maps


LOUD = '''
import torch


class Loud(torch.nn.Module):
    """As in some libraries, train() starts a training, and eval() calls it."""

    def __init__(self):
        super().__init__()
        self.deep = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Dropout(0.5))
        self.head = torch.nn.Conv2d(4, 3, 3, 1, 1)

    def train(self, mode=True):
        raise RuntimeError("a training starts")

    def forward(self, x):
        return 5 * self.head(self.deep(x))
'''


def test_neither_train_nor_eval_of_a_module_is_called(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD, encoding="utf-8")
    model = load_model(f"{tmp_path / 'loud.py'}:Loud", layer="deep")
    assert not any(part.training for part in model.module.modules())
    for part in model.module.modules():
        part.training = True
    assert set(explain(wrapped(model.module), image(), BOX, METHODS)) == set(METHODS)
    assert all(part.training for part in model.module.modules())


def test_a_map_that_is_negative_everywhere_is_empty_and_marked() -> None:
    """All activations are positive and all gradients negative."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 2, 3, padding=1))
    with torch.no_grad():
        module[2].weight[1] = -module[2].weight[1].abs()
    model = wrapped(module, "1")
    assert float(explain(model, image(), BOX, ["gpa"])["gpa"].abs().max()) == 0
    row = evaluate(model, image(), BOX, ["gpa"]).loc["gpa"]
    assert (row["status"], bool(row["degenerate"])) == ("ok", True)


def test_regions_of_ones_own_are_a_method_of_ones_own() -> None:
    """Quadrants by hand give RIA's map; `regions` takes no partition."""
    top, left = torch.meshgrid(torch.arange(SIZE[0]) < 16, torch.arange(SIZE[1]) < 20, indexing="ij")
    mine = top.long() * 2 + left.long()

    def own(model: SegmentationModel, x: Tensor, target: Target) -> Tensor:
        mean = x.mean((1, 2), keepdim=True)
        images = torch.stack([x, *[torch.where(mine == region, mean, x) for region in range(4)]])
        p = model.logits(images).softmax(1)[:, target.class_index][:, target.region].mean(1)
        return (p[0] - p[1:]).clamp(min=0)[mine]

    model = wrapped(unet())
    maps = explain(model, image(), BOX, ["ria@grid=2", Method("own", "", ("model",), own)])
    torch.testing.assert_close(maps["own"], maps["ria@grid=2"], rtol=0, atol=1e-5)
    with pytest.raises(SegfaithError, match=r"regions.*'grid', 'adaptive' or 'superpixels'"):
        explain(model, image(), BOX, ["ria@regions=mine"])
