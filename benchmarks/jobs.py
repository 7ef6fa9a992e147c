"""The worker: a process that holds one model and runs named jobs, one at a time, when the parent asks for them."""

import gc
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from platform import processor
from typing import Any

import numpy as np
import peers
import torch
from dress import DRESSES, dress_of, in_dress
from gauges import Run, Skipped, flops_of, forget_memory, memory_of
from pytorch_grad_cam import GradCAM, GradCAMElementWise, HiResCAM
from recorded import recorded
from workload import GRID, MASKS, SAMPLE, SEED, SIZE, Output, Workload, make_case, read_model

from segfaith.attribution.explain import Gathered, gather, heatmaps, sample_rng
from segfaith.attribution.methods import MethodInstance, resolve_method
from segfaith.batching import BatchSize, batches, out_of_memory
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.plan import resolve_methods
from segfaith.benchmark.settings import find_settings, read_settings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.errors import SettingsError
from segfaith.evaluation.subject import Subject
from segfaith.evidence.gradient import clock
from segfaith.incremental import windows
from segfaith.perturbation import clean_variant
from segfaith.types import Target

BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (16, 49, 98, 196)}
"""Perturbations per pass among which captum's best is looked for."""
SEARCH = 0.5
"""Seconds for which a batch is tried, if a pass is that short, and five passes at most."""
FEW = 2 * GRID
"""Cells of a warm-up and of a scaled sample: two in each row of the grid."""


def evidence(case: Workload, instance: MethodInstance, batch: BatchSize | None = None) -> Gathered:
    """What the library gathers for one method and the image as it is."""
    return gather(
        case.model,
        clean_variant(case.image, case.region),
        Target(case.class_index, case.region),
        [instance],
        batch or batches(None, None, case.model.device),
        sample_rng(SEED, SAMPLE),
    )


def intervene(case: Workload, batch: int, count: int, *, method: str, own: BatchSize | None = None) -> Output:
    """Score drops of all regions; `own`: other batches than a run's."""
    (found,) = evidence(case, resolve_method(method, case.tables), own).intervention.values()
    if isinstance(found, Exception):
        raise found
    return Output({"drop": found.drop[0].cpu().numpy()})


def explain(case: Workload, batch: int, count: int, *, method: str) -> Output:
    """A gradient map."""
    instance = resolve_method(method, {})
    gathered = evidence(case, instance)
    return Output({"map": heatmaps(case.model, gathered, instance, sample_rng(SEED, SAMPLE), SAMPLE)[0].cpu().numpy()})


def measure_sample(case: Workload, methods: list[MethodInstance], settings: EvaluationSettings) -> Output:
    """The whole sample with stability, as a run computes it."""
    target, batch_size = Target(case.class_index, case.region), batches(None, None, case.model.device)
    subject = Subject(case.model, SAMPLE, case.image, target, SEED, batch_size)
    records = evaluate_sample(subject, methods, settings).records
    failed = [row["reason"] for row in records if row["status"] != "ok"]
    if failed:
        raise RuntimeError("; ".join(failed))
    return Output({row["method"]: np.array([row[metric] for metric in peers.METRICS]) for row in records})


def sample(case: Workload, batch: int, count: int) -> Output:
    """The sample that peers compose too."""
    names = ("gpa", "ega", "ria", "dea", "random_cells")
    return measure_sample(case, [resolve_method(name, case.tables) for name in names], EvaluationSettings())


def quickstart_sample(case: Workload, batch: int, count: int) -> Output:
    """A sample with the methods and metrics of `segfaith run quickstart`."""
    settings = read_settings(find_settings("quickstart"))
    return measure_sample(case, resolve_methods(settings.methods.names, case.tables), settings.evaluation)


IN_DRESSES: dict[str, Callable[..., Output]] = {
    "Occlusion": peers.occlusion,
    "FeatureAblation": peers.feature_ablation,
    "passes reused": partial(peers.whole_sample, reuse=True),
}
"""Peers' jobs whose passes run in each dress of `dress.py`, and in batches."""
JOBS: dict[str, Callable[[Workload, int, int], Output]] = {  # any other is a method whose drops are wanted
    "gpa": partial(explain, method="gpa"),
    "ega": partial(explain, method="ega"),
    "sample": sample,
    "quickstart": quickstart_sample,
    "GradCAM": partial(peers.cam, kind=GradCAM),
    "HiResCAM": partial(peers.cam, kind=HiResCAM),
    "GradCAMElementWise": partial(peers.cam, kind=GradCAMElementWise),
    "each by itself": partial(peers.whole_sample, reuse=False),
} | {in_dress(name, key): partial(job, dress=one) for name, job in IN_DRESSES.items() for key, one in DRESSES.items()}


class Worker:
    """What the parent can ask for: every method's arguments and results go through a pipe."""

    def __init__(self, model: str, device: str, size: int = SIZE, grid: int = GRID) -> None:
        self.model = read_model(model, device)
        self.cases = {mask: make_case(self.model, share, size, grid) for mask, share in MASKS.items()}
        self.batches: dict[str, int] = {}

    def run(self, job: str, mask: str, *, few: bool = False, memory: bool = False, flops: bool = False) -> Run:
        """One timed run; FLOPs are counted in a second one.

        Args:
            few: whether a peer ablates two cells in each row instead of all.

        Raises:
            SettingsError: the job cannot be run here.
        """
        function = JOBS[job] if job in JOBS else partial(intervene, method=job)
        case, batch = self.cases[mask], 1
        if job.partition(", ")[0] in IN_DRESSES:
            batch = self.best_batch(dress_of(job).like or dress_of(job).name, mask)
        work = partial(function, case, batch, 2 * case.grid if few else case.count)
        try:
            return self._timed(work, memory=memory, flops=flops)
        except Exception as error:  # compilers are not everywhere, and fail in many ways
            if job.partition(", ")[0] in IN_DRESSES and dress_of(job).compiled:
                raise SettingsError(_words(error)) from error
            raise

    def _timed(self, work: Callable[[], Output], *, memory: bool, flops: bool) -> Run:
        device = self.model.device
        gc.collect()
        idle = forget_memory(device) if memory else None
        start = clock(device)
        output = work()
        seconds = clock(device) - start + output.left_out
        peak = memory_of(device, "VmHWM") if memory else None
        self.model.module.zero_grad()  # grad-cam leaves gradients in the parameters
        return Run(seconds, output.values, peak, idle, flops_of(work) if flops else None)

    def best_batch(self, dress: str, mask: str) -> int:
        """Images a pass in a dress with which an image takes least, found once; each is tried for `SEARCH`.

        No larger batches are tried after one that takes a quarter more than the best, or for which memory is too small.
        """
        if dress in self.batches:
            return self.batches[dress]
        case, device = self.cases[mask], self.model.device
        score = peers.masked_mean(case, case.region, DRESSES[dress])
        seconds: dict[int, float] = {}
        for batch in BATCHES[device.type]:
            images, spent = case.image.expand(batch, -1, -1, -1).contiguous(), []
            try:
                while not spent or (sum(spent) < SEARCH and len(spent) < 5):
                    start = clock(device)
                    with torch.no_grad(), peers.autocast(DRESSES[dress], device):
                        score(images)
                    spent.append(clock(device) - start)
            except RuntimeError as error:
                if not seconds or not out_of_memory(error):
                    raise
                break
            seconds[batch] = min(spent) / batch
            if seconds[batch] > 1.25 * min(seconds.values()):
                break
        self.batches[dress] = min(seconds, key=seconds.__getitem__)
        return self.batches[dress]

    def found_batches(self) -> dict[str, int]:
        """Images a pass by dress, as `best_batch` found them."""
        return self.batches

    def variant(
        self,
        mask: str,
        batch: int,
        *,
        incremental: bool,
        mode: str | None,
        whole_from: float = windows.NEARLY_ALL,
        graphs: bool = False,
    ) -> Run:
        """RIA's drops, timed once they have been computed: exact, in float32.

        Args:
            incremental: whether only what a cell changes is computed.
            mode: of `torch.compile`, for whole images; None: not compiled.
            whole_from: the share of what a layer must compute from which windows become all of it.
            graphs: whether batches of windows are recorded as CUDA graphs.

        Raises:
            SettingsError: it cannot be compiled or recorded here, or memory is too small.
        """
        from torch._inductor import config, list_mode_options  # takes seconds, and only this needs it

        case, model, own = self.cases[mask], self.model, BatchSize(batch)
        work = partial(intervene, case, batch, case.count, method="ria", own=own)
        model.incremental, model.compile = incremental, mode is not None
        before, windows.NEARLY_ALL = windows.NEARLY_ALL, whole_from
        try:
            compiling = config.patch(list_mode_options(mode)) if mode else nullcontext()
            with compiling, recorded(model.device) if graphs else nullcontext():
                for _ in range(2):  # the first run traces, compiles, records and tunes
                    found = self._timed(work, memory=True, flops=False)
        except Exception as error:
            if (mode is None and not graphs) or isinstance(error, SettingsError):
                raise
            raise SettingsError(_words(error)) from error
        finally:
            model.incremental, model.compile, windows.NEARLY_ALL = True, False, before
        if own.images < batch:
            raise SettingsError(f"memory is too small for {batch} images a batch: {own.images} were used")
        return found

    def dense_flops(self) -> int:
        """FLOPs of one plain pass of one image."""
        with torch.no_grad():
            return flops_of(lambda: self.model.logits(next(iter(self.cases.values())).image[None]))

    def peak(self, dtype: str) -> float:
        """FLOP/s that this machine reaches: a 3 x 3 convolution of 256 channels by oneDNN, or a matmul on a GPU.

        Args:
            dtype: "float32", "bfloat16", or on a GPU "tf32".
        """
        device, kind = self.model.device, getattr(torch, "float32" if dtype == "tf32" else dtype)
        if device.type == "cuda":
            left, right = (torch.rand(8192, 8192, device=device, dtype=kind) for _ in range(2))
            work, count = lambda: left @ right, 2 * 8192**3
        else:
            images = torch.rand(16, 256, 28, 28).to(kind, memory_format=torch.channels_last)
            weight = torch.rand(256, 256, 3, 3).to(kind, memory_format=torch.channels_last)
            work = lambda: torch.nn.functional.conv2d(images, weight, padding=1)  # noqa: E731
            count = 2 * 16 * 28 * 28 * 256 * 256 * 9
        seconds = []
        with torch.inference_mode(), self.model.evaluating(tf32=dtype == "tf32"):
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


def _words(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def serve(pipe: Connection, tuned: bool, *args: Any) -> None:
    """Makes a `Worker` of `args`; answers (method of `Worker`, positional, keyword arguments) until it is sent None."""
    try:
        if tuned:
            _keep_memory()
        worker = Worker(*args)
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
