"""Each method's own quantity over images, with a 95 % interval by a bootstrap on two levels: backbones and images.

The quantity is that of `intervals.quantity`: of drops that are divided by s the pooled drop, sum of drops / sum of s.
With x_ir the value of image i in run r of its own (the mean over the image's targets; an ablation is no run of its own)
the value of the image is the mean over the runs that have it. A draw takes as many backbones (models with their
weights) as there are, with replacement, with all their runs, and as many images as there are, with replacement; an
image that several runs share is drawn for all of them at once, so that overlapping subsets count once (Owen 2007,
"The pigeonhole bootstrap"). The interval is from the 2.5 % to the 97.5 % percentile of the draws' quantities.

With one backbone the interval is over images alone and speaks of that backbone. With several it speaks of other
backbones too, as far as a handful can: with fewer than five it is rough.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.statistics.intervals import LEAST_IMAGES, POOLED, TRIM, TRIMMED, estimate, numerators, quantity
from segfaith.results.statistics.paired import Paired

RESAMPLES = 1000
BLOCK = 50
"""So many draws are computed at once."""
MANY = 10_000
"""More images are drawn by their numbers and then counted: the same law in a fifth of the time, but other draws."""
QUANTITY_COLUMNS = ["method", "metric", "of", "value", "low", "high", "backbones", "images"]
Real = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]


def backbones(runs: Sequence[Run]) -> list[int]:
    """The backbone of each run of its own, as a number: runs of one model and weights share it."""
    numbers: dict[tuple[str, str], int] = {}
    found: dict[int, int] = {}
    for own, run in zip(own_numbers([run.description for run in runs]), runs, strict=True):
        found.setdefault(own, numbers.setdefault(backbone_of(run), len(numbers)))
    return [found[own] for own in sorted(found)]


def backbone_of(run: Run) -> tuple[str, str]:
    """The name of a run's model, and its weights: the digest of their file, or where they come from."""
    model = run.description["model"]
    return str(model["name"]), str(model.get("file_sha256") or model["weights"])


def quantities(images: Paired, backbone: Sequence[int], *, seed: int = 0, interval: bool = True) -> pd.DataFrame:
    """The quantity of each method by a metric, with its interval.

    Args:
        images: of `paired.paired`.
        backbone: of `backbones`, of the same runs.
        seed: of the draws.
        interval: whether intervals are drawn; else they are NaN.

    Returns:
        Columns method, metric, of (which quantity), value, low, high (NaN below 20 images, and where all values are
        equal), backbones and images (how many entered). A row per method, with NaN where it has no value.
    """
    of = quantity(images.metric)
    drops, weights_ = numerators(images.values, images.s.reindex(images.values.index), of)
    present = drops.notna()
    heavy = present.astype(float).mul(weights_, axis=0).where(present)  # s counts where the method has a value
    for levels in (["own", "run", "sample_id"], ["own", "sample_id"]):
        drops, heavy = (table.groupby(level=levels, sort=False).mean() for table in (drops, heavy))
    own, (image, names) = drops.index.get_level_values("own"), pd.factorize(drops.index.get_level_values("sample_id"))
    place, shape = (image, np.asarray(backbone)[own.to_numpy(int)]), (len(names), max(backbone) + 1)
    rows: list[list[object]] = []
    for method in images.methods:
        if method not in drops or not drops[method].notna().any():
            rows.append([method, images.metric, of, nan, nan, nan, 0, 0])
            continue
        values, weights, counts = _cells(drops[method].to_numpy(float), heavy[method].to_numpy(float), place, shape)
        every = counts.sum(1)
        value = estimate(values.sum(1) / every, weights.sum(1) / every, of).value
        entered = int((counts.sum(0) > 0).sum())
        enough = interval and len(every) >= LEAST_IMAGES
        low, high = _interval(values, weights, counts, of, seed) if enough else (nan, nan)
        rows.append([method, images.metric, of, value, low, high, entered, len(every)])
    return pd.DataFrame(rows, columns=QUANTITY_COLUMNS)


def _cells(
    values: Real, weights: Real, place: tuple[NDArray[np.intp], NDArray[np.int_]], shape: tuple[int, int]
) -> tuple[Real, Real, Real]:
    """Sums over the runs of each backbone of values and weights, and how many runs they are: (images, backbones).

    Images without a value are left out.
    """
    known = ~np.isnan(values)
    tables = np.zeros((3, *shape))
    for table, figures in zip(tables, (values, weights, known.astype(float)), strict=True):
        np.add.at(table, (place[0][known], place[1][known]), figures[known])
    kept = tables[2].any(1)
    return tables[0][kept], tables[1][kept], tables[2][kept]


def _interval(values: Real, weights: Real, counts: Real, of: str, seed: int) -> tuple[float, float]:
    """The 95 % interval of the module, from the tables of `_cells`.

    Draws of the same backbones differ in their images alone, so what these backbones make of the images is computed
    once for them all.
    """
    present = np.flatnonzero(counts.sum(0) > 0)
    backbones_, times = _draws(seed, len(present), len(counts))
    chosen, draws = np.unique(backbones_, axis=0, return_inverse=True)
    found = np.full(RESAMPLES, nan)  # a draw without any image is left out
    for number, drawn in enumerate(chosen.astype(float)):
        runs = counts[:, present] @ drawn
        held = np.flatnonzero(runs)  # the images that a drawn backbone has
        each, heavy = (table[np.ix_(held, present)] @ drawn / runs[held] for table in (values, weights))
        rows = np.flatnonzero(draws.ravel() == number)
        for block in np.array_split(rows, -(-len(rows) // BLOCK)):
            often = times[block] if len(held) == len(runs) else times[np.ix_(block, held)]
            found[block] = _of_draws(each, heavy, often, of)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return (float(low), float(high)) if high - low >= 1e-12 else (nan, nan)


def _of_draws(values: Real, weights: Real, times: Counts, of: str) -> Real:
    """The quantity of each draw, which has each value so many times; NaN of a draw without any value."""
    if of == TRIMMED:
        order = np.argsort(values)
        values, often = values[order], _trimmed(times[:, order], TRIM)
    else:
        often = times.astype(float)
    below = often @ weights if of == POOLED else often.sum(1)
    found: Real = np.divide(often @ values, below, out=np.full(len(often), nan), where=below != 0)
    return found


def _trimmed(times: Counts, share: float) -> Real:
    """How often each draw has each value, in ascending order, without the lowest and highest `share` of its values."""
    until = times.cumsum(1, dtype=float)
    every = until[:, -1:]
    cut = np.floor(share * every)
    kept: Real = np.diff(until.clip(cut, every - cut), axis=1, prepend=cut)
    return kept


@lru_cache(maxsize=2)
def _draws(seed: int, backbones_: int, images: int) -> tuple[Counts, Counts]:
    """How often each draw has each backbone and each image: (draws, backbones) and (draws, images).

    They depend on these numbers alone, and are kept, since most methods and metrics have as many images. In few bytes:
    of 20,000 images they are 40 MB.
    """
    rng, kind = np.random.default_rng(seed), np.min_scalar_type(images)
    drawn = rng.multinomial(backbones_, np.full(backbones_, 1 / backbones_), RESAMPLES)
    times = np.empty((RESAMPLES, images), kind)
    for row in times:
        if images > MANY:
            row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
        else:
            row[:] = rng.multinomial(images, np.full(images, 1 / images))
    return drawn, times
