"""How values are read that only webhooks have: names, URLs, secrets and kinds of events."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from shardd.config.values import Listed, Reader, RefusedError, closest
from shardd.event_kinds import EventKind, names_a_kind

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret; none itself
_SECRET_BYTES: Final = (24, 64)
_URL_HELP: Final = "write one such as https://crm.example/hooks/shardd"
_OWN_NETWORK: Final = re.compile(r"[a-z0-9_-]+|.+\.(local|internal|localhost|lan|home\.arpa)", re.IGNORECASE)


@dataclass(frozen=True)
class WebhookName(Reader):
    """What a webhook is called in `shardd webhook list`, in logs and in the database."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The name."""
        return text

    def check(self, value: Any) -> Any:
        """A short word."""
        if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", value):
            return value
        raise RefusedError("is not a name (a-z, 0-9, '_', '-', at most 40 characters); write one such as crm")


@dataclass(frozen=True)
class WebhookUrl(Reader):
    """Where a program is told; nobody else may see it, because the path of such a URL is often a key."""

    secret = True

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The URL."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """https, or http inside one's own network: what is told holds phone numbers, and a signature does not hide them."""
        try:
            parts = urlsplit(value)
            port = parts.port
        except (ValueError, AttributeError):
            raise RefusedError(f"is not a URL with a port from 1 to 65535; {_URL_HELP}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
            raise RefusedError(f"is not the URL of a program; {_URL_HELP}")
        if "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[!-~]+", value):
            raise RefusedError(f"has a user, a fragment or a character that a URL cannot have; {_URL_HELP}")
        if parts.scheme == "http" and not _in_own_network(parts.hostname):
            raise RefusedError(
                "would send phone numbers over the internet for everybody to read; write https://… (http is for this host, "
                "private addresses and names without a dot)"
            )
        return value


def _in_own_network(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _OWN_NETWORK.fullmatch(host) is not None
    return address.is_private or address.is_link_local


@dataclass(frozen=True)
class WebhookSecret(Reader):
    """`whsec_` and the key in base64, as Standard Webhooks writes it."""

    secret = True

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The secret."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """Of a length that nobody guesses."""
        try:
            key = webhook_key(value) if value.startswith(SECRET_PREFIX) else b""
        except binascii.Error:
            key = b""
        low, high = _SECRET_BYTES
        if not low <= len(key) <= high:
            raise RefusedError(
                f"is not {SECRET_PREFIX} and {low} to {high} random bytes in base64; make one with: "
                f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)", and write it as ${{NAME}}'
            )
        return value


def webhook_key(secret: str) -> bytes:
    """The key in a secret. Raises binascii.Error."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


@dataclass(frozen=True)
class Kinds(Listed):
    """Kinds of events, such as `job.*, device.state`, or the same as a list; in Python a tuple."""

    def check(self, value: Any) -> Any:
        """Each fits something that can happen."""
        for kind in value:
            if not names_a_kind(kind):
                near = closest(kind.lower(), list(EventKind))
                raise RefusedError(
                    f"has {kind or 'nothing'} in it, which fits no event; write {near or 'job.*, or one of'}"
                    f"{'' if near else ' ' + ', '.join(EventKind)}"
                )
        if len(value) > len(EventKind):
            raise RefusedError("names more kinds than there are; write * for all")
        return value
