"""Which IP addresses are public, and which other hosts an operator allows.

`ipaddress.is_global` is not enough: it counts multicast, 6to4, relatives of Teredo and IPv4-compatible addresses as global,
looks into mapped addresses only in newer versions of Python, and changes with them. So the special blocks are listed here as
IANA does (iana-ipv4-special-registry, iana-ipv6-special-registry), and `is_global` is checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_BLOCKS: Final = tuple(
    (ip_network(block), what)
    for what, blocks in {
        "the unspecified address": "0.0.0.0/32 ::/128",
        "a loopback address": "127.0.0.0/8 ::1/128",
        "a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
        "a private address (carrier-grade NAT)": "100.64.0.0/10",
        "a link-local address": "169.254.0.0/16 fe80::/10",
        "a multicast address": "224.0.0.0/4 ff00::/8",
        # Among them 6to4 (192.88.99.0/24, 2002::/16), Teredo and other protocols (2001::/23).
        "a reserved address": "0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
        "240.0.0.0/4 2001::/23 2001:db8::/32 2002::/16 3fff::/20",
    }.items()
    for block in blocks.split()
)
"""The special blocks, and the name of an address in them; the first one counts."""
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_address(text: str) -> Address | None:
    """The address in `text`, or None, also for one with a zone (fe80::1%eth0)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def read_peer(text: str) -> Address | None:
    """The address of a peer, or of an entry of X-Forwarded-For, which may have a port (203.0.113.9:4711, [2001:db8::1]:99).

    A socket that takes both kinds shows an IPv4 peer as ::ffff:203.0.113.9: that is read as the IPv4 address.
    """
    if match := re.fullmatch(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", text):
        text = match[1] or match[2] or ""
    address = read_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def reached(address: Address) -> Address:
    """The address that a connect reaches: the IPv4 address in a mapped (::ffff:…) or NAT64 one (64:ff9b::…), else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def why_not_public(address: Address) -> str | None:
    """The kind of an address that is not public, in words (`a loopback address`); None for a public one."""
    address = reached(address)
    if what := next((what for block, what in _BLOCKS if address in block), None):
        return what
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    return "a reserved address" if outside or not address.is_global or address.is_multicast else None


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry: a host name or a network, perhaps for one port only."""

    name: str | None
    network: Network | None
    port: int | None = None


def read_allowed_host(text: str) -> AllowedHost:
    """Read `name`, `name:port`, an address, `address:port`, `[IPv6]:port`, or a network.

    Raises ValueError whose text continues `VALUE …`.
    """
    host, port = text.strip().lower(), None
    if match := re.match(r"[a-z][a-z0-9+.-]*://([^/?#@]*)", host):
        # With an @, a part of it may be a password.
        fix = match[1] if match[1] and "@" not in host else "its host alone, such as media.internal"
        raise ValueError(f"is a URL; write {fix}")
    if match := re.fullmatch(r"\[([^\]]*)\](?::([0-9]{1,5}))?|([^:]+):([0-9]{1,5})", host):
        host, digits = match[1] or match[3] or "", match[2] or match[4]
        port = int(digits) if digits else None
        if port is not None and not 0 < port < 65536:
            raise ValueError("has a port that is not from 1 to 65535; write one such as media.internal:9000")
    if "/" in host or read_address(host) is not None:
        try:
            network = ip_network(host)
        except ValueError:
            raise ValueError(_not_a_network(host)) from None
        return AllowedHost(None, network, port)
    if re.fullmatch(r"[0-9.]+|0x[0-9a-fx.]*|.*[\[\]%].*", host) or not re.fullmatch(
        r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", host
    ):
        raise ValueError(
            "is neither a host name nor an address nor a network; write one such as media.internal or 10.20.0.5"
        )
    return AllowedHost(host, None, port)


def _not_a_network(text: str) -> str:
    try:
        return f"is an address in a network; write {ip_network(text, strict=False)}, or {text.partition('/')[0]}"
    except ValueError:
        pass
    host = text.partition("/")[0]
    if re.fullmatch(r"(?=.*[a-z])[a-z0-9.-]+(:[0-9]+)?", host):
        return f"is a host with a path; write {host}"
    return "is not a network; write one such as 10.20.0.0/16"


class AllowedHosts:
    """Hosts that may be reached although their addresses are not public."""

    def __init__(self, entries: Iterable[str]) -> None:
        """`entries` as `read_allowed_host` reads them. Raises ValueError."""
        self._entries = [read_allowed_host(entry) for entry in entries]

    def allow(self, host: str, port: int, address: Address) -> bool:
        """Whether an entry names this host or its address, and this port."""
        name = host.lower().rstrip(".")
        real = reached(address)
        return any(
            entry.port in {None, port}
            and (
                entry.name == name
                or (entry.network is not None and (real in entry.network or address in entry.network))
            )
            for entry in self._entries
        )
