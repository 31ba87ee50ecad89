"""The child process that reads what pages say about themselves: started by `page_reader`, given one page after the other.

`html.parser` of Python 3.11 needs minutes for some pages of 512 KiB, so it must not run in the worker.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import suppress
from html.parser import HTMLParser
from typing import Final

from shardd.transports.whatsapp.links.page_info import PageInfo
from shardd.transports.whatsapp.media.limited_child import serve

TITLE: Final = 256
"""Characters."""
DESCRIPTION: Final = 512
ADDRESS: Final = 2048
HEAD: Final = 4096
"""Bytes in which a page names its charset."""

# The first of these that a page has; those with og: are of Open Graph (ogp.me).
_SOURCES: Final = {
    "title": ("og:title", "title"),
    "description": ("og:description", "description"),
    "image": ("og:image", "og:image:url", "og:image:secure_url"),
}
_WANTED: Final = frozenset(name for names in _SOURCES.values() for name in names)

_META_CHARSET: Final = re.compile(rb"<meta\b[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What browsers use instead (encoding.spec.whatwg.org), by Python's name.
_WIDER: Final = {
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
}
_CHARSETS: Final = re.compile(
    r"utf-8|utf-16(-[bl]e)?|cp125\d|cp874|cp866|cp932|cp949|iso8859-\d+|koi8-[ru]|gb18030|big5(hkscs)?|euc_jp|iso2022_jp|mac-\w+"
)
"""Python has others, which are no charsets of pages, such as utf-7 and unicode_escape."""

_JOINERS: Final = frozenset("\u200c\u200d")
_DROPPED: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})
"""Control characters, marks that turn the direction of text, and non-characters."""


class _Finder(HTMLParser):
    """Finds a page's title and meta elements. What is in scripts, styles and comments is none of them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, str] = {}
        self._title: list[str] | None = None
        self._drawings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            # As in browsers, the first of two attributes with one name counts.
            given = dict(reversed(attrs))
            for name in (given.get("property"), given.get("name")):
                key = (name or "").strip().lower()
                if key in _WANTED and key != "title":
                    self._keep(key, given.get("content") or "")
        elif tag == "svg":
            self._drawings += 1
        elif tag == "title" and not self._drawings:
            self._title = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._drawings = max(0, self._drawings - 1)
        elif tag == "title":
            self.end_title()

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)

    def end_title(self) -> None:
        """The title ends here, or with the part of the page that was read."""
        if self._title is not None:
            self._keep("title", "".join(self._title))
            self._title = None

    def _keep(self, name: str, text: str) -> None:
        if name not in self.found and text.strip():
            self.found[name] = text


def look(data: bytes, charset: str = "") -> PageInfo:
    """What a page says; `data`: its first bytes, `charset`: of the HTTP header."""
    finder = _Finder()
    # It raises AssertionError for some malformed declarations; what came before counts.
    with suppress(AssertionError):
        finder.feed(_decode(data, charset))
        finder.close()
    finder.end_title()
    title, description, image = (
        next((finder.found[name] for name in names if name in finder.found), "") for names in _SOURCES.values()
    )
    image = image.strip()
    return PageInfo(
        _tidy(title, TITLE),
        _tidy(description, DESCRIPTION),
        image if len(image) <= ADDRESS and image.isprintable() else "",
    )


def _decode(data: bytes, charset: str) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    if codec := _codec(charset):
        return data.decode(codec, "replace")
    if (named := _META_CHARSET.search(data, 0, HEAD)) and (codec := _codec(named[1].decode("ascii"))):
        # It was readable as ASCII, so it is not UTF-16.
        return data.decode("utf-8" if codec.startswith("utf-16") else codec, "replace")
    try:
        # The last character may have been cut.
        return codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _codec(label: str) -> str | None:
    try:
        name = codecs.lookup(label).name if label else ""
    except LookupError:
        return None
    name = _WIDER.get(name, name)
    return name if _CHARSETS.fullmatch(name) else None


def _tidy(text: str, most: int) -> str:
    # Of a text that is all white space or marks nothing is left, however long it was.
    plain = "".join(
        sign
        for sign in text[: 20 * most]
        if sign in _JOINERS or sign.isspace() or unicodedata.category(sign) not in _DROPPED
    )
    line = " ".join(plain.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


if __name__ == "__main__":
    serve(look)
