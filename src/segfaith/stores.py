"""Files and folders of an object store, with the methods of a path, by universal_pathlib and fsspec.

A store that cannot be reached must not look empty. So whatever a store's library raises becomes a `StorageError`, and
only what the store itself calls missing is missing: `is_file` is then False, and reading raises FileNotFoundError.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import wraps
from typing import Any

from upath import UPath
from upath.extensions import ProxyUPath

from segfaith.errors import StorageError, words_of

REMEDY = "check the address, the network and your rights there, and give the command again; what is finished stays"
TOLD = (FileNotFoundError, FileExistsError, StorageError)
"""What a caller is told as it is."""


@contextmanager
def reaching(place: object) -> Iterator[None]:
    """Inside the block, what a store's library raises becomes a `StorageError`, but for `TOLD`."""
    try:
        yield
    except TOLD:
        raise
    except Exception as error:
        raise StorageError(f"cannot reach {place}: {words_of(error)}; {REMEDY}") from error


def _told(name: str) -> Callable[..., Any]:
    """The method of that name, whose errors are told as `reaching` tells them."""
    method: Callable[..., Any] = getattr(ProxyUPath, name)

    @wraps(method)
    def told(self: Any, *arguments: Any, **options: Any) -> Any:
        with reaching(self):
            return method(self, *arguments, **options)

    return told


class StorePath(ProxyUPath):  # type: ignore[misc]  # upath has no types here
    """A file or folder of an object store."""

    write_bytes, write_text = _told("write_bytes"), _told("write_text")
    stat, unlink = _told("stat"), _told("unlink")

    def read_bytes(self) -> bytes:
        """The content as it is now. To open a file reads it as it was when it was opened, and fails once it changed."""
        with reaching(self):
            content: bytes = self.fs.cat_file(self.path)
            return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self.read_bytes().decode(encoding)

    @contextmanager
    def open(self, mode: str = "r", **options: Any) -> Iterator[Any]:
        """The file, open inside the block; it is put when the block ends. Mode "xb" refuses one that is there."""
        with reaching(self), super().open(mode, **options) as file:
            yield file

    def kind(self) -> str | None:
        """ "file", "directory", or None where nothing is there."""
        with reaching(self):
            try:
                return str(self.fs.info(self.path)["type"])
            except FileNotFoundError:
                return None

    def exists(self, **_: Any) -> bool:
        """Whether a file or a folder is there."""
        return self.kind() is not None

    def is_file(self) -> bool:
        """Whether a file is there."""
        return self.kind() == "file"

    def is_dir(self) -> bool:
        """Whether there are files below."""
        return self.kind() == "directory"

    def iterdir(self) -> Iterator["StorePath"]:
        """What lies in the folder, by name; nothing where it is missing."""
        with reaching(self):
            try:
                names = self.fs.ls(self.path, detail=False)
            except FileNotFoundError:
                names = []
        found = {str(name).rstrip("/").rpartition("/")[2] for name in names}
        yield from (self / name for name in sorted(found - {"", self.name}))

    def glob(self, pattern: str) -> Iterator["StorePath"]:
        """The paths below that match, part by part; signs of patterns in the folder's own name mean themselves."""
        first, _, rest = pattern.partition("/")
        if not set(first) & set("*?["):
            yield from (self / first).glob(rest) if rest else [self / first] * (self / first).exists()
            return
        for path in self.iterdir():
            if fnmatchcase(path.name, first):
                yield from path.glob(rest) if rest else [path]

    def rglob(self, pattern: str) -> Iterator["StorePath"]:
        """The files below whose names match."""
        for path in self.iterdir():
            if path.is_dir():
                yield from path.rglob(pattern)
            elif fnmatchcase(path.name, pattern):
                yield path

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a store has no folders but those of its files' names."""

    def remove_all(self) -> None:
        """Removes all files below."""
        with reaching(self):
            self.fs.rm(self.path, recursive=True)


def store_path(address: str) -> StorePath:
    """The place of an address, `s3://bucket/runs`, as it is now: lists of files are not kept.

    Raises:
        ImportError, ValueError: no library opens such addresses.
    """
    path = UPath(address, use_listings_cache=False)
    _ = path.fs  # loads the store's own library
    found: StorePath = StorePath._from_upath(path)
    return found
