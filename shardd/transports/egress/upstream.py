"""Upstream proxies: their URLs, and how a connection is opened through them (HTTP CONNECT, SOCKS5 of RFC 1928 and 1929).

The proxy resolves the host name: that is the point of a proxy per device, and it keeps name look-ups out of this
process.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from shardd.transports.egress.relay import HandshakeError, Side

DEFAULT_PORTS: Final = {"http": 8080, "socks5": 1080}
MAX_HEAD: Final = 16 * 1024
"""Bytes of a proxy's answer to CONNECT."""

# RFC 1928, section 6.
SOCKS_FAILURES: Final = {
    1: "general failure",
    2: "connection not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An upstream proxy; its text never shows the password."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With user and password, for a program that dials by itself."""
        login = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Read `http://[user:password@]host[:port]` or `socks5://…`. Raises ValueError with one sentence for the user."""
    mend = "write http://user:password@host:port or socks5://user:password@host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # What the library says repeats what it takes for the port, which may be a password.
        raise ValueError(f"the proxy URL cannot be read; {mend}") from None
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"the proxy URL begins with another scheme; {mend}")
    if not parts.hostname:
        raise ValueError(f"the proxy URL names no host; {mend}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"the proxy URL has something behind the port; {mend}")
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password or "")
    if scheme == "socks5" and max(len((user or "").encode()), len(password.encode())) > 255:
        raise ValueError("user and password of a socks5 proxy have at most 255 bytes each")
    return Proxy(scheme, parts.hostname, port or DEFAULT_PORTS[scheme], user, password)


async def dial(host: str, port: int, proxy: Proxy | None) -> Side:
    """Open a connection to `host:port`, ready to be joined. Raises OSError or HandshakeError; the caller sets the deadline."""
    loop = asyncio.get_running_loop()
    where = (proxy.host, proxy.port) if proxy else (host, port)
    _, side = await loop.create_connection(Side, *where)
    try:
        if proxy is not None and proxy.scheme == "http":
            await _connect_http(side, host, port, proxy)
        elif proxy is not None:
            await _connect_socks5(side, host, port, proxy)
    except BaseException:
        side.abort()
        raise
    return side


async def _connect_http(side: Side, host: str, port: int, proxy: Proxy) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.user is not None:
        credential = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        head += f"Proxy-Authorization: Basic {credential}\r\n"
    side.write(f"{head}\r\n".encode())
    status = (await side.read_until(b"\r\n\r\n", MAX_HEAD)).split(b"\r\n", 1)[0].decode("latin-1")
    words = status.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 2:
        raise HandshakeError(f"the proxy {proxy} does not speak HTTP")
    if words[1] == "407":
        raise HandshakeError(f"the proxy {proxy} refuses the user or the password (407)")
    if not words[1].startswith("2"):
        raise HandshakeError(f"the proxy {proxy} answered: {' '.join(words[1:])}")


async def _connect_socks5(side: Side, host: str, port: int, proxy: Proxy) -> None:
    methods = b"\x00" if proxy.user is None else b"\x00\x02"
    side.write(bytes([5, len(methods)]) + methods)
    version, method = await side.read_exactly(2)
    if version != 5:
        raise HandshakeError(f"the proxy {proxy} does not speak SOCKS5")
    if method == 2 and proxy.user is not None:
        user, password = proxy.user.encode(), proxy.password.encode()
        side.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await side.read_exactly(2))[1] != 0:
            raise HandshakeError(f"the proxy {proxy} refuses the user or the password")
    elif method != 0:
        raise HandshakeError(f"the proxy {proxy} wants a user and a password")
    name = host.encode("idna")
    side.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
    _, reply, _, kind = await side.read_exactly(4)
    if reply != 0:
        raise HandshakeError(f"the proxy {proxy} answered: {SOCKS_FAILURES.get(reply, f'failure {reply}')}")
    # The address it is bound to: of no use to us, but it has to be read away.
    length = {1: 4, 4: 16}.get(kind) or (await side.read_exactly(1))[0]
    await side.read_exactly(length + 2)
