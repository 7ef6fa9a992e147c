"""What a job took and gave, and how FLOPs and memory are counted."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


@dataclass(frozen=True, eq=False)
class Run:
    """What a job took and gave; where asked for, memory in MB (the peak, and before the job) and FLOPs."""

    seconds: float
    values: dict[str, np.ndarray]
    peak_mb: float | None = None
    idle_mb: float | None = None
    flops: int | None = None


@dataclass(frozen=True)
class Skipped:
    """Why a job cannot be run."""

    reason: str


def flops_of(work: Callable[[], Any]) -> int:
    """The FLOPs of convolutions and matrix products that `work` runs."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._convolution_pointwise: _of_onednn})
    with counter:
        work()
    return counter.get_total_flops()


def _of_onednn(data: list[int], weight: list[int], *_: Any, out_shape: list[int]) -> int:
    """The FLOPs of the function by which segfaith calls oneDNN, which torch does not count."""
    return conv_flop_count(data, weight, out_shape)


def forget_memory(device: torch.device) -> float | None:
    """Returns what earlier jobs freed to the system and starts the peak anew; what is left in use, in MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return memory_of(device, "VmRSS")


def memory_of(device: torch.device, key: str) -> float | None:
    """The process's resident memory in MB, of Linux (`VmHWM` its peak, `VmRSS` now), or the GPU's peak."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return None
    return int(lines[key].split()[0]) * 1.024e-3
