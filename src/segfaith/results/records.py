"""Records: Parquet files with a column per figure, written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.labels import refuse_mixtures

_TEXT, _REAL, _INTEGER, _TRUTH = pa.string(), pa.float64(), pa.int64(), pa.bool_()

RECORD_COLUMNS: dict[str, tuple[Any, str]] = {
    "sample_id": (_TEXT, "id of the sample in its data set"),
    "class_index": (_INTEGER, "target class c; null where no target was found"),
    "method": (_TEXT, "method with its parameters, as in [methods] names"),
    "target_area": (_REAL, "|M| as a fraction of all pixels"),
    "target_iou": (_REAL, "intersection over union of the model's prediction of c with M"),
    "majority_class": (_INTEGER, "class that the model predicts on most pixels of M"),
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
            twice; or runs that must not be averaged, see `labels.refuse_mixtures`.
    """
    data = [load_run(directory) for directory in find_runs(paths)]
    seen: dict[str, Path] = {}
    for one in data:
        identity = one.description.get("identity_sha256")
        if identity in seen:
            raise SettingsError(f"{seen[identity]} and {one.directory} hold the same run; name one of them")
        if identity is not None:
            seen[identity] = one.directory
    refuse_mixtures((one.directory, one.description) for one in data)
    return data


def load_run(directory: Path) -> RunData:
    """Everything that a run directory holds.

    Raises:
        SettingsError: see `read_run`.
    """
    description, records = read_run(directory)
    curves = [pd.read_parquet(shard) for shard in sorted((directory / "curves").glob("*.parquet"))]
    again = directory / "randomisation.parquet"
    return RunData(
        directory,
        description,
        records,
        pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=list(CURVE_COLUMNS)),
        pd.read_parquet(again) if again.is_file() else pd.DataFrame(columns=list(RANDOMISATION_COLUMNS)),
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[Any, str]]) -> None:
    """Writes rows as Parquet under a temporary name, then moves the file into place. A missing float is NaN."""
    fields = [pa.field(name, kind, metadata={"description": meaning}) for name, (kind, meaning) in columns.items()]
    arrays = [
        pa.array([row.get(name, nan if kind == _REAL else None) for row in rows], kind, from_pandas=False)
        for name, (kind, _) in columns.items()
    ]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    replace_file(path, lambda temporary: pq.write_table(table, temporary))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file under a temporary name beside `path`, then puts it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create_file(path: Path, text: str) -> bool:
    """Writes a file whole where there is none yet; False, and nothing done, where another process has made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
        SettingsError: no run there, or a file that is no JSON.
    """
    file = directory / "run.json"
    if not file.is_file():
        raise SettingsError(
            f"{directory} is no run directory: it has no run.json; make one with: segfaith run FILE -o DIR"
        )
    try:
        description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read ({error}); run it again into another directory") from error
    return description


def read_run(directory: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A run's `run.json` and its records in the order of the run.

    Raises:
        SettingsError: no run there, or nothing finished yet.
    """
    description = read_description(directory)
    shards = sorted((directory / "records").glob("*.parquet"))
    if not shards:
        raise SettingsError(f"{directory} has no records yet; run it with: segfaith run FILE -o {directory}")
    return description, pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)
