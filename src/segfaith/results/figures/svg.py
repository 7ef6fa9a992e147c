"""A figure as SVG that a page inlines: without a style sheet and clashing ids, and in the page's colours.

matplotlib's SVG is parsed and written anew. Styles become presentation attributes, which a strict Content Security
Policy allows. Text stays text in the page's font. Greys become the page's, so that they follow its colour scheme:

    darkest        currentColor           text, axes, the control "mask"
    dark, middle   --plot-dark, -middle   greys that tell the controls apart
    light          --plot-rule            grids
    white          --plot-paper           the inside of hollow markers

Colours of methods stay as they are.
"""

from collections.abc import Iterator, Mapping
from io import BytesIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from segfaith.results.figures.style import COLUMN_WIDTH, STYLE

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
NOTHING: dict[str, str | None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""Metadata that is left out."""
DEFAULTS = {
    **{"stroke-linecap": "butt", "stroke-linejoin": "round", "stroke-opacity": "1", "fill-opacity": "1"},
    **{"opacity": "1", "stroke-dashoffset": "0", "stroke-width": "1", "text-anchor": "start"},
}
"""Values that need no attribute: those of SVG and of the root element."""
DROPPED = {"font-family", "font-stretch", "font-variant"}
GREYS = ((0.25, "currentColor"), (0.55, "var(--plot-dark)"), (0.75, "var(--plot-middle)"), (0.999, "var(--plot-rule)"))
"""Up to this lightness, in [0, 1], a grey is this colour; lighter ones are the paper."""


def inline_svg(figure: Figure, name: str, label: str = "") -> Markup:
    """The figure as an `svg` element. The same figure and name give the same text.

    Its class is `plot narrow` up to the width of a column, else `plot wide`; it has a `viewBox` and no size.

    Args:
        figure: drawn on a canvas of its own.
        name: unique on the page; ids of the element start with it.
        label: what is read out in place of the figure; by default the name.
    """
    file = BytesIO()
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=NOTHING, transparent=True)
    source = ElementTree.fromstring(file.getvalue())  # nosec B314
    used = _uses(source)
    definitions = {one.get("id", ""): one for group in source.iter(f"{{{SVG}}}defs") for one in group if one.get("id")}
    names, kept = _numbered({key: one for key, one in definitions.items() if key in used}, used, name)
    root = Element("svg")
    for key, value in (
        *(("xmlns", SVG), ("class", f"plot {'narrow' if figure.get_figwidth() <= COLUMN_WIDTH else 'wide'}")),
        *(("viewBox", source.get("viewBox", "")), ("role", "img"), ("aria-label", label or name)),
        *(("fill", "currentColor"), ("stroke-linejoin", "round")),
    ):
        root.set(key, value)
    if kept:
        definitions_element = Element("defs")
        definitions_element.extend(kept)
        root.append(definitions_element)
    root.extend(_children(source, names))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _uses(source: Element) -> dict[str, list[dict[str, str]]]:
    """The styles of the elements that refer to an id, by the id."""
    used: dict[str, list[dict[str, str]]] = {}
    for element in source.iter():
        target = element.get(LINK, "").removeprefix("#")
        if target:
            used.setdefault(target, []).append(_style(element))
        for value in (*element.attrib.values(), *_style(element).values()):
            if value.startswith("url(#"):
                used.setdefault(value[5:-1], []).append({})
    return used


def _numbered(
    definitions: Mapping[str, Element], used: Mapping[str, list[dict[str, str]]], name: str
) -> tuple[dict[str, str], list[Element]]:
    """New ids by the old ones, and the definitions under them; equal definitions share an id.

    What every element that uses a definition states itself is left out of the definition.
    """
    names: dict[str, str] = {}
    texts: dict[str, str] = {}
    kept: list[Element] = []
    for key, element in definitions.items():
        own = {prop: value for prop, value in _style(element).items() if any(prop not in one for one in used[key])}
        new = _rewritten(element, {}, own)
        text = ElementTree.tostring(new, encoding="unicode")
        if text not in texts:
            texts[text] = f"{name}-{len(texts) + 1}"
            new.set("id", texts[text])
            kept.append(new)
        names[key] = texts[text]
    return names, kept


def _children(parent: Element, names: Mapping[str, str]) -> Iterator[Element]:
    """What is drawn of an element's children; groups without attributes give their own children."""
    for child in parent:
        kind = _kind(child)
        if kind in ("defs", "metadata", "style"):
            continue
        style = _style(child)
        unseen = style.get("opacity") == "0" or (style.get("fill") == "none" and style.get("stroke", "none") == "none")
        if kind == "path" and unseen:
            continue
        new = _rewritten(child, names, style)
        if kind == "g" and not new.attrib:
            yield from new
        elif kind != "g" or len(new):
            yield new


def _rewritten(element: Element, names: Mapping[str, str], style: Mapping[str, str]) -> Element:
    """The element with its children, without ids, with short numbers and with attributes in place of styles."""
    new = Element(_kind(element))
    for key, value in {**element.attrib, **style}.items():
        if key in ("id", "style") or key in DROPPED or DEFAULTS.get(key) == value:
            continue
        if key == LINK:
            new.set("href", f"#{names[value[1:]]}" if value.startswith("#") else value)
        elif short := _value(key, value, names):
            new.set(key, short)
    if _kind(element) in ("text", "tspan"):
        new.text = (element.text or "").strip() if len(element) else element.text
    new.extend(_children(element, names))
    if _kind(element) == "text":
        for child, other in zip(new, element, strict=True):
            child.tail = (other.tail or "").strip() or None
    return new


def _value(key: str, value: str, names: Mapping[str, str]) -> str:
    """An attribute's value in short; "" where it can be left out."""
    if key in ("fill", "stroke", "stop-color"):
        value = _colour(value)
        return "" if key == "fill" and value == "currentColor" else value
    if value.startswith("url(#"):
        return f"url(#{names[value[5:-1]]})"
    if key == "d":
        return _path(value)
    if key == "transform":
        return "" if value.startswith("rotate(-0 ") else _transform(value)
    if key in ("x", "y", "width", "height", "font-size", "stroke-width", "stroke-dashoffset"):
        return _short(value.removesuffix("px"))
    if key == "stroke-dasharray":
        return " ".join(_short(part) for part in value.split(","))
    return value


def _colour(value: str) -> str:
    """A grey as a colour of the page; other colours, and "none", as they are."""
    if len(value) != 7 or not value.startswith("#"):
        return value
    red, green, blue = (int(value[place : place + 2], 16) for place in (1, 3, 5))
    if not red == green == blue:
        return value
    return next((colour for most, colour in GREYS if red / 255 <= most), "var(--plot-paper)")


def _path(value: str) -> str:
    """A path's data with short numbers."""
    words = [word if word.isalpha() else _short(word) for word in value.split()]
    text = " ".join(words)
    for letter in sorted({word for word in words if word.isalpha()}):
        text = text.replace(f" {letter}", letter).replace(f"{letter} ", letter)
    return text


def _transform(value: str) -> str:
    """Moves and turns with short numbers; what scales is kept exact."""
    parts = []
    for part in value.split(")"):
        kind, _, numbers = part.strip().partition("(")
        if kind:
            words = [number if kind in ("scale", "matrix") else _short(number) for number in numbers.split()]
            parts.append(f"{kind}({' '.join(words)})")
    return " ".join(parts)


def _short(number: str) -> str:
    """A number with at most two decimals."""
    text = f"{float(number):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _style(element: Element) -> dict[str, str]:
    """An element's style by property."""
    pairs = (part.partition(":") for part in element.get("style", "").split(";") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _kind(element: Element) -> str:
    return element.tag.rpartition("}")[2]
