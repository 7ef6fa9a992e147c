"""INTERVENTIONS: every way in which the pixels that a map ranks high are altered, one entry each.

An entry says which pixels are meant, whether they are deleted or put back, and the column of the records that holds
the score of the altered image. The records, the number of model passes and the scoring (`intervened`) follow from it.

This module imports no torch: the columns of the records are read without it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Literal

from segfaith.errors import SettingsError
from segfaith.evaluation.names import OWNERS, refuse_taken

ASKED = {
    "detailed": '`[evaluation] leakage = "detailed"`',
    "planted": "evidence is planted that lies somewhere",
    "whole": "`[evaluation] whole = true`, which is the default",
    "own_null": "`[evaluation] own_null = true`",
}
"""What has to hold for the interventions that are not always scored, by `Intervention.asked`."""
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.7)
"""The fractions of all pixels at which the curves over the whole image are measured; their ends 0 and 1 are known."""
SHIFTS = 16
"""How many shifted copies (`ranking.draw_shifts`) are a map's own null: measured by `benchmarks/own_null_shifts.py`."""


@dataclass(frozen=True)
class Intervention:
    """One way to alter the image: which pixels are taken from a region R of a map, and what is done with them.

    Attributes:
        kind: its name, unique.
        column: the column of the records for s_c of the altered image, at the first operator and the first k.
        meaning: of the column.
        region: R, where the pixels are taken: inside the target, outside it, or in the whole image.
        pixels: a function of the map's `Ranking` and k that gives the pixels of R that are taken, as flat indices (P,).
            None: the highest n(k, R) pixels of R. Where it gives none, nothing is scored and the score is NaN.
        inserts: the pixels are put back into the baseline O(x, all pixels). Else they are occluded in the image.
        within: a function of the `Subject` that gives a mask (H, W): only the taken pixels that lie in it are altered.
            Where none of them does, the score is s.
        curve: scored at every pair of operator and k, and a row of the curves. Else at the first operator alone.
        k: its fraction; None: the first k of the settings.
        asked: always, or where one of `ASKED` holds.
        missing: why the score is NaN where R has pixels; for the column `reason`.
    """

    kind: str
    column: str
    meaning: str
    region: Literal["inside", "outside", "whole"]
    pixels: Callable[[Any, float], Any] | None = None
    inserts: bool = False
    within: Callable[[Any], Any] | None = None
    curve: bool = False
    k: float | None = None
    asked: Literal["always", "detailed", "planted", "whole", "own_null"] = "always"
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


def asked_for(holds: Collection[str]) -> list[Intervention]:
    """The interventions that a sample is scored under.

    Args:
        holds: the keys of `ASKED` that hold.
    """
    return [entry for entry in INTERVENTIONS.values() if entry.asked == "always" or entry.asked in holds]


def score_columns() -> dict[str, str]:
    """The meaning of every column of scores, by name: s, the baseline's, and that of each intervention."""
    columns = {"s": "s_c(x, M), masked mean of the score; of the probability in [0, 1]"}
    for entry in INTERVENTIONS.values():
        if entry.inserts:  # whose score is read beside that of the baseline
            columns.setdefault("s_baseline", "s_c(b, M), b = O(x, all pixels)")
        columns[entry.column] = entry.meaning
    return columns


def whole_column(kind: str, k: float) -> str:
    """The column of the score with the top fraction k of all pixels deleted or inserted: s_whole_deletion_05."""
    return f"s_whole_{kind}_{round(100 * k):02d}"


def _shifted(ranking: Any, k: float, number: int) -> Any:
    """The top pixels inside M of a shifted copy of the map."""
    return ranking.shifted(number - 1, k)


OWNERS["a score"] = score_columns

for _entry in (
    Intervention("target_deletion", "s_target_deleted", "s_c(O(x, S_t), M)", "inside", curve=True),
    Intervention("off_deletion", "s_off_deleted", "s_c(O(x, S_o), M)", "outside", curve=True),
    Intervention("insertion", "s_inserted", "s_c(b with S_t put back from x, M)", "inside", inserts=True, curve=True),
    Intervention(
        "off_fair",
        "s_fair_deleted",
        "s_c with the n(k, M) highest pixels outside M occluded",
        "outside",
        pixels=lambda ranking, k: ranking.top("outside", k, counted="inside"),
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
    *(
        Intervention(
            f"whole_{kind}_{k:g}",
            whole_column(kind, k),
            meaning.format(f"{100 * k:g} %"),
            "whole",
            inserts=kind == "insertion",
            k=k,
            asked="whole",
        )
        for kind, meaning in (
            ("deletion", "s_c with the highest {} of all pixels occluded"),
            ("insertion", "s_c of b with the highest {} of all pixels put back from x"),
        )
        for k in FRACTIONS
    ),
    *(
        Intervention(
            f"shifted_deletion_{number}",
            f"s_shifted_deleted_{number}",
            f"s_c with the top pixels inside M of the map's shift {number} occluded; needs own_null = true",
            "inside",
            pixels=partial(_shifted, number=number),
            asked="own_null",
        )
        for number in range(1, SHIFTS + 1)
    ),
):
    add_intervention(_entry)
