"""The gallery of the report page: which samples it holds, in which order, and their numbers.

    chosen     at most 200: failures and skipped ones, those whose maps differ most, and a spread over the others
    ordered    by disagreement of the methods, the largest first

Both rules stand on the page. A `Sample` is a pair of run and image, or one of its targets; a `cases.Case` is a choice
among them, with its reason.
"""

import re
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import leading
from segfaith.paths import map_folder
from segfaith.results.figures.kept import kept_size, read_map
from segfaith.results.records.runs import Run, class_name
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import base, is_reference, method_order, without_truth
from segfaith.results.report.blocks import count, ref, words
from segfaith.results.statistics.analysis import DataAnalysis
from segfaith.results.statistics.summary import PLANTED_METRICS, TABLE_METRICS
from segfaith.results.statistics.targets import name_of

MOST, MOST_BAD = 200, 40
"""Samples in the gallery; at most so many of them are failures or skipped."""
Key = tuple[Path, str, str]
SIDE = 28
"""Maps are compared at this size at most."""
SHOWN = tuple(name for name in (*TABLE_METRICS, *PLANTED_METRICS[:1]) if name != "runtime_s")
REASON = 400
"""Characters of a reason that are shown."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image of a run, or one of its targets where it has several.

    Attributes:
        label: the run's name.
        rows: its records, a row per method.
        disagreement: how far the methods differ on it; NaN where that is undefined.
        anchor: its place on the page, different for different samples.
    """

    run: Run
    label: str
    sample_id: str
    rows: pd.DataFrame
    disagreement: float = nan
    anchor: str = ""
    target: str = ""

    @property
    def shown(self) -> list[str]:
        """The metrics that the page shows of it, TDD or TDD drop first."""
        return leading(SHOWN, self.run.score)

    @property
    def key(self) -> Key:
        """What tells it from all others: the run's directory, its id and its target."""
        return self.run.directory, self.sample_id, self.target

    @property
    def name(self) -> str:
        """The image, and which of its targets where it has several."""
        return name_of(self.sample_id, self.target)

    @cached_property
    def status(self) -> str:
        """`failed` if any method failed, `skipped`, or `ok`."""
        found = set(self.rows["status"])
        if found != {"ok"}:
            found = set(without_truth(self.rows)["status"])
        return next((one for one in ("failed", "skipped") if one in found), "ok")

    @property
    def s(self) -> float:
        """The model's score of the target; NaN where none was measured."""
        known = self.rows["s"].dropna()
        return float(known.iloc[0]) if len(known) else nan

    def figures(self, columns: Iterable[str]) -> list[dict[Hashable, Any]]:
        """Its rows as plain values: the method, and those of the columns that the records have."""
        held = ["method", *(name for name in columns if name in self.rows)]
        return self.rows[held].to_dict("records")

    @cached_property
    def class_name(self) -> str:
        """The name of the target's class."""
        known = self.rows["class_index"].dropna()
        if not len(known):
            return "no class"
        return class_name(self.run.description, int(known.iloc[0]))

    @cached_property
    def folder(self) -> Path | None:
        """Where its maps lie, or None where none were kept; never outside the run's directory."""
        root = (self.run.directory / "maps").resolve()
        folder = (root / map_folder(self.sample_id, self.target)).resolve()
        return folder if folder.is_relative_to(root) and (folder / "image.png").is_file() else None

    @cached_property
    def reasons(self) -> list[tuple[str, str]]:
        """Methods and why their row is not ok or has undefined values; methods with the same reason together."""
        found: dict[str, list[str]] = {}
        rows = without_truth(self.rows)
        for method, status, reason in zip(rows["method"], rows["status"], rows["reason"], strict=True):
            said = str(reason) if isinstance(reason, str) else ""
            if status != "ok":
                said = f"{status}: {said or 'no reason given'}"
            if said:
                found.setdefault(said[:REASON] + ("…" if len(said) > REASON else ""), []).append(str(method))
        return [("all methods" if len(names) == len(rows) else ", ".join(names), why) for why, names in found.items()]


@dataclass(frozen=True, eq=False)
class Gallery:
    """The chosen samples in their order, and the rules in words."""

    samples: tuple[Sample, ...]
    rule: Markup
    measure: str


def gallery(parts: Sequence[DataAnalysis], most: int = MOST, always: Collection[Key] = ()) -> Gallery:
    """The samples for the page, those where methods disagree most first.

    The samples of `always` enter, by `Sample.key`. Up to `MOST_BAD` samples that failed (in part, too) or were skipped
    enter, failed ones first, as the runs list them. Half of the rest are those with the largest disagreement, the
    others are spread evenly over the remaining ones in the order of disagreement. If all fit, all are there.
    """
    samples = [sample for part in parts for sample in _samples(part)]
    maps = all(one.folder for one in samples if (one.rows["status"] == "ok").any()) and any(
        one.folder for one in samples
    )
    measure = "disagreement" if maps else "spread"
    if maps:
        samples = [replace(one, disagreement=disagreement(one)) for one in samples]
    else:
        runs = [run for part in parts for run in part.read]
        found = {run.directory: spreads(run.records, leading(SHOWN, run.score)[0]) for run in runs}
        samples = [
            replace(one, disagreement=found[one.run.directory].get((one.sample_id, one.target), nan)) for one in samples
        ]
    chosen = [replace(one, rows=one.run.records.loc[one.rows.index]) for one in choose(samples, most, always)]
    ordered = sorted(chosen, key=_by_disagreement)
    return Gallery(tuple(_anchored(ordered)), _rule(samples, chosen, most, measure, len(always)), measure)


def choose(samples: Sequence[Sample], most: int = MOST, always: Collection[Key] = ()) -> list[Sample]:
    """At most `most` of the samples by the rules of `gallery`, or as many as `always` names."""
    if len(samples) <= most:
        return list(samples)
    first = [sample for sample in samples if sample.key in always] if always else []
    others = [sample for sample in samples if sample.key not in always] if always else list(samples)
    room = max(0, most - len(first))
    bad = sorted((one for one in others if one.status != "ok"), key=lambda one: one.status)[: min(MOST_BAD, room)]
    good = sorted((one for one in others if one.status == "ok"), key=_by_disagreement)
    room = min(room - len(bad), len(good))
    top, rest = good[: room - room // 2], good[room - room // 2 :]
    places = [round(float(place)) for place in np.linspace(0, len(rest) - 1, room // 2)]
    return [*first, *bad, *top, *(rest[place] for place in dict.fromkeys(places))]


def disagreement(sample: Sample) -> float:
    """Mean over pairs of methods of 1 - Spearman correlation of their maps, at most 28 x 28; controls and variants
    are left out, and pairs with a constant map. NaN without two maps."""
    size = None if sample.folder is None else kept_size(sample.folder)
    if sample.folder is None or size is None:
        return nan
    compared = [name for name in sample.rows.loc[sample.rows["status"] == "ok", "method"] if _compared(name)]
    return mean_disagreement([kept for name in compared if (kept := kept_map(sample.folder, name, size)) is not None])


def mean_disagreement(maps: Sequence[NDArray[Any]]) -> float:
    """Mean over pairs of maps (H, W) of 1 - Spearman correlation after averaging down to at most 28 x 28."""
    ranked = [rankdata(np.asarray(shrunk(one, SIDE)).round(6).ravel()) for one in maps]
    varied = [one for one in ranked if one.std() > 0]
    values = [1 - float(np.corrcoef(first, second)[0, 1]) for first, second in combinations(varied, 2)]
    return float(np.mean(values)) if values else nan


def spreads(rows: pd.DataFrame, metric: str = "tdd") -> dict[Hashable, float]:
    """Of each target the largest less the smallest TDD (or `metric`) of the methods, without controls and variants.

    Targets with fewer than two values are left out.
    """
    compared = {name for name in rows["method"].unique() if _compared(name)}
    values = rows[(rows["status"] == "ok") & rows["method"].isin(compared) & rows[metric].notna()]
    by_target = values.groupby(TARGET, sort=False)[metric].agg(["max", "min", "count"])
    by_target = by_target[by_target["count"] > 1]
    found: dict[Hashable, float] = (by_target["max"] - by_target["min"]).to_dict()
    return found


def kept_map(folder: Path, method: str, size: tuple[int, ...] | None = None) -> NDArray[np.float32] | None:
    """A method's map, or None where it was not kept, is damaged or hasn't the image's size (H, W)."""
    try:
        return read_map(folder, method, size)
    except SettingsError:
        return None


def shrunk(heatmap: NDArray[Any], side: int) -> Image.Image:
    """A map averaged down so that its longer side is at most `side`."""
    image = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def methods_of(samples: Sequence[Sample]) -> list[str]:
    """All methods of the samples in the paper's order."""
    return method_order(name for one in samples for name in one.rows["method"])


def scores_of(sample: Sample, measure: str) -> dict[str, Any]:
    """What the page filters by: plain values without NaN."""
    by_method: dict[str, dict[str, float]] = {}
    for row in sample.figures(sample.shown):
        values = {name: _plain(row.get(name)) for name in sample.shown}
        by_method[str(row["method"])] = {name: value for name, value in values.items() if value is not None}
    return {
        "class": sample.class_name,
        "run": sample.label,
        "status": sample.status,
        "undefined": bool(sample.reasons) and sample.status == "ok",
        "s": _plain(sample.s),
        measure: _plain(sample.disagreement),
        "methods": by_method,
    }


def _samples(part: DataAnalysis) -> list[Sample]:
    """All samples, with the few columns by which they are chosen: whole rows of all would be held twice."""
    return [
        Sample(run, label, str(sample_id), rows, target=str(target))
        for label, run in zip(part.names, part.read, strict=True)
        for (sample_id, target), rows in run.records[[*TARGET, "method", "status"]].groupby(TARGET, sort=False)
    ]


def _by_disagreement(sample: Sample) -> tuple[bool, float, str, str, str]:
    return isnan(sample.disagreement), -sample.disagreement, sample.label, sample.sample_id, sample.target


def _anchored(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their anchors: "sample-ID", or "sample-RUN-ID" where there are several runs; then the target."""
    several = len({sample.label for sample in samples}) > 1
    used: set[str] = set()
    result = []
    for sample in samples:
        named = "-".join(filter(None, (sample.label if several else "", sample.sample_id, sample.target)))
        plain = "sample-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", named)
        anchor, place = plain, 1
        while anchor in used:
            place += 1
            anchor = f"{plain}-{place}"
        used.add(anchor)
        result.append(replace(sample, anchor=anchor))
    return result


def _rule(samples: Sequence[Sample], chosen: Sequence[Sample], most: int, measure: str, always: int) -> Markup:
    bad = sum(sample.status != "ok" for sample in samples)
    kept = sum(sample.status != "ok" for sample in chosen)
    if len(chosen) == len(samples):
        which = f"All {count(len(samples), 'sample')} of these runs."
    else:
        first = "the samples shown above; " if always else ""
        first += f"{kept} of the {bad} that failed or were skipped; " if bad else ""
        which = (
            f"{len(chosen)} of {count(len(samples), 'sample')}, at most {most}: {first}"
            f"{'of the others ' if first else ''}one half where the methods disagree most, one half spread evenly over "
            "the rest."
        )
    return words(
        "{} A sample is a pair of run and image{}. First come those with the largest {}.",
        which,
        ", or one of the targets of an image that has several" if any(sample.target for sample in samples) else "",
        ref(measure, "disagreement of the maps" if measure == "disagreement" else "spread of TDD between methods"),
    )


def _compared(method: str) -> bool:
    return not is_reference(method) and base(method) == method


def _plain(value: Any) -> float | None:
    return round(float(value), 5) if isinstance(value, float | int) and isfinite(value) else None
