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
