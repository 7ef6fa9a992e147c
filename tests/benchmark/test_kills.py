"""A run that is killed (`kill -9`) at twenty moments, and begun again each time, ends as an undisturbed run does."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from folder_runs import toml
from segfaith.results.records.runs import load_run

KILLS = 20
SETTINGS = {
    "name": "killed",
    "data": {"name": "scenes", "size": 48, "ids": [f"val-{number:04d}" for number in range(4)]},
    "model": {"name": "scenes"},
    "methods": {"names": ["mask"]},
    "evaluation": {"stability": False, "k": [0.2, 0.4], "fidelity": 0},
    "execution": {"device": "cpu", "shard_size": 1},
    "output": {"maps": True},
}
DRIVER = """
import os, random, signal, sys, time
from pathlib import Path

from segfaith.benchmark.runner import run
from segfaith.benchmark.settings import read_settings

settings, place, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


def begin(name):
    process = os.fork()
    if process == 0:
        run(read_settings(Path(settings)), place / name)
        os._exit(0)
    return process


start = time.monotonic()
assert os.waitpid(begin("whole"), 0)[1] == 0
length, moments, killed, chain = time.monotonic() - start, random.Random(0), 0, 0
while killed < kills:
    process, end = begin(f"run{chain}"), time.monotonic() + moments.uniform(0, 0.8 * length)
    while time.monotonic() < end and os.waitpid(process, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    if time.monotonic() < end:  # it was finished before its moment came: the next kills are another run's
        chain += 1
        continue
    try:
        os.kill(process, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    except ChildProcessError:
        chain += 1
assert os.waitpid(begin(f"run{chain}"), 0)[1] == 0
print(killed, chain + 1)
"""
"""Forks a process for every start, since each would import torch for seconds; prints the kills and the runs."""


def test_a_run_killed_at_twenty_moments_ends_with_the_records_of_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(toml(SETTINGS))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "settings.toml"), str(tmp_path), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    killed, runs = map(int, done.stdout.split())
    assert killed == KILLS
    whole = load_run(tmp_path / "whole")
    for number in range(runs):
        directory = tmp_path / f"run{number}"
        run = load_run(directory)
        pd.testing.assert_frame_equal(
            run.records.drop(columns="runtime_s"), whole.records.drop(columns="runtime_s"), check_exact=True
        )
        pd.testing.assert_frame_equal(run.curves, whole.curves, check_exact=True)
        files = {file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*")}
        assert {file.relative_to(directory) for file in directory.rglob("*")} == files, (
            "no temporary files, and nothing was set aside"
        )
        for kept in (tmp_path / "whole" / "maps").rglob("*.npy"):
            assert (directory / kept.relative_to(tmp_path / "whole")).read_bytes() == kept.read_bytes()
