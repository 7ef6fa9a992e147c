"""The default layer is looked up by one trial pass."""

from typing import Any

import torch
from torch import Tensor, nn

from segfaith.models.adapters.entry import try_out


class Net(nn.Module):
    """An encoder that returns its maps, one of channels last, one of a single pixel; and a decoder behind it."""

    def __init__(self, smallest: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(8, 2, 1))
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] < self.smallest:
            raise ValueError("too small")
        return self.decoder(self.encoder(x)[-1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.stage = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU())
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.last = Permuted()

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.stem(x)
        second = self.stage(first)
        self.last(second)
        return [x, first, second * self.squeeze(second).sigmoid()] if self.training else [x, first, second]


class Permuted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::4, ::4].permute(0, 2, 3, 1)


def named(net: nn.Module, **options: Any) -> tuple[Any, ...]:
    trial = try_out(net, **options)
    return trial.giving("encoder"), trial.deepest(), trial.last("decoder"), trial.failure


def test_the_part_that_makes_the_encoders_last_map_is_named() -> None:
    """Neither channels last nor a single pixel count; of a stage and its last part the stage is named."""
    assert named(Net()) == ("encoder.stage", "encoder.stage", "decoder.1", "")


def test_an_identity_whose_output_nobody_reads_is_no_layer() -> None:
    """As the last `downsample` of MONAI's SegResNetDS."""

    class Aside(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Identity()

    net = Net()
    net.encoder = Aside()
    assert named(net)[:2] == ("encoder.stage", "encoder.stage")


def test_a_part_that_runs_twice_is_no_layer() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.encoder(x)
            return super().forward(x)

    assert named(Twice())[:3] == (None, "decoder", "decoder.1")


def test_larger_images_are_tried_and_a_failure_is_told() -> None:
    assert named(Net(smallest=200))[0] == "encoder.stage"
    failure = named(Net(smallest=1000))[3]
    assert failure == "a trial pass failed on an image of 64 x 96: ValueError: too small"


def test_no_hook_stays() -> None:
    net = Net(smallest=100)
    try_out(net)
    assert not any(part._forward_hooks for part in net.modules())
    assert not net.training


def test_empty_maps_are_no_maps() -> None:
    """Some encoders return a map without channels for a stride that they leave out."""

    class Empty(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.empty(x)
            return super().forward(x)

    net = Empty()
    net.empty = nn.Identity()
    net.empty.forward = lambda x: torch.empty(1, 0, 4, 6)
    assert named(net)[1] == "encoder.stage"
