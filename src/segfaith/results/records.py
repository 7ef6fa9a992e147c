"""Records: Parquet files with a column per figure, written whole or not at all, and read only where they are whole."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.distinct import refuse_repeats
from segfaith.results.labels import refuse_mixtures
from segfaith.results.seals import read_json, sealed_table
from segfaith.results.shards import planned_files, read_curves, read_randomisation, read_records, record_files

_TEXT, _REAL, _INTEGER, _TRUTH = pa.string(), pa.float64(), pa.int64(), pa.bool_()

RECORD_COLUMNS: dict[str, tuple[Any, str]] = {
    "sample_id": (_TEXT, "id of the sample in its data set"),
    "class_index": (_INTEGER, "target class c; null where no target was found"),
    "method": (_TEXT, "method with its parameters, as in [methods] names"),
    "target_area": (_REAL, "|M| as a fraction of all pixels"),
    "target_iou": (_REAL, "intersection over union of the model's prediction of c with M"),
    "majority_class": (_INTEGER, "class that the model predicts on most pixels of M"),
    "head": (_TEXT, "what made the model's outputs probabilities: softmax, sigmoid, or (they were) probabilities"),
    "kind": (_TEXT, "how the planted evidence decides (docs/scenes.md); null where none was planted"),
    "s": (_REAL, "s_c(x, M), masked mean probability in [0, 1]"),
    "s_target_deleted": (_REAL, "s_c(O(x, S_t), M)"),
    "s_off_deleted": (_REAL, "s_c(O(x, S_o), M)"),
    "s_baseline": (_REAL, "s_c(b, M), b = O(x, all pixels)"),
    "s_inserted": (_REAL, "s_c(b with S_t put back from x, M)"),
    "s_fair_deleted": (_REAL, 's_c with the n(k, M) highest pixels outside M occluded; needs leakage = "detailed"'),
    "s_near_deleted": (_REAL, 's_c with the pixels of S_o near M occluded; needs leakage = "detailed"'),
    "s_middle_deleted": (_REAL, "s_c with the pixels of S_o at a middle distance occluded; the same"),
    "s_far_deleted": (_REAL, "s_c with the pixels of S_o far from M occluded; the same"),
    "s_off_evidence_deleted": (_REAL, "s_c(O(x, S_o and E), M), E the planted evidence; s where S_o holds none of it"),
    **{name: (_REAL, METRICS[name].meaning) for name in METRICS if name not in ("stability", "runtime_s")},
    "stability": (_REAL, METRICS["stability"].meaning),
    **{
        f"stability_{name}": (_REAL, f"Pearson correlation with the map under {name}")
        for name in ("noise", "brightness", "contrast", "blur", "flip")
    },
    "runtime_s": (_REAL, METRICS["runtime_s"].meaning),
    "degenerate": (_TRUTH, "the map is constant (range below 1e-12)"),
    "tied_share_target": (_REAL, "fraction of S_t that is there by the tie-break alone"),
    "tied_share_off": (_REAL, "fraction of S_o that is there by the tie-break alone"),
    "path": (_TEXT, "how the interventions were scored: incremental, or plain and why; null where they were not"),
    "status": (_TEXT, "ok, skipped or failed"),
    "reason": (_TEXT, "why a row is not ok, or which of its values are undefined (NaN)"),
}
"""Columns of `records/*.parquet`: type and meaning. random_cells holds means over its three draws."""

CURVE_COLUMNS: dict[str, tuple[Any, str]] = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
    "method": RECORD_COLUMNS["method"],
    "occlusion": (_TEXT, "operator"),
    "k": (_REAL, "fraction of the region's pixels"),
    "kind": (_TEXT, "target_deletion, off_deletion or insertion"),
    "pixels": (_INTEGER, "n(k, R)"),
    "s": RECORD_COLUMNS["s"],
    "score": (_REAL, "s_c of the intervened image"),
    "s_baseline": RECORD_COLUMNS["s_baseline"],
    "value": (_REAL, "tdd, odd or insertion_gain at this operator and k"),
    "value_abs": (_REAL, "mean over the method's draws of the absolute value; of odd it is odd_abs"),
}
"""Columns of `curves/*.parquet`."""


RANDOMISATION_COLUMNS: dict[str, tuple[Any, str]] = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
    "method": RECORD_COLUMNS["method"],
    "stage": (_INTEGER, "how many parts of the model have weights drawn anew, from the head on; 0: none"),
    "part": (_TEXT, "the part that was drawn anew last"),
    "s": (_REAL, "s_c(x, M) of the model at this stage"),
    "pearson": (_REAL, "correlation of the map with that of the trained model"),
    "spearman": (_REAL, "rank correlation of the map with that of the trained model"),
    "status": RECORD_COLUMNS["status"],
    "reason": (_TEXT, "why a row is not ok, or why its correlations are undefined (NaN)"),
    "finished": (_TRUTH, "whether the check went through all parts; false where it was stopped"),
}
"""Columns of `randomisation.parquet`."""


@dataclass(frozen=True, eq=False)
class RunData:
    """A run directory, read; tables that it does not hold are empty, with their columns."""

    directory: Path
    description: dict[str, Any]
    records: pd.DataFrame
    curves: pd.DataFrame
    randomisation: pd.DataFrame

    @property
    def run(self) -> tuple[dict[str, Any], pd.DataFrame]:
        """What tables are made of: the description and the records."""
        return self.description, self.records

    @property
    def label(self) -> str:
        """The name of its directory."""
        return self.directory.name


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run directories among the paths, and those with records that lie directly in them (of a suite), by name.

    Raises:
        SettingsError: a path that is neither a run nor holds one.
    """
    found: dict[Path, Path] = {}
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
            found.setdefault(one.resolve(), one)
    return list(found.values())


def load_runs(paths: Sequence[Path]) -> list[RunData]:
    """The runs that `find_runs` finds, read.

    Raises:
        SettingsError: as `find_runs` and `read_run`; two directories that hold the same run, which must not count
            twice, see `distinct.refuse_repeats`; or runs that must not be averaged, see `labels.refuse_mixtures`.
    """
    data = [load_run(directory) for directory in find_runs(paths)]
    described = [(one.directory, one.description) for one in data]
    refuse_mixtures(described)
    refuse_repeats(described)
    return data


def load_run(directory: Path) -> RunData:
    """Everything that a run directory holds.

    Raises:
        SettingsError: see `read_run`.
    """
    description, shards = _read(directory)
    found = [read_curves(file, records, description) for file, records in shards.items()]
    curves = [one for one in found if one is not None]
    randomisation = read_randomisation(directory, description)
    return RunData(
        directory,
        description,
        pd.concat(shards.values(), ignore_index=True),
        pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=list(CURVE_COLUMNS)),
        pd.DataFrame(columns=list(RANDOMISATION_COLUMNS)) if randomisation is None else randomisation,
    )


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[Any, str]], identity: str
) -> None:
    """Writes rows as sealed Parquet under a temporary name, then moves the file into place. A missing float is NaN.

    Args:
        identity: the `identity_sha256` of the run whose rows they are.
    """
    fields = [pa.field(name, kind, metadata={"description": meaning}) for name, (kind, meaning) in columns.items()]
    arrays = [
        pa.array([row.get(name, nan if kind == _REAL else None) for row in rows], kind, from_pandas=False)
        for name, (kind, _) in columns.items()
    ]
    content = sealed_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), identity)
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file under a temporary name beside `path`, then puts it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # a link that waits there would be written through
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create_file(path: Path, text: str) -> bool:
    """Writes a file whole where there is none yet; False, and nothing done, where another process has made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def read_description(directory: Path) -> dict[str, Any]:
    """A run's `run.json`.

    Raises:
        SettingsError: no run there, or a file that is damaged or was edited.
    """
    file = directory / "run.json"
    if not file.is_file():
        raise SettingsError(
            f"{directory} is no run directory: it has no run.json; make one with: segfaith run FILE -o DIR"
        )
    return read_json(file)


def read_run(directory: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A run's `run.json` and its records in the order of the run.

    Raises:
        SettingsError: no run there, nothing finished yet, an id that could not name files, or a file that is damaged,
            another run's, or has rows that are missing or twice.
    """
    description, shards = _read(directory)
    return description, pd.concat(shards.values(), ignore_index=True)


def _read(directory: Path) -> tuple[dict[str, Any], dict[Path, pd.DataFrame]]:
    """A run's `run.json` and its records by file."""
    description = read_description(directory)
    planned = planned_files(description)
    shards = {file: read_records(file, planned, description) for file in record_files(directory)}
    if not shards:
        raise SettingsError(f"{directory} has no records yet; run it with: segfaith run FILE -o {directory}")
    return description, shards
