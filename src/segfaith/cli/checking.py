"""The verbs that list names, and the verbs that test models, modes and methods."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import Progress, TextColumn
from rich.table import Table

import segfaith
from segfaith.cli.screen import COLUMNS, app, err, folder, out, overrides, say

if TYPE_CHECKING:
    from segfaith.attribution.methods import Method

LISTS = {
    "models": ("segfaith.models", "MODELS"),
    "methods": ("segfaith.attribution.methods", "METHODS"),
    "metrics": ("segfaith.evaluation.metrics", "METRICS"),
    "datasets": ("segfaith.data.datasets", "DATASETS"),
    "occlusions": ("segfaith.occlusion", "OPERATORS"),
    "settings": ("segfaith.benchmark.setting_words", "SETTINGS"),
}

LAYERS = "layers"


@app.command("list")
def list_command(
    kind: Annotated[str, typer.Argument(help=", ".join((*LISTS, LAYERS)))],
    config: Annotated[
        str | None,
        typer.Argument(help="For layers and methods: settings file (TOML), or packaged settings.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
) -> None:
    """List the names that settings may use.

    With `layers CONFIG` the layers of its model, with `methods CONFIG` what a map of each method costs at its settings;
    without CONFIG, of 224 x 224 pixels and at defaults.
    """
    from segfaith.lookup import lookup

    if kind == LAYERS:
        _list_layers(config, settings or [])
        return
    if kind == "methods":
        _list_methods(config, settings or [])
        return
    module, table = lookup("list", kind, dict(LISTS) | {LAYERS: ("", "")})
    for name, entry in getattr(import_module(module), table).items():
        words = getattr(entry, "meaning", None) or getattr(entry, "paper", None) or ""
        say(f"{name:28}{words}")
    if kind == "models":
        from segfaith.models.adapters import ADAPTERS

        for adapter in ADAPTERS.values():
            say(f"{adapter.usage:28}{adapter.words}")
        say(f"{'FILE.py:FUNCTION':28}a function of yours that returns a torch.nn.Module; or package.module:function")


def _list_methods(config: str | None, changes: list[str]) -> None:
    """Every method with its paper, needs and cost at the settings, and the names with parameters that they run."""
    from segfaith.attribution.libraries import LIBRARIES, lacks
    from segfaith.attribution.libraries.entry import Scale
    from segfaith.attribution.methods import ALIASES, METHODS, MethodInstance, resolve_method
    from segfaith.benchmark.passes import cost_words, scale_of
    from segfaith.benchmark.settings import find_settings, read_settings

    asked = config is not None or bool(changes)
    chosen = read_settings(find_settings(config or "quickstart"), changes) if asked else None
    tables = {} if chosen is None else chosen.methods.tables()
    scale = Scale() if chosen is None else scale_of(chosen)

    def line(method: MethodInstance, words: str) -> None:
        say(f"{method.name:28}{'; '.join(filter(None, (words, cost_words(method, scale))))}")

    for name, entry in METHODS.items():
        words = entry.paper + _asked(entry)
        if entry.package and entry.package.missing:
            say(f"{name:28}{words}; not available: {entry.package.missing}")
        else:
            line(resolve_method(name, tables), words)
    for name, stem in ALIASES.items():
        say(f"{name:28}another name of {stem}")
    for prefix, library in LIBRARIES.items():
        for stem, one in library.entries.items():
            name = f"{prefix}:{stem}"
            if missing := lacks(library, stem):
                say(f"{name:28}{one.words}; not available: {missing}")
            else:
                line(resolve_method(name, tables), one.words)
    if chosen is not None:
        for name in chosen.methods.names:
            if "@" in name:
                line(method := resolve_method(name, tables), method.method.paper)
        size = "sizes of their own" if scale.size is None else "{} x {} pixels".format(*scale.size)
        say(f"Costs are of one map, of images of {size}; shared passes serve all methods that ask for the same.")


def _asked(entry: "Method") -> str:
    """What a method of `METHODS` needs of a model."""
    if "gradient" in entry.needs:
        return "; needs a layer"
    return "; needs no gradients" if {"intervention", "model"} & set(entry.needs) else ""


def _list_layers(config: str | None, changes: list[str]) -> None:
    """Prints the layers of a settings file's model, for an image of noise of the run's size."""
    from segfaith.benchmark.settings import find_settings, read_settings
    from segfaith.benchmark.warm_up import chosen_model, noise
    from segfaith.errors import SettingsError
    from segfaith.evidence.layers import layers_of

    if config is None:
        raise SettingsError("list layers needs a settings file, whose [model] is read: segfaith list layers CONFIG")
    chosen = read_settings(find_settings(config), changes)
    model = chosen_model(chosen)
    model.wiring = None  # wired photographs go through the model one by one
    table = Table(title=model.name, title_justify="left", box=SIMPLE_HEAD)
    for heading, align in (("layer", "left"), ("type", "left"), ("shape", "left"), ("stride", "right")):
        table.add_column(heading, justify=align, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("reads", justify="right", no_wrap=True)
    table.add_column("")
    explicit = model.layer_names() if model.layer else []
    image = noise(model, chosen)
    listed = layers_of(model, image)
    for layer in listed:
        marks = ["default" * layer.default, "in use" * (layer.name in explicit), layer.note]
        reads = " x ".join(map(str, layer.receptive)) if layer.receptive else ""
        shape = " x ".join(map(str, layer.shape[1:]))
        table.add_row(layer.name, layer.type, shape, f"{layer.stride:g}", reads, "; ".join(filter(None, marks)))
    for line in out.render_lines(table, out.options.update(width=10_000)):  # no cell is cut, however narrow the screen
        say("".join(segment.text for segment in line).rstrip())
    say("shape: channels x height x width. reads: the pixels on which the map's centre cell depends, by its gradient.")
    say(f"image: {' x '.join(map(str, image.shape))}, of noise")
    for mark, names in (("default", [layer.name for layer in listed if layer.default]), ("in use", explicit)):
        if names:
            say(f"{mark}: {', '.join(names)}")


@app.command("check")
def check_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "quickstart",
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Number of samples (data.n).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
) -> None:
    """Read all data of a run, run its model a few times, and say what would go wrong and the remedy."""
    from segfaith.benchmark import check
    from segfaith.benchmark.settings import find_settings, read_settings

    chosen = read_settings(find_settings(config), overrides({"data.n": n}, settings))
    with Progress(*COLUMNS, console=err, transient=True) as bars:
        task = bars.add_task("reading", total=None)
        lines = list(
            check.check(chosen, lambda total: bars.update(task, total=total), lambda sample_id: bars.advance(task))
        )
    raise typer.Exit(say_lines(lines))


def say_lines(lines: Sequence[Any]) -> int:
    """Prints the findings of a check; gives the exit status: 1 if one is `fail`, else 0."""
    for line in lines:
        say(f"{line.level:4}  {line.topic:10}{line.words}")
    counts = {level: sum(line.level == level for line in lines) for level in ("warn", "fail")}
    say(f"{counts['fail']} fail, {counts['warn']} warn")
    return 1 if counts["fail"] else 0


@app.command("verify-precision")
def verify_precision_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "quickstart",
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="How many samples, from the plan's first.")] = 4,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            "--mode",
            help="exact, bf16, adaptive, superpixels, compile, tf32; repeatable. Default: exact, bf16, adaptive.",
        ),
    ] = None,
    stability: Annotated[bool, typer.Option(help="Also measure the five perturbed variants.")] = True,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
) -> None:
    """Measure how far each fast mode changes drops, TDD, ODD and stability, and how much time it saves."""
    from dataclasses import replace
    from math import isnan

    from segfaith.benchmark import fast_modes
    from segfaith.benchmark.precision import bf16_words
    from segfaith.benchmark.prepared import prepare
    from segfaith.benchmark.settings import find_settings, read_settings

    prepared = prepare(read_settings(find_settings(config), settings or []))
    prepared = replace(prepared, plan=replace(prepared.plan, ids=prepared.plan.ids[:n]))
    results = fast_modes.verify_precision(
        prepared,
        modes or fast_modes.DEFAULT_MODES,
        stability=stability,
        on_step=lambda words: err.print(words, style="dim"),
    )
    shown = results[results["note"] == ""]
    lines = {"largest change of a drop": ["other regions" if isnan(x) else f"{x:.1e}" for x in shown["drop_error"]]}
    lines["lowest Spearman, drops > 1e-3"] = [f"{value:.4f}" for value in shown["spearman"]]
    for key in (str(name).removesuffix("_change") for name in shown if str(name).endswith("_change")):
        if shown[key].isna().all():  # without stability
            continue
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
    for mode, row in results.iterrows():
        say(f"{mode}: {row['note'] or row['meaning'] + '; scored ' + row['path']}")
    if {"exact", "bf16"} <= set(shown.index):
        exact, bf16 = (float(shown["seconds"][mode]) for mode in ("exact", "bf16"))
        say(bf16_words(exact, bf16, prepared.model.device))
    samples = results.attrs["samples"]
    say(f"{samples} sample(s); each mode is compared with the plain one-by-one loop; seconds are for a clean image.")


@app.command("train-scenes")
def train_scenes_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=folder, help="Folder for weights, card and log.")
    ] = Path("scenes"),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: the shipped model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and weights.")] = 0,
    hidden: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of images with flat patches over them; default: the shipped model's."),
    ] = None,
    proof_scenes: Annotated[int, typer.Option(min=1, help="Unseen scenes for the proof of use.")] = 200,
) -> None:
    """Train the embedded model of the planted scenes again, and prove that it decides by the planted evidence."""
    from dataclasses import replace

    from segfaith.planted.card import CARD, LOG, TEXT, WEIGHTS, train_scenes
    from segfaith.planted.proof import REQUIRED
    from segfaith.planted.training import Recipe

    recipe = Recipe(seed=seed)
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    recipe = recipe if hidden is None else replace(recipe, hidden=hidden)
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
