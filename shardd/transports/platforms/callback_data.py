"""The text that Meta repeats in every status of a message: it names the claim with which the message was posted. Pure."""

from __future__ import annotations

import re
from typing import Final

from shardd.ipc import ClaimKey

_FORM: Final = re.compile(r"shardd:([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,9}):(-?[0-9]{1,19})", re.ASCII)


def callback_data(key: ClaimKey) -> str:
    """At most 80 characters; Meta allows 512."""
    return "shardd:" + ":".join(map(str, key))


def claim_of(text: object) -> ClaimKey | None:
    """The claim that is named, or None: the text is not from here."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    job, epoch, attempt, token = map(int, match.groups())
    largest = 2**63
    return (job, epoch, attempt, token) if max(job, epoch) < largest and -largest <= token < largest else None
