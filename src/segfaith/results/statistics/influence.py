"""How much of each mean one image decides, and whether it decides which method is best.

With x_ri the value of image i in run r (the mean over its targets), n_r the number of the run's images that have one,
and m_r their mean, the table's mean is m = mean over r of m_r. Without image j

    m_r(-j) = (n_r m_r - x_rj) / (n_r - 1) where run r has it, else m_r         m(-j) = mean over r of m_r(-j)

An image that is all that a run has cannot be left out of it; the run then drops out of the mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import is_control
from segfaith.results.statistics.paired import Paired
from segfaith.results.statistics.summary import DRAW, RUNTIME_DRAW, side
from segfaith.results.statistics.targets import IMAGE

MISSED_IOU = 0.1
"""A target that the model predicts with a lower intersection over union is missed: there is little to explain."""
INFLUENCE_COLUMNS = ["data", "method", "metric", "mean", "image", "without", "change", "images"]


@dataclass(frozen=True)
class Best:
    """Which method under test has the best mean by a metric.

    Attributes:
        method: its name, or "" where `why` says why none is.
        mean: its mean over the runs that have all methods under test.
        second: the next one and its mean; "" and NaN where there is no other.
        runs: how many runs have all methods under test; `every` is how many there are.
        control: a control whose mean is better still, or "".
        flipped: an image without which another method would be best, which `instead` names, or without which the best
            two would be a draw (`instead` is then ""); "" where there is no such image.
        easier: the method with the best mean, where none is best since `ahead` beats it over the images that both have;
            else "".
        why: why no method is best: a draw, one method alone, no run with all of them, or `ahead`.
    """

    metric: str
    method: str
    mean: float = nan
    second: str = ""
    second_mean: float = nan
    runs: int = 0
    every: int = 0
    control: str = ""
    flipped: str = ""
    instead: str = ""
    easier: str = ""
    ahead: str = ""
    why: str = ""


def influence(values: Mapping[str, Paired]) -> pd.DataFrame:
    """For the mean of each method by each metric, the image that moves it most.

    Args:
        values: of one data set by metric, as `paired.paired` gives them.

    Returns:
        Columns data, method, metric, mean, image (the sample's id; "" where a single image has a value), without (the
        mean without it), change (without - mean), images (how many have a value). Methods without a value have no row.
    """
    rows = []
    for metric, images in values.items():
        for method, table in _by_method(images).items():
            without = _without_each(table)
            mean = float(table.mean(axis=1).mean())
            moved = np.abs(without - mean)
            place = int(np.nanargmax(moved)) if np.isfinite(moved).any() else -1
            image, left = (str(table.columns[place]), float(without[place])) if place >= 0 else ("", nan)
            rows.append([images.data, method, metric, mean, image, left, left - mean, table.shape[1]])
    return pd.DataFrame(rows, columns=INFLUENCE_COLUMNS)


def best(images: Paired, own: Sequence[str], every: int) -> Best:
    """The method with the best mean by a metric, among the methods under test.

    Means are over the runs that have a value of all methods under test, so that no method is ahead by an easier run. A
    difference that counts as a draw (`summary.side`) leaves none best. Nor is a method best that another one beats over
    the images that both have: its own are easier. Leakages have none: their means rest on other images for each method,
    those on which its TDD is high enough.

    Args:
        images: the metric's values, as `paired.paired` gives them.
        own: the methods under test.
        every: how many runs there are.
    """
    metric = images.metric
    better = METRICS[metric].better
    if better is None or metric.startswith("leak_"):
        return Best(metric, "", every=every, why="its means rest on other images for each method")
    tables = _by_method(images)
    names = [name for name in own if name in tables]
    if len(names) < 2:
        return Best(metric, "", every=every, why="fewer than two methods have a value")
    shared = [run for run in tables[names[0]].index if all(run in tables[name].index for name in names)]
    if not shared:
        return Best(metric, "", every=every, why="no run has a value of all methods")
    chosen = {
        name: table.loc[shared].dropna(axis=1, how="all")
        for name, table in tables.items()
        if all(run in table.index for run in shared)
    }
    means = {name: float(table.mean(axis=1).mean()) for name, table in chosen.items()}
    first, second = _ordered(means, names, better)[:2]
    known = Best(metric, first, means[first], second, means[second], len(shared), every)
    if side(means[first], means[second], metric) == 0:
        return replace(known, method="", why=f"{first} and {second} are a draw")
    for name in (name for name in names if name != first):
        theirs, ours = _shared(chosen[name], chosen[first])
        if _beats(theirs, ours, metric):
            why = f"over the images that both have, {name} is ahead of {first}"
            return replace(known, method="", easier=first, ahead=name, why=why)
    controls = [name for name in means if is_control(name)]
    ahead = [name for name in controls if _beats(means[name], means[first], metric)]
    control = _ordered(means, ahead, better)[0] if ahead else ""
    flipped, instead = _flip(chosen, names, first, metric)
    return replace(known, control=control, flipped=flipped, instead=instead)


def missed(runs: Sequence[Run]) -> tuple[int, int]:
    """How many targets the model misses in some run (IoU below `MISSED_IOU`), and how many have an IoU.

    Runs whose settings ask for what is missed are left out.
    """
    asked = [run for run in runs if "target_iou" in run.records and not run.of_missed]
    parts = [run.measured[[*TARGET, "target_iou"]] for run in asked]
    if not parts:
        return 0, 0
    lowest = pd.concat(parts).dropna().groupby(TARGET)["target_iou"].min()
    return int((lowest < MISSED_IOU).sum()), len(lowest)


def _by_method(images: Paired) -> dict[str, pd.DataFrame]:
    """The values of each method that has any: a row per run that has one, a column per image."""
    values = images.values.droplevel("own")
    columns = {name: values[name].dropna() for name in images.methods if name in values}
    tables = {name: column.groupby(level=IMAGE, sort=False).mean() for name, column in columns.items()}
    return {name: table.unstack("sample_id", sort=False) for name, table in tables.items() if len(table)}


def _shared(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """The mean over runs of both methods' run-level means over the images that both have; NaN where there are none."""
    first, second = one.align(other, join="inner")
    both = first.notna() & second.notna()
    return float(first.where(both).mean(axis=1).mean()), float(second.where(both).mean(axis=1).mean())


def _without_each(values: pd.DataFrame) -> NDArray[np.float64]:
    """The mean over runs of run-level means, without each image in turn; NaN where nothing is left."""
    table = values.to_numpy(float)
    there = ~np.isnan(table)
    counts = there.sum(1, keepdims=True)
    sums = np.where(there, table, 0.0).sum(1, keepdims=True)
    left = counts - there
    means = np.divide(sums - np.where(there, table, 0.0), left, out=np.full(table.shape, nan), where=left > 0)
    known = ~np.isnan(means)
    total: NDArray[np.float64] = np.divide(
        np.where(known, means, 0.0).sum(0), known.sum(0), out=np.full(table.shape[1], nan), where=known.any(0)
    )
    return total


def _flip(tables: dict[str, pd.DataFrame], names: Sequence[str], first: str, metric: str) -> tuple[str, str]:
    """An image without which another method is best, and that method; two empty texts where there is none.

    Of several such images the one that leaves the largest lead of the other method is named. Where there is none, but
    without an image the best two are a draw, that image is named, and no method.
    """
    images = list(dict.fromkeys(image for name in names for image in tables[name].columns))
    means = {}
    for name in names:
        whole = float(tables[name].mean(axis=1).mean())
        without = pd.Series(_without_each(tables[name]), tables[name].columns)
        means[name] = without.reindex(images).fillna(whole).to_numpy(float)
    sign = -1 if METRICS[metric].better == "lower" else 1
    lead, image, instead = 0.0, "", ""
    for name in names:
        for place in np.flatnonzero(sign * (means[name] - means[first]) > lead):
            if side(means[name][place], means[first][place], metric) == sign:
                lead = float(sign * (means[name][place] - means[first][place]))
                image, instead = str(images[place]), name
    for name in (name for name in names if name != first and not image):
        ours, theirs = means[first], means[name]
        most = 2 * (RUNTIME_DRAW * np.maximum(np.abs(ours), np.abs(theirs)) if metric == "runtime_s" else DRAW)
        near = np.flatnonzero(np.abs(ours - theirs) < most)  # far from a draw are most images, of which nobody need ask
        drawn = (place for place in near.tolist() if side(float(ours[place]), float(theirs[place]), metric) == 0)
        image = next((str(images[place]) for place in drawn), "")
    return image, instead


def _ordered(means: dict[str, float], names: Sequence[str], better: str) -> list[str]:
    """The names with the best mean first."""
    return sorted(names, key=lambda name: means[name], reverse=better == "higher")


def _beats(mean: float, other: float, metric: str) -> bool:
    return side(mean, other, metric) == (-1 if METRICS[metric].better == "lower" else 1)
