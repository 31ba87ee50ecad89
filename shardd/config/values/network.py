"""Values that lead somewhere: databases, proxies, URLs, addresses and hosts.

What a library says about a string that it cannot read may quote a part of the password, so it is never repeated.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shardd.addresses import read_address, read_allowed_host
from shardd.config.values.reader import Listed, RefusedError, Text, accepted_by
from shardd.proxies import parse_proxy

_ESCAPES: Final = "write special characters of user and password as %40 for @, %2F for /, %3A for :, %25 for %"
_DSN_HELP: Final = "write postgresql://user:password@host:5432/database or host=… dbname=… user=…"
_OWN_NETWORK: Final = re.compile(r"[a-z0-9_-]+|.+\.(local|internal|localhost|lan|home\.arpa)", re.IGNORECASE)


def _check_dsn(text: str) -> str:
    """Readable by libpq, and without the mistakes that libpq reports only when it connects."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if not text:
        raise RefusedError(f"is empty; {_DSN_HELP}")
    if scheme and scheme[1] not in {"postgresql", "postgres"}:
        raise RefusedError(f"begins with {scheme[0]}, which is not PostgreSQL's; write postgresql://…")
    try:
        parts = conninfo_to_dict(text)
    except psycopg.Error:
        fix = _ESCAPES if scheme else "put a value with a space in single quotes"
        raise RefusedError(f"cannot be read as a PostgreSQL connection string; {fix}; {_DSN_HELP}") from None
    if scheme and "@" in str(parts.get("host", "")):
        raise RefusedError(f"has more than one @; {_ESCAPES}")
    for port in str(parts.get("port") or "5432").split(","):
        if not _is_port(port):
            raise RefusedError(f"has a port that is not a number from 1 to 65535; {_ESCAPES if scheme else _DSN_HELP}")
    return text


def _check_webhook(text: str) -> str:
    """https, or http within one's own network: an event contains phone numbers, and a signature does not hide them."""
    fix = "write one such as https://crm.example/hooks/shardd"
    parts = _split_url(text, ("http", "https"), "an http or https URL", fix)
    if "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise RefusedError(f"has a user, a fragment or a character that a URL cannot have; {fix}")
    if parts.scheme == "http" and not _is_in_own_network(parts.hostname or ""):
        raise RefusedError(
            "would send phone numbers over the internet unencrypted; write https://… (http is for this host, private "
            "addresses and names without a dot)"
        )
    return text


def _check_platform(text: str) -> str:
    """https, or http on this host: a token goes with every request."""
    fix = "write one such as https://api.example.com"
    parts = _split_url(text, ("http", "https"), "the URL of an HTTP platform", fix)
    if "@" in parts.netloc or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise RefusedError(f"is more than a host and a path; {fix}")
    if parts.scheme == "http" and parts.hostname != "localhost" and not is_loopback(parts.hostname or ""):
        raise RefusedError(f"would send the token unencrypted; write https://{parts.netloc}{parts.path}")
    return text.rstrip("/")


def _check_listen(text: str) -> str:
    """An IP address, so that no name has to be resolved."""
    host, port = split_address(text)
    try:
        ipaddress.ip_address(host)  # with a zone, too, unlike `read_address`
    except ValueError:
        raise RefusedError(f"does not begin with an IP address of this host; write 127.0.0.1:{port}") from None
    return text


DSN: Final = Text(_check_dsn, secret=True)
PLATFORM_URL: Final = Text(_check_platform)
PROXY_URL: Final = Text(accepted_by(parse_proxy), secret=True)

Dsn = Annotated[str, DSN]
"""A PostgreSQL database: a `postgresql://` URL or `key=value` pairs, as libpq reads them."""
ProxyUrl = Annotated[str, PROXY_URL]
"""`http://user:password@host:port` or `socks5://…`."""
WebhookUrl = Annotated[str, Text(_check_webhook, secret=True)]
"""The receiver of a webhook; secret, because the path of such a URL is often a key."""
PlatformUrl = Annotated[str, PLATFORM_URL]
"""An HTTP platform: `https://host[:port][/path]`, without a slash at its end."""
ListenAddress = Annotated[str, Text(_check_listen)]
"""`127.0.0.1:8080`: an IP address of this host, and a port."""
MediaHosts = Annotated[tuple[str, ...], Listed(Text(accepted_by(read_allowed_host)), most=200)]
"""Host names, addresses and networks, each with or without a port."""


def split_address(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port` or `[v6]:port`. Raises RefusedError."""
    host, _, port = text.rpartition(":")
    if not _is_port(port) or ":" not in text:
        raise RefusedError("is not an address with a port from 1 to 65535; write 127.0.0.1:9464")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise RefusedError("is an IPv6 address without brackets; write [::1]:9464")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether this is an IP address that only this host can reach."""
    address = read_address(host)
    return address is not None and address.is_loopback


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def _is_in_own_network(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _OWN_NETWORK.fullmatch(host) is not None
    return address.is_private or address.is_link_local


def _split_url(text: str, schemes: Collection[str], what: str, fix: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedError(f"is not a URL with a port from 1 to 65535; {fix}") from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise RefusedError(f"is not {what}; {fix}")
    return parts
