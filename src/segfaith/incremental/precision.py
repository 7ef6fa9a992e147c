"""Which precision computes interventions, and where bfloat16 pays.

Measured with two kinds of instructions (docs/performance.md). With AMX, products of small matrices, bf16 took 83 % of
the time of fp32 for LRASPP and 27 % for DeepLabV3-ResNet50; with AVX-512's products of vectors 75 % and 59 %. Without a
C++ compiler, which `fused` needs, it took 105 % of it for LRASPP.
"""

import os
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import Literal

import torch

INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Products of bfloat16 numbers, as Linux names them, with which bf16 was measured to be faster than fp32."""
Precision = Literal["fp32", "tf32", "bf16"]
Asked = Literal[Precision, "auto"]
"""What a method may ask for. "auto" is bf16 where it pays and the model is run by a graph, else fp32."""


def chosen(asked: Asked, device: torch.device) -> Precision:
    """The precision on a device."""
    if asked != "auto":
        return asked
    return "fp32" if slow_bf16(device) else "bf16"


def slow_bf16(device: torch.device) -> str:
    """Why bf16 is not expected to be faster than fp32 on a device; "" where it is."""
    if device.type != "cpu":
        return "it was not measured on a GPU"
    if not bf16_instructions():
        return f"this processor has no instructions for it ({' or '.join(INSTRUCTIONS)})"
    if shutil.which(name := _cpp_compiler()) is None:
        return f"there is no C++ compiler ({name}), without which the steps between convolutions are slow"
    return ""


def bf16_instructions() -> str:
    """The first of `INSTRUCTIONS` that this processor has; "" where it has none."""
    return next((name for name in INSTRUCTIONS if name in processor_flags()), "")


def _cpp_compiler() -> str:
    """The compiler that torch calls on Linux."""
    return (shlex.split(os.environ.get("CXX", "")) or ["g++"])[0]


@cache
def processor_flags() -> frozenset[str]:
    """What Linux says that the first processor can do; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
