"""The checks of every call that the tests run with see wrong types and sizes, in functions and dataclasses."""

from dataclasses import dataclass

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import config
from torch import Tensor

from segfaith.occlusion import gaussian_blur
from segfaith.types import Float, Map, Mask, Target
from typecheck import checked


@checked
def cut(heatmap: Map, mask: Mask, columns: float) -> Map:
    assert transposed(heatmap).shape == heatmap.shape[::-1]
    return heatmap[:, : int(columns)] * mask[:, : int(columns)]


@checked
def transposed(heatmap: Map) -> Float[Tensor, "W H"]:
    return heatmap.T


@checked
@dataclass(frozen=True)
class Pair:
    heatmap: Map
    mask: Mask


MAP, MASK = torch.rand(3, 5), torch.ones(3, 5, dtype=torch.bool)


def test_calls_that_fit_pass() -> None:
    """An int is a float, and the call inside has sizes of its own."""
    assert cut(MAP, MASK, 5).shape == (3, 5)
    assert torch.equal(Pair(MAP, MASK).mask, MASK)


@pytest.mark.parametrize(
    ("heatmap", "mask", "columns"),
    [(MAP, MASK[:, :4], 5.0), (MAP, MASK, 4.0), (MAP[None], MASK, 5.0), (MAP, MAP, 5.0), (MAP, MASK, "5")],
    ids=["two sizes", "another size of the result", "an axis more", "another kind", "another type"],
)
def test_calls_that_do_not_fit_are_errors(heatmap: Tensor, mask: Tensor, columns: float) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        cut(heatmap, mask, columns)


def test_fields_of_dataclasses_are_checked() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        Pair(MAP, MASK[:2])


def test_the_modules_are_checked_unless_a_test_says_otherwise() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        gaussian_blur(MAP, 1.0)
    with pytest.raises(BeartypeCallHintViolation):
        Target(1, MASK[None])
    config.update("jaxtyping_disable", True)
    try:
        assert cut(MAP, MASK, "5").shape == (3, 5)
    finally:
        config.update("jaxtyping_disable", False)
