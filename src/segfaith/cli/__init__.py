"""The command line: thin verbs, each one call into the library."""

import errno
import sys

from segfaith.cli import running, explaining, suites, reporting, checking, judging  # isort: skip  # the order of --help
from segfaith.cli.screen import app, err, print_anything
from segfaith.errors import SegfaithError
from segfaith.process import bound_memory, keep_memory

__all__ = ["app", "checking", "explaining", "judging", "main", "reporting", "running", "suites"]


def main() -> None:
    """Runs the command line; an error that a user can mend is printed without a traceback, with exit status 2."""
    keep_memory()
    bound_memory()
    print_anything()
    try:
        app()
    except SegfaithError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        _end(f"the path {str(error.filename)[:80]!r}... cannot be used: {error.strerror}; give another path")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError):
            from segfaith.scores import out_of_memory

            if not out_of_memory(error):
                raise
        lines = str(error).splitlines() or ["no more is free"]
        _end(f"memory ran out ({lines[0]}); {LESS_MEMORY}", status=3)


LESS_MEMORY = "choose a smaller data.size or execution.batch_size, or set model.tile"


def _end(words: str, status: int = 2) -> None:
    err.print(f"error: {words}", style="red", highlight=False, soft_wrap=True)
    sys.exit(status)
