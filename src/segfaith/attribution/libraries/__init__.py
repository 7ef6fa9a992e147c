"""Methods of other libraries, `captum:NAME` and `gradcam:NAME`, on the target's own score."""

from segfaith.attribution.libraries.captum import CAPTUM
from segfaith.attribution.libraries.entry import Entry, Library
from segfaith.attribution.libraries.gradcam import GRADCAM
from segfaith.errors import SettingsError, words_of
from segfaith.lookup import lookup

LIBRARIES: dict[str, Library] = {"captum": CAPTUM, "gradcam": GRADCAM}
"""Libraries by the prefix of their methods' names."""


def library_entry(name: str) -> Entry | None:
    """The entry of `PREFIX:NAME`, without parameters; None where the name has no prefix of `LIBRARIES`.

    Raises:
        SettingsError: no such method, the library is not installed, or its version lacks the method.
    """
    prefix, colon, method = name.partition(":")
    if not colon or prefix not in LIBRARIES:
        return None
    library = LIBRARIES[prefix]
    entry = lookup(f"method of {prefix}", method, library.entries)
    if missing := lacks(library, method):
        raise SettingsError(f"method {name!r}: {missing}")
    return entry


def refuse_without_prefix(name: str) -> None:
    """Refuses the name of a library's method that lacks its prefix, in upper or lower case, and a prefix alone.

    Raises:
        SettingsError: it is one; the message has the whole name.
    """
    if name in LIBRARIES:
        raise SettingsError(f"unknown method {name!r}; expected {name}:NAME, of {', '.join(LIBRARIES[name].entries)}")
    meant = [
        repr(f"{prefix}:{entry}")
        for prefix, library in LIBRARIES.items()
        for entry in library.entries
        if entry.lower() == name.lower()
    ]
    if meant:
        raise SettingsError(f"unknown method {name!r}; did you mean {' or '.join(meant)}?")


def lacks(library: Library, method: str) -> str:
    """Why a method is not available, in words; "" if it is."""
    if missing := library.package.missing:
        return missing
    try:
        there = library.has(method)
    except Exception as error:  # the import fails, such as for want of a system's library
        return f"{library.package.module} cannot be imported: {words_of(error)}"
    if not there:
        return f"the installed {library.package.module} has no {method}; install a newer version"
    return ""
