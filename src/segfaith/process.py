"""Settings of the whole process. A library must not choose them, so only the command line applies them."""

import ctypes
import platform

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
