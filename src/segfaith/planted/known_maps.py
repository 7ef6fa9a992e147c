r"""Maps whose worth is known beside each other: on them metrics are judged.

For the planted evidence E of a target, smooth seeded noise N and a dose d:

    A_d = minmax((1 - |d|) N + |d| E)  for d >= 0,    A_d = minmax((1 - |d|) N + |d| (1 - E))  for d < 0

A metric that sees the evidence rises with d. A monotone change of values, or a slight blur, leaves what a map says
(`STYLES`). A map that keeps only a part of what was measured should not beat the whole (`FORMS`).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from segfaith.attribution.heatmap import minmax
from segfaith.evaluation.subject import Subject
from segfaith.occlusion import gaussian_blur
from segfaith.types import Map, Mask

DOSES = (-1.0, -2 / 3, -1 / 3, *(step / 7 for step in range(8)))
"""The doses of evidence: three of its opposite, and eight from none to all."""
NOISE_SIGMA = 8 / 224
"""Sigma of the noise's blur as a fraction of the image's height: about the smoothness of gradient maps."""
STYLES: dict[str, Callable[[Map], Map]] = {
    "square": lambda heatmap: heatmap**2,
    "root": lambda heatmap: heatmap.sqrt(),
    "blur": lambda heatmap: gaussian_blur(heatmap[None], heatmap.shape[0] / 224)[0],
}
"""Changes that leave what a map says: two monotone ones, and a Gaussian blur of 1 px at height 224."""
TOP = 0.2
"""The share of pixels that the thresholded form keeps."""
LEVELS = 0.1
"""The share of its range in which the halftone hides a map."""
FORMS: dict[str, Callable[[Map, Mask], Map]] = {
    "thresholded": lambda heatmap, region: thresholded(heatmap),
    "masked": lambda heatmap, region: heatmap * region,
    "halftone": lambda heatmap, region: halftone(heatmap),
}
"""Forms of RIA's map by name. None says more than the map, so no metric should prefer it. A rescaled map would be the
map itself: every map is scaled to [0, 1] before it is measured."""


def doses(subject: Subject) -> Iterator[tuple[float, Map]]:
    """The map (H, W) of each dose of a subject's evidence; none where no evidence lies anywhere."""
    evidence = subject.evidence
    if evidence is None:
        return
    noise = smooth_noise(subject.size, subject.rng("judgement")).to(subject.image.device)
    for dose in DOSES:
        yield dose, dosed(noise, evidence, dose)


def smooth_noise(size: tuple[int, int], rng: np.random.Generator) -> Map:
    """Blurred uniform noise in [0, 1], (H, W)."""
    noise = torch.from_numpy(rng.random((1, *size), dtype=np.float32))
    return minmax(gaussian_blur(noise, NOISE_SIGMA * size[0]))[0]


def dosed(noise: Map, evidence: Mask, dose: float) -> Map:
    """A_d, see the module."""
    marked = (evidence if dose >= 0 else ~evidence).to(noise)
    return minmax(((1 - abs(dose)) * noise + abs(dose) * marked)[None])[0]


def thresholded(heatmap: Map) -> Map:
    """1 where the map is at least its 80th percentile, else 0; all 0 where the map is 0 there."""
    border = torch.quantile(heatmap.double().flatten(), 1 - TOP)
    return ((heatmap >= border) & (heatmap > 0)).to(heatmap)


def halftone(heatmap: Map) -> Map:
    """A chessboard of single pixels with the map hidden in the last tenth of its range.

    To the eye it is even grey. Sums over regions of many pixels are in the order of the map's own sums, up to half a
    pixel.
    """
    rows, columns = (torch.arange(side, device=heatmap.device) for side in heatmap.shape)
    board = ((rows[:, None] + columns) % 2).to(heatmap)
    return (1 - LEVELS) * board + LEVELS * heatmap
