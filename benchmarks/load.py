"""Load: a run of 20,000 small samples, and what it costs to resume it, to ask for its status and to report on it.

    python benchmarks/load.py FOLDER                      # 20,000 samples; takes half an hour to an hour
    python benchmarks/load.py FOLDER --samples 2000       # a first look
    python benchmarks/load.py FOLDER --figure docs/load.png

It makes a folder data set (the 2,000 scenes at 32 px, each as it is and in shifted and noisy variants), a model of
three convolutions and settings, runs them with the runner, and writes into FOLDER:

    run.csv     samples done, seconds, processor seconds and resident MB of the running process, every 500 samples
    verbs.csv   of `segfaith run`, `status` and `report --html` on the run with some of its samples done: seconds,
                processor seconds and peak resident MB. `run` is stopped when it has written its next shard; where
                nothing is to do, it runs to its end.
    load.png    memory and processor time per sample over the samples done

A run that was stopped goes on. Processor seconds, of user and system, are the measure on a machine that others use too.
"""

import argparse
import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

STEP = 500
SHARD = 8
VARIANTS = 10
PIXELS = 32
PHASES = ["run", "verbs", "figure"]
METHODS = ["gpa", "ega", "ria@grid=4", "dea@grid=4", "random", "random_cells", "mask", "gamed@grid=4"]
RUN_COLUMNS = ["samples", "seconds", "processor_seconds", "resident_mb"]
VERB_COLUMNS = ["verb", "samples", "seconds", "processor_seconds", "peak_mb"]

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(20)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, {classes}, 1),
    )
    with torch.no_grad():
        model[-1].weight *= 20  # untrained, but not undecided: scores from 0 to 1
    return model
"""

SETTINGS = """
name = "load"

[data]
name = "folder"
root = "{root}/data"
size = {pixels}

[model]
name = "{root}/model.py:build"
layer = "3"

[methods]
names = {methods}

[evaluation]
stability = false
fidelity = {fidelity}
whole = {whole}

[execution]
device = "cpu"
executor = "serial"
threads = 1
shard_size = {shard}
"""


def make_project(folder: Path, samples: int, light: bool) -> Path:
    """Writes the data set, the model and the settings, where they are not there yet; returns the settings file."""
    from segfaith.classes import SCENE_CLASSES

    data, settings = folder / "data", folder / "settings.toml"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True, exist_ok=True)
    (data / "classes.txt").write_text("\n".join(SCENE_CLASSES), encoding="utf-8")
    there = {path.name for path in (data / "masks").iterdir()}
    for number in range(-(-samples // VARIANTS)):
        if f"{number:04d}-{VARIANTS - 1}.png" not in there:
            draw(data, number)
    (folder / "model.py").write_text(MODEL.format(classes=len(SCENE_CLASSES)), encoding="utf-8")
    names = str(METHODS).replace("'", '"')
    sets, whole = (0, "false") if light else (96, "true")
    text = SETTINGS.format(root=folder.resolve(), pixels=PIXELS, methods=names, fidelity=sets, whole=whole, shard=SHARD)
    settings.write_text(text, encoding="utf-8")
    return settings


def draw(data: Path, number: int) -> None:
    """One scene, of "val" and then of "train", as it is and in variants that are shifted in a circle and noisy."""
    from segfaith.data.scenes import COUNT, load_scene

    scene = load_scene(f"{'val' if number < COUNT else 'train'}-{number % COUNT:04d}", PIXELS)
    image, labels = scene.image.permute(1, 2, 0).numpy(), scene.labels.numpy().astype(np.uint8)
    rng = np.random.default_rng(number)
    for variant in range(VARIANTS):
        shift = rng.integers(0, PIXELS, 2) if variant else (0, 0)
        noise = rng.normal(0, 0.03, image.shape) if variant else np.zeros(image.shape)
        write(data / "images", number, variant, (np.roll(image, shift, (0, 1)) + noise).clip(0, 1) * 255)
        write(data / "masks", number, variant, np.roll(labels, shift, (0, 1)))


def write(folder: Path, number: int, variant: int, array: NDArray[np.floating | np.uint8]) -> None:
    """One picture as PNG."""
    Image.fromarray(array.round().astype(np.uint8)).save(folder / f"{number:04d}-{variant}.png", compress_level=1)


def resident() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 1e6


def run(settings: Path, directory: Path, measured: int, log: Path) -> None:
    """Measures so many samples, the first ones, and adds a line to the log every `STEP` samples."""
    from segfaith.benchmark.prepared import prepare
    from segfaith.benchmark.runner import open_directory, run_shards
    from segfaith.benchmark.settings import read_settings

    prepared = prepare(read_settings(settings, []))
    todo = open_directory(directory, prepared)
    shards = prepared.plan.shards
    done = len(prepared.plan.ids) - sum(len(shards[shard]) for shard in todo)
    begun = time.perf_counter()

    def note(sample_id: str) -> None:
        nonlocal done
        done += 1
        if done % STEP == 0:
            append(log, RUN_COLUMNS, [done, time.perf_counter() - begun, time.process_time(), resident()])

    run_shards(prepared, directory, [shard for shard in todo if shard * SHARD < measured], note)


def fill(settings: Path, directory: Path) -> None:
    """Writes the files of records that are still to do: rows of measured samples under other ids, all numbers altered
    by a thousandth of themselves.
    """
    from segfaith.benchmark.plan import record_file
    from segfaith.benchmark.prepared import prepare
    from segfaith.benchmark.runner import open_directory
    from segfaith.benchmark.settings import read_settings
    from segfaith.results.records.files import write_rows
    from segfaith.results.records.runs import load_run
    from segfaith.results.records.schema import RECORD_COLUMNS

    prepared = prepare(read_settings(settings, []))
    todo = open_directory(directory, prepared)
    samples = [rows for _, rows in load_run(directory).records.groupby("sample_id", sort=False)]
    rng = np.random.default_rng(0)
    for shard in todo:
        rows = copies(samples, prepared.plan.shards[shard], rng)
        write_rows(record_file(directory, shard), rows, RECORD_COLUMNS, prepared.identity)


def copies(samples: Sequence[pd.DataFrame], ids: Sequence[str], rng: np.random.Generator) -> list[dict[Hashable, Any]]:
    """Rows for these ids, each with those of a sample that is drawn."""
    drawn = [samples[place] for place in rng.integers(len(samples), size=len(ids))]
    table = pd.concat(drawn, ignore_index=True)
    table["sample_id"] = np.repeat(ids, [len(rows) for rows in drawn])
    numbers = table.select_dtypes("float")
    table[numbers.columns] = numbers * rng.normal(1, 0.001, numbers.shape)
    words = table.columns.difference(numbers.columns)  # a missing number stays NaN, a missing word is none
    return (
        table.astype(dict.fromkeys(words, object)).replace({name: {np.nan: None} for name in words}).to_dict("records")
    )


def append(file: Path, columns: Sequence[str], values: Sequence[object]) -> None:
    """Adds a line to a CSV file and shows it."""
    new = not file.exists()
    cells = [f"{value:.3f}" if isinstance(value, float) else value for value in values]
    with file.open("a", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        if new:
            lines.writerow(columns)
        lines.writerow(cells)
    print(*cells, flush=True)


def part_of(directory: Path, samples: int, target: Path) -> Path:
    """A run directory with the first samples of a run alone, as if it had been stopped there."""
    shutil.rmtree(target, ignore_errors=True)
    for kind in ("records", "curves"):
        (target / kind).mkdir(parents=True)
        for file in sorted((directory / kind).glob("*.parquet"))[: samples // SHARD]:
            os.link(file, target / kind / file.name)
    shutil.copy(directory / "run.json", target)
    return target


def timed(arguments: Sequence[object], stop_at: Path | None = None) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of a verb in a process of its own, which ends once a file is there."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "segfaith", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while stop_at is not None and process.poll() is None:
            if stop_at.exists():
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.01)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def verbs(settings: Path, directory: Path, sizes: Sequence[int], log: Path) -> None:
    """Measures the verbs on the run with so many of its samples done."""
    total = sum(1 for _ in (settings.parent / "data" / "images").iterdir())
    for samples in sizes:
        part = part_of(directory, samples, directory.with_name("part"))
        page = directory.with_name("report")
        append(log, VERB_COLUMNS, ["status", samples, *timed(["status", part])])
        append(log, VERB_COLUMNS, ["report --html", samples, *timed(["report", part, "--html", "-o", page])])
        following = part / "records" / f"{samples // SHARD:05d}.parquet" if samples < total else None
        append(log, VERB_COLUMNS, ["run", samples, *timed(["run", settings, "-o", part], following)])


def figure(log: Path, path: Path) -> None:
    """Memory and processor time per sample over the samples done."""
    import matplotlib.pyplot as plt

    table = np.genfromtxt(log, delimiter=",", names=True)
    steps = np.diff(table["samples"]), np.diff(table["processor_seconds"])
    whole = (steps[0] > 0) & (steps[1] > 0)  # a process that goes on counts its seconds from its own start
    drawn, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    axes[0].plot(table["samples"], table["resident_mb"])
    axes[0].set_ylabel("resident memory, MB")
    axes[1].plot(table["samples"][1:][whole], 1000 * steps[1][whole] / steps[0][whole])
    axes[1].set_ylabel("processor time, ms per sample")
    for one in axes:
        one.set_xlabel("samples done")
        one.locator_params("x", nbins=5)
        one.set_ylim(0, 1.15 * one.dataLim.y1)
        one.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=20_000, help=f"at most {2000 * VARIANTS}")
    parser.add_argument("--measured", type=int, help="measure the first so many; the others' rows are copies of theirs")
    parser.add_argument("--light", action="store_true", help="no fidelity sets and no scores of the whole image")
    parser.add_argument("--figure", type=Path, help="where the figure goes; default FOLDER/load.png")
    parser.add_argument("--phase", choices=PHASES, help="one of them alone; default all")
    given = parser.parse_args()
    if (
        given.phase is None
    ):  # each in a process of its own: a child's peak memory counts that of the process it came from
        for phase in PHASES:
            subprocess.run([sys.executable, *sys.argv, "--phase", phase], check=True)
        return
    folder: Path = given.folder
    settings = make_project(folder, given.samples, given.light)
    directory = folder / "run"
    if given.phase == "run":
        run(settings, directory, given.measured or given.samples, folder / "run.csv")
    if given.phase == "verbs":
        if given.measured:
            fill(settings, directory)
        sizes = sorted({given.samples * share // 20 // SHARD * SHARD for share in (1, 5, 10)} | {given.samples})
        verbs(settings, directory, sizes, folder / "verbs.csv")
    if given.phase == "figure":
        figure(folder / "run.csv", given.figure or folder / "load.png")


if __name__ == "__main__":
    main()
