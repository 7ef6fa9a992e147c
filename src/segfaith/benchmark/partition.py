"""The partition whose parts fidelity occludes: one that no method of the run used."""

from collections.abc import Sequence
from math import gcd

from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.data.images import Size
from segfaith.errors import SettingsError
from segfaith.evaluation.fidelity import Sets, draw_sets
from segfaith.evaluation.subject import Subject
from segfaith.evidence.regions import grid_cells, superpixels
from segfaith.types import Mask


def check_partition(
    methods: Sequence[MethodInstance], evaluation: EvaluationSettings, *, in_python: bool = False
) -> None:
    """Lets the partition of fidelity pass where no method's regions share borders with it: that favours the method.

    Two grids have a border in common where their numbers of cells a side share a divisor above 1.

    Args:
        in_python: whether the reader of the message calls `segfaith.evaluate`, and has no settings.

    Raises:
        SettingsError: a method's grid and that of fidelity have borders in common; or both are made of superpixels.
    """
    if not evaluation.fidelity:
        return
    for method in methods:
        regions = method.intervention_key
        if regions is None or (regions.kind == "superpixels") != (evaluation.fidelity_parts == "superpixels"):
            continue
        if regions.kind == "superpixels":
            raise SettingsError(
                f"superpixels are the regions of {method.name!r} and those of fidelity, which would favour this "
                "method; set evaluation.fidelity_parts = 'grid', or evaluation.fidelity = 0"
            )
        grid, own = evaluation.fidelity_grid, regions.finest_grid
        if gcd(own, grid) > 1:
            remedy = (
                f"give it a grid that shares no divisor with {grid}, or evaluate with thorough=False"
                if in_python
                else f"set evaluation.fidelity_grid to a number that shares no divisor with {own}, "
                "evaluation.fidelity_parts = 'superpixels', or evaluation.fidelity = 0"
            )
            raise SettingsError(
                f"the regions of {method.name!r}, on a grid of {own} cells a side, share borders with those of "
                f"fidelity, {grid} a side, which would favour this method; {remedy}"
            )


def check_grids(methods: Sequence[MethodInstance], evaluation: EvaluationSettings, size: Size) -> None:
    """Holds the grids that are asked for against images of one size; a sample of its own size fails by itself.

    Raises:
        SettingsError: a grid has more cells a side than the images have pixels.
    """
    if size == "native":
        return
    asked = {f"the grid of {one.name!r}": one.regions.grid for one in methods if one.intervention_key is not None}
    if evaluation.fidelity and "fidelity_grid" in evaluation.model_fields_set:
        asked["evaluation.fidelity_grid"] = evaluation.fidelity_grid
    for what, cells in asked.items():
        if cells > size:
            raise SettingsError(
                f"{what} has {cells} cells a side, more than the images have pixels at data.size = {size}; set it to "
                f"at most {size}"
            )


def fidelity_sets(subject: Subject, outside: Mask, settings: EvaluationSettings) -> Sets:
    """The sets of parts that the settings ask for; none where `fidelity = 0`."""
    grid, device = settings.fidelity_grid, subject.image.device
    if settings.fidelity_parts == "grid":
        cells = grid_cells(subject.size, grid, mirrored=False, wired=subject.model.wired)
    else:
        cells = superpixels(subject.image, grid**2, mirrored=False, wired=subject.model.wired)
    return draw_sets(
        cells.to(device),
        subject.target.region,
        outside,
        settings.fidelity,
        settings.fidelity_size,
        subject.rng("fidelity"),
        per=settings.fidelity_per,
    )
