r"""How fast segfaith is beside captum and pytorch-grad-cam, computing the same numbers.

    python benchmarks/speed.py [--models ...] [--masks ...] [--rows ...] [--repeats 5] [--passes N]
        [--whole exact|sampled]

| row | segfaith | peer |
|---|---|---|
| ria | drops of 14 x 14 cells, exact | captum's Occlusion and FeatureAblation |
| bf16, adaptive | the fast modes | the same two |
| gpa, ega | gradient maps | grad-cam's GradCAM; HiResCAM (EGA's map), GradCAMElementWise (a ReLU per channel instead) |
| sample | GPA, EGA, RIA, DEA, control, perturbations, metrics | the same composed of captum and grad-cam, twice |

The composed sample is timed with each method and each image by itself (captum's default of one perturbation a pass),
and as a competent user would write it: passes reused, batches tuned.

Each model has two worker processes. The tuned one has segfaith's process settings (`segfaith.process.keep_memory`) and
runs both sides; the plain one has none and runs the peers as their user would. One job runs at a time: peers in the
plain process and in the tuned one, then segfaith in the tuned one, and again; medians are over these rounds. Before
them each job runs once, for its peak memory (peers on a part of the cells), and captum's best number of perturbations
a pass is found for each process, on a part of the cells. Of several peers the fastest counts.

Peers take minutes on ResNets. `--whole sampled`, their default, ablates 28 of the 196 cells, spread over the image, and
scales the seconds of these passes alone. Such numbers carry a tilde; then the drops are compared on these cells, and
RIA's and DEA's metrics of a sample not at all.

`share of peak` is what segfaith executes, in FLOP/s, over what a large convolution (on a GPU a matmul) reaches on this
machine in that precision; of whole samples it is not counted. `dense share` counts a whole pass for each scored image
instead, whether it was done or not: it can exceed 100 %, where work is avoided. `peak mb` is the process's highest
resident memory, of which `idle mb` was there before our job; on a GPU both are what torch allocated. Peers' memory is
that of 28 cells in the plain process.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
import torch
from jobs import FEW, Run, Skipped, serve
from scipy.stats import spearmanr
from workload import CELLS, MASKS, MODELS, SHARED

SAMPLE_IMAGES = 6 * (CELLS + 1) + 1 + 3 * 7
"""Images that a whole sample scores: six variants with their cells, the baseline, three for each of seven maps."""


@dataclass(frozen=True)
class Row:
    """A line of the table: our job, the peers of which the fastest counts, and those with the same result."""

    key: str
    title: str
    ours: str
    peers: tuple[str, ...]
    same: tuple[str, ...]
    images: int = 0
    dtype: str = "float32"


CAPTUM, EACH, REUSED = ("Occlusion", "FeatureAblation"), ("each by itself",), ("passes reused",)
GROUPS = (
    (
        Row("ria", "RIA", "ria", CAPTUM, CAPTUM, CELLS + 1),
        Row("bf16", "RIA, bf16", "ria@precision=bf16", CAPTUM, CAPTUM, CELLS + 1, "bfloat16"),
        Row("adaptive", "RIA, adaptive regions", "ria@regions=adaptive", CAPTUM, ()),
    ),
    (
        Row("gpa", "GPA", "gpa", ("GradCAM",), ("GradCAM",)),
        Row("ega", "EGA", "ega", ("HiResCAM", "GradCAMElementWise"), ("HiResCAM",)),
    ),
    (
        Row("sample", "sample, each by itself", "sample", EACH, EACH, SAMPLE_IMAGES),
        Row("sample", "sample, passes reused", "sample", REUSED, REUSED, SAMPLE_IMAGES),
    ),
)
"""Rows whose jobs are timed in turn."""
SHORT = 4
"""Gradient maps take milliseconds: so many times the rounds."""
COLUMNS = {
    "model": "",
    "mask": "",
    "row": "",
    "peer": "",
    "peer_user_s": ".4g",
    "peer_tuned_s": ".4g",
    "ours_s": ".4g",
    "ratio_user": ".2f",
    "ratio_tuned": ".2f",
    "difference": ".1e",
    "largest_drop": ".1e",
    "spearman": ".4f",
    "peer_peak_mb": ".0f",
    "ours_peak_mb": ".0f",
    "idle_mb": ".0f",
    "peak_share": ".0%",
    "dense_share": ".0%",
}
"""The table's columns; on a GPU `images_per_s` follows."""


class Process:
    """A worker process: a call runs a method of `jobs.Worker` there and waits for what it returns."""

    def __init__(self, model: str, device: str, *, tuned: bool) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, model, device, tuned), daemon=True)
        self.process.start()
        theirs.close()
        self.batches: dict[str, int] = {}
        self._answer()

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.pipe.send((name, args, kwargs))
        return self._answer()

    def run(self, job: str, mask: str, count: int, **kwargs: Any) -> Any:
        """One run of a job, captum's at its best batch in this process, which is found once."""
        search = {REUSED[0]: "FeatureAblation"}.get(job, job)
        if search in CAPTUM and search not in self.batches:
            self.batches[search] = self.call("best_batch", search, mask)
        return self.call("run", job, mask, self.batches.get(search, 1), count, **kwargs)

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise SystemExit("a worker process ended without an answer (out of memory?)") from None
        if isinstance(answer, RuntimeError):
            raise SystemExit(f"a worker process failed:\n{answer}")
        return answer

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


@dataclass
class Timed:
    """A job in one process: the run before the rounds, and the rounds."""

    first: Run
    rounds: list[Run]

    @property
    def seconds(self) -> float:
        return median(run.seconds for run in self.rounds)

    @property
    def values(self) -> dict[str, np.ndarray]:
        return self.rounds[-1].values


Timings = dict[tuple[str, str], Timed]
"""By job and process (`user` or `tuned`)."""


def measure(
    processes: dict[str, Process], rows: Sequence[Row], mask: str, rounds: int, peer_count: int
) -> tuple[Timings, dict[str, str]]:
    """Times the jobs of some rows in turn, the peers on `peer_count` cells; also why some cannot be run."""
    timed: Timings = {}
    skipped: dict[str, str] = {}
    ours = list(dict.fromkeys(row.ours for row in rows))
    for job in ours:
        first = processes["tuned"].run(job, mask, CELLS, memory=True, flops=rows[0].key != "sample")
        if isinstance(first, Skipped):
            skipped[job] = first.reason
        else:
            timed[job, "tuned"] = Timed(first, [])
    for peer in dict.fromkeys(peer for row in rows if row.ours not in skipped for peer in row.peers):
        for name, process in processes.items():
            timed[peer, name] = Timed(process.run(peer, mask, FEW, memory=True), [])
    order = sorted(timed, key=lambda key: key[0] in ours)  # peers first
    for _ in range(rounds if timed else 0):
        for job, name in order:
            timed[job, name].rounds.append(processes[name].run(job, mask, CELLS if job in ours else peer_count))
    return timed, skipped


def figures(row: Row, timed: Timings, dense: int, peak: float) -> dict[str, Any]:
    """What a row says."""
    ours = timed[row.ours, "tuned"]
    found: dict[str, Any] = {"row": row.title, "ours_s": ours.seconds}
    for name in ("user", "tuned"):
        seconds = {peer: timed[peer, name].seconds for peer in row.peers}
        best = min(seconds, key=seconds.__getitem__)
        found |= {f"peers_{name}_s": seconds, f"peer_{name}": best, f"peer_{name}_s": seconds[best]}
        found[f"ratio_{name}"] = seconds[best] / ours.seconds
    found |= {"peer": found["peer_user"], "peer_peak_mb": timed[found["peer_user"], "user"].first.peak_mb}
    found |= {"ours_peak_mb": ours.first.peak_mb, "idle_mb": ours.first.idle_mb}
    found["differences"] = {peer: _gaps(ours.values, timed[peer, "tuned"].values) for peer in row.same}
    gaps = [gap for one in found["differences"].values() for gap in one.values()]
    found["difference"] = float(np.max(np.concatenate(gaps))) if gaps else None  # NaN: undefined on one side only
    if row.images:
        found["images_per_s"] = row.images / ours.seconds
        found["dense_share"] = row.images * dense / ours.seconds / peak
    if ours.first.flops:
        found["peak_share"] = ours.first.flops / ours.seconds / peak
    if "drop" in ours.values:
        drop = ours.values["drop"]
        found |= {"regions": len(drop), "largest_drop": float(abs(drop).max())}
        if row.same:
            exact = timed[row.same[-1], "tuned"].values["drop"]
            above = exact > 1e-3  # where a scaled peer measured it
            found["cells_above_1e-3"] = int(above.sum())
            found["spearman"] = float(spearmanr(exact[above], drop[above]).statistic) if above.sum() > 2 else None
    return found


def _gaps(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Largest absolute difference of maps or drops; for a sample, that of each metric by method."""
    both = {name: (ours[name].astype(float), value.astype(float)) for name, value in theirs.items()}
    gaps = {
        name: np.where(np.isnan(b) & (np.isnan(a) | (name == "drop")), 0, abs(a - b))
        for name, (a, b) in both.items()
        if not np.isnan(b).all()
    }
    return {name: [float(gap.max())] if name in ("map", "drop") else gap.tolist() for name, gap in gaps.items()}


def run_model(model: str, options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Adds a model's results to `content`."""
    processes = {name: Process(model, options.device, tuned=name == "tuned") for name in ("user", "tuned")}
    tuned, machine = processes["tuned"], content["machine"]
    if not machine:
        machine |= tuned.call("machine")
        machine |= {
            f"peak GFLOP/s {dtype}": round(tuned.call("peak", dtype) / 1e9) for dtype in ("float32", "bfloat16")
        }
        print(machine, flush=True)
    dense = tuned.call("dense_flops")
    sampled = options.whole == "sampled" or (options.whole is None and "resnet" in model)
    wanted = [[_budgeted(row, options.passes) for row in group if row.key in options.rows] for group in GROUPS]
    for mask, rows in ((mask, rows) for mask in options.masks for rows in wanted if rows):
        rounds = options.repeats * (SHORT if rows[0] in GROUPS[1] else 1)
        scaled = sampled and rows[0] not in GROUPS[1]
        timed, skipped = measure(processes, rows, mask, rounds, FEW if scaled else CELLS)
        for row in rows:
            if row.ours in skipped:
                content["skipped"].append(f"{model}, {mask}, {row.title}: {skipped[row.ours]}")
                continue
            one = {"model": model, "mask": mask, "scaled": scaled}
            one |= figures(row, timed, dense, machine[f"peak GFLOP/s {row.dtype}"] * 1e9)
            one["perturbations_per_pass"] = {name: dict(process.batches) for name, process in processes.items()}
            content["results"].append(one)
            print(_line(one, [*COLUMNS]), flush=True)
    for process in processes.values():
        process.close()


def _budgeted(row: Row, passes: int | None) -> Row:
    """The row of adaptive regions with another budget."""
    if row.key != "adaptive" or passes is None:
        return row
    return replace(row, title=f"{row.title}, {passes} passes", ours=f"{row.ours},passes={passes}")


def means(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means of the ratios over the masks, by model and row."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault((one["model"], one["row"]), []).append(one)
    return [
        {"model": model, "row": row, "scaled": any(one["scaled"] for one in group), "masks": len(group)}
        | {key: geometric_mean([one[key] for one in group]) for key in ("ratio_user", "ratio_tuned")}
        for (model, row), group in groups.items()
    ]


def _line(one: dict[str, Any], columns: Sequence[str]) -> str:
    """A table's line: a dash where there is nothing, a tilde where the peer's seconds are scaled."""
    cells = []
    for column in columns:
        value = one.get(column)
        sign = "~" if one["scaled"] and column in ("peer_user_s", "peer_tuned_s", "ratio_user", "ratio_tuned") else ""
        cells.append("-" if value is None else f"{sign}{value:{COLUMNS.get(column, '.0f')}}")
    return f"| {' | '.join(cells)} |"


def markdown(content: dict[str, Any]) -> str:
    """The tables with what they were measured on, and what was skipped."""
    parts = [", ".join(f"{key} {value}" for key, value in content["machine"].items())]
    on_gpu = ["images_per_s"] if content["machine"].get("device", "cpu") != "cpu" else []
    for title, lines, columns in (
        ("Seconds are medians, memory is in MB:", content["results"], [*COLUMNS, *on_gpu]),
        ("Geometric means over the masks:", content["means"], ["model", "row", "ratio_user", "ratio_tuned", "masks"]),
    ):
        head = [f"| {' | '.join(column.replace('_', ' ') for column in columns)} |", "|---" * len(columns) + "|"]
        parts += [title, "\n".join(head + [_line(one, columns) for one in lines])]
    if any(one["scaled"] for one in content["results"]):
        parts.append(f"~: {FEW} of the {CELLS} cells were ablated and the seconds of these passes scaled.")
    return "\n\n".join([*parts, *(f"Skipped: {line}" for line in content["skipped"])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="segfaith beside captum and grad-cam; what is measured: this file")
    keys = list(dict.fromkeys(row.key for group in GROUPS for row in group))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS))
    parser.add_argument("--rows", nargs="+", choices=keys, default=keys)
    parser.add_argument("--repeats", type=int, default=5, help="rounds over which medians are taken")
    parser.add_argument("--passes", type=int, help="budget of adaptive regions, if not the default")
    parser.add_argument("--whole", choices=("exact", "sampled"), help="peers in full, or scaled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    content: dict[str, Any] = {"machine": {}, "results": [], "means": [], "skipped": []}
    for model in options.models:
        if model == "trained" and not SHARED.is_dir():
            content["skipped"].append("trained: its weights lie in ../shared, which is not there")
            print(content["skipped"][-1], flush=True)
        else:
            run_model(model, options, content)
        content["means"] = means(content["results"])
        if options.json:  # after each model: the whole takes hours
            options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if options.markdown:
            options.markdown.write_text(markdown(content), encoding="utf-8")
    print("\n" + markdown(content))


if __name__ == "__main__":
    main()
