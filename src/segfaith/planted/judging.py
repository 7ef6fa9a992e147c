r"""Maps whose worth is known, measured by every metric: the data on which metrics are judged.

For the planted evidence E of a target, smooth seeded noise N and a dose d:

    A_d = minmax((1 - |d|) N + |d| E)  for d >= 0,    A_d = minmax((1 - |d|) N + |d| (1 - E))  for d < 0

A metric that sees the evidence rises with d. `gamed` is a map whose order outside the target is the opposite of what
was measured: an honest map should beat it. A monotone change of values, or a slight blur, leaves what a map says.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from segfaith.api import given_map
from segfaith.attribution.explain import gather, heatmaps
from segfaith.attribution.heatmap import minmax
from segfaith.benchmark.runner import Prepared, subject_of
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import evaluate_sample
from segfaith.constants import TRUTH
from segfaith.errors import SampleError
from segfaith.evaluation.subject import Subject
from segfaith.occlusion import gaussian_blur
from segfaith.perturbation import clean_variant
from segfaith.scores import BatchSize
from segfaith.types import Map, Mask

DOSES = (-1.0, -2 / 3, -1 / 3, *(step / 7 for step in range(8)))
"""The doses of evidence: three of its opposite, and eight from none to all."""
NOISE_SIGMA = 8 / 224
"""Sigma of the noise's blur as a fraction of the image's height: about the smoothness of gradient maps."""
STYLED = ("ega", "ria")
STYLES: dict[str, Callable[[Map], Map]] = {
    "square": lambda heatmap: heatmap**2,
    "root": lambda heatmap: heatmap.sqrt(),
    "blur": lambda heatmap: gaussian_blur(heatmap[None], heatmap.shape[0] / 224)[0],
}
"""Changes that leave what a map says: two monotone ones, and a Gaussian blur of 1 px at height 224."""


def measure(prepared: Prepared, on_sample: Callable[[str], None] = lambda sample_id: None) -> pd.DataFrame:
    """Every metric of every map whose worth is known, over the samples of a run, each with its first target.

    Args:
        prepared: a run whose methods hold `ega` and `ria`.
        on_sample: told each sample's id when it is done.

    Returns:
        A row for each sample and map: the columns of the records, and `role` (method, dose or style), `of` (the method
        that was styled) and `dose` (NaN but for doses). Samples without a target are left out; `attrs["left_out"]`
        says why, by id.
    """
    left_out: dict[str, str] = {}
    frames = []
    for sample_id in prepared.plan.ids:
        try:
            frames.append(_measured(prepared, sample_id))
        except Exception as error:  # one sample's failure leaves the others
            left_out[sample_id] = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
        on_sample(sample_id)
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    frame.attrs["left_out"] = left_out
    return frame


def _measured(prepared: Prepared, sample_id: str) -> pd.DataFrame:
    """The rows of one sample."""
    batch = BatchSize(prepared.plan.settings.execution.batch_size)
    sample = load_sample(prepared.plan, prepared.model, sample_id)
    subject = subject_of(prepared, sample_id, sample, prepared.targets(sample)[0], batch)
    roles: dict[str, dict[str, Any]] = {}
    maps: dict[str, Map] = {}
    for name, heatmap, role in (*doses(subject), *_styles(prepared, subject)):
        maps[name], roles[name] = heatmap, role
    given = [given_map(name, heatmap) for name, heatmap in maps.items()]
    settings = prepared.plan.settings.evaluation
    methods = [method for method in prepared.plan.methods if method.name != TRUTH]  # it is the dose 1
    result = evaluate_sample(subject, [*methods, *given], settings, stability=False)
    plain = {"role": "method", "of": "", "dose": float("nan")}
    return pd.DataFrame([row | roles.get(row["method"], plain) for row in result.records])


def doses(subject: Subject) -> Iterator[tuple[str, Map, dict[str, Any]]]:
    """The map of each dose of a subject's evidence, by name; none where no evidence lies anywhere."""
    evidence = subject.evidence
    if evidence is None:
        return
    noise = smooth_noise(subject.size, subject.rng("judgement")).to(subject.image.device)
    for dose in DOSES:
        yield f"dose {dose:+.2f}", dosed(noise, evidence, dose), {"role": "dose", "of": "", "dose": dose}


def smooth_noise(size: tuple[int, int], rng: np.random.Generator) -> Map:
    """Blurred uniform noise in [0, 1]."""
    noise = torch.from_numpy(rng.random((1, *size), dtype=np.float32))
    return minmax(gaussian_blur(noise, NOISE_SIGMA * size[0]))[0]


def dosed(noise: Map, evidence: Mask, dose: float) -> Map:
    """A_d, see the module."""
    marked = (evidence if dose >= 0 else ~evidence).to(noise)
    return minmax(((1 - abs(dose)) * noise + abs(dose) * marked)[None])[0]


def _styles(prepared: Prepared, subject: Subject) -> Iterator[tuple[str, Map, dict[str, Any]]]:
    """Each of `STYLES` of the maps of each of `STYLED`."""
    methods = [method for method in prepared.plan.methods if method.name in STYLED]
    clean = gather(
        subject.model,
        clean_variant(subject.image, subject.target.region),
        subject.target,
        methods,
        replace(subject.batch),
        subject.rng,
    )
    for method in methods:
        heatmap = heatmaps(subject.model, clean, method, subject.rng, subject.id)[0]
        for style, change in STYLES.items():
            yield f"{method.name} {style}", change(heatmap), {"role": "style", "of": method.name, "dose": float("nan")}
