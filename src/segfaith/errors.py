"""The errors that segfaith raises on purpose. Each says what was expected, what came, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb


class SegfaithError(Exception):
    """Base of the errors that a user can mend; the command line prints it without a traceback."""


class SettingsError(SegfaithError, ValueError):
    """Settings, arguments or files of a run that cannot be used: the run does not start."""


class StorageError(SegfaithError, OSError):
    """A place that cannot be written, is full, is gone or is in use: mend that, and the same command works."""


class SampleError(SegfaithError, ValueError):
    """One sample that cannot be measured: it becomes rows with status `failed`; the run goes on."""


class SampleSkipped(SampleError):
    """By the protocol, the sample has nothing to explain: it becomes rows with status `skipped`."""


def words_of(error: BaseException) -> str:
    """One line about an error in a user's code, for a message. `sys.exit` is named, since its error may be empty."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def placed(error: BaseException) -> str:
    """`words_of`, with the file and the line that raised: "ValueError: no map (mine.py, line 7)"."""
    where = extract_tb(error.__traceback__)[-1:]
    return words_of(error) + "".join(f" ({Path(one.filename).name}, line {one.lineno})" for one in where)


@contextmanager
def no_exit(what: str) -> Iterator[None]:
    """Inside the block, `sys.exit` in a user's code becomes an error and does not end the process.

    Raises:
        SampleError: the code calls `sys.exit`; the message begins with `what`.
    """
    try:
        yield
    except SystemExit as error:
        raise SampleError(f"{what}: {words_of(error)}, which does not end a run; raise an exception instead") from error
