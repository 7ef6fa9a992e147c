"""The worker: a process that holds one model and runs named jobs, one at a time, when the parent asks for them."""

import ctypes
import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from platform import processor
from typing import Any

import numpy as np
import peers
import torch
from pytorch_grad_cam import GradCAM, GradCAMElementWise, HiResCAM
from torch.utils.flop_counter import FlopCounterMode
from workload import MASKS, SAMPLE, SEED, Output, Workload, make_case, read_model

from segfaith.attribution.explain import Gathered, gather, heatmaps, sample_rng
from segfaith.attribution.methods import MethodInstance, resolve_method
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.errors import SettingsError
from segfaith.evaluation.subject import Subject
from segfaith.evidence.gradient import clock
from segfaith.perturbation import clean_variant
from segfaith.scores import DEFAULT_BATCH, BatchSize
from segfaith.types import Target

BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (8, 16, 32, 64, 128)}
"""Perturbations per pass among which captum's best is looked for."""
FEW = 28
"""Cells of a warm-up, of a search for the best batch, and of a scaled sample."""


def evidence(case: Workload, instance: MethodInstance) -> Gathered:
    """What the library gathers for one method and the image as it is."""
    return gather(
        case.model,
        clean_variant(case.image, case.region),
        Target(case.class_index, case.region),
        [instance],
        BatchSize(DEFAULT_BATCH),
        sample_rng(SEED, SAMPLE),
    )


def intervene(case: Workload, batch: int, count: int, *, method: str) -> Output:
    """Score drops of all regions."""
    (found,) = evidence(case, resolve_method(method, {})).intervention.values()
    if isinstance(found, Exception):
        raise found
    return Output({"drop": found.drop[0].cpu().numpy()})


def explain(case: Workload, batch: int, count: int, *, method: str) -> Output:
    """A gradient map."""
    instance = resolve_method(method, {})
    gathered = evidence(case, instance)
    return Output({"map": heatmaps(case.model, gathered, instance, sample_rng(SEED, SAMPLE), SAMPLE)[0].cpu().numpy()})


def sample(case: Workload, batch: int, count: int) -> Output:
    """The whole sample, as a run computes it."""
    names = ("gpa", "ega", "ria", "dea", "random_cells")
    target, batch_size = Target(case.class_index, case.region), BatchSize(DEFAULT_BATCH)
    subject = Subject(case.model, SAMPLE, case.image, target, SEED, batch_size)
    records = evaluate_sample(subject, [resolve_method(name, {}) for name in names], EvaluationSettings()).records
    failed = [row["reason"] for row in records if row["status"] != "ok"]
    if failed:
        raise RuntimeError("; ".join(failed))
    return Output({row["method"]: np.array([row[metric] for metric in peers.METRICS]) for row in records})


JOBS: dict[str, Callable[[Workload, int, int], Output]] = {  # any other is a method whose drops are wanted
    "gpa": partial(explain, method="gpa"),
    "ega": partial(explain, method="ega"),
    "sample": sample,
    "Occlusion": peers.occlusion,
    "FeatureAblation": peers.feature_ablation,
    "GradCAM": partial(peers.cam, kind=GradCAM),
    "HiResCAM": partial(peers.cam, kind=HiResCAM),
    "GradCAMElementWise": partial(peers.cam, kind=GradCAMElementWise),
    "each by itself": partial(peers.whole_sample, reuse=False),
    "passes reused": partial(peers.whole_sample, reuse=True),
}


@dataclass(frozen=True, eq=False)
class Run:
    """What a job took and gave; where asked for, memory in MB (the peak, and before the job) and FLOPs."""

    seconds: float
    values: dict[str, np.ndarray]
    peak_mb: float | None = None
    idle_mb: float | None = None
    flops: int | None = None


@dataclass(frozen=True)
class Skipped:
    """Why a job cannot be run."""

    reason: str


class Worker:
    """What the parent can ask for: every method's arguments and results go through a pipe."""

    def __init__(self, model: str, device: str) -> None:
        self.model = read_model(model, device)
        self.cases = {mask: make_case(self.model, share) for mask, share in MASKS.items()}

    def run(self, job: str, mask: str, batch: int, count: int, *, memory: bool = False, flops: bool = False) -> Run:
        """One timed run; FLOPs are counted in a second one."""
        function = JOBS[job] if job in JOBS else partial(intervene, method=job)
        device, work = self.model.device, partial(function, self.cases[mask], batch, count)
        gc.collect()
        idle = _forget_memory(device) if memory else None
        start = clock(device)
        output = work()
        seconds = clock(device) - start + output.left_out
        peak = _memory(device, "VmHWM") if memory else None
        self.model.module.zero_grad()  # grad-cam leaves gradients in the parameters
        return Run(seconds, output.values, peak, idle, _flops(work) if flops else None)

    def best_batch(self, job: str, mask: str) -> int:
        """Perturbations per pass with which `FEW` cells take least, each tried until two seconds are spent."""
        best: dict[int, float] = {}
        for batch in BATCHES[self.model.device.type]:
            spent: list[float] = []
            while not spent or (sum(spent) < 2 and len(spent) < 5):
                spent.append(self.run(job, mask, batch, FEW).seconds)
            best[batch] = min(spent)
        return min(best, key=best.__getitem__)

    def dense_flops(self) -> int:
        """FLOPs of one plain pass of one image."""
        with torch.no_grad():
            return _flops(lambda: self.model.logits(self.cases["medium"].image[None]))

    def peak(self, dtype: str) -> float:
        """FLOP/s that this machine reaches: a 3 x 3 convolution of 256 channels by oneDNN, or a matmul on a GPU."""
        device, kind = self.model.device, getattr(torch, dtype)
        if device.type == "cuda":
            left, right = (torch.rand(8192, 8192, device=device, dtype=kind) for _ in range(2))
            work, count = lambda: left @ right, 2 * 8192**3
        else:
            images = torch.rand(16, 256, 28, 28).to(kind, memory_format=torch.channels_last)
            weight = torch.rand(256, 256, 3, 3).to(kind, memory_format=torch.channels_last)
            work = lambda: torch.nn.functional.conv2d(images, weight, padding=1)  # noqa: E731
            count = 2 * 16 * 28 * 28 * 256 * 256 * 9
        seconds = []
        with torch.inference_mode():
            for _ in range(12):
                start = clock(device)
                work()
                seconds.append(clock(device) - start)
        return count / min(seconds)

    def machine(self) -> dict[str, Any]:
        """What the numbers depend on."""
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
        names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
        cuda = self.model.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.model.device) if cuda else "cpu",
            "cpu": names[0] if names else processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        } | {name: version(name) for name in ("segfaith", "torch", "torchvision", "captum", "grad-cam")}


def _flops(work: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops()


def _forget_memory(device: torch.device) -> float | None:
    """Returns what earlier jobs freed to the system and starts the peak anew; what is left in use, in MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _memory(device, "VmRSS")


def _memory(device: torch.device, key: str) -> float | None:
    """The process's resident memory in MB, of Linux (`VmHWM` its peak, `VmRSS` now), or the GPU's peak."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return None
    return int(lines[key].split()[0]) * 1.024e-3


def serve(pipe: Connection, model: str, device: str, tuned: bool) -> None:
    """Answers (method of `Worker`, positional, keyword arguments) until it is sent None."""
    try:
        if tuned:
            _keep_memory()
        worker = Worker(model, device)
        pipe.send(None)
        while (request := pipe.recv()) is not None:
            name, args, kwargs = request
            try:
                pipe.send(getattr(worker, name)(*args, **kwargs))
            except SettingsError as error:
                pipe.send(Skipped(str(error)))
    except EOFError:
        pass  # the parent is gone
    except Exception:
        pipe.send(RuntimeError(traceback.format_exc()))


def _keep_memory() -> None:
    try:
        from segfaith.process import keep_memory
    except ImportError as error:
        raise RuntimeError("this segfaith has no segfaith.process.keep_memory; update it") from error
    keep_memory()
