"""The table `[execution]` of a settings file: how the work is done (docs/settings.md)."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from segfaith.batching import BatchSize, batches
from segfaith.benchmark.evaluation_settings import Section
from segfaith.memory import bytes_of


class ExecutionSettings(Section):
    """How the work is done; none of it changes results beyond 1e-5."""

    device: str = "auto"
    batch_size: int | None = Field(default=None, ge=1)
    memory: str | None = None
    shard_size: int = Field(default=8, ge=1)
    threads: int | None = Field(default=None, ge=1, le=1024)
    incremental: bool = True
    compile: bool = False
    executor: Literal["auto", "serial", "ray"] = "auto"
    address: str | None = Field(default=None, min_length=1)
    workers: int | None = Field(default=None, ge=1)
    cores_per_worker: int | None = Field(default=None, ge=1)

    @field_validator("memory", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if value is not None:
            bytes_of(value)
        return value

    def batches(self, device: torch.device) -> BatchSize:
        """How many images go through the model at once; what is in use now does not count against `memory`.

        Raises:
            SettingsError: `memory` where the system does not say what a process takes.
        """
        return batches(self.batch_size, self.memory, device)
