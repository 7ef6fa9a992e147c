"""The values of all metrics from what is known of a map or of a row. No torch here."""

from collections.abc import Mapping, Sequence
from math import isinf, nan
from typing import Any

from segfaith.evaluation.metrics import METRICS, Metric


def compute_metrics(known: Mapping[str, Any], faults: dict[str, str]) -> dict[str, float]:
    """Every metric that follows from what is known and is not known yet, by name.

    Args:
        known: scores, quantities and metrics by name; see `Metric.needs`. A metric that needs anything else is left
            out. A score that was not measured is NaN, and so are the metrics that need it.
        faults: each metric whose function fails is added to it, with the error in words; an older entry is kept. A
            function fails if it raises an exception, or if its value is infinite or no number. The metric is then NaN.
    """
    values: dict[str, Any] = dict(known)
    for metric in METRICS.values():
        if metric.name not in known and all(need in values for need in metric.needs):
            try:
                values[metric.name] = _value(metric, values)
            except Exception as error:  # one metric's failure leaves the others
                values[metric.name] = nan
                faults.setdefault(metric.name, f"{type(error).__name__}: {error}")
    return {name: value for name, value in values.items() if name not in known}


def _value(metric: Metric, values: Mapping[str, Any]) -> float:
    """A metric's value from copies of what it needs.

    Raises:
        ValueError: the value is infinite.
        Exception: the function fails, or `float` takes no value of its kind.
    """
    value = float(metric.function(*(_copied(values[need]) for need in metric.needs)))
    if isinf(value):
        raise ValueError(f"the value is {value}")
    return value


def _copied(value: Any) -> Any:
    """A copy of a tensor, or of each tensor of a sequence; a number as it is."""
    if isinstance(value, Sequence):
        return tuple(map(_copied, value))
    return value.clone() if hasattr(value, "clone") else value
