"""Where results go: whether a directory can be written, what is said where not, and what killed writers left there.

Files and folders in the making are called `.NAME.HOST-PROCESS.tmp`. So the next process knows which of them nobody
writes any more.
"""

import errno
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from segfaith.errors import SegfaithError, StorageError, words_of
from segfaith.paths import is_remote

PROBE = 2**20
"""Bytes that are written for a trial: a directory with less room is as good as full."""
STALE = 86_400
"""Seconds after which nobody writes a temporary file any more, whichever machine its process was on."""
FOLDERS = ("records", "curves", "maps", "pictures", "figures")
"""Folders of a run directory in which files are made."""

_HERE = sha256(platform.node().encode()).hexdigest()[:4]
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{4})-(\d+)\.tmp", flags=re.DOTALL)

_IN_THE_WAY = "a file stands where a folder is needed: move it away, or choose another directory"
_CLOSED = "make it writable, or choose another directory"
_FULL = "make room there and give the command again, or choose another directory; what is finished stays"
_STORE = "check the address, the network and your rights there, and give the command again; what is finished stays"
REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "a folder stands where a file is needed: move it away, or choose another directory",
    errno.EFBIG: "the system allows no larger file (ulimit -f): raise that limit",
    errno.EIO: "the disk, or the way to it, is broken: choose another directory",
}
"""What to do, by the number of the system's error."""


def storage_error(place: Path, error: OSError) -> StorageError:
    """A failure to write below a directory, in words with a remedy."""
    if isinstance(error, StorageError):
        return error
    remedy = _STORE if is_remote(place) else REMEDIES.get(error.errno or 0, "choose another directory")
    return StorageError(f"cannot write into {place}: {error.strerror or error}; {remedy}")


@contextmanager
def storing(place: Path) -> Iterator[None]:
    """Inside the block, where nothing is done but to write below a directory, its failure becomes words.

    Raises:
        StorageError: the system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(place, error) from error
    except Exception as error:  # the libraries of object stores have errors of their own
        if not is_remote(place) or isinstance(error, SegfaithError):
            raise
        raise StorageError(f"cannot reach {place}: {words_of(error)}; {_STORE}") from error


def content_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        StorageError: its store cannot be reached: nobody knows whether it is there.
        OSError: it is not there, or cannot be read.
    """
    if not is_remote(path):
        return path.read_bytes()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StorageError(f"cannot reach {path}: {words_of(error)}; {_STORE}") from error


def temporary_name(path: Path) -> Path:
    """Where a file or folder is made before it is moved to `path`."""
    return path.with_name(f".{path.name}.{_HERE}-{os.getpid()}.tmp")


def make_ready(directory: Path) -> None:
    """Tries whether a directory can be written, or made, before any work is done for it; removes leftovers in it.

    A directory that is missing is made for the trial under a temporary name, and not left there.

    Raises:
        StorageError: it cannot be written.
    """
    if is_remote(directory):
        with storing(directory):
            trial = directory / f".segfaith.{_HERE}-{os.getpid()}.tmp"
            trial.write_bytes(b"trial")
            trial.unlink()
        return
    with storing(directory):
        ground, missing = directory, list[str]()
        while not os.path.lexists(ground):
            missing.insert(0, ground.name)
            ground = ground.parent
        if not ground.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{ground} is no folder")
        trial = temporary_name(ground / "segfaith")
        try:
            trial.joinpath(*missing).mkdir(parents=True, exist_ok=True)
            write_synced(trial.joinpath(*missing, "trial"), bytes(PROBE))
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    remove_leftovers(ground, ".segfaith.*.tmp" if missing else ".*.tmp")


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file, which is on the disk when this returns."""
    path.write_bytes(content)
    sync(path)


def sync(path: Path) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk; folders where the system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(directory: Path, names: str = ".*.tmp") -> None:
    """Removes what dead processes were making, under these names, in a directory and in the folders of a run there.

    A process of another machine counts as dead after a day.
    """
    folders = [directory, *(one for name in FOLDERS if not (one := directory / name).is_symlink())]
    for path in (path for folder in folders for path in folder.glob(names)):
        named = _TEMPORARY.fullmatch(path.name)
        with suppress(OSError):  # another process was faster
            if named and (_dead(named[1], int(named[2])) or path.lstat().st_mtime < time.time() - STALE):
                remove: Callable[[Path], object] = Path.unlink if not _is_folder(path) else shutil.rmtree
                remove(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _dead(host: str, process: int) -> bool:
    """Whether a process ran here and runs no more."""
    if host != _HERE or os.name == "nt":  # where a signal that is none would end it
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
