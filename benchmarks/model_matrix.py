r"""What works for which model: small instances with random weights, one Markdown table with notes.

    python benchmarks/model_matrix.py [--models WORD ...] [--jobs 2]

Each model of `small_models` is tried with each head, in float32; one model of each library (`TYPES_OF`) also in
bfloat16 and float16.

| column | what it says |
|---|---|
| head | softmax: 4 classes; sigmoid: one channel; multi-label: 4 channels with a sigmoid each |
| type | the number type of the weights |
| gpa, ega, ria | "yes", "constant" for a constant map, or the note with the words of the refusal |
| scored | traced: altered images are scored by a graph; plain: by the model itself, with the note why |
| difference | the largest difference of RIA's 16 drops between the graph and the model itself |

"breaks" marks an error that is none of segfaith's own: a defect.

The images are noise of 64 x 64 pixels (128 x 128 where a model needs it): the table says what runs, not what is
right. `tests/models/adapters` holds outputs against the libraries' own. `--models` keeps labels that hold a word.
"""

import argparse
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from small_models import CLASSES, QUERY_MODELS, SIZES, SMALL, Given

import segfaith
from segfaith import Target, load_model
from segfaith.batching import BatchSize
from segfaith.errors import SegfaithError
from segfaith.evidence.gradient import forward_pass
from segfaith.evidence.intervention import intervention_evidence
from segfaith.evidence.regions import Regions
from segfaith.incremental.scorers import INCREMENTAL
from segfaith.incremental.scoring import scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.scores import Scalar
from segfaith.types import Image, Mask

GRID = 4
METHODS = {"gpa": "gpa", "ega": "ega", "ria": f"ria@grid={GRID}"}
HEADINGS = ("model", "head", "type", "layer", *METHODS, "scored", "difference")
HEADS: dict[str, tuple[int, dict[str, Any]]] = {
    "softmax": (CLASSES, {}),
    "sigmoid": (1, {"head": "logits"}),  # random outputs may lie in [0, 1], as probabilities do
    "multi-label": (CLASSES, {"head": "sigmoid"}),
}
"""By the head's name: the number of channels, and what `load_model` is told."""
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TYPES_OF = ("smp Unet", "hf Segformer", "torchvision deeplabv3_mobilenet_v3_large", "monai UNet")
"""The models that are tried in all number types."""
NOTE = 230
"""The most characters of a note."""
Case = tuple[str, str, str]
"""A model's label, a head and a number type."""


def main() -> None:
    """Prints the table, a line as soon as its model is done, and the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[""], help="labels that hold one of these words")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    given = parser.parse_args()
    cases = [case for case in all_cases() if any(word in case[0] for word in given.models)]
    notes: dict[str, int] = {}
    print(line(HEADINGS))
    print("|---" * len(HEADINGS) + "|")
    with ProcessPoolExecutor(given.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        try:
            for cells in pool.map(row, cases):
                print(line([numbered(cell, notes) for cell in cells]), flush=True)
        finally:  # also of a part, where one stops it
            print("", *[f"{number}. {words}" for words, number in notes.items()], sep="\n")


def all_cases() -> list[Case]:
    """Every model with every head, in the number types that it is tried in: first all models with a softmax."""
    cases = [
        (label, head, kind)
        for label in SMALL
        for head in HEADS
        for kind in (TYPES if label in TYPES_OF else ["float32"])
        if head == "softmax" or label not in QUERY_MODELS
    ]
    return sorted(cases, key=lambda case: (case[1:] != ("softmax", "float32"), case[0] not in TYPES_OF))


def line(cells: Any) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def numbered(cell: str, notes: dict[str, int]) -> str:
    """A cell "word: reason" as "word (number of the note)"."""
    word, colon, reason = cell.partition(": ")
    return f"{word} ({notes.setdefault(reason, len(notes) + 1)})" if colon else cell


def row(case: Case) -> tuple[str, ...]:
    """The cells of a case."""
    label, head, kind = case
    outputs, told = HEADS[head]
    size = SIZES.get(label, 64)
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(size, size, dtype=torch.bool)
    region[10:40, 12:50] = True
    with TemporaryDirectory() as folder:
        layer, tried, scored = "", ["" for _ in METHODS], ("", "")
        built, model = attempt(lambda: loaded(SMALL[label](Path(folder), outputs=outputs) | told))
        if model is None:
            return label, head, kind, layer, *[shortened(built, label)] * len(METHODS), *scored
        model.module.to(TYPES[kind])
        layer = model.layer or "none"
        for number, method in enumerate(METHODS.values()):
            word, heatmap = attempt(lambda name=method: segfaith.explain(model, image, Target(1, region), [name])[name])
            tried[number] = word if heatmap is None else "constant" if heatmap.max() <= heatmap.min() else "yes"
        if tried[-1] in ("yes", "constant"):
            scored = how_scored(model, image, region)
    return label, head, kind, layer, *[shortened(cell, model.name) for cell in (*tried, *scored)]


def loaded(given: Given) -> SegmentationModel:
    return load_model(**given)


def attempt(run: Callable[[], Any]) -> tuple[str, Any]:
    """What `run` gives; or why not, in the words of the refusal, and None."""
    try:
        return "", run()
    except SegfaithError as error:
        return f"no: {error}", None
    except Exception as error:  # a defect, which the table shows
        return f"breaks: {type(error).__name__}, {error}", None


def shortened(cell: str, model: str) -> str:
    """A cell without the model's name, which differs from row to row, and no longer than a note may be."""
    cell = re.sub(r"\s+", " ", re.sub(r"\w+:(/\S+|net\.onnx)", "the model", cell.replace(model, "the model")))
    return cell if len(cell) <= NOTE else cell[:NOTE].rpartition(" ")[0] + " ..."


def how_scored(model: SegmentationModel, image: Image, region: Mask) -> tuple[str, str]:
    """The cells "scored" and "difference"."""
    reason, scorer = attempt(lambda: scorer_for(model, image, region, Scalar(1)))
    if scorer is None or scorer.path != INCREMENTAL:
        return reason or scorer.path, ""
    reason, difference = attempt(lambda: largest_difference(model, image, region))
    return "traced", reason or f"{difference:.0e}"


def largest_difference(model: SegmentationModel, image: Image, region: Mask) -> float:
    """Between the drops of 4 x 4 cells by the graph and by the model itself."""
    drops = []
    for incremental in (True, False):
        model.incremental = incremental
        variant, batch = clean_variant(image, region), BatchSize(16)
        score = forward_pass(model, variant.images, variant.regions, Scalar(1), batch).score
        evidence = intervention_evidence(
            model, variant, Regions(grid=GRID), score, Scalar(1), batch, rng=lambda: np.random.default_rng(0)
        )
        drops.append(evidence.drop)
    model.incremental = True
    return float((drops[0] - drops[1]).abs().max())


if __name__ == "__main__":
    main()
