"""Differences after pointwise functions and channel factors in one compiled pass."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional as F

import zoo
from drops import evidence
from exactness import check_exact_on, photograph, target
from segfaith.evidence.regions import Regions
from segfaith.incremental import bfloat16, fused
from segfaith.incremental.fused import AS_PRODUCTS, Compiler, difference, hardswish, product_difference
from toys import plain


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A process that has compiled nothing yet, and calls compiled code for the smallest tensors too."""
    fresh = Compiler()
    monkeypatch.setattr(fused, "LEAST", 1)
    monkeypatch.setattr("segfaith.incremental.bfloat16.COMPILER", fresh)
    return fresh


@pytest.mark.parametrize("function", [nn.ReLU6(), nn.Hardswish(), F.silu])
def test_a_difference_is_that_of_each_value(function: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    change, clean = torch.tensor(rng.normal(0, 3, (5, 4))), torch.tensor(rng.normal(0, 3, (7, 4)))
    pixels = torch.tensor([6, 0, 0, 3, 5])
    found = difference(function, change.float(), clean.float(), pixels)
    for row, pixel in enumerate(pixels.tolist()):
        for channel in range(4):
            c, d = clean[pixel, channel].float(), change[row, channel].float()
            assert float(found[row, channel]) == pytest.approx(float(function(c + d) - function(c)), abs=1e-6)


def test_the_difference_of_a_product_is_that_of_each_value(rng: np.random.Generator) -> None:
    shapes = (2, 3, 4), (1, 3, 4), (2, 1, 4), (1, 1, 4)
    d, c, e, g = (torch.tensor(rng.normal(0, 1, shape)) for shape in shapes)
    found = product_difference(d, c, e, g)
    for b, p, k in np.ndindex(2, 3, 4):
        expected = (c[0, p, k] + d[b, p, k]) * (g[0, 0, k] + e[b, 0, k]) - c[0, p, k] * g[0, 0, k]
        assert float(found[b, p, k]) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("function", [nn.Hardswish(), F.hardswish, nn.Hardsigmoid(), F.hardsigmoid])
def test_functions_without_their_division_are_the_same(function: Callable[[Tensor], Tensor]) -> None:
    values = torch.cat([torch.linspace(-7, 7, 281), torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])])
    same = AS_PRODUCTS[type(function) if isinstance(function, nn.Module) else function]
    torch.testing.assert_close(same(values), function(values), rtol=1e-6, atol=1e-7, equal_nan=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("model", [zoo.plain_cnn, zoo.squeeze_excitation])
def test_compiled_code_gives_the_drops_of_the_single_steps(
    model: Callable[[], nn.Module], compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, size = plain(zoo.randomised(model())), (40, 40)
    image, region, regions = photograph(size), target(size, "patch"), Regions(5, precision="bf16")
    exact = evidence(subject, image, region, 1, Regions(5))
    compiled = evidence(subject, image, region, 1, regions)
    assert compiler.missing is None
    expected = {"plain_cnn": {"ReLU6()", repr(hardswish)}, "squeeze_excitation": {"product"}}[model.__name__]
    assert expected <= set(compiler.made)
    compiler.missing = "as asked"
    steps = evidence(subject, image, region, 1, regions)
    largest = np.abs(exact).max()
    np.testing.assert_allclose(compiled, steps, atol=0.01 * largest)  # roundings to bfloat16 at other places
    np.testing.assert_allclose(compiled, exact, atol=0.01 * largest)
    assert (compiled != steps).any()


def test_a_missing_compiler_is_asked_once_and_changes_no_drop(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def compile_nothing(function: Any, **options: Any) -> Callable[..., Tensor]:
        def fail(*given: Tensor) -> Tensor:
            asked.append(function)
            raise BackendCompilerFailed("inductor", RuntimeError("no C++ compiler\nhere"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    subject, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 40)
    image, region, regions = photograph(size), target(size, "patch"), Regions(5, precision="bf16")
    found = evidence(subject, image, region, 1, regions)
    assert len(asked) == 1
    assert compiler.missing is not None
    assert "no C++ compiler" in compiler.missing
    assert "\n" not in compiler.missing
    np.testing.assert_array_equal(evidence(subject, image, region, 1, regions), found)
    assert len(asked) == 1


@pytest.mark.parametrize("name", zoo.TRACED)
def test_functions_to_compile_are_those_of_the_single_steps(
    name: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled, without its compilation and without the rounding of bfloat16."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(bfloat16, "SMALL", torch.float32)
    subject, size = plain(zoo.randomised(zoo.TRACED[name]())), (37, 53)
    image, region = photograph(size), target(size, "patch")
    class_index = 1 if subject.logits(image[None]).shape[1] == 2 else 2
    check_exact_on(subject, image, region, class_index, 3, "bf16")
    assert compiler.missing is None


@pytest.mark.parametrize("error", [OSError("no place for files"), KeyError("no name for this user")])
def test_whatever_keeps_code_from_being_compiled_it_goes_step_by_step(
    error: Exception, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "compile", fail)
    assert compiler.call("sum", lambda change: change + 1, torch.zeros(4, 4)) is None
    assert compiler.missing == f"{type(error).__name__}: {error}"


def test_memory_that_ran_out_is_no_missing_compiler(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller batches may go on."""

    def fail(change: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.raises(RuntimeError, match="allocate memory"):
        compiler.call("fail", fail, torch.zeros(4, 4))
    assert compiler.missing is None


def test_small_tensors_are_not_worth_a_call() -> None:
    compiler = Compiler()
    assert compiler.call("sum", lambda change: change + 1, torch.zeros(4, 4)) is None
    assert compiler.made == {}


def test_each_function_is_compiled_under_code_of_its_own(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo gives up on code that it has compiled eight times."""
    given: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: given.append(function) or function)
    for number in range(9):
        found = compiler.call(str(number), lambda change, number=number: change + number, torch.zeros(2, 2))
        assert found is not None
        assert float(found.mean()) == number
    assert len({id(function.__code__) for function in given}) == 9
