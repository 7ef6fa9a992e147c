"""The tables of the benchmarks' results. Only Python's own library is needed to write them."""

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

PROCESSES = ("user", "tuned")
COLUMNS = {
    "model": "",
    "mask": "",
    "row": "",
    "peer": "",
    "peer_user_s": ".4g",
    "peer_tuned_s": ".4g",
    "ours_s": ".4g",
    "ratio_user": ".2f",
    "ratio_tuned": ".2f",
    "difference": ".1e",
    "largest_drop": ".1e",
    "spearman": ".4f",
    "peer_peak_mb": ".0f",
    "ours_peak_mb": ".0f",
    "idle_mb": ".0f",
    "peak_share": ".0%",
    "dense_share": ".0%",
}
"""The columns of the table with everything; on a GPU `images_per_s` follows."""
TITLES = {
    "deeplabv3_resnet50": "DeepLabV3-ResNet50",
    "fcn_resnet50": "FCN-ResNet50",
    "lraspp_mobilenet_v3_large": "LRASPP-MobileNetV3",
}
HEAD = (
    *("model, mask (share of the image)", "row", "peer", "peer, s", "segfaith, s", "ratio", "largest difference"),
    *("Spearman (drops above 1e-3)", "share of peak", "memory, segfaith / peer, MB"),
)
"""The columns of `performance_rows`."""
SWITCHES = ("model", "way", "images a batch", "s", "images a second", "difference", "peak memory, MB")
"""The columns of `switch_line`."""
VOC_VAL = 1449
"""Images of VOC 2012's segmentation split `val`."""


def means(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means of the ratios over the masks, by model and row."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault((one["model"], one["row"]), []).append(one)
    return [
        {"model": model, "row": row, "scaled": any(one["scaled"] for one in group), "masks": len(group)}
        | {
            key: geometric_mean([one[key] for one in group])
            for key in ("ratio_user", "ratio_tuned")
            if all(key in one for one in group)
        }
        for (model, row), group in groups.items()
    ]


def table(head: Sequence[str], lines: Sequence[str]) -> str:
    """A Markdown table."""
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def line(one: dict[str, Any], columns: Sequence[str]) -> str:
    """A table's line: a dash where there is nothing, a tilde where the peer's seconds are scaled."""
    cells = []
    for column in columns:
        value = one.get(column)
        sign = "~" if one["scaled"] and column in ("peer_user_s", "peer_tuned_s", "ratio_user", "ratio_tuned") else ""
        cells.append("-" if value is None else f"{sign}{value:{COLUMNS.get(column, '.0f')}}")
    return f"| {' | '.join(cells)} |"


def performance_rows(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for docs/performance.md, under `HEAD`.

    A row with peers in its own precision (autocast, TF32) has a second line, whose ratio is to the fastest of all
    peers, and a line for the fastest of these peers: how far its drops are from captum's in float32.
    """
    lines, before = [], ""
    for one in results:
        place = f"{TITLES.get(one['model'], one['model'])}, {100 * one['mask_share']:.0f} %"
        memory = " / ".join(f"{one[key]:.0f}" for key in ("ours_peak_mb", "peer_peak_mb") if one.get(key) is not None)
        share = "" if one.get("peak_share") is None else f"{100 * one['peak_share']:.0f} %"
        ours = f"{one['ours_s']:.3g}"
        exact = (*_peer(one, ""), *_agreement(one))
        name, seconds, ratio, *agreement = exact
        cells = [[place if place != before else "", one["row"], name, seconds, ours, ratio, *agreement, share, memory]]
        if "fast" in one:
            name, seconds, ratio = _peer(one, "_all")
            cells.append(["", f"{one['row']}, beside all peers", name, seconds, ours, ratio, "", "", share, ""])
            for peer, told in one["fast"].items():
                taken = _pair(one, [told.get(f"{name}_s") for name in PROCESSES], ".3g")
                cells.append(["", "captum in that precision", peer, taken, "", "", *_agreement(told), "", ""])
        lines += [f"| {' | '.join(line)} |" for line in cells]
        before = place
    return lines


def _peer(one: dict[str, Any], key: str) -> tuple[str, str, str]:
    """The names of the fastest peers, their seconds, and the ratios: user / tuned, or one on a GPU."""
    names = list(dict.fromkeys(one[f"peer{key}_{name}"] for name in PROCESSES if f"peer{key}_{name}" in one))
    seconds = _pair(one, [one.get(f"peer{key}_{name}_s") for name in PROCESSES], ".3g")
    return " / ".join(names), seconds, _pair(one, [one.get(f"ratio{key}_{name}") for name in PROCESSES], ".2f")


def _pair(one: dict[str, Any], values: Sequence[float | None], style: str) -> str:
    sign = "~" if one["scaled"] else ""
    return " / ".join(f"{sign}{value:{style}}" for value in values if value is not None)


def _agreement(told: dict[str, Any]) -> tuple[str, str]:
    """The largest difference, and the rank correlation with the number of drops that it is of."""
    difference, spearman = told.get("difference"), told.get("spearman")
    return (
        "" if difference is None else f"{difference:.1e}",
        "" if spearman is None else f"{spearman:.4f} ({told['cells_above_1e-3']})",
    )


def voc_val(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each model whose whole sample was timed: how long VOC 2012 val would take."""
    return [
        f"{TITLES.get(one['model'], one['model'])}: a sample with the methods of `segfaith run quickstart`, with "
        f"stability, took {one['ours_s']:.3g} s. The {VOC_VAL:,} images of VOC 2012 val would take {hours:.3g} h. This "
        "assumes one process, one target for each image, stability for each, images resized as here, and that each "
        "sample takes as long as this one. Reading images and writing records are not counted."
        for one in results
        if one["ours"] == "quickstart"
        for hours in [one["ours_s"] * VOC_VAL / 3600]
    ]


def switch_line(model: str, one: dict[str, Any]) -> str:
    """The line of one way to compute exact drops, under `SWITCHES`; where it could not run, the reason."""
    head = [TITLES.get(model, model), one["way"], str(one["batch"])]
    if "reason" in one:
        return f"| {' | '.join([*head, one['reason'], '', '', ''])} |"
    peak = "" if one["peak_mb"] is None else f"{one['peak_mb']:.0f}"
    figures = [f"{one['seconds']:.3g}", f"{one['images_per_s']:.0f}", f"{one['difference']:.1e}", peak]
    return f"| {' | '.join([*head, *figures])} |"


def markdown(content: dict[str, Any]) -> str:
    """The tables with what they were measured on, and what was skipped."""
    results = content["results"]
    parts = [", ".join(f"{key} {value}" for key, value in content["machine"].items())]
    on_gpu = ["images_per_s"] if content["machine"].get("device", "cpu") != "cpu" else []
    ratios = ["model", "row", "ratio_user", "ratio_tuned", "masks"]
    for title, rows, columns in (
        ("Seconds are medians, memory is in MB:", results, [*COLUMNS, *on_gpu]),
        ("Geometric means over the masks:", content["means"], ratios),
    ):
        parts += [title, table([one.replace("_", " ") for one in columns], [line(one, columns) for one in rows])]
    parts += ["The same as rows of docs/performance.md:", table(HEAD, performance_rows(results)), *voc_val(results)]
    if any(one["scaled"] for one in results):
        parts.append("~: peers ablated two cells in each row of the grid, and the seconds of these passes are scaled.")
    return "\n\n".join([*parts, *(f"Skipped: {one}" for one in content["skipped"])]) + "\n"
