"""Requests to the running supervisor, over its control socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from shardd.errors import NotRunningError, SharddError, UsageError

TIMEOUT: Final = 5.0
"""Seconds for an answer that needs no work."""


async def ask(socket: Path, method: str, path: str, *, timeout: float = TIMEOUT) -> Any:
    """The decoded answer. Raises NotRunningError without an answer; UsageError or SharddError when the request is refused."""
    import aiohttp  # noqa: PLC0415  # half of the start-up time of a command that sends no request

    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=limit) as session,
            session.request(method, f"http://shardd{path}") as response,
        ):
            answer = await response.json()
    except TimeoutError as error:
        raise SharddError(f"shardd at {socket} did not answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PermissionError):
            raise SharddError(
                f"{socket}: permission denied: run this as root, as the user that runs shardd, or, with `control.group`, as a "
                "member of its group"
            ) from error
        raise NotRunningError(f"no shardd answers at {socket}: is it running with this config?") from error
    if response.status == 400:
        raise UsageError(answer["error"])
    if response.status != 200:
        raise SharddError(answer.get("error", f"shardd answered {response.status}"))
    return answer


def ask_now(socket: Path, method: str, path: str) -> Any:
    """`ask` from a program without an event loop."""
    return asyncio.run(ask(socket, method, path))
