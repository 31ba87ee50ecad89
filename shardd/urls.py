"""URLs without their secrets, for errors, logs and events: no user, password, query or fragment.

A password precedes the @, a signature is in the query, and every producer may read the error of a job. So each URL that becomes
part of a text passes through this module, and so does each text of a library that may contain one.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

MAX_SHOWN: Final = 120
"""Characters of a URL."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# A URL inside a text, also escaped as in JSON (https:\/\/…). It ends where the libraries that quote one end it.
_IN_TEXT: Final = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){2}[^\s"'<>]+""")


def safe_url(source: str) -> str:
    """A URL, data: URI or path, short, on one line, and without anything that may be secret."""
    scheme = match[0] if (match := _SCHEME.match(source)) else ""
    if scheme.lower() == "data:":
        return _short(f"{source.split(',', 1)[0]},…")
    bare = re.split(r"[?#]", source, maxsplit=1)[0]
    if bare[len(scheme) :].startswith("//"):
        try:
            parts = urlsplit(bare)
            parts.port  # noqa: B018 - reading it checks it: "user:pass/word@host" has the port "pass"
        except ValueError:
            return f"{_short(scheme)}//…"
        # "user/name:password@host" has the host "user".
        path = "/…" if ":" in parts.path.rpartition("@")[0] else parts.path
        return _short(f"{scheme}//{parts.netloc.rpartition('@')[2]}{path}")
    rest = bare[len(scheme) :]
    if "@" in rest and (scheme or ":" in rest.rpartition("@")[0]):
        # Cannot be fetched, but may be a URL that lost its slashes.
        return _short(f"{scheme}…{rest.rpartition('@')[2]}")
    return _short(bare)


def scrub_urls(text: str) -> str:
    """A text from a library or a peer, with each URL in it as `safe_url` shows it."""
    return _IN_TEXT.sub(lambda match: safe_url(match[0].replace("\\/", "/")), text)


def _short(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else "�" for sign in text[: MAX_SHOWN + 1])
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"
