"""Convolutions by Winograd's rows, by themselves and in models."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from exactness import check_exact, photograph, target
from segfaith.incremental import winograd
from segfaith.incremental.convolution import kernel_of
from segfaith.incremental.graph import Graph
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.incremental.windows import Kernel
from segfaith.incremental.winograd import convolve_rows, pays, transformed
from segfaith.scores import Scalar
from toys import plain


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
        around, outputs = np.array(padding), np.array(exact.shape[2:])
        got = convolve_rows(kernel, transformed(module.weight), module.bias, data, around, outputs)
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
    assert pays(kernel, module.weight, module.groups, np.array([rows, 28])) == expected


@pytest.mark.parametrize("name", zoo.TRACED)
def test_models_of_large_convolutions_score_as_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every traceable model with all of its 3 x 3 convolutions done by Winograd."""
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "MOST", np.inf)
    model = plain(zoo.randomised(zoo.TRACED[name]()))
    check_exact(model, (37, 53), "patch", IncrementalScorer)
    graph = graph_of(model, photograph((37, 53)))
    assert isinstance(graph, Graph)
    allowed = {convolution.winograd for convolution in graph.convolutions.values()}
    assert allowed <= {True}, "or it was traced again without"


def test_winograd_is_used_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or their exactness would say nothing of it."""
    done: list[int] = []

    def recorded(kernel: Kernel, row_weights: list[Tensor], *arguments: Any) -> Tensor:
        done.append(len(row_weights))
        return convolve_rows(kernel, row_weights, *arguments)

    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "convolve_rows", recorded)
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 24)
    scorer_for(model, photograph(size), target(size, "scattered"), Scalar(2))
    done.clear()  # of the check of the graph
    check_exact(model, size, "scattered", IncrementalScorer)
    assert done


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
    expected = float(PlainScorer(model, region, Scalar(2)).score(image[None]))
    assert type(scorer_for(model, image, region, Scalar(2), expected=expected)) is IncrementalScorer
    monkeypatch.setattr(winograd, "convolve_rows", lambda *arguments: convolve_rows(*arguments) * 1.01)
    assert type(scorer_for(model, image, region, Scalar(2), expected=expected)) is PlainScorer
