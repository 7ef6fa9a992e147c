"""The command line: thin verbs, each one call into the library."""

import errno
import sys
from typing import NoReturn

from segfaith.cli import running, explaining, suites, reporting, checking, judging  # isort: skip  # the order of --help
from segfaith.cli.screen import BROKEN_PIPE, app, err, print_anything
from segfaith.errors import SegfaithError, StorageError
from segfaith.process import bound_memory, keep_memory
from segfaith.storage import REMEDIES

__all__ = ["app", "checking", "explaining", "judging", "main", "reporting", "running", "suites"]


def main() -> None:
    """Runs the command line. Its exit statuses stand in docs/reliability.md.

    An error that a user can mend is printed without a traceback: with status 3 where the place of the results cannot
    be written, is gone or in use, else with 2.
    """
    keep_memory()
    bound_memory()
    print_anything()
    try:
        app()
    except StorageError as error:
        _end(str(error), 3)
    except SegfaithError as error:
        _end(str(error), 2)
    except OSError as error:  # of a file that no verb watches
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            _end(f"the path {str(error.filename)[:80]!r}... cannot be used: {error.strerror}; give another path", 2)
        remedy = REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        _end(f"{place}{error.strerror}; {remedy}", 3)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError):
            from segfaith.batching import out_of_memory

            if not out_of_memory(error):
                raise
        lines = str(error).splitlines() or ["no more is free"]
        _end(f"memory ran out ({lines[0]}); {LESS_MEMORY}", 3)
    except SystemExit as stop:  # typer's own, which says 1 for both
        before = stop.__context__
        if isinstance(before, BrokenPipeError):
            sys.exit(BROKEN_PIPE)
        if before is not None and isinstance(before.__cause__, EOFError):
            raise before.__cause__ from None
        raise


LESS_MEMORY = "choose a smaller data.size, set execution.memory or a smaller execution.batch_size, or set model.tile"


def _end(words: str, status: int) -> NoReturn:
    err.print(f"error: {words}", style="red", highlight=False, soft_wrap=True)
    sys.exit(status)
