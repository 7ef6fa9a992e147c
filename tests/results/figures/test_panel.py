"""The panel: its axes, titles and words, for any number of methods, shape and channel."""

import numpy as np
import pytest

from segfaith.results.figures.panel import MOST, Column, draw_panel


def columns(count: int, shape: tuple[int, int], channels: int = 3) -> list[Column]:
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, bool)
    mask[3:6, 3:6] = True
    return [
        Column(f"m{place}", rng.random(shape), rng.random((channels, *shape)), mask, f"0.9 to 0.{place}")
        for place in range(count)
    ]


@pytest.mark.parametrize("count", [1, 6, 8])
@pytest.mark.parametrize(("shape", "channels"), [((20, 30), 3), ((60, 24), 1), ((500, 700), 4)])
def test_the_panel_has_two_pictures_a_method(count: int, shape: tuple[int, int], channels: int) -> None:
    region = np.zeros(shape, bool)
    region[2:8, 2:8] = True
    given = columns(count, shape, channels)
    long_name = "a class whose name is very long " * 4
    image = np.random.default_rng(1).random((channels, *shape))
    figure = draw_panel(f"model: {long_name}$", image, region, region, given, words="s = 0.90", deleted="Lower row.")
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 1 + 2 * count
    titles = [axes.get_title() for axes in shown]
    assert titles[0] == "image"
    assert sorted(filter(None, titles[1:])) == [f"m{place}" for place in range(count)]
    assert [axes.get_xlabel() for axes in shown if "0.9 to" in axes.get_xlabel()] == [one.words for one in given]
    assert shown[0].get_xlabel() == "s = 0.90"
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legends[0].get_texts()] == ["target", "prediction"]
    assert figure._suptitle is not None
    assert figure.get_figwidth() < 2.0 * (MOST + 1) + 1
    height, width = shown[0].images[0].get_array().shape[:2]  # type: ignore[union-attr]
    assert (height > width) == (shape[0] > shape[1])
    assert max(height, width) <= 448


def test_small_pictures_keep_their_pixels_as_squares() -> None:
    image = np.zeros((3, 8, 8))
    image[0, 0, 0] = 1
    mask = np.zeros((8, 8), bool)
    mask[6, 6] = True
    figure = draw_panel("t", image, mask, mask, columns(1, (8, 8)), words="", deleted="")
    drawn = next(axes for axes in figure.axes if axes.images).images[0].get_array()
    assert drawn is not None
    assert drawn.shape[:2] == (224, 224)
    assert (drawn[:28, :28, 0] == 255).all()
    assert (drawn[:28, 28:56, 0] == 0).all()


@pytest.mark.parametrize(("count", "shape"), [(1, (60, 24)), (4, (20, 30)), (8, (20, 30))])
def test_refused_methods_are_named_with_their_whole_reasons_below_the_pictures(
    count: int, shape: tuple[int, int]
) -> None:
    mask = np.zeros(shape, bool)
    mask[2:8, 2:8] = True
    long, short = "the model has non-linear steps that captum has no rule for: " + "Hardswish, " * 20, "costs $1 or $2"
    refused = {"captum:DeepLift": long, "own@" + "x" * 80: short, "captum:DeepLiftShap": long}
    given, image = columns(count, shape), np.zeros((3, *shape))
    figure = draw_panel("t", image, mask, mask, given, words="s", deleted="Lower row.", refused=refused)
    figure.canvas.draw()
    drawn = figure._supxlabel  # type: ignore[attr-defined]
    lines = drawn.get_text().replace("\\$", "$").split("\n")
    said = [f"No map of captum:DeepLift, captum:DeepLiftShap: {long}", f"No map of own@{'x' * 80}: {short}"]
    assert "".join(lines).replace(" ", "") == "".join(said).replace(" ", "")
    assert not any(line.endswith("non-") for line in lines)
    text, whole = drawn.get_window_extent(), figure.bbox
    assert 0 <= text.x0 < text.x1 <= whole.x1
    assert text.y0 >= 0
    shown = [axes for axes in figure.axes if axes.get_images() or axes.texts]
    lowest = min(box.y0 for axes in shown if (box := axes.get_tightbbox()) is not None)
    assert text.y1 <= lowest
    plain = draw_panel("t", image, mask, mask, given, words="s", deleted="Lower row.")
    plain.canvas.draw()
    assert plain._supxlabel is None  # type: ignore[attr-defined]
    sides = [figure.axes[0].get_window_extent().width for figure in (plain, figure)]
    assert sides[1] > 0.9 * sides[0]  # the figure grows, the pictures do not shrink
