"""Why `fidelity` has its defaults: its reliability over sets, and how it depends on their size, parts and fill.

    python benchmarks/fidelity_defaults.py examples/voc-mobilenetv2.toml -n 16
    python benchmarks/fidelity_defaults.py quickstart -n 16

One column is changed at a time. Samples whose s is below 0.05 are left out. The tables hold, for each choice:

| column | what it says |
|---|---|
| a method's name | its mean fidelity, or fidelity_inside, fidelity_outside |
| above | share of the samples on which RIA lies above `gamed` |
| reliability | of one half of the sets with the other, over samples and the four methods: 2r / (1 + r) of Pearson's r |
| passes | sets a sample, in the mean |

`all` counts every set, wherever it lies, instead of the half that lies anywhere. A choice changes one
default: a grid of 17 cells a side, 8 cells a set, occluded with the image's mean, numbers per pixel.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from segfaith.attribution.explain import gather, heatmaps
from segfaith.batching import BatchSize, score_images
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.partition import fidelity_sets
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.settings import find_settings, read_settings
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import to_device
from segfaith.constants import TRUTH
from segfaith.errors import SampleError
from segfaith.evaluation.correlation import spearman
from segfaith.evaluation.fidelity import Sets
from segfaith.evaluation.subject import Subject
from segfaith.incremental.scoring import scorer_for
from segfaith.occlusion import occluder
from segfaith.perturbation import clean_variant
from segfaith.scores import scalar_of
from segfaith.types import Map

METHODS = ("gpa", "ega", "ria", "dea", "ria@regions=adaptive", "gamed", "mask", "random", "random_cells")
LEAST_S = 0.05
MANY = 384
CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "384 sets": {"fidelity": MANY},
    **{f"{size} cells a set": {"fidelity_size": size} for size in (2, 4, 16, 32)},
    **{f"grid of {grid}": {"fidelity_grid": grid} for grid in (11, 13)},
    "superpixels": {"fidelity_parts": "superpixels"},
    **{f"fill: {name}": {"fidelity_occlusion": name} for name in ("zero", "blur", "road")},
    "sums over sets": {"fidelity_per": "set"},
}
AREAS = ("anywhere", "inside", "outside", "all")


@dataclass(frozen=True, eq=False)
class Case:
    """A sample with its maps and its s."""

    subject: Subject
    maps: Mapping[str, Map]
    s: float


def cases(prepared: Prepared) -> list[Case]:
    """Every sample of a run that can be measured and whose s is at least 0.05."""
    made = []
    for sample_id in prepared.plan.ids:
        try:
            sample = load_sample(prepared.plan, prepared.model, sample_id)
            image, target = to_device(prepared.model, sample.image, prepared.targets(sample)[0])
            subject = Subject(prepared.model, sample_id, image, target, prepared.plan.settings.seed, BatchSize(16))
            clean = gather(
                prepared.model,
                clean_variant(image, target.region),
                target,
                prepared.plan.methods,
                subject.batch,
                subject.rng,
            )
        except SampleError as error:
            print(f"{sample_id}: {error}")
            continue
        assert clean.forward is not None
        s = float(clean.forward.score[0])
        if s >= LEAST_S:
            maps = {
                method.name: heatmaps(prepared.model, clean, method, subject.rng, sample_id)[0]
                for method in prepared.plan.methods
                if method.name != TRUTH  # no method made it
            }
            made.append(Case(subject, maps, s))
    return made


def drops(subject: Subject, sets: Sets, operator: str) -> torch.Tensor:
    """d_j of each set, by the fast scorer."""
    scorer = scorer_for(subject.model, subject.image, subject.target.region, scalar_of(subject.model, subject.target))
    occlude = occluder(operator, subject.image, subject.rng(f"occlusion|{operator}"))

    def build(numbers: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [subject.image if number == 0 else occlude(sets.mask(number - 1)[None])[0] for number in numbers.tolist()]
        )

    scores = score_images(scorer.score, build, len(sets) + 1, subject.batch)
    return (scores[0] - scores[1:]).cpu()


def rows(case: Case, choice: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Correlations over all sets of an area, and over its even and odd ones, of each map."""
    settings = EvaluationSettings(**changes)
    sets = fidelity_sets(case.subject, ~case.subject.target.region, settings)
    lost = sets.losses(drops(case.subject, sets, settings.fidelity_occlusion or "mean")).cpu()
    made = []
    for method, heatmap in case.maps.items():
        totals = sets.totals(heatmap).cpu()
        for area in AREAS:
            chosen = torch.tensor([j for j, where in enumerate(sets.areas) if area in (where, "all")], dtype=torch.long)
            if len(chosen) < 8:
                continue
            whole, even, odd = (spearman(totals[part], lost[part]) for part in (chosen, chosen[::2], chosen[1::2]))
            made.append(
                {"choice": choice, "area": area, "method": method, "id": case.subject.id, "value": whole}
                | {"even": even, "odd": odd, "sets": len(sets)}
            )
    return made


def table(frame: pd.DataFrame, area: str) -> pd.DataFrame:
    """A line for each choice."""
    lines = []
    for choice, part in frame[frame["area"] == area].groupby("choice", sort=False):
        values = part.pivot(index="id", columns="method", values="value")
        halves = part[part["method"].isin(["gpa", "ega", "ria", "dea"])].dropna(subset=["even", "odd"])
        r = np.corrcoef(halves["even"], halves["odd"])[0, 1]
        both = values[["ria", "gamed"]].dropna()
        lines.append(
            {"choice": choice}
            | {name: values[name].mean() for name in METHODS if name in values}
            | {"above": (both["ria"] > both["gamed"]).mean(), "reliability": 2 * r / (1 + r)}
            | {"n": len(values), "passes": part["sets"].mean()}
        )
    return pd.DataFrame(lines).set_index("choice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings")
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    settings = read_settings(find_settings(given.settings), [f"data.n={given.n}", *given.set])
    named = settings.methods.model_copy(update={"names": list(METHODS)})
    chosen = cases(prepare(settings.model_copy(update={"methods": named})))
    frame = pd.DataFrame(
        [row for choice, changes in CHOICES.items() for case in chosen for row in rows(case, choice, changes)]
    )
    pd.set_option("display.width", 250, "display.max_columns", 50)
    for area in AREAS:
        print(f"\n{area}\n{table(frame, area).round(3).to_string()}")


if __name__ == "__main__":
    main()
