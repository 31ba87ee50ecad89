"""What a request says about where it comes from: which name it asks for, from which page, from which address, on whose behalf.

A browser lets any page send requests to us. What it truthfully says about them are `Host`, `Origin` and `Sec-Fetch-Site`: no
script of a page can set these headers.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from shardd.addresses import read_address, read_peer
from shardd.config.dashboard import USER_NAME
from shardd.supervisor.admin.dashboard import Access

FORWARDED_FOR: Final = "X-Forwarded-For"
_UNKNOWN: Final = "?"


class NobodyError(Exception):
    """The proxy names a user in a way that names nobody; the text is for the page."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Judges requests by the config."""

    access: Access
    _proxies: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = field(init=False, default_factory=list)
    _origin_host: str | None = field(init=False)

    def __post_init__(self) -> None:
        self._proxies.extend(ipaddress.ip_network(peer) for peer in self.access.trusted_proxies)
        object.__setattr__(self, "_origin_host", urlsplit(self.access.origin).netloc if self.access.origin else None)

    def asks_for_another(self, request: web.Request) -> str | None:
        """The name that a request asks for, if it is none of ours.

        Another site's name may be made to lead here (DNS rebinding); its pages could then read ours. An address cannot.
        """
        hosts = [request.headers.get("Host", "")]
        scheme, is_whole, rest = request.raw_path.partition("://")
        if is_whole and "/" not in scheme:
            hosts.append(rest.partition("/")[0])  # which counts in place of `Host` (RFC 9112, 3.2.2)
        for host in hosts:
            name = _name_of(host)
            if host != self._origin_host and name != "localhost" and read_address(name) is None:
                return name[:100].encode(errors="replace").decode() or "(none)"
        return None

    def is_from_another_page(self, request: web.Request, *, must_say: bool = False) -> bool:
        """Whether it was a page of another site that sent this. `must_say`: a request that does not say it counts as such."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None and site != "same-origin":
            return True
        if origin is None:
            return must_say and site is None
        return origin != self._own_origin(request)

    def is_encrypted(self, request: web.Request) -> bool:
        """Whether the browser sees https, so that it keeps a cookie only for that."""
        return self._own_origin(request).startswith("https:")

    def cookie(self, request: web.Request) -> str:
        """The name of our cookie. Without https it has the port: several nodes may be localhost, which share their cookies."""
        if self.is_encrypted(request):
            return "__Host-shardd"  # no other host, and nothing without https, can set one of this name
        host = request.headers.get("Host", "")
        return f"shardd-{urlsplit(f'//{host}').port or 80}"

    def address(self, request: web.Request) -> str:
        """Of the browser: the peer, or whom the trusted proxies in front of it forward for."""
        address = _peer(request)
        ahead = [one.strip() for line in request.headers.getall(FORWARDED_FOR, ()) for one in line.split(",")]
        while self._is_proxy(address) and ahead:
            forwarded = read_peer(ahead.pop())
            if forwarded is None:
                break
            address = str(forwarded)
        return address

    def named_by_proxy(self, request: web.Request) -> str | None:
        """The user whom a trusted proxy names; None: it names nobody. Raises NobodyError."""
        header = self.access.trusted_header
        if header is None or not self._is_proxy(_peer(request)):
            return None
        named = request.headers.getall(header, ())
        if not named or named == [""]:
            return None
        if len(named) > 1:
            raise NobodyError(f"The proxy sent {header} {len(named)} times: let it replace what a browser sends.")
        if not USER_NAME.fullmatch(named[0]):
            raise NobodyError(
                f"The proxy sent {header} without the name of a user: letters, digits and . _ @ + -, at most 64."
            )
        return named[0]

    def _own_origin(self, request: web.Request) -> str:
        host = request.headers.get("Host", "")
        return self.access.origin if self.access.origin and host == self._origin_host else f"http://{host}"

    def _is_proxy(self, address: str) -> bool:
        found = read_address(address)
        if found is None:
            return False
        # A proxy may be listed as it shows on a socket that takes both kinds.
        forms = [found, ipaddress.ip_address(f"::ffff:{found}")] if found.version == 4 else [found]
        return any(form in network for form in forms for network in self._proxies)


def _peer(request: web.Request) -> str:
    found = read_peer(request.remote or "")
    return (request.remote or _UNKNOWN) if found is None else str(found)


def _name_of(host: str) -> str:
    """Without the port, and without the brackets of an IPv6 address; empty: it is neither a name nor an address."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""
