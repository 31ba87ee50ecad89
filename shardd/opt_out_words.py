"""Whether a message is an opt-out, or takes one back.

Neither is easily undone, so the whole message must be one of the words; only case, accents, punctuation, emoji and a "please"
before or after it are ignored. A question is neither, and "don't stop" is not an opt-out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

MOST: Final = 200
"""Characters; a longer message contains something else."""

_POLITE: Final = (
    "please, pls, thanks, thank you, tolong, mohon, terima kasih, makasih, bitte, danke, por favor, gracias, obrigado, obrigada, "
    "s'il vous plaît, s'il te plaît, svp, stp, merci, per favore, grazie, alstublieft, alsjeblieft, aub, bedankt, "
    "пожалуйста, спасибо, من فضلك, لو سمحت, شكرا, कृपया, धन्यवाद"
)
"""What people add to a request."""
_QUESTION: Final = re.compile("[?\u061f\u037e]")
_ACCENTS: Final = re.compile("[\u0300-\u036f\u0640\u064b-\u0655]")
"""Of Latin, Greek, Cyrillic and Arabic letters; people often leave them out."""
_DOTLESS_I: Final = "\u0131"
"""Turkish; its capital is the ordinary I."""
_PRESENTATION: Final = re.compile("[\ufe00-\ufe0f]")
"""Variation selectors: whether a character is shown as text or as emoji."""


class OptOutWords:
    """The words, prepared for comparison with messages."""

    def __init__(self, words: Iterable[str], take_back: Iterable[str] = ()) -> None:
        """`words`: single words or short phrases in any spelling; one without a letter or a digit never matches.

        `take_back`: those by which people take their opt-out back.
        """
        self._stop = _prepared(words)
        self._take_back = _prepared(take_back)

    def ask_to_stop(self, text: str) -> bool:
        """Whether the message is an opt-out."""
        return _is_one_of(self._stop, text)

    def ask_to_start(self, text: str) -> bool:
        """Whether the message takes an opt-out back."""
        return _is_one_of(self._take_back, text)


def _prepared(words: Iterable[str]) -> frozenset[str]:
    return frozenset(filter(None, (plain(word) for word in words)))


def _is_one_of(wanted: frozenset[str], text: str) -> bool:
    if not wanted or len(text) > MOST or _QUESTION.search(text := unicodedata.normalize("NFKC", text)):
        return False
    words = plain(text)
    return words in wanted or _AROUND.sub("", words) in wanted


def plain(text: str) -> str:
    """The words of a text in lower case, without accents, separated by single spaces."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    letters = unicodedata.normalize("NFC", _PRESENTATION.sub("", _ACCENTS.sub("", folded)))
    return " ".join("".join(map(_letter, letters.replace(_DOTLESS_I, "i"))).split())


def _letter(sign: str) -> str:
    kind = unicodedata.category(sign)
    if kind[0] in "LNM":
        return sign
    # A joiner occurs within a word.
    return "" if kind == "Cf" else " "


_PHRASES: Final = "|".join(sorted(map(plain, _POLITE.split(", ")), key=len, reverse=True))
_AROUND: Final = re.compile(rf"^(?:(?:{_PHRASES}) )+|(?: (?:{_PHRASES}))+$")
