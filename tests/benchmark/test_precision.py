"""What "auto" becomes, what a run says of it, and when bf16 is not expected to save time."""

from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from drops import evidence
from exactness import photograph, target
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark import precision as told
from segfaith.benchmark.precision import automatic, bf16_words, precision_lines
from segfaith.errors import SettingsError
from segfaith.evidence.regions import Regions
from segfaith.incremental import precision
from segfaith.incremental.fused import Compiler
from segfaith.incremental.precision import chosen, processor_flags, slow_bf16
from toys import plain

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def with_flags(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """A processor with these flags, and a C++ compiler."""
    monkeypatch.setattr(precision, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(precision.shutil, "which", lambda name: f"/bin/{name}")


@pytest.mark.parametrize(
    ("flags", "device", "auto", "words"),
    [
        (("amx_bf16", "avx512_bf16"), CPU, "bf16", ""),
        (("avx512_bf16",), CPU, "bf16", ""),
        (("avx2", "avx512f"), CPU, "fp32", "no instructions for it (amx_bf16 or avx512_bf16)"),
        ((), CPU, "fp32", "no instructions"),
        (("amx_bf16",), GPU, "fp32", "GPU"),
    ],
)
def test_auto_is_bf16_where_it_was_measured_to_pay(
    flags: tuple[str, ...], device: torch.device, auto: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_flags(monkeypatch, *flags)
    assert chosen("auto", device) == auto
    assert words in slow_bf16(device)
    assert bool(slow_bf16(device)) == bool(words)
    assert [chosen(asked, device) for asked in ("fp32", "tf32", "bf16")] == ["fp32", "tf32", "bf16"]


@pytest.mark.parametrize(("asked", "named"), [(None, "g++"), ("", "g++"), ("ccache clang++ -v", "ccache")])
def test_without_a_compiler_auto_is_fp32(asked: str | None, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch, "avx512_bf16")
    monkeypatch.delenv("CXX", raising=False)
    if asked is not None:
        monkeypatch.setenv("CXX", asked)
    assert chosen("auto", CPU) == "bf16"
    monkeypatch.setattr(precision.shutil, "which", lambda name: None if name == named else f"/bin/{name}")
    assert chosen("auto", CPU) == "fp32"
    assert f"no C++ compiler ({named})" in slow_bf16(CPU)


def test_the_flags_are_those_of_the_system(tmp_path: Path) -> None:
    known = Path("/proc/cpuinfo")
    if known.is_file() and "flags" in known.read_text():
        assert "fpu" in processor_flags()


@pytest.mark.parametrize("flags", [(), ("amx_bf16",)])
def test_drops_of_auto_are_those_of_its_choice(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch, *flags)
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 40)
    image, region = photograph(size), target(size, "patch")
    auto, fp32, bf16 = (
        evidence(model, image, region, 1, Regions(5, precision=name)) for name in ("auto", "fp32", "bf16")
    )
    np.testing.assert_array_equal(auto, bf16 if flags else fp32)
    assert (fp32 != bf16).any()


def test_auto_is_fp32_for_a_model_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch, "amx_bf16")
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 40)
    model.incremental = False
    image, region = photograph(size), target(size, "patch")
    auto, fp32 = (evidence(model, image, region, 1, Regions(5, precision=name)) for name in ("auto", "fp32"))
    np.testing.assert_array_equal(auto, fp32)
    with pytest.raises(SettingsError, match="use 'fp32'"):
        evidence(model, image, region, 1, Regions(5, precision="bf16"))


def test_runs_of_auto_are_the_same_only_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, exact = resolve_method("ria@precision=auto", {}), resolve_method("dea", {})
    assert automatic([exact], CPU) == {}
    with_flags(monkeypatch, "amx_bf16")
    fast = automatic([auto, exact], CPU)
    with_flags(monkeypatch)
    assert fast == {"precision auto": "bf16"}
    assert automatic([auto, exact], CPU) == {"precision auto": "fp32"}


def test_the_check_says_what_auto_is_and_where_bf16_may_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [resolve_method(f"ria@precision={name}", {}) for name in ("auto", "bf16", "fp32")]
    with_flags(monkeypatch, "amx_bf16")
    assert list(precision_lines(methods, CPU)) == [(True, "auto is bf16 here: this processor has amx_bf16")]
    with_flags(monkeypatch, "avx512_bf16")
    assert list(precision_lines(methods, CPU)) == [(True, "auto is bf16 here: this processor has avx512_bf16")]
    plain = list(precision_lines(methods, CPU, "plain: incremental = false"))
    assert plain == [(True, "auto is fp32 here: the model is not run by a graph")]
    with_flags(monkeypatch)
    lines = list(precision_lines(methods, CPU))
    assert [fine for fine, _ in lines] == [True, False]
    assert "auto is fp32 here" in lines[0][1]
    assert "bf16 may take longer" in lines[1][1]
    assert list(precision_lines(methods[2:], CPU)) == []


def test_words_on_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch, "amx_bf16")
    monkeypatch.setattr(told, "COMPILER", Compiler())
    assert bf16_words(2.0, 1.0, CPU) == "bf16 took 0.50 times the time of exact"
    monkeypatch.setattr(told, "COMPILER", Compiler(missing="no C++ compiler"))
    assert bf16_words(2.0, 3.0, CPU) == (
        "bf16 took 1.50 times the time of exact (functions between convolutions go step by step: no C++ compiler); it "
        "does not pay here, use fp32"
    )
