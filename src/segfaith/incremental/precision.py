"""Which precision computes interventions, and where bfloat16 pays.

Measured with AMX, an Intel processor's instructions for products of small matrices: there bf16 took 83 % of the time of
fp32 for LRASPP, and less for the other models that were tried. Without AMX it was not measured in its present form.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import torch

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
    flags = processor_flags()
    if "amx_bf16" in flags:
        return ""
    if "avx512_bf16" in flags:
        return "this processor has bfloat16 products of vectors (avx512_bf16), with which it was not measured"
    return "this processor has no instructions for it (amx_bf16)"


@cache
def processor_flags() -> frozenset[str]:
    """What Linux says that the first processor can do; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
