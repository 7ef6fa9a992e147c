"""The partition whose parts fidelity occludes: one that no method of the run used."""

from collections.abc import Sequence

from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.errors import SettingsError
from segfaith.evaluation.fidelity import Sets, draw_sets
from segfaith.evaluation.subject import Subject
from segfaith.evidence.regions import grid_cells, superpixels
from segfaith.types import Mask


def check_partition(methods: Sequence[MethodInstance], evaluation: EvaluationSettings) -> None:
    """Lets the partition of fidelity pass where no method's regions are its own: that would favour the method.

    Raises:
        SettingsError: a method's grid is the grid of fidelity, or one of them is cut into the other; or both are made
            of superpixels.
    """
    if not evaluation.fidelity:
        return
    for method in methods:
        regions = method.intervention_key
        if regions is None or (regions.kind == "superpixels") != (evaluation.fidelity_parts == "superpixels"):
            continue
        grid, own = evaluation.fidelity_grid, regions.first_grid
        if regions.kind == "superpixels" or (own > 1 and (own % grid == 0 or grid % own == 0)):
            words = "superpixels are" if regions.kind == "superpixels" else f"a grid of {own} cells a side fits"
            raise SettingsError(
                f"{words} the regions of {method.name!r} and those of fidelity, which would favour this method; set "
                f"evaluation.fidelity_grid to a number of cells that shares no divisor with {own}, or "
                "evaluation.fidelity_parts to the other kind, or evaluation.fidelity = 0"
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
