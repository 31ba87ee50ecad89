"""Requests to the running supervisor, over its control socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM
from socket import socket as _Caller  # noqa: N812  # `socket` is the path of one here
from typing import Any, Final

from shardd.errors import ConfigError, NotRunningError, NotStartedError, SharddError, UnreachableError, UsageError

OK: Final = 200
UNAVAILABLE: Final = 503
"""The daemon is starting."""
CONFIG_REFUSED: Final = 422
"""The daemon read its config file again, and refused it."""
TIMEOUT: Final = 5.0
"""Seconds for an answer that needs no work."""


async def ask(socket: Path, method: str, path: str, *, timeout: float = TIMEOUT) -> Any:
    """The decoded answer.

    Raises NotRunningError when nobody takes the request, UnreachableError when it is not answered in time, and NotStartedError,
    UsageError, ConfigError or SharddError when it is refused.
    """
    import aiohttp  # noqa: PLC0415  # half of the start-up time of a command that sends no request

    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=limit) as session,
            session.request(method, f"http://shardd{path}") as response,
        ):
            answer = await response.json()
    except TimeoutError as error:
        raise UnreachableError(f"shardd at {socket} did not answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PermissionError):
            raise SharddError(
                f"{socket}: permission denied: run this as root, as the user that runs shardd, or, with `control.group`, as a "
                "member of its group"
            ) from error
        raise NotRunningError(f"no shardd answers at {socket}: is it running with this config?") from error
    if response.status == 400:
        raise UsageError(answer["error"])
    if response.status == CONFIG_REFUSED:
        raise ConfigError(answer["error"])
    if response.status == UNAVAILABLE:
        raise NotStartedError(answer["error"])
    if response.status != OK:
        raise SharddError(answer.get("error", f"shardd answered {response.status}"))
    return answer


def glance(socket: Path) -> Any:
    """The status of the daemon, decoded; None without one. Blocks for a moment, and costs a tenth of `ask`'s imports."""
    import http.client  # noqa: PLC0415  # many commands never ask
    import json  # noqa: PLC0415

    with _Caller(AF_UNIX, SOCK_STREAM) as caller:
        caller.settimeout(TIMEOUT)
        try:
            caller.connect(str(socket))
            caller.sendall(b"GET /status HTTP/1.1\r\nHost: shardd\r\nConnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(caller)
            answer.begin()
            return json.loads(answer.read()) if answer.status == OK else None
        except (OSError, ValueError, http.client.HTTPException):
            return None


def ask_now(socket: Path, method: str, path: str) -> Any:
    """`ask` from a program without an event loop."""
    return asyncio.run(ask(socket, method, path))
