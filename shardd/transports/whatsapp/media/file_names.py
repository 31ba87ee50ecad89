"""The name under which the recipient sees a file: no part of a path, nothing invisible.

pathvalidate and werkzeug were looked at: the one keeps marks that turn the direction of text, the other drops what is not ASCII.
"""

from __future__ import annotations

import unicodedata
import warnings
from email.message import Message
from typing import Final
from urllib.parse import unquote

from aiohttp.multipart import content_disposition_filename, parse_content_disposition

MAX_BYTES: Final = 200
"""Of a name in UTF-8: what every file system accepts, with room for a phone's own suffix."""
MAX_SUFFIX: Final = 16
_JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible, but part of words in some languages and of many emoji."""
_DROPPED: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Control characters, marks that turn the direction of text, and non-characters."""


def safe_name(text: str) -> str | None:
    """`text` as a file name of bounded length; None when nothing is left."""
    plain = "".join(
        sign for sign in text[: 4 * MAX_BYTES] if sign in _JOINERS or unicodedata.category(sign) not in _DROPPED
    )
    name = " ".join(plain.replace("/", "_").replace("\\", "_").split()).strip(" .")
    if len(name.encode()) <= MAX_BYTES:
        return (name.strip("\u200c\u200d") and name) or None
    stem, dot, suffix = name.rpartition(".")
    kept = f"{dot}{suffix}" if stem and len(suffix.encode()) <= MAX_SUFFIX else ""
    return name.encode()[: MAX_BYTES - len(kept.encode())].decode(errors="ignore").rstrip(" .") + kept


def disposition_name(header: str) -> str | None:
    """The name in a Content-Disposition (RFC 6266), `filename*` before `filename`; malformed headers are tolerated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, parameters = parse_content_disposition(header)
        name = content_disposition_filename(parameters)
    if name is None:
        # aiohttp is strict; this accepts names without quotes and headers without a type.
        message = Message()
        message["Content-Disposition"] = header
        name = message.get_filename()
    return safe_name(_last_part(_as_written(name))) if name else None


def path_name(path: str) -> str | None:
    """The name at the end of a path, percent-encoded or not."""
    return safe_name(_last_part(unquote(path)))


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _as_written(name: str) -> str:
    """Header bytes that are not UTF-8 arrive as surrogates; they are Latin-1, as HTTP once prescribed."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name
