r"""Figures of cases: success, failure and missed targets (paper, Figs. 2 and 4), and the mechanism of DEA (Fig. 3).

With A_g the EGA map and A_r the RIA map, both in [0, 1], and * elementwise, equation 2 of the paper is the sum of three
parts, of which the second is the interaction:

    A_f = minmax(alpha A_g + alpha beta A_g * A_r + (1 - alpha) A_r)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from segfaith.errors import SettingsError
from segfaith.paths import map_name
from segfaith.results.figures.kept import kept_size, read_map, read_masks, read_picture
from segfaith.results.figures.overlay import outlined, overlay
from segfaith.results.figures.style import FULL_WIDTH, NAMES, STYLE, canvas, literal
from segfaith.results.statistics.cases import Case, Choice

MOST_MAPS = 6
"""Maps in a row of a gallery: with the image, seven columns."""
OUTLINES = (
    "The target is outlined in white; where they were kept, planted evidence is outlined in cyan and the model's "
    "prediction in dashes of yellow"
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parts:
    """Equation 2 taken apart, (H, W) each: `agreement` is A_g * A_r in [0, 1], `weighted` the three summands of the
    sum before minmax by name (gradient, interaction, region), `corrected` the DEA map in [0, 1]."""

    agreement: Array
    weighted: dict[str, Array]
    corrected: Array

    @property
    def shares(self) -> dict[str, float]:
        """Each summand's share of the sum over all pixels; NaN where the maps are zero everywhere."""
        total = sum(float(part.sum()) for part in self.weighted.values())
        return {name: float(part.sum()) / total if total else float("nan") for name, part in self.weighted.items()}


def dea_parts(gradient_map: Any, region_map: Any, alpha: float, beta: float) -> Parts:
    """Equation 2 of the paper, part by part (see the module's formula).

    Args:
        gradient_map, region_map: the EGA and the RIA map, (H, W), in [0, 1].
        alpha: weight of gradient evidence, in [0, 1].
        beta: reward of agreement, at least 0.

    Raises:
        SettingsError: maps of different shapes.
    """
    first, second = (np.asarray(one, dtype=np.float64) for one in (gradient_map, region_map))
    if first.shape != second.shape:
        raise SettingsError(f"expected an EGA and a RIA map of one shape; got {first.shape} and {second.shape}")
    agreement = first * second
    weighted = {"gradient": alpha * first, "interaction": alpha * beta * agreement, "region": (1 - alpha) * second}
    total = np.sum(list(weighted.values()), axis=0)
    span = float(total.max() - total.min())
    corrected = np.zeros_like(total) if span < 1e-12 else (total - total.min()) / span
    return Parts(agreement, weighted, corrected)


def with_maps(choice: Choice, methods: Sequence[str]) -> list[str]:
    """Which of the methods have a map of at least one of the cases, in their order."""
    return [name for name in methods if any((case.folder / map_name(name)).is_file() for case in choice.cases)]


@rc_context(STYLE)
def gallery(choice: Choice, methods: Sequence[str], labels: Mapping[str, str] = NAMES) -> Figure:
    """Figs. 2 and 4: a row per case, the image with its outlines, then the methods' maps over it, and their scale.

    Below each map stand its TDD and OT abs, below the image why the case was chosen.

    Args:
        choice: the cases.
        methods: the first `MOST_MAPS` of them that have a map are shown.
        labels: of methods.

    Raises:
        SettingsError: a choice without cases, or a picture that cannot be read.
    """
    if not choice.cases:
        raise SettingsError(f"expected at least one case; got none: {choice.why}")
    shown = with_maps(choice, methods)[:MOST_MAPS]
    images = [_image(case) for case in choice.cases]
    columns, aspects = 1 + len(shown), [image.shape[1] / image.shape[2] for image in images]
    side = min((FULL_WIDTH - 0.7) / columns, 1.5)
    notes = [_note(case, max(12, int(side * 18))) for case in choice.cases]
    below = 0.1 + 0.11 * max(2, *(note.count("\n") + 1 for note in notes))
    figure = canvas(FULL_WIDTH, sum(side * aspect + below for aspect in aspects) + 0.25)
    grid = figure.subplots(len(images), columns, squeeze=False, gridspec_kw={"height_ratios": aspects})
    for axes, case, image, note in zip(grid, choice.cases, images, notes, strict=True):
        region = _target(case, image)
        _tile(axes[0], _outlined(case, image), note)
        axes[0].set_ylabel(literal(case.title), fontsize=7)
        for panel, name in zip(axes[1:], shown, strict=True):
            _map_tile(panel, case, name, image, region)
    for panel, title in zip(grid[0], ("image", *(labels.get(name, name) for name in shown)), strict=True):
        panel.set_title(literal(title, 16), fontsize=7)
    scale = ScalarMappable(Normalize(0, 1), "inferno")
    bar = figure.colorbar(scale, ax=grid, shrink=min(1.0, 2 / len(images)), pad=0.01, aspect=18, ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=6)
    return figure


@rc_context(STYLE)
def mechanism(case: Case) -> Figure:
    """Fig. 3: the image, then DEA's four maps on one scale: EGA, RIA, their interaction and the corrected map.

    Below each map stands the share of its sum that lies in the target. alpha and beta are those of the run.

    Raises:
        SettingsError: run.json states no alpha and beta of DEA.
    """
    parts = parts_of(case)
    alpha, beta = parameters(case)
    image = _image(case)
    region = _target(case, image)
    panels = (
        ("EGA", "$A_g$", _load(case, "ega")),
        ("RIA", "$A_r$", _load(case, "ria")),
        ("interaction", r"$A_g \odot A_r$", parts.agreement),
        ("DEA", "$A_f$", parts.corrected),
    )
    width = (FULL_WIDTH - 0.5) / 5
    figure = canvas(FULL_WIDTH, width * image.shape[1] / image.shape[2] + 0.68)
    axes = figure.subplots(1, 5)
    _tile(axes[0], _outlined(case, image), literal(f"{case.title}, {case.name}"))
    axes[0].set_title("image")
    for panel, (title, symbol, heatmap) in zip(axes[1:], panels, strict=True):
        drawn = panel.imshow(heatmap, cmap="inferno", vmin=0, vmax=1)
        for colour, line in (("black", 1.2), ("white", 0.6)):
            panel.contour(region, levels=[0.5], colors=colour, linewidths=line)
        total = float(heatmap.sum())
        inside = f"{100 * float(heatmap[region].sum()) / total:.0f} % in target" if total else "zero everywhere"
        _frame(panel, inside)
        panel.set_title(f"{title}  {symbol}")
    figure.colorbar(drawn, ax=list(axes), shrink=0.8, pad=0.01, aspect=14, ticks=[0, 0.5, 1])
    figure.supxlabel(
        rf"$A_f = \mathrm{{minmax}}(\alpha A_g + \alpha\beta\, A_g \odot A_r + (1-\alpha) A_r)$,   "
        rf"$\alpha$ = {alpha:g}, $\beta$ = {beta:g}",
        fontsize=8,
    )
    return figure


def parameters(case: Case) -> tuple[float, float]:
    """alpha and beta of DEA in the case's run.

    Raises:
        SettingsError: run.json states none.
    """
    stated = case.run.description["methods"].get("dea", {}).get("parameters", {})
    if "alpha" not in stated or "beta" not in stated:
        raise SettingsError(
            f"run.json of {case.run.label} states no alpha and beta of dea; expected both under methods, dea, "
            "parameters; make the run again with: segfaith run FILE -o DIR"
        )
    return float(stated["alpha"]), float(stated["beta"])


def parts_of(case: Case) -> Parts:
    """Equation 2 from the case's kept EGA and RIA maps. Raises what `parameters` and `dea_parts` raise."""
    return dea_parts(_load(case, "ega"), _load(case, "ria"), *parameters(case))


def mechanism_words(case: Case) -> str:
    """What the figure of the mechanism can't hold: the summands' shares, and how near the kept DEA map is."""
    parts = parts_of(case)
    off = float(np.abs(parts.corrected - _load(case, "dea")).max())
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts.shares.items())
    return (
        f"Shares of the three summands in the sum before minmax: {shares}. The corrected map is equation 2 of the kept "
        f"EGA and RIA maps; it differs from the kept DEA map by at most {off:.1e}."
        + ("" if off < 1e-3 else " So DEA was made from other evidence than these two maps (see its parameters).")
    )


def _note(case: Case, most: int) -> str:
    """The words below an image, in lines of at most so many characters: its s, and why the case was chosen."""
    score = float(case.record["s"].dropna().iloc[0])
    return "\n".join([f"s = {score:.2f}", *wrap(case.why.replace("$", r"\$"), most)])


def _map_tile(axes: Axes, case: Case, method: str, image: Array, region: NDArray[np.bool_]) -> None:
    if not (case.folder / map_name(method)).is_file():
        axes.text(0.5, 0.5, "no map", ha="center", va="center", transform=axes.transAxes)
        axes.set_box_aspect(image.shape[1] / image.shape[2])
        _frame(axes, "")
        return
    values = case.record.loc[method, ["tdd", "odd_abs"]]
    words = [f"{label} {value:.2f}" for label, value in zip(("TDD", "OT"), values, strict=True) if isfinite(value)]
    _tile(axes, overlay(image, _load(case, method), region), "\n".join(words))


def _tile(axes: Axes, picture: Image.Image, words: str) -> None:
    axes.imshow(np.asarray(picture))
    _frame(axes, words)


def _frame(axes: Axes, words: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(words, fontsize=6.5, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outlined(case: Case, image: Array) -> Image.Image:
    """The image of a case with the outlines of the target, of planted evidence and of the prediction, where kept."""
    masks = read_masks(case.folder, image.shape[1:])
    return outlined(image, masks["target"], masks.get("evidence"), masks.get("prediction"))


def _target(case: Case, image: Array) -> NDArray[np.bool_]:
    return read_masks(case.folder, image.shape[1:])["target"]


def _load(case: Case, method: str) -> Array:
    """A kept map (H, W). Raises what `kept.read_map` raises."""
    return read_map(case.folder, method, kept_size(case.folder)).astype(np.float64)


def _image(case: Case) -> Array:
    """The image of a case as (3, H, W) in [0, 1]. Raises what `kept.read_picture` raises."""
    picture: Array = read_picture(case.folder / "image.png").transpose(2, 0, 1) / 255
    return picture
