"""Seals: each file of a run says whose it is and carries a SHA-256 of itself, so that no reader takes another's or a
damaged one for what was written.

In a Parquet file both stand in the schema's metadata. Its SHA-256 is over all its bytes, with zeros where the digest
itself stands, and is checked before anything is parsed. `run.json` carries the SHA-256 of its other keys.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from segfaith.errors import SettingsError, StorageError
from segfaith.paths import is_remote
from segfaith.results.records.schema import LATER, REAL, TEXT, Columns

_MARK, _BLANK = b"segfaith-sha256:", b"0" * 64
_OWNER, _SEAL = b"segfaith.identity", b"segfaith.seal"
_SEAL_KEY = "sha256"
OLDER = "carries no SHA-256: it was made by an older version of segfaith, or is damaged"


class DamagedFileError(SettingsError):
    """A file of a run that does not hold what the run wrote there.

    Attributes:
        path: the file.
        reason: what is wrong with it, without its name and without what to do.
    """

    def __init__(
        self, path: Path, reason: str, remedy: str = "the command that made the run sets it aside and measures it again"
    ) -> None:
        super().__init__(f"{path} {reason}; {remedy}")
        self.path, self.reason = path, reason


def sealed_table(table: pa.Table, identity: str) -> bytes:
    """A table as the bytes of a sealed Parquet file; `identity` is the `identity_sha256` of its run."""
    sink = BytesIO()
    pq.write_table(table.replace_schema_metadata({_OWNER: identity.encode(), _SEAL: _MARK + _BLANK}), sink)
    content = bytearray(sink.getvalue())
    place = content.rindex(_MARK) + len(_MARK)
    content[place : place + len(_BLANK)] = sha256(content).hexdigest().encode()
    return bytes(content)


TYPES: dict[type, Any] = {str: TEXT, float: REAL}


def read_table(path: Path, identity: str, expected: Columns, columns: list[str] | None = None) -> pd.DataFrame:
    """The rows of a sealed Parquet file, with these columns or all.

    Columns of `schema.LATER`, which older files lack, are filled in, and the nulls of text too.

    Args:
        expected: the columns that it must have, but for those of `schema.LATER`.

    Raises:
        DamagedFileError: see `check_table`; or it lacks a column, or has it twice or of another type.
    """
    file, expected = _checked(path, identity)[1], dict(expected.items())
    schema = file.schema_arrow
    held: dict[str, list[str]] = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        held.setdefault(name, []).append(str(kind))
    # the curves have a number of the name `score`, which no file lacks
    later = {name: value for name, value in LATER.items() if expected.get(name, (None,))[0] == TYPES[type(value)]}
    for name, (kind, _) in expected.items():
        found = held.get(name, [])
        if found != [str(kind)] and (found or name not in later):
            raise DamagedFileError(path, f"has {' and '.join(found) or 'no'} column {name}; expected one of {kind}")
    wanted = columns and [name for name in columns if name in held or name not in later]
    try:
        rows: pd.DataFrame = file.read(wanted, use_threads=False).to_pandas()
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, f"cannot be read ({error})") from error
    for name, value in later.items():
        if name in (columns or expected):
            if name not in rows:
                rows[name] = value
            elif isinstance(value, str) and rows[name].hasnans:
                rows[name] = rows[name].fillna(value)
    return rows


def check_table(path: Path, identity: str) -> bytes:
    """The bytes of a sealed Parquet file, without parsing its rows.

    Raises:
        DamagedFileError: it is damaged, has no seal, or is another run's.
    """
    return _checked(path, identity)[0]


def _checked(path: Path, identity: str) -> tuple[bytes, pq.ParquetFile]:
    """The bytes of a sealed Parquet file of this run, and the file whose rows are still to be read."""
    content, owner, file = _opened(path)
    if owner != identity:
        raise DamagedFileError(path, f"is of another run: it carries the identity {owner[:12]}, not {identity[:12]}")
    return content, file


def owner_of(path: Path) -> str | None:
    """The identity of the run whose file this is; None where the file is damaged or does not say it."""
    try:
        return _opened(path)[1]
    except DamagedFileError:
        return None


def _opened(path: Path) -> tuple[bytes, str, pq.ParquetFile]:
    """The bytes of a sealed file, held against their digest, the identity of its run, and the file opened."""
    try:
        content = _plain(path).read_bytes()
    except StorageError:
        raise
    except OSError as error:
        raise DamagedFileError(path, f"cannot be read ({error})") from error
    if not content:
        raise DamagedFileError(path, "is empty")
    place = content.rfind(_MARK) + len(_MARK)
    if place < len(_MARK):
        raise DamagedFileError(path, OLDER)
    view, end = memoryview(content), place + len(_BLANK)
    actual = sha256(view[:place])
    actual.update(_BLANK)
    actual.update(view[end:])
    if actual.hexdigest().encode() != content[place:end]:
        raise DamagedFileError(path, "is damaged: its content does not match its SHA-256")
    try:
        file = pq.ParquetFile(BytesIO(content))
        return content, file.schema_arrow.metadata[_OWNER].decode(), file
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:  # sealed, but not by segfaith
        raise DamagedFileError(path, f"cannot be read ({type(error).__name__}: {error})") from error


def _plain(path: Path) -> Path:
    """A path that is a file, or nothing: a pipe or a device would be waited for."""
    if not is_remote(path) and path.exists() and not path.is_file():
        raise OSError("it is no file")
    return path


def sealed_json(content: Mapping[str, Any]) -> str:
    """A table as the text of a sealed JSON file."""
    return json.dumps({**content, _SEAL_KEY: _digest(content)}, indent=2)


def read_json(path: Path) -> dict[str, Any]:
    """A sealed JSON file, `run.json`.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        StorageError: its store cannot be reached.
        DamagedFileError: it cannot be read, or its content does not match its SHA-256.
    """
    remedy = (
        f"restore it, or move it away and give the command that made the run again: what {path.parent} holds of that "
        "very run stays"
    )
    try:
        text = _plain(path).read_bytes().decode("utf-8")
        if not text.strip():
            raise DamagedFileError(path, "is empty", remedy)
        content = json.loads(text)
    except (DamagedFileError, FileNotFoundError, NotADirectoryError, StorageError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"cannot be read ({error})", remedy) from error
    if not isinstance(content, dict):
        raise DamagedFileError(path, "cannot be read (it is no table)", remedy)
    if _SEAL_KEY not in content:
        raise DamagedFileError(path, OLDER, "run it again into another directory")
    if content[_SEAL_KEY] != _digest(content):
        raise DamagedFileError(path, "is damaged or was edited: its content does not match its SHA-256", remedy)
    return content


def _digest(content: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key != _SEAL_KEY}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
