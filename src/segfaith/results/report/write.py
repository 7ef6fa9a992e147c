"""The one call behind `segfaith report`: an analysis of runs, and its files in a directory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.save import save_figures
from segfaith.results.records.files import replace_file, write_csv
from segfaith.results.records.runs import Run
from segfaith.results.report.arrange import gathered
from segfaith.results.report.blocks import Section
from segfaith.results.report.html import write_page
from segfaith.results.report.latex import latex
from segfaith.results.report.markdown import markdown
from segfaith.results.report.sections import standings, topics
from segfaith.results.statistics.analysis import BYS, OVERS, STRATIFIED, Analysis, Options, analyse
from segfaith.results.statistics.curves import CURVE_KINDS
from segfaith.results.statistics.paired import TESTED
from segfaith.results.statistics.summary import TABLE_METRICS
from segfaith.storage import remove_leftovers, storage_error


@dataclass(frozen=True, eq=False)
class Written:
    """A report: what it says, and where its files are.

    Attributes:
        sections: in reading order.
        paths: the files that were written.
        refused: why the directory could not be written into, or "".
    """

    analysis: Analysis
    sections: list[Section]
    directory: Path
    paths: list[Path] = field(default_factory=list)
    refused: str = ""


@pd.option_context("mode.string_storage", "python")  # as in `load_run`
def write(
    runs: Sequence[Run],
    directory: Path,
    options: Options | None = None,
    *,
    html: bool = False,
    figures: bool = False,
    diagnostics: bool = False,
    title: str = "",
    author: str = "",
    absent: Sequence[str] = (),
    tell: Callable[[str], object] = lambda words: None,
) -> Written:
    """Analyses the runs and writes `FILES`, `PAGES`, and the other Markdown and LaTeX files into the directory.

    Args:
        runs: as `records.runs.load_runs` reads them.
        options: which samples enter and which pairs are tested; they reach every file.
        html: also writes `report.html`.
        figures: also draws `figures/`.
        diagnostics: also the columns in `table.tex` that say how complete the others are.
        title: the heading of `report.html`; "" for the usual one.
        author: who made the report, for `report.html`; "" for nobody.
        absent: sentences on runs that were planned and are not here.
        tell: is told of what takes long.

    Returns:
        The report. Where the directory cannot be written into, it holds the files written before, and `refused`.

    Raises:
        SettingsError: no runs, methods that no run holds, or the options leave no target that was measured.
    """
    analysis = analyse(runs, options, absent)
    _refuse_nothing_left(analysis)
    built = topics(analysis)
    report = Written(analysis, gathered(built), directory)
    try:
        remove_leftovers(directory)
        for path in _write(report, built, figures=figures, diagnostics=diagnostics, tell=tell):
            report.paths.append(path)
        if html:
            tell("writing the page")
            page = directory / "report.html"
            files = tuple(report.paths)
            report.paths.append(write_page(analysis, report.sections, page, title=title, author=author, files=files))
    except OSError as error:
        refused = str(storage_error(directory, error))
        return Written(analysis, report.sections, directory, report.paths, refused)
    return report


def _write(
    report: Written,
    built: Mapping[str, Section],
    *,
    figures: bool,
    diagnostics: bool,
    tell: Callable[[str], object],
) -> Iterator[Path]:
    """Writes all files but the page, and gives each path when its file is there."""
    analysis, directory = report.analysis, report.directory
    for name, table in FILES.items():
        content = table(analysis)
        if len(content) or name in ALWAYS:
            yield _file(directory / name, partial(write_csv, content))
        else:
            (directory / name).unlink(missing_ok=True)  # of an earlier report
    if figures:
        tell("drawing figures")
        yield from save_figures(analysis, DRAWINGS, directory)
    texts = {"conclusions.md": markdown(report.sections, figures=figures)}
    planted = any(part.has_evidence for part in analysis.parts)
    for name, shown in PAGES.items():
        alone = [built[section] for section in (*shown, "runs") if section != "evidence" or planted]
        texts[name] = markdown(alone, alone[0].title, figures=figures)
    texts["leaderboard.md"] = markdown([standings.section(analysis)])
    texts["table.tex"] = latex(built["scores"], analysis.notes, diagnostics=diagnostics)
    for name, text in texts.items():
        yield _file(directory / name, partial(Path.write_text, data=text, encoding="utf-8"))


def _file(path: Path, write_content: Callable[[Path], object]) -> Path:
    replace_file(path, write_content)
    return path


PAGES = {
    "table.md": ("scores",),
    "claims.md": ("claims",),
    "significance.md": ("significance",),
    "trust.md": ("worth", "evidence"),
}
"""Markdown files of one topic, each with the section on the runs."""
ALWAYS = ("table.csv", "significance.csv")
"""Files that are written though they have no rows."""
PAPER = ["paper_mean", "paper_std"]


def _by_metric(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows by metric in that order, else in their own."""
    places = {metric: place for place, metric in enumerate(metrics)}
    return table.sort_values("metric", key=lambda column: column.map(places), kind="stable", ignore_index=True)


def _summary(analysis: Analysis) -> pd.DataFrame:
    return analysis.table("summary").drop(columns=PAPER)


def _paper(analysis: Analysis) -> pd.DataFrame:
    table = analysis.table("summary")
    return table[table["paper_mean"].notna()]


def _standings(analysis: Analysis) -> pd.DataFrame:
    tables = [table.assign(models=models) for part in analysis.standings for models, table in part.items()]
    return pd.concat(tables, ignore_index=True)


def _rankings(analysis: Analysis) -> pd.DataFrame:
    return pd.concat(
        [
            part.ranking(shown, over).assign(over=over, metric=shown)
            for metric in CURVE_KINDS
            for over in OVERS
            for part in analysis.parts
            for shown in part.leading(metric)
        ],
        ignore_index=True,
    )


def _crossfit(analysis: Analysis) -> pd.DataFrame:
    tables = [
        part.cross_fitted(shown) for metric in CURVE_KINDS for part in analysis.parts for shown in part.leading(metric)
    ]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _concordance(analysis: Analysis) -> pd.DataFrame:
    return pd.concat(
        [
            part.concordance(shown, over, among).assign(among=among)
            for metric in CURVE_KINDS
            for over in OVERS
            for among in ("all", "own")
            for part in analysis.parts
            for shown in part.leading(metric)
        ],
        ignore_index=True,
    )


def _strata(analysis: Analysis) -> pd.DataFrame:
    return pd.concat(
        [
            part.strata(shown, by).assign(by=by, metric=shown)
            for by in BYS
            for metric in STRATIFIED
            for part in analysis.parts
            for shown in part.leading(metric)
        ],
        ignore_index=True,
    )


FILES: dict[str, Callable[[Analysis], pd.DataFrame]] = {
    "table.csv": _summary,
    "paper.csv": _paper,
    "leaderboard.csv": _standings,
    "runs.csv": lambda analysis: analysis.table("values"),
    "wins.csv": lambda analysis: _by_metric(analysis.table("wins"), TABLE_METRICS),
    "claims.csv": lambda analysis: analysis.table("claims"),
    "significance.csv": lambda analysis: _by_metric(analysis.table("pairs"), TESTED),
    "rankings.csv": _rankings,
    "crossfit.csv": _crossfit,
    "concordance.csv": _concordance,
    "areas.csv": lambda analysis: analysis.table("areas"),
    "curves.csv": lambda analysis: analysis.table("curve_means"),
    "robust.csv": lambda analysis: analysis.table("robust"),
    "drops.csv": lambda analysis: analysis.table("drops"),
    "strata.csv": _strata,
    "leakage.csv": lambda analysis: analysis.table("leakage"),
    "map_properties.csv": lambda analysis: analysis.table("map_properties"),
    "randomisation.csv": lambda analysis: analysis.table("randomisation"),
}
"""Every CSV file and its table; a table without rows is not written."""


def _refuse_nothing_left(analysis: Analysis) -> None:
    """Refuses limits that leave out every measured target of a data set.

    Raises:
        SettingsError: they do so; the message has the highest values.
    """
    limits = {"s": analysis.options.min_s, "target_iou": analysis.options.min_iou}
    for part in analysis.parts:
        every, left = (pd.concat([run.records for run in runs]) for runs in (part.read, part.runs))
        measured = every[every["status"] == "ok"]
        if len(measured) and not (left["status"] == "ok").any():
            asked = " and ".join(
                f"{name} >= {least:g}, "
                + (
                    f"of which the highest is {measured[name].max():.3g}"
                    if name in measured
                    else "which is not recorded"
                )
                for name, least in limits.items()
                if least is not None
            )
            raise SettingsError(f"{part.label}: no target is left with {asked}; give a lower limit")
