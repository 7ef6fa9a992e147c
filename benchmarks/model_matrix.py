r"""Which methods work for which models: small instances with random weights, one Markdown table.

    python benchmarks/model_matrix.py [--models WORD ...]

| column | what it says |
|---|---|
| layer | the default feature layer |
| gpa, ega, ria | "yes", or the words with which segfaith refuses |
| scored | traced: altered images are scored by a graph; plain: by the model itself, and why |
| difference | the largest difference between the drops of RIA by the graph and by the model itself (16 cells) |

The images are noise of 64 x 64 pixels (128 x 128 where a model needs it): the table says what runs, not what is
right. `tests/models/adapters` holds outputs against the libraries' own. `--models` keeps labels that hold a word.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from small_models import SIZES, SMALL, Given

import segfaith
from segfaith import Target, load_model
from segfaith.errors import SegfaithError
from segfaith.evidence.gradient import forward_pass
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions
from segfaith.incremental.scoring import scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.scores import BatchSize
from segfaith.types import Image, Mask

METHODS = ("gpa", "ega", "ria")
HEADINGS = ("model", "layer", *METHODS, "scored", "difference")


def main() -> None:
    """Prints the table, a line as soon as its model is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[""], help="labels that hold one of these words")
    words = parser.parse_args().models
    print(line(HEADINGS))
    print("|---" * len(HEADINGS) + "|")
    for label, build in SMALL.items():
        if any(word in label for word in words):
            with TemporaryDirectory() as folder:
                print(line(row(label, build(Path(folder)))), flush=True)


def line(cells: tuple[str, ...]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def row(label: str, given: Given) -> tuple[str, ...]:
    """The cells of one model."""
    size = SIZES.get(label, 64)
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(size, size, dtype=torch.bool)
    region[10:40, 12:50] = True
    try:
        model = load_model(**given)
    except SegfaithError as error:
        return (label, "", *[f"no: {error}"] * len(METHODS), "", "")
    tried = [attempt(model, image, region, method) for method in METHODS]
    path, difference = "", ""
    if tried[-1] == "yes":
        path = scorer_for(model, image, region, 1).path
        traced = path == "incremental"
        difference = f"{largest_difference(model, image, region):.0e}" if traced else ""
        path = "traced" if traced else path
    return label, model.layer or "none", *tried, path, difference


def attempt(model: SegmentationModel, image: Image, region: Mask, method: str) -> str:
    """ "yes" if the method gives a map that is finite and not constant, else why not."""
    try:
        heatmap = segfaith.explain(model, image, Target(1, region), [method])[method]
    except SegfaithError as error:
        return f"no: {error}"
    good = bool(heatmap.isfinite().all()) and float(heatmap.max()) > float(heatmap.min())
    return "yes" if good else "a constant map"


def largest_difference(model: SegmentationModel, image: Image, region: Mask) -> float:
    """Between the drops of 4 x 4 cells by the graph and by the model itself."""
    drops = []
    for incremental in (True, False):
        model.incremental = incremental
        variant, batch = clean_variant(image, region), BatchSize(16)
        score = forward_pass(model, variant.images, variant.regions, 1, batch).score
        evidence = intervention_evidence(
            model, variant, Regions(grid=4), score, 1, batch, rng=lambda: np.random.default_rng(0)
        )
        drops.append(evidence.drop)
    model.incremental = True
    return float((drops[0] - drops[1]).abs().max())


if __name__ == "__main__":
    main()
