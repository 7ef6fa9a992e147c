"""What all verbs share: the application, the two consoles, and how tables and times are printed."""

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from segfaith.errors import SettingsError
from segfaith.paths import place

app = typer.Typer(
    help="Judge attribution maps of semantic-segmentation models by intervention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


PLAIN = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "−": "-",
        "–": "-",
        "×": "x",
        "±": "+-",
        "≥": ">=",
        "≤": "<=",
        "↑": "^",
        "↓": "v",
        "…": "~",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "′": "'",
        "\N{NO-BREAK SPACE}": " ",
        "\ufffd": "?",
    }
)
"""Signs of the words and tables, for terminals whose encoding lacks them. Verdicts keep signs that differ."""


def _plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What is printed for characters that an encoding lacks: `PLAIN`, else an escape, as \\xe9 for é."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end].translate(PLAIN)
    return part.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("segfaith", _plain_signs)


def print_anything() -> None:
    """Lets both outputs print every text: what their encoding lacks is replaced, see `PLAIN`, and raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="segfaith")


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

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)


MEMORY = "What the model's passes may take, as 4GB (execution.memory; docs/settings.md)."
EXECUTOR = "serial (this process), ray (worker processes), or auto (execution.executor; docs/scaling.md)."


def folder(text: str | Path) -> Path:
    """A folder, or an address in an object store. Raises typer.BadParameter for "", which is the working folder."""
    if not str(text).strip():
        raise typer.BadParameter("expected a folder, got an empty name; leave the option out for the default")
    try:
        return place(text)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error


OUTPUT: Any = typer.Option(
    "-o",
    "--output",
    parser=folder,
    metavar="DIR",
    help="Directory, or an address such as s3://bucket/runs/voc; default runs/NAME.",
)


def run_argument(words: str, metavar: str = "DIR") -> Any:
    """An argument that names a run's or a suite's directory, here or in an object store."""
    return typer.Argument(parser=folder, metavar=metavar, help=words)


ADDRESS = 'Of a running Ray, or "auto" to find it (execution.address).'


def worker_bars(progress: Progress) -> Callable[[Any], None]:
    """A listener for `pool.Pace`: it shows a line for each worker, with its samples and its rate."""
    bars: dict[str, TaskID] = {}

    def show_pace(pace: Any) -> None:
        if pace.worker not in bars:
            bars[pace.worker] = progress.add_task(pace.worker, total=None)
        words = f"{pace.worker}, {60 * pace.samples / max(pace.seconds, 1e-9):.2g} samples/min"
        progress.update(bars[pace.worker], completed=pace.samples, description=words)

    return show_pace


def say(text: str) -> None:
    """Prints a line as it is, unwrapped."""
    out.print(text, soft_wrap=True, highlight=False)


def on_the_way(text: str) -> None:
    """Prints a line about progress on standard error, apart from the results."""
    err.print(text, soft_wrap=True, highlight=False)


def show(parts: Iterable[RenderableType]) -> None:
    """Prints parts of a report, as `results.report.terminal` gives them."""
    for part in parts:
        out.print(part, highlight=False)


def overrides(flags: Mapping[str, Any], settings: Sequence[str] | None) -> list[str]:
    """The flags that were given, as overrides by their keys, and then those of --set.

    Raises:
        SettingsError: a key is given by its flag and by --set.
    """
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    keys = [text.partition("=")[0].strip() for text in settings or ()]
    for key, value in flags.items():
        if value is not None and key in keys:
            raise SettingsError(f"{key} is given twice, by its option ({value}) and by --set; leave one of them out")
    return given + list(settings or ())


def duration(seconds: float) -> str:
    """Seconds in words, as in "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
