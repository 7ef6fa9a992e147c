"""Tables of what planted evidence says: who finds it, which metrics rank methods as it does, what leakage makes of it.

All read the rows of `evidence.usable`: measured samples whose evidence the model was shown to use.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from segfaith.evaluation.metrics import leakage
from segfaith.results.records.select import is_control
from segfaith.results.statistics.evidence import GROUPS, JUDGED, KINDS, SCORES, agreement

SCORE_COLUMNS = ["kind", "method", *SCORES]
AGREEMENT_COLUMNS = [
    *("metric", "kind", "scenes", "tau", "low", "high", "verdict"),
    *("own_tau", "own_low", "own_high", "own_verdict"),
]
LEAKAGE_COLUMNS = ["kind", "method", "odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond", "scenes"]


def kinds_of(rows: pd.DataFrame) -> list[str]:
    """The kinds of evidence among the rows, in the order of `KINDS`."""
    return [kind for kind in KINDS if kind in set(rows["kind"])]


def groups_of(rows: pd.DataFrame) -> list[str]:
    """The kinds among the rows and, where there are several, the groups of kinds that are taken together."""
    kinds = kinds_of(rows)
    return [*kinds, *GROUPS] if len(kinds) > 1 else kinds


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean scores of each method against the planted evidence.

    Returns:
        Columns kind (or group of kinds), method, evidence_ap, evidence_mass, evidence_top: means over scenes, each in
        [0, 1]; NaN where the method has no row of the kind.
    """
    methods = list(dict.fromkeys(rows["method"]))
    table = []
    for kind in groups_of(rows):
        means = _of(rows, kind).groupby("method")[list(SCORES)].mean().reindex(methods)
        table += [[kind, name, *map(float, means.loc[name])] for name in methods]
    return pd.DataFrame(table, columns=SCORE_COLUMNS)


def agreements(rows: pd.DataFrame) -> pd.DataFrame:
    """`evidence.agreement` of each judged metric and kind, with the controls and without them.

    Returns:
        Columns metric, kind (or group of kinds), scenes, tau, low, high (tau-b in [-1, 1] and its interval; NaN where
        not testable), verdict (in words), and the same of the methods without controls: own_tau, own_low, own_high,
        own_verdict.
    """
    own_rows = rows[~rows["method"].map(is_control).astype(bool)]
    table: list[list[Any]] = []
    for metric in JUDGED:
        for kind in groups_of(rows):
            both, own = agreement(rows, kind, metric), agreement(own_rows, kind, metric)
            cells = [part for each in (both, own) for part in (each.tau, each.low, each.high, each.verdict)]
            table.append([metric, kind, both.scenes, *cells])
    return pd.DataFrame(table, columns=AGREEMENT_COLUMNS)


def leakages(rows: pd.DataFrame) -> pd.DataFrame:
    """Both leakages, and what of them is beyond the planted evidence.

    Returns:
        Columns kind, method, odd_abs, odd_beyond_abs (means), leak_abs, leak_beyond (medians, over the scenes on which
        TDD is above 0.05; of a control all its draws must have one), scenes (their number).
    """
    beyond = pd.Series(list(map(leakage, rows["odd_beyond_abs"], rows["tdd"])), rows.index, dtype=float)
    rows = rows.assign(leak_beyond=beyond.where(rows["leak_abs"].notna()))
    methods = list(dict.fromkeys(rows["method"]))
    table: list[list[Any]] = []
    for kind in kinds_of(rows):
        groups = rows[rows["kind"] == kind].groupby("method")
        means = groups[["odd_abs", "odd_beyond_abs"]].mean().reindex(methods).to_numpy(float)
        medians = groups[["leak_abs", "leak_beyond"]].median().reindex(methods).to_numpy(float)
        counts = groups["leak_abs"].count().reindex(methods, fill_value=0)
        values = np.hstack([means, medians]).tolist()
        table += [[kind, name, *line, int(count)] for name, line, count in zip(methods, values, counts, strict=True)]
    return pd.DataFrame(table, columns=LEAKAGE_COLUMNS)


def _of(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    members: Sequence[str] = GROUPS.get(kind, (kind,))
    return rows[rows["kind"].isin(members)]
