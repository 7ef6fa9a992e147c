"""Names of data sets: runs that carry the same one are averaged and tested together, so it must tell others apart.

What a run's numbers are of is the data set, its split, and the settings under which its samples, targets and scores
are made: `PROTOCOL`. Those that differ from the protocol (SPEC) stand in the label, "voc2012 val, 320 px, k = 0.1".
Methods' parameters do not: a suite's ablations (another alpha, another grid) are runs of one data set.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from segfaith.errors import SettingsError

PROTOCOL: tuple[tuple[str, str, Any, str], ...] = (
    ("data", "size", 224, "{} px"),
    ("target", "source", "ground_truth", "target by {}"),
    ("target", "class", None, "target {}"),
    ("evaluation", "occlusion", "mean", "{} occlusion"),
    ("evaluation", "k", 0.2, "k = {:g}"),
    ("evaluation", "ignore", "include", "ignored pixels: {}"),
    ("evaluation", "ties", "cell", "ties by {}"),
    ("evaluation", "strength", 0.03, "strength {:g}"),
)
"""Table and key of a setting, its default, and how a label names another one; of a list, the first value counts."""


def data_label(description: Mapping[str, Any]) -> str:
    """A run's data set, as tables name it: "voc2012 val"; a folder's with its name, "folder cells val".

    Settings other than the protocol's follow after commas (see the module), also those that `run.json` leaves out.
    """
    data, settings = description["data"], description.get("settings", {})
    root = _folder(description)
    parts = [" ".join(part for part in (data["name"], root.name if root else "", data["split"]) if part)]
    for table, key, default, words in PROTOCOL:
        value = settings.get(table, {}).get(key, default)
        value = value[0] if isinstance(value, list) else value
        if value != default:
            parts.append("native size" if value == "native" else words.format(value))
    return ", ".join(parts)


def refuse_mixtures(runs: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Runs under one label are averaged as one: neither two folders of one name nor two versions of results may be.

    Args:
        runs: directories and descriptions of runs.

    Raises:
        SettingsError: runs whose label is the same and whose root or results version, where known, is not.
    """
    roots: dict[str, tuple[Path, Path]] = {}
    versions: dict[str, tuple[int, Path]] = {}
    for directory, description in runs:
        root, label = _folder(description), data_label(description)
        version = description.get("identity", {}).get("results_version")
        if version is not None:
            before, other = versions.setdefault(label, (version, directory))
            if before != version:
                raise SettingsError(
                    f"expected runs of {label!r} to share one version of results; {other} has {before} and {directory} "
                    f"{version}, between which numbers moved (CHANGELOG): report on them one at a time, or run the "
                    "older ones again in a new directory"
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


def slug(label: str) -> str:
    """A label as part of an anchor or a file's name, different for different labels: "voc2012-val"."""
    plain = all(sign == " " or (sign.isascii() and sign.isalnum()) for sign in label)
    text = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in label)
    return text if plain else f"{text}-{crc32(label.encode()):08x}"


def _folder(description: Mapping[str, Any]) -> Path | None:
    """The root of a run on a folder of images; the other data sets are the same wherever they lie."""
    root = description.get("settings", {}).get("data", {}).get("root")
    return Path(root) if root and description["data"]["name"] == "folder" else None
