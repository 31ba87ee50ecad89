"""Opening connections, directly or through an upstream proxy (HTTP CONNECT, SOCKS5 of RFC 1928 and 1929).

The proxy resolves the host name: that is the purpose of a proxy per device, and it keeps name lookups out of this process.

Libraries that were looked at. python-socks: credentials in ASCII only, a CONNECT answer in one segment only, 1.7 times the CPU of
a dial. h11: it refuses a whole answer for one malformed header, which proxies do send.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Final

from shardd.proxies import Proxy
from shardd.transports.egress.relay import HandshakeError, Side

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
        raise HandshakeError(f"the proxy {proxy} requires a user and a password")
    name = host.encode("idna")
    side.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
    _, reply, _, kind = await side.read_exactly(4)
    if reply != 0:
        raise HandshakeError(f"the proxy {proxy} answered: {SOCKS_FAILURES.get(reply, f'failure {reply}')}")
    # Consume the bound address, which is not used.
    length = {1: 4, 4: 16}.get(kind) or (await side.read_exactly(1))[0]
    await side.read_exactly(length + 2)
