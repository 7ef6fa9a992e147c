"""How often intervals over images cover: the table in docs/conclusions.md, as `python benchmarks/intervals_cover.py`.

Images are drawn, not photographs: a fifth of them have s below .05, and deletions lower the logit of s by a normal
amount, so that a small s can rise manifold. The second of two maps is the more erratic one.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segfaith.results import intervals
from segfaith.results.intervals import MEAN, POOLED, TRIMMED, estimate

Array = NDArray[np.float64]
COUNTS, TRIALS, BOOTSTRAPS = (6, 12, 20, 40, 100), 4000, 400
ABSOLUTE, BCA = "absolute drop", "mean, BCa bootstrap"


def images(rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
    """s of each image, and s after the deletions by two maps."""
    s = np.clip(rng.beta(0.5, 0.7, count), 1e-5, 1 - 1e-5)
    shared = rng.normal(0, 1, count)
    first, second = (
        1 / (1 + np.exp(-(np.log(s / (1 - s)) - 0.8 - spread * (shared + rng.normal(0, 1, count)) / 2**0.5)))
        for spread in (1.0, 2.0)
    )
    return s, first, second


@cache
def truths() -> dict[str, float]:
    """Of a million images: each interval is judged by what it is of, that of the mean too."""
    s, first, second = images(np.random.default_rng(1), 1_000_000)
    drops = second - first
    mean = float((drops / s).mean())
    trimmed = float(stats.trim_mean(drops / s, 0.1))
    return {POOLED: drops.sum() / s.sum(), TRIMMED: trimmed, ABSOLUTE: drops.mean(), MEAN: mean, BCA: mean}


def interval(of: str, s: Array, drops: Array) -> tuple[float, float]:
    """The interval of the difference of two maps' drops, relative but for `ABSOLUTE`."""
    if of == BCA:
        found = stats.bootstrap((drops / s,), np.mean, n_resamples=999, rng=np.random.default_rng(0))
        return found.confidence_interval.low, found.confidence_interval.high
    values = drops if of in (POOLED, ABSOLUTE) else drops / s
    one = estimate(values, s, of if of in (POOLED, TRIMMED) else MEAN)
    return one.low, one.high


def covered(of: str, count: int, trials: int) -> float:
    """The share of trials whose interval holds the truth."""
    s, first, second = (one.reshape(trials, count) for one in images(np.random.default_rng(count), trials * count))
    bounds = [interval(of, weights, drops) for weights, drops in zip(s, second - first, strict=True)]
    return float(np.mean([low <= truths()[of] <= high for low, high in bounds]))


def main() -> None:
    """Prints the table, for counts below 20 too, where the report gives no intervals."""
    intervals.LEAST_IMAGES = 2
    print("| 95 % interval of | " + " | ".join(f"n = {count}" for count in COUNTS) + " |")
    print("|---|" + "---|" * len(COUNTS))
    for of in (POOLED, TRIMMED, ABSOLUTE, MEAN, BCA):
        shares = [covered(of, count, BOOTSTRAPS if of == BCA else TRIALS) for count in COUNTS]
        print(f"| {of} | " + " | ".join(f"{share:.3f}".removeprefix("0") for share in shares) + " |")


if __name__ == "__main__":
    main()
