"""Shards: which samples each file of records must hold, and that it holds each of their rows once.

A sample has a row for each of its targets and each method, and at least one target: without any it has rows of the
target "", which say why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from segfaith.paths import check_ids, plain_name
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS, RECORD_COLUMNS
from segfaith.results.records.seals import DamagedFileError, check_table, read_table

KEY = ["sample_id", "target", "method"]
"""The columns that tell the rows of the records from each other."""


def planned_files(description: Mapping[str, Any]) -> dict[str, list[str]]:
    """The name of each file of records that a run will have, with the ids of its samples.

    Raises:
        SettingsError: an id that could not name files.
    """
    check_ids(description["data"]["samples"], "run.json", "this is no run of segfaith's")
    ids, size = description["data"]["samples"], description["settings"]["execution"]["shard_size"]
    return {f"{number:05d}.parquet": ids[start : start + size] for number, start in enumerate(range(0, len(ids), size))}


def record_files(directory: Path) -> list[Path]:
    """The files of records that there are, in the order of the run."""
    return sorted((directory / "records").glob("*.parquet"))


def read_records(
    file: Path,
    planned: Mapping[str, Sequence[str]],
    description: Mapping[str, Any],
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """The records of a shard, held against what `run.json` plans. Its curves must be whole, and there if planned.

    Args:
        planned: the run's `planned_files`.
        columns: these alone, `sample_id`, `method` and `status` among them, and `target`, which is always read; or
            all.

    Raises:
        DamagedFileError: one of its files is damaged or another run's, it has other columns, or its records have
            rows that are missing, twice or of others.
    """
    if file.name not in planned:
        raise DamagedFileError(file, f"is no shard of its run, which has {len(planned)}")
    identity = description["identity_sha256"]
    records = read_table(file, identity, RECORD_COLUMNS, columns and list(dict.fromkeys([*columns, "target"])))
    _check_targets(file, records)
    targets: dict[str, dict[str, None]] = {}
    for sample, target in zip(records["sample_id"], records["target"], strict=True):
        targets.setdefault(sample, {})[target] = None
    expected = [
        (sample, target, method)
        for sample in planned[file.name]
        for target in ([name for name in targets.get(sample, ()) if name] or [""])
        for method in description["methods"]
    ]
    _hold(file, _keys(records), expected)
    lists = [description["settings"]["evaluation"].get(name) for name in ("k", "occlusion")]
    several = any(isinstance(one, list) and one[1:] for one in lists)
    if _curve_file(file).exists() or (several and (records["status"] == "ok").any()):
        check_table(_curve_file(file), identity)
    return records


def read_curves(file: Path, records: pd.DataFrame, description: Mapping[str, Any]) -> pd.DataFrame | None:
    """The curves of a shard, or None where its run has none.

    Args:
        records: what `read_records` gave of it.

    Raises:
        DamagedFileError: it has rows twice, or rows of others than its records have measured.
    """
    path = _curve_file(file)
    if not path.exists():
        return None
    curves, measured = (
        read_table(path, description["identity_sha256"], CURVE_COLUMNS),
        records[records["status"] == "ok"],
    )
    once = curves.drop_duplicates([*KEY, "occlusion", "k", "kind"])
    if len(once) < len(curves):
        raise DamagedFileError(path, f"has {len(curves) - len(once)} rows twice")
    _hold(path, _keys(once.drop_duplicates(KEY)), _keys(measured))
    return curves


def _check_targets(file: Path, rows: pd.DataFrame) -> None:
    """Refuses names of targets that could not be parts of files' names, so that no reader leaves the run's directory.

    Raises:
        DamagedFileError: there is such a name.
    """
    for name in rows["target"].unique():
        if name and plain_name(str(name)) != name:
            raise DamagedFileError(file, f"has a target {name!r}, which cannot name files")


def _keys(rows: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    return zip(*(rows[name] for name in KEY), strict=True)


def _curve_file(file: Path) -> Path:
    return file.parent.parent / "curves" / file.name


def read_randomisation(directory: Path, description: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows of `randomisation.parquet`, or None where there is no such file.

    Raises:
        DamagedFileError: it is damaged, another run's, or has rows that are twice or of others.
    """
    file = directory / "randomisation.parquet"
    if not file.exists():
        return None
    rows = read_table(file, description["identity_sha256"], RANDOMISATION_COLUMNS)
    _check_targets(file, rows)
    keys = Counter(zip(_keys(rows), rows["stage"], strict=True))
    known = set(product(description["data"]["samples"], description["methods"]))
    for (key, stage), count in keys.items():
        if count > 1 or (key[0], key[-1]) not in known:
            words = ", ".join(filter(None, key))
            raise DamagedFileError(file, f"has a row of {words}, stage {stage}, twice or of no such sample")
    return rows


def _hold(file: Path, got: Iterable[tuple[str, ...]], expected: Iterable[tuple[str, ...]]) -> None:
    """Holds the (sample, target, method) of rows against those that there must be, each once.

    Raises:
        DamagedFileError: rows are missing, twice or of others; the first of them is named.
    """
    there, wanted = Counter(got), Counter(expected)
    if there == wanted:
        return
    lacking, extra = wanted - there, there - wanted
    words = [
        f"{sum(wrong.values())} {what} ({', '.join(filter(None, map(str, next(iter(wrong)))))})"
        for what, wrong in (("missing", lacking), ("twice or of no such sample or method", extra))
        if wrong
    ]
    raise DamagedFileError(
        file, f"has other rows than its run: expected {sum(wanted.values())}, each once; {', '.join(words)}"
    )
