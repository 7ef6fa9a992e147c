"""Samples a second over workers: one process with one or all threads, then worker processes of Ray.

    python benchmarks/scaling.py examples/voc-mobilenetv2.toml -n 12
    python benchmarks/scaling.py scenes.toml -n 64 --cores 1 2 4

Each row is one run of the same samples. Its rate leaves out the start of the workers and their first samples, whose
layers are used for the first time, and the tail: it is taken from when each worker has finished its first sample until
the first worker has nothing to do. `calibrated` is what `cores_per_worker` becomes when it is left out.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from segfaith.benchmark.executors import calibrate, cores_here, powers_of_two
from segfaith.benchmark.measuring import Measure, serial
from segfaith.benchmark.pool import Pool
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import find_settings, read_settings


def rate(prepared: Prepared, measure: Measure, workers: int) -> float:
    """Samples a second of a run that `workers` processes measure."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        todo = open_directory(directory, prepared)
        run_shards(prepared, directory, todo, lambda sample_id: ends.append(time.perf_counter()), measure)
    last = len(ends) - workers
    return (last - workers + 1) / (ends[last] - ends[workers - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", help="settings file, or a packaged one")
    parser.add_argument("-n", type=int, default=16, help="samples; at least four for each worker")
    parser.add_argument("--cores", type=int, nargs="*", help="cores of a worker; default 1, 2, 4 and so on")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    cores = cores_here()
    overrides = [f"data.n={given.n}", "execution.device=cpu", *given.overrides]
    prepared = prepare(read_settings(find_settings(given.settings), overrides))
    found = calibrate(prepared, powers_of_two(cores))
    print(f"{prepared.model.name}, {given.n} samples, {cores} cores, torch {torch.__version__}")
    print(
        "calibrated: "
        + ", ".join(f"{threads} threads {1 / seconds:.1f} images/s" for threads, seconds in found.items())
    )
    print("| processes | threads each | samples/min | to one process of one thread |")
    print("|---|---|---|---|")
    base = 0.0
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        value = rate(prepared, serial, 1)
        base = base or value
        print(f"| 1 (serial) | {threads} | {60 * value:.2f} | {value / base:.2f} |", flush=True)
    with Pool() as pool:
        for each in given.cores or powers_of_two(cores):
            for count in range(1, cores // each + 1):
                pool.hire(count, each, gpu=False)
                value = rate(prepared, pool.measure, count)
                print(f"| {count} (ray) | {each} | {60 * value:.2f} | {value / base:.2f} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("RAY_worker_niceness", "0")
    main()
