"""The page on significance: every pair of methods and their mean ranks in words, as Markdown and CSV."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.files import replace_file
from segfaith.results.statistics.analysis import Analysis
from segfaith.results.statistics.friedman import Friedman
from segfaith.results.statistics.intervals import LEAST_IMAGES, quantity
from segfaith.results.statistics.paired import ALPHA, CHANCE, TESTED


def page(analysis: Analysis) -> str:
    """All pairs and mean ranks by data set and metric, as Markdown."""
    names = analysis.parts[0].compared
    lines = ["# Significance", "", INTRODUCTION, "", f"Compared here: {', '.join(names) or 'none'}."]
    for part in analysis.parts:
        lines += ["", f"## {part.label}"]
        for metric in TESTED:
            chosen = part.pairs[part.pairs["metric"] == metric]
            tested = int((chosen["why"] == "").sum())
            lines += ["", f"### {METRICS[metric].label} ({metric})", ""]
            if len(chosen):
                lines += [f"Holm's correction is over {tested} of {len(chosen)} pairs, those that are testable.", ""]
                lines += _table([_cells(row) for row in chosen.to_dict("records")], quantity(metric))
            else:
                lines.append(
                    "- not testable: fewer than two methods but for controls and variants; name some to compare"
                )
            lines += ["", _ranks_words(part.ranked[metric])] if metric in part.ranked else []
    lines += ["", "## Runs", "", *(f"- {line}" for line in analysis.notes)]
    return "\n".join([*lines, ""])


def write_significance(analysis: Analysis, directory: Path) -> list[Path]:
    """Writes `significance.csv` (the rows of `paired.compare`) and `significance.md` (see `page`) into a directory."""
    table, text = analysis.table("pairs"), page(analysis)
    csv, words = directory / "significance.csv", directory / "significance.md"
    replace_file(csv, lambda temporary: table.to_csv(temporary, index=False))
    replace_file(words, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return [csv, words]


INTRODUCTION = (
    "Methods are paired over images, each averaged over its runs first; an ablation is no run of its own. "
    "`Difference`: first minus second with a 95 % interval over images, of the quantity that heads the table: of drops "
    "relative to s the pooled drop (sum of drops over sum of s), of the rest the mean; of leakages the trimmed mean "
    "(without the lowest and the highest tenth) of the differences image by image, which is not the first's trimmed "
    f"mean minus the second's; no interval below {LEAST_IMAGES} images. `Effect`: matched-pairs "
    "rank-biserial correlation from -1 to 1, positive where the first tends to have the larger values. `p`: Wilcoxon's "
    "signed-rank test with Pratt's zeros; the verdict follows p after Holm's correction over the pairs of a data set "
    f"and metric, at {ALPHA:g}. `not told "
    "apart` is no proof of equality. All of this speaks of other images under these models and seeds, not of other "
    "models or seeds. Mean ranks: 1 is best; where Friedman's p is below the same level, methods whose ranks differ by "
    "more than the critical difference (Nemenyi) are told apart, else none are. Each method is also compared with "
    f"{CHANCE}, chance at the maps' own coarseness, unless others are named; it does not enter Friedman's test. Other "
    "controls, and variants such as dea@alpha=0.5, are compared only if named."
)


def _cells(row: Mapping[Any, Any]) -> list[str]:
    interval = "" if isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    means = [_number(row["value_first"], ".3f"), _number(row["value_second"], ".3f")]
    chances = ["n/a" if isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in (row["p"], row["p_holm"])]
    middle = [_number(row["difference"], "+.3f") + interval, _number(row["effect"], "+.2f"), *chances]
    return [row["first"], row["second"], str(row["images"]), str(row["runs"]), *means, *middle, _verdict(row)]


def _verdict(row: Mapping[Any, Any]) -> str:
    """In words: which of the two is better, or has the larger values of a diagnostic."""
    better = METRICS[row["metric"]].better
    larger, smaller = (row["first"], row["second"]) if row["effect"] > 0 else (row["second"], row["first"])
    found = f"{smaller if better == 'lower' else larger} {'better' if better else 'larger'}"
    words = row["why"] or (found if row["significant"] else "not told apart")
    return f"{words} ({row['note']})" if row["note"] else str(words)


def _ranks_words(one: Friedman) -> str:
    ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(one.ranks.items(), key=lambda pair: pair[1]))
    said = one.why or (
        f"chi-square {one.statistic:.2f}, p {'< 0.001' if one.p < 0.001 else f'{one.p:.3f}'}, critical difference "
        f"{one.critical_difference:.2f}"
    )
    note = f" ({one.note})" if one.note else ""
    return f"- Mean ranks over {one.images} images: {ranks or 'n/a'}. Friedman: {said}{note}"


def _number(value: float, form: str) -> str:
    return "n/a" if isnan(value) else format(value, form)


def _table(body: Sequence[Sequence[str]], of: str) -> list[str]:
    values = [f"First's {of}", f"Second's {of}", f"Difference ({of})"]
    header = ["First", "Second", "Images", "Runs", *values, "Effect", "p", "p Holm", "Verdict"]
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]
