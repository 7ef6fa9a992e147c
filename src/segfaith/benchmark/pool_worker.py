"""The workers of a `pool.Pool`: each is a process that holds a model and measures samples."""

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from segfaith.benchmark.description import machine_words
from segfaith.benchmark.measuring import Measured, run_sample
from segfaith.benchmark.plan import differences, identity
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import load_sample
from segfaith.errors import SettingsError
from segfaith.process import keep_memory


@dataclass(frozen=True)
class Job:
    """What a worker must know of a run.

    Attributes:
        settings: of the run, with the worker's device and threads.
        folder: the working folder of the process that began the run, for relative paths.
        ids, stability_ids: the samples that were drawn there, and those with stability.
        known: the ids of the data set there, of which wired pairs are made.
    """

    settings: Settings
    folder: str
    ids: list[str]
    stability_ids: frozenset[str]
    known: list[str]


BROKEN = 70
"""Status with which a worker ends whose GPU fails."""


class Worker:
    """The actor: measures samples of the run that it took last."""

    def __init__(self) -> None:
        keep_memory()
        with suppress(ValueError):  # Ray would raise SystemExit in the middle of a sample, which would become its rows
            signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        self.prepared: Prepared | None = None

    def take(self, job: Job) -> str:
        """Loads the model of a run, and says the name of this machine.

        Raises:
            SettingsError: it cannot be loaded here, or the data set has other samples here.
        """
        host = socket.gethostname()
        with suppress(OSError):  # another machine may not have the folder
            os.chdir(job.folder)
        self.prepared = None  # the other model goes before this one comes
        try:
            prepared = prepare(job.settings)
        except SettingsError as error:
            raise SettingsError(f"the worker on {host} cannot begin: {error}") from error
        if job.settings.data.wired is not None and prepared.plan.dataset.ids != job.known:
            raise SettingsError(f"the data set has other samples on {host}; give all machines the same data")
        prepared.replan(replace(prepared.plan, ids=job.ids, stability_ids=job.stability_ids))
        self.prepared = prepared
        return host

    def measure(self, sample_id: str, expected: dict[str, Any]) -> Measured:
        """The rows and files of a sample of the run that was taken.

        Args:
            expected: the identity of a run of this sample alone, as the process that began the run computes it.

        Raises:
            SettingsError: this machine has other code, weights or data.
        """
        assert self.prepared is not None
        prepared, plan = self.prepared, self.prepared.plan
        here = self._identity(sample_id)
        if here != expected:
            time.sleep(1)  # a file system of a network may have stumbled
            here = self._identity(sample_id)
        if here != expected:
            raise SettingsError(
                f"the worker on {socket.gethostname()} would measure another run; give all machines the same code, "
                "weights and data.\nHere -> there:\n  " + "\n  ".join(differences(expected, here))
            )
        load = partial(load_sample, plan, prepared.model, sample_id)
        measured = run_sample(prepared, sample_id, load, prepared.batch)
        if any("CUDA error" in str(row["reason"]) for row in measured.records):
            os._exit(BROKEN)  # every later sample would fail here too; others measure this one
        return replace(measured, machine=machine_words(prepared.model))

    def _identity(self, sample_id: str) -> dict[str, Any]:
        assert self.prepared is not None
        return sample_identity(self.prepared, sample_id)


def sample_identity(prepared: Prepared, sample_id: str) -> dict[str, Any]:
    """The identity of a run of one sample alone; {} where a file cannot be read, which its rows then say."""
    try:
        return identity(replace(prepared.plan, ids=[sample_id]), prepared.model)
    except OSError:
        return {}
