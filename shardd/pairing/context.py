"""What is needed for work on the sessions of devices: both databases, and the daemon that may have a client open."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from shardd.config import TRANSPORTS, Config
from shardd.control_client import ask
from shardd.errors import NotRunningError, NotStartedError, UsageError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.sessions import SessionAdmin
from shardd.queue.unknown_device import unknown_device
from shardd.transports.whatsapp.linking.hearing import Hearing
from shardd.transports.whatsapp.linking.unlinking import unlink

CLOSE_TIMEOUT: Final = 70.0
"""Seconds in which the daemon answers; it gives a worker one minute to close a client."""
WITH_SESSIONS: Final = tuple(name for name, definition in TRANSPORTS.items() if definition.has_sessions)
"""Transports whose devices have sessions."""


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the config says about sessions."""

    source: str
    """The config's file."""
    store: str
    """The DSN of the session store."""
    pgbouncer: bool
    """Whether the store is behind PgBouncer."""
    proxy: str | None
    """Of devices that have none of their own."""
    region: str | None
    """The default country of phone numbers."""
    state_dir: str
    control_socket: str
    opt_out_words: list[str]
    take_back_words: list[str]
    include: list[str] | None
    """See `inbox.include` of the config; None: only opt-outs are kept."""
    media: bool
    """Whether files of incoming messages are to be downloaded."""

    def __repr__(self) -> str:
        return f"SessionSettings(state_dir={self.state_dir!r})"  # the DSN and the proxy have passwords


def session_settings(config: Config, store: str) -> SessionSettings:
    """`store`: the DSN of the session store."""
    words, inbox, whatsapp = config.opt_outs, config.inbox, config.transports.whatsapp
    return SessionSettings(
        source=str(config.source),
        store=store,
        pgbouncer=whatsapp.pgbouncer,
        proxy=whatsapp.proxy,
        region=whatsapp.default_region,
        state_dir=str(config.state_dir),
        control_socket=str(config.control_socket),
        opt_out_words=list(words.words or ()),
        take_back_words=list(words.take_back_words or ()),
        include=list(inbox.include or ()) if inbox.keep else None,
        media=inbox.downloads,
    )


@dataclass(frozen=True, slots=True)
class SessionContext:
    """Both databases, and the client that a daemon may have open."""

    settings: SessionSettings
    database: Database
    """With room for two connections: a pairing holds one of them."""

    @property
    def store(self) -> str:
        """The DSN of the session store."""
        return self.settings.store

    @property
    def pgbouncer(self) -> bool:
        """Whether the store is behind PgBouncer."""
        return self.settings.pgbouncer

    @property
    def control_socket(self) -> Path:
        """The daemon's."""
        return Path(self.settings.control_socket)

    @property
    def sessions(self) -> SessionAdmin:
        """Which session belongs to which device."""
        return SessionAdmin(self.database)

    async def device(self, device_id: str) -> DeviceRow:
        """A device that can have a session. Raises UsageError for any other."""
        found = await DeviceAdmin(self.database).find(ids=[device_id])
        if not found:
            add = f"add it first: shardd device add {device_id} --transport {WITH_SESSIONS[0]}"
            raise await unknown_device(self.database, device_id, add)
        if found[0].transport not in WITH_SESSIONS:
            raise UsageError(
                f"device {device_id} sends by {found[0].transport}: only {' and '.join(WITH_SESSIONS)} devices have a session"
            )
        return found[0]

    def proxy_of(self, device: DeviceRow) -> str | None:
        """The proxy of the device's connections."""
        return device.proxy or self.settings.proxy

    async def unlink(self, device: DeviceRow, session: str) -> str | None:
        """End a session of a device at WhatsApp; returns a remark. The device's client must be closed. Raises SharddError."""
        hearing, proxy = self.hearing(device), self.proxy_of(device)
        return await unlink(self.store, session, hearing, pgbouncer=self.pgbouncer, proxy=proxy)

    def hearing(self, device: DeviceRow) -> Hearing:
        """What becomes of the messages to a device that no worker has open."""
        return Hearing(
            device_id=device.id,
            state_dir=self.settings.state_dir,
            opt_out_words=self.settings.opt_out_words,
            take_back_words=self.settings.take_back_words,
            include=self.settings.include,
            media=self.settings.media,
        )

    async def close_client(self, device_id: str) -> None:
        """Have a running daemon close the device's client.

        On return no worker of this host uses a session other than the row's. Raises SharddError when that takes too long.
        """
        with suppress(NotRunningError, NotStartedError, UsageError):  # then no client is open
            await ask(self.control_socket, "POST", close_path(device_id), timeout=CLOSE_TIMEOUT)


def close_path(device_id: str) -> str:
    """Of the request that closes the device's client."""
    return f"/devices/{quote(device_id)}/close"
