"""What channels last in memory does to a graph's operations."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from exactness import evaluated, photograph, target
from segfaith.incremental.graph import CHANNELS_LAST, JOINING_FUNCTIONS
from toys import plain


def weights(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, shape)).float()


MODULES: dict[Any, tuple[Any, ...]] = {
    nn.AdaptiveAvgPool2d: (1,), nn.AvgPool2d: (3,), nn.BatchNorm2d: (32,), nn.Conv2d: (32, 32, 3),
    nn.ConvTranspose2d: (32, 32, 2), nn.MaxPool2d: (3,), nn.Upsample: (None, 2, "bilinear"),
    nn.UpsamplingBilinear2d: (None, 2), nn.ZeroPad2d: (1,),
}  # fmt: skip
FUNCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    F.adaptive_avg_pool2d: lambda x: F.adaptive_avg_pool2d(x, 3),
    F.avg_pool2d: lambda x: F.avg_pool2d(x, 3),
    F.batch_norm: lambda x: F.batch_norm(x, torch.full((32,), 0.3, dtype=x.dtype), torch.ones(32, dtype=x.dtype)),
    F.conv2d: lambda x: F.conv2d(x, weights(32, 32, 3, 3).to(x.dtype)),
    F.interpolate: lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    F.pad: lambda x: F.pad(x, (1, 2, 3, 4)),
    operator.getitem: lambda x: x[:, 1:],
    operator.sub: lambda x: x - 0.3,
    torch.cat: lambda x: torch.cat([x, x], 1),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "permute": lambda x: x.permute(0, 2, 3, 1),
}
SIZES_ONLY: set[Any] = {getattr, "size"}


def called(name: Any) -> str:
    """Of a module, function or method, the same in every process."""
    return name if isinstance(name, str) else f"{getattr(name, '__module__', '')}.{name.__name__}"


@pytest.mark.parametrize("name", sorted(CHANNELS_LAST - SIZES_ONLY, key=called), ids=called)
def test_an_operation_that_may_run_channels_last_loses_nothing_by_it(name: Any) -> None:
    """Against float64, on noise, and on maps that are constant, nearly constant or far from zero."""
    draw = torch.Generator().manual_seed(0)
    noise, level = torch.randn(2, 32, 48, 48, generator=draw), torch.linspace(0.5, 2, 32)[:, None, None]
    if isinstance(name, type):
        module = name(*MODULES.get(name, ())).eval()

        def run(x: Tensor) -> Tensor:
            return module.to(x.dtype)(x)
    else:
        two = name in JOINING_FUNCTIONS - {operator.sub}
        run = FUNCTIONS.get(name) or ((lambda x: name(x, x)) if two else name)
    for x in (noise, level.expand_as(noise), level + 1e-4 * noise, 100 + noise):
        right = run(x.double())
        ordered, own = (
            float((run(x.contiguous(memory_format=memory)).double() - right).detach().abs().max())
            for memory in (torch.channels_last, torch.contiguous_format)
        )
        assert ordered <= 3 * own + 2e-6 * float(right.detach().abs().max())


def test_group_norms_score_as_the_model_itself() -> None:
    """Insertion starts from a constant image, on which a group norm with channels last loses most of its digits."""
    model, size = plain(zoo.randomised(zoo.group_normed())), (128, 128)
    image, region = photograph(size), target(size, "patch")
    fast = evaluated(model, image, region)
    assert set(fast["path"]) == {"incremental"}
    model.incremental = False
    slow = evaluated(model, image, region)
    assert slow["insertion_gain"].abs().max() > 3e-4
    for name in ("s", "s_baseline", "s_inserted", "s_target_deleted", "insertion_gain", "tdd"):
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-6, err_msg=name)
