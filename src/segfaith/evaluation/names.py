"""Which names of columns are taken: a new metric or a new score may not overwrite a column that exists.

This module imports no torch.
"""

from collections.abc import Callable, Iterable

from segfaith.errors import SettingsError

FIXED_COLUMNS = (
    *("sample_id", "class_index", "target", "method", "target_area", "target_iou", "majority_class", "head"),
    *("score", "kind"),
    *("degenerate", "tied_share_target", "tied_share_off", "path", "workers", "machine", "status", "reason"),
)
"""The columns of the records that are neither scores, metrics nor correlations."""

CONTROL = "control_"
"""Begins the name under which a metric may need the value of random_cells on the same sample."""

OWNERS: dict[str, Callable[[], Iterable[str]]] = {"a column of every record": lambda: FIXED_COLUMNS}
"""Who holds names, in words, and a function that gives the names. The tables of scores and metrics add themselves."""


def refuse_taken(entry: str, name: str) -> None:
    """Lets a new name pass.

    Args:
        entry: what is to bear the name, in words.

    Raises:
        SettingsError: the name is taken, or begins with `control_`.
    """
    if name.startswith(CONTROL):
        raise SettingsError(
            f"the name {name!r} begins with {CONTROL!r}, as the values of random_cells do; give {entry} another one"
        )
    for owner, names in OWNERS.items():
        if name in names():
            raise SettingsError(f"the name {name!r} is taken by {owner}; give {entry} another one")
