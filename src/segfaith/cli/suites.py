"""The verbs that run several runs together and say how far runs are."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from segfaith.cli.screen import (
    ADDRESS,
    COLUMNS,
    EXECUTOR,
    MEMORY,
    OUTPUT,
    app,
    duration,
    err,
    on_the_way,
    overrides,
    run_argument,
    say,
    show,
    worker_bars,
)


@app.command("suite")
def suite_command(
    config: Annotated[
        str,
        typer.Argument(help="Suite file (TOML), or leaderboard, leaderboard-scenes, paper-voc, paper-sbd, paper."),
    ],
    output: Annotated[Path | None, OUTPUT] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, samples, passes and time; run nothing.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the suite file, to copy and edit; run nothing.")] = False,
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Samples a run (data.n).")] = None,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Only the runs of these models.")] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with a weights file a model: its label or name, .pth or .safetensors.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto (execution.device).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a model pass (execution.batch_size).")] = None,
    memory: Annotated[str | None, typer.Option(help=MEMORY)] = None,
    executor: Annotated[str | None, typer.Option(help=EXECUTOR)] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS)] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also measure again what failed.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for every run.")
    ] = None,
) -> None:
    """Run the runs of a suite one after the other, or resume it."""
    from segfaith.benchmark.suites import find_suite, narrow, read_suite, with_weights

    if show:
        typer.echo(find_suite(config).read_text(encoding="utf-8"), nl=False)
        return
    flags = {"data.n": n, "execution.device": device, "execution.batch_size": batch_size}
    flags["execution.memory"] = memory
    flags |= {"execution.executor": executor, "execution.address": address}
    suite = read_suite(find_suite(config), overrides(flags, settings))
    if models is not None:
        suite = narrow(suite, [label.strip() for label in models.split(",")])
    if weights_dir is not None:
        suite = with_weights(suite, weights_dir)
    if dry_run:
        _print_forecast(suite)
        return
    directory = output or Path("runs") / suite.name
    raise typer.Exit(_run_with_progress(suite, directory, retry_failed=retry_failed))


def _print_forecast(suite: Any) -> None:
    from segfaith.benchmark.suite_runs import forecast, refuse_repeats

    refuse_repeats(suite)
    forecasts = [forecast(run.settings) for run in suite.runs]
    seconds, unknown = _seconds(suite, forecasts)
    rows = [["run", "samples", "passes", "time"]]
    rows += [
        [
            run.name,
            *("?" if count is None else f"{count:,}" for count in (cost.samples, cost.passes)),
            "?" if run.name not in seconds else duration(seconds[run.name]),
        ]
        for run, cost in zip(suite.runs, forecasts, strict=True)
    ]
    if all(cost.passes is not None for cost in forecasts):
        counts = [(cost.samples or 0, cost.passes or 0) for cost in forecasts]
        total = duration(sum(seconds.values())) if seconds else "?"
        if seconds and len(seconds) < len(forecasts):
            total = f"at least {total}"
        rows.append([f"{len(forecasts)} runs", *(f"{sum(column):,}" for column in zip(*counts, strict=True)), total])
    _print_columns(rows, left=1)
    _say_reasons("cannot start", {run.name: cost.problem for run, cost in zip(suite.runs, forecasts, strict=True)})
    _say_reasons("time unknown", unknown)
    several = "an image may have several targets, which are known when it is read; one is counted"
    _say_reasons("at least", {run.name: several * run.settings.target.several for run in suite.runs})


def _seconds(suite: Any, forecasts: Sequence[Any]) -> tuple[dict[str, float], dict[str, str]]:
    """The seconds of each run of a suite that can be timed, and why others cannot, where their forecast does not say.

    What is under way is told on standard error.
    """
    from segfaith.benchmark.suite_runs import paces

    seconds: dict[str, float] = {}
    unknown: dict[str, str] = {}
    if all(cost.problem for cost in forecasts):
        return seconds, unknown
    timed = paces(suite)
    for number, (run, cost) in enumerate(zip(suite.runs, forecasts, strict=True), 1):
        on_the_way(f"timing {number}/{len(forecasts)} {run.name}")
        pace = next(timed)
        if cost.problem:
            continue
        if isinstance(pace, str):
            unknown[run.name] = pace
        else:
            seconds[run.name] = pace.seconds(cost.samples, cost.stable)
    return seconds, unknown


def _say_reasons(what: str, reasons: Mapping[str, str]) -> None:
    """Each reason once, with the runs that it is about; runs with an empty reason are left out."""
    for reason in dict.fromkeys(filter(None, reasons.values())):
        say(f"{what}: {_few([name for name, why in reasons.items() if why == reason])}: {reason}")


def _run_with_progress(suite: Any, directory: Path, *, retry_failed: bool) -> int:
    """Runs the suite, then prints its table; 130 when it was interrupted, 1 if a run or a row failed, else 0."""
    from segfaith.benchmark.executors import Executors, of_suite
    from segfaith.benchmark.suite_runs import run_suite

    outcomes: list[Any] = []
    try:
        with (
            Progress(*COLUMNS, console=err) as progress,
            Executors(of_suite(suite), on_the_way, worker_bars(progress)) as executors,
        ):
            executors.open()
            bars: list[Any] = []

            def start(run: Any, done: int, samples: int) -> None:
                name = f"{len(outcomes) + 1}/{len(suite.runs)} {run.name}"
                bars.append(progress.add_task(name, total=samples, completed=done))

            def advance(sample_id: str) -> None:
                progress.advance(bars[-1])

            outcomes_as_they_come = run_suite(
                suite, directory, start, advance, executors.measure, retry_failed=retry_failed
            )
            for outcome in outcomes_as_they_come:
                outcomes.append(outcome)
                if outcome.reason:
                    progress.console.print(
                        f"{outcome.run.name} {outcome.state}: {outcome.reason}", markup=False, soft_wrap=True
                    )
    except KeyboardInterrupt:
        command = shlex.join(["segfaith", *sys.argv[1:]])
        err.print(
            f"Stopped after {len(outcomes)} of {len(suite.runs)} runs; at most the shard in work is lost. "
            f"Resume with: {command}",
            highlight=False,
            soft_wrap=True,
        )
        return 130
    return _summarise(directory, outcomes)


def _summarise(directory: Path, outcomes: Sequence[Any]) -> int:
    """Prints the table over the directory's finished runs and which runs of this call are not among them."""
    from segfaith.benchmark.status import read_states
    from segfaith.results.records.runs import load_run
    from segfaith.results.report import terminal
    from segfaith.results.report.sections import verdict
    from segfaith.results.statistics.analysis import analyse

    states = read_states(directory)
    measured = [one.name for one in states if one.state == "finished" and one.measured]
    if measured:
        analysis = analyse([load_run(directory / name) for name in measured])
        show(terminal.brief(analysis, [verdict.section(analysis)]))
    say(f"{len(measured)} of {len(states)} runs are in the table.")
    for kind, words in (("failed", "failed"), ("busy", "left to another process")):
        for reason in dict.fromkeys(one.reason for one in outcomes if one.state == kind):
            names = [one.run.name for one in outcomes if one.state == kind and one.reason == reason]
            say(f"{words}: {_few(names)}: {reason}")
    complete = {one.name for one in states if one.complete}
    if any(one.state == "failed" and one.run.name not in complete for one in outcomes):
        say("The same command tries the runs again that could not start or go on.")
    own = [one for one in states if one.name in {outcome.run.name for outcome in outcomes}]
    _say_failed_samples(own)
    if measured:
        say(f"Next: segfaith report {shlex.quote(str(directory))} --html")
    return 1 if any(one.state == "failed" for one in outcomes) or any(one.failed_rows for one in own) else 0


def _say_failed_samples(states: Sequence[Any]) -> None:
    """Where samples failed, wholly or in part, and how to try them again."""
    bad = [one for one in states if one.failed + one.partly]
    if bad:
        count = sum(one.failed + one.partly for one in bad)
        names = _few([one.name for one in bad])
        again = "--retry-failed measures them again: of use once the cause is gone."
        say(f"{count} sample(s) failed, wholly or in part, in {names}; {again}")


@app.command()
def status(
    directory: Annotated[Path, run_argument("Directory or s3:// address of a run or of a suite.")],
) -> None:
    """Show how far a run or the runs of a suite are: done, running, failed."""
    from segfaith.benchmark.status import read_states

    states = read_states(directory)
    rows = [["run", "state", "samples", "ok", "partly", "skipped", "failed", "last write"]]
    rows += [
        [
            one.name,
            one.state,
            f"{one.done}/{'?' if one.samples is None else one.samples}",
            *(str(count) for count in (one.ok, one.partly, one.skipped, one.failed)),
            "-" if one.written is None else one.written.isoformat(" ", "seconds"),
        ]
        for one in states
    ]
    _print_columns(rows, left=2)
    finished = sum(one.state == "finished" for one in states)
    say(f"{finished} of {len(states)} runs finished" if len(states) > 1 else f"{states[0].name}: {states[0].state}")
    for state, reason in dict.fromkeys((one.state, one.reason) for one in states if one.reason):
        names = [one.name for one in states if (one.state, one.reason) == (state, reason)]
        say(f"{state}: {_few(names)}: {reason}")
    _say_failed_samples(states)


def _print_columns(rows: Sequence[Sequence[str]], left: int) -> None:
    """Prints rows in aligned columns, the first `left` of them to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
