"""The verb that judges the metrics themselves."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from segfaith.cli.screen import COLUMNS, app, err, say

PROPERTIES = {
    "truth": "rises with the truth (Kendall's tau with the dose of planted evidence)",
    "gaming": "an honest map beats the gamed one (share of samples)",
    "style": "minds the truth more than the style (change by style / spread of methods)",
}


@app.command("judge-metrics")
def judge_metrics_command(
    config: Annotated[str, typer.Argument(help="Settings file (TOML), or packaged settings.")] = "judge",
    n: Annotated[int | None, typer.Option("-n", "--samples", help="Number of samples (data.n).")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for values.csv and judgement.csv.")] = Path(
        "judgement"
    ),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as in data.size=320.")
    ] = None,
) -> None:
    """Judge the metrics: do they rise with the truth, can they be gamed, do they mind a map's style?"""
    from segfaith.benchmark.runner import prepare
    from segfaith.benchmark.settings import find_settings, read_settings
    from segfaith.errors import SettingsError
    from segfaith.planted.judging import measure
    from segfaith.results.statistics.judgement import judge, leaders

    chosen = read_settings(find_settings(config), [f"data.n={n}"] * (n is not None) + (settings or []))
    methods = chosen.methods.model_copy(update={"names": ["gpa", "ega", "ria", "dea", "mask"], "labels": {}})
    prepared = prepare(chosen.model_copy(update={"methods": methods}))
    with Progress(*COLUMNS, console=err, transient=True) as bars:
        task = bars.add_task("judging", total=len(prepared.plan.ids))
        values = measure(prepared, lambda sample_id: bars.advance(task))
    for sample_id, why in values.attrs["left_out"].items():
        say(f"left out: {sample_id}: {why}")
    if not len(values):
        raise SettingsError("no sample has a target that can be measured, so nothing is judged; see the lines above")
    if not (values["role"] == "dose").any():
        say("truth: no sample has planted evidence, so only gaming and style are judged; scenes and wired data have it")
    table = judge(values, chosen.target.score)
    output.mkdir(parents=True, exist_ok=True)
    values.to_csv(output / "values.csv", index=False)
    table.to_csv(output / "judgement.csv", index=False)
    for what, words in PROPERTIES.items():
        say(f"\n{what}: {words}")
        for row in table[table["property"] == what].to_dict("records"):
            number = f"{row['value']:6.2f} [{row['low']:5.2f}, {row['high']:5.2f}]" if row["n"] else ""
            say(f"  {row['metric']:18} {row['kind']:12} {number:24} n {row['n']:3}  {row['verdict']:11} {row['why']}")
    say(f"\nmay lead a conclusion: {', '.join(leaders(table)) or 'none'}")
    say(f"written: {output / 'judgement.csv'}, {output / 'values.csv'}")
