"""Proxy requests: clients reach the server as their proxy, by HTTP CONNECT or SOCKS5, for whatever host.

Before the login, the user name in the proxy's credential is the only thing that identifies a device: faults of the earlier
stages match it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import NamedTuple

SOCKS_VERSION = 5
_NO_LOGIN, _PASSWORD_LOGIN = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4


class ProxyRequest(NamedTuple):
    """A client's proxy request: target host and port, user name, and the two possible answers."""

    host: str
    port: int
    user: str
    granted: bytes
    refused: bytes


class ProxyRequestError(Exception):
    """The first bytes are neither HTTP CONNECT nor SOCKS5."""


async def read_proxy_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> ProxyRequest:
    """Read a request; the caller answers it with ``granted`` or ``refused``.

    Raises:
        ProxyRequestError: The bytes are not such a request.
        asyncio.IncompleteReadError: The client hung up.
    """
    first = await reader.readexactly(1)
    if first[0] == SOCKS_VERSION:
        return await _read_socks(reader, writer)
    try:
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ProxyRequestError("the request's head is too long") from error
    return _parse_connect(head.decode("latin-1"))


def _parse_connect(head: str) -> ProxyRequest:
    request_line, *header_lines = head.split("\r\n")
    verb, _, rest = request_line.partition(" ")
    host, _, port = rest.partition(" ")[0].rpartition(":")
    if verb != "CONNECT" or not port.isdigit():
        raise ProxyRequestError(f"only CONNECT is served, not {request_line!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
    try:
        credential = base64.b64decode(headers.get("proxy-authorization", "").removeprefix("Basic "), validate=True)
        user = credential.decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ProxyRequestError("the Proxy-Authorization header is not Basic") from error
    return ProxyRequest(host, int(port), user, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n")


async def _read_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> ProxyRequest:
    """RFC 1928 and, if the client offers it, password authentication (RFC 1929), which accepts every password."""
    methods = await _read_counted(reader)
    method = _PASSWORD_LOGIN if _PASSWORD_LOGIN in methods else _NO_LOGIN
    writer.write(bytes((SOCKS_VERSION, method)))
    user = b""
    if method == _PASSWORD_LOGIN:
        await reader.readexactly(1)
        user = await _read_counted(reader)
        await _read_counted(reader)
        writer.write(b"\x01\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == _NAME:
        host = (await _read_counted(reader)).decode()
    elif kind in (_IPV4, _IPV6):
        host = (await reader.readexactly(4 if kind == _IPV4 else 16)).hex()
    else:
        raise ProxyRequestError(f"unknown SOCKS address type {kind}")
    port = int.from_bytes(await reader.readexactly(2), "big")
    answer = bytes((SOCKS_VERSION, 0, 0, _IPV4)) + bytes(6)
    refusal = bytes((SOCKS_VERSION, 5, 0, _IPV4)) + bytes(6)
    return ProxyRequest(host, port, user.decode(), answer, refusal)


async def _read_counted(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly((await reader.readexactly(1))[0])
