"""How often intervals over images cover: the table in docs/conclusions.md, as `python benchmarks/intervals_cover.py`.

Images are drawn, not photographs: a fifth of them have s below .05, and deletions lower the logit of s by a normal
amount, so that a small s can rise manifold. The second of two maps is the more erratic one. Of a weak model few images
hold most of the sum of s, and few images hold most of an insertion gain, which starts from next to no score.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segfaith.results.statistics import intervals
from segfaith.results.statistics.intervals import MEAN, POOLED, TRIMMED, estimate

Array = NDArray[np.float64]
COUNTS, TRIALS, BOOTSTRAPS = (6, 12, 20, 40, 100), 4000, 400
MANY = 1_000_000
"""So many images stand for all."""
BCA = "mean, BCa bootstrap"


def moved(rng: np.random.Generator, s: Array, shift: float) -> tuple[Array, Array]:
    """s after the changes that two maps make: its logit moves by `shift` and a normal amount."""
    logit, shared = np.log(s / (1 - s)), rng.normal(0, 1, len(s))
    first, second = (
        1 / (1 + np.exp(-(logit + shift + spread * (shared + rng.normal(0, 1, len(s))) / 2**0.5)))
        for spread in (1.0, 2.0)
    )
    return first, second


def scores(rng: np.random.Generator, count: int, low: float = 0.5, high: float = 0.7) -> Array:
    """s of each image: beta-distributed."""
    return np.clip(rng.beta(low, high, count), 1e-5, 1 - 1e-5)


def drops(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Differences of two maps' drops, and s."""
    s = scores(rng, count)
    first, second = moved(rng, s, -0.8)
    return second - first, s


def weak(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Differences of absolute drops by a model whose s is below .05 on four of five images, and s."""
    s = scores(rng, count, 0.1, 1.5)
    first, second = moved(rng, s, -0.2)
    return np.abs(s - second) - np.abs(s - first), s


def relative(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Differences of relative drops."""
    values, s = drops(rng, count)
    return values / s, s


def leakages(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Differences of leakages, |ODD| / TDD, on images on which both maps have a TDD above .05."""
    s = scores(rng, 4 * count)
    inside, outside = moved(rng, s, -0.8), moved(rng, s, -0.2)
    tdd, odd = (1 - np.array(one) / s for one in (inside, outside))
    first, second = (np.abs(odd) / tdd)[:, (tdd > 0.05).all(0)][:, :count]
    return second - first, np.ones(count)


def gains(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Differences of insertion gains from a baseline with next to no score: most images gain little, few much."""
    first, second = moved(rng, np.full(count, 0.01), 0.5)
    return second - first, np.ones(count)


@dataclass(frozen=True)
class Row:
    """A row of the table: what is estimated of which values."""

    of: str
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]


ROWS = {
    "pooled drop": Row(POOLED, drops),
    "pooled drop, weak model": Row(POOLED, weak),
    "leakage, trimmed mean": Row(TRIMMED, leakages),
    "absolute drop, mean": Row(MEAN, drops),
    "insertion gain, mean": Row(MEAN, gains),
    "relative drop, mean": Row(MEAN, relative),
    "relative drop, mean, BCa bootstrap": Row(BCA, relative),
}


@cache
def truth(name: str) -> float:
    """Of a million images: each interval is judged by what it is of, that of the mean too."""
    row = ROWS[name]
    values, weights = row.draw(np.random.default_rng(1), MANY)
    return estimate(values, weights, MEAN if row.of == BCA else row.of).value


def interval(of: str, values: Array, weights: Array) -> tuple[float, float]:
    """The interval of the difference of two maps."""
    if of == BCA:
        found = stats.bootstrap((values,), np.mean, n_resamples=999, rng=np.random.default_rng(0))
        return found.confidence_interval.low, found.confidence_interval.high
    one = estimate(values, weights, of)
    return one.low, one.high


def covered(name: str, count: int, trials: int) -> float:
    """The share of trials whose interval holds the truth; `name` is of `ROWS`."""
    row = ROWS[name]
    drawn = (one.reshape(trials, count) for one in row.draw(np.random.default_rng(count), trials * count))
    bounds = [interval(row.of, values, weights) for values, weights in zip(*drawn, strict=True)]
    return float(np.mean([low <= truth(name) <= high for low, high in bounds]))


def main() -> None:
    """Prints the table, for counts below 20 too, where the report gives no intervals."""
    intervals.LEAST_IMAGES = 2
    print("| 95 % interval of | " + " | ".join(f"n = {count}" for count in COUNTS) + " |")
    print("|---|" + "---|" * len(COUNTS))
    for name, row in ROWS.items():
        shares = [covered(name, count, BOOTSTRAPS if row.of == BCA else TRIALS) for count in COUNTS]
        print(f"| {name} | " + " | ".join(f"{share:.3f}".removeprefix("0") for share in shares) + " |")


if __name__ == "__main__":
    main()
