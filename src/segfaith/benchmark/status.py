"""What is done of a run or of a suite, from its files alone: no model, no data set, no torch.

A shard's file in `records/` makes it done; a lock on `run.json` says that somebody works (see `lock`); a `failure.json`
says why a suite could not run it; a suite's `suite.json` names the runs that it planned.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from segfaith.benchmark.lock import at_work, is_at_work
from segfaith.errors import SettingsError
from segfaith.paths import inside
from segfaith.results.records.runs import read_description
from segfaith.results.records.select import without_truth
from segfaith.results.records.shards import planned_files, read_records, record_files

STATUS = ["sample_id", "target", "method", "status"]
SUITE_FILE, FAILURE_FILE = "suite.json", "failure.json"

State = Literal["finished", "running", "failed", "stopped", "stopped or running", "not started"]
"""`failed`: it could not go on, or nothing was measured and something failed. `stopped or running` where locks do not
exist, so that nobody can say which."""


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        samples: how many it will have; None where nobody has counted them yet.
        done: how many have rows in finished shards. Each is `ok` (every method measured), `partly` (some of them),
            `skipped` or `failed` (none).
        written: when its last shard, or else its `run.json`, was written; None before the start.
        reason: why it failed, or why a finished one has nothing measured, or "".
        failed_rows: how many of its rows have the status `failed`.
    """

    name: str
    state: State
    samples: int | None
    done: int = 0
    ok: int = 0
    partly: int = 0
    skipped: int = 0
    failed: int = 0
    written: datetime | None = None
    reason: str = ""
    failed_rows: int = 0

    @property
    def measured(self) -> int:
        """Samples of which any method was measured."""
        return self.ok + self.partly

    @property
    def complete(self) -> bool:
        """Whether every sample has rows, measured or not."""
        return self.done == self.samples


def read_states(directory: Path) -> list[RunState]:
    """The state of a run, or of every run of a suite: the planned ones in their order, then others that lie there.

    Raises:
        SettingsError: the directory holds neither a run nor a suite.
    """
    if (directory / "run.json").is_file():
        return [run_state(directory)]
    planned = planned_runs(directory)
    others = [place.parent.name for place in sorted(directory.glob("*/run.json")) if place.parent.name not in planned]
    if not planned and not others:
        raise SettingsError(
            f"{directory} is neither a run nor a suite: it has no run.json and no {SUITE_FILE}; "
            "make one with: segfaith suite NAME -o DIR"
        )
    return [_readable_state(directory / name, planned.get(name, {}).get("samples")) for name in [*planned, *others]]


def absent_runs(directory: Path) -> list[str]:
    """A sentence for each run of a suite that has no records: why a report on the directory is without it."""
    if (directory / "run.json").is_file():
        return []
    return [
        f"{one.name} is planned, but not here: {one.reason or one.state}"
        for one in read_states(directory)
        if not record_files(directory / one.name)
    ]


def _readable_state(directory: Path, samples: int | None) -> RunState:
    """The state of one run of several; files that cannot be read are its failure, not that of the others."""
    try:
        return run_state(directory, samples)
    except SettingsError as error:
        return RunState(directory.name, "failed", samples, reason=str(error))


def planned_runs(directory: Path) -> dict[str, dict[str, Any]]:
    """What `suite.json` says of each planned run: suite, model, seed, samples (null: all), weights; {} without one.

    Raises:
        SettingsError: it cannot be read, or names a run that is no folder of its directory.
    """
    file = directory / SUITE_FILE
    if not file.is_file():
        return {}
    runs = _read(file).get("runs")
    if not isinstance(runs, dict) or not all(isinstance(entry, dict) for entry in runs.values()):
        raise SettingsError(f"{file} has no table of runs; remove it, the runs themselves stay")
    for name in runs:
        inside(directory, name)
    return runs


def run_state(directory: Path, samples: int | None = None) -> RunState:
    """The state of one run; `samples` is how many are planned, as long as its `run.json` does not say it.

    Raises:
        SettingsError: `run.json` or a file of records is damaged or does not hold what it should.
    """
    failure = directory / FAILURE_FILE
    reason = str(_read(failure).get("reason", "for no stated reason")) if failure.is_file() else ""
    file = directory / "run.json"
    if not file.is_file():
        return RunState(directory.name, "failed" if reason else "not started", samples, reason=reason)
    working = is_at_work(directory)  # before the shards are counted: what is finished in between is finished
    description = read_description(directory)
    planned, shards = planned_files(description), record_files(directory)
    tables = [read_records(shard, planned, description, STATUS) for shard in shards]
    statuses, failed_rows = _statuses(tables), sum(int((table["status"] == "failed").sum()) for table in tables)
    samples = len(description["data"]["samples"])
    state: State
    if len(shards) == len(planned):
        state, reason = "finished", ""
    elif working:
        state, reason = "running", ""
    elif reason:
        state = "failed"
    else:
        state = "stopped or running" if working is None else "stopped"
    ok, partly, skipped, failed = (int((statuses == one).sum()) for one in ("ok", "partly", "skipped", "failed"))
    if state == "finished" and not ok + partly:
        state = "failed" if failed else "finished"
        reason = f"no sample could be measured ({skipped} skipped, {failed} failed); its records say why"
    written = datetime.fromtimestamp(max(one.stat().st_mtime for one in [file, *shards]))
    counts = samples, len(statuses), ok, partly, skipped, failed
    return RunState(directory.name, state, *counts, written, reason, failed_rows)


def forget_failed(directory: Path) -> int:
    """Removes the shards in which a row failed, so that the run is to be resumed; returns how many.

    What was measured in them is measured again, to the same figures. Skipped rows would be skipped again: they stay.

    Raises:
        RunIsBusyError: another process works on the run.
        SettingsError: a file of records is damaged or does not hold what it should, or its folder is a symbolic link.
    """
    with at_work(directory):
        description = read_description(directory)
        planned = planned_files(description)
        bad = [
            shard
            for shard in record_files(directory)
            if (read_records(shard, planned, description, STATUS)["status"] == "failed").any()
        ]
        for shard in bad:
            curves = inside(directory, "curves", shard.name)
            inside(directory, "records", shard.name).unlink()  # first: without it the shard is to be done
            curves.unlink(missing_ok=True)
    return len(bad)


def _statuses(shards: list[pd.DataFrame]) -> "pd.Series[str]":
    """The status of each sample: that of its rows, or `partly` where some are ok and some are not."""
    if not shards:
        return pd.Series(dtype=str)
    rows = without_truth(pd.concat(shards, ignore_index=True))
    by_sample = rows.assign(ok=rows["status"] == "ok").groupby("sample_id")
    some, every = by_sample["ok"].any(), by_sample["ok"].all()
    return by_sample["status"].first().mask(some & ~every, "partly")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{file} cannot be read ({error}); restore it, or move {file.parent} away") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{file} cannot be read (it is no table); restore it, or move {file.parent} away")
    return content
