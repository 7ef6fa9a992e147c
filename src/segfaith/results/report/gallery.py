"""The gallery of the report page: which samples it holds, in which order, and their numbers.

    chosen     at most 200: failures and skipped ones, those whose maps differ most, and a spread over the others
    ordered    by disagreement of the methods, the largest first

Both rules stand on the page. A sample is a pair of run and image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from segfaith.paths import map_name
from segfaith.results.records.runs import Run
from segfaith.results.records.select import base, grouped, is_control, method_order
from segfaith.results.report.blocks import count, ref, words
from segfaith.results.statistics.summary import PLANTED_METRICS, TABLE_METRICS, run_labels

MOST, MOST_BAD = 200, 40
"""Samples in the gallery; at most so many of them are failures or skipped."""
SIDE = 28
"""Maps are compared at this size at most."""
SHOWN = tuple(name for name in (*TABLE_METRICS, *PLANTED_METRICS[:1]) if name != "runtime_s")
REASON = 400
"""Characters of a reason that are shown."""


@dataclass(frozen=True, eq=False)
class Item:
    """A sample of a run; `disagreement` is NaN where it is undefined."""

    run: Run
    label: str
    data: str
    sample_id: str
    rows: pd.DataFrame
    disagreement: float = nan

    @property
    def status(self) -> str:
        """`failed` if any method failed, `skipped`, or `ok`."""
        found = set(self.rows["status"])
        return next((one for one in ("failed", "skipped") if one in found), "ok")

    @property
    def s(self) -> float:
        """The model's score of the target; NaN where none was measured."""
        known = self.rows["s"].dropna()
        return float(known.iloc[0]) if len(known) else nan

    @property
    def class_name(self) -> str:
        """The name of the target's class."""
        known = self.rows["class_index"].dropna()
        if not len(known):
            return "no class"
        names, index = self.run.description["model"].get("classes") or [], int(known.iloc[0])
        return str(names[index]) if index < len(names) else f"class {index}"

    @property
    def folder(self) -> Path | None:
        """Where its maps lie, or None where none were kept; never outside the run's directory."""
        root = (self.run.directory / "maps").resolve()
        folder = (root / self.sample_id).resolve()
        return folder if folder.is_relative_to(root) and (folder / "image.png").is_file() else None

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Methods and why their row is not ok or has undefined values; methods with the same reason together."""
        found: dict[str, list[str]] = {}
        for method, status, reason in zip(self.rows["method"], self.rows["status"], self.rows["reason"], strict=True):
            said = str(reason) if isinstance(reason, str) else ""
            if status != "ok":
                said = f"{status}: {said or 'no reason given'}"
            if said:
                found.setdefault(said[:REASON] + ("…" if len(said) > REASON else ""), []).append(str(method))
        return [
            ("all methods" if len(names) == len(self.rows) else ", ".join(names), why) for why, names in found.items()
        ]


@dataclass(frozen=True, eq=False)
class Gallery:
    """The chosen items in their order, and the rules in words."""

    items: tuple[Item, ...]
    rule: Markup
    measure: str


def gallery(data: Sequence[Run], most: int = MOST) -> Gallery:
    """The samples for the page, those where methods disagree most first.

    Up to `MOST_BAD` samples that failed (in part, too) or were skipped enter, failed ones first, as the runs list them.
    Half of the rest are those with the largest disagreement, the others are spread evenly over the remaining ones in
    the order of disagreement. If all fit, all are there.
    """
    items = [item for group in grouped(data).items() for item in _items(*group)]
    maps = all(item.folder for item in items if (item.rows["status"] == "ok").any()) and any(
        item.folder for item in items
    )
    measure = "disagreement" if maps else "spread"
    items = [
        Item(one.run, one.label, one.data, one.sample_id, one.rows, disagreement(one) if maps else spread(one.rows))
        for one in items
    ]
    chosen = choose(items, most)
    ordered = sorted(chosen, key=lambda one: (isnan(one.disagreement), -one.disagreement, one.label, one.sample_id))
    return Gallery(tuple(ordered), _rule(items, chosen, most, measure), measure)


def choose(items: Sequence[Item], most: int = MOST) -> list[Item]:
    """At most `most` of the items by the rules of `gallery`."""
    if len(items) <= most:
        return list(items)
    bad = sorted((one for one in items if one.status != "ok"), key=lambda one: one.status)[: min(MOST_BAD, most)]
    good = sorted(
        (one for one in items if one.status == "ok"),
        key=lambda one: (isnan(one.disagreement), -one.disagreement, one.label, one.sample_id),
    )
    room = min(most - len(bad), len(good))
    top, rest = good[: room - room // 2], good[room - room // 2 :]
    places = [round(float(one)) for one in np.linspace(0, len(rest) - 1, room // 2)]
    return [*bad, *top, *(rest[place] for place in dict.fromkeys(places))]


def disagreement(item: Item) -> float:
    """Mean over pairs of methods of 1 - Spearman correlation of their maps, at most 28 x 28; controls and variants
    are left out, and pairs with a constant map. NaN without two maps."""
    if item.folder is None:
        return nan
    compared = [name for name in item.rows.loc[item.rows["status"] == "ok", "method"] if _compared(name)]
    found = [heatmap for name in compared if (heatmap := read_map(item.folder, name)) is not None]
    return mean_disagreement(found)


def mean_disagreement(maps: Sequence[NDArray[Any]]) -> float:
    """Mean over pairs of maps (H, W) of 1 - Spearman correlation after averaging down to at most 28 x 28."""
    ranked = [rankdata(np.asarray(shrunk(one, SIDE)).round(6).ravel()) for one in maps]
    varied = [one for one in ranked if one.std() > 0]
    values = [1 - float(np.corrcoef(first, second)[0, 1]) for first, second in combinations(varied, 2)]
    return float(np.mean(values)) if values else nan


def spread(rows: pd.DataFrame) -> float:
    """Largest less smallest TDD of the methods, controls and variants left out; NaN with fewer than two."""
    values = rows.loc[(rows["status"] == "ok") & rows["method"].map(_compared).astype(bool), "tdd"].dropna()
    return float(values.max() - values.min()) if len(values) > 1 else nan


def read_map(folder: Path, method: str) -> NDArray[np.float32] | None:
    """A method's map (H, W), or None where it was not kept or can't be read."""
    try:
        heatmap = np.load(folder / map_name(method), allow_pickle=False).astype(np.float32)
    except (OSError, ValueError):
        return None
    return heatmap if heatmap.ndim == 2 and np.isfinite(heatmap).all() else None


def shrunk(heatmap: NDArray[Any], side: int) -> Image.Image:
    """A map averaged down so that its longer side is at most `side`."""
    image = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def methods_of(items: Sequence[Item]) -> list[str]:
    """All methods of the items in the paper's order."""
    return method_order(name for one in items for name in one.rows["method"])


def scores_of(item: Item, measure: str) -> dict[str, Any]:
    """What the page filters by: plain values without NaN."""
    by_method: dict[str, dict[str, float]] = {}
    for row in item.rows.to_dict("records"):
        values = {name: _plain(row.get(name)) for name in SHOWN}
        by_method[str(row["method"])] = {name: value for name, value in values.items() if value is not None}
    return {
        "class": item.class_name,
        "run": item.label,
        "status": item.status,
        "undefined": bool(item.reasons) and item.status == "ok",
        "s": _plain(item.s),
        measure: _plain(item.disagreement),
        "methods": by_method,
    }


def _items(data: str, group: Sequence[Run]) -> list[Item]:
    labels = run_labels(group)
    return [
        Item(run, label, data, str(sample_id), rows)
        for label, run in zip(labels, group, strict=True)
        for sample_id, rows in run.records.groupby("sample_id", sort=False)
    ]


def _rule(items: Sequence[Item], chosen: Sequence[Item], most: int, measure: str) -> Markup:
    bad = sum(one.status != "ok" for one in items)
    kept = sum(one.status != "ok" for one in chosen)
    if len(chosen) == len(items):
        which = f"All {count(len(items), 'sample')} of these runs."
    else:
        first = f"{kept} of the {bad} that failed or were skipped; of the others " if bad else ""
        which = (
            f"{len(chosen)} of {count(len(items), 'sample')}, at most {most}: {first}one half where the methods "
            "disagree most, one half spread evenly over the rest."
        )
    return words(
        "{} A sample is a pair of run and image. First come those with the largest {}.",
        which,
        ref(measure, "disagreement of the maps" if measure == "disagreement" else "spread of TDD between methods"),
    )


def _compared(method: str) -> bool:
    return not is_control(method) and base(method) == method


def _plain(value: Any) -> float | None:
    return round(float(value), 5) if isinstance(value, float | int) and isfinite(value) else None
