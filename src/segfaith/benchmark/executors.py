"""Chooses which processes measure a run: this one (`serial`), or the workers of a pool (`ray`).

`execution.executor` is "serial", "ray" or "auto". "auto" takes Ray where it is installed, more than one worker has a
place, and the work is longer than `SMALL`; so small jobs run in one process.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from statistics import median

import torch

from segfaith.batching import DEFAULT_BATCH, BatchSize, on_target, score_images
from segfaith.benchmark.execution_settings import ExecutionSettings
from segfaith.benchmark.measuring import Measure, Measured, serial
from segfaith.benchmark.pool import INSTALL, Pace, Pool, cores_here
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.suites import Suite
from segfaith.benchmark.warm_up import noise
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import clock
from segfaith.evidence.intervention import bounding_boxes
from segfaith.evidence.regions import grid_cells
from segfaith.incremental.scoring import scorer_for
from segfaith.memory import Memory
from segfaith.process import free_memory, own_memory
from segfaith.scores import Scalar
from segfaith.types import Tensor

SMALL = 120.0
"""Seconds of work, roughly, below which "auto" runs in this process: workers take about 15 to start."""
GRID = 14
"""Cells a side of the altered copies that are timed, as of RIA's regions."""
REPEATS = 3
LIMIT = 30.0
"""Seconds after which a calibration begins no further pass, and makes do with what it has measured."""
USABLE = 0.8
"""Share of the free memory that workers may fill."""


class Executors:
    """Chooses the processes for each run of a command and keeps their pool. Use it in a `with` block.

    Args:
        settings: `[execution]` of the command's runs: `executor`, `address`, `workers`, `cores_per_worker`.
        say: told a sentence about each choice.
        on_pace: told how fast each worker is, after each of its samples.

    Ray is started by `open`, or where the first samples are to be measured: by then the process holds the run's lock.
    """

    def __init__(
        self,
        settings: ExecutionSettings,
        say: Callable[[str], None] = lambda words: None,
        on_pace: Callable[[Pace], None] = lambda pace: None,
    ) -> None:
        self.settings, self.say, self.on_pace = settings, say, on_pace
        self.pool: Pool | None = None
        self.cores: int | None = None
        self.room: int | None = None
        self.told = ""

    def __enter__(self) -> "Executors":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.__exit__()
            self.pool = None

    def open(self) -> None:
        """Starts Ray, if it is asked for, so that what cannot work is told before any run of a suite.

        Raises:
            SettingsError: Ray is asked for and cannot be used.
        """
        if self.settings.executor == "ray" or (self.settings.executor == "auto" and self.settings.address is not None):
            self._open()

    def measure(self, prepared: Prepared, ids: Sequence[str]) -> Iterator[Measured]:
        """Chooses the processes for these samples and lets them measure, see `measuring.Measure`.

        Raises:
            SettingsError: as `choose` and `pool.Pool.measure`.
        """
        if ids:
            yield from self.choose(prepared, len(ids))(prepared, ids)

    def choose(self, prepared: Prepared, samples: int) -> Measure:
        """What measures `samples` samples of a run that is about to go on.

        Raises:
            SettingsError: Ray is asked for and cannot be used.
        """
        execution, gpu = prepared.plan.settings.execution, prepared.model.device.type == "cuda"
        named = ":" in execution.device
        if self.settings.executor == "serial":
            return self._serial("as asked for")
        if self.settings.executor == "auto" and self.settings.address is None:
            if find_spec("ray") is None:
                return self._serial(f"Ray is not installed: {INSTALL}")
            if named:
                return self._serial(f"the settings name one GPU, {execution.device}")
            found = calibrate(prepared, [torch.get_num_threads()])
            if not found:
                return self._serial("the model could not be timed on an artificial image")
            work = prepared.plan.passes * samples / len(prepared.plan.ids) * max(found.values())
            if work < SMALL:
                return self._serial(f"about {work:.0f} s of model passes")
            if (torch.cuda.device_count() if gpu else cores_here()) < 2:
                return self._serial("there is a place for one worker only")
        if named:
            raise SettingsError(
                f"execution.device = {execution.device!r} names one GPU, and Ray's workers take all; use "
                "'cuda', or executor = 'serial'"
            )
        pool = self._open()
        if self.cores is None:  # of all runs of the command, which share the workers
            self.cores, self.told = self._cores_per_worker(prepared, pool, gpu=gpu)
        count, cores = pool.places(self.cores, gpu=gpu)
        count = max(1, min(samples, self._allowed(count, prepared, gpu=gpu)))
        pool.hire(count, cores, gpu=gpu)
        each = f"each with {'a GPU and ' * gpu}{_cores(cores)}"
        self.say(f"executor  ray: {count} worker{'s' * (count != 1)}, {each}{self.told}")
        return pool.measure

    def _serial(self, why: str) -> Measure:
        self.say(f"executor  serial: {why}")
        return serial

    def _open(self) -> Pool:
        if self.pool is None:
            self.pool = Pool(self.settings.address, self.on_pace)
        return self.pool

    def _allowed(self, count: int, prepared: Prepared, *, gpu: bool) -> int:
        """How many of so many workers the settings allow, and on this machine its free memory."""
        count = min(count, self.settings.workers or count)
        if gpu or self.settings.address is not None:
            return count
        if self.room is None:  # before there are workers, which take of it
            self.room = places(cores_here(), prepared.batch.memory)
        return min(count, self.room)

    def _cores_per_worker(self, prepared: Prepared, pool: Pool, *, gpu: bool) -> tuple[int, str]:
        """As asked for, else that with which all workers together score the most altered images a second; and words."""
        asked = self.settings.cores_per_worker or self.settings.threads
        if asked is not None:
            return asked, ""
        if gpu:
            return cores_here(), ""  # no more than the machine has for each GPU
        wanted = powers_of_two(cores_here())
        seconds = calibrate(prepared, wanted)

        def images_a_second(threads: int) -> float:
            return self._allowed(pool.places(threads, gpu=False)[0], prepared, gpu=False) / seconds[threads]

        best = max(seconds, key=images_a_second, default=1)
        return best, _told(seconds, complete=len(seconds) == len(wanted))


def of_suite(suite: Suite) -> ExecutionSettings:
    """The executor that all runs of a suite ask for, since they share one pool.

    Raises:
        SettingsError: two runs ask for others.
    """
    asked = {run.name: run.settings.execution for run in suite.runs}
    for key in ("executor", "address", "workers", "cores_per_worker", "threads"):
        values = {name: getattr(execution, key) for name, execution in asked.items()}
        if len(set(values.values())) > 1:
            raise SettingsError(
                f"execution.{key} differs between the suite's runs, which share their workers: {values}; write it "
                "once, in the suite's own [execution]"
            )
    return next(iter(asked.values()))


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"


def _told(seconds: dict[int, float], *, complete: bool) -> str:
    """What was measured, for the words of the choice: images a second of one process, by its number of threads."""
    if not seconds:
        return " (the model could not be timed on an artificial image)"
    if len(seconds) < 2 and complete:
        return ""
    told = ", ".join(f"{1 / one:.{1 if one < 10 else 3}f} images/s on {_cores(n)}" for n, one in seconds.items())
    more = "" if complete else "; more cores were not timed: set execution.cores_per_worker if they are better"
    return f" (one process: {told}{more})"


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 and so on, up to `most`."""
    return [2**power for power in range(most.bit_length())]


def calibrate(prepared: Prepared, threads: Sequence[int]) -> dict[int, float]:
    """Seconds of one altered image, by the number of threads of this process.

    Copies of an artificial image with one cell occluded each are scored as in the run. The number of threads is left as
    it was found. Processes that run side by side share the machine's memory, so each may be slower than this.

    Returns:
        Nothing where the model cannot be run on an artificial image; after `LIMIT` no more numbers than were timed.
    """
    before, found = torch.get_num_threads(), dict[int, float]()
    deadline = time.monotonic() + LIMIT
    try:
        for number in threads:
            if found and time.monotonic() >= deadline:
                break
            torch.set_num_threads(number)
            with suppress(Exception, SystemExit):  # where it fails on samples too, their rows say so
                found[number] = _seconds_of_an_image(prepared, deadline)
    finally:
        torch.set_num_threads(before)
    return found


def _seconds_of_an_image(prepared: Prepared, deadline: float) -> float:
    """The median of `REPEATS` batches after a first one; of fewer, or of the first, where the deadline comes before."""
    model, settings = prepared.model, prepared.plan.settings
    image = noise(model, settings)
    region = torch.ones(image.shape[1:], dtype=torch.bool, device=model.device)
    if model.wired:
        region[:, region.shape[1] // 2 :] = False
    scorer = scorer_for(model, image, region, Scalar(1, independent=model.independent), "fp32")
    cells = grid_cells((image.shape[1], image.shape[2]), GRID, mirrored=False, wired=model.wired)
    start, stop = bounding_boxes(cells, GRID * GRID * (1 + model.wired))
    batch, stage = prepared.batch, on_target("calibration", region)
    at_once = batch.of(stage, features=scorer.features) if batch.memory is None else min(batch.images, DEFAULT_BATCH)
    count = min(at_once, GRID * GRID)
    own = BatchSize(count, batch.memory)
    chosen = torch.linspace(0, GRID * GRID - 1, count).long()  # small windows at the border, large ones within

    def build(numbers: Tensor) -> Tensor:
        occluded = (cells == chosen[numbers][:, None, None])[:, None]
        altered: Tensor = torch.where(occluded.to(image.device), 0.5, image)
        return altered

    def once() -> float:
        begun = clock(model.device)
        score_images(scorer.score, build, count, own, (start[chosen], stop[chosen]), stage)
        return clock(model.device) - begun

    timed = [once()]
    while len(timed) <= REPEATS and time.monotonic() < deadline:
        timed.append(once())
    return median(timed[1:] or timed) / count


def places(wanted: int, memory: Memory | None = None) -> int:
    """How many of the workers have room in the free memory of this machine, each as large as this process; at least 1.

    All of them where the system does not say how much is free.

    Args:
        memory: what this process had when its model was loaded, and the limit of what comes on top: where it is given,
            a worker takes both.
    """
    free, own = free_memory(), own_memory() if memory is None else memory.base + memory.limit
    return wanted if free is None or own is None else max(1, min(wanted, int(USABLE * free / own)))
