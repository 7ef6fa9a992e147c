"""The command line: thin verbs, each one call into the library."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

import segfaith
from segfaith.errors import SegfaithError
from segfaith.process import keep_memory

app = typer.Typer(
    help="Judge attribution maps of semantic-segmentation models by intervention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(), Console(stderr=True)


def say(text: str) -> None:
    """Prints a line as it is, unwrapped."""
    out.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


LISTS = {
    "models": ("segfaith.models", "MODELS"),
    "methods": ("segfaith.attribution.methods", "METHODS"),
    "metrics": ("segfaith.evaluation.metrics", "METRICS"),
    "datasets": ("segfaith.data.datasets", "DATASETS"),
    "occlusions": ("segfaith.occlusion", "OPERATORS"),
}
WIDE = 110
"""Terminals narrower than this, in characters, get table heads of two lines."""
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)


@app.command("run")
def run_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "quickstart",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run directory; default runs/NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print samples, passes and time; run nothing.")] = False,
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Number of samples (data.n).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (seed).")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto (execution.device).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a model pass (execution.batch_size).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.n=20.")
    ] = None,
) -> None:
    """Run the benchmark that CONFIG describes, or resume it."""
    from segfaith.benchmark import executors
    from segfaith.benchmark.settings import find_settings, read_settings

    flags = {"data.n": n, "seed": seed, "execution.device": device, "execution.batch_size": batch_size}
    overrides = [f"{key}={value}" for key, value in flags.items() if value is not None]
    chosen = read_settings(find_settings(config), overrides + (settings or []))
    directory = output or Path("runs") / chosen.name
    prepared = executors.prepare(chosen)
    if dry_run:
        _print_plan(prepared)
        return
    todo = executors.open_directory(directory, prepared)
    if todo:
        _run_with_progress(prepared, directory, todo)
        raise typer.Exit(_summarise(directory))
    say(f"{directory} is finished: all {len(prepared.plan.ids)} samples are there.")
    _summarise(directory)


def _print_plan(prepared: Any) -> None:
    from segfaith.benchmark.executors import seconds_per_pass

    plan, model = prepared.plan, prepared.model
    each = seconds_per_pass(prepared)
    say(f"data      {plan.dataset.name} {plan.dataset.split}: {len(plan.ids)} samples")
    say(f"          {', '.join(plan.ids[:8])}{', ...' if len(plan.ids) > 8 else ''}")
    say(
        f"model     {model.name}, weights {model.weights}, layer {model.layer}, on {model.device}",
    )
    say(f"methods   {', '.join(method.name for method in plan.methods)}")
    say(f"stability on {len(plan.stability_ids)} samples")
    say(f"passes    {plan.passes:,} through the model, {len(plan.shards)} shards")
    say(
        f"time      about {_duration(each * plan.passes)} ({each * 1000:.1f} ms a pass, measured on one batch)",
    )


def _run_with_progress(prepared: Any, directory: Path, todo: list[int]) -> None:
    from segfaith.benchmark.executors import run_shards

    plan = prepared.plan
    left = sum(len(plan.shards[shard]) for shard in todo)
    if left < len(plan.ids):
        say(
            f"Resuming {directory}: {len(plan.ids) - left} of {len(plan.ids)} samples are done.",
        )
    try:
        with Progress(*COLUMNS, console=err) as progress:
            task = progress.add_task(plan.settings.name, total=len(plan.ids), completed=len(plan.ids) - left)
            run_shards(prepared, directory, todo, lambda sample_id: progress.advance(task))
    except KeyboardInterrupt:
        err.print("Stopped. At most the shard in work is lost; the same command resumes.")
        raise typer.Exit(130) from None


def _summarise(directory: Path) -> int:
    """Prints how the run's samples ended, its table and where its pictures are; 1 if nothing succeeded, else 0."""
    from segfaith.results import tables
    from segfaith.results.pictures import write_pictures
    from segfaith.results.records import read_run

    description, records = read_run(directory)
    bad = records[records["status"] != "ok"]
    for (status, reason), group in bad.groupby(["status", "reason"]):
        ids = list(dict.fromkeys(group["sample_id"]))
        which = f"{', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}"
        say(
            f"{status}: {len(ids)} sample(s), {len(group)} row(s) ({which}): {reason}",
        )
    ok = records[records["status"] == "ok"]
    say(f"model {description['model']['name']}, weights {description['model']['weights']}")
    if not len(ok):
        say(f"0 of {records['sample_id'].nunique()} samples measured, {len(bad)} rows not ok.")
        return 1
    _print_tables(tables.summarise([(description, records)]), ["Mean"])
    say(f"{ok['sample_id'].nunique()} of {records['sample_id'].nunique()} samples measured, {len(bad)} rows not ok.")
    pictures = write_pictures(directory, description, records)
    if pictures:
        say(f"pictures: {pictures[0]}, and one for each sample in {pictures[1].parent}")
    say(f"Next: segfaith report {directory}")
    return 0


def _print_tables(summary: Any, titles: Sequence[str]) -> None:
    from segfaith.results import tables

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


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; several are averaged run by run.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where table.csv and table.md go.")] = None,
    min_s: Annotated[float | None, typer.Option(help="Leave out samples whose score s is lower.")] = None,
) -> None:
    """Print the tables of one or several runs, and how far to trust them where evidence was planted; write both."""
    from segfaith.results import records, tables, trust

    loaded = [records.read_run(directory) for directory in runs]
    _print_tables(tables.summarise(loaded, min_s), list(tables.STATISTICS))
    for note in tables.notes(loaded, min_s):
        say(note)
    written = [*tables.write_tables(loaded, output or runs[0], min_s)]
    if tables.has_evidence(loaded):
        out.print(Markdown(trust.trust_page(loaded, min_s)))
        written.append(trust.write_trust(loaded, output or runs[0], min_s))
    for path in written:
        say(f"written: {path}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="voc2012 or sbd.")],
    root: Annotated[Path, typer.Argument(help="Folder that will hold the data set.")],
    split: Annotated[str, typer.Option(help="Split that is opened afterwards.")] = "val",
) -> None:
    """Download a data set from its official address."""
    from segfaith.data.datasets import open_dataset

    dataset = open_dataset(name, root, split, download=True)
    say(f"{name} is in {root}: {len(dataset.ids)} samples in {split}")


@app.command("list")
def list_command(
    kind: Annotated[str, typer.Argument(help=", ".join(LISTS))],
) -> None:
    """List the names that settings may use."""
    from segfaith.lookup import lookup

    module, table = lookup("list", kind, LISTS)
    for name, entry in getattr(import_module(module), table).items():
        words = getattr(entry, "meaning", None) or getattr(entry, "paper", None) or ""
        say(f"{name:28}{words}")


@app.command("verify-precision")
def verify_precision_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "quickstart",
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Samples, the first of the plan.")] = 4,
    modes: Annotated[
        list[str] | None, typer.Option("--mode", help="exact, bf16, compile, tf32; repeatable. Default: exact, bf16.")
    ] = None,
    stability: Annotated[bool, typer.Option(help="Also measure the five perturbed variants.")] = True,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
) -> None:
    """Measure how far each fast mode moves drops, TDD, ODD and stability, and what it saves."""
    from dataclasses import replace

    from segfaith.benchmark import executors, precision
    from segfaith.benchmark.settings import find_settings, read_settings

    prepared = executors.prepare(read_settings(find_settings(config), settings or []))
    prepared = replace(prepared, plan=replace(prepared.plan, ids=prepared.plan.ids[:n]))
    found = precision.verify_precision(
        prepared, modes or ("exact", "bf16"), stability=stability, on_step=lambda words: err.print(words, style="dim")
    )
    shown = found[found["note"] == ""]
    lines = {"largest change of a drop": [f"{value:.1e}" for value in shown["drop_error"]]}
    lines["Spearman, drops > 1e-3"] = [f"{value:.4f}" for value in shown["spearman"]]
    for key in (f"{method}_{metric}" for method in ("ria", "dea") for metric in precision.METRICS):
        values = zip(shown[key], shown[f"{key}_change"], strict=True)
        lines[key.replace("_", " ").upper()] = [f"{value:.4f} ({change:.0e})" for value, change in values]
    lines["seconds of RIA's evidence"] = [f"{value:.2f}" for value in shown["seconds"]]
    lines["times faster"] = [f"{value:.2f}" for value in shown["speedup"]]
    table = Table(title=prepared.model.name, title_justify="left", box=SIMPLE_HEAD)
    for heading in ("mean (largest change on a sample)", *map(str, shown.index)):
        table.add_column(heading, justify="right" if table.columns else "left")
    for words, cells in lines.items():
        table.add_row(words, *cells)
    out.print(table)
    for mode, row in found.iterrows():
        say(f"{mode}: {row['note'] or row['meaning']}")
    say(f"{found.attrs['samples']} sample(s), each mode against the plain one-by-one loop; seconds a clean image.")


@app.command("train-scenes")
def train_scenes_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for weights, card and log.")] = Path("scenes"),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: the shipped model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and weights.")] = 0,
    proof_scenes: Annotated[int, typer.Option(min=1, help="Unseen scenes for the proof of use.")] = 200,
) -> None:
    """Train the embedded model of the planted scenes anew, and prove that it decides by the planted evidence."""
    from segfaith.planted.card import CARD, LOG, TEXT, WEIGHTS, train_scenes
    from segfaith.planted.proof import REQUIRED
    from segfaith.planted.training import Recipe

    recipe = Recipe(seed=seed) if steps is None else Recipe(seed=seed, steps=steps)
    with Progress(*COLUMNS, TextColumn("{task.fields[words]}"), console=err) as bars:
        tasks = {"training": bars.add_task("training", total=recipe.steps, words="")}
        tasks["proof"] = bars.add_task("proof", total=proof_scenes, words="")
        proof = train_scenes(
            output,
            recipe,
            proof_scenes,
            lambda stage, done, words: bars.update(tasks[stage], completed=done, words=words),
        )
    say((output / TEXT).read_text(encoding="utf-8"))
    for name in (WEIGHTS, CARD, TEXT, LOG):
        say(f"written: {output / name}")
    raise typer.Exit(0 if set(proof.proven) == set(REQUIRED) else 1)


@app.command("check-method")
def check_method_command(
    method: Annotated[str, typer.Argument(help="package.module:function, path/to/file.py:function, or a name.")],
    scenes: Annotated[int, typer.Option("-n", "--scenes", min=1, help="Planted scenes for the evidence score.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the controls.")] = 0,
) -> None:
    """Check a method on the planted scenes and on closed-form models, and say in words where it fails."""
    from segfaith.planted.conformance import check_method

    findings = check_method(method, scenes=scenes, seed=seed, on_step=lambda words: err.print(words, style="dim"))
    for finding in findings:
        say(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.check}: {finding.words}")
    failed = sum(not finding.passed for finding in findings)
    say(f"{method}: {len(findings) - failed} of {len(findings)} checks passed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def version() -> None:
    """Print the version."""
    say(segfaith.__version__)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main() -> None:
    """Runs the command line; an error that a user can mend is printed without a traceback, with exit status 2."""
    keep_memory()
    try:
        app()
    except SegfaithError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
