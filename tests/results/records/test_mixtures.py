"""Runs that share a label and must not be averaged."""

from pathlib import Path
from typing import Any

import pytest

from segfaith.errors import SettingsError
from segfaith.results.records.mixtures import refuse_mixtures


def about(name: str, **data: Any) -> tuple[Path, dict[str, Any]]:
    settings = {"data": {"root": "/some/cells"} | data}
    return Path(name), {"data": {"name": "folder", "split": "val"}, "settings": settings}


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("background", None, "none"),
        ("ignore", [255], [254, 255]),
        ("foreground", None, 255),
        ("labels", {"7": "car"}, {"7": "car", "8": "car"}),
        ("range", [0, 255], [0, 10000]),
    ],
)
def test_two_readings_of_the_same_files_are_refused(key: str, first: Any, second: Any) -> None:
    one, other = about("a", **{key: first}), about("b", **{key: second})
    with pytest.raises(SettingsError, match=rf"to read files alike; \[data\] {key} is .* for a and .* for b, so"):
        refuse_mixtures([one, other])
    refuse_mixtures([one, about("c", **{key: first})])


def test_a_run_that_is_older_than_a_key_has_its_default() -> None:
    refuse_mixtures([about("a"), about("b", background=None, clip=False, display=[3, 2, 1])])
