"""Names that come from files and become paths: what a sample's id may be, and where a run may write.

Ids stand in lists, names of files and strangers' records; a run makes files and folders of their names. `refusal` is
asked where an id enters, `inside` where a path is made of it: nothing is written or removed outside a run's directory.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from segfaith.errors import SettingsError

LONGEST = 230
"""Bytes of an id: with endings and the temporary names of files, it must stay within the 255 of file systems."""

_REFUSED: tuple[tuple[str, str], ...] = (
    (r"", "it is empty"),
    (r"\..*", "it begins with a dot"),
    (r"~.*", "it begins with a tilde"),
    (r"[/\\].*", "it is an absolute path"),
    (r"[A-Za-z]:.*", "it begins with a drive's letter"),
    (r".*[/\\].*", "it has a slash, so it would be a folder's"),
    (r".*[\x00-\x1f\x7f\x80-\x9f\u2028\u2029].*", "it has a control character"),
    (r"\s.*|.*\s", "it begins or ends with a space"),
    (r".*\.", "it ends with a dot"),
)
"""Forms of names that no id may have, with the words for each; the first that fits is said."""


def refusal(name: object) -> str:
    """Why a name cannot be a sample's id, or "" where it can."""
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    found = next((words for form, words in _REFUSED if re.fullmatch(form, name, flags=re.DOTALL)), "")
    if not found and len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        found = f"it is longer than {LONGEST} bytes"
    return found


def check_ids(names: Iterable[object], place: str, remedy: str) -> None:
    """Refuses ids that cannot be names of files; `place` says where they stand and `remedy` what to do.

    Raises:
        SettingsError: the first of them, with the reason.
    """
    for name in names:
        if why := refusal(name):
            raise SettingsError(f"{place}: the sample id {name!r} cannot name a folder and files: {why}; {remedy}")


def inside(directory: Path, *parts: str) -> Path:
    """The path of `parts` below a run's directory, for writing and removing: nowhere else, whatever the parts are.

    The directory itself may be a symbolic link, or lie behind one; what lies in it may not. A link in place of the
    file itself is fine: files are moved into place, which replaces the link.

    Raises:
        SettingsError: a part that is no plain name, or a folder on the way that is a symbolic link.
    """
    for part in parts:
        if part == ".." or "\0" in part or Path(part).parts != (part,):  # a drive's letter, where there are drives
            raise SettingsError(f"{part!r} is no plain name; nothing is written there, outside {directory}")
    path = directory.joinpath(*parts)
    if path.parent.resolve() != directory.resolve().joinpath(*parts[:-1]):
        raise SettingsError(
            f"{path.parent} is a symbolic link, or lies behind one, and nothing is written or removed outside "
            f"{directory}; put a folder there, or choose another directory"
        )
    return path


def map_name(method: str) -> str:
    """The file of a method's map within `maps/ID`."""
    return re.sub(r"[/\\]", "_", method) + ".npy"
