"""The page on planted evidence as Markdown: do the metrics rank methods as the evidence does?"""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.files import replace_file
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_control
from segfaith.results.statistics.evidence import JUDGED, KINDS, SCORES, agreements, leakage, scores, usable

TITLE = "How far to trust these metrics"


def trust_page(runs: Sequence[Run]) -> str:
    """The page as Markdown."""
    rows, left_out = usable(runs)
    lines = [f"# {TITLE}", "", INTRODUCTION, ""]
    lines += [f"- left out: {kind}: {why}" for kind, why in left_out.items()]
    if not len(rows):
        return "\n".join([*lines, "- nothing is left from which to conclude", ""])
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    counts = ", ".join(f"{kind} {rows.loc[rows['kind'] == kind, 'sample_id'].nunique()}" for kind in kinds)
    methods = list(dict.fromkeys(rows["method"]))
    lines += [f"- scenes that entered: {counts}", "", "## Who finds the evidence", "", SCORE_WORDS, ""]
    cells = [
        [str(kind), *(" / ".join(map(_number, values)) for values in part[list(SCORES)].to_numpy(float))]
        for kind, part in scores(rows).groupby("kind", sort=False)
    ]
    lines += _table(["Kind", *methods], cells)
    lines += ["", "## Do the metrics rank methods as the evidence does?", "", TAU_WORDS, ""]
    lines += _agreements(agreements(rows))
    lines += ["", "## What leakage says of a truthful map", "", LEAK_WORDS, "", *_leakage(leakage(rows))]
    return "\n".join([*lines, ""])


def write_trust(runs: Sequence[Run], directory: Path) -> Path:
    """Writes `trust.md` into a directory."""
    page = trust_page(runs)
    path = directory / "trust.md"
    replace_file(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _agreements(found: pd.DataFrame) -> list[str]:
    """A line in words per metric, then the table of all taus that could be tested."""
    words, table = [], []
    for metric in JUDGED:
        verdicts: dict[str, list[str]] = {}
        for kind, part in found[found["metric"] == metric].groupby("kind", sort=False):
            both, alone = part.to_dict("records")
            verdicts.setdefault(both["verdict"], []).append(str(kind))
            if not (both["why"] and alone["why"]):
                cells = [_tau_cell(both), _tau_cell(alone), str(both["scenes"]), _verdicts(both, alone)]
                table.append([METRICS[metric].label, str(kind), *cells])
        told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts.items())
        words.append(f"- {METRICS[metric].label} ({metric}): {told}")
    if table:
        words += ["", *_table(["Metric", "Kind", "tau", "tau without controls", "Scenes", "Verdict"], table)]
    return words


def _leakage(found: pd.DataFrame) -> list[str]:
    """By how much OT abs punishes evidence outside: in words, and both leakages with and without its part."""
    own = found[(found["kind"] == "context") & ~found["method"].map(is_control).astype(bool)]
    words = []
    if len(own):
        average, beyond = (_number(value) for value in own[["odd_abs", "odd_beyond_abs"]].mean(skipna=False))
        methods = ", ".join(own["method"])
        words = [f"Context, mean over {methods}: OT abs {average}, of which {beyond} beyond the evidence.", ""]
    header = ["Kind", "Method", "OT abs", "beyond", "Leak abs (median)", "beyond (median)", "scenes"]
    body = [
        [row["kind"], row["method"], *(_number(row[name]) for name in LEAKAGES), str(row["scenes"])]
        for row in found.to_dict("records")
    ]
    return [*words, *_table(header, body)]


LEAKAGES = ("odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond")
INTRODUCTION = (
    "On these scenes it is known by construction which pixels decide each object's class, and for every kind below the "
    "model was shown to decide by them (docs/scenes.md). So the metrics themselves can be judged: a good one ranks "
    "methods as the planted evidence does. Only regions that the model predicts right entered."
)
SCORE_WORDS = (
    "Average precision of the map against the planted evidence / share of its mass there / share of its top pixels "
    "there; means over scenes. Of the plain kind the whole object is the evidence, so that the mask itself scores 1."
)
TAU_WORDS = (
    "Kendall's tau-b between the ranking of methods by the metric and by the average precision (1: the same, -1: "
    "reversed), with a 95 % bootstrap interval over scenes. `agrees`: the interval lies above 0; `disagrees`: below; "
    "`undecided`: it holds 0. Methods are ranked by means over the scenes on which all of them have a value; Leak abs "
    "has one only where TDD is above 0.05. The interval speaks of other scenes with these methods, not of other "
    "methods: a metric that knows nothing of the evidence orders four methods with a tau above 0 in 9 of 24 cases."
)
LEAK_WORDS = (
    "OT abs is what deleting a map's top pixels outside the target changes. Where the evidence lies outside, a "
    "truthful map must change much, and OT abs punishes it. Leak abs is the ratio of OT abs to TDD. It has a value "
    "only where TDD is above 0.05, on so many `scenes`, which a truthful map of evidence outside may never reach. "
    "`beyond` is the same less what deleting the planted evidence among those pixels costs: what is lost, or gained, "
    "beyond the truth."
)


def _tau_cell(row: dict[Any, Any]) -> str:
    return "n/a" if row["why"] else f"{row['tau']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _verdicts(both: dict[Any, Any], own: dict[Any, Any]) -> str:
    same = own["verdict"] == both["verdict"]
    return str(both["verdict"]) if same else f"{both['verdict']}; without controls: {own['verdict']}"


def _number(value: float) -> str:
    return "n/a" if isnan(value) else f"{value:.3f}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]
