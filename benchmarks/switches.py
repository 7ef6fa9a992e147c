r"""Which way of computing RIA's exact drops is fastest on a device: windows or whole images, batches, compiled or not.

    python benchmarks/switches.py [--model deeplabv3_resnet50] [--batches 16 49 98 196] [--whole-from 0.1 0.3]
        [--modes default reduce-overhead max-autotune] [--device cuda] [--size 224] [--grid 14] [--json FILE]

| way | what runs |
|---|---|
| windows | only what a cell changes is computed (`incremental = true`, the default) |
| whole images | plain batches of whole images (`incremental = false`) |
| windows below 30 % | windows in the early layers, whole batches later: see below; at the best batch of windows |
| windows as CUDA graphs | each batch of windows is recorded and then repeated: see `recorded.py`; at the same batch |
| compiled | whole images through `torch.compile`, in a mode of its own, at their best batch |

"Windows below 30 %": a layer whose windows cover 30 % of what it must compute computes all of it, and so do the layers
after it. Elsewhere that share is `incremental.windows.NEARLY_ALL`. On a GPU, `reduce-overhead` and `max-autotune` run
compiled images as CUDA graphs.

Each way is timed once it has run: what it traces, compiles or tunes is not counted. `difference` is the largest one
from the drops of whole images in batches of one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gauges import Skipped
from tables import SWITCHES, switch_line, table
from timing import Process
from workload import GRID, MODELS, SIZE

MASK = "medium"
MODES = ("default", "reduce-overhead", "max-autotune")
"""Of `torch.compile`."""


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Times every way, and writes what there is after each."""
    content: dict[str, Any] = {"model": options.model, "mask": MASK, "switches": []}
    given = (options.model, options.device, options.size, options.grid)
    process = Process(*given, tuned=True)
    exact = process.call("variant", MASK, 1, incremental=False, mode=None).values["drop"]

    def add(way: str, batch: int, **asked: Any) -> None:
        found = process.call("variant", MASK, batch, **asked)
        one: dict[str, Any] = {"way": way, "batch": batch}
        if isinstance(found, Skipped):
            one["reason"] = found.reason
        else:
            gap = float(np.abs(found.values["drop"] - exact).max())
            one |= {"seconds": found.seconds, "images_per_s": len(exact) / found.seconds}
            one |= {"difference": gap, "peak_mb": found.peak_mb}
        content["switches"].append(one)
        print(switch_line(content["model"], one), flush=True)
        if options.json:
            options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    for batch in options.batches:
        add("windows", batch, incremental=True, mode=None)
        add("whole images", batch, incremental=False, mode=None)

    def best(way: str) -> int:
        timed = (one for one in content["switches"] if one["way"] == way and "seconds" in one)
        found = [(one["seconds"], one["batch"]) for one in timed]
        return min(found)[1] if found else options.batches[0]

    for share in options.whole_from:
        add(f"windows below {share:.0%}", best("windows"), incremental=True, mode=None, whole_from=share)
    add("windows as CUDA graphs", best("windows"), incremental=True, mode=None, graphs=True)
    for mode in options.modes:
        process.close()  # torch keeps what it compiled in another mode; a failed recording may spoil the GPU's state
        process = Process(*given, tuned=True)
        add(f"compiled, {mode}", best("whole images"), incremental=False, mode=mode)
    process.close()
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description="ways to compute exact drops; what is measured: this file")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 49, 98, 196])
    parser.add_argument("--whole-from", nargs="*", type=float, default=[0.1, 0.3], help="shares")
    parser.add_argument("--modes", nargs="*", default=MODES, help="of torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the image in pixels")
    parser.add_argument("--grid", type=int, default=GRID, help="cells a side")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    content = compare(options)
    print("\n" + table(SWITCHES, [switch_line(content["model"], one) for one in content["switches"]]))


if __name__ == "__main__":
    main()
