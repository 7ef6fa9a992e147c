"""What all verbs share: the application, the two consoles, and how tables and times are printed."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

app = typer.Typer(
    help="Judge attribution maps of semantic-segmentation models by intervention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that command a terminal. Text of a run directory, which may be a stranger's, may contain them."""


class _Plain(Console):
    """Shows text as it is: brackets are not markup, and control characters are replaced."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(CONTROL.sub("\ufffd", text), **options)


class _Output(_Plain):
    """Standard output. If its reader has gone away (`| head -1`), the command ends silently."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
        raise SystemExit(BROKEN_PIPE)


class _Errors(_Plain):
    """Standard error, for messages about progress. If its reader has gone away, the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


BROKEN_PIPE = 128 + 13
"""Exit status of a command whose reader has gone away: a shell reports this status after SIGPIPE."""
out, err = _Output(markup=False, emoji=False), _Errors(stderr=True, markup=False, emoji=False)

WIDE = 110
"""Terminals narrower than this, in characters, get table heads of two lines."""
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
    """Prints a line about progress on standard error, apart from the results."""
    err.print(text, soft_wrap=True, highlight=False)


def print_tables(summary: Any, titles: Sequence[str]) -> None:
    """Prints a summary of `summary.summarise`, a table for each data set and title of `tables_text.STATISTICS`."""
    from segfaith.results.report import tables_text as tables

    for title in titles:
        for data, group in summary.groupby("data", sort=False):
            header, *body = tables.layout(group, tables.STATISTICS[title])
            table = Table(title=f"{data}: {title.lower()}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
            table.padding = (0, 1, 0, 0)
            for name in header[1:]:
                words = name if out.width >= WIDE else name.replace(" ", "\n", 1)
                table.add_column(words, justify="left" if name == "Method" else "right", overflow="fold")
            for _, *cells in body:
                table.add_row(*cells)
            out.print(table)


def duration(seconds: float) -> str:
    """Seconds in words, as in "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
