"""What this node's supervisor says: its status, read at most once a second however many look, and what it is asked to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from shardd.config import PacingConfig
from shardd.control_client import TIMEOUT, ask
from shardd.errors import NotRunningError, SharddError, UnreachableError, UnsureError
from shardd.supervisor.admin.node_settings import NodeSettings
from shardd.supervisor.status import Status

FRESH: Final = 1.0
"""Seconds for which a status is shown again; and for which nobody asks again after there was none."""
SETTINGS_FRESH: Final = 5.0
"""Seconds for which its settings are used again: a reload may change them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the node said, and its pacing as the config has it."""

    node: NodeSettings
    pacing: PacingConfig

    @property
    def warm_days(self) -> int:
        """How many days of sending must be known of a device."""
        return len(self.pacing.warm_up or ())


class SupervisorClient:
    """Asks the control socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._status: Status | SharddError | None = None
        self._read_at = float("-inf")
        self._settings: Settings | None = None
        self._settings_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def status(self) -> Status:
        """The node's status. Raises SharddError."""
        async with self._one_at_a_time:
            if self._status is None or time.monotonic() > self._read_at + FRESH:
                self._status = await self._read_status()
                self._read_at = time.monotonic()
            if isinstance(self._status, SharddError):
                raise self._status.with_traceback(None)
            return self._status

    async def settings(self) -> Settings:
        """What the config in effect says of devices. Raises SharddError, unless it answered before."""
        if self._settings is None or time.monotonic() > self._settings_at + SETTINGS_FRESH:
            try:
                told = msgspec.convert(await ask(self._socket, "GET", "/settings"), NodeSettings)
                self._settings = Settings(told, PacingConfig.model_validate(told.pacing))
            except SharddError:
                if self._settings is None:
                    raise
            self._settings_at = time.monotonic()
        return self._settings

    async def _read_status(self) -> Status | SharddError:
        """An error counts as an answer: a page has many parts, and shall not wait for as many time-outs."""
        try:
            return msgspec.convert(await ask(self._socket, "GET", "/status"), Status)
        except SharddError as error:
            return error

    async def act(self, path: str, *, timeout: float = TIMEOUT) -> Any:
        """Have it do something. Raises SharddError; UnsureError when it took the request, and did not answer."""
        try:
            return await self.ask("POST", path, timeout=timeout)
        except UnreachableError as error:
            raise UnsureError(str(error)) from error
        except NotRunningError as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                raise  # nobody took it
            raise UnsureError("shardd hung up without an answer") from error

    async def ask(self, method: str, path: str, *, timeout: float = TIMEOUT) -> Any:
        """See `shardd.control_client.ask`."""
        return await ask(self._socket, method, path, timeout=timeout)
