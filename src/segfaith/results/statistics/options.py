"""What a reader asks of the runs."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from segfaith.results.statistics.judgement import packaged
from segfaith.results.statistics.rankings import Over

By = Literal["s", "target_area", "class_index"]
OVERS: tuple[Over, ...] = ("occlusion", "k")
BYS: tuple[By, ...] = ("s", "target_area", "class_index")
STRATIFIED = ("tdd", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics that are given within strata of samples."""


@dataclass(frozen=True)
class Options:
    """What a reader asks of the runs.

    Attributes:
        min_s: leaves out measured targets with a lower s.
        min_iou: leaves out measured targets that the model predicts with a lower intersection over union.
        methods: whose pairs are tested; by default those under test and `random_cells`.
        single_run: also tests differences within one run alone, see `paired.compare`.
        judgement: of `judgement.read`: what each metric is worth, from which follows what leads the conclusions. By
            default what the package holds, which `segfaith judge-metrics` measured on scenes.
    """

    min_s: float | None = None
    min_iou: float | None = None
    methods: tuple[str, ...] | None = None
    single_run: bool = False
    judgement: pd.DataFrame = field(default_factory=packaged, repr=False, compare=False)
