"""A lock on `run.json` marks the process that works on a run. The system releases it however the process ends.

`flock` is advisory: reading `run.json` needs no lock. Without `flock` (Windows, some network file systems) nothing is
locked, and it is unknown whether a process works on a run. Runs in object stores have another lock, see `remote_lock`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

from segfaith.benchmark import remote_lock
from segfaith.errors import StorageError
from segfaith.paths import is_remote

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 1.0
"""Seconds to wait for a lock. A process that only checks whether the lock is held keeps it for less."""


BUSY = (
    "another process works on {directory}; wait until it ends (segfaith status {directory}), stop it, or choose "
    "another directory"
)
LOST = (
    "another process has taken {directory} over, because the store had no sign of this one for {seconds:.0f} s; this "
    "one writes nothing more: give the command again when the other has ended (segfaith status {directory})"
)


class RunIsBusyError(StorageError):
    """Another process works on the run."""


class RunIsGoneError(RunIsBusyError):
    """Somebody removed or renamed the directory of a run while it worked."""


@contextmanager
def at_work(directory: Path) -> Iterator[Callable[[], None]]:
    """Holds the run's lock inside the block, which gets a function to call before each write of long work.

    That function raises RunIsBusyError where another process has taken the lock over, as can happen in a store.

    Raises:
        RunIsBusyError: another process holds it.
    """
    if is_remote(directory):
        with remote_lock.held(directory) as still_held:
            if still_held is None:
                raise RunIsBusyError(BUSY.format(directory=directory))

            def check() -> None:
                if not still_held():
                    raise RunIsBusyError(LOST.format(directory=directory, seconds=remote_lock.DEAD))

            yield check
        return
    with _locked(directory) or nullcontext():
        yield lambda: None


def _locked(directory: Path) -> IO[bytes] | None:
    """The run's `run.json`, open and locked; None where it is missing or not writable, so that nothing can be locked.

    The process that holds the lock may put a new `run.json` in place. So each attempt opens the file anew, and a locked
    file counts only if it is still the file in place.
    """
    path, deadline = directory / "run.json", time.monotonic() + PATIENCE
    while True:
        try:
            file = path.open("rb+")
        except OSError:
            return None
        free = _lock(file.fileno(), exclusive=True)
        if free is None or (free and _is_in_place(file, path)):
            return file
        file.close()
        if time.monotonic() > deadline:
            raise RunIsBusyError(BUSY.format(directory=directory))
        time.sleep(0.05)


def _is_in_place(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the file that lies at `path` now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Lets processes into the block one after the other, if directories can be locked; for work of milliseconds.

    Raises:
        RunIsBusyError: in a store, others were in the block for too long.
    """
    if is_remote(directory):
        deadline = time.monotonic() + 3 * remote_lock.DEAD
        while True:
            with remote_lock.held(directory) as still_held:
                if still_held is not None:
                    yield
                    return
            if time.monotonic() > deadline:
                raise RunIsBusyError(BUSY.format(directory=directory))
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows opens no directories
        yield
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while _lock(handle, exclusive=True) is False and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def is_at_work(directory: Path) -> bool | None:
    """Whether a process works on the run now; None if there are no locks, so that it is unknown."""
    if is_remote(directory):
        return remote_lock.is_held(directory)
    try:
        with (directory / "run.json").open("rb") as file:
            free = _lock(file.fileno(), exclusive=False)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return None if free is None else not free


def _lock(file: int, *, exclusive: bool) -> bool | None:
    """Locks an open file until it is closed. False: another process has the lock. None: the file cannot be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
