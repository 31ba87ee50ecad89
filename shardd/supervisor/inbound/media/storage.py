"""Where files are: WhatsApp's storage, and Meta's for the Cloud API.

The sender of a message chooses the path at WhatsApp's storage, or the id at Meta's, and nothing else: neither a host nor where a
redirect leads. Meta answers an id with a URL that is valid for five minutes and needs the account's token (its pages "Media API"
and "Media Download API" of the Cloud API), so that must be one of Meta's hosts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from yarl import URL

from shardd.incoming import MediaSource, MetaMedia
from shardd.proxies import Proxy
from shardd.supervisor.inbound.media.sealed import OVERHEAD
from shardd.supervisor.inbound.media.transfer import Add, NotDownloadedError, Server, Transfer

HOST: Final = "mmg.whatsapp.net"
ORIGIN: Final = "https://web.whatsapp.com"
"""Sent by linked devices (whatsmeow, download.go: doMediaDownloadRequest)."""
META_HOSTS: Final = (".fbsbx.com", ".fbcdn.net", ".facebook.com", ".whatsapp.net")
"""Ends of Meta's hosts; its answers name lookaside.fbsbx.com."""
WHATSAPP: Final = Server("WhatsApp's storage", frozenset({403, 404, 410}))
"""Statuses: whatsmeow, errors.go: ErrMediaDownloadFailedWith…."""
META: Final = Server("the Cloud API", frozenset({404, 410}))
MAX_ANSWER: Final = 64 * 1024
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


async def fetch_sealed(transfer: Transfer, source: MediaSource, proxy: Proxy | None, most: int, add: Add) -> None:
    """Pass the encrypted file to `add`, if it is not larger than one of `most` bytes is. Raises NotDownloadedError."""
    url = URL(f"https://{HOST}{source.path}", encoded=True)
    if url.host != HOST:
        raise NotDownloadedError("its path leads to another host", final=True)
    headers = {"Origin": ORIGIN, "Referer": f"{ORIGIN}/"}
    await transfer.get(url, headers, server=WHATSAPP, proxy=proxy, most=most + OVERHEAD, add=add)


async def fetch_from_meta(  # noqa: PLR0917  # like the one above, with the account
    transfer: Transfer, source: MetaMedia, account: Mapping[str, str], proxy: Proxy | None, most: int, add: Add
) -> bytes | None:
    """Pass the file to `add`; returns its SHA-256, if Meta says that. `account`: with base, version and token.

    Raises NotDownloadedError.
    """
    headers = {"Authorization": f"Bearer {account['token']}"}
    base = URL(account["base"])
    answer = bytearray()

    async def collect(data: bytes) -> None:
        answer.extend(data)

    about = URL(f"{account['base']}/{account['version']}/{source.id}", encoded=True)
    await transfer.get(about, headers, server=META, proxy=proxy, most=MAX_ANSWER, add=collect)
    url, size, digest = _read_answer(bytes(answer), base)
    if size > most:
        raise NotDownloadedError(f"it has {size} bytes, more than inbox.media_max_bytes", final=True)
    await transfer.get(url, headers, server=META, proxy=proxy, most=most, add=add)
    return digest


def _read_answer(answer: bytes, base: URL) -> tuple[URL, int, bytes | None]:
    """The file's URL, its bytes (0: not said) and its SHA-256. Raises NotDownloadedError."""
    try:
        about = msgspec.json.decode(answer, type=dict[str, Any])
        url = URL(str(about["url"]), encoded=True)
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
        raise NotDownloadedError(f"{META.name} answered something that is no URL of a file", final=False) from None
    is_metas = url.scheme == "https" and url.port == 443 and (url.host or "").endswith(META_HOSTS)
    if not is_metas and (not url.host or url.origin() != base.origin()):
        raise NotDownloadedError(f"{META.name} names a URL that is not Meta's", final=True)
    size = str(about.get("file_size", ""))
    return url, int(size) if _DIGITS.fullmatch(size) else 0, _digest(about.get("sha256"))


def _digest(text: Any) -> bytes | None:
    """Hexadecimal in this answer, base64 in webhooks."""
    if not isinstance(text, str):
        return None
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return found if len(found) == 32 else None
