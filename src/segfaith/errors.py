"""The errors that segfaith raises on purpose. Each says what was expected, what came, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class SegfaithError(Exception):
    """Base of the errors that a user can mend; the command line prints it without a traceback."""


class SettingsError(SegfaithError, ValueError):
    """Settings, arguments or files of a run that cannot be used: the run does not start."""


class SampleError(SegfaithError, ValueError):
    """One sample that cannot be measured: it becomes rows with status `failed`; the run goes on."""


class SampleSkipped(SampleError):
    """A sample that has nothing to explain by the protocol: rows with status `skipped`."""


def words_of(error: BaseException) -> str:
    """An error of a user's code in one line, for a message; `sys.exit`, which may say nothing, by its name."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextmanager
def no_exit(what: str) -> Iterator[None]:
    """Inside the block the `sys.exit` of a user's code is an error like any other, not the end of the process.

    Raises:
        SampleError: `what`, and that it calls sys.exit.
    """
    try:
        yield
    except SystemExit as error:
        raise SampleError(f"{what}: {words_of(error)}, which ends no run; raise an exception instead") from error
