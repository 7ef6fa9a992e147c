"""Several targets of one image: what turns them into images, and the words that say so.

Targets of one image share its pixels and the model's view of them, so that they are not independent. The image is the
unit of every mean, test and interval: a method's value of an image is the mean over its targets. Rows stay by target
where methods are paired and samples are chosen, for a target must have a value of both methods.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET

IMAGE = ["run", "sample_id"]
MEANS = (
    "Every mean, test and interval is over images: the value of an image is the mean over its targets, which are not "
    "independent. Undefined values and rows that were skipped or failed are counted by target."
)


def over_targets(rows: pd.DataFrame, columns: Sequence[str], keys: Sequence[str] = IMAGE) -> pd.DataFrame:
    """The mean of each column over the targets that share the keys, NaN left out; in the order of the rows.

    Args:
        rows: of one method, a row per target, or with the method among the keys.
        columns: of numbers; those that the rows lack are left out.

    Returns:
        A row per image, indexed by the keys.
    """
    held = [name for name in columns if name in rows]
    values = rows[[*keys, *held]].set_index(list(keys)).astype(float)
    named = bool((rows["target"] != "").any())  # without names, each image has one target and nothing is averaged
    return values.groupby(list(keys), sort=False).mean() if named else values


def several(runs: Iterable[Run]) -> bool:
    """Whether any image of the runs has several targets."""
    return any(bool((run.records["target"] != "").any()) for run in runs)


def counted(tables: Iterable[pd.DataFrame]) -> tuple[int, int]:
    """How many different images and how many different targets some rows are of.

    Where targets have names, an image that has none has rows of the target "", which were not measured: no target.
    """
    rows = pd.concat([rows[[*TARGET, "status"]] for rows in tables])
    named = rows["target"] != ""
    targets = rows[named | (rows["status"] == "ok")] if named.any() else rows
    return int(rows["sample_id"].nunique()), len(targets[TARGET].drop_duplicates())


def name_of(sample_id: str, target: str) -> str:
    """An image, or one of its targets: "2007_000033, dog-2"."""
    return f"{sample_id}, {target}" if target else sample_id


def target_note(runs: Sequence[Run]) -> str:
    """A sentence on what means are over, for runs of one data set whose images have several targets."""
    images, targets = counted(run.measured for run in runs)
    return f"{runs[0].data}: {images} images ({targets} targets) entered. {MEANS}"
