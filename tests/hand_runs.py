"""Runs made by hand, in memory, whose every number is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
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
        "methods": {name: {} for name in frame["method"]},
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


CLASSES = ["background", "bird", "boat", "cat"]


def with_curves(
    values: dict[tuple[str, str, float, str], float],
    kind: str = "target_deletion",
    name: str = "one",
    seed: int = 0,
    **evaluation: Any,
) -> Run:
    """A run whose curves hold values[method, operator, k, sample]; its records are measured samples with s = .5."""
    rows = [
        {"method": method, "occlusion": operator, "k": k, "sample_id": sample, "kind": kind, "s": 0.5, "value": value}
        for (method, operator, k, sample), value in values.items()
    ]
    settings = {"occlusion": ["mean", "blur"], "k": [0.2, 0.1]} | evaluation
    description = {
        "data": {"name": "sbd", "split": "val", "samples": ["a"]},
        "model": {"name": "net", "weights": "net.pth", "classes": CLASSES},
        "settings": {"seed": seed, "name": name, "evaluation": settings},
    }
    measured = pd.DataFrame({"sample_id": ["a"], "method": ["ega"], "s": [0.5], "status": ["ok"]})
    return run_of(description, measured, pd.DataFrame(rows))


def with_samples(*rows: dict[str, Any]) -> Run:
    """A run of measured samples, by default of a TDD of .1 by ega."""
    base = {"status": "ok", "method": "ega", "class_index": 1, "target_area": 0.1, "s": 0.5, "tdd": 0.1}
    frame = pd.DataFrame([base | {"sample_id": f"i{place}"} | row for place, row in enumerate(rows)])
    return run_of(with_curves({("ega", "mean", 0.2, "a"): 0}).description, frame)


Values = Mapping[str, Sequence[float]]


def by_image(
    values: Values, ids: Sequence[str] | None = None, *, data: str = "voc2012", metric: str = "tdd", seed: int = 0
) -> Run:
    """A run in which method m has values[m][i] on image ids[i]."""
    count = len(next(iter(values.values())))
    ids = [f"img{i:02d}" for i in range(count)] if ids is None else ids
    rows = [
        {"sample_id": ids[i], "method": name, metric: one, "s": 0.5, "status": "ok"}
        for name, column in values.items()
        for i, one in enumerate(column)
    ]
    about = {
        "data": {"name": data, "split": "val", "samples": list(ids)},
        "model": {"name": "net", "weights": "net.pth"},
        "settings": {"seed": seed},
    }
    return run_of(about, pd.DataFrame(rows))


def repeated(run: Run, count: int = 2) -> list[Run]:
    """The same records under several seeds."""
    return [replace(run, description=run.description | {"settings": {"seed": seed}}) for seed in range(count)]


def twice(values: Values, **options: Any) -> list[Run]:
    """Two runs on the same images, whose averages are the values."""
    shift = {name: 0.01 * (1 + place) for place, name in enumerate(values)}
    return [
        by_image(
            {name: [one + sign * shift[name] for one in column] for name, column in values.items()},
            seed=sign,
            **options,
        )
        for sign in (1, -1)
    ]


def drawn(count: int, seed: int = 0, **means: float) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {name: (mean + rng.normal(0, 0.1, count)).tolist() for name, mean in means.items()}


def by_chance(rng: np.random.Generator, shift: float) -> list[Run]:
    """Two runs of three methods that differ by chance alone, but for `shift`.

    Both see the same 12 images, whose effects on methods they share: two values an image that are almost one.
    """
    truth = rng.normal(0, 0.1, 12) + rng.normal(0, 0.1, (3, 12)) + np.array([[shift], [0], [0]])
    return [
        by_image(dict(zip("abc", truth + rng.normal(0, 0.01, truth.shape), strict=True)), seed=seed)
        for seed in range(2)
    ]
