"""Which runs must not be averaged, although they share a label."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segfaith.errors import SettingsError
from segfaith.results.records.identity import SETTINGS, data_label, folder


def refuse_mixtures(runs: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Runs under one label are averaged as one: neither two folders of one name, two versions of results nor two
    readings of the same files may be.

    Args:
        runs: directories and descriptions of runs.

    Raises:
        SettingsError: runs whose label is the same and whose root or results version, where known, or another setting
            of [data] that says what files mean, is not.
    """
    roots: dict[str, tuple[Path, Path]] = {}
    readings: dict[str, tuple[dict[str, Any], Path]] = {}
    versions: dict[str, tuple[int, Path]] = {}
    for directory, description in runs:
        root, label = folder(description), data_label(description)
        version = description.get("identity", {}).get("results_version")
        if version is not None:
            before, other = versions.setdefault(label, (version, directory))
            if before != version:
                raise SettingsError(
                    f"expected runs of {label!r} to share one version of results; {other} has {before} and {directory} "
                    f"{version}, between which numbers moved (CHANGELOG): report on them one at a time, or run the "
                    "older ones again in a new directory"
                )
        reading = _reading(description)
        meant, other = readings.setdefault(label, (reading, directory))
        for key in (key for key in reading if reading[key] != meant[key]):
            raise SettingsError(
                f"expected runs of {label!r} to read files alike; [data] {key} is {meant[key]!r} for {other} and "
                f"{reading[key]!r} for {directory}, so that their targets or images are others: report on them one at "
                "a time"
            )
        if root is None:
            continue
        first, other = roots.setdefault(label, (root, directory))
        if first != root:
            raise SettingsError(
                f"expected runs of {label!r} to share one folder; {other} is of {first} and {directory} of {root}, "
                "which would be averaged as one data set: report on them one at a time, or rename a folder and run "
                "again"
            )


def _reading(description: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of [data] that make other images or targets of the same files, and stand in no label."""
    data = description.get("settings", {}).get("data") or {}
    rows = {place.removeprefix("data."): row for place, row in SETTINGS.items() if place.startswith("data.")}
    return {key: data.get(key, row.protocol) for key, row in rows.items() if row.run and not row.label}
