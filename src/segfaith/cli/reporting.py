"""The verb that draws conclusions from runs."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from segfaith.cli.screen import CONTROL, app, err, out, print_tables, say
from segfaith.errors import SettingsError


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, or directories of runs (a suite's).")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the files go; default: the first.")
    ] = None,
    min_s: Annotated[float | None, typer.Option(help="Leave out samples whose score s is lower.")] = None,
    html: Annotated[bool, typer.Option("--html", help="Also write report.html: everything on one page.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Also draw figures/ as PNG and PDF.")] = False,
    compare: Annotated[str | None, typer.Option(help="Methods whose pairs are tested, as in gpa,dea,mask.")] = None,
    single_run: Annotated[
        bool, typer.Option("--single-run", help="Test significance within one run too: says nothing of other seeds.")
    ] = False,
) -> None:
    """Print the tables of one or several runs and the claims that hold; write tables, tests and conclusions."""
    from segfaith.benchmark.status import absent_runs
    from segfaith.results.figures.drawings import DRAWINGS
    from segfaith.results.figures.save import save_figures
    from segfaith.results.records import runs as records
    from segfaith.results.report import trust_page as trust
    from segfaith.results.report.conclusions import write_conclusions
    from segfaith.results.report.significance_page import write_significance
    from segfaith.results.report.tables_text import STATISTICS, write_tables
    from segfaith.results.report.topics import write_report
    from segfaith.results.statistics.analysis import Options, analyse
    from segfaith.results.statistics.claims import interval_words

    data = records.load_runs(runs)
    absent = [sentence for directory in runs for sentence in absent_runs(directory)]
    directory = output or runs[0]
    methods = re.split(r"\s*,\s*(?![^,@]*=)", compare.strip()) if compare else None  # dea@alpha=0.8,grid=7 is one
    chosen = None if methods is None else tuple(methods)
    analysis = analyse(data, Options(min_s=min_s, methods=chosen, single_run=single_run), absent)
    evidence = any(part.has_evidence for part in analysis.parts)
    written: list[Path] = []
    refused = ""
    try:  # all files first: a reader of the words may go away
        written += write_tables(analysis.table("summary"), analysis.notes, directory)
        if evidence:
            written.append(trust.write_trust(analysis.runs, directory))
        written += write_conclusions(analysis, directory)
        written += write_significance(analysis, directory)
        if figures:
            err.print("drawing figures", style="dim")
            asked = Options(min_s=min_s, methods=tuple(methods) if methods else None, single_run=single_run)
            written += save_figures(analyse(data, asked, absent), DRAWINGS, directory)
        if html:
            err.print("writing the page", style="dim")
            page = directory / "report.html"
            written.append(write_report(data, page, min_s, methods=methods, single_run=single_run, absent=absent))
    except OSError as error:  # the words are said all the same
        refused = f"cannot write into {directory} ({error}); choose another place with -o DIR"
    print_tables(analysis.table("summary"), list(STATISTICS))
    for note in (*absent, *analysis.notes):
        say(note)
    for claim in analysis.table("claims").to_dict("records"):
        if claim["holds"] != "not testable":
            beside = "; ".join([claim["count"], interval_words(claim), claim["numbers"]])
            say(f"{claim['holds']:6}{claim['data']}: {claim['claim']} ({beside})")
    if evidence:
        out.print(Markdown(CONTROL.sub("\ufffd", trust.trust_page(analysis.runs))))
    for path in written:
        say(f"written: {path}")
    if refused:
        raise SettingsError(refused)
