"""The paper's claims (SPEC section 4), put to the test among its four methods, on any suite of runs.

Claims of "every run" are judged run by run, among the runs that have both methods (the paper's ablations lack GPA): one
run is enough to fail, and where none fails but one lacks a value, the claim is not testable. The others are judged on
the suite's means over runs, and it is counted in how many runs they hold too. Two methods are always compared over the
runs that have both, by their run-level means; where these differ by less than 1e-4, or runtimes by less than 5 %, it
is a draw (`summary.side`), which neither holds nor fails.

Beside a verdict stands the difference to the rival, the one of the others that decides, over images and with its
interval (`paired.difference`). It is of the metric's own quantity, such as the pooled drop, while the verdict is on
means as the paper's. Where typical images say the opposite, because a few outliers set a mean, the two disagree, and
`note` says so. Below ten images no claim is tested.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Literal

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.statistics.intervals import LEAST_IMAGES as LEAST_INTERVAL
from segfaith.results.statistics.paired import Paired, difference
from segfaith.results.statistics.paper import PAPER_METHODS
from segfaith.results.statistics.summary import DRAW, side

CLAIM_COLUMNS = [
    *("data", "claim", "holds", "count", "images", "rival", "of", "difference", "low", "high", "note", "numbers"),
    "metric",
]
VERDICTS = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "draw": ("is a draw", "are draws"),
    "not testable": ("cannot be tested", "cannot be tested"),
}
"""Every verdict, and its verb where one or several are counted."""
LEAST_IMAGES = 10
OTHER_WAY = "typical images say the opposite; a few outliers set the mean"


@dataclass(frozen=True)
class Claim:
    """What the paper says of the first method.

    Attributes:
        kind: `in every run`: above the second one in every run, or in the only one; `above`: above it in the mean;
            `highest`, `lowest`: so among all of `methods` in the mean; `between`: between the second and the third in
            the mean.
    """

    words: str
    metric: str
    kind: Literal["in every run", "above", "highest", "lowest", "between"]
    methods: tuple[str, ...]


def _first(method: str) -> tuple[str, ...]:
    return (method, *(name for name in PAPER_METHODS if name != method))


CLAIMS = (
    Claim("DEA's TDD is above EGA's in every run", "tdd", "in every run", ("dea", "ega")),
    Claim("DEA's TDD is above GPA's in every run", "tdd", "in every run", ("dea", "gpa")),
    Claim("RIA has the highest TDD", "tdd", "highest", _first("ria")),
    Claim("RIA has the lowest OT abs", "odd_abs", "lowest", _first("ria")),
    Claim("RIA has the lowest stability", "stability", "lowest", _first("ria")),
    Claim("EGA has the highest stability", "stability", "highest", _first("ega")),
    Claim("EGA has the lowest runtime", "runtime_s", "lowest", _first("ega")),
    Claim("DEA lies between EGA and RIA in TDD", "tdd", "between", ("dea", "ega", "ria")),
    Claim("DEA lies between EGA and RIA in OT abs", "odd_abs", "between", ("dea", "ega", "ria")),
    Claim("DEA lies between EGA and RIA in stability", "stability", "between", ("dea", "ega", "ria")),
    Claim("GPA has the highest insertion gain", "insertion_gain", "highest", _first("gpa")),
)
"""All but those on alpha, which depend on the variants that a run carries: see `alpha_claims`."""

ALPHAS = (0.5, 0.6, 0.7, 0.8)
"""Variants of DEA that the protocol's runs carry."""


CLAIMED = tuple(dict.fromkeys(claim.metric for claim in CLAIMS))
"""The metrics that the claims are about."""


def check_claims(values: pd.DataFrame, images: Mapping[str, Paired]) -> pd.DataFrame:
    """Each of the paper's claims on one data set.

    Args:
        values: of `summary.run_values`.
        images: of the same runs, by each metric of `CLAIMED`.

    Returns:
        Columns data, claim (in words), holds (of `VERDICTS`), count (in how many of the runs that were to tell it
        holds, "5/6 runs", with the draws, or "the only run"), images (on which both have a value), rival (the
        other method that leaves the least margin), of, difference (to the rival), low, high (see the module), note
        (`OTHER_WAY` where the difference has another sign than that of the means), numbers (in words: means and stds
        over runs, and the runs in which it does not hold; or why it is not testable), metric.
    """
    runs = list(values["run"].unique())
    rows: list[dict[str, Any]] = []
    for claim in (*CLAIMS, *alpha_claims(list(values["method"].unique()))):
        chosen = values[values["metric"] == claim.metric]
        means = chosen.pivot(index="run", columns="method", values="value")
        means = means.reindex(index=runs, columns=list(claim.methods))
        held = chosen[chosen["method"].isin(claim.methods)].groupby("run")["method"].nunique()
        planned = [str(run) for run in held.index[held == len(claim.methods)]]
        words = claim.words.replace("in every run", "in the only run") if len(runs) == 1 else claim.words
        judged = _judge(claim, means, planned, images[claim.metric])
        rows.append({"data": images[claim.metric].data, "claim": words, "metric": claim.metric} | judged)
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def verdict_words(verdicts: "pd.Series[str]") -> list[str]:
    """How many verdicts there are of each kind, those that occur: "3 hold", "1 is a draw"."""
    counts = verdicts.value_counts()
    return [f"{counts[name]} {verbs[int(counts[name] > 1)]}" for name, verbs in VERDICTS.items() if counts.get(name, 0)]


def interval_words(row: Mapping[Any, Any]) -> str:
    """What stands beside a verdict: "to ega, pooled drop: +0.210 [+0.180, +0.240], 89 images"; nothing for none."""
    if not row["rival"]:
        return ""
    bounds = f"no interval below {LEAST_INTERVAL} images" if row["images"] < LEAST_INTERVAL else "no interval"
    bounds = bounds if isnan(row["low"]) else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    note = f"; {row['note']}" if row["note"] else ""
    return f"to {row['rival']}, {row['of']}: {row['difference']:+.3f} {bounds}, {row['images']} images{note}"


def alpha_claims(methods: Sequence[str]) -> list[Claim]:
    """For each alpha in [0.5, 0.8], those of the protocol and those among `methods`: DEA's TDD stays above EGA's."""
    names = {alpha: f"dea@alpha={alpha:g}" for alpha in ALPHAS}
    for name in methods:
        found = re.fullmatch(r"dea@alpha=([0-9.]+)", name)
        if found and ALPHAS[0] <= float(found[1]) <= ALPHAS[-1]:
            names[float(found[1])] = name
    return [
        Claim(f"with alpha = {alpha:g}, DEA's TDD is above EGA's", "tdd", "above", (name, "ega"))
        for alpha, name in sorted(names.items())
    ]


def _judge(claim: Claim, table: pd.DataFrame, planned: Sequence[str], images: Paired) -> dict[str, Any]:
    """Verdict, count, numbers, and the difference to the rival.

    Args:
        table: run-level means, a row per run and the claim's methods as columns.
        planned: the runs that were to measure all of them.
        images: of the claim's metric.
    """
    subject, others = claim.methods[0], list(claim.methods[1:])
    label = METRICS[claim.metric].label
    missing = [name for name in claim.methods if table[name].isna().all()]
    if missing:
        return _untestable(f"no run has a value of {label} for {', '.join(missing)}")
    alone = [name for name in others if not table[[subject, name]].notna().all(axis=1).any()]
    if alone or (claim.kind == "between" and not table.notna().all(axis=1).any()):
        return _untestable(f"no run has {label} of all that are compared: {', '.join(claim.methods)}")
    found = {name: difference(images, subject, name) for name in others}
    fewest = min(others, key=lambda name: int(found[name]["images"]))
    if found[fewest]["images"] < LEAST_IMAGES:
        few = f"{found[fewest]['images']} images have {label} of {subject} and {fewest}, at least {LEAST_IMAGES} needed"
        return _untestable(f"{few}; {_numbers(claim, table)}")
    sides = table.apply(lambda row: _side(claim, row), axis=1).dropna()
    held, drawn = int((sides > 0).sum()), int((sides == 0).sum())
    draws = f", {drawn} draw{'s' if drawn != 1 else ''}" if drawn else ""
    unknown = [run for run in planned if run not in sides.index]
    told = len(sides) + len(unknown)
    count = "the only run" if len(table) == 1 else f"{held}/{told} run{'s' if told != 1 else ''}{draws}"
    numbers = _numbers(claim, table)
    for said, which in (("not in", sides < 0), ("a draw in", sides == 0)):
        numbers += f"; {said} {', '.join(map(str, sides.index[which]))}" if which.any() and len(table) > 1 else ""
    if unknown:
        numbers += f"; no value of one of them in {', '.join(unknown)}"
    without = [str(run) for run in table.index if run not in planned]
    if without:
        numbers += f"; not all of them were run in {', '.join(without)}"
    verdict = {1: "holds", 0: "draw", -1: "fails"}[_in_the_mean(claim, table)]
    if claim.kind == "in every run":
        untold = "not testable" if unknown else "draw" if drawn else "holds"
        verdict = "fails" if (sides < 0).any() else untold
    rival = _rival(claim, table)
    beside = {name: found[rival][name] for name in ("images", "of", "difference", "low", "high")}
    means = table[[subject, rival]].dropna().mean()
    against = side(means[subject], means[rival], claim.metric) * beside["difference"] < 0
    note = OTHER_WAY if against and abs(beside["difference"]) >= DRAW else ""
    return {"holds": verdict, "count": count, "numbers": numbers, "rival": rival, "note": note} | beside


def _untestable(why: str) -> dict[str, Any]:
    nothing = {"images": 0, "rival": "", "of": "", "difference": nan, "low": nan, "high": nan, "note": ""}
    return {"holds": "not testable", "count": "0/0 runs", "numbers": why} | nothing


def _side(claim: Claim, means: pd.Series) -> float:
    """1 where a run's means agree with the claim, -1 where they do not, 0 for a draw, NaN where it cannot tell.

    The highest and the lowest are so among the methods that the run has, of which there must be another.
    """
    own, rest = means[claim.methods[0]], means[list(claim.methods[1:])]
    if claim.kind == "between":
        whole = not means.isna().any()
        ends = [(own, rest.min()), (rest.max(), own)]
    else:
        rest = rest.dropna()
        whole = len(rest) > 0 and not isnan(own)
        ends = [(other, own) if claim.kind == "lowest" else (own, other) for other in rest]
    return min(side(one, other, claim.metric) for one, other in ends) if whole else nan


def _in_the_mean(claim: Claim, table: pd.DataFrame) -> int:
    """The side of the means over runs: the first method against each other one, over the runs that have both."""
    if claim.kind == "between":
        return int(_side(claim, table.dropna().mean()))
    pairs = [table[[claim.methods[0], name]].dropna().mean() for name in claim.methods[1:]]
    sign = -1 if claim.kind == "lowest" else 1
    return min(sign * side(pair.iloc[0], pair.iloc[1], claim.metric) for pair in pairs)


def _rival(claim: Claim, table: pd.DataFrame) -> str:
    """Which of the others decides in the mean: the one that leaves the first method the least margin."""
    subject, others = claim.methods[0], list(claim.methods[1:])
    shared = table.dropna() if claim.kind == "between" else table
    margins = {name: float((shared[subject] - shared[name]).mean()) for name in others}
    if claim.kind == "lowest":
        return max(others, key=margins.__getitem__)
    if claim.kind == "between":  # above the lower one of the ends, and below the higher one
        higher = min(others, key=margins.__getitem__)
        margins[higher] = -margins[higher]
    return min(others, key=margins.__getitem__)


def _numbers(claim: Claim, table: pd.DataFrame) -> str:
    """Means and stds over runs in words; of a method that fewer runs have, also what the first one has in those."""
    if claim.kind == "between":
        table = table.dropna()
    subject = claim.methods[0]
    own = table[subject].dropna()
    words = []
    for name in claim.methods:
        shared = table[name][table[name].notna() & table[subject].notna()]
        text = f"{_title(name)} {_mean(shared)}"
        if len(shared) < len(own):
            there = _mean(table.loc[shared.index, subject])
            text += f" (over the {len(shared)} runs that have it, where {_title(subject)} has {there})"
        words.append(text)
    return f"{METRICS[claim.metric].label}: {', '.join(words)}"


def _title(method: str) -> str:
    name, at, parameters = method.partition("@")
    return name.upper() + at + parameters


def _mean(values: pd.Series) -> str:
    mean = float(values.mean())
    places = 3 if abs(mean) >= 0.1 else 4
    return f"{mean:.{places}f}" + (f" ± {values.std(ddof=1):.{places}f}" if len(values) > 1 else "")
