"""Worker processes, and races: the jobs of some rows, timed in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from dress import dress_of
from gauges import Skipped
from rows import CAPTUM, Row, Timed, Timings

CLOSE = 1.15
"""A kind of captum's that took so many times as long as the fastest before the rounds has none."""


class Process:
    """A worker process: a call runs a method of `jobs.Worker` there and waits for what it returns."""

    def __init__(self, model: str, device: str, size: int, grid: int, *, tuned: bool) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, tuned, model, device, size, grid), daemon=True)
        self.process.start()
        theirs.close()
        self._answer()

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What the method returns, or `Skipped` where it cannot be run."""
        self.pipe.send((name, args, kwargs))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise SystemExit("a worker process ended without an answer (out of memory?)") from None
        if isinstance(answer, RuntimeError):
            raise SystemExit(f"a worker process failed:\n{answer}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        self.pipe.send(None)
        self.process.join()


def _serve(*args: Any) -> None:
    from jobs import serve  # the worker alone needs the peers' packages

    serve(*args)


@dataclass
class Race:
    """The jobs of some rows on one mask, timed in turn.

    Attributes:
        scaled: whether peers ablate a part of the cells in the rounds.
        whole: whether peers ablate all cells before the rounds.
        skipped: why a job cannot be run.
    """

    processes: dict[str, Process]
    rows: Sequence[Row]
    mask: str
    rounds: int
    scaled: bool
    whole: bool
    timed: Timings = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    told: int = 0

    def jobs(self, *, compiled: bool) -> list[str]:
        """Peers, then ours; or the compiled peers."""
        able = [row for row in self.rows if row.ours not in self.skipped]
        peers = [peer for row in able for peer in (*row.peers, *row.fast) if dress_of(peer).compiled == compiled]
        return list(dict.fromkeys(peers + ([] if compiled else [row.ours for row in able])))

    def run(self, *, compiled: bool) -> None:
        """Runs each job once, then those in the race in rounds."""
        ours = {row.ours: row.key for row in self.rows}
        for job in (job for job in ours if not compiled):
            self._first(job, "tuned", flops=ours[job] not in ("sample", "quickstart"))
        keys = [(job, name) for job in self.jobs(compiled=compiled) if job not in ours for name in self.processes]
        for job, name in keys:
            for _ in range(1 + compiled):  # the first run compiles
                if job not in self.skipped:
                    self._first(job, name, few=not self.whole)
        racing = in_race({key: one.first.seconds for key, one in self.timed.items() if key[0] not in ours})
        order = [key for key in keys if key in racing]
        order += [key for key in self.timed if key[0] in ours and not compiled]
        for _ in range(self.rounds):
            for job, name in order:
                few = self.scaled and job not in ours
                self.timed[job, name].rounds.append(self.processes[name].call("run", job, self.mask, few=few))

    def _first(self, job: str, name: str, **asked: bool) -> None:
        found = self.processes[name].call("run", job, self.mask, memory=True, **asked)
        if isinstance(found, Skipped):
            self.skipped[job] = found.reason
        else:
            self.timed[job, name] = Timed(found, [])

    def reasons(self) -> Iterator[tuple[str, str]]:
        """The jobs that could not be run, and why; each is told once."""
        new = list(self.skipped.items())[self.told :]
        self.told = len(self.skipped)
        yield from new


def in_race(seconds: dict[tuple[str, str], float]) -> set[tuple[str, str]]:
    """Which jobs are timed in rounds, of seconds before them: see `speed.py`."""
    kept = set()
    for (job, name), own in seconds.items():
        kind = job.partition(", ")[0]
        alike = {
            other: taken
            for (other, where), taken in seconds.items()
            if where == name
            and other.partition(", ")[0] in CAPTUM
            and dress_of(other).precision == dress_of(job).precision
        }
        features = [taken for other, taken in alike.items() if other.partition(", ")[0] == CAPTUM[1]]
        if kind not in CAPTUM or own <= CLOSE * min(alike.values()) or (kind == CAPTUM[1] and own == min(features)):
            kept.add((job, name))
    return kept
