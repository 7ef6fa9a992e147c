"""What tests ask of an HTML page: its tags, the cells of its tables, and their links."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page that was read.

    Attributes:
        tags: each start tag with its attributes.
        rows: the words of the cells of each table, by the table's id ("gallery" without one).
        links: the addresses in each cell, as in `rows`.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.links: dict[str, list[list[list[str]]]] = {}
        self._table = ""
        self._cell = False
        self.feed(text)

    def values(self, attribute: str, tag: str = "") -> list[str]:
        """The values of an attribute in the page's order, of all tags or of those with that name."""
        return [str(own[attribute]) for name, own in self.tags if own.get(attribute) is not None and tag in ("", name)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append((tag, own))
        if tag == "table":
            self._table = own.get("id") or "gallery"
        elif tag == "tr" and self._table:
            self.rows.setdefault(self._table, []).append([])
            self.links.setdefault(self._table, []).append([])
        elif tag in ("td", "th") and self._table:
            self.rows[self._table][-1].append("")
            self.links[self._table][-1].append([])
            self._cell = True
        elif tag == "a" and self._cell:
            self.links[self._table][-1][-1].append(own.get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[self._table][-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")
