"""Settings of the whole process. A library must not choose them, so only the command line applies them."""

import ctypes
import platform
import re
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_memory() -> bool:
    """Lets the C library keep freed memory instead of returning it to the system after every large tensor.

    On the CPU, fresh pages cost a small network up to half of its time. The process keeps its peak
    memory until it ends. `segfaith run` calls this; in a program of your own, call it once, early.

    Returns:
        Whether the C library accepted it: True with glibc (Linux); elsewhere False, and nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
    return all(bool(mallopt(option, value)) for option, value in wanted.items())


GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Where a GPU is, whose driver maps more than there is memory."""
SHARE = 0.9
"""How much of the memory that is free when the process starts it may take."""


def bound_memory() -> bool:
    """Lets the process take no more memory than is free when it starts: more fails, and a batch that fails is halved.

    Without a bound, Linux hands out more than it has, and then ends the process without a word.

    Returns:
        Whether the bound was set: True on Linux without a GPU; elsewhere False, and nothing is changed.
    """
    free = free_memory()
    if free is None or any(Path(gpu).exists() for gpu in GPUS):
        return False
    import resource  # of POSIX only

    used = _kilobytes(Path("/proc/self/status"), "VmData")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = (used or 0) + int(SHARE * free)
    if soft == resource.RLIM_INFINITY or bound < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    return True


def free_memory() -> int | None:
    """Bytes that processes may still take: of the machine, or of the container where that is less; None: unknown."""
    machine = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    if machine is None:
        return None
    free = machine + (_kilobytes(Path("/proc/meminfo"), "SwapFree") or 0)
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return free


def own_memory() -> int | None:
    """Bytes of memory that this process has; None: unknown."""
    return _kilobytes(Path("/proc/self/status"), "VmRSS")


def own_peak() -> int | None:
    """The most bytes of memory that this process had since `forget_peak`; None: unknown."""
    return _kilobytes(Path("/proc/self/status"), "VmHWM")


def forget_peak() -> bool:
    """Lets `own_peak` count from what the process has now.

    Returns:
        Whether the system did: True on Linux; elsewhere False, and `own_peak` means nothing.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def return_memory() -> None:
    """Lets the C library return freed memory to the system: glibc's does, others are left alone."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _kilobytes(file: Path, name: str) -> int | None:
    """A line "NAME: N kB" of a file of /proc, in bytes; None where there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
