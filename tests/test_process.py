"""What the process asks of the C library."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from segfaith import process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_is_told_to_keep_memory() -> None:
    """In a process of its own, since it holds until the process ends."""
    code = "from segfaith.process import keep_memory; print(keep_memory(), keep_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "True True"


@pytest.mark.parametrize(("taken", "expected"), [(1, True), (0, False)])
def test_what_the_c_library_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, taken: int, expected: bool) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return taken if option == -1 else 1

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert process.keep_memory() is expected
    assert (-4, 0) in calls, "M_MMAP_MAX = 0: no allocation goes back to the system when it is freed"
    assert any(option == -1 and value > 2**30 for option, value in calls), "M_TRIM_THRESHOLD"


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str]) -> None:
    def never(name: str | None) -> None:
        pytest.fail("no C library may be opened")

    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(process.ctypes, "CDLL", never)
    assert process.keep_memory() is False
