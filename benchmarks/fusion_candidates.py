"""The candidates of benchmarks/fusion.py: formulas from evidence to a map. "[g14]" is the design: what is occluded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter, zoom
from scipy.optimize import nnls
from scipy.stats import rankdata

from segfaith.attribution.fusion import refine
from segfaith.types import InterventionEvidence

Real = NDArray[Any]

GRIDS = {"g14": 14, "g13": 13, "g7": 7}
TWO_LEVELS = {"q12": (12, 13), "q11": (11, 18), "q10": (10, 24), "q6": (6, 5)}
"""Cells a side, and how many cells of the largest drop are cut in four: 196, 193, 196 and 56 regions."""
CHEAP = "adaptive,passes=57"


@dataclass(frozen=True, eq=False)
class Observed:
    """A partition (H, W), and the signed drop of each region or the value of each adaptive region."""

    parts: NDArray[np.int16]
    drop: Real

    @property
    def painted(self) -> Real:
        """max(drop, 0) on each region's pixels."""
        return np.asarray(np.maximum(self.drop, 0)[self.parts])

    @property
    def side(self) -> int:
        """The side of the mean region in pixels."""
        return max(1, round(float(np.sqrt(self.parts.size / len(np.unique(self.parts))))))

    def sizes(self) -> Real:
        """The pixels of each region, at least 1."""
        return np.maximum(np.bincount(self.parts.ravel(), minlength=len(self.drop)), 1)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one image: gradient maps in [0, 1] by method, and observations by design."""

    gradients: dict[str, Real]
    designs: dict[str, list[Observed]]

    @property
    def e(self) -> Real:
        """EGA."""
        return self.gradients["ega"]


def grid(size: tuple[int, int], cells: int) -> NDArray[np.int64]:
    """The cell of each pixel of a grid."""
    rows, columns = (np.arange(side) * cells // side for side in size)
    return np.asarray(rows[:, None] * cells + columns[None])


def unit(values: Real) -> Real:
    """To [0, 1]."""
    span = values.max() - values.min()
    return np.asarray((values - values.min()) / span if span > 1e-12 else np.zeros_like(values))


def painted(evidence: Evidence, design: str) -> Real:
    """RIA's map, per pixel."""
    one = evidence.designs[design][0]
    return np.asarray(one.painted / one.side**2)


def smooth(evidence: Evidence, design: str) -> Real:
    """Cells interpolated between their centres: painted cells, averaged over a window of a cell."""
    one = evidence.designs[design][0]
    return np.asarray(uniform_filter(painted(evidence, design), one.side, mode="nearest"))


def fuse(e: Real, r: Real, alpha: float) -> Real:
    """Equation 2 of the paper, beta = 0.35."""
    return alpha * e * (1 + 0.35 * r) + (1 - alpha) * r


def redistributed(evidence: Evidence, floor: float, weight: Real) -> Real:
    """A cell's drop spread over its pixels in proportion to weight + floor."""
    one = evidence.designs["g14"][0]
    weight = weight + floor
    sums = np.bincount(one.parts.ravel(), weight.ravel(), len(one.drop))
    return np.asarray(np.maximum(one.drop, 0)[one.parts] / np.maximum(sums, 1e-12)[one.parts] * weight)


def leaves(evidence: Evidence, design: str, soft: float) -> Real:
    """Of two levels: a cut cell's own density, times its quarters' shares, of which `soft` is kept even."""
    coarse, fine = evidence.designs[design]
    base, own = (np.maximum(one.drop, 0) / one.sizes() for one in (coarse, fine))
    density = own[fine.parts]
    mean = np.bincount(coarse.parts.ravel(), density.ravel(), len(coarse.drop)) / coarse.sizes()
    share = np.where(mean[coarse.parts] > 0, density / np.maximum(mean[coarse.parts], 1e-18), 1.0)
    return np.asarray(base[coarse.parts] * (soft + (1 - soft) * share))


def raw_leaves(evidence: Evidence, design: str) -> Real:
    """Of two levels: each drop per pixel as it was measured, the finer one where there is one."""
    fine = evidence.designs[design][1]
    return np.asarray((np.maximum(fine.drop, 0) / fine.sizes())[fine.parts])


def neighbours(evidence: Evidence, share: float) -> Real:
    """Painted cells of a grid of 14 whose drops are (1 - share) own + share of the mean of up to eight neighbours."""
    one = evidence.designs["g14"][0]
    d, side = np.maximum(one.drop, 0).reshape(14, 14), 14
    windows = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    around = sum(np.pad(d, 1)[i : i + side, j : j + side] for i, j in windows)
    number = sum(np.pad(np.ones_like(d), 1)[i : i + side, j : j + side] for i, j in windows)
    return np.asarray(((1 - share) * d + share * around / number).ravel()[one.parts])


def tail(values: Real, amount: float, sigma: float) -> Real:
    """The map with a faint wide blur of itself, which orders what has no drop by what lies near it."""
    return np.asarray(values + amount * gaussian_filter(values, sigma, mode="nearest"))


def level(values: Real, quantile: float) -> Real:
    """Divided by a quantile of its positive values, and cut at 1."""
    positive = values[values > 0]
    return np.asarray(np.minimum(values / np.quantile(positive, quantile), 1) if len(positive) else values)


def ranks(values: Real) -> Real:
    """Ranks in [0, 1]."""
    steps = np.round(values / max(values.max(), 1e-12), 6)
    return unit(np.asarray(rankdata(steps.ravel())).reshape(values.shape))


def family(
    evidence: Evidence, design: str, b: float, c: float, a: float, *, n: float = 0, signed: bool = False, e: str = "ega"
) -> Real:
    """unit(((1 - b) P + b S) (1 + c E)) + a E: P painted cells, S interpolated ones, E gradient evidence."""
    one = evidence.designs[design][0]
    if signed:
        raw = one.drop[one.parts]
        p, s = np.maximum(raw, 0), np.maximum(uniform_filter(raw, one.side, mode="nearest"), 0)
    else:
        p, s = neighbours(evidence, n) if n else painted(evidence, design), smooth(evidence, design)
    p, s = (one / max(one.sum(), 1e-12) for one in (p, s))
    return unit(((1 - b) * p + b * s) * (1 + c * evidence.gradients[e])) + a * evidence.gradients[e]


def scales(evidence: Evidence, share: float, b: float) -> Real:
    """Drops of two grids per pixel, (1 - share) of 14 cells + share of 7, refined by E. 246 passes: above the limit."""
    parts = []
    for design in ("g14", "g7"):
        p = painted(evidence, design)
        parts.append(((1 - b) * p + b * smooth(evidence, design)) / max(p.sum(), 1e-12))
    return np.asarray(((1 - share) * parts[0] + share * parts[1]) * (1 + 0.35 * evidence.e))


def mea(evidence: Evidence, design: str, alpha: float, beta: float, interpolation: float) -> Real:
    """The package's MEA."""
    one = evidence.designs[design][0]
    drop = torch.from_numpy(one.drop)[None]
    region = InterventionEvidence(torch.from_numpy(one.parts.astype(np.int64))[None], drop, drop.clamp(min=0))
    return np.asarray(refine(torch.from_numpy(evidence.e).float()[None], region, alpha, beta, interpolation)[0].numpy())


# The Gaussian process: on SIDE x SIDE blocks of pixels ----------------------------------------------------------------

SIDE = 56


@lru_cache(maxsize=8)
def kernel(length: float) -> NDArray[np.float32]:
    """Matérn 3/2 between blocks; `length` in blocks."""
    axis = np.arange(SIDE, dtype=np.float32)
    yy, xx = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
    d = np.sqrt((yy[:, None] - yy[None]) ** 2 + (xx[:, None] - xx[None]) ** 2) * (np.sqrt(3.0) / length)
    return np.asarray((1 + d) * np.exp(-d), dtype=np.float32)


@lru_cache(maxsize=8)
def seen(parts: bytes, shape: tuple[int, int], count: int, length: float) -> tuple[Real, Real, Real]:
    """A, how much of each block lies in each region; K A', the kernel seen by regions; and A K A'."""
    labels = np.frombuffer(parts, dtype=np.int16).reshape(shape).astype(np.int64)
    rows, columns = (np.arange(side) * SIDE // side for side in shape)
    block = rows[:, None] * SIDE + columns[None]
    a = np.bincount((labels * SIDE**2 + block).ravel(), minlength=count * SIDE**2).reshape(count, SIDE**2)
    a = (a / np.bincount(block.ravel(), minlength=SIDE**2)).astype(np.float32)
    ka = kernel(length) @ a.T
    return a, ka, a @ ka


def gp(
    evidence: Evidence, design: str, length: float, noise: float, *, prior: float = 1, trust: bool = False,
    signed: bool = False, gradients: tuple[str, ...] = ("ega",),
) -> Real:  # fmt: skip
    """The posterior mean of a Gaussian process over blocks, given the regions' drops.

    The prior mean is `prior` c E, c >= 0 by least squares on the drops, or 1 / (number of maps) with `trust`; `noise`
    is relative to the mean prior variance of a drop.
    """
    one = evidence.designs[design][0]
    positive = np.maximum(one.drop, 0)
    y = (one.drop if signed else positive) / max(positive.sum(), 1e-12)
    a, ka, aka = seen(one.parts.tobytes(), one.parts.shape, len(one.drop), length)
    maps = [evidence.gradients[name].reshape(SIDE, one.parts.shape[0] // SIDE, SIDE, -1) for name in gradients]
    g = np.stack([each.mean((1, 3)).ravel() for each in maps], 1)
    g = g / np.maximum(g.sum(0, keepdims=True), 1e-12)
    m = prior * (g @ (np.full(len(maps), 1 / len(maps)) if trust else nnls(a @ g, y)[0]))
    k = aka.astype(np.float64)
    k[np.diag_indices_from(k)] += noise * np.trace(k) / len(k)
    f = np.maximum(m + ka @ np.linalg.solve(k, y - a @ m), 0).reshape(SIDE, SIDE)
    return np.asarray(zoom(f, one.parts.shape[0] / SIDE, order=1, grid_mode=True, mode="nearest"))


# The candidates by name -----------------------------------------------------------------------------------------------

Formula = Callable[[Evidence], Real]
CANDIDATES: dict[str, Formula] = {
    "ega": lambda v: v.e,
    "ega prob": lambda v: v.gradients["ega@objective=prob"],
    "ria": lambda v: painted(v, "g14"),
    "dea": lambda v: fuse(v.e, unit(painted(v, "g14")), 0.65),
}


def add(name: str, formula: Callable[..., Real], design: str = "g14", **values: Any) -> None:
    """A candidate: the formula of evidence, design and values."""
    CANDIDATES[f"{name} [{design}]"] = lambda v: formula(v, design, **values)


def mixed(v: Evidence, d: str, a: float, g: str = "ega") -> Real:
    """Equation 2 with painted cells."""
    return fuse(v.gradients[g], unit(painted(v, d)), a)


def mixed_smooth(v: Evidence, d: str, a: float, g: str = "ega") -> Real:
    """Equation 2 with interpolated cells."""
    return fuse(v.gradients[g], unit(smooth(v, d)), a)


for _d in ("g14", "g13", CHEAP, "g7"):
    add("painted", painted, _d)
    add("smooth", smooth, _d)
for _a in (0.02, 0.05, 0.1, 0.2, 0.35):
    add(f"dea{_a}", mixed, a=_a)
    add(f"mix{_a}", mixed_smooth, a=_a)
for _a in (0.05, 0.1, 0.15, 0.2, 0.35):
    add(f"dea{_a} ig prob", mixed, a=_a, g="ig prob")
for _g in ("ig prob", "ig logits", "smooth logits"):
    CANDIDATES[_g] = lambda v, g=_g: v.gradients[g]  # type: ignore[misc]
    for _a in (0.1, 0.35):
        add(f"dea{_a} {_g}", mixed, a=_a, g=_g)
    add(f"smooth_e {_g}", lambda v, d, g: unit(smooth(v, d)) * (0.5 + v.gradients[g]), g=_g)
for _d in ("g7", CHEAP):
    for _a in (0.05, 0.15, 0.35):
        add(f"dea{_a} ig prob", mixed, _d, a=_a, g="ig prob")
        add(f"mix{_a} ig prob", mixed_smooth, _d, a=_a, g="ig prob")
        add(f"dea{_a} ig logits", mixed, _d, a=_a, g="ig logits")
add("half painted, half smooth", lambda v, d: painted(v, d) + smooth(v, d))
add("smooth_e.5", lambda v, d: unit(smooth(v, d)) * (0.5 + v.e))
add("smooth_e1", lambda v, d: unit(smooth(v, d)) * (1 + v.e))
add("painted_e.5", lambda v, d: unit(painted(v, d)) * (0.5 + v.e))
add("painted_e1+.1E", lambda v, d: unit(painted(v, d)) * (1 + v.e) + 0.1 * v.e)
add("painted_ig1", lambda v, d: unit(painted(v, d)) * (1 + v.gradients["ig prob"]))
add("clip.98", lambda v, d: fuse(v.e, level(painted(v, d), 0.98), 0.5))
add("sqrt+.35E", lambda v, d: 0.65 * unit(painted(v, d)) ** 0.5 + 0.35 * v.e)
add("sqrt+.2E", lambda v, d: 0.8 * unit(painted(v, d)) ** 0.5 + 0.2 * v.e)
add("sqrt smooth+.2E", lambda v, d: 0.8 * unit(smooth(v, d)) ** 0.5 + 0.2 * v.e)
add("ranks+.2", lambda v, d: 0.8 * ranks(painted(v, d)) + 0.2 * ranks(v.e))
for _p in (0.5, 0.7):
    add(f"power{_p}", lambda v, d, p: unit(painted(v, d)) ** p, p=_p)
    add(f"power{_p}+.05ig", lambda v, d, p: fuse(v.gradients["ig prob"], unit(painted(v, d)) ** p, 0.05), p=_p)
for _f in (0.05, 0.3):
    add(f"redistributed{_f}", lambda v, d, f: redistributed(v, f, v.e), f=_f)
for _f in (0.3, 1.0):
    add(f"redistributed{_f} ig", lambda v, d, f: redistributed(v, f, v.gradients["ig prob"]), f=_f)
for _w in (4, 8):
    add(f"blur{_w}", lambda v, d, w: uniform_filter(painted(v, d), w, mode="nearest"), w=_w)
for _d in TWO_LEVELS:
    for _s in (0.0, 0.5):
        add(f"leaves{_s}", leaves, _d, soft=_s)
    add("raw leaves", raw_leaves, _d)
    for _a in (0.05, 0.1):
        add(f"leaves.5 +{_a}ig", lambda v, d, a: fuse(v.gradients["ig prob"], unit(leaves(v, d, 0.5)), a), _d, a=_a)
for _l, _n in ((3, 0.03), (6, 0.03), (6, 0.3)):
    add(f"gp{_l} n{_n}", gp, length=_l, noise=_n)
add("gp6 noprior", gp, length=6, noise=0.03, prior=0)
add("gp6 full", gp, length=6, noise=0.1, trust=True)
add("gp6 n.1", gp, CHEAP, length=6, noise=0.1)
add("mix.2", mixed_smooth, CHEAP, a=0.2)
add("dea.2", mixed, CHEAP, a=0.2)
add("mix.2", mixed_smooth, "g7", a=0.2)
add("mix.35", mixed_smooth, "g7", a=0.35)
for _r in (0.1, 0.2, 0.35, 0.5):
    add(f"cells n{_r}", lambda v, d, r: neighbours(v, r), r=_r)
    add(f"cells n{_r} e1", lambda v, d, r: neighbours(v, r) * (1 + v.e), r=_r)
for _t, _w in ((0.05, 16), (0.2, 16), (0.05, 32), (0.2, 32), (0.5, 16)):
    add(f"cells tail{_t} {_w}", lambda v, d, t, w: tail(painted(v, d), t, w), t=_t, w=_w)
    add(f"cells tail{_t} {_w} e1", lambda v, d, t, w: tail(painted(v, d), t, w) * (1 + v.e), t=_t, w=_w)
for _s in (0.1, 0.2, 0.35, 0.5):
    for _b in (0.2, 0.5):
        add(f"multi{_s} b{_b}", lambda v, d, s, b: scales(v, s, b), "g14 g7", s=_s, b=_b)
for _b in (0.05, 0.1, 0.2, 0.35, 0.5):
    for _c, _a in ((0, 0), (0.35, 0), (1, 0), (0, 0.02), (0.35, 0.02), (0.35, 0.05)):
        add(f"b{_b} c{_c} a{_a}", family, b=_b, c=_c, a=_a)
for _b in (0, 0.2, 0.5):
    add(f"b{_b} signed", family, b=_b, c=0, a=0, signed=True)
    add(f"b{_b} c.35 a.02 n.1", family, b=_b, c=0.35, a=0.02, n=0.1)
    add(f"b{_b} c.35 a.02 smoothgrad", family, b=_b, c=0.35, a=0.02, e="smooth logits")
for _b in (0.1, 0.2):
    add(f"b{_b} c.35 a0 n.1", family, b=_b, c=0.35, a=0, n=0.1)
for _d in ("g7", CHEAP):
    for _b in (0.2, 0.5):
        for _c, _a in ((0.35, 0), (0.35, 0.05), (1, 0.1), (1, 0)):
            add(f"b{_b} c{_c} a{_a}", family, _d, b=_b, c=_c, a=_a)
            add(f"b{_b} c{_c} a{_a} ig", family, _d, b=_b, c=_c, a=_a, e="ig logits")
add("mea", mea, alpha=0.02, beta=0.35, interpolation=0.35)
add("mea cheap", mea, CHEAP, alpha=0.05, beta=0.35, interpolation=0.5)
