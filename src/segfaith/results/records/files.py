"""Files that are written whole or not at all."""

import os
from collections.abc import Callable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from segfaith.results.records.schema import REAL, Columns
from segfaith.results.records.seals import sealed_table


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
