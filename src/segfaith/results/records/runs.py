"""Runs: run directories, read only where their files are whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.results.records.identity import data_label, refuse_repeats, run_key
from segfaith.results.records.mixtures import refuse_mixtures
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS
from segfaith.results.records.seals import DamagedFileError, read_json
from segfaith.results.records.shards import planned_files, read_curves, read_randomisation, read_records, record_files

_SHAPE: dict[str, type] = {
    "identity_sha256": str,
    "settings.seed": int,
    "settings.evaluation.occlusion": object,
    "settings.execution.shard_size": int,
    "model.name": str,
    "model.weights": str,
    "data.name": str,
    "data.split": str,
    "data.samples": list,
    "methods": dict,
}
"""Keys of `run.json` without which no run can be read, and their types."""
_OPTIONAL: dict[str, type] = {
    "identity": dict,
    "identity.sources": dict,
    "settings.data": dict,
    "settings.model": dict,
    "versions": dict,
    "model.classes": list,
    "data.classes": list,
}
"""Keys that are null or left out, or of these types."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read; tables that it does not hold are empty, with their columns.

    Attributes:
        directory: where it lies.
        description: its `run.json`.
        records: a row per sample and method, in the order of the run.
        curves: a row per sample, method, kind, operator and k.
        randomisation: a row per sample, method and stage of the randomisation check.
    """

    directory: Path
    description: dict[str, Any]
    records: pd.DataFrame
    curves: pd.DataFrame
    randomisation: pd.DataFrame

    @property
    def label(self) -> str:
        """The name of its directory."""
        return self.directory.name

    @property
    def data(self) -> str:
        """The label of its data set, see `identity.data_label`."""
        return data_label(self.description)

    @property
    def score(self) -> str:
        """Which number of each pixel was explained: a `types.Score`, such as "probability"."""
        return str(self.description["settings"].get("target", {}).get("score", "probability"))

    @property
    def of_missed(self) -> bool:
        """Whether its settings choose what the model does not predict: no reader need be told that it is missed."""
        target = self.description["settings"].get("target", {})
        return bool(target.get("source") == "missed" or target.get("versus") == "predicted")

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The rows of the records that were measured: neither skipped nor failed."""
        return self.records[self.records["status"] == "ok"]


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run directories among the paths, and those with records that lie directly in them (of a suite), by name.

    Raises:
        SettingsError: a path that is neither a run nor holds one.
    """
    found: dict[str, Path] = {}
    for path in paths:
        inner = [path] if (path / "run.json").is_file() else sorted(one.parent for one in path.glob("*/run.json"))
        if not inner:
            raise SettingsError(
                f"{path} is no run directory and holds none: it has no run.json; make one with: segfaith run FILE "
                "-o DIR"
            )
        begun = [one for one in inner if one == path or next((one / "records").glob("*.parquet"), None)]
        if not begun:
            raise SettingsError(f"no run in {path} has records yet; go on with: segfaith suite NAME -o {path}")
        for one in begun:
            found.setdefault(str(one.resolve()), one)
    return list(found.values())


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs that `find_runs` finds, read.

    Raises:
        SettingsError: as `find_runs` and `load_run`; two directories that hold the same run, which must not count
            twice, see `identity.refuse_repeats`; or runs that must not be averaged, see `mixtures.refuse_mixtures`.
    """
    runs = [load_run(directory) for directory in find_runs(paths)]
    described = [(run.directory, run.description) for run in runs]
    refuse_mixtures(described)
    refuse_repeats(described)
    return runs


@pd.option_context("mode.string_storage", "python")  # of short tables: pyarrow's takes a third longer for a report
def load_run(directory: Path) -> Run:
    """Everything that a run directory holds.

    Raises:
        SettingsError: no run there, nothing finished yet, an id that could not name files, or a file that is damaged,
            another run's, or has rows that are missing or twice.
    """
    description = read_description(directory)
    planned = planned_files(description)
    shards = {file: read_records(file, planned, description) for file in record_files(directory)}
    if not shards:
        raise SettingsError(f"{directory} has no records yet; run it with: segfaith run FILE -o {directory}")
    tables = [read_curves(file, records, description) for file, records in shards.items()]
    curves = [table for table in tables if table is not None]
    randomisation = read_randomisation(directory, description)
    return Run(
        directory,
        description,
        pd.concat(shards.values(), ignore_index=True),
        pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=list(CURVE_COLUMNS)),
        pd.DataFrame(columns=list(RANDOMISATION_COLUMNS)) if randomisation is None else randomisation,
    )


def read_description(directory: Path) -> dict[str, Any]:
    """A run's `run.json`.

    Raises:
        SettingsError: no run there, or a file that is damaged, was edited, or does not say what a run is.
    """
    file = directory / "run.json"
    try:
        description = read_json(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingsError(
            f"{directory} is no run directory: it has no run.json; make one with: segfaith run FILE -o DIR"
        ) from error
    if wrong := _misshapen(description) or _unreadable(description):
        raise DamagedFileError(file, f"is no description of a run: {wrong}", "run it again into another directory")
    return description


def _misshapen(description: Mapping[str, Any]) -> str:
    """What of a `run.json` has another shape than readers rely on, or ""."""
    for key, kind in (_SHAPE | _OPTIONAL).items():
        value: Any = description
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not (isinstance(value, kind) and value is not None) and not (key in _OPTIONAL and value is None):
            return f"{key} is {'missing' if value is None else type(value).__name__}; expected {kind.__name__}"
    size = description["settings"]["execution"]["shard_size"]
    if size < 1:
        return f"settings.execution.shard_size is {size}; expected at least 1"
    tables = all(isinstance(one, dict) for one in description["methods"].values())
    classes = [name for side in ("model", "data") for name in description[side].get("classes") or []]
    if not all(isinstance(name, str) for name in classes) or not tables:
        return "expected model.classes and data.classes to be a list of text each, and each of methods a table"
    labels = [about.get("label") for about in description["methods"].values()]
    if not all(label is None or isinstance(label, str) for label in labels):
        return "expected the label of each method to be text or null"
    return ""


def _unreadable(description: Mapping[str, Any]) -> str:
    """Why no label and no key can be made of the settings in a `run.json`, or ""."""
    try:
        run_key(description)
    except Exception as error:  # a value of any other type may be anywhere
        return f"its settings cannot be understood ({type(error).__name__}: {error})"
    return ""


def class_name(description: Mapping[str, Any], index: int) -> str:
    """The name of a class of a run: as the model calls it, else as the data set does; "class N" where neither names it.

    Args:
        description: the content of `run.json`.
        index: the model's channel, which is the label in the masks; at least 0.
    """
    for side in ("model", "data"):
        names = description[side].get("classes") or []
        if index < len(names):
            return str(names[index])
    return f"class {index}"
