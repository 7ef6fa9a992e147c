"""The verb that explains one photograph."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from segfaith.cli.screen import app, folder, on_the_way, out, overrides, say
from segfaith.errors import SettingsError
from segfaith.storage import make_ready

NUMBERS = 60
"""Columns of the terminal that the numbers of the table take."""


@app.command("explain")
def explain_command(
    photo: Annotated[Path, typer.Argument(help="Image file.")],
    model: Annotated[
        str | None, typer.Option("--model", help="A name of `list models`, or FILE.py:FUNCTION (model.name).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file that describes your own model.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help='Weights file, or "random" for a trial (model.weights).')] = None,
    layer: Annotated[str | None, typer.Option(help="Feature layer of gradient methods (model.layer).")] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME|INDEX", help="Class; default: the one predicted on most pixels."),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="The predicted region at this pixel: x from the left, y from the top."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="PNG whose nonzero pixels are the region that is explained; needs --class.")
    ] = None,
    missed: Annotated[
        bool, typer.Option("--missed", help="What is truly of the class and not predicted; needs --truth or --mask.")
    ] = False,
    truth: Annotated[Path | None, typer.Option(help="Mask of class indices: the ground truth, for --missed.")] = None,
    score: Annotated[
        str | None, typer.Option(help="probability, conditional, logit, log_odds, margin (target.score).")
    ] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Default: gpa,ega,ria,dea.")] = None,
    size: Annotated[
        str | None, typer.Option(help='Side of the square it is resized to, 224; or "native" (data.size).')
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", parser=folder, help="Folder; default explanations/NAME.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the paths, and nothing else.")] = False,
    npy: Annotated[bool, typer.Option("--npy", help="Also write the maps as METHOD.npy, float32.")] = False,
    tiff: Annotated[bool, typer.Option("--tiff", help="Also write the maps as METHOD.tiff, float32.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto (execution.device).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of controls and random weights (seed).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in evaluation.k=0.1.")
    ] = None,
) -> None:
    """Explain one photograph: maps, scores and a panel."""
    from segfaith.benchmark.settings import anchor, make_settings, override, read_content
    from segfaith.photograph import Wanted, explain_photo, refuse_unread, settings_of, write

    if model is not None and config is not None:
        raise SettingsError("--model and --config exclude each other: FILE names the model in [model]; give one")
    content: dict[str, Any] = {} if config is None else read_content(config)
    if config is not None:
        make_settings(content, str(config))
    given: dict[str, dict[str, Any]] = {
        "model": {"name": model, "weights": weights, "layer": layer},
        "target": {"class": _whole(class_name), "score": score},
        "data": {"size": _whole(size)},
        "methods": {"names": None if methods is None else _names(methods)},
        "execution": {"device": device},
    }
    for table, values in given.items():
        changed = {key: value for key, value in values.items() if value is not None}
        anchor(fresh := {table: changed}, Path.cwd())
        content[table] = {**content.get(table, {}), **fresh[table]}
    if seed is not None:
        content["seed"] = seed
    flags = {f"{table}.{key}": value for table, values in given.items() for key, value in values.items()}
    overrides(flags | {"seed": seed}, settings)  # refuses what is given twice
    override(content, settings or [])
    chosen = settings_of(content)
    refuse_unread(settings or [])
    place = output or Path("explanations") / photo.stem
    make_ready(place)
    explained = explain_photo(photo, chosen, Wanted(_point(point), mask, truth, missed))
    paths = write(explained, place, npy=npy, tiff=tiff)
    if as_json:
        typer.echo(json.dumps(explained.content | {"paths": [str(path) for path in paths]}))
        return
    _print(explained)
    for path in paths:
        say(f"written: {path}")


def _print(explained: Any) -> None:
    """The target, a table as wide as the terminal at most, and a sentence for each score."""
    from segfaith.evaluation.metrics import leading
    from segfaith.photograph import listed
    from segfaith.results.report.sentences import number

    told = explained.explanation
    if told.model.head is None:
        on_the_way(f"head      {told.model.head_words}")
    height, width = told.subject.size
    say(f"model     {told.model.name}, weights {told.model.weights}")
    say(f"predicted {listed(explained.shares)}")
    say(f"target    {explained.chosen} ({int(told.target.region.sum())} of {height * width} px)")
    scores = told.scores
    relative = leading(["tdd"], told.target.score) == ["tdd"]
    parts = {"tdd": "TDD", "tdd_gain": "gain"} if relative else {"tdd_drop": "drop", "tdd_drop_gain": "gain"}
    off = "odd_abs" if relative else "odd_drop_abs"
    table = Table(box=SIMPLE_HEAD, title=f"s = {number(float(scores['s'].iloc[0]))}", title_justify="left")
    headings = ["s deleted", *parts.values(), "s outside", "OT abs" if relative else "OT drop", "Ins."]
    for heading in ("method", *headings):
        table.add_column(heading, justify="right" if table.columns else "left", overflow="fold")
    columns = ("s_target_deleted", *parts, "s_off_deleted", off, "insertion_gain")
    for name, row in scores.iterrows():
        table.add_row(_broken(str(name), out.width - NUMBERS), *(number(float(row[column])) for column in columns))
    out.print(table)
    for lines in told.sentences.values():
        for line in lines:
            say(line)
    for name, reason in told.refused.items():
        say(f"no map of {name}: {reason}")


def _broken(name: str, width: int) -> str:
    """A method's name in lines of at most `width` characters where its parts allow it: broken at ":", "@" and ","."""
    lines = [""]
    for part in re.split(r"(?<=[:,])|(?=@)", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _whole(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


def _names(text: str) -> list[str]:
    """The methods of "ega, dea@alpha=0.8,beta=0.2": a comma before KEY=VALUE parts no methods."""
    return [name.strip() for name in re.split(r",(?![^,@]*=)", text) if name.strip()]


def _point(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise SettingsError(
            f"--point {text!r}: expected X,Y in whole pixels of the file, as in 120,80: 120 from the left, 80 from the "
            "top"
        )
    return int(parts[0]), int(parts[1])
