r"""What a large image costs: seconds and memory of RIA's 14 x 14 cells, beside captum's FeatureAblation.

    python benchmarks/large_images.py [--models ...] [--sizes 224 512 1024] [--limits 1GB 4GB] [--json FILE]

Every measurement has a process of its own, so that its peak is its own: the model is loaded, tries a small image, and
returns what it freed; then the parent reads the child's resident memory every few milliseconds until the job is done.

| job | what it does |
|---|---|
| exact | RIA's drops under `memory`, as `segfaith run` computes them (with its process settings) |
| adaptive | the same with `regions = "adaptive"`: 77 regions |
| captum | `FeatureAblation` of `--cells` of the 196 cells, seconds scaled, in a process without these settings |
| captum, channels last | the same with a copy of the module and images that lie channels last |

Ratios are to the faster of captum's two jobs. They take as many perturbations a pass as fit into 0.8 of the same memory
if each takes what a pass of one took.
`check s`, which is not in `seconds`, is what the first image of a size costs once: the graph is traced and compared
with the model itself. `above mb` is the peak beyond the resident memory at the start, which `memory` bounds.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import peers
import torch
from dress import DRESSES, Dress, in_dress
from workload import CELLS, GRID, MASKS, PHOTOGRAPH, SAMPLE, SEED, SHARED, Workload, read_model

from segfaith import load_image
from segfaith.attribution.explain import gather, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.batching import batches
from segfaith.data.datasets import open_dataset
from segfaith.evidence.gradient import clock
from segfaith.incremental.scoring import scorer_for
from segfaith.memory import SHARE, bytes_of
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import grid_partition
from segfaith.perturbation import clean_variant
from segfaith.process import forget_peak, keep_memory, own_memory, own_peak, return_memory
from segfaith.scores import Scalar
from segfaith.types import Target

MODELS = ("lraspp_mobilenet_v3_large", "trained")
METHODS = {"exact": "ria", "adaptive": "ria@regions=adaptive"}
CAPTUM = {in_dress("captum", name): DRESSES[name] for name in ("as it is", "channels last")}
PAUSE = 0.004
"""Seconds between two readings of a child's memory."""


@dataclass(frozen=True)
class Found:
    """What a job says of itself: seconds, those of a graph's check, images a pass, and how copies were scored."""

    seconds: float
    check_s: float | None
    batch: str
    path: str


def make_case(model: SegmentationModel, size: int) -> Workload:
    """As `workload.make_case`, at another size: the target is a centred square of a fifth of the image."""
    if PHOTOGRAPH.is_file():
        image = load_image(PHOTOGRAPH, size=size)
    else:
        scenes = open_dataset("scenes", None)
        image = scenes.load(scenes.ids[0], size).image
    half = round(size * MASKS["medium"] ** 0.5 / 2)
    region = torch.zeros(size, size, dtype=torch.bool)
    region[size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half] = True
    with torch.inference_mode():
        small = model.logits(torch.nn.functional.interpolate(image[None], size=(64, 64)))
    return Workload(
        model, image, int(small.mean((0, 2, 3))[1:].argmax()) + 1, region, grid_partition((size, size), GRID)
    )


def ours(case: Workload, limit: str, *, method: str) -> Found:
    """RIA's evidence under a limit of memory."""
    case.model.memory = bytes_of(limit)
    batch = batches(None, limit, case.model.device)
    begun = clock(case.model.device)
    path = scorer_for(case.model, case.image, case.region, Scalar(case.class_index)).path
    checked = clock(case.model.device)
    target = Target(case.class_index, case.region)
    variant, instance = clean_variant(case.image, case.region), resolve_method(method, {})
    gathered = gather(case.model, variant, target, [instance], batch, sample_rng(SEED, SAMPLE))
    seconds = clock(case.model.device) - checked
    for evidence in gathered.intervention.values():
        if isinstance(evidence, Exception):
            raise evidence
    assert batch.memory is not None
    largest = max(known.images for (kind, *_), known in batch.memory.batches.items() if kind == "occlusions")
    return Found(seconds, checked - begun, str(largest), path)


def captum(case: Workload, limit: str, *, cells: int, dress: Dress) -> Found:
    """FeatureAblation of some cells, at a batch that should fit into the same memory."""
    return_memory()
    forget_peak()
    before = own_memory() or 0
    peers.feature_ablation(case, 1, 1, dress)
    taken = max(1, (own_peak() or 0) - before)
    batch = max(1, min(cells, int(SHARE * bytes_of(limit) / taken)))
    peers.feature_ablation(case, batch, cells, dress)  # what the first batch of a size prepares would be scaled too
    begun = clock(case.model.device)
    output = peers.feature_ablation(case, batch, cells, dress)
    return Found(clock(case.model.device) - begun + output.left_out, None, str(batch), "")


def serve(pipe: Connection, model: str, size: int, limit: str, job: str, cells: int) -> None:
    """Says when it is ready, does the job when it is asked, and sends what was found."""
    if job not in CAPTUM:
        keep_memory()
    case = make_case(read_model(model, "cpu"), size)
    work: Callable[[Workload, str], Found] = (
        partial(captum, cells=cells, dress=CAPTUM[job]) if job in CAPTUM else partial(ours, method=METHODS[job])
    )
    return_memory()
    pipe.send(None)
    pipe.recv()
    pipe.send(work(case, limit))
    pipe.recv()


def measure(model: str, size: int, limit: str, job: str, cells: int) -> dict[str, Any]:
    """A row of the table: a job in a process of its own."""
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, model, size, limit, job, cells), daemon=True)
    process.start()
    theirs.close()
    status = Path(f"/proc/{process.pid}/status")
    try:
        pipe.recv()
        start = peak = _kilobytes(status, "VmRSS")
        pipe.send(None)
        while not pipe.poll(PAUSE):
            peak = max(peak, _kilobytes(status, "VmHWM"))  # the child starts its peak anew as it measures batches
        peak, found = max(peak, _kilobytes(status, "VmHWM")), pipe.recv()
        pipe.send(None)
    except EOFError:
        raise SystemExit(f"{model}, {size} px, {limit}, {job}: the process ended without an answer") from None
    process.join()
    row = {"model": model, "size": size, "memory": limit, "job": job, **asdict(found)}
    return row | {"start_mb": start * 1.024e-3, "above_mb": (peak - start) * 1.024e-3}


def _kilobytes(status: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table; a tilde marks seconds that were scaled, and ratios to them."""
    columns = ("model", "size", "memory", "job", "seconds", "captum / ours", "check s", "above mb", "batch", "path")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        same = [
            one
            for one in rows
            if [one[key] for key in ("model", "size", "memory")] == [row["model"], row["size"], row["memory"]]
        ]
        theirs = min((one["seconds"] for one in same if one["job"] in CAPTUM), default=None)
        by_captum = row["job"] in CAPTUM
        ratio = "" if by_captum or theirs is None else f"~{theirs / row['seconds']:.2f}"
        seconds = f"{'~' * by_captum}{row['seconds']:.3g}"
        check = "" if by_captum else f"{row['check_s']:.3g}"
        cells = [row["model"], row["size"], row["memory"], row["job"], seconds, ratio, check, f"{row['above_mb']:.0f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, row['batch'], row['path']]))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="what a large image costs; what is measured: this file")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512, 1024])
    parser.add_argument("--limits", nargs="+", default=["1GB", "4GB"])
    parser.add_argument("--jobs", nargs="+", choices=[*METHODS, *CAPTUM], default=[*METHODS, *CAPTUM])
    parser.add_argument("--cells", type=int, default=14, help="cells that captum ablates; a divisor of 196")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if CELLS % options.cells:
        parser.error(f"--cells {options.cells}: expected a divisor of {CELLS}")
    rows: list[dict[str, Any]] = []
    for model in options.models:
        if model == "trained" and not SHARED.is_dir():
            print("skipped trained: its weights lie in ../shared, which is not there", flush=True)
            continue
        for size, limit, job in ((a, b, c) for a in options.sizes for b in options.limits for c in options.jobs):
            begun = time.perf_counter()
            rows.append(measure(model, size, limit, job, options.cells))
            print(f"{rows[-1]} ({time.perf_counter() - begun:.0f} s with the start)", flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
