"""The rows of the speed table: which of our jobs stands beside which peers, and what a row says."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from dress import DRESSES, in_dress
from gauges import Run
from scipy.stats import spearmanr
from tables import PROCESSES

LEAST_DROP = 1e-3
"""Drops are ranked where the exact one is larger."""
CAPTUM = ("Occlusion", "FeatureAblation")
DROPS, GRADIENTS, COMPOSED, QUICKSTART = GROUPS = ("drops", "gradients", "composed", "quickstart")
"""Groups of rows, whose jobs are timed in turn."""


@dataclass(frozen=True)
class Row:
    """A line of the table: our job, the peers of which the fastest counts, and those with the same result.

    Attributes:
        images: that are scored, 0 where they are not counted.
        dtype: the precision whose peak counts.
        fast: peers in that precision, of which the fastest of all peers may be one.
    """

    key: str
    title: str
    ours: str
    peers: tuple[str, ...]
    same: tuple[str, ...]
    images: int = 0
    dtype: str = "float32"
    fast: tuple[str, ...] = ()


@dataclass
class Timed:
    """A job in one process: the run before the rounds, and the rounds, none where it was out of the race."""

    first: Run
    rounds: list[Run]

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(run.seconds for run in self.rounds)

    @property
    def values(self) -> dict[str, np.ndarray]:
        """What the job computed."""
        return self.rounds[-1].values


Timings = dict[tuple[str, str], Timed]
"""By job and process (`user` or `tuned`)."""


def rows_of(group: str, dresses: Sequence[str], grid: int, passes: int | None) -> tuple[Row, ...]:
    """The rows of a group.

    Args:
        dresses: captum's, by name.
        grid: cells a side.
        passes: the budget of adaptive regions, None for the default.
    """

    def captum(precision: str) -> tuple[str, ...]:
        wanted = [name for name in dresses if DRESSES[name].precision == precision]
        return tuple(in_dress(job, name) for name in wanted for job in CAPTUM)

    if group == DROPS:
        exact, images = captum("float32"), grid**2 + 1
        budget, words = ("", "") if passes is None else (f",passes={passes}", f", {passes} passes")
        return (
            Row("ria", "RIA", "ria", exact, exact, images),
            Row("tf32", "RIA, tf32", "ria@precision=tf32", exact, exact, images, "tf32", captum("tf32")),
            Row("bf16", "RIA, bf16", "ria@precision=bf16", exact, exact, images, "bfloat16", captum("bfloat16")),
            Row("adaptive", f"RIA, adaptive regions{words}", f"ria@regions=adaptive{budget}", exact, ()),
        )
    if group == GRADIENTS:
        return (
            Row("gpa", "GPA", "gpa", ("GradCAM",), ("GradCAM",)),
            Row("ega", "EGA", "ega", ("HiResCAM", "GradCAMElementWise"), ("HiResCAM",)),
        )
    if group == QUICKSTART:
        return (Row("quickstart", "sample of quickstart's methods", "quickstart", (), ()),)
    images = 6 * (grid**2 + 1) + 1 + 3 * 7  # six variants with their cells, the baseline, three for each of seven maps
    wanted = [name for name in dresses if DRESSES[name].precision == "float32" and not DRESSES[name].compiled]
    each, reused = ("each by itself",), tuple(in_dress("passes reused", name) for name in wanted)
    return (
        Row("sample", "sample, each by itself", "sample", each, each, images),
        Row("sample", "sample, passes reused", "sample", reused, reused, images),
    )


def figures(row: Row, timed: Timings, dense: int, peak: float) -> dict[str, Any]:
    """What a row says."""
    ours = timed[row.ours, "tuned"]
    found: dict[str, Any] = {"row": row.title, "ours": row.ours, "ours_s": ours.seconds}
    found |= {"ours_peak_mb": ours.first.peak_mb, "idle_mb": ours.first.idle_mb}
    taken = {key: one.first.seconds for key, one in timed.items() if key[0] in (*row.peers, *row.fast)}
    for name in PROCESSES:
        if before := {peer: seconds for (peer, where), seconds in taken.items() if where == name}:
            found[f"peers_{name}_before_rounds_s"] = before
        found |= _ratios(_raced(row.peers, timed, name), ours.seconds, "", name)
        if row.fast:
            found |= _ratios(_raced((*row.peers, *row.fast), timed, name), ours.seconds, "_all", name)
    for name in PROCESSES:
        if "peer" not in found and f"peer_{name}" in found:
            found |= {"peer": found[f"peer_{name}"], "peer_peak_mb": timed[found[f"peer_{name}"], name].first.peak_mb}
    same = _raced(row.same, timed, "tuned")
    found["differences"] = {peer: gaps(ours.values, one.values) for peer, one in same.items()}
    largest = [gap for one in found["differences"].values() for gap in one.values()]
    found["difference"] = float(np.max(np.concatenate(largest))) if largest else None  # NaN: undefined on one side only
    if row.images:
        found["images_per_s"] = row.images / ours.seconds
        found["dense_share"] = row.images * dense / ours.seconds / peak
    if ours.first.flops:
        found["peak_share"] = ours.first.flops / ours.seconds / peak
    if "drop" in ours.values:
        drop = ours.values["drop"]
        found |= {"regions": len(drop), "largest_drop": float(abs(drop).max())}
        drops = [one.values["drop"] for one in same.values()]
        exact = next((one for one in drops if not np.isnan(one).all()), None)  # of scaled peers one may have none
        if exact is not None:
            found |= {"spearman": rank_agreement(exact, drop), "cells_above_1e-3": int((exact > LEAST_DROP).sum())}
            if row.fast:
                found["fast"] = _fast(row, timed, exact)
    return found


def _raced(peers: Sequence[str], timed: Timings, name: str) -> dict[str, Timed]:
    """Those of the peers that were timed in rounds in a process."""
    return {peer: timed[peer, name] for peer in peers if (peer, name) in timed and timed[peer, name].rounds}


def _ratios(peers: dict[str, Timed], ours: float, key: str, name: str) -> dict[str, Any]:
    """The seconds of peers, the fastest of them, and how many times as long as ours it takes; {} without peers."""
    seconds = {peer: one.seconds for peer, one in peers.items()}
    if not seconds:
        return {}
    best = min(seconds, key=seconds.__getitem__)
    found: dict[str, Any] = {f"peers{key}_{name}_s": seconds, f"peer{key}_{name}": best}
    return found | {f"peer{key}_{name}_s": seconds[best], f"ratio{key}_{name}": seconds[best] / ours}


def _fast(row: Row, timed: Timings, exact: np.ndarray) -> dict[str, dict[str, Any]]:
    """The fastest peer in the row's own precision that has drops: its seconds, and how far its drops are from captum's
    in float32."""
    raced = {
        peer: one for peer, one in _raced(row.fast, timed, "tuned").items() if not np.isnan(one.values["drop"]).all()
    }
    if not raced:
        return {}
    best = min(raced, key=lambda peer: raced[peer].seconds)
    [gap] = gaps(raced[best].values, {"drop": exact})["drop"]
    told = {"difference": gap, "spearman": rank_agreement(exact, raced[best].values["drop"])}
    told["cells_above_1e-3"] = int((exact > LEAST_DROP).sum())
    seconds = {
        f"{name}_s": median(run.seconds for run in one.rounds)
        for name in PROCESSES
        for one in _raced([best], timed, name).values()
    }
    return {best: told | seconds}


def rank_agreement(exact: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's correlation over the cells whose exact drop was measured and is above 1e-3; None for fewer than 3."""
    above = exact > LEAST_DROP
    return float(spearmanr(exact[above], other[above]).statistic) if above.sum() > 2 else None


def gaps(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Largest absolute difference of maps or drops; for a sample, that of each metric by method."""
    both = {name: (ours[name].astype(float), value.astype(float)) for name, value in theirs.items()}
    gaps = {
        name: np.where(np.isnan(b) & (np.isnan(a) | (name == "drop")), 0, abs(a - b))
        for name, (a, b) in both.items()
        if not np.isnan(b).all()
    }
    return {name: [float(gap.max())] if name in ("map", "drop") else gap.tolist() for name, gap in gaps.items()}
