"""What all verbs share: the application, the two consoles, and how tables and times are printed."""

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

app = typer.Typer(
    help="Judge attribution maps of semantic-segmentation models by intervention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Signs that tell a terminal to do something; words of a run directory, which may be a stranger's, may hold them."""


class _Plain(Console):
    """Words are shown as they are: brackets are no markup, and control characters no commands."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(CONTROL.sub("\ufffd", text), **options)


class _Output(_Plain):
    """Standard output: a reader who has gone away (`| head -1`) ends the command in silence."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
        raise SystemExit(BROKEN_PIPE)


class _Errors(_Plain):
    """Standard error: words on the way, without which the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


BROKEN_PIPE = 128 + 13
"""Exit status of a command whose reader has gone away: what a shell reports of one that SIGPIPE ended."""
out, err = _Output(markup=False, emoji=False), _Errors(stderr=True, markup=False, emoji=False)

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)


def say(text: str) -> None:
    """Prints a line as it is, unwrapped."""
    out.print(text, soft_wrap=True, highlight=False)


def on_the_way(text: str) -> None:
    """Prints a line about work that goes on, on standard error: nobody who reads the results needs to hear it."""
    err.print(text, soft_wrap=True, highlight=False)


def show(parts: Iterable[RenderableType]) -> None:
    """Prints parts of a report, as `results.report.terminal` gives them."""
    for part in parts:
        out.print(part, highlight=False)


def duration(seconds: float) -> str:
    """Seconds in words, as in "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
