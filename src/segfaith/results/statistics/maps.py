"""What the maps look like: where they lie, and how sparse they are."""

from math import nan

import pandas as pd

from segfaith.results.statistics.samples import by_method, lacking, means, table, with_value
from segfaith.results.statistics.targets import over_targets

PROPERTIES = ("energy_inside", "pointing", "gini")
PROPERTY_COLUMNS = ["data", "method", *PROPERTIES, "own_half", "target_area", "n"]


def map_properties(rows: pd.DataFrame) -> pd.DataFrame:
    """What the maps look like: energy inside the target, pointing game, and sparseness (Gini coefficient).

    None of them says that a map is faithful. Of the values of a map drawn at random, energy and pointing are near
    target_area in the mean. A constant map is stored as zeros: its energy is NaN, its pointing is target_area.

    Args:
        rows: of `samples.samples`.

    Returns:
        Columns data, method, energy_inside, pointing, gini, own_half (NaN unless photographs are wired), target_area
        (means), n (samples with a value of pointing).
    """
    shown, lines = (*PROPERTIES, "own_half", "target_area"), []
    rows = rows if "own_half" in rows else rows.assign(own_half=nan)
    for data, method, part in by_method(with_value(rows, "pointing")):
        images = over_targets(part, shown)
        lines.append([data, method, *means(images, shown), len(images)])
    return table(lines, PROPERTY_COLUMNS, lacking("pointing", rows))
