"""A pool of worker processes, on this machine or on a cluster, by Ray (Moritz et al. 2018).

Each worker is an actor: a process with its own copy of the model, on one GPU or on `cores` cores. It is given samples
one by one and sends back their rows and files. Only the process that began the run writes into the run directory.

A worker that dies takes at most the samples that it was given with it. They are given out again, and another worker
takes its place. A sample in whose measurement workers died `TRIES` times becomes failed rows with that reason.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from segfaith.benchmark.measuring import Measured, lost
from segfaith.benchmark.plan import identity
from segfaith.benchmark.pool_worker import Job, Worker
from segfaith.benchmark.prepared import Prepared
from segfaith.errors import SampleError, SegfaithError, SettingsError

TRIES = 3
"""Workers that may die while they measure one sample, before the sample counts as the cause."""
PATIENCE = 120.0
"""Seconds without any worker after which a run stops: the cluster has no place for one."""
STORE = 2**30
"""Bytes of shared memory, at most, in which a Ray that is started here keeps the rows and maps on their way."""
INSTALL = "pip install 'segfaith[ray]'"


@dataclass(frozen=True)
class Pace:
    """How fast a worker is: samples that it has measured, and the seconds since it was first given one."""

    worker: str
    samples: int
    seconds: float


@dataclass(eq=False)
class _Hand:
    """A worker as the pool sees it.

    Attributes:
        node: the machine on which it runs, "" until it has said so.
        given: the samples that it has been given, the one in work first.
    """

    actor: Any
    name: str
    hello: Any
    node: str = ""
    given: deque[str] = field(default_factory=deque)
    samples: int = 0
    since: float = 0.0


class Pool:
    """Ray's workers; one pool serves all runs of a command. Use it in a `with` block.

    Args:
        address: of a running Ray, or "auto" to find it; None: a Ray on this machine that ends with the block.
        on_pace: told how fast a worker is, after each sample.

    Raises:
        SettingsError: Ray is not installed, or there is none at that address.
    """

    def __init__(self, address: str | None = None, on_pace: Callable[[Pace], None] = lambda pace: None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise SettingsError(f"executor = 'ray' needs Ray; install it with: {INSTALL}") from error
        self.ray, self.on_pace, self.hands, self.shape = ray, on_pace, list[_Hand](), (0, 0.0, 0.0)
        self.made = 0
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        try:
            if address is None:
                here = "127.0.0.1"  # Ray runs code for whoever reaches its ports
                ray.init("local", include_dashboard=False, object_store_memory=STORE, _node_ip_address=here, **quiet)
            else:
                ray.init(address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"there is no Ray at {address!r} ({str(error).splitlines()[0]}); start one with `ray start --head`, or "
                "leave the address out"
            ) from error

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        self.ray.shutdown()

    def total(self, resource: str) -> int:
        """How many "CPU" or "GPU" all machines have together."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def hire(self, count: int, cores: int, *, gpu: bool) -> None:
        """Gives the pool this many workers, each with so many cores and perhaps a GPU; those of the same kind stay."""
        shape = (count, float(cores), float(gpu))
        if shape != self.shape:
            self.dismiss()
            self.shape = shape
        self._fill()

    def _fill(self) -> None:
        """Hires who is missing."""
        while len(self.hands) < self.shape[0]:
            self.hands.append(self._hired())

    def measure(self, prepared: Prepared, ids: Sequence[str]) -> Iterator[Measured]:
        """Measures samples on all workers and gives each as soon as it is done, see `measuring.Measure`.

        Raises:
            SettingsError: the workers cannot load the model, see other code or data than this process, or cannot be
                started.
        """
        self._fill()
        yield from _Round(self, prepared, ids).results()

    def _hired(self) -> _Hand:
        self.made += 1
        _, cores, gpus = self.shape
        kind = self.ray.remote(Worker).options(num_cpus=cores, num_gpus=gpus, max_restarts=0)
        actor = kind.remote()
        return _Hand(actor, f"worker {self.made}", actor.hello.remote())

    def dismiss(self) -> None:
        """Ends all workers; `hire` starts new ones."""
        for hand in self.hands:
            with suppress(Exception):
                self.ray.kill(hand.actor)
        self.hands.clear()

    def replace_dead(self, hand: _Hand) -> None:
        """Puts a new worker in the place of one that died."""
        with suppress(Exception):
            self.ray.kill(hand.actor)
        self.hands[self.hands.index(hand)] = self._hired()


class _Round:
    """One call of `Pool.measure`: which samples wait, which are at work, and what workers died of."""

    def __init__(self, pool: Pool, prepared: Prepared, ids: Sequence[str]) -> None:
        self.pool, self.prepared, self.ray = pool, prepared, pool.ray
        self.waiting = deque(ids)
        self.at_work: dict[Any, tuple[_Hand, str]] = {}
        self.deaths: Counter[str] = Counter()
        self.beside: Counter[str] = (
            Counter()
        )  # the most workers that measured on the machine while a sample was at work
        self.blank = 0  # workers in a row that died or could not be reached before they measured anything
        self.idle_since = time.monotonic()
        settings = prepared.plan.settings
        device = prepared.model.device.type
        execution = settings.execution.model_copy(update={"threads": int(pool.shape[1]), "device": device})
        settings = settings.model_copy(update={"execution": execution})
        self.job = self.ray.put(Job(uuid4().hex, settings, str(Path.cwd())))

    def results(self) -> Iterator[Measured]:
        """Every sample's rows, in the order in which they come."""
        for hand in self.pool.hands:
            hand.given.clear()
            hand.samples, hand.since = 0, 0.0
        try:
            while self.waiting or self.at_work:
                self._give_out()
                hellos = {hand.hello: hand for hand in self.pool.hands if not hand.node}
                ready, _ = self.ray.wait([*self.at_work, *hellos], num_returns=1, timeout=5.0)
                self._check_patience(ready)
                for reference in ready:
                    if reference in hellos:
                        self._greet(hellos[reference])
                    elif reference in self.at_work:  # a worker's death may have cleared it
                        yield from self._collect(reference)
        finally:
            if self.at_work:  # the run stops early: what is still measured is for nobody
                self.pool.dismiss()

    def _give_out(self) -> None:
        """Gives samples to the workers that have said hello: two where many wait, so that none is idle in between."""
        known = [hand for hand in self.pool.hands if hand.node]
        for depth in (1, 2):
            for hand in known:
                if len(hand.given) < depth and (len(self.waiting) > len(known) or depth == 1) and self.waiting:
                    self._give(hand, self.waiting.popleft())

    def _give(self, hand: _Hand, sample_id: str) -> None:
        plan, model = self.prepared.plan, self.prepared.model
        try:
            expected = identity(replace(plan, ids=[sample_id]), model)
        except OSError:  # the worker cannot read it either, and says so in its rows
            expected = {}
        hand.since = hand.since or time.monotonic()
        hand.given.append(sample_id)
        self.at_work[hand.actor.measure.remote(self.job, sample_id, expected)] = (hand, sample_id)
        self._count_busy()

    def _count_busy(self) -> None:
        """Notes for each sample in work how many workers measure on its machine; called when one has got something."""
        busy = [hand for hand in self.pool.hands if hand.given]
        on_node = Counter(hand.node for hand in busy)
        for hand in busy:
            self.beside[hand.given[0]] = max(self.beside[hand.given[0]], on_node[hand.node])

    def _greet(self, hand: _Hand) -> None:
        try:
            hand.node, host = self.ray.get(hand.hello)
        except self.ray.exceptions.RayError as error:
            self._bury(hand, error)
        else:
            hand.name = f"{hand.name} ({host})"

    def _collect(self, reference: Any) -> Iterator[Measured]:
        hand, sample_id = self.at_work[reference]
        try:
            measured: Measured = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # the worker lives: it refuses the run, or has a fault
            cause = error.cause
            raise cause if isinstance(cause, SegfaithError) else error from error
        except self.ray.exceptions.RayError as error:
            yield from self._bury(hand, error)
            return
        del self.at_work[reference]
        hand.given.remove(sample_id)
        hand.samples, self.blank = hand.samples + 1, 0
        self._count_busy()
        self.pool.on_pace(Pace(hand.name, hand.samples, time.monotonic() - hand.since))
        yield replace(measured, workers=self.beside.pop(sample_id))

    def _bury(self, hand: _Hand, error: Exception) -> list[Measured]:
        """Replaces a dead worker; its samples wait again, first of all, but for one in which workers died too often."""
        self.blank += not hand.samples
        if self.blank > TRIES * len(self.pool.hands):
            raise SettingsError(f"the workers die before they have measured anything: {_first_line(error)}") from error
        for reference in [one for one, (owner, _) in self.at_work.items() if owner is hand]:
            del self.at_work[reference]
        given = list(hand.given)
        self.pool.replace_dead(hand)
        self.idle_since = time.monotonic()
        if not given:
            return []
        self.deaths[given[0]] += 1
        if self.deaths[given[0]] < TRIES:
            self.waiting.extendleft(reversed(given))
            return []
        self.waiting.extendleft(reversed(given[1:]))
        reason = SampleError(
            f"the worker process died while it measured this sample, {TRIES} times ({_first_line(error)}); it may need "
            "more memory: try a smaller execution.batch_size, or fewer workers"
        )
        return [lost(self.prepared, given[0], reason)]

    def _check_patience(self, ready: Sequence[Any]) -> None:
        """Stops the run where no worker lives and none can be started."""
        now = time.monotonic()
        if ready or any(hand.node for hand in self.pool.hands):
            self.idle_since = now
        elif now - self.idle_since > PATIENCE:
            _, cores, gpus = self.pool.shape
            raise SettingsError(
                f"no worker could be started in {PATIENCE:.0f} s: the cluster has no free place with {cores:g} cores "
                f"and {gpus:g} GPUs; see `ray status`, or set execution.cores_per_worker lower"
            )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
