"""The workers of a `pool.Pool`: each is a process that holds a model and measures samples."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from segfaith.benchmark.measuring import Measured, run_sample
from segfaith.benchmark.plan import differences, identity
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import load_sample
from segfaith.errors import SettingsError
from segfaith.process import keep_memory
from segfaith.scores import BatchSize


@dataclass(frozen=True)
class Job:
    """What a worker must know of a run; `key` tells it from other calls."""

    key: str
    settings: Settings
    folder: str


class Worker:
    """The actor: measures samples of the run that it was given last."""

    def __init__(self) -> None:
        keep_memory()
        self.job: Job | None = None
        self.prepared: Prepared | None = None
        self.batch = BatchSize(1)

    def hello(self) -> tuple[str, str]:
        """The id of its node, and the name of that machine."""
        import ray

        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def measure(self, job: Job, sample_id: str, expected: dict[str, Any]) -> Measured:
        """The rows and files of a sample.

        Args:
            expected: the identity of a run of this sample alone, as the process that began the run computes it.

        Raises:
            SettingsError: this machine has other code, weights or data.
        """
        if self.job is None or self.job.key != job.key:
            self._take(job)
        assert self.prepared is not None
        prepared = self.prepared
        plan = prepared.plan
        with suppress(OSError):  # a sample that cannot be read becomes rows
            here = identity(replace(plan, ids=[sample_id]), prepared.model)
            if expected and here != expected:
                raise SettingsError(
                    f"the worker on {socket.gethostname()} would measure another run; give all machines the same code, "
                    "weights and data.\nHere -> there:\n  " + "\n  ".join(differences(expected, here))
                )
        return run_sample(prepared, sample_id, partial(load_sample, plan, prepared.model, sample_id), self.batch)

    def _take(self, job: Job) -> None:
        with suppress(OSError):  # relative paths of the settings; another machine may not have the folder
            os.chdir(job.folder)
        self.prepared = None  # the other model goes before this one comes
        self.prepared = prepare(job.settings)
        self.batch = BatchSize(job.settings.execution.batch_size)
        self.job = job
