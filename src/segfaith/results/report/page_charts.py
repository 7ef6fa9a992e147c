"""Charts of the report page as inline SVG: they scale, print, follow the colour scheme and need no script.

Panels are narrow, so that their words stay legible on a phone; the numbers of every chart stand in a table too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, floor, isnan, log10, pi, sin
from typing import Any

from markupsafe import Markup

from segfaith.results.figures.style import Look, looks
from segfaith.results.report.blocks import join, number, words

WIDTH, LEFT, RIGHT = 340, 44, 12
"""Of a panel, in its own units; one unit is about one CSS pixel."""

POLYGONS = {
    "s": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "D": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "d": ((0, -1.4), (0.9, 0), (0, 1.4), (-0.9, 0)),
    "^": ((0, -1.25), (1.2, 1), (-1.2, 1)),
    "v": ((0, 1.25), (1.2, -1), (-1.2, -1)),
    "<": ((-1.25, 0), (1, 1.2), (1, -1.2)),
    ">": ((1.25, 0), (-1, 1.2), (-1, -1.2)),
    "p": tuple((1.2 * sin(2 * pi * i / 5), -1.2 * cos(2 * pi * i / 5)) for i in range(5)),
    "h": tuple((1.2 * sin(2 * pi * i / 6), -1.2 * cos(2 * pi * i / 6)) for i in range(6)),
}
STROKES = {
    "x": ((-1, -1, 1, 1), (-1, 1, 1, -1)),
    "+": ((-1.3, 0, 1.3, 0), (0, -1.3, 0, 1.3)),
    "*": ((0, -1.3, 0, 1.3), (-1.1, -0.7, 1.1, 0.7), (-1.1, 0.7, 1.1, -0.7)),
}
"""Markers by the letters of `style.LOOKS`; what is neither here nor above is a circle."""


@dataclass(frozen=True)
class Line:
    """One method's points (x, y, low, high) in order of x; low and high may be NaN."""

    method: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Strip:
    """One row of a strip chart: a name, dots, their mean and a mark of another's (NaN: none)."""

    method: str
    dots: tuple[float, ...]
    mean: float
    other: float = float("nan")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high], at most about `most`."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** floor(log10(raw))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw * 0.999)
    first = floor(low / step + 0.999999)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def key(methods: Sequence[str], *, line: bool = False) -> Markup:
    """The key to the marks of the methods."""
    return join(
        [
            words(
                '<li><svg class="mark" viewBox="-13 -7 26 14" aria-hidden="true">{}{}</svg>{}</li>',
                _stroke(look, [(-12, 0), (12, 0)]) if line else "",
                _marker(look, 0, 0),
                method,
            )
            for method, look in looks(list(methods)).items()
        ],
        "",
    )


def lines(series: Sequence[Line], title: str, x_label: str, names: Sequence[str] | None = None) -> Markup:
    """A panel of lines with their intervals as bands.

    Args:
        series: one per method.
        names: of x = 0, 1, 2, ... in place of numbers.
    """
    height, top, bottom = 230, 26, 34 if names is None else 46
    low, high = _reach(series)
    xs = [point[0] for one in series for point in one.points]
    left, right = (min([*xs, 0.0]), max(xs)) if xs else (0.0, 1.0)

    def x(value: float) -> float:
        return LEFT + (value - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return height - bottom - (min(max(value, low), high) - low) / (high - low) * (height - top - bottom)

    parts = [
        _grid_line(LEFT, WIDTH - RIGHT, y(tick), f"{tick:g}".replace("-", "−"), zero=tick == 0)
        for tick in ticks(low, high)
    ]
    if names is None:
        parts += [_text(x(tick), height - bottom + 15, f"{tick:g}", "middle") for tick in ticks(left, right)]
    else:
        parts += [_slanted(x(place), height - bottom + 13, name) for place, name in enumerate(names)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 3, x_label, "middle", "axis"))
    look = looks([one.method for one in series])
    parts += [_band(look[one.method], [(x(a), y(c), y(d)) for a, _, c, d in one.points]) for one in series]
    for one in series:
        points = [(x(a), y(b)) for a, b, *_ in one.points if not isnan(b)]
        parts.append(_stroke(look[one.method], points))
        parts += [_marker(look[one.method], *point, size=3) for point in points]
    described = "; ".join(
        f"{one.method} from {number(one.points[0][1])} to {number(one.points[-1][1])}" for one in series if one.points
    )
    return _panel(title, f"{title}: {described}", height, parts)


def strips(rows: Sequence[Strip], title: str) -> Markup:
    """A panel with one row per method: a dot per run, a bar at their mean, an open diamond at the paper's."""
    step, top, left = 22, 34, _room(row.method for row in rows)
    height = top + step * len(rows) + 24
    values = [value for row in rows for value in (*row.dots, row.mean, row.other) if not isnan(value)]
    low, high = _widened(min([*values, 0.0]), max([*values, 0.0]))

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    parts = [
        words(
            '<line class="{}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>{}',
            "zero" if tick == 0 else "grid",
            top - 4,
            height - 20,
            _text(x(tick), height - 6, f"{tick:g}", "middle"),
            x=_n(x(tick)),
        )
        for tick in ticks(low, high, 4)
    ]
    look = looks([row.method for row in rows])
    for place, row in enumerate(rows):
        y = top + step * (place + 0.5)
        parts.append(_text(left - 10, y + 4, _short(row.method), "end"))
        if not isnan(row.other):
            around = [(row_x, row_y) for row_x, row_y in ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0))]
            points = " ".join(f"{_n(x(row.other) + a)},{_n(y + b)}" for a, b in around)
            parts.append(words('<polygon class="paper" points="{}"/>', points))
        parts += [_marker(look[row.method], x(value), y, 3.4, "dot") for value in row.dots]
        if not isnan(row.mean):
            parts.append(
                words('<line class="mean" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', _n(x(row.mean)), y - 8, y + 8)
            )
    described = ", ".join(f"{row.method} {number(row.mean)}" for row in rows)
    return _panel(title, f"{title}, means over runs: {described}", height, parts)


def ranks(means: dict[str, float], reach: float, title: str) -> Markup:
    """Mean ranks (1 = best) with bars as long as the critical difference: bars that don't overlap differ.

    `reach`: the critical difference; NaN: no bars.
    """
    step, top, left = 22, 34, _room(means)
    order = sorted(means, key=lambda name: means[name])
    height = top + step * len(order) + 24
    low, high = 1.0, float(max(len(order), 2))
    margin = 0 if isnan(reach) else reach / 2

    def x(value: float) -> float:
        return left + (value - low + 0.3) / (high - low + 0.6) * (WIDTH - left - RIGHT)

    parts = [
        words(
            '<line class="grid" x1="{x}" x2="{x}" y1="{}" y2="{}"/>{}',
            top - 4,
            height - 20,
            _text(x(tick), height - 6, f"{tick:g}", "middle"),
            x=_n(x(tick)),
        )
        for tick in range(1, len(order) + 1)
    ]
    look, bar = looks(order), '<line class="reach" x1="{}" x2="{}" y1="{y}" y2="{y}"/>'
    for place, name in enumerate(order):
        y = top + step * (place + 0.5)
        first, last = max(x(means[name] - margin), left), min(x(means[name] + margin), WIDTH - RIGHT)
        parts += [
            _text(left - 10, y + 4, _short(name), "end"),
            *([] if isnan(reach) else [words(bar, _n(first), _n(last), y=y)]),
            _marker(look[name], x(means[name]), y, 4),
        ]
    described = ", ".join(f"{name} {means[name]:.2f}" for name in order)
    return _panel(title, f"{title}, mean ranks: {described}", height, parts)


def _panel(title: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    return words(
        '<svg class="panel" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>',
        WIDTH,
        height,
        description,
        _text(0, 13, title, "start", "title"),
        join(parts, ""),
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return words('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', kind, _n(x), _n(y), anchor, text)


def _slanted(x: float, y: float, text: str) -> Markup:
    place = f"rotate(-20 {_n(x)} {_n(y)})"
    return words(
        '<text class="tick" x="{}" y="{}" text-anchor="end" transform="{}">{}</text>', _n(x + 6), _n(y), place, text
    )


def _grid_line(left: float, right: float, y: float, text: str, *, zero: bool) -> Markup:
    line = words(
        '<line class="{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>', "zero" if zero else "grid", left, right, y=_n(y)
    )
    return line + _text(left - 6, y + 4, text, "end")


def _band(look: Look, points: Sequence[tuple[float, float, float]]) -> Markup:
    known = [point for point in points if not (isnan(point[1]) or isnan(point[2]))]
    if len(known) < 2:
        return Markup("")
    around = [(x, low) for x, low, _ in known] + [(x, high) for x, _, high in reversed(known)]
    outline = " ".join(f"{_n(a)},{_n(b)}" for a, b in around)
    return words('<polygon class="band" fill="{}" points="{}"/>', _colour(look), outline)


def _stroke(look: Look, points: Sequence[tuple[float, float]]) -> Markup:
    dashes = "" if look.line == "-" else " ".join(f"{one * 1.6:g}" for one in look.line[1])
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return words(
        '<polyline fill="none" stroke="{}" stroke-width="1.8" stroke-dasharray="{}" points="{}"/>',
        _colour(look),
        dashes,
        path,
    )


def _marker(look: Look, x: float, y: float, size: float = 3.6, kind: str = "marker") -> Markup:
    colour = _colour(look)
    if look.marker in STROKES:
        path = " ".join(
            f"M{_n(x + size * a)},{_n(y + size * b)}L{_n(x + size * c)},{_n(y + size * d)}"
            for a, b, c, d in STROKES[look.marker]
        )
        return words('<path class="{}" d="{}" stroke="{}" stroke-width="1.6"/>', kind, path, colour)
    if look.marker in POLYGONS:
        around = " ".join(f"{_n(x + size * a)},{_n(y + size * b)}" for a, b in POLYGONS[look.marker])
        return words('<polygon class="{}" points="{}" fill="{}"/>', kind, around, colour)
    return words('<circle class="{}" cx="{}" cy="{}" r="{}" fill="{}"/>', kind, _n(x), _n(y), size * 1.1, colour)


def _colour(look: Look) -> str:
    """A colour; greys follow the scheme, or black marks would vanish on a dark page."""
    return look.colour if look.colour.startswith("#") else f"var(--grey-{round(float(look.colour) * 100)}, #888)"


def _reach(series: Sequence[Line]) -> tuple[float, float]:
    """All means and zero, and their intervals as far as those do not dwarf them."""
    means = [point[1] for one in series for point in one.points if not isnan(point[1])]
    low, high = min([*means, 0.0]), max([*means, 0.0])
    ends = [value for one in series for point in one.points for value in point[2:] if not isnan(value)]
    air = (high - low) * 0.35
    return _widened(max(min([*ends, low]), low - air), min(max([*ends, high]), high + air))


def _room(names: Iterable[str]) -> float:
    """The width that names beside a chart need."""
    return 16 + 6.3 * max((len(_short(name)) for name in names), default=0)


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range with a little air beyond each end that is not zero."""
    air = (high - low) * 0.06 or 0.5
    return (low - air if low < 0 else low), (high + air if high > 0 or low == high else high)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:8]}…{name[-7:]}"


def _n(value: float) -> Any:
    return f"{value:.1f}".removesuffix(".0")
