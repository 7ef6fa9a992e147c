"""What the scores of one explained image say, in a sentence each."""

from math import isfinite
from typing import Any

import pandas as pd

KNOWN = ("gpa", "ega", "ria", "dea", "mea")
"""Methods whose names are abbreviations."""
FILLS = {
    "mean": "the image's mean colour",
    "zero": "black",
    "dataset_mean": "ImageNet's mean colour",
    "blur": "the blurred image",
    "noise": "noise",
    "road": "imputed colours",
}
"""What deleted pixels become, by operator."""


def method_label(name: str) -> str:
    """The name of a method at the head of a sentence: "EGA", and "EGA@window=3"."""
    base, at, rest = name.partition("@")
    return (base.upper() if base in KNOWN else base) + at + rest


def score_words(score: str) -> str:
    """The column `score` of the records in words: "log odds", "conditional probability against class 3"."""
    kind, space, rest = score.partition(" ")
    return {"log_odds": "log odds", "conditional": "conditional probability"}.get(kind, kind) + space + rest


def sentences(
    scores: pd.DataFrame, class_name: str, *, k: float, occlusion: str = "mean", control: str = "random_cells"
) -> dict[str, list[str]]:
    """Three sentences for each method of an image, by its name; for a method that failed, why.

    Args:
        scores: rows by method with the columns of the records, among them that of the control.
        class_name: the target's class, "dog".
        k: the fraction of the pixels that was deleted.
    """
    return {
        str(name): [
            f"{method_label(str(name))}: {words}" for words in _of(row, scores, class_name, k, occlusion, control)
        ]
        for name, row in scores.iterrows()
        if name != control or len(scores) == 1
    }


def _of(row: Any, scores: pd.DataFrame, class_name: str, k: float, occlusion: str, control: str) -> list[str]:
    if row["status"] != "ok":
        return [f"it could not be measured: {row['reason']}"]
    share, thing = f"{100 * k:g} %", class_name if class_name.startswith("class ") else f"the {class_name}"
    what, s = score_words(str(row["score"])), float(row["s"])
    whose = f"{thing}'s {what}"
    inside = f"deleting its top {share} inside {thing} {_change(s, row['s_target_deleted'], whose)}"
    if control in scores.index and scores.loc[control, "status"] == "ok" and row.name != control:
        controlled: Any = scores.loc[control, "s_target_deleted"]
        inside += f"; random cells {_change(s, float(controlled), 'it', start=False)}"
    result = [f"{inside}."]
    if isfinite(row["s_off_deleted"]):
        outside = _change(s, row["s_off_deleted"], whose)
        result.append(f"deleting its top {share} outside {thing} {outside}.")
    else:
        result.append(f"nothing lies outside {thing}, so nothing could be deleted there.")
    put_back = _change(row["s_baseline"], row["s_inserted"], whose)
    filled = FILLS.get(occlusion, occlusion)
    result.append(f"its top {share} inside {thing}, put back into a picture of {filled} alone, {put_back}.")
    return result


def _change(before: float, after: float, what: str, *, start: bool = True) -> str:
    """ "lowers it from 0.93 to 0.41", as the rounded numbers show it; not at the start, "lower it to 0.41"."""
    first, second = number(before), number(after)
    verb, ending = "lower" if after < before else "raise", "s" if start else ""
    if first == second:
        return f"leave{ending} {what} at {second}"
    return f"{verb}{ending} {what} {f'from {first} ' if start else ''}to {second}"


def number(value: float) -> str:
    """A score with two decimals, "0.93"; "-" where it is undefined."""
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00") if isfinite(value) else "-"
