"""The verbs that draw conclusions from runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from segfaith.cli.screen import app, out, print_tables, say


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; several are averaged run by run.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where table.csv and table.md go.")] = None,
    min_s: Annotated[float | None, typer.Option(help="Leave out samples whose score s is lower.")] = None,
) -> None:
    """Print the tables of one or several runs, and how far to trust them where evidence was planted; write both."""
    from segfaith.results import records, tables, trust

    loaded = [records.read_run(directory) for directory in runs]
    print_tables(tables.summarise(loaded, min_s), list(tables.STATISTICS))
    for note in tables.notes(loaded, min_s):
        say(note)
    written = [*tables.write_tables(loaded, output or runs[0], min_s)]
    if tables.has_evidence(loaded):
        out.print(Markdown(trust.trust_page(loaded, min_s)))
        written.append(trust.write_trust(loaded, output or runs[0], min_s))
    for path in written:
        say(f"written: {path}")
