"""The paper's claims (SPEC section 4), put to the test among its four methods, on any suite of runs.

Claims of "every run" are judged run by run, among the runs that have both methods (the paper's ablations lack GPA): one
run is enough to fail, and where none fails but one lacks a value, the claim is not testable. The others are judged on
the suite's means over runs, and it is counted in how many runs they hold too. Two methods are always compared over the
runs that have both, by their run-level means; a method that is equal to another is neither above nor below it
(differences are rounded to 1e-9).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from segfaith.evaluation.metrics import METRICS
from segfaith.results.paper import PAPER_METHODS
from segfaith.results.tables import Run, run_values

CLAIM_COLUMNS = ["data", "claim", "holds", "count", "numbers", "metric"]
DIGITS = 9
"""Differences are rounded to this many places, so that rounding errors decide nothing."""


@dataclass(frozen=True)
class Claim:
    """What the paper says of the first method.

    Attributes:
        kind: `in every run`: above the second one in every run; `above`: above it in the mean; `highest`, `lowest`:
            so among all of `methods` in the mean; `between`: strictly between the second and the third in the mean.
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


def check_claims(runs: Sequence[Run], min_s: float | None = None) -> pd.DataFrame:
    """Each of the paper's claims on each data set.

    Returns:
        Columns data, claim (in words), holds ("holds", "fails" or "not testable"), count (in how many of the runs that
        can tell it holds, "5/6 runs"), numbers (in words: means and stds over runs, and the runs in which it does not
        hold; or why it is not testable), metric.
    """
    values = run_values(runs, min_s)
    rows = []
    for data, group in values.groupby("data", sort=False):
        for claim in (*CLAIMS, *alpha_claims(list(group["method"].unique()))):
            chosen = group[group["metric"] == claim.metric]
            table = chosen.pivot(index="run", columns="method", values="value").reindex(
                index=list(group["run"].unique()), columns=list(claim.methods)
            )
            own = chosen[chosen["method"].isin(claim.methods)].groupby("run")["method"].nunique()
            planned = [str(run) for run in own.index[own == len(claim.methods)]]
            rows.append([data, claim.words, *_judge(claim, table, planned), claim.metric])
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


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


def _judge(claim: Claim, table: pd.DataFrame, planned: Sequence[str]) -> tuple[str, str, str]:
    """Verdict, count and numbers.

    Args:
        table: run-level means, a row per run and the claim's methods as columns.
        planned: the runs that were to measure all of them.
    """
    subject, others = claim.methods[0], list(claim.methods[1:])
    label = METRICS[claim.metric].label
    missing = [name for name in claim.methods if table[name].isna().all()]
    if missing:
        return "not testable", "0/0 runs", f"no run has a value of {label} for {', '.join(missing)}"
    alone = [name for name in others if not table[[subject, name]].notna().all(axis=1).any()]
    if alone or (claim.kind == "between" and not table.notna().all(axis=1).any()):
        return "not testable", "0/0 runs", f"no run has {label} of all that are compared: {', '.join(claim.methods)}"
    margins = _margins(claim, table).dropna()
    inside = margins.round(DIGITS) > 0
    count = f"{int(inside.sum())}/{len(margins)} run{'s' if len(margins) != 1 else ''}"
    numbers = _numbers(claim, table)
    if not inside.all():
        numbers += f"; not in {', '.join(map(str, margins.index[~inside]))}"
    unknown = [run for run in planned if run not in margins.index]
    if unknown:
        numbers += f"; no value of one of them in {', '.join(unknown)}"
    without = [str(run) for run in table.index if run not in planned]
    if without:
        numbers += f"; not all of them were run in {', '.join(without)}"
    if claim.kind != "in every run":
        return "holds" if _in_the_mean(claim, table) else "fails", count, numbers
    return "fails" if not inside.all() else "not testable" if unknown else "holds", count, numbers


def _margins(claim: Claim, table: pd.DataFrame) -> pd.Series:
    """By how much each run agrees: positive where the claim holds, NaN where the run cannot tell.

    The highest and the lowest are so among the methods that the run has, of which there must be another.
    """
    own, rest = table[claim.methods[0]], table[list(claim.methods[1:])]
    if claim.kind == "between":
        low, high = rest.min(axis=1, skipna=False), rest.max(axis=1, skipna=False)
        return pd.concat([own - low, high - own], axis=1).min(axis=1, skipna=False)
    return rest.min(axis=1) - own if claim.kind == "lowest" else own - rest.max(axis=1)


def _in_the_mean(claim: Claim, table: pd.DataFrame) -> bool:
    """Whether the means over runs agree: the first method against each other one, over the runs that have both."""
    if claim.kind == "between":
        means = table.dropna().mean().to_frame().T
        return bool(_margins(claim, means).round(DIGITS).iloc[0] > 0)
    sign = -1 if claim.kind == "lowest" else 1
    differences = [(table[claim.methods[0]] - table[name]).mean() * sign for name in claim.methods[1:]]
    return min(round(float(value), DIGITS) for value in differences) > 0


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
