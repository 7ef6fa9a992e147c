"""Checks names that become paths: what a sample's id may be, and where a run may write.

Ids come from lists, file names and records, which may be a stranger's. A run names files and folders after them.
`refusal` checks an id when it is read, `inside` when it becomes a path. So a run writes and removes nothing outside its
directory.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import cast

from segfaith.errors import SettingsError

LONGEST = 230
"""The longest id, in bytes. With endings and temporary names, files must stay within file systems' 255 bytes."""

_REFUSED: tuple[tuple[str, str], ...] = (
    (r"", "it is empty"),
    (r"\..*", "it begins with a dot"),
    (r"~.*", "it begins with a tilde"),
    (r"[/\\].*", "it is an absolute path"),
    (r"[A-Za-z]:.*", "it begins with a drive's letter"),
    (r".*[/\\].*", "it has a slash, so it would name a folder"),
    (r".*[\x00-\x1f\x7f\x80-\x9f\u2028\u2029].*", "it has a control character"),
    (r".*[\ud800-\udfff].*", "its bytes are no text in UTF-8"),
    (r"\s.*|.*\s", "it begins or ends with a space"),
    (r".*\.", "it ends with a dot"),
)
"""Patterns of names that no id may have, each with its reason; the first match gives the reason."""


def refusal(name: object) -> str:
    """Why a name cannot be a sample's id, or "" where it can."""
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    reason = next((words for form, words in _REFUSED if re.fullmatch(form, name, flags=re.DOTALL)), "")
    if not reason and len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        reason = f"it is longer than {LONGEST} bytes"
    return reason


def check_ids(names: Iterable[object], place: str, remedy: str) -> None:
    """Refuses ids that cannot be names of files; `place` says where the ids stand, `remedy` what to do.

    Raises:
        SettingsError: an id is refused; the message names the first bad id and the reason.
    """
    for name in names:
        if why := refusal(name):
            raise SettingsError(f"{place}: the sample id {name!r} cannot name a folder and files: {why}; {remedy}")


def place(text: str | Path) -> Path:
    """A path; the address of a folder in an object store, `s3://bucket/runs/voc`, has the methods of a path too.

    Raises:
        SettingsError: the library that reads such addresses is not installed.
    """
    if not isinstance(text, str) or "://" not in text:
        return Path(text) if isinstance(text, str) else text
    protocol = text.partition("://")[0]
    try:
        from upath import UPath

        found = UPath(text, use_listings_cache=False)  # other machines write there too
        found.fs  # noqa: B018  # loads the store's own library
    except (ImportError, ValueError) as error:
        remedy = f"install it with: {EXTRAS[protocol]}" if protocol in EXTRAS else f"fsspec knows it by: {error}"
        raise SettingsError(f"{text}: addresses of {protocol}:// cannot be opened here; {remedy}") from error
    return Path(found.path) if protocol in ("file", "local") else cast(Path, found)


EXTRAS = {"s3": "pip install 'segfaith[s3]'", "gs": "pip install 'segfaith[gcs]'", "gcs": "pip install 'segfaith[gcs]'"}


def is_remote(path: Path) -> bool:
    """Whether it lies in an object store: each file appears there whole; none can be renamed, linked or locked."""
    return not isinstance(path, Path)


def inside(directory: Path, *parts: str) -> Path:
    """The path of `parts` below a run's directory, safe for writing and removing whatever the parts are.

    The directory may be a symbolic link, or lie behind a link. Folders inside it may not be links. The file may be a
    link: a new file is moved into its place, which replaces the link.

    Raises:
        SettingsError: a part is not a plain name, or a folder inside the directory is a symbolic link.
    """
    for part in parts:
        if part == ".." or "\0" in part or Path(part).parts != (part,):  # such as a drive's letter on Windows
            raise SettingsError(f"{part!r} is not a plain name; nothing is written there, outside {directory}")
    path = directory.joinpath(*parts)
    if is_remote(directory):
        return path
    if path.parent.resolve() != directory.resolve().joinpath(*parts[:-1]):
        raise SettingsError(
            f"{path.parent} is a symbolic link, or lies behind one, and nothing is written or removed outside "
            f"{directory}; put a folder there, or choose another directory"
        )
    return path


def absolute(text: str, base: Path) -> Path:
    """A path that a user gave, absolute: relative to `base`, with `~` and `~NAME` as the homes that they are.

    Raises:
        SettingsError: it is empty, there is no such home, or no path can be called that.
    """
    if not text.strip():
        raise SettingsError("a path is empty; expected a file or a folder, or leave the key out")
    try:
        path = (base / Path(text).expanduser()).resolve()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # who reads it says so
    except (OSError, RuntimeError, ValueError) as error:
        shown = text if len(text) <= 80 else f"{text[:80]}..., {len(text)} characters"
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"the path {shown!r} cannot be used: {why}; give another path") from error
    return path


def map_name(method: str) -> str:
    """The file of a method's map within `maps/ID`."""
    return re.sub(r"[/\\]", "_", method) + ".npy"


def plain_name(text: str) -> str:
    """A text, such as the name of a class, as part of a file's name: signs that no file may have become "_".

    "@" becomes "_" too, since `map_folder` joins with it.
    """
    plain = re.sub(r"[/\\:*?\"<>|@\x00-\x1f\x7f\x80-\x9f\u2028\u2029]", "_", text)
    return re.sub(r"^\s+|[\s.]+$", "", plain) or "_"


def map_folder(sample_id: str, target: str = "") -> str:
    """The folder of a target's maps within `maps`, and the name of its picture: ID, or ID@TARGET if it has a name.

    A name that would be longer than `LONGEST` bytes is cut, and the first digits of its SHA-256 follow.
    """
    name = f"{sample_id}@{target}" if target else sample_id
    if len(name.encode("utf-8", "surrogatepass")) <= LONGEST:
        return name
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return name.encode("utf-8", "surrogatepass")[: LONGEST - 13].decode("utf-8", "ignore") + f"-{digest}"
