"""The columns of a run's Parquet files: type and meaning."""

from typing import Any

import pyarrow as pa

from segfaith.evaluation.metrics import METRICS

Columns = dict[str, tuple[Any, str]]
"""By name: the type in Arrow's terms, and the meaning in words."""
TEXT, REAL, INTEGER, TRUTH = pa.string(), pa.float64(), pa.int64(), pa.bool_()

RECORD_COLUMNS: Columns = {
    "sample_id": (TEXT, "id of the sample in its data set"),
    "class_index": (INTEGER, "target class c; null where no target was found"),
    "method": (TEXT, "method with its parameters, as in [methods] names"),
    "target_area": (REAL, "|M| as a fraction of all pixels"),
    "target_iou": (REAL, "intersection over union of the model's prediction of c with M"),
    "majority_class": (INTEGER, "class that the model predicts on most pixels of M"),
    "head": (TEXT, "what made the model's outputs probabilities: softmax, sigmoid, or (they were) probabilities"),
    "kind": (TEXT, "how the planted evidence decides (docs/scenes.md); null where none was planted"),
    "s": (REAL, "s_c(x, M), masked mean probability in [0, 1]"),
    "s_target_deleted": (REAL, "s_c(O(x, S_t), M)"),
    "s_off_deleted": (REAL, "s_c(O(x, S_o), M)"),
    "s_baseline": (REAL, "s_c(b, M), b = O(x, all pixels)"),
    "s_inserted": (REAL, "s_c(b with S_t put back from x, M)"),
    "s_fair_deleted": (REAL, 's_c with the n(k, M) highest pixels outside M occluded; needs leakage = "detailed"'),
    "s_near_deleted": (REAL, 's_c with the pixels of S_o near M occluded; needs leakage = "detailed"'),
    "s_middle_deleted": (REAL, "s_c with the pixels of S_o at a middle distance occluded; the same"),
    "s_far_deleted": (REAL, "s_c with the pixels of S_o far from M occluded; the same"),
    "s_off_evidence_deleted": (REAL, "s_c(O(x, S_o and E), M), E the planted evidence; s where S_o holds none of it"),
    **{name: (REAL, METRICS[name].meaning) for name in METRICS if name not in ("stability", "runtime_s")},
    "stability": (REAL, METRICS["stability"].meaning),
    **{
        f"stability_{name}": (REAL, f"Pearson correlation with the map under {name}")
        for name in ("noise", "brightness", "contrast", "blur", "flip")
    },
    "runtime_s": (REAL, METRICS["runtime_s"].meaning),
    "degenerate": (TRUTH, "the map is constant (range below 1e-12)"),
    "tied_share_target": (REAL, "fraction of S_t that is there by the tie-break alone"),
    "tied_share_off": (REAL, "fraction of S_o that is there by the tie-break alone"),
    "path": (TEXT, "how the interventions were scored: incremental, or plain and why; null where they were not"),
    "status": (TEXT, "ok, skipped or failed"),
    "reason": (TEXT, "why a row is not ok, or which of its values are undefined (NaN)"),
}
"""Columns of `records/*.parquet`: type and meaning. random_cells holds means over its three draws."""

CURVE_COLUMNS: Columns = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
    "method": RECORD_COLUMNS["method"],
    "occlusion": (TEXT, "operator"),
    "k": (REAL, "fraction of the region's pixels"),
    "kind": (TEXT, "target_deletion, off_deletion or insertion"),
    "pixels": (INTEGER, "n(k, R)"),
    "s": RECORD_COLUMNS["s"],
    "score": (REAL, "s_c of the intervened image"),
    "s_baseline": RECORD_COLUMNS["s_baseline"],
    "value": (REAL, "tdd, odd or insertion_gain at this operator and k"),
    "value_abs": (REAL, "mean over the method's draws of the absolute value; of odd it is odd_abs"),
}
"""Columns of `curves/*.parquet`."""


RANDOMISATION_COLUMNS: Columns = {
    "sample_id": RECORD_COLUMNS["sample_id"],
    "class_index": RECORD_COLUMNS["class_index"],
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
