"""SPEC sections 1 to 3 a second time: slow, with loops over pixels, in float64, and without segfaith's own code."""

from collections.abc import Callable
from math import ceil, floor, nan, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS = 1e-6


def score(logits: NDArray[np.floating], region: NDArray[np.bool_], class_index: int) -> float:
    """Equation 1 for logits (C, H, W)."""
    total, count = 0.0, 0
    for y, x in np.argwhere(region):
        exponentials = np.exp(logits[:, y, x].astype(np.float64) - float(logits[:, y, x].max()))
        total += exponentials[class_index] / exponentials.sum()
        count += 1
    return total / (count + EPS)


def pixel_numbers(
    logits: Array, class_index: int, kind: str, versus: int | None = None, independent: bool = False
) -> list[float]:
    """The number of each pixel, of logits (C, P) in float64: the table of `scores.Scalar`, one pixel at a time."""
    numbers = []
    for z in logits.astype(np.float64).T:
        own, others = z[class_index], [value for index, value in enumerate(z) if index != class_index]
        sigmoid, total = 1 / (1 + np.exp(-own)), sum(np.exp(value - own) for value in z)
        number = {
            "probability": sigmoid if independent else 1 / total,
            "logit": own,
            "log_odds": np.log(sigmoid / (1 - sigmoid)) if independent else -np.log(total - 1),
            "conditional": np.exp(own) / (np.exp(own) + np.exp(max(others) if versus is None else z[versus])),
            "margin": own - (max(others) if versus is None else z[versus]),
        }[kind]
        numbers.append(float(number))
    return numbers


def minmax(heatmap: Array) -> Array:
    low, high = heatmap.min(), heatmap.max()
    return np.zeros_like(heatmap) if high - low < 1e-12 else (heatmap - low) / (high - low)


def cells(size: tuple[int, int], grid: int) -> NDArray[np.int64]:
    """The index of each pixel's cell: row i covers floor(i H / g) to floor((i + 1) H / g)."""
    result = np.full(size, -1, dtype=np.int64)
    for i in range(grid):
        for j in range(grid):
            for y in range(floor(i * size[0] / grid), floor((i + 1) * size[0] / grid)):
                for x in range(floor(j * size[1] / grid), floor((j + 1) * size[1] / grid)):
                    assert result[y, x] == -1
                    result[y, x] = i * grid + j
    return result


def mean_occluded(image: Array, chosen: NDArray[np.bool_]) -> Array:
    """O(x, S): the pixels of S take the image's own mean colour."""
    result = image.copy()
    for channel in range(3):
        colour = sum(image[channel].flatten().tolist()) / image[channel].size
        for y, x in np.argwhere(chosen):
            result[channel, y, x] = colour
    return result


def blurred(image: Array, sigma: float) -> Array:
    """Gaussian blur with reflect padding (the border pixel is not repeated), kernel 2 ceil(3 sigma) + 1."""
    radius = ceil(3 * sigma)
    kernel = np.array([np.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)])
    kernel /= kernel.sum()
    for axis in (1, 2):
        length = image.shape[axis]
        result = np.zeros_like(image)
        for i in range(length):
            for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
                j = abs(i + offset)
                j = 2 * (length - 1) - j if j >= length else j
                into: list[slice | int] = [slice(None)] * 3
                source = list(into)
                into[axis], source[axis] = i, j
                result[tuple(into)] += weight * image[tuple(source)]
        image = result
    return image


def bilinear(heatmap: Array, size: tuple[int, int]) -> Array:
    """Bilinear resizing of (h, w), align_corners=False."""
    height, width = heatmap.shape
    result = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = max((y + 0.5) * height / size[0] - 0.5, 0.0)
            u = max((x + 0.5) * width / size[1] - 0.5, 0.0)
            top, left = min(floor(v), height - 1), min(floor(u), width - 1)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dv, du = v - top, u - left
            result[y, x] = (1 - dv) * ((1 - du) * heatmap[top, left] + du * heatmap[top, right]) + dv * (
                (1 - du) * heatmap[bottom, left] + du * heatmap[bottom, right]
            )
    return result


def top_count(k: float, pixels: int) -> int:
    return max(1, floor(k * pixels + 0.5))


def order(heatmap: Array, region: NDArray[np.bool_], ranks: NDArray[np.int64]) -> list[int]:
    """Flat indices of the region's pixels by selection: the largest rounded value, then the lowest rank, comes next."""
    left = [int(y * region.shape[1] + x) for y, x in np.argwhere(region)]
    level = {i: round(float(heatmap.flat[i]) * 1e6) for i in left}
    result = []
    while left:
        best = left[0]
        for i in left[1:]:
            if level[i] > level[best] or (level[i] == level[best] and ranks.flat[i] < ranks.flat[best]):
                best = i
        left.remove(best)
        result.append(best)
    return result


def tied_share(heatmap: Array, ranked: list[int], count: int) -> float:
    """Share of the first `count` whose value is also that of a pixel which was not chosen."""
    level = [round(float(heatmap.flat[i]) * 1e6) for i in ranked]
    return sum(value in level[count:] for value in level[:count]) / count


def pixels(indices: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of flat indices."""
    result = np.zeros(size, dtype=bool)
    for index in indices:
        result[index // size[1], index % size[1]] = True
    return result


def correlation(a: Array, b: Array) -> float:
    """Pearson's r over all pixels."""
    xs, ys = a.flatten().tolist(), b.flatten().tolist()
    n = len(xs)
    mean_x, mean_y = sum(xs) / n, sum(ys) / n
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sqrt(sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys))


def region_drops(
    image: Array, partition: NDArray[np.int64], count: int, scored: Callable[[Array], float]
) -> list[float]:
    """delta_r = s(x) - s(O(x, r)), one single pass at a time, mean occlusion."""
    whole = scored(image)
    return [whole - scored(mean_occluded(image, partition == region)) for region in range(count)]


def ria(drops: list[float], partition: NDArray[np.int64]) -> Array:
    """minmax of max(delta_r, 0) on the cell's pixels."""
    painted = np.zeros(partition.shape)
    for y, x in np.ndindex(partition.shape):
        painted[y, x] = max(drops[partition[y, x]], 0.0)
    return minmax(painted)


def gpa(activation: Array, gradient: Array, size: tuple[int, int]) -> Array:
    """F and G as (K, h, w)."""
    channels, height, width = activation.shape
    cam = np.zeros((height, width))
    for k in range(channels):
        weight = sum(gradient[k].flatten().tolist()) / (height * width)
        cam += weight * activation[k]
    return minmax(bilinear(np.maximum(cam, 0), size))


def block_pool(values: Array, pool: str, window: int) -> Array:
    """window x window blocks of (K, h, w), each pixel taking its block's mean or maximum; border blocks are smaller."""
    result = np.zeros_like(values)
    for k, y, x in np.ndindex(values.shape):
        top, left = y // window * window, x // window * window
        block = values[k, top : top + window, left : left + window].flatten().tolist()
        result[k, y, x] = max(block) if pool == "max" else sum(block) / len(block)
    return result


def ega(activation: Array, gradient: Array, size: tuple[int, int], pool: str = "mean", window: int = 1) -> Array:
    cam = np.zeros(activation.shape[1:])
    pooled = block_pool(gradient, pool, window)
    for k, y, x in np.ndindex(activation.shape):
        cam[y, x] += pooled[k, y, x] * activation[k, y, x]
    return minmax(bilinear(np.maximum(cam, 0), size))


def dea(gradient_map: Array, region_map: Array, alpha: float = 0.65, beta: float = 0.35) -> Array:
    """Equation 2."""
    fused = np.zeros_like(gradient_map)
    for y, x in np.ndindex(fused.shape):
        g, r = gradient_map[y, x], region_map[y, x]
        fused[y, x] = alpha * g * (1 + beta * r) + (1 - alpha) * r
    return minmax(fused)


def precision_by_loops(values: list[float], truth: list[bool]) -> float:
    """One threshold after the other, counting again each time."""
    rounded = [round(value * 1e6) for value in values]
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(rounded), reverse=True):
        called = [hit for value, hit in zip(rounded, truth, strict=True) if value >= threshold]
        recall = sum(called) / sum(truth)
        area += (recall - recall_before) * sum(called) / len(called)
        recall_before = recall
    return area


def best_by_loops(
    heatmap: NDArray[np.float32], alternatives: list[NDArray[np.bool_]], ranks: NDArray[np.int64], k: float
) -> dict[str, float]:
    """Each alternative without the pixels of the others, one pixel after the other; the best of each figure."""
    found: dict[str, list[float]] = {"evidence_ap": [], "evidence_mass": [], "evidence_top": []}
    for truth in alternatives:
        kept = np.ones(heatmap.shape, dtype=bool)
        for y, x in np.ndindex(heatmap.shape):
            kept[y, x] = truth[y, x] or not any(other[y, x] for other in alternatives)
        total = sum(float(value) for value in heatmap[kept])
        count = top_count(k, int(truth.sum()))
        chosen = order(heatmap, kept, ranks)[:count]
        found["evidence_ap"].append(precision_by_loops(heatmap[kept].tolist(), truth[kept].tolist()))
        found["evidence_mass"] += [sum(float(value) for value in heatmap[truth]) / total] if total else []
        found["evidence_top"].append(sum(bool(truth.flat[i]) for i in chosen) / count)
    return {name: max(values, default=nan) for name, values in found.items()}
