"""Runs on scenes with planted evidence, made by hand: the ranking of the methods is known."""

from typing import Any

import numpy as np
import pandas as pd

from made_runs import run_of
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run
from segfaith.results.statistics.evidence import JUDGED

KINDS = "plain,marker,context,conjunction,redundancy"
FOUR = ["gpa", "ega", "ria", "dea"]
COLUMNS = [*JUDGED, "evidence_ap", "evidence_mass", "evidence_top"]


def planted_run(rows: list[dict[str, Any]], proven: str | None = KINDS) -> Run:
    model = {"name": "scenes", "weights": "w"} | ({} if proven is None else {"proven_kinds": proven})
    about = {
        "model": model,
        "data": {"name": "scenes", "split": "val", "samples": []},
        "settings": {"seed": 0},
        "methods": {row["method"]: {} for row in rows},
    }
    return run_of(about, pd.DataFrame(rows))


def rows_of(
    aps: dict[str, float],
    values: dict[str, float] | None = None,
    *,
    scenes: int = 8,
    kind: str = "marker",
    noise: float = 0.0,
    first: int = 0,
    **columns: Any,
) -> list[dict[str, Any]]:
    """Records of some scenes, on which every method has these scores, `values` in every judged metric, and noise."""
    rng = np.random.default_rng(first)
    rows = []
    for scene in range(first, first + scenes):
        for method, ap in aps.items():
            value = (values or aps)[method]
            judged = {name: value if METRICS[name].better == "higher" else 1 - value for name in JUDGED}
            row = {"sample_id": f"val-{scene:04d}", "method": method, "class_index": 3, "majority_class": 3}
            row |= {"kind": kind, "status": "ok", **dict.fromkeys(COLUMNS, ap), **judged, **columns}
            rows.append(row | {name: row[name] + noise * rng.normal() for name in COLUMNS if name not in columns})
    return rows


RISING = dict(zip(FOUR, [0.1, 0.2, 0.3, 0.4], strict=True))
FALLING = dict(zip(FOUR, [0.4, 0.3, 0.2, 0.1], strict=True))
