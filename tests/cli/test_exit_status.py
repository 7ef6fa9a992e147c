"""The exit statuses of docs/reliability.md: each verb's own stand in the tests of the verbs."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folder_runs import add_sample, command, content, make_project, sample_arrays, toml, write_settings
from made_runs import make_run
from segfaith.results.records import runs

pytestmark = pytest.mark.usefixtures("as_users")

QUICK: dict[str, Any] = {"methods": {"names": ["random"]}, "evaluation": {"stability": False, "fidelity": 0}}
MADE: dict[str, Any] = {"samples": ("a", "b"), "methods": ("gpa", "ega"), "maps": 0, "curves": False}


@pytest.mark.parametrize(("bad", "status"), [("failed", 1), ("skipped", 0)])
def test_rows_that_failed_are_status_1_of_run_and_suite_and_skipped_ones_are_not(
    bad: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a run that was finished before."""
    root = make_project(tmp_path / "project", samples=2)
    image, labels = sample_arrays(3)
    if bad == "failed":
        add_sample(root / "data", "s9", image, labels[:30])
    else:
        add_sample(root / "data", "s9", image, np.zeros_like(labels))
    for _ in range(2):
        assert command(monkeypatch, "run", write_settings(root, **QUICK), "-o", tmp_path / "run") == status
    tables = {key: value for key, value in content(".", **QUICK).items() if key not in ("model", "name")}
    model = "\n".join(f"{key} = {value!r}" for key, value in (content(".")["model"] | {"label": "a"}).items())
    (root / "suite.toml").write_text(f'name = "night"\n{toml(tables)}\n[[models]]\n{model}\n')
    assert command(monkeypatch, "suite", root / "suite.toml", "-o", tmp_path / "suite") == status


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 3, "error: No space left on device; make room there"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 3, "error: x: Permission denied; make it writable"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_no_verb_expects_has_a_status_and_no_traceback(
    error: BaseException,
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(paths: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "load_runs", fail)
    assert command(monkeypatch, "report", tmp_path) == status
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file"), EOFError("cut")])
def test_a_fault_of_the_program_is_not_passed_off_as_the_users(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(paths: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "load_runs", fail)
    with pytest.raises(type(error)):
        command(monkeypatch, "report", tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["suite", "leaderboard", "--show"], ["list", "settings"]])
def test_a_reader_who_goes_away_is_status_141(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from segfaith.cli import main; sys.argv = {['segfaith', *arguments]!r}; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(write)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_another_process_works_on_is_status_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from segfaith.benchmark.lock import at_work

    run = make_run(tmp_path / "run", **MADE)
    with at_work(run), pytest.raises(OSError, match="another process works on"), at_work(run):
        pass

    def busy(paths: Any) -> None:
        with at_work(run), at_work(run):
            pass

    monkeypatch.setattr(runs, "load_runs", busy)
    assert command(monkeypatch, "report", run) == 3
    assert "wait until it ends" in capsys.readouterr().err
