"""Conclusions from runs: one page in words (`conclusions.md`) and a CSV file for each of its tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.files import replace_file
from segfaith.results.records.select import own_methods
from segfaith.results.report.latex import latex
from segfaith.results.report.tables_text import comparison, win_table
from segfaith.results.statistics import curves, rankings
from segfaith.results.statistics.analysis import BYS, OVERS, STRATIFIED, Analysis
from segfaith.results.statistics.claims import interval_words, verdict_words
from segfaith.results.statistics.randomisation import unfinished_checks

PAGE = "conclusions.md"


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page.

    Attributes:
        lines: Markdown.
        files: name of a CSV file to its table; empty tables are not written.
        missing: what could not be computed and why.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    files: dict[str, pd.DataFrame] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def write_conclusions(analysis: Analysis, directory: Path) -> list[Path]:
    """Writes what the runs say: `conclusions.md`, `table.tex`, and a CSV file for each table that has content.

    The files are paper.csv (beside the paper's Table 1), runs.csv, wins.csv, claims.csv and claims.md, rankings.csv,
    concordance.csv, areas.csv, curves.csv (means over images), robust.csv, drops.csv, strata.csv, leakage.csv,
    map_properties.csv and randomisation.csv. What could not be computed stands in the page with its reason.

    Returns:
        The paths that were written, the page first.
    """
    claims = _claims(analysis)
    sections = [
        _table_1(analysis),
        claims,
        _wins(analysis),
        _rankings(analysis),
        _curves(analysis),
        _robust(analysis),
        _strata(analysis),
        _leakage(analysis),
        _looks(analysis),
        _randomisation(analysis),
    ]
    files = {name: table for one in sections for name, table in one.files.items() if len(table)}
    about = [*analysis.absent, *analysis.notes]
    texts = {PAGE: _page(sections, [*files, "claims.md", "table.tex"], about)}
    lines = [*claims.lines, "", *(f"- {line}" for line in about)]
    texts |= {"claims.md": "\n".join(lines) + "\n", "table.tex": latex(analysis)}
    for name, text in texts.items():
        replace_file(directory / name, partial(Path.write_text, data=text, encoding="utf-8"))
    for name, table in files.items():
        replace_file(directory / name, partial(table.to_csv, index=False))
    return [directory / name for name in (*texts, *files)]


def _page(sections: Sequence[Section], files: Sequence[str], about: Sequence[str]) -> str:
    lines = ["# What these runs say", "", *(f"- {line}" for line in about)]
    for one in sections:
        said = "\n".join([*one.lines, "", *(f"- not computed: {why}" for why in one.missing)]).strip()
        lines += ["", f"## {one.title}", "", said]
    lines += ["", "## Files", "", f"Written with this page: {', '.join(sorted(files))}.", ""]
    return "\n".join(lines)


def _table_1(analysis: Analysis) -> Section:
    """Ours beside the paper's."""
    summary = analysis.table("summary")
    beside = comparison(summary)
    files = {"runs.csv": analysis.table("values")}
    if len(beside) == 1:
        why = "the paper's numbers are of its four methods on the validation splits of voc2012 and sbd, by its protocol"
        return Section("Table 1 beside the paper's", files=files, missing=[f"the comparison with the paper: {why}"])
    files["paper.csv"] = summary[summary["paper_mean"].notna()]
    words = (
        "Mean ± std (n - 1) over run-level means, each run counting once; no std for a single run. The paper's models, "
        "images and samples are others, so that its numbers are a scale and no target."
    )
    return Section("Table 1 beside the paper's", [words, "", *markdown_table(beside)], files)


def _claims(analysis: Analysis) -> Section:
    table = analysis.table("claims")
    lines = [
        "Among the paper's four methods. Claims of every run are judged run by run; the others on the means over runs, "
        "with the number of runs in which they hold too. Two methods are compared over the runs that have both, by "
        "their run-level means; a difference below 0.0001, or of runtimes below 5 %, is a draw. Beside it stands the "
        "difference to the rival that decides, over images with its 95 % interval; where few images rule a mean, "
        "it may point the other way. Below ten images no claim is tested.",
        "",
    ]
    for label, group in table.groupby("data", sort=False):
        said = ", ".join(verdict_words(group["holds"]))
        found = group.to_dict("records")
        rows = [[row["claim"], row["holds"], row["count"], interval_words(row), row["numbers"]] for row in found]
        header = ["Claim", "Verdict", "Runs", "Difference over images", "Numbers"]
        lines += [f"{label}: {said}.", "", *markdown_table([header, *rows]), ""]
    return Section("The paper's claims", lines[:-1], {"claims.csv": table})


def _wins(analysis: Analysis) -> Section:
    """All pairs in the file; on the page those of the paper's four."""
    table = analysis.table("wins")
    header, *body = win_table(table)
    words = (
        "In how many runs the first method of a pair is better than the second, out of those that have both (of one "
        "run: whether it is); by leakages over the samples on which both have one."
    )
    missing = [] if len(table) else ["win counts: no run has two methods with a value of the same metric"]
    lines = [words, "", *markdown_table([header, *body]), ""] if body else []
    return Section("Win counts", lines, {"wins.csv": table}, missing)


RANKING_WORDS = (
    "RIA and DEA are built with mean occlusion; where that also scores them, they are favoured. Here the same maps are "
    "ranked under every operator and every k but 1, at which all maps delete the same, over the images that have them "
    "all. Kendall's W says how far the rankings agree: 1 is the same ranking everywhere, and random rankings under m "
    "settings give 1 / m. Beyond chance, 0 is no more than that and 1 full agreement; p is the share of random "
    "rankings that agree as much. `own` leaves out the controls and variants of the same method, which lie far apart "
    "or close together whatever the setting, and so raise W."
)


AMONG: tuple[Literal["all", "own"], ...] = ("all", "own")


def _rankings(analysis: Analysis) -> Section:
    lines, missing = [RANKING_WORDS, ""], []
    settings, agreements = [], []
    for metric in curves.CURVE_KINDS:
        for over in OVERS:
            for among in AMONG:
                agreements += [part.concordance(metric, over, among).assign(among=among) for part in analysis.parts]
            table = _joined([part.ranking(metric, over) for part in analysis.parts])
            settings.append(table.assign(over=over, metric=metric))
            if len(table):  # where it is empty, Kendall's W says why
                missing += _why({f"rankings by {METRICS[metric].label} over {rankings.OVER[over]}": table})
            for label, group in table.groupby("data", sort=False):
                if group["setting"].nunique() > 1:
                    lines += [f"{label}: {METRICS[metric].label} over {rankings.OVER[over]}, mean (rank)", ""]
                    lines += [*_ranked(group), ""]
    table = pd.concat(agreements, ignore_index=True)
    untested: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        what = f"{METRICS[row['metric']].label} over {rankings.OVER[row['over']]} ({row['among']} methods)"
        if row["why"]:
            untested.setdefault(f"{row['data']}: {row['why']}", []).append(what)
        else:
            chance = f"beyond chance {row['beyond_chance']:.2f}, p {row['p']:.3f}".replace("p 0.000", "p < 0.001")
            counts = f"{row['methods']} methods, {row['settings']} settings, {row['images']} images"
            left = f"; left out: {row['left_out']}" if row["left_out"] and row["among"] == "own" else ""
            lines.append(f"- Kendall's W of {row['data']}: {what}: {row['w']:.2f}, {chance} ({counts}{left})")
    missing += [f"Kendall's W, {why}; of {', '.join(names)}" for why, names in untested.items()]
    files = {"rankings.csv": pd.concat(settings, ignore_index=True), "concordance.csv": table}
    return Section("How much the ranking depends on operator and k", lines, files, missing)


def _ranked(group: pd.DataFrame) -> list[str]:
    methods = list(group["method"].unique())
    body = []
    for setting, part in group.groupby("setting", sort=False):
        cells = {row["method"]: f"{row['mean']:.3f} ({row['rank']:g})" for row in part.to_dict("records")}
        body.append([str(setting), *(cells[name] for name in methods)])
    return markdown_table([["Setting", *methods], *body])


def _curves(analysis: Analysis) -> Section:
    area, means = _all(analysis, "areas"), _all(analysis, "curve_means")
    words = (
        "Mean height of the curve between k = 0 and the highest k, at the first operator, of pooled drops and of mean "
        "insertion gains. Higher is better for target_deletion and insertion; lower for off_deletion_abs."
    )
    missing = _why({"areas": area, "curves": means})
    lines = [words, "", *_wide(area, ["data", "method"], "kind", "area")] if len(area) else []
    return Section("Curves over k", lines, {"areas.csv": area, "curves.csv": means}, missing)


def _robust(analysis: Analysis) -> Section:
    table, drops = _all(analysis, "robust"), _all(analysis, "drops")
    shown = table[table["metric"].isin(("tdd", "odd_abs", "leak_abs"))]
    columns = ["data", "method", "metric", "mean", "median", "trimmed", "n", "small_s"]
    body = [[_number(value) for value in row] for row in shown[columns].to_numpy().tolist()]
    lines = [
        "Over all samples. Relative metrics divide by s: where s is next to 0 they explode, and the mean with them, "
        "but not the median, nor the absolute drops s - s(target deleted) and |s - s(outside deleted)|.",
        "",
        *markdown_table([["Data", "Method", "Metric", "mean", "median", "trimmed", "n", "s < 0.05"], *body]),
        "",
        "Mean absolute drops:",
        "",
        *_wide(drops, ["data", "method"], "drop", "mean"),
    ]
    missing = _why({"medians": table, "absolute drops": drops})
    return Section("Small denominators", lines, {"robust.csv": table, "drops.csv": drops}, missing)


def _strata(analysis: Analysis) -> Section:
    lines, parts, missing = ["Mean TDD (n); other metrics, and strata by class, stand in strata.csv.", ""], [], []
    for by in BYS:
        for metric in STRATIFIED:
            table = _joined([part.strata(metric, by) for part in analysis.parts])
            missing += _why({f"{metric} by {by}": table})
            parts.append(table.assign(by=by, metric=metric))
            if metric == "tdd" and by != "class_index" and len(table):
                own = table[table["method"].isin(own_methods(analysis.runs))]
                lines += [*_wide(own, ["data", "stratum"], "method", "mean", counts=True), ""]
    return Section("Within groups of samples", lines, {"strata.csv": pd.concat(parts, ignore_index=True)}, missing)


def _leakage(analysis: Analysis) -> Section:
    table = _all(analysis, "leakage")
    words = (
        "OT abs deletes the share k of all pixels outside the target, and so more pixels than TDD where the target is "
        "small; OT fair deletes as many as TDD. ODD near, middle and far are the drops by the pixels of S_o in one "
        "band of distance from the target alone, as absolute values (random_cells: of the mean over its draws, "
        "which is smaller)."
    )
    return Section("Leakage", [words, "", *_flat(table)], {"leakage.csv": table}, _why({"fair leakage": table}))


def _looks(analysis: Analysis) -> Section:
    table = _all(analysis, "map_properties")
    words = (
        "Share of the map's sum inside the target, share of its maxima there, and sparseness. They describe maps and "
        "say nothing of what the model uses; random maps have the target's share of the pixels in the first two."
    )
    files = {"map_properties.csv": table}
    return Section("What the maps look like", [words, "", *_flat(table)], files, _why({"map properties": table}))


def _randomisation(analysis: Analysis) -> Section:
    table = _all(analysis, "randomisation")
    words = (
        "Mean rank correlation of a map with that of the trained model, as the weights of its parts are drawn anew "
        "from the head on (Adebayo et al. 2018); mean s at each stage says where the model has lost the class. A map "
        "that stays alike does not depend on what the model learned."
    )
    lines = [words, ""]
    for _, group in table.groupby("data", sort=False):
        s = group.groupby(["model", "stage"])["s"].transform("mean").map(_number)
        named = group.assign(stage=(group["stage"].astype(str) + " " + group["part"]).str.strip() + ", s " + s)
        lines += [*_wide(named, ["data", "model", "stage"], "method", "spearman", counts=True), ""]
    lines += unfinished_checks(analysis.runs)
    constant = table.groupby("method", sort=False)["constant"].sum()
    if constant.any():
        which = ", ".join(f"{name} {count}" for name, count in constant[constant > 0].items())
        lines += [f"Constant maps, which have no correlation and enter nothing: {which}.", ""]
    failed = table.groupby("method", sort=False)["failed"].sum()
    if failed.any():
        which = ", ".join(f"{name} {count}" for name, count in failed[failed > 0].items())
        lines += [f"Maps that could not be made, counted over all stages: {which}.", ""]
    return Section("Randomisation check", lines, {"randomisation.csv": table}, _why({"randomisation": table}))


def _all(analysis: Analysis, name: str) -> pd.DataFrame:
    return _joined([getattr(part, name) for part in analysis.parts])


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of all data sets, with the reasons for what is missing."""
    joined = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    joined.attrs["why"] = "; ".join(dict.fromkeys(table.attrs["why"] for table in tables if table.attrs["why"]))
    return joined


def _why(tables: dict[str, pd.DataFrame]) -> list[str]:
    """What is missing from each table, and why, as it says itself."""
    return [f"{name}: {table.attrs['why']}" for name, table in tables.items() if table.attrs["why"]]


def _flat(table: pd.DataFrame) -> list[str]:
    if not len(table):
        return []
    body = [[_number(value) for value in row] for row in table.to_numpy().tolist()]
    return markdown_table([[_number(name) for name in table.columns], *body])


def _wide(table: pd.DataFrame, rows: Sequence[str], column: str, value: str, counts: bool = False) -> list[str]:
    """A table with a column for each value of `column`; with `counts` each cell shows its n in brackets."""
    if not len(table):
        return []
    header = [str(name) for name in table[column].unique()]
    body = []
    for key, group in table.groupby(list(rows), sort=False):
        cells = {
            str(row[column]): _number(row[value]) + (f" ({row['n']})" if counts else "")
            for row in group.to_dict("records")
        }
        body.append([*map(str, key), *(cells.get(name, "") for name in header)])
    return markdown_table([[*rows, *header], *body])


def markdown_table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first one its header; bars within cells are escaped."""
    header, *body = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "n/a" if isnan(value) else f"{value:.3f}"
    return METRICS[value].label if value in METRICS else str(value)
