"""What an error repeats of the names and values that somebody sent: enough to recognize them, however long they are."""

from __future__ import annotations

import re
from typing import Final

LONGEST_WORD: Final = 100
"""Characters; no id that exists is longer."""
SHOWN: Final = 80
"""Those of a longer word that are shown."""
LONGEST: Final = 2000
"""Characters of an error."""
_LONG_WORD: Final = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def brief(text: str) -> str:
    """The text of an error without the rest of long words; of one that is still long, its begin, and its end with the fix."""
    text = _LONG_WORD.sub(lambda word: f"{word[0][:SHOWN]}…", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
