"""The first link of a text, where a phone makes one.

A link begins with http:// or https:// in any case, or with `www.`, not after a Latin letter or a digit. It ends
before white space, quotes, invisible characters and the closing punctuation of Chinese and Japanese, and does not include
punctuation that ends a sentence or a parenthesis that the link did not open. Marks that make a text bold or italic on WhatsApp
(*…*, _…_, ~…~) do not belong to the link that they surround.

linkify-it-py was looked at: it does not know these marks, so it misses `_https://…_` and includes the last mark of `*https://…*`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from yarl import URL

MOST: Final = 2048
"""Characters of a link that is previewed."""

_INVISIBLE: Final = "\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
_QUOTES: Final = '<>"`\u00ab\u00bb\u2018-\u201f\u2039\u203a'
_EAST_ASIAN: Final = "\u3001\u3002\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\uff62\uff63"
_LINK: Final = re.compile(
    rf"(?<![a-z0-9])(?:https?://|www\.(?=[^\W_]))[^\s{_INVISIBLE}{_QUOTES}{_EAST_ASIAN}]+",
    re.IGNORECASE,
)
_ENDS: Final = frozenset(".,:;!?'\u2026")
_BRACKETS: Final = {")": "(", "]": "[", "}": "{"}
_MARKS: Final = "*_~"


@dataclass(frozen=True, slots=True)
class Link:
    """`text`: as it is in the message; `url`: what is fetched, without fragment, the same for all spellings."""

    text: str
    url: str


def find_link(text: str) -> Link | None:
    """The first link of a text; None without one, or if it names a user or password, which a server must not get unasked."""
    for found in _LINK.finditer(text):
        link = _trim(found[0], text[max(0, found.start() - len(_MARKS)) : found.start()])
        url = _read(link)
        if url is not None:
            has_secret = url.user is not None or url.password is not None
            return None if has_secret else Link(link, str(url.with_fragment(None)))
    return None


def _trim(link: str, before: str) -> str:
    """`before`: the characters in front of it, as many as there are marks."""
    around = set(before[len(before.rstrip(_MARKS)) :])
    unopened = {close: link.count(close) - link.count(open_) for close, open_ in _BRACKETS.items()}
    end = len(link)
    while end:
        last = link[end - 1]
        if unopened.get(last, 0) > 0:
            unopened[last] -= 1
        elif last not in _ENDS and last not in around:
            break
        end -= 1
    return link[:end]


def _read(link: str) -> URL | None:
    if len(link) > MOST:
        return None
    try:
        url = URL(link if link[:4].lower() == "http" else f"https://{link}")
        return url if url.host and url.host.strip(".") and url.port else None
    except ValueError:
        return None
