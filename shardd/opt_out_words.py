"""Whether a message is an opt-out.

An opt-out is final, so the whole message must be one of the words; only case, accents, punctuation, emoji and a "please" before
or after it are ignored. A question is not an opt-out, and neither is "don't stop".
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

    def __init__(self, words: Iterable[str]) -> None:
        """`words`: single words or short phrases in any spelling; one without a letter or a digit never matches."""
        self._wanted = frozenset(filter(None, (plain(word) for word in words)))

    def ask_to_stop(self, text: str) -> bool:
        """Whether the message is an opt-out."""
        if not self._wanted or len(text) > MOST or _QUESTION.search(text := unicodedata.normalize("NFKC", text)):
            return False
        words = plain(text)
        return words in self._wanted or _AROUND.sub("", words) in self._wanted


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
