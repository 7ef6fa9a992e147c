"""Looks up names in the package's tables; unknown names raise "unknown X; did you mean Y?"."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from segfaith.errors import SettingsError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names of `known` that look most like `name` whatever the case, best first; may be empty."""
    spelled: dict[str, list[str]] = {}
    for one in known:
        spelled.setdefault(one.lower(), []).append(one)
    close = get_close_matches(name.lower(), list(spelled), n=count, cutoff=0.4)
    return [one for lowered in close for one in spelled[lowered]][:count]


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry `name` of `table`.

    Raises:
        SettingsError: no such entry; the message offers the nearest names and lists all of them.
    """
    if name in table:
        return table[name]
    close = nearest(name, table)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise SettingsError(f"unknown {kind} {name!r}; {hint}known: {', '.join(table)}")
