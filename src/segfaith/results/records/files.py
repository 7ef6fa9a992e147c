"""Files that are written whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from segfaith.errors import StorageError
from segfaith.paths import is_remote
from segfaith.results.records.schema import REAL, Columns
from segfaith.results.records.seals import sealed_table
from segfaith.storage import storing, sync, temporary_name


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Columns, identity: str) -> None:
    """Writes rows as sealed Parquet under a temporary name, then moves the file into place. A missing float is NaN.

    Args:
        identity: the `identity_sha256` of the run whose rows they are.
    """
    fields = [pa.field(name, kind, metadata={"description": meaning}) for name, (kind, meaning) in columns.items()]
    arrays = [
        pa.array([row.get(name, nan if kind == REAL else None) for row in rows], kind, from_pandas=False)
        for name, (kind, _) in columns.items()
    ]
    content = sealed_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), identity)
    replace_file(path, lambda temporary: temporary.write_bytes(content), lasting=True)


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Writes an array as .npy. `np.save` does not say why a file cannot be written."""
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    path.write_bytes(content.getvalue())


def replace_file(path: Path, write: Callable[[Path], object], *, lasting: bool = False) -> None:
    """Lets `write` make a file under a temporary name beside `path`, then puts it there in one step.

    Args:
        lasting: the file is on the disk, under its name, when this returns, and outlasts a power cut. That takes some
            milliseconds.

    Raises:
        StorageError: the file cannot be written there.
    """
    if is_remote(path):  # a store shows an object whole or not at all
        with TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            with storing(path.parent):
                path.write_bytes(temporary.read_bytes())
        return
    with storing(path.parent), _in_the_making(path) as temporary:
        write(temporary)
        if lasting:
            sync(temporary)
        os.replace(temporary, path)
        if lasting:
            sync(path.parent)


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell may begin that a spreadsheet takes for a formula."""


def write_csv(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Writes a table as CSV. Text that a spreadsheet would run as a formula gets an apostrophe before it.

    A spreadsheet then shows it as text; numbers stay as they are, those in text too.
    """
    words = table.select_dtypes(exclude=["number", "bool"])
    safe = {str(name): column.map(_no_formula) for name, column in words.items()}
    table.assign(**safe).rename(columns=_no_formula).to_csv(path, index=False, **options)


def _no_formula(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def create_file(path: Path, text: str) -> bool:
    """Writes a file whole where there is none yet; False, and nothing done, where another process has made it.

    The file outlasts a power cut.

    Raises:
        StorageError: the file cannot be written there.
    """
    if is_remote(path):
        try:
            with storing(path.parent), path.open("xb") as file:
                file.write(text.encode("utf-8"))
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        return True
    with storing(path.parent), _in_the_making(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
        sync(path.parent)
    return True


def move_file(path: Path, target: Path) -> None:
    """Moves a file within a run's directory, whose folder is made. In a store it is at both places for a moment."""
    if is_remote(path):
        with storing(target.parent):
            target.write_bytes(path.read_bytes())
            path.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that it holds, if it is there."""
    if not folder.exists():
        return
    if is_remote(folder):
        with storing(folder):
            folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]  # of fsspec
    else:
        shutil.rmtree(folder)


@contextmanager
def _in_the_making(path: Path) -> Iterator[Path]:
    """A temporary name in the folder of `path`, which is made; nothing is left under that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)  # a link that waits there would be written through
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
