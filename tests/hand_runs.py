"""Runs made by hand, in memory, whose every number is known."""

from math import nan
from typing import Any

import pandas as pd

from made_runs import run_of
from segfaith.results.records.runs import Run
from segfaith.results.statistics.summary import TABLE_METRICS


def row(sample: str, method: str, tdd: float = nan, **values: Any) -> dict[str, Any]:
    """A record: measured, with s = 0.5, and every metric of the table 0 unless given."""
    base = dict.fromkeys(TABLE_METRICS, 0.0) | {"s": 0.5, "status": "ok", "reason": ""}
    return {"sample_id": sample, "method": method} | base | {"tdd": tdd} | values


def bad(sample: str, method: str, status: str) -> dict[str, Any]:
    empty = dict.fromkeys([*TABLE_METRICS, "s"], nan)
    return {"sample_id": sample, "method": method, "status": status, "reason": "why"} | empty


def run_of_rows(
    *rows: dict[str, Any], data: str = "voc2012", samples: int | None = None, seed: int = 4, **model: Any
) -> Run:
    frame = pd.DataFrame(list(rows))
    ids = list(dict.fromkeys(frame["sample_id"])) if samples is None else [f"id{i}" for i in range(samples)]
    description = {
        "data": {"name": data, "split": "val", "samples": ids},
        "model": {"name": "net", "weights": "net.pth"} | model,
        "settings": {"seed": seed},
    }
    return run_of(description, frame)


def entry(summary: pd.DataFrame, method: str, metric: str = "tdd", data: str = "voc2012 val") -> dict[str, Any]:
    chosen = summary[(summary["data"] == data) & (summary["method"] == method) & (summary["metric"] == metric)]
    assert len(chosen) == 1
    return chosen.to_dict("records")[0]


THREE_RUNS = [
    run_of_rows(row("a", "ega", 0.1), row("b", "ega", 0.3), row("a", "dea", 0.6), row("b", "dea", 0.8)),
    run_of_rows(row("a", "ega", 0.5), row("a", "dea", 0.4), seed=5),
    run_of_rows(row("a", "ega", 0.2), row("b", "ega", 0.2), row("c", "ega", 0.8), row("a", "dea", 1.0), seed=6),
]


def one_metric(
    values: dict[str, list[float]], metric: str = "tdd", data: str = "voc2012", split: str = "val", **settings: Any
) -> Run:
    """A run with one metric's values by method, a sample each; the other metrics are undefined."""
    rows = [
        dict.fromkeys(TABLE_METRICS, nan)
        | {"sample_id": f"i{place}", "method": method, "s": 0.5, "status": "ok", "reason": "", metric: value}
        for method, column in values.items()
        for place, value in enumerate(column)
    ]
    description = {
        "data": {"name": data, "split": split, "samples": ["i0"]},
        "model": {"name": "net", "weights": "net.pth"},
        "settings": {"seed": 4} | settings,
    }
    return run_of(description, pd.DataFrame(rows))
