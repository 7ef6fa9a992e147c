r"""How fast segfaith is beside captum and pytorch-grad-cam, computing the same numbers.

    python benchmarks/speed.py [--models ...] [--masks ...] [--rows ...] [--repeats 5] [--passes N]
        [--whole exact|sampled] [--dresses ...] [--device cuda] [--size 224] [--grid 14] [--seconds N]

| row | segfaith | peer |
|---|---|---|
| ria | drops of 14 x 14 cells, exact | captum's Occlusion and FeatureAblation |
| tf32, bf16, adaptive | the fast modes | the same two; beside tf32 and bf16 also captum in that precision |
| gpa, ega | gradient maps | grad-cam's GradCAM; HiResCAM (EGA's map), GradCAMElementWise (a ReLU per channel instead) |
| sample | GPA, EGA, RIA, DEA, control, perturbations, metrics | the same composed of captum and grad-cam, twice |
| quickstart | a sample with the methods of `segfaith run quickstart` | none |

captum runs in several dresses (`dress.py`): the module as it is, a copy that lies channels last, that copy under
autocast (bfloat16), and on a GPU with TF32 and compiled. Each dress has its own best number of images a pass; compiled
ones take that of the dress below. Ratios are to the fastest of all peers in float32. Beside tf32 and bf16 there is a
second ratio, to the fastest of all peers; and the table says how far these peers' drops are from captum's in float32.

The composed sample is timed with each method and each image by itself (captum's default of one perturbation a pass),
and as a competent user would write it: passes reused, batches tuned, also channels last.

Each model has two worker processes. The tuned one has segfaith's process settings (`segfaith.process.keep_memory`) and
runs both sides; the plain one has none and runs the peers as their user would. On a GPU these settings change nothing,
and there is one process. One job runs at a time: peers in the plain process and in the tuned one, then segfaith in the
tuned one, and again; medians are over these rounds. Before them each job runs once, for its peak memory (on the CPU
peers on a part of the cells). Where captum takes over 1.15 times as long as its fastest kind of the same precision in
this run, it has no rounds; the fastest FeatureAblation always has, for its drops. Compiled peers come last, by
themselves. Of several peers the fastest counts.

Peers take minutes on ResNets. `--whole sampled`, their default on the CPU, ablates 28 of the 196 cells, spread over the
image, and scales the seconds of these passes alone. Such numbers carry a tilde; then the drops are compared on these
cells, and RIA's and DEA's metrics of a sample not at all.

`share of peak` is what segfaith executes, in FLOP/s, over what a large convolution (on a GPU a matmul) reaches on this
machine in that precision; of whole samples it is not counted. `dense share` counts a whole pass for each scored image
instead, whether it was done or not: it can exceed 100 %, where work is avoided. `peak mb` is the process's highest
resident memory, of which `idle mb` was there before our job; on a GPU both are what torch allocated. On the CPU peers'
memory is that of 28 cells in the plain process.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from dress import DRESSES
from rows import GRADIENTS, GROUPS, figures, rows_of
from tables import COLUMNS, PROCESSES, line, markdown, means
from timing import Process, Race
from workload import GRID, MASKS, MODELS, SHARED, SIZE

SHORT = 4
"""Gradient maps take milliseconds: so many times the rounds."""


def run_model(model: str, options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Adds a model's results to `content`, which is written after each group of rows."""
    names = PROCESSES[options.one_process :]
    given = (options.size, options.grid)
    processes = {name: Process(model, options.device, *given, tuned=name == "tuned") for name in names}
    tuned, machine = processes["tuned"], content["machine"]
    if not machine:
        machine |= tuned.call("machine")
        kinds = ("float32", *(["tf32"] if options.device != "cpu" else []), "bfloat16")
        machine |= {f"peak GFLOP/s {kind}": round(tuned.call("peak", kind) / 1e9) for kind in kinds}
        print(machine, flush=True)
    dense = tuned.call("dense_flops")
    sampled = options.whole == "sampled" or (options.whole is None and "resnet" in model and not options.one_process)
    races = []
    for mask, group in product(options.masks, GROUPS):
        asked = rows_of(group, options.dresses, options.grid, options.passes)
        rows = [row for row in asked if row.key in options.rows]
        rounds = options.repeats * (SHORT if group == GRADIENTS else 1)
        scaled = sampled and group != GRADIENTS
        races.append(Race(processes, rows, mask, rounds, scaled=scaled, whole=options.one_process))
    for compiled in (False, True):
        for race in (race for race in races if race.jobs(compiled=compiled)):
            what = f"{model}, {race.mask}, {', '.join(row.title for row in race.rows)}{', compiled peers' * compiled}"
            if options.seconds and perf_counter() - options.began > options.seconds:
                content["skipped"].append(f"{what}: no time left after {options.seconds:g} s")
                continue
            race.run(compiled=compiled)
            content["skipped"] += [f"{model}, {race.mask}, {job}: {why}" for job, why in race.reasons()]
            told = {"model": model, "mask": race.mask, "mask_share": MASKS[race.mask], "scaled": race.scaled}
            told["images_per_pass"] = {name: process.call("found_batches") for name, process in processes.items()}
            found = [
                told | figures(row, race.timed, dense, machine[f"peak GFLOP/s {row.dtype}"] * 1e9)
                for row in race.rows
                if (row.ours, "tuned") in race.timed
            ]
            by_row = {(one["model"], one["mask"], one["row"]): one for one in content["results"] + found}
            content["results"] = list(by_row.values())  # compiled peers change rows that are there
            for one in found:
                print(line(one, [*COLUMNS]), flush=True)
            save(content, options)
    for process in processes.values():
        process.close()


def save(content: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes what there is so far: the whole takes hours."""
    content["means"] = means(content["results"])
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(content), encoding="utf-8")


def read_options() -> argparse.Namespace:
    """The command line, with the rows and dresses that the device can do as defaults."""
    parser = argparse.ArgumentParser(description="segfaith beside captum and grad-cam; what is measured: this file")
    keys = list(dict.fromkeys(row.key for group in GROUPS for row in rows_of(group, [], GRID, None)))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS))
    parser.add_argument("--rows", nargs="+", choices=keys, help="all that the device can do, if not given")
    parser.add_argument("--dresses", nargs="+", choices=list(DRESSES), help="likewise")
    parser.add_argument("--repeats", type=int, default=5, help="rounds over which medians are taken")
    parser.add_argument("--passes", type=int, help="budget of adaptive regions, if not the default")
    parser.add_argument("--whole", choices=("exact", "sampled"), help="peers in full, or scaled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--one-process", action="store_true", help="as on a GPU: the tuned process alone, peers in full"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="side of the image in pixels")
    parser.add_argument("--grid", type=int, default=GRID, help="cells a side, an even number that divides the size")
    parser.add_argument("--seconds", type=float, help="after so many no other group of rows is begun")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if options.grid < 2 or options.grid % 2 or options.size % options.grid:
        parser.error("--grid must be even and divide --size")
    gpu = options.device != "cpu"
    options.one_process = options.one_process or gpu
    options.rows = options.rows or [key for key in keys if gpu or key != "tf32"]
    options.dresses = options.dresses or [
        name for name, dress in DRESSES.items() if gpu or (dress.precision != "tf32" and not dress.compiled)
    ]
    return options


def main() -> None:
    options = read_options()
    options.began = perf_counter()
    content: dict[str, Any] = {"machine": {}, "results": [], "means": [], "skipped": []}
    for model in options.models:
        if model == "trained" and not SHARED.is_dir():
            content["skipped"].append("trained: its weights lie in ../shared, which is not there")
            print(content["skipped"][-1], flush=True)
        else:
            run_model(model, options, content)
        save(content, options)
    print("\n" + markdown(content))


if __name__ == "__main__":
    main()
