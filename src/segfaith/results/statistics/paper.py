"""Table 1 of the paper ("Toward Faithful Segmentation Attribution via Benchmarking and Dual-Evidence Fusion")."""

PAPER_METHODS = ("gpa", "ega", "ria", "dea")
"""The paper's four methods; its claims are about them alone."""

PAPER_METRICS = ("tdd", "odd_abs", "insertion_gain", "stability")
"""The columns of its Table 1. It prints no runtimes."""

_ROWS = {
    ("sbd", "gpa"): ((0.259, 0.021), (0.748, 0.736), (0.281, 0.196), (0.883, 0.006)),
    ("sbd", "ega"): ((0.223, 0.027), (0.268, 0.302), (0.226, 0.199), (0.978, 0.004)),
    ("sbd", "ria"): ((0.453, 0.021), (0.177, 0.125), (0.097, 0.037), (0.827, 0.010)),
    ("sbd", "dea"): ((0.381, 0.030), (0.235, 0.134), (0.114, 0.047), (0.959, 0.009)),
    ("voc2012", "gpa"): ((0.270, 0.044), (0.281, 0.133), (0.123, 0.094), (0.894, 0.004)),
    ("voc2012", "ega"): ((0.287, 0.048), (0.982, 1.23), (0.060, 0.009), (0.978, 0.003)),
    ("voc2012", "ria"): ((0.522, 0.050), (0.249, 0.184), (0.031, 0.013), (0.821, 0.001)),
    ("voc2012", "dea"): ((0.449, 0.043), (0.398, 0.313), (0.074, 0.017), (0.961, 0.004)),
}

TABLE_1: dict[tuple[str, str, str], tuple[float, float]] = {
    (data, method, metric): value
    for (data, method), values in _ROWS.items()
    for metric, value in zip(PAPER_METRICS, values, strict=True)
}
"""(data set, method, metric) -> (mean, std over runs), on the validation split; runs: VOC 6, SBD 11 (GPA 9)."""


def paper_value(data: str, method: str, metric: str) -> tuple[float, float] | None:
    """The paper's (mean, std) for a data set's label as in the tables ("voc2012 val"), or None where it has none.

    Only the validation splits under the protocol are the paper's: beside other images, or other settings, which the
    label then names, its numbers would say nothing.
    """
    name, _, split = data.rpartition(" ")
    return TABLE_1.get((name, method, metric)) if split == "val" else None
