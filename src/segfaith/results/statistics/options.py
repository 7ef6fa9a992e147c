"""What a reader asks of an analysis."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What a reader asks of the runs.

    Attributes:
        min_s: leaves out measured targets with a lower s.
        min_iou: leaves out measured targets that the model predicts with a lower intersection over union.
        methods: whose pairs are tested; by default those under test and `random_cells`.
        single_run: also tests differences within one run alone, see `paired.compare`.
    """

    min_s: float | None = None
    min_iou: float | None = None
    methods: tuple[str, ...] | None = None
    single_run: bool = False
