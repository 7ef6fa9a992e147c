"""The verb that judges the metrics themselves."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from segfaith.cli.screen import COLUMNS, app, err, folder, overrides, say

if TYPE_CHECKING:
    import pandas as pd

PROPERTIES = {
    "truth": "rises with the truth (Kendall's tau with the dose of planted evidence)",
    "gaming": "RIA, and the truth itself, beat the gamed map (share of samples)",
    "forms": "no form of RIA's map that says no more beats the map (share of samples)",
    "style": "minds the truth more than the style (change by style / spread of methods)",
    "fills": "ranks maps alike under another occlusion operator (Spearman)",
    "removal": "ranks maps as under the true removal of the evidence (Spearman)",
    "seeds": "ranks maps alike with another seed (Spearman)",
    "images": "ranks methods alike on two halves of the samples (Spearman)",
    "ranking": "ranks methods as their average precision on the evidence does (Kendall's tau)",
    "power": "images that tell two methods apart (median over pairs of methods)",
}


@app.command("judge-metrics")
def judge_metrics_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "judge",
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Number of samples (data.n).")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=folder, help="Folder for values.csv and judgement.csv.")
    ] = Path("judgement"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the numbers too, with their intervals.")] = False,
) -> None:
    """Judge the metrics: do they rise with the truth, can they be gamed, do they agree with themselves?"""
    from segfaith.benchmark.prepared import prepare
    from segfaith.benchmark.settings import find_settings, read_settings
    from segfaith.errors import SettingsError
    from segfaith.planted.judging import BASIC, VARIANTS, measure
    from segfaith.results.records.files import replace_file, write_csv
    from segfaith.results.statistics.judgement import judge, leaders
    from segfaith.storage import make_ready

    chosen = read_settings(find_settings(config), overrides({"data.n": n}, settings))
    methods = chosen.methods.model_copy(update={"names": [*BASIC, *VARIANTS], "labels": {}})
    make_ready(output)
    prepared = prepare(chosen.model_copy(update={"methods": methods}))
    with Progress(*COLUMNS, console=err, transient=True) as bars:
        task = bars.add_task("judging", total=len(prepared.plan.ids))
        values = measure(prepared, lambda sample_id: bars.advance(task))
    for sample_id, why in values.attrs["left_out"].items():
        say(f"left out: {sample_id}: {why}")
    if not len(values):
        raise SettingsError("no sample has a target that can be measured, so nothing is judged; see the lines above")
    if not (values["role"] == "dose").any():
        say("no sample has planted evidence, as scenes and wired data have: truth and ranking are not judged")
    table = judge(values, chosen.target.score)
    replace_file(output / "values.csv", partial(write_csv, values))
    replace_file(output / "judgement.csv", partial(write_csv, table, float_format="%.6g"))
    if verbose:
        _numbers(table)
    else:
        _verdicts(table)
    say(f"\nmay lead a conclusion: {', '.join(leaders(table)) or 'none'}")
    say(f"written: {output / 'judgement.csv'}, {output / 'values.csv'}")


def _verdicts(table: "pd.DataFrame") -> None:
    """A paragraph a metric: its verdicts by property."""
    from segfaith.results.statistics.judgement import by_metric

    for metric, told in by_metric(table).items():
        say(f"{metric}: {'; '.join(f'{what}: {verdict}' for what, verdict in told.items() if verdict)}")
    say("")
    for what, words in PROPERTIES.items():
        say(f"{what}: {words}")


def _numbers(table: "pd.DataFrame") -> None:
    """A block a property: every number with its interval."""
    for what, words in PROPERTIES.items():
        say(f"\n{what}: {words}")
        for row in table[table["property"] == what].to_dict("records"):
            number = " ".join(f"{row[name]:6.2f}" for name in ("value", "low", "high")) if row["n"] else ""
            say(f"  {row['metric']:18} {row['kind']:12} {number:20} n {row['n']:3}  {row['verdict']:11} {row['why']}")
