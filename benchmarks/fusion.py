"""The search for a better fusion of gradient and region evidence: docs/fusion.md has its protocol and results.

    python benchmarks/fusion.py examples/voc-mobilenetv2.toml --half first -o runs/fusion/voc-first
    python benchmarks/fusion.py examples/scenes.toml --half first -o runs/fusion/scenes-first
    python benchmarks/fusion.py --table runs/fusion/voc-first runs/fusion/scenes-first

A folder keeps the evidence and the rows of each sample. Evidence is gathered when a candidate first asks for it, and a
candidate that has rows is not measured again: candidates that are added later cost their own passes alone. `--table`
prints means, and z = mean / standard error of the paired difference for each target of the protocol. `--only PATTERN`
measures some candidates, `--whole` also the curves over the whole image.
"""

import argparse
import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fusion_candidates import CANDIDATES, GRIDS, TWO_LEVELS, Evidence, Observed, Real, grid

from segfaith.api import given_map
from segfaith.attribution.cam import ega
from segfaith.attribution.explain import gather
from segfaith.attribution.heatmap import minmax, upsample
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize, score_images
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.settings import find_settings, read_settings
from segfaith.benchmark.targeting import load_sample, planted_of
from segfaith.benchmark.worker import evaluate_sample, to_device
from segfaith.errors import SampleError
from segfaith.evaluation.correlation import Order, order_of, pearson, top_stability
from segfaith.evaluation.ranking import tie_ranks
from segfaith.evaluation.subject import Subject
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.intervention import bounding_boxes
from segfaith.incremental.scoring import scorer_for
from segfaith.occlusion import occluder
from segfaith.perturbation import PERTURBATIONS, Variants, clean_variant, perturbed_variants
from segfaith.scores import scalar_of

LEAST_S = 0.05
SCENES = 32
METRICS = ("tdd", "odd_abs", "fidelity", "fidelity_inside", "fidelity_outside", "deletion_area", "evidence_ap")
TARGETS = [
    ("tdd", "voc", "ria"),
    ("fidelity", "voc", "ria"),
    ("fidelity", "voc", "dea"),
    ("evidence_ap", "scenes", "ega"),
    ("evidence_ap", "scenes", "dea"),
    ("stability_top", "voc", "dea"),
    ("deletion_area", "voc", "ria"),
    ("deletion_area", "voc", "dea"),
]
"""Metric, data and the method that is the bar; wired pairs are ordinary runs (docs/fusion.md)."""


class Lazy(dict[str, Any]):
    """Evidence by name, gathered when it is first asked for."""

    def __init__(self, known: dict[str, Any], make: Callable[[str], Any]) -> None:
        super().__init__(known)
        self.make = make

    def __missing__(self, name: str) -> Any:
        self[name] = self.make(name)
        return self[name]


def half(ids: list[str], which: str, *, scenes: bool) -> list[str]:
    """The protocol's halves: photographs by a shuffle of their ids, scenes by split."""
    order = sorted(ids)
    np.random.Generator(np.random.PCG64(0)).shuffle(order)
    if scenes:
        return order[:SCENES]
    return order[: len(order) // 2] if which == "first" else order[len(order) // 2 :]


def drops_of(subject: Subject, image: torch.Tensor, region: torch.Tensor, parts: Real) -> Real:
    """s - s(O(x, r)) of every region of a partition (H, W); pixels of number -1 are in none."""
    scorer = scorer_for(subject.model, image, region, scalar_of(subject.model, subject.target))
    occlude = occluder("mean", image, subject.rng("evidence|mean"))
    count = int(parts.max()) + 1
    cells = torch.from_numpy(np.where(parts < 0, count, parts).astype(np.int64))
    start, stop = bounding_boxes(cells, count + 1)
    boxes = (np.concatenate([[[0, 0]], start[:count]]), np.concatenate([[[1, 1]], stop[:count]]))

    def build(numbers: torch.Tensor) -> torch.Tensor:
        occluded: torch.Tensor = occlude(cells == numbers[:, None, None] - 1)  # number 0 occludes nothing
        return occluded

    scores = score_images(scorer.score, build, count + 1, subject.batch, boxes).cpu().numpy()
    return np.asarray(scores[0] - scores[1:])


def two_levels(subject: Subject, image: torch.Tensor, region: torch.Tensor, parts: Real, cut: int) -> list[Observed]:
    """A partition and its drops, and the one in which the `cut` regions of the largest drop are cut in four."""
    coarse = drops_of(subject, image, region, parts)
    finer = np.full(parts.shape, -1)
    chosen = np.argsort(-coarse, kind="stable")[:cut]
    for number, cell in enumerate(chosen):
        rows, columns = np.nonzero(parts == cell)
        lower = rows >= (rows.min() + rows.max() + 1) // 2
        finer[rows, columns] = 4 * number + 2 * lower + (columns >= (columns.min() + columns.max() + 1) // 2)
    fine = drops_of(subject, image, region, finer)
    leaves = np.where(finer < 0, parts, len(coarse) + finer)
    return [
        Observed(parts.astype(np.int16), coarse),
        Observed(leaves.astype(np.int16), np.concatenate([coarse, fine])),
    ]


def evidence_of(subject: Subject, variants: Variants, n: int, known: dict[str, dict[str, Any]]) -> Evidence:
    """The evidence of a variant; a mirrored one has mirrored regions."""
    image, region, flipped = variants.images[n], variants.regions[n], variants.flipped[n]
    alone = Variants((variants.names[n],), image[None], region[None])

    def gradient(name: str) -> Real:
        if name in ("ig prob", "ig logits", "smooth logits"):
            return averaged(subject, image, region, name)
        method = resolve_method(name, {})
        gathered = gather(subject.model, alone, subject.target, [method], subject.batch, subject.rng)
        return np.asarray(ega(gathered.gradient[method.gradient_key], pool="mean", window=1)[0].numpy(), np.float64)

    def design(name: str) -> list[Observed]:
        if name.startswith("adaptive"):
            method = resolve_method(f"ria@regions={name}", {})
            gathered = gather(subject.model, alone, subject.target, [method], subject.batch, subject.rng)
            one = gathered.intervention[method.regions]
            return [Observed(one.regions[0].numpy().astype(np.int16), one.value[0].numpy())]
        cells, cut = TWO_LEVELS[name] if name in TWO_LEVELS else (GRIDS[name], 0)
        parts = grid(subject.size, cells)
        parts = np.ascontiguousarray(parts[:, ::-1]) if flipped else parts
        if cut:
            return two_levels(subject, image, region, parts, cut)
        return [Observed(parts.astype(np.int16), drops_of(subject, image, region, parts))]

    return Evidence(Lazy(known.get("gradients", {}), gradient), Lazy(known.get("designs", {}), design))


def averaged(subject: Subject, image: torch.Tensor, region: torch.Tensor, name: str, steps: int = 8) -> Real:
    """Gradient evidence of several passes, in [0, 1].

    "ig": relu(sum_k (F_k - F0_k) mean_t G_k(x_t)) on the line from the mean colour, whose features are F0, to the image
    (integrated gradients at the layer). "smooth": EGA averaged over images with noise of 0.1 (SmoothGrad).
    """
    kind, _, objective = name.partition(" ")
    blank = occluder("mean", image, subject.rng("ig"))(torch.ones(1, *subject.size, dtype=torch.bool))[0]
    share = (torch.arange(steps) + 0.5) / steps
    noise = torch.from_numpy(subject.rng("ig noise").standard_normal((steps, *image.shape), dtype=np.float32))
    path = blank + share[:, None, None, None] * (image - blank) if kind == "ig" else (image + 0.1 * noise).clamp(0, 1)
    stack = torch.cat([path, image[None], blank[None]])
    regions = region.expand(len(stack), *region.shape)
    scalar = scalar_of(subject.model, subject.target)
    one = gradient_evidence(subject.model, stack, regions, scalar, subject.batch, layer=None, objective=objective)[0]
    gradients, features = one.gradient.double(), one.activation.double()
    if kind == "ig":
        cam = (gradients[:steps].mean(0) * (features[steps] - features[steps + 1])).sum(0).relu()
    else:
        cam = (gradients[:steps] * features[:steps]).sum(1).relu().mean(0)
    return np.asarray(minmax(upsample(cam.float()[None], subject.size))[0].numpy(), np.float64)


def subjects(prepared: Prepared, ids: list[str]) -> Iterator[Subject]:
    """Every sample that can be measured."""
    for sample_id in ids:
        try:
            sample = load_sample(prepared.plan, prepared.model, sample_id)
            image, target = to_device(prepared.model, sample.image, prepared.targets(sample)[0])
        except SampleError as error:
            print(f"{sample_id}: {error}", flush=True)
            continue
        planted, seed = planted_of(sample, target), prepared.plan.settings.seed
        yield Subject(prepared.model, sample_id, image, target, seed, BatchSize(16), planted=planted)


def stable(subject: Subject, heatmap: torch.Tensor, others: torch.Tensor) -> dict[str, float]:
    """stability and stability_top of a map, as a run measures them."""
    region = subject.target.region

    def order(values: torch.Tensor, purpose: str) -> Order:
        return order_of(values, region, ~region, 0.2, tie_ranks(subject.size, "cell", subject.rng(purpose)))

    clean = order(heatmap, "ties")
    tops = [top_stability(clean, order(o, f"ties|{name}")) for name, o in zip(PERTURBATIONS, others, strict=True)]
    return {"stability_top": float(np.mean(tops)), "stability": float(np.mean([pearson(heatmap, o) for o in others]))}


def measure(folder: Path, subject: Subject, only: str, *, stability: bool, whole: bool) -> None:
    """Adds the rows of candidates that the sample has no rows of; a sample of small s has none."""
    store, table = folder / f"{subject.id}.evidence", folder / f"{subject.id}.csv"
    old = pd.read_csv(table) if table.is_file() else pd.DataFrame({"candidate": []})
    seen = set(old["candidate"])
    new = {name: one for name, one in CANDIDATES.items() if name not in seen and re.search(only, name)}
    image, region = subject.image, subject.target.region
    clean = clean_variant(image, region)
    scored = gather(subject.model, clean, subject.target, [], subject.batch, subject.rng).forward
    s = float(scored.score[0]) if scored else 0.0
    if not new or s < LEAST_S:
        return
    known = pickle.loads(zlib.decompress(store.read_bytes())) if store.is_file() else [{}] * 6
    variants = perturbed_variants(image, region, 0.03, lambda name: subject.rng(f"perturbation|{name}"))
    of_clean = evidence_of(subject, clean, 0, known[0])
    of_variants = [evidence_of(subject, variants, n, known[n + 1]) for n in range(5)] if stability else []
    maps = {name: minmax(torch.from_numpy(one(of_clean))[None].float())[0] for name, one in new.items()}
    instances = [given_map(name, heatmap) for name, heatmap in maps.items()]
    instances.append(resolve_method("random_cells", {}))
    result = evaluate_sample(subject, instances, EvaluationSettings(whole=whole), stability=False)
    rows = []
    for record in result.records:
        if (name := record["method"]) not in new:
            continue
        row = {"id": subject.id, "candidate": name, "s": s} | {metric: record.get(metric) for metric in METRICS}
        if stability:
            others = minmax(torch.stack([torch.from_numpy(new[name](one)).float() for one in of_variants]))
            row |= stable(subject, maps[name], variants.mirror(others))
        rows.append(row)
    pd.concat([old, pd.DataFrame(rows)]).to_csv(table, index=False)
    kept = [{"gradients": dict(one.gradients), "designs": dict(one.designs)} for one in (of_clean, *of_variants)]
    store.write_bytes(zlib.compress(pickle.dumps(kept + known[len(kept) :]), 1))


def rows_of(folder: Path) -> pd.DataFrame:
    """All rows of a folder."""
    return pd.concat([pd.read_csv(path) for path in sorted(folder.glob("*.csv"))], ignore_index=True)


def table(folders: list[Path]) -> None:
    """Prints means, and z of each target over the candidates that have it."""
    frames = {folder.name: rows_of(folder) for folder in folders}
    scores: dict[str, dict[str, float]] = {}
    for name, frame in frames.items():
        groups = frame.groupby("candidate", sort=False)
        columns = [column for column in (*METRICS, "stability_top", "stability") if column in frame]
        means = groups[columns].mean().assign(n=groups["id"].nunique())
        print(f"\n{name}\n{means.round(3).to_string()}")
        for metric, data, bar in TARGETS:
            if not name.startswith(data) or metric not in frame:
                continue
            wide = frame.pivot(index="id", columns="candidate", values=metric)
            for candidate in wide:
                difference = (wide[candidate] - wide[bar]).dropna()
                error = difference.std() / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
                if error > 0:
                    scores.setdefault(str(candidate), {})[f"{metric} {bar}"] = difference.mean() / error
    z = pd.DataFrame(scores).T
    z["least"] = z.min(axis=1, skipna=False)  # a candidate that lacks a target cannot be chosen
    print(f"\nz of each target\n{z.round(1).sort_values('least', ascending=False).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?")
    parser.add_argument("--half", choices=("first", "second"), default="first")
    parser.add_argument("-o", type=Path, default=Path("runs/fusion"))
    parser.add_argument("-n", type=int, help="only the first N samples of the half")
    parser.add_argument("--stability", type=int, help="on how many samples; default 12 photographs, 8 scenes")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th sample from i on")
    parser.add_argument("--whole", action="store_true", help="also the curves over the whole image")
    parser.add_argument("--only", default="", help="a pattern: only these candidates")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--table", type=Path, nargs="+")
    given = parser.parse_args()
    if given.table:
        table(given.table)
        return
    settings = read_settings(find_settings(given.settings), given.set)
    scenes = settings.data.name == "scenes"
    chosen = {"n": None, "ids": None} | ({"split": "train" if given.half == "first" else "val"} if scenes else {})
    settings = settings.model_copy(update={"data": settings.data.model_copy(update=chosen)})
    prepared = prepare(settings)
    ids = half(list(prepared.plan.dataset.ids), given.half, scenes=scenes)[: given.n]
    stability = set(ids[: given.stability if given.stability is not None else (8 if scenes else 12)])
    given.o.mkdir(parents=True, exist_ok=True)
    start, step = map(int, given.part.split("/"))
    for subject in subjects(prepared, ids[start::step]):
        measure(given.o, subject, given.only, stability=subject.id in stability, whole=given.whole)
        print(subject.id, flush=True)


if __name__ == "__main__":
    main()
