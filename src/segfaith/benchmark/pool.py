"""A pool of worker processes, on this machine or on a cluster, by Ray (Moritz et al. 2018).

Each worker is an actor: a process with its own copy of the model, on one GPU or on `cores` cores. It is given samples
one by one and sends back their rows and files. Only the process that began the run writes into the run directory.

A worker that dies takes at most the samples that it was given with it. They are given out again, and another worker
takes its place. A sample in whose measurement workers died `TRIES` times becomes failed rows with that reason. Workers
that die before they have loaded the model are no sample's fault: after `TRIES` in a row no more are hired.
"""

import os
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segfaith.benchmark.measuring import Measured, lost
from segfaith.benchmark.pool_worker import Job, Worker, sample_identity
from segfaith.benchmark.prepared import Prepared
from segfaith.errors import SampleError, SegfaithError, SettingsError

TRIES = 3
"""Workers that may die while they measure one sample, before the sample counts as the cause."""
PATIENCE = 600.0
"""Seconds without any worker after which a run stops. A cluster that grows by itself takes some minutes."""
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
        taken: the answer that comes when it has loaded the run's model; None before it was asked.
        host: the machine on which it runs, "" until it has loaded the model.
        given: the samples that it has been given, the one in work first.
    """

    actor: Any
    name: str
    taken: Any = None
    host: str = ""
    given: deque[str] = field(default_factory=deque)
    samples: int = 0
    since: float = 0.0


class Pool:
    """Ray's workers; one pool serves all runs of a command. Use it in a `with` block.

    Args:
        address: of a running Ray, or "auto" to find it; None: the Ray of this process, if it has one, or else one on
            this machine that ends with the block.
        on_pace: told how fast a worker is, after each sample.

    Raises:
        SettingsError: Ray is not installed, or cannot be started, or there is none at that address.
    """

    def __init__(self, address: str | None = None, on_pace: Callable[[Pace], None] = lambda pace: None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise SettingsError(f"executor = 'ray' needs Ray; install it with: {INSTALL}") from error
        self.ray, self.on_pace, self.hands, self.made = ray, on_pace, list[_Hand](), 0
        self.count, self.cores, self.gpus = 0, 1, 0
        self.own = not ray.is_initialized()
        if self.own:
            _start(ray, address)
        elif address is not None:
            raise SettingsError(
                f"this process has a Ray already, and none at {address!r} can be joined beside it; leave the address "
                "out, or call ray.shutdown() first"
            )

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if self.own:
            self.ray.shutdown()

    def places(self, cores: int, *, gpu: bool) -> tuple[int, int]:
        """How many workers have a place on all machines together, and the cores that each may have.

        Args:
            cores: that are asked for. With a GPU each, workers get no more than their machine has for each GPU.
        """
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not gpu:
            return sum(int(one.get("CPU", 0)) // cores for one in machines), cores
        with_gpu = [one for one in machines if one.get("GPU", 0) >= 1]
        free = int(self.ray.available_resources().get("GPU", 0)) + len(self.hands) * self.gpus
        return free, max(1, min([cores, *(int(one.get("CPU", 1) // one["GPU"]) for one in with_gpu)]))

    def hire(self, count: int, cores: int, *, gpu: bool) -> None:
        """Gives the pool at least so many workers, each with so many cores and perhaps a GPU.

        Workers of the same kind stay.
        """
        if (cores, int(gpu)) != (self.cores, self.gpus):
            self.dismiss()
        self.count, self.cores, self.gpus = count, cores, int(gpu)
        self.fill()

    def fill(self) -> None:
        """Hires who is missing."""
        while len(self.hands) < self.count:
            self.made += 1
            kind = self.ray.remote(Worker).options(num_cpus=self.cores, num_gpus=self.gpus, max_restarts=0)
            self.hands.append(_Hand(kind.remote(), f"worker {self.made}"))

    def measure(self, prepared: Prepared, ids: Sequence[str]) -> Iterator[Measured]:
        """Measures samples on all workers and gives each as soon as it is done, see `measuring.Measure`.

        Raises:
            SettingsError: the workers cannot load the model, see other code or data than this process, or cannot be
                started.
        """
        yield from _Round(self, prepared, ids).results()

    def dismiss(self) -> None:
        """Ends all workers; `fill` starts new ones."""
        for hand in list(self.hands):
            self.remove(hand)

    def remove(self, hand: _Hand) -> None:
        """Ends a worker."""
        with suppress(Exception):
            self.ray.kill(hand.actor)
        self.hands.remove(hand)


def _start(ray: Any, address: str | None) -> None:
    """Starts a Ray on this machine, or joins the one at the address. Signals mean what they meant before.

    Raises:
        SettingsError: that cannot be done.
    """
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            here = "127.0.0.1"  # Ray runs code for whoever reaches its ports
            own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE, "num_cpus": cores_here()}
            ray.init("local", _node_ip_address=here, **own, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        remedy = "start one with `ray start --head`, or leave the address out"
        what = f"there is no Ray at {address!r}" if address else "Ray cannot be started on this machine"
        why = _words(error)
        raise SettingsError(f"{what} ({why}); {remedy if address else 'use --executor serial'}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def cores_here() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Round:
    """One call of `Pool.measure`: which samples wait, which are at work, and what workers died of."""

    def __init__(self, pool: Pool, prepared: Prepared, ids: Sequence[str]) -> None:
        self.pool, self.prepared, self.ray = pool, prepared, pool.ray
        self.waiting = deque(ids)
        self.at_work: dict[Any, tuple[_Hand, str]] = {}
        self.deaths: Counter[str] = Counter()
        self.stillborn = 0  # workers in a row that died before they had loaded the model
        self.idle_since = time.monotonic()
        settings, plan = prepared.plan.settings, prepared.plan
        threads, device = settings.execution.threads or pool.cores, prepared.model.device.type
        execution = settings.execution.model_copy(update={"threads": threads, "device": device})
        settings = settings.model_copy(update={"execution": execution})
        self.job = self.ray.put(Job(settings, str(Path.cwd()), plan.ids, plan.stability_ids, list(plan.dataset.ids)))

    def results(self) -> Iterator[Measured]:
        """Every sample's rows, in the order in which they come."""
        for hand in self.pool.hands:
            hand.taken, hand.host, hand.samples, hand.since = None, "", 0, 0.0
            hand.given.clear()
        try:
            while self.waiting or self.at_work:
                self._give_out()
                taken = {hand.taken: hand for hand in self.pool.hands if not hand.host}
                ready, _ = self.ray.wait([*self.at_work, *taken], num_returns=1, timeout=5.0)
                self._check_patience()
                for reference in ready:
                    if reference in taken:
                        yield from self._greet(taken[reference])
                    elif reference in self.at_work:  # a worker's death may have cleared it
                        yield from self._collect(reference)
        finally:
            if self.at_work:  # the run stops early: what is still measured is for nobody
                self.pool.dismiss()

    def _give_out(self) -> None:
        """Gives samples to the workers that are ready: two where many wait, so that none is idle in between."""
        if self.stillborn <= TRIES:
            self.pool.fill()
        for hand in self.pool.hands:
            if hand.taken is None:
                hand.taken = hand.actor.take.remote(self.job)
        known = [hand for hand in self.pool.hands if hand.host]
        for depth in (1, 2):
            for hand in known:
                if len(hand.given) < depth and (len(self.waiting) > len(known) or depth == 1) and self.waiting:
                    sample_id = self.waiting.popleft()
                    hand.since = hand.since or time.monotonic()
                    hand.given.append(sample_id)
                    expected = sample_identity(self.prepared, sample_id)
                    self.at_work[hand.actor.measure.remote(sample_id, expected)] = (hand, sample_id)

    def _greet(self, hand: _Hand) -> list[Measured]:
        try:
            hand.host = self.ray.get(hand.taken)
        except self.ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except self.ray.exceptions.RayError as error:
            return self._bury(hand, error)
        hand.name, self.stillborn = f"{hand.name.partition(' (')[0]} ({hand.host})", 0
        return []

    def _collect(self, reference: Any) -> list[Measured]:
        hand, sample_id = self.at_work[reference]
        try:
            measured: Measured = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # the worker lives: it refuses the run, or has a fault
            raise _cause(error) from error
        except self.ray.exceptions.RayError as error:
            return self._bury(hand, error)
        del self.at_work[reference]
        hand.given.remove(sample_id)
        hand.samples += 1
        self.pool.on_pace(Pace(hand.name, hand.samples, time.monotonic() - hand.since))
        there = sum(other.host in (hand.host, "") for other in self.pool.hands)  # those that start may be there too
        return [replace(measured, workers=there)]

    def _bury(self, hand: _Hand, error: Exception) -> list[Measured]:
        """Removes a dead worker; its samples wait again, first of all, but for one in which workers died too often."""
        self.stillborn += not hand.host
        for reference in [one for one, (owner, _) in self.at_work.items() if owner is hand]:
            del self.at_work[reference]
        given = list(hand.given)
        self.pool.remove(hand)
        self.idle_since = time.monotonic()
        if self.stillborn > TRIES and not self.pool.hands:
            raise SettingsError(f"the workers die before they have loaded the model: {_words(error)}") from error
        if not given:
            return []
        self.deaths[given[0]] += 1
        if self.deaths[given[0]] < TRIES:
            self.waiting.extendleft(reversed(given))
            return []
        self.waiting.extendleft(reversed(given[1:]))
        reason = SampleError(
            f"the worker process died while it measured this sample, {TRIES} times ({_words(error)}); it may need "
            "more memory: set execution.memory, a smaller execution.batch_size, or fewer workers"
        )
        return [lost(self.prepared, given[0], reason)]

    def _check_patience(self) -> None:
        """Stops the run where no worker lives and none can be started."""
        now = time.monotonic()
        if any(hand.host for hand in self.pool.hands):
            self.idle_since = now
        elif now - self.idle_since > PATIENCE:
            raise SettingsError(
                f"no worker was ready in {PATIENCE:.0f} s: there is no free place with {self.pool.cores} cores and "
                f"{self.pool.gpus} GPUs, or the workers start slowly; see `ray status`, or set "
                "execution.cores_per_worker lower"
            )


def _cause(error: Any) -> BaseException:
    """What a worker raised, where a user can mend it, else Ray's own error."""
    cause: BaseException = error.cause
    return cause if isinstance(cause, SegfaithError) else error


def _words(error: BaseException) -> str:
    """The last line of an error of Ray's, which says what happened, without colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
