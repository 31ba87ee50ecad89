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
    if scheme and "@" in text.partition("://")[2].partition("/")[2].partition("?")[0]:
        # libpq would take the end of the password for the host, and the rest for the name of the database.
        raise RefusedError(f"has an @ behind a /; {_ESCAPES}")
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


def _listen(port: int) -> Text:
    """An IP address, so that no name has to be resolved, and a port; `port`: one for errors."""

    def check(text: str) -> str:
        try:
            host, _ = split_address(text)
            ipaddress.ip_address(host)  # with a zone, too, unlike `read_address`
        except ValueError:
            meant = _meant_address(text, port)
            fault = "does not begin with an IP address of this host" if ":" in text else "is not an address with a port"
            raise RefusedError(f"{fault}; write {meant}") from None
        return text

    return Text(check)


def _meant_address(text: str, port: int) -> str:
    """The address of this host that is nearest to what somebody wrote; in quotes, if YAML needs them."""
    text = re.sub(r"^[a-z]+://|[/?#].*$", "", text, flags=re.IGNORECASE)
    host, _, digits = text.rpartition(":")
    if _is_port(text):
        host, digits = "", text
    elif not _is_port(digits) or ":" not in text or (host.endswith(":") and _address(text)):
        host, digits = text, str(port)
    address = _address("0.0.0.0" if host == "*" else host.strip("[]")) or _address("127.0.0.1")  # noqa: S104  # what * means
    return f'"[{address}]:{digits}"' if ":" in str(address) else f"{address}:{digits}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


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
DashboardAddress = Annotated[str, _listen(8484)]
"""Where the dashboard listens: an IP address and a port."""
MetricsAddress = Annotated[str, _listen(9464)]
"""`127.0.0.1:9464`: an IP address of this host, and a port."""
CloudWebhookAddress = Annotated[str, _listen(8081)]
PathWebhookAddress = Annotated[str, _listen(8082)]
MediaHosts = Annotated[
    tuple[str, ...], Listed(Text(accepted_by(read_allowed_host)), most=200, like="media.internal, 10.20.0.0/16")
]
"""Host names, addresses and networks, each with or without a port."""


def split_address(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port` or `[v6]:port`. Raises RefusedError."""
    host, _, port = text.rpartition(":")
    if not _is_port(port) or ":" not in text or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise RefusedError("is not an address with a port from 1 to 65535; write one such as 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether this is an IP address that only this host can reach."""
    address = read_address(host)
    return address is not None and address.is_loopback


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def _is_in_own_network(host: str) -> bool:
    address = _address(host)
    if address is None:
        return _OWN_NETWORK.fullmatch(host) is not None
    return address.is_private or address.is_link_local


def _split_url(text: str, schemes: Collection[str], what: str, fix: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedError(f"is not a URL with a port from 1 to 65535; {fix}") from None
    if "://" not in text and re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?(/[!-~]*)?", text):
        raise RefusedError("has no scheme; write https:// in front of it")  # without the value, which may be secret
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise RefusedError(f"is not {what}; {fix}")
    return parts
