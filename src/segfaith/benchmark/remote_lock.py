"""The lock of a run in an object store, which locks nothing by itself: an object that its owner renews.

`lock.json` appears where there is none (a conditional put), and its owner writes it anew every `RENEWED` seconds. A
lock that does not change for `DEAD` seconds has a dead owner, and is taken over. Nobody compares clocks for that.

An owner that was silent for so long may come back beside the new one, and two processes may take over at the same
moment. The lock names one of them. So who works asks before each put whether it is still named, and stops where it is
not. Between that question and the put another may take over: both then put the same rows under the same names, and each
object appears whole.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from segfaith.results.records.files import create_file

RENEWED, DEAD = 5.0, 20.0
"""Seconds between two renewals, and without any after which the owner counts as dead."""
LOCK_FILE = "lock.json"


@contextmanager
def held(directory: Path) -> Iterator[Callable[[], bool] | None]:
    """Holds the lock inside the block, which gets a function: is it still held? None: another process holds it."""
    file, owner = directory / LOCK_FILE, uuid4().hex
    if not _taken(file, owner):
        yield None
        return
    done = Event()
    renewing = Thread(target=_renew, args=(file, owner, done), daemon=True)
    renewing.start()
    try:
        yield lambda: _owner(file) == owner
    finally:
        done.set()
        renewing.join()
        with suppress(OSError):  # else it is dead in `DEAD` seconds
            if _owner(file) == owner:
                _remove(file)


def is_held(directory: Path) -> bool | None:
    """Whether a process holds the lock; None if it was not renewed lately, by this machine's clock."""
    try:
        age = time.time() - (directory / LOCK_FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return True if abs(age) < DEAD else None


def _taken(file: Path, owner: str) -> bool:
    """Takes the lock, at once where it is free, and where its owner is dead after having watched it for `DEAD` s."""
    while not create_file(file, _content(owner, 0)):
        seen, deadline = _read(file), time.monotonic() + DEAD
        while (now := _read(file)) == seen and now is not None:
            if time.monotonic() > deadline:
                _remove(file)
                return create_file(file, _content(owner, 0)) and _kept(file, owner)
            time.sleep(min(1.0, RENEWED))
        else:
            if now is not None:
                return False
    return True


def _kept(file: Path, owner: str) -> bool:
    """Whether a lock that was taken over is still the owner's after a while, since another may have been at it too."""
    time.sleep(RENEWED)
    return _owner(file) == owner


def _renew(file: Path, owner: str, done: Event) -> None:
    beat = 0
    while not done.wait(RENEWED):
        beat += 1
        with suppress(OSError):  # the store may throttle; the next renewal comes soon
            if _owner(file) != owner:
                return
            file.write_bytes(_content(owner, beat).encode("utf-8"))


def _content(owner: str, beat: int) -> str:
    return json.dumps({"owner": owner, "machine": socket.gethostname(), "process": os.getpid(), "beat": beat})


def _read(file: Path) -> str | None:
    """What the lock says; None where there is none."""
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)


def _owner(file: Path) -> str | None:
    with suppress(ValueError, AttributeError):
        owner: str = json.loads(_read(file) or "{}").get("owner")
        return owner
    return None
