"""Every figure of one data set, by the first part of its file's name."""

from collections.abc import Callable

from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.save import FIGURES
from segfaith.results.records.identity import slug
from segfaith.results.statistics.analysis import DataAnalysis

CAPTIONS = {
    "success": "Success cases.",
    "failure": "Failure cases.",
    "mechanism": "The mechanism of DEA.",
    "tradeoff": "Faithfulness against runtime and stability.",
    "runs": "Run-level means.",
    "curves": "Deletion and insertion over k.",
    "critical-differences": "Mean ranks and critical differences.",
    "rankings": "Ranks of the methods under every operator and every k.",
    "randomisation": "Similarity of maps under randomised weights.",
}


def _drawing(name: str) -> Callable[[DataAnalysis], Drawing]:
    def make(part: DataAnalysis) -> Drawing:
        stem = f"{name}-{slug(part.label)}"
        on_page = name not in ("success", "failure", "mechanism")
        return Drawing(stem, CAPTIONS[name], lambda: FIGURES[name](part.runs).figure, on_page=on_page)

    return make


DRAWINGS = {name: _drawing(name) for name in FIGURES}
