r"""Sobol attribution (Fel et al. 2021): the share of the score's variance that each cell of a grid takes part in.

The inputs are one number in [0, 1] for each of d = grid x grid cells: 1 shows the image in the cell, 0 shows `fill`.
The map of cell i is its total-order index

    S_Ti = E[Var(f | all inputs but i)] / Var(f),

by Jansen's estimator, as SALib has it: with N base samples A_n and B_n, and AB_n^i, which is A_n with input i of B_n,

    S_Ti = 1 / (2 N) sum_n (f(A_n) - f(AB_n^i))^2 / V,   V the variance of the 2 N scores of all A_n and B_n.

f is the target's own score s. The paper's code enlarges masks by nearest neighbours and the map bicubically; here both
are constant on the cells of `occlusion.grid_partition`.
"""

import warnings
from typing import Any

import numpy as np
import torch

from segfaith.attribution.masking import scores_through
from segfaith.batching import BatchSize
from segfaith.constants import EPS
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import grid_partition, occluder
from segfaith.types import Float, Image, Int, Map, Target, Tensor


def sobol(
    model: SegmentationModel,
    image: Image,
    target: Target,
    batch: BatchSize,
    rng: np.random.Generator,
    *,
    grid: int,
    samples: int,
    fill: str,
) -> Map:
    """The total-order index of each pixel's cell, at least 0, before min-max. Model passes: samples (grid^2 + 2) and 1.

    All zeros where the scores do not vary, beyond a millionth of the largest: of rounding a share says nothing.

    Args:
        samples: N, a power of 2.
        fill: the operator of `occlusion.FILLS` whose image shows where a mask is 0.

    Raises:
        SampleError: the image has fewer rows or columns than `grid`, or photographs are wired.
    """
    size = (image.shape[1], image.shape[2])
    if grid > min(size):
        raise SampleError(
            f"sobol: the cells of grid = {grid} are more than the image, {size[0]} x {size[1]}, has rows or columns"
        )
    if model.wired:
        raise SampleError("sobol: a mask would run across both of wired photographs; use ria")
    from SALib.sample.sobol import sample

    everywhere = torch.ones(1, *size, dtype=torch.bool, device=image.device)
    blank = occluder(fill, image, rng)(everywhere)[0]
    inputs = grid**2
    problem = {"num_vars": inputs, "names": [f"cell {i}" for i in range(inputs)], "bounds": [[0.0, 1.0]] * inputs}
    design = torch.from_numpy(sample(problem, samples, calc_second_order=False, seed=rng)).float().to(image.device)
    cells = grid_partition(size, grid).to(image.device)

    def drawn(numbers: Int[Tensor, "B"]) -> Float[Tensor, "B H W"]:
        return design[numbers.to(image.device)][:, cells]

    scores = scores_through(model, image, target, batch, blank, drawn, len(design)).cpu().numpy()
    indices = _total_order(problem, scores.reshape(samples, inputs + 2))
    return torch.from_numpy(indices).to(image.device)[cells]


def _total_order(problem: dict[str, Any], scores: np.ndarray) -> np.ndarray:
    """S_T of each input; a row of scores is that of A_n, of each AB_n^i and of B_n, as SALib's design has them."""
    from SALib.analyze.sobol import analyze

    if np.ptp(scores[:, [0, -1]]) <= EPS * np.abs(scores).max():
        return np.zeros(scores.shape[1] - 2)
    with warnings.catch_warnings():
        # Of SALib's resamples, which make intervals that nobody reads, all may be of equal scores.
        warnings.filterwarnings("ignore", message="Constant values encountered")
        found = analyze(problem, scores.ravel(), calc_second_order=False, num_resamples=2, seed=1)
    return np.asarray(found["ST"])
