"""All figures of an analysis into a directory: PNG and PDF, with `figures.md` for captions, rules and what is missing.

There is a set of figures for each data set. A figure that cannot be drawn is named with the reason, and its files of an
earlier call are removed. The same data give the same bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from segfaith.paths import inside
from segfaith.results.figures.drawing import Drawing
from segfaith.results.figures.style import STYLE
from segfaith.results.records.files import replace_file
from segfaith.results.statistics.analysis import Analysis, DataAnalysis, Options


def save_figures(
    analysis: Analysis, drawings: Mapping[str, Callable[[DataAnalysis], Drawing]], directory: Path
) -> list[Path]:
    """Writes `figures/NAME-DATA.png` and `.pdf` for each figure and data set, and `figures/figures.md`.

    Args:
        analysis: of the runs.
        drawings: the figures by name, as `drawings.DRAWINGS` holds them.
        directory: where `figures/` is made.

    Returns:
        The files written, `figures.md` last.

    Raises:
        SettingsError: `figures/` is a symbolic link.
    """
    folder = inside(directory, "figures", "figures.md").parent
    written: list[Path] = []
    words = ["# Figures", "", entered(analysis.options), ""]
    missing: list[str] = []
    for part in analysis.parts:
        words += [f"## {part.label}", ""]
        for draw in drawings.values():
            drawing = draw(part)
            stem = drawing.name
            if drawing.figure is None:
                missing.append(f"- `{stem}`: {drawing.why}")
                for ending in ("png", "pdf"):
                    (folder / f"{stem}.{ending}").unlink(missing_ok=True)
                continue
            written += _save(drawing.figure, folder / stem)
            words += [f"### {stem}", "", f"![{stem}]({stem}.png)", "", drawing.caption, ""]
            words += [f"- {remark}" for remark in drawing.remarks] + [""] * bool(drawing.remarks)
    words += ["## Not drawn", "", *(missing or ["Nothing is missing."])]
    text = folder / "figures.md"
    replace_file(text, lambda temporary: temporary.write_text("\n".join(words) + "\n", encoding="utf-8"))
    return [*written, text]


def entered(options: Options) -> str:
    """Which images the figures are of, in a sentence."""
    least = {"s": options.min_s, "the IoU of the prediction": options.min_iou}
    asked = [f"{name} >= {value:g}" for name, value in least.items() if value is not None]
    images = f"Only images with {' and '.join(asked)}" if asked else "All images"
    return f"{images} entered unless a caption says otherwise."


def _save(figure: Figure, stem: Path) -> Iterator[Path]:
    """Writes PNG and PDF without dates, so that the same figure gives the same bytes."""
    png, pdf = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf"))

    def write_png(temporary: Path) -> None:
        packing = {"compress_level": 3}  # a third of the time of the default, for a tenth more bytes
        figure.savefig(temporary, format="png", metadata={"Software": None}, pil_kwargs=packing)

    def write_pdf(temporary: Path) -> None:
        with _own_pixels(figure):
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})

    for path, write in ((png, write_png), (pdf, write_pdf)):
        with rc_context(STYLE):
            replace_file(path, write)
        yield path


@contextmanager
def _own_pixels(figure: Figure) -> Iterator[None]:
    """Inside the block, photographs are written with their own pixels, and the reader's program scales them."""
    images = [(image, image.get_interpolation()) for axes in figure.axes for image in axes.images]
    for image, _ in images:
        image.set_interpolation("none")
    try:
        yield
    finally:
        for image, interpolation in images:
            image.set_interpolation(interpolation)
