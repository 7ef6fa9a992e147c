"""Areas between a curve over the whole image and its start, from scores at fractions k of all pixels. No torch here."""

from collections.abc import Sequence

from segfaith.evaluation.interventions import FRACTIONS


def area_of_drops(s: float, s_baseline: float, *scores: float) -> float:
    """The area between s and the scores of the deletion curve, whose ends are s and s_baseline."""
    return _area([s - score for score in (s, *scores, s_baseline)])


def area_of_rises(s: float, s_baseline: float, *scores: float) -> float:
    """The area between s_baseline and the scores of the insertion curve, whose ends are s_baseline and s."""
    return _area([score - s_baseline for score in (s_baseline, *scores, s)])


def _area(values: Sequence[float]) -> float:
    """The area under a curve that is straight between the fractions 0, `FRACTIONS` and 1."""
    places = (0.0, *FRACTIONS, 1.0)
    steps = zip(places, places[1:], values, values[1:], strict=False)
    return sum((right - left) * (low + high) / 2 for left, right, low, high in steps)
