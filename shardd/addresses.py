"""Which IP addresses are the internet's, and which hosts an operator allows besides.

`ipaddress.is_global` is not enough: it takes multicast, 6to4, Teredo's relatives and IPv4-compatible addresses for global, looks
into mapped addresses only in newer versions of Python, and changes with them. So the special blocks stand here
as IANA lists them (iana-ipv4-special-registry, iana-ipv6-special-registry), and `is_global` is asked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The first block that an address lies in names it.
_IPV4: Final = tuple(
    (IPv4Network(block), what)
    for block, what in (
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "a reserved address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a private address (carrier-grade NAT)"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a reserved address"),
        ("192.88.99.0/24", "a reserved address"),  # 6to4 relays
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a reserved address"),
        ("198.51.100.0/24", "a reserved address"),
        ("203.0.113.0/24", "a reserved address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)
_IPV6: Final = tuple(
    (IPv6Network(block), what)
    for block, what in (
        ("::/128", "the unspecified address"),
        ("::1/128", "a loopback address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),  # Teredo and other protocols
        ("2001:db8::/32", "a reserved address"),
        ("2002::/16", "a reserved address"),  # 6to4, which holds an IPv4 address
        ("3fff::/20", "a reserved address"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_address(text: str) -> Address | None:
    """The address that `text` is in its usual spelling, or None. One with a zone (fe80::1%eth0) is none for us."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def reached(address: Address) -> Address:
    """The address that a connect reaches: the IPv4 address in a mapped (::ffff:…) or NAT64 one (64:ff9b::…), else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def why_not_public(address: Address) -> str | None:
    """What an address is that is not one of the internet, in words (`a loopback address`), or None."""
    address = reached(address)
    blocks: tuple[tuple[Network, str], ...] = _IPV4 if isinstance(address, IPv4Address) else _IPV6
    if what := next((what for block, what in blocks if address in block), None):
        return what
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    return "a reserved address" if outside or not address.is_global or address.is_multicast else None


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry: a host name or a network, and maybe the only port."""

    name: str | None
    network: Network | None
    port: int | None = None


def read_allowed_host(text: str) -> AllowedHost:
    """Read `name`, `name:port`, an address, `address:port`, `[IPv6]:port`, or a network. Raises ValueError, in words."""
    host, port = text.strip().lower(), None
    if match := re.fullmatch(r"\[([^\]]*)\](?::([0-9]{1,5}))?|([^:]+):([0-9]{1,5})", host):
        host, digits = match[1] or match[3] or "", match[2] or match[4]
        port = int(digits) if digits else None
        if port is not None and not 0 < port < 65536:
            raise ValueError("has a port that is not from 1 to 65535")
    if "/" in host or read_address(host) is not None:
        try:
            network = ip_network(host)
        except ValueError:
            raise ValueError(
                "is not a network; write one such as 10.20.0.0/16, without bits behind its length"
            ) from None
        return AllowedHost(None, network, port)
    if re.fullmatch(r"[0-9.]+|0x[0-9a-fx.]*|.*[\[\]%].*", host) or not re.fullmatch(
        r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", host
    ):
        raise ValueError(
            "is neither a host name nor an address nor a network; write one such as media.internal or 10.20.0.5"
        )
    return AllowedHost(host, None, port)


class AllowedHosts:
    """The hosts that may be reached although their addresses are not public."""

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
