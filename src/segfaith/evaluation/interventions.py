"""INTERVENTIONS: every way in which the pixels that a map ranks high are altered, one entry each.

An entry says which pixels are meant, whether they are deleted or put back, and the column of the records that holds
the score of the altered image. The records, the number of model passes and the scoring (`intervened`) follow from it.

This module imports no torch: the columns of the records are read without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from segfaith.errors import SettingsError
from segfaith.evaluation.names import OWNERS, refuse_taken


@dataclass(frozen=True)
class Intervention:
    """One way to alter the image: which pixels are taken from a region R of a map, and what is done with them.

    Attributes:
        kind: its name, unique.
        column: the column of the records for s_c of the altered image, at the first operator and the first k.
        meaning: of the column.
        region: R, where the pixels are taken: inside the target, or outside it.
        pixels: a function of the map's `Ranking` and k that gives the pixels of R that are taken, as flat indices (P,).
            None: the highest n(k, R) pixels of R. Where it gives none, nothing is scored and the score is NaN.
        inserts: the pixels are put back into the baseline O(x, all pixels). Else they are occluded in the image.
        within: a function of the `Subject` that gives a mask (H, W): only the taken pixels that lie in it are altered.
            Where none of them does, the score is s.
        curve: scored at every pair of operator and k, and a row of the curves. Else at the first pair alone.
        asked: always; where `[evaluation] leakage = "detailed"`; or where evidence is planted that lies somewhere.
        missing: why the score is NaN where R has pixels; for the column `reason`.
    """

    kind: str
    column: str
    meaning: str
    region: Literal["inside", "outside"]
    pixels: Callable[[Any, float], Any] | None = None
    inserts: bool = False
    within: Callable[[Any], Any] | None = None
    curve: bool = False
    asked: Literal["always", "detailed", "planted"] = "always"
    missing: str = ""


def band(low: float, high: float) -> Callable[[Any], Any]:
    """The pixels of a subject that lie farther than `low` from the target and at most `high`, in px at height 224."""
    return lambda subject: (subject.distance > low) & (subject.distance <= high)


INTERVENTIONS: dict[str, Intervention] = {}
"""By kind. The order is that in which a sample's images are scored, and that of the columns."""


def add_intervention(entry: Intervention) -> None:
    """Adds an entry to `INTERVENTIONS`.

    Raises:
        SettingsError: another entry has its kind; or a column of the records, a metric or a quantity has the name of
            its column; or that name begins with `control_`.
    """
    if entry.kind in INTERVENTIONS:
        raise SettingsError(f"the kind {entry.kind!r} is taken by another intervention; give it another one")
    refuse_taken(f"the column of the intervention {entry.kind!r}", entry.column)
    INTERVENTIONS[entry.kind] = entry


def asked_for(*, detailed: bool, planted: bool) -> list[Intervention]:
    """The interventions that a sample is scored under.

    Args:
        detailed: `[evaluation] leakage = "detailed"`.
        planted: evidence is planted that lies somewhere.
    """
    asked = {"always": True, "detailed": detailed, "planted": planted}
    return [entry for entry in INTERVENTIONS.values() if asked[entry.asked]]


def score_columns() -> dict[str, str]:
    """The meaning of every column of scores, by name: s, the baseline's, and that of each intervention."""
    columns = {"s": "s_c(x, M), masked mean of the score; of the probability in [0, 1]"}
    for entry in INTERVENTIONS.values():
        if entry.inserts:  # whose score is read beside that of the baseline
            columns.setdefault("s_baseline", "s_c(b, M), b = O(x, all pixels)")
        columns[entry.column] = entry.meaning
    return columns


OWNERS["a score"] = score_columns

for _entry in (
    Intervention("target_deletion", "s_target_deleted", "s_c(O(x, S_t), M)", "inside", curve=True),
    Intervention("off_deletion", "s_off_deleted", "s_c(O(x, S_o), M)", "outside", curve=True),
    Intervention("insertion", "s_inserted", "s_c(b with S_t put back from x, M)", "inside", inserts=True, curve=True),
    Intervention(
        "off_fair",
        "s_fair_deleted",
        's_c with the n(k, M) highest pixels outside M occluded; needs leakage = "detailed"',
        "outside",
        pixels=lambda ranking, k: ranking.top("outside", k, counted="inside"),
        asked="detailed",
        missing="fewer pixels lie outside the target than tdd deletes",
    ),
    Intervention(
        "off_near",
        "s_near_deleted",
        's_c with the pixels of S_o near M occluded; needs leakage = "detailed"',
        "outside",
        within=band(0, 16),
        asked="detailed",
    ),
    Intervention(
        "off_middle",
        "s_middle_deleted",
        's_c with the pixels of S_o at a middle distance from M occluded; needs leakage = "detailed"',
        "outside",
        within=band(16, 48),
        asked="detailed",
    ),
    Intervention(
        "off_far",
        "s_far_deleted",
        's_c with the pixels of S_o far from M occluded; needs leakage = "detailed"',
        "outside",
        within=band(48, inf),
        asked="detailed",
    ),
    Intervention(
        "off_evidence",
        "s_off_evidence_deleted",
        "s_c(O(x, S_o and E), M), E the planted evidence; s where S_o holds none of it",
        "outside",
        within=lambda subject: subject.evidence,
        asked="planted",
    ),
):
    add_intervention(_entry)
