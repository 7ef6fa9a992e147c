"""Values averaged by groups, and these averages by larger groups, many times over the same rows.

A report averages the rows of thousands of pairs of methods, so groups are found once and are plain numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BY_IMAGE = (("own", "run", "sample_id"), ("own", "sample_id"), ("sample_id",))
"""The levels of three means: over the targets of an image, over its runs that share `own`, and over these."""


@dataclass(frozen=True, eq=False)
class Averages:
    """Means over rows with equal levels, then means of these.

    Attributes:
        groups: of each mean, the group of each row, or of each group of the mean before; without means that leave all
            rows as they are.
    """

    groups: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, index: pd.Index, means: Sequence[Sequence[str]] = BY_IMAGE) -> "Averages":
        """The groups of an index.

        Args:
            means: the names of the levels that rows of a group share, for each mean; a later mean has fewer.
        """
        rows = index.to_frame(index=False)
        groups: list[NDArray[np.intp]] = []
        for levels in means:
            grouped = rows.groupby(list(levels))
            numbers = np.asarray(grouped.ngroup(), dtype=np.intp)
            rows = grouped.size().reset_index()
            if not np.array_equal(numbers, np.arange(len(numbers))):
                groups.append(numbers)
        return cls(tuple(groups))

    def means(self, values: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The means of values (n, k), (groups, k), in the order of the last mean's levels.

        Args:
            rows: (n,), which of them count. A group of which none counts is left out.
        """
        values, numbers = values[rows], np.flatnonzero(rows)
        for groups in self.groups:
            numbers, places = np.unique(groups[numbers], return_inverse=True)
            sums = np.zeros((len(numbers), values.shape[1]))
            np.add.at(sums, places, values)
            values = sums / np.bincount(places, minlength=len(numbers))[:, None]
        return values
