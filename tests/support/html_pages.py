"""Read an HTML page as a browser would, as far as tests ask about its structure."""

from __future__ import annotations

from html.parser import HTMLParser

#: Elements without an end.
_VOID = frozenset(("meta", "br", "hr", "img", "link", "input"))

#: SVG elements that may be written as one tag.
_ADDRESSES = ("href", "xlink:href", "src", "srcset", "action", "poster", "data", "formaction", "background", "ping")


class Page(HTMLParser):
    """A page, checked to be well-formed as it is read.

    Attributes:
        elements: the name and attributes of each element, in order.
        texts: the text in each element, with its name; not that of its children.
        styles: all CSS, in elements and attributes.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert [] == self._open, "elements without an end"

    def names(self) -> list[str]:
        """Return the names of all elements."""
        return [name for name, _ in self.elements]

    def texts_of(self, name: str) -> list[str]:
        """Return the texts of the elements of one name."""
        return [text for element, text in self.texts if element == name]

    def addresses(self) -> list[str]:
        """Return whatever the page would load or lead to."""
        found = [str(value) for _, values in self.elements for name, value in values.items() if name in _ADDRESSES]
        return found + [style for style in self.styles if "url(" in style or "@import" in style]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._add(tag, attrs)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._add(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop(), f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.styles.append(data)
        elif data.strip():
            self.texts.append((self._open[-1] if self._open else "", data))

    def _add(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute of <{tag}> is there twice"
        self.elements.append((tag, values))
        self.styles.append(values.get("style") or "")
