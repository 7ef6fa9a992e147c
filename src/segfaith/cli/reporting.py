"""The verb that draws conclusions from runs."""

import re
from pathlib import Path
from typing import Annotated

import typer

from segfaith.cli.screen import app, err, folder, out, run_argument, say, show
from segfaith.errors import StorageError


@app.command()
def report(
    runs: Annotated[
        list[Path],
        run_argument("Run directories, or directories of runs (a suite's).", "RUNS..."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", parser=folder, metavar="DIR", help="Where the files go; default: the first run directory."
        ),
    ] = None,
    min_s: Annotated[
        float | None,
        typer.Option(help="Leave out samples whose score s, the model's confidence in the target, is lower."),
    ] = None,
    min_iou: Annotated[
        float | None, typer.Option(help="Leave out samples that the model predicts with a lower IoU.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Also write report.html: everything on one page.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Also draw figures/ as PNG and PDF.")] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Methods whose pairs are tested, as in gpa,dea,mask; default: those under test and random_cells."
        ),
    ] = None,
    single_run: Annotated[
        bool,
        typer.Option("--single-run", help="Also test differences within one run; the result holds for this run alone."),
    ] = False,
    judgement: Annotated[
        Path | None,
        typer.Option(help="judgement.csv of judge-metrics, which says what may lead; default: the package's own."),
    ] = None,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Also columns such as n and undefined values in table.tex.")
    ] = False,
    title: Annotated[str, typer.Option(help="Heading of report.html.")] = "",
    author: Annotated[str, typer.Option(help="Who made the report: named at the head of report.html.")] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print notes on the runs, the paper's claims, and planted evidence.")
    ] = False,
) -> None:
    """Print a verdict and a table of one or several runs; write tables, tests and conclusions."""
    from segfaith.benchmark.status import absent_runs
    from segfaith.results.records.runs import load_runs
    from segfaith.results.report import terminal
    from segfaith.results.report.write import write
    from segfaith.results.statistics.analysis import Options
    from segfaith.results.statistics.judgement import packaged, read

    data = load_runs(runs)
    absent = [sentence for directory in runs for sentence in absent_runs(directory)]
    between = r"\s*,\s*(?![^,@]*=)"  # the comma within dea@alpha=0.8,grid=7 parts no methods
    methods = tuple(re.split(between, compare.strip())) if compare else None
    options = Options(min_s, min_iou, methods, single_run, packaged() if judgement is None else read(judgement))
    written = write(  # all files first: a reader of the words may go away
        data,
        output or runs[0],
        options,
        html=html,
        figures=figures,
        diagnostics=diagnostics,
        title=title,
        author=author,
        absent=absent,
        tell=lambda words: err.print(words, style="dim"),
    )
    show(terminal.brief(written.analysis, written.sections))
    if verbose:
        show(terminal.more(written.analysis, written.sections))
    else:  # they stand among the notes on the runs
        show(written.analysis.layer_notes)
    if written.paths:
        names = [path.relative_to(written.directory) for path in written.paths]
        say(f"written into {written.directory}:")
        out.print(", ".join(sorted({name.parts[0] + ("/" if len(name.parts) > 1 else "") for name in names})))
    if written.refused:
        raise StorageError(written.refused)
