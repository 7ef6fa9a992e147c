"""The verbs that run the benchmark and fetch its data."""

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
from segfaith.errors import SegfaithError, SettingsError
from segfaith.storage import make_ready


@app.command("run")
def run_command(
    config: Annotated[
        str, typer.Argument(help="Settings file (TOML; docs/settings.md), or the packaged settings `quickstart`.")
    ] = "quickstart",
    output: Annotated[Path | None, OUTPUT] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print samples, passes and time; run nothing.")] = False,
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Number of samples (data.n).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (seed).")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto (execution.device).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per model pass (execution.batch_size).")] = None,
    memory: Annotated[str | None, typer.Option(help=MEMORY)] = None,
    executor: Annotated[str | None, typer.Option(help=EXECUTOR)] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS)] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also measure again what failed.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.n=20.")
    ] = None,
) -> None:
    """Run the benchmark that CONFIG describes, or resume it.

    Before it: `segfaith check CONFIG` reads all data and tries the model; `segfaith list settings` names every key.
    Your own model is model.name = "FILE.py:FUNCTION" (docs/extending.md).
    """
    from segfaith.benchmark import runner
    from segfaith.benchmark.prepared import prepare
    from segfaith.benchmark.settings import find_settings, read_settings
    from segfaith.benchmark.status import forget_failed

    flags = {"data.n": n, "seed": seed, "execution.device": device, "execution.batch_size": batch_size}
    flags |= {"execution.executor": executor, "execution.address": address, "execution.memory": memory}
    chosen = read_settings(find_settings(config), overrides(flags, settings))
    directory = output or Path("runs") / chosen.name
    if not dry_run:
        make_ready(directory)
    prepared = prepare(chosen)
    if dry_run:
        _print_plan(prepared)
        raise typer.Exit(_print_check(prepared))
    todo = runner.open_directory(directory, prepared, on_the_way, on_the_way)
    if retry_failed and forget_failed(directory):
        todo = runner.open_directory(directory, prepared, on_the_way)
    if todo:
        _tell_assumed(prepared.model)
        for words in prepared.short_of_memory:
            on_the_way(words)
        _run_with_progress(prepared, directory, todo)
    first = "" if todo else f"{directory} is finished: all {len(prepared.plan.ids)} samples are there."
    raise typer.Exit(_summarise(directory, first))


def _print_plan(prepared: Any) -> None:
    from segfaith.benchmark.forecast import pace
    from segfaith.benchmark.passes import scale_of, uncounted

    plan = prepared.plan
    left_out = uncounted(plan.methods, scale_of(plan.settings))
    say(f"data      {plan.dataset.name} {plan.dataset.split}: {len(plan.ids)} samples")
    say(f"          {', '.join(plan.ids[:8])}{', ...' if len(plan.ids) > 8 else ''}")
    say(f"scored    {prepared.path}")
    say(f"methods   {', '.join(method.name for method in plan.methods)}")
    say(f"stability on {len(plan.stability_ids)} samples")
    several = plan.settings.target.several
    least = "at least " * (several or bool(left_out))
    say(f"passes    {least}{plan.passes:,} through the model, {len(plan.shards)} shards")
    if left_out:
        say(f"          not counted, since the model decides how many: {', '.join(left_out)}")
    timed = pace(prepared)
    if isinstance(timed, str):
        say(f"time      unknown: {timed}")
        return
    if several:
        say("          an image may have several targets, which are known when it is read; one is counted")
    counts = len(plan.ids), len(plan.stability_ids)
    where = timed.sample_id
    if plan.settings.data.size == "native":
        where += f", {timed.size[0]} x {timed.size[1]}: as if all samples had this size"
    about = "at least" if several else "about"
    say(f"time      {about} {duration(timed.seconds(*counts))}: {timed.words(*counts)} (timed on {where})")
    if (memory := prepared.batch.memory) is not None:
        say(f"memory    {memory.words(prepared.batch.images)}")
        for words in prepared.short_of_memory:
            say(f"          {words}")


def _print_check(prepared: Any) -> int:
    """What `segfaith check` says about the data and the model, with its exit status; what the plan's lines have is left
    out."""
    from segfaith.benchmark.check import examine
    from segfaith.cli.checking import say_lines

    with Progress(*COLUMNS, console=err, transient=True) as bars:
        task = bars.add_task("reading", total=len(prepared.plan.ids))
        lines = list(
            examine(
                prepared.plan,
                prepared.model,
                lambda sample_id: bars.advance(task),
                path=prepared.path,
                forecast=False,
            )
        )
    return say_lines([line for line in lines if line.topic != "scored"])


def _tell_assumed(model: Any) -> None:
    """What is taken for granted of the model's inputs and outputs, and whether its images must not share a batch.

    `check`, and so `--dry-run`, tell the same in lines with a mark.
    """
    on_the_way(f"head      {model.head_words}")
    on_the_way(f"colours   {model.provenance['normalisation']}")
    if model.pad:
        on_the_way(f"padding   sides to multiples of {model.pad}")
    if model.tiling:
        on_the_way("tiles     {} x {}, overlap {}".format(*model.tiling.tile, model.tiling.overlap))
    for words in _layers(model):
        on_the_way(f"layer     {words}")
    if model.one_by_one:
        on_the_way(f"batches   one image at a time: {model.one_by_one}")


def _layers(model: Any) -> list[str]:
    """What a reader must know of the layers that are read."""
    return [f"{layer}: {words}" for layer, words in model.layer_notes.items()]


def _run_with_progress(prepared: Any, directory: Path, todo: list[int]) -> None:
    from segfaith.benchmark.executors import Executors
    from segfaith.benchmark.runner import run_shards

    plan = prepared.plan
    left = sum(len(plan.shards[shard]) for shard in todo)
    if left < len(plan.ids):
        on_the_way(f"Resuming {directory}: {len(plan.ids) - left} of {len(plan.ids)} samples are done.")
    on_the_way(f"scored    {prepared.path}")
    try:
        with (
            Progress(*COLUMNS, console=err) as progress,
            Executors(plan.settings.execution, on_the_way, worker_bars(progress)) as executors,
        ):
            task = progress.add_task(plan.settings.name, total=len(plan.ids), completed=len(plan.ids) - left)
            run_shards(prepared, directory, todo, lambda sample_id: progress.advance(task), executors.measure)
    except KeyboardInterrupt:
        err.print("Stopped. At most the shard in work is lost; the same command resumes.")
        raise typer.Exit(130) from None


def _summarise(directory: Path, first: str = "") -> int:
    """Draws the pictures, then prints how the samples ended, the table and where they are.

    Returns:
        1 if nothing was measured, a row failed or samples are still to go, else 0.
    """
    from segfaith.results.figures.tiles import write_pictures
    from segfaith.results.records.runs import load_run
    from segfaith.results.report import terminal
    from segfaith.results.report.sections import verdict
    from segfaith.results.statistics.analysis import analyse

    run = load_run(directory)
    description, records = run.description, run.records
    pictures = write_pictures(directory, description, records, on_the_way)  # before a reader of words may go away
    if first:
        say(first)
    bad = records[records["status"] != "ok"]
    for (status, reason), group in bad.groupby(["status", "reason"]):
        ids = list(dict.fromkeys(group["sample_id"]))
        which = f"{', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}"
        say(
            f"{status}: {len(ids)} sample(s), {len(group)} row(s) ({which}): {reason}",
        )
    failed = bool((bad["status"] == "failed").any())
    if failed:
        say("The same command with --retry-failed measures again what failed: of use once the cause is gone.")
    ok, planned = records[records["status"] == "ok"], len(description["data"]["samples"])
    if to_go := planned - records["sample_id"].nunique():
        say(f"{to_go} of {planned} samples are still to go: give the same command again.")
    say(f"model {description['model']['name']}, weights {description['model']['weights']}")
    _say_paths(records)
    _say_memory(records)
    if not len(ok):
        say(f"0 of {planned} samples measured, {len(bad)} rows not ok.")
        return 1
    analysis = analyse([run])
    show(terminal.brief(analysis, [verdict.section(analysis)]))
    _say_overlap(description["settings"].get("target", {}), ok)
    targets = len(ok.drop_duplicates(["sample_id", "target"]))
    words = f" ({targets} targets)" if (ok["target"] != "").any() else ""
    say(f"{ok['sample_id'].nunique()} of {planned} samples measured{words}, {len(bad)} rows not ok.")
    if pictures:
        say(f"pictures: {pictures[0]}, and one for each sample in {pictures[1].parent}")
    say(f"Next: segfaith report {directory}")
    return 1 if to_go or failed else 0


def _say_overlap(target: Any, ok: Any) -> None:
    """Warns where the model hardly predicts the targets, as where labels are off by one."""
    from segfaith.benchmark.check_fit import LOW
    from segfaith.benchmark.setting_tables import TargetSettings

    mean = ok.drop_duplicates(["sample_id", "target"])["target_iou"].mean()
    if mean < LOW and TargetSettings.model_validate(target).whole_classes:
        say(
            f"warn: the mean IoU of targets and predictions is {mean:.2f}: labels may be off, images normalised "
            "otherwise, or the model untrained; segfaith check CONFIG says which"
        )


def _say_paths(records: Any) -> None:
    """How many samples were scored which way, and why, where not all went through the graph."""
    paths = records.dropna(subset="path").drop_duplicates(["sample_id", "target"])["path"].value_counts()
    if list(paths.index) != ["incremental"]:
        for path, count in paths.items():
            say(f"scored {path}: {count} sample(s)")


def _say_memory(records: Any) -> None:
    """Of each size of images of which one took more than `execution.memory`, the sentence that says so."""
    from segfaith.memory import SHORT

    told = records["reason"].fillna("").str.extract(rf"({SHORT}.*)", expand=False).dropna()
    for words in {words.partition(" took ")[0]: words for words in told}.values():
        say(words)


@app.command("randomise")
def randomise_command(
    directory: Annotated[Path, run_argument("Run directory, or that of a suite for all its runs.")],
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Samples, the first of each run.")] = 8,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What moved since, as in data.root=DIR.")
    ] = None,
    allow_code: Annotated[
        list[str] | None,
        typer.Option("--allow-code", metavar="NAME", help="Code that run.json names and that may run; repeatable."),
    ] = None,
) -> None:
    """Check whether maps depend on what the model has learnt: draw its weights anew, head first, and compare."""
    from segfaith.results.records.runs import find_runs

    runs, failed = find_runs([directory]), 0
    layers: set[str] = set()
    told: list[str] = []  # said at the end: a reader who goes away must not stop the other runs
    for run in runs:
        try:
            if run != directory and run.is_symlink():
                raise SettingsError(f"{run} is a symbolic link, and nothing is written through it; name the run itself")
            told.append(f"written: {_randomise(run, n, settings or [], allow_code or [], layers)}")
        except KeyboardInterrupt:
            on_the_way(
                f"Stopped in {run.name}: the stages that were done are in its randomisation.parquet, and reports say "
                "that the check is unfinished; the runs before it are done."
            )
            raise typer.Exit(130) from None
        except Exception as error:  # the other runs go on
            if len(runs) == 1:
                raise
            failed += 1
            told.append(f"failed: {run.name}: {error if isinstance(error, SegfaithError) else repr(error)}")
    for line in told:
        say(line)
    if len(runs) > 1:
        say(f"{len(runs) - failed} of {len(runs)} runs were checked.")
    raise typer.Exit(1 if failed else 0)


def _randomise(run: Path, n: int, overrides: list[str], allowed: list[str], told: set[str]) -> Path:
    """Checks a run and says what must be known of its layers, unless it is among the words that were `told`."""
    from segfaith.benchmark import randomisation, runner
    from segfaith.benchmark.foreign import settings_of
    from segfaith.benchmark.prepared import prepare

    chosen = settings_of(run, overrides, allowed)
    make_ready(run)
    prepared = prepare(chosen)
    runner.open_directory(run, prepared, on_the_way)
    for words in _layers(prepared.model):
        if words not in told:
            on_the_way(f"layer     {words}")
        told.add(words)
    return randomisation.randomise(prepared, run, n, lambda words: err.print(f"{run.name}: {words}", style="dim"))


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="voc2012 or sbd.")],
    root: Annotated[Path, typer.Argument(help="Folder that will hold the data set.")],
    split: Annotated[str, typer.Option(help="Split that is opened afterwards.")] = "val",
) -> None:
    """Download a data set from its official address."""
    from segfaith.data.datasets import open_dataset

    make_ready(root)
    dataset = open_dataset(name, root, split, download=True)
    say(f"{name} is in {root}: {len(dataset.ids)} samples in {split}")
