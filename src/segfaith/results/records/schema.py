"""The columns of a run's Parquet files: type and meaning."""

from collections.abc import ItemsView, Iterator, Mapping
from math import nan
from typing import Any

import pyarrow as pa

from segfaith.evaluation.interventions import INTERVENTIONS, score_columns
from segfaith.evaluation.metrics import METRICS, STABILITIES

Columns = Mapping[str, tuple[Any, str]]
"""By name: the type in Arrow's terms, and the meaning in words."""
TEXT, REAL, INTEGER, TRUTH = pa.string(), pa.float64(), pa.int64(), pa.bool_()


def _record_columns() -> dict[str, tuple[Any, str]]:
    """The columns of the records in their order; those of scores and metrics follow from the entries there are."""
    metrics = {name: (REAL, metric.meaning) for name, metric in METRICS.items()}
    last = {name: metrics.pop(name) for name in ("stability", "runtime_s")}
    return {
        "sample_id": (TEXT, "id of the sample in its data set"),
        "class_index": (INTEGER, "target class c; null where no target was found"),
        "target": (TEXT, "its name among the sample's targets, as in dog, dog-2; empty where settings allow one"),
        "method": (TEXT, "method with its parameters, as in [methods] names"),
        "target_area": (REAL, "|M| as a fraction of all pixels"),
        "target_iou": (REAL, "intersection over union of the model's prediction of c with M"),
        "majority_class": (INTEGER, "class that the model predicts on most pixels of M"),
        "head": (TEXT, "what made the model's outputs probabilities: softmax, sigmoid, or (they were) probabilities"),
        "score": (
            TEXT,
            "the explained number of each pixel: probability, conditional, logit, log_odds, or margin",
        ),
        "kind": (TEXT, "how the known evidence decides (docs/scenes.md, docs/wired.md); null where none is known"),
        **{name: (REAL, meaning) for name, meaning in score_columns().items()},
        **metrics,
        "stability": last["stability"],
        **{name: (REAL, f"Pearson correlation with the map under {name.partition('_')[2]}") for name in STABILITIES},
        "runtime_s": last["runtime_s"],
        "workers": (
            REAL,
            "how many processes of the run the machine had, this one included; several share its memory, "
            "and runtime_s may be longer than on an idle machine",
        ),
        "machine": (TEXT, "the processor or GPU that measured, and its threads; empty where it is not known"),
        "degenerate": (TRUTH, "the map is constant (range below 1e-12)"),
        "tied_share_target": (REAL, "fraction of S_t that is there by the tie-break alone"),
        "tied_share_off": (REAL, "fraction of S_o that is there by the tie-break alone"),
        "path": (TEXT, "how the interventions were scored: incremental, or plain and why; null where they were not"),
        "status": (TEXT, "ok, skipped or failed"),
        "reason": (TEXT, "why a row is not ok, which of its values are undefined (NaN), or that memory was too small"),
    }


class _RecordColumns(Mapping[str, tuple[Any, str]]):
    """The columns as they follow from METRICS and INTERVENTIONS at each reading, so that a script may add to these."""

    def __getitem__(self, name: str) -> tuple[Any, str]:
        return _record_columns()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_record_columns())

    def items(self) -> ItemsView[str, tuple[Any, str]]:
        return _record_columns().items()

    def __len__(self) -> int:
        return len(_record_columns())


TARGET = ["sample_id", "target"]
"""The columns that tell a target of a run from all others."""
LATER: Mapping[str, Any] = {
    "target": "",
    "score": "probability",
    **dict.fromkeys(("tdd_drop", "tdd_drop_gain", "odd_drop", "odd_drop_abs", "own_half"), nan),
    **dict.fromkeys((name for name in score_columns() if name.startswith(("s_whole_", "s_shifted_"))), nan),
    **dict.fromkeys(("fidelity", "fidelity_inside", "fidelity_outside", "stability_rank", "stability_top"), nan),
    **dict.fromkeys(("deletion_area", "deletion_auc", "insertion_area", "insertion_auc"), nan),
    **dict.fromkeys(("tdd_own", "tdd_gain_own"), nan),
    "workers": 1.0,
    "machine": "",
}
"""Columns that older files lack, and the value of their rows."""

RECORD_COLUMNS: Columns = _RecordColumns()
"""Columns of `records/*.parquet`: type and meaning. random_cells holds means over its three draws."""

CURVE_COLUMNS: Columns = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
    "target": RECORD_COLUMNS["target"],
    "method": RECORD_COLUMNS["method"],
    "occlusion": (TEXT, "operator"),
    "k": (REAL, "fraction of the region's pixels"),
    "kind": (TEXT, f"the intervention: {', '.join(kind for kind, entry in INTERVENTIONS.items() if entry.curve)}"),
    "pixels": (INTEGER, "n(k, R)"),
    "s": RECORD_COLUMNS["s"],
    "score": (REAL, "s of the intervened image"),
    "s_baseline": RECORD_COLUMNS["s_baseline"],
    "value": (
        REAL,
        "tdd, odd or insertion_gain at this operator and k; tdd_drop for tdd and odd_drop for odd where the score is "
        "not the probability",
    ),
    "value_abs": (REAL, "mean over the method's draws of the absolute value; of odd it is odd_abs"),
}
"""Columns of `curves/*.parquet`."""


RANDOMISATION_COLUMNS: Columns = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
    "target": RECORD_COLUMNS["target"],
    "method": RECORD_COLUMNS["method"],
    "stage": (INTEGER, "how many parts of the model have weights drawn anew, from the head on; 0: none"),
    "part": (TEXT, "the part that was drawn anew last"),
    "s": (REAL, "s_c(x, M) of the model at this stage"),
    "pearson": (REAL, "correlation of the map with that of the trained model"),
    "spearman": (REAL, "rank correlation of the map with that of the trained model"),
    "status": RECORD_COLUMNS["status"],
    "reason": (TEXT, "why a row is not ok, or why its correlations are undefined (NaN)"),
    "finished": (TRUTH, "whether the check went through all parts; false where it was stopped"),
}
"""Columns of `randomisation.parquet`."""
