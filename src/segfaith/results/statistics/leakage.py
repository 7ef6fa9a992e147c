"""Leakage that is fair to the areas, and by distance to the target."""

import pandas as pd

from segfaith.results.statistics.samples import by_method, lacking, means, table, with_value
from segfaith.results.statistics.targets import over_targets

BANDS = ("odd_near", "odd_middle", "odd_far")
LEAKAGE = ("odd_abs", "odd_fair_abs", *(f"{band}_abs" for band in BANDS))
LEAKAGE_COLUMNS = ["data", "method", *LEAKAGE, "n"]


def leakage(rows: pd.DataFrame) -> pd.DataFrame:
    """Leakage that is fair to the areas, and by distance to the target.

    OT abs deletes n(k, not M) pixels outside where TDD deletes n(k, M) inside, so that small targets leak more by
    construction. odd_fair_abs deletes n(k, M) pixels outside too. odd_near_abs, odd_middle_abs and odd_far_abs are the
    absolute drops by those pixels of S_o alone that lie within 16, within 16 to 48 and beyond 48 px (at 224) of the
    target: rises and falls of s do not cancel over images (of random_cells they do within an image, over its draws).

    Args:
        rows: of `samples.samples`.

    Returns:
        Columns data, method, odd_abs, odd_fair_abs, odd_near_abs, odd_middle_abs, odd_far_abs (means over the samples
        that have odd_fair_abs), n (their number).
    """
    rows = rows.assign(**{f"{band}_abs": rows[band].astype(float).abs() for band in BANDS if band in rows})
    lines = []
    for data, method, part in by_method(with_value(rows, "odd_fair_abs")):
        images = over_targets(part, LEAKAGE)
        lines.append([data, method, *means(images, LEAKAGE), len(images)])
    why = lacking("odd_fair_abs", rows, "; measure them again, results of version 8 have it")
    return table(lines, LEAKAGE_COLUMNS, why)
