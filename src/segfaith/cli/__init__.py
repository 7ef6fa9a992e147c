"""The command line: thin verbs, each one call into the library."""

import sys

from segfaith.cli import running, explaining, suites, reporting, checking, judging  # isort: skip  # the order of --help
from segfaith.cli.screen import app, err
from segfaith.errors import SegfaithError
from segfaith.process import keep_memory

__all__ = ["app", "checking", "explaining", "judging", "main", "reporting", "running", "suites"]


def main() -> None:
    """Runs the command line; an error that a user can mend is printed without a traceback, with exit status 2."""
    keep_memory()
    try:
        app()
    except SegfaithError as error:
        err.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
