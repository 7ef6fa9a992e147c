"""Figures as SVG that stands within a page (a stand-in until the merge)."""

import re
from io import StringIO

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure


def inline_svg(figure: Figure, name: str) -> Markup:
    """The figure as an SVG element without style attributes; its ids begin with `name`."""
    buffer = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)

    def attributes(match: re.Match[str]) -> str:
        pairs = [part.split(":", 1) for part in match[1].split(";") if ":" in part]
        return " ".join(f"{key.strip()}='{value.strip()}'" for key, value in pairs if key.strip() != "font")

    text = re.sub(r'style="([^"]*)"', attributes, text)
    text = re.sub(r'id="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', text)
    return Markup(re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", text))
