"""Padding: where its pixels come from, what changes with them, and the message that offers it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segfaith import wrap
from segfaith.errors import SampleError, SettingsError
from segfaith.models.padding import check_pad, multiple_of, pad_to, reached
from segfaith.models.probe import ModelFails, probe
from toys import SmallCNN, plain


class Halving(nn.Module):
    """Halves its maps three times and refuses sides that 8 does not divide, in its own words."""

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.times = times
        self.backbone = SmallCNN()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2**self.times or x.shape[-2] % 2**self.times:
            raise RuntimeError(f"The size of tensor a ({x.shape[-1]}) must match tensor b")
        out: Tensor = self.backbone(x)["out"]
        return out


def numpy_padded(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    for axis in (1, 2):
        amount = size[axis - 1] - image.shape[axis]
        edges = [(0, 0)] * 3
        edges[axis] = (0, amount)
        if amount:
            image = np.pad(image, edges, mode="reflect" if amount < image.shape[axis] else "edge")
    return image


@pytest.mark.parametrize("size", [(30, 41), (32, 33), (5, 40), (17, 16), (1, 1)])
def test_padding_mirrors_and_repeats_where_the_image_is_too_small(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    larger = multiple_of(size, 32)
    assert larger == tuple(int(np.ceil(side / 32)) * 32 for side in size)
    expected = numpy_padded(image.numpy(), larger)
    np.testing.assert_array_equal(pad_to(image, larger).numpy(), expected)
    np.testing.assert_array_equal(pad_to(torch.stack([image, 1 - image]), larger)[0].numpy(), expected)


def test_an_image_of_a_fitting_size_is_left_alone() -> None:
    image = torch.rand(3, 32, 64)
    assert pad_to(image, multiple_of((32, 64), 32)) is image


@pytest.mark.parametrize("size", [(20, 27), (9, 25), (16, 31)])
def test_boxes_reach_every_pixel_of_the_padding_that_changes(size: tuple[int, int]) -> None:
    """Against the padded images themselves, and no further where the change touches the border of the image."""
    larger, rng, grown = multiple_of(size, 16), np.random.default_rng(0), 0
    for _ in range(60):
        start = rng.integers(0, size, 2)
        stop = rng.integers(start + 1, np.array(size) + 1)
        image = torch.zeros(1, *size)
        image[:, start[0] : stop[0], start[1] : stop[1]] = 1
        changed = pad_to(image, larger)[0].numpy() > 0
        first, last = reached(start[None], stop[None], size, larger)
        rows, columns = np.nonzero(changed)
        assert (first[0] == start).all()
        assert tuple(last[0]) == (rows.max() + 1, columns.max() + 1)
        grown += int((last[0] > stop).any())
    assert grown > 10


def test_logits_are_those_of_the_padded_normalised_image_cropped() -> None:
    module = Halving()
    model = wrap(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), pad=8)
    images = torch.rand(2, 3, 21, 30, generator=torch.Generator().manual_seed(1))
    normalised = (images - torch.tensor(model.mean)[:, None, None]) / torch.tensor(model.std)[:, None, None]
    padded = torch.stack([torch.from_numpy(numpy_padded(image.numpy(), (24, 32))) for image in normalised])
    with torch.no_grad():
        half = module.eval()(padded)
    expected = nn.functional.interpolate(half, size=(24, 32), mode="bilinear", align_corners=False)[..., :21, :30]
    assert model.logits(images).shape == (2, 3, 21, 30)
    torch.testing.assert_close(model.logits(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("times", "offered"), [(3, 8), (4, 16), (5, 32), (6, 64)])
def test_a_model_that_refuses_a_size_is_offered_the_smallest_padding(times: int, offered: int) -> None:
    model, image = plain(Halving(times)), torch.rand(3, 21, 30)
    with pytest.raises(SampleError, match=rf"The size of tensor a \(30\) .* say pad = {offered}, or"), torch.no_grad():
        model.logits(image[None])
    with pytest.raises(ModelFails, match=f"say pad = {offered}, or"):
        probe(model, image, 1)
    model.pad = offered // 2  # a padding that is too small changes nothing
    with pytest.raises(ModelFails, match=f"say pad = {offered}, or"):
        probe(model, torch.rand(3, 21, 36), 1)
    model.pad = offered
    probe(model, image, 1)


def test_a_model_that_fails_on_every_size_is_offered_nothing() -> None:
    with pytest.raises(ModelFails, match=r"must match tensor b$"):
        probe(plain(Halving(9)), torch.rand(3, 21, 30), 1)


def test_an_error_that_does_not_come_again_offers_nothing() -> None:
    class Once(SmallCNN):
        failed = False

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            if not self.failed:
                self.failed = True
                raise RuntimeError("busy")
            return super().forward(x)

    with pytest.raises(RuntimeError, match=r"^busy$"), torch.no_grad():
        plain(Once()).logits(torch.rand(1, 3, 21, 30))


@pytest.mark.parametrize("pad", [0, -8, 2.5, True, "32"])
def test_pads_that_are_none(pad: object) -> None:
    with pytest.raises(SettingsError, match=r"pad = .*: expected a whole number of pixels"):
        check_pad(pad)


def test_a_model_is_not_made_with_a_pad_that_is_none() -> None:
    with pytest.raises(SettingsError, match=r"pad = -8: expected a whole number of pixels"):
        wrap(SmallCNN(), pad=-8)
