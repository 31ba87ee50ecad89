"""The settings of this transport: the config's `transports.whatsapp`, and what the worker adds. Durations are seconds."""

from __future__ import annotations

from typing import Any

import msgspec

from shardd.errors import SharddError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that the config names have its meaning there; what is not known here is left to others."""

    sessions_dsn: str
    opt_out_words: tuple[str, ...] = ()
    default_region: str | None = None
    media_dir: str | None = None
    media_hosts: tuple[str, ...] = ()
    media_max_bytes: int = 16 * 1024 * 1024
    media_memory: int = 64 * 1024 * 1024
    fetch_timeout: float = 20.0
    connect_timeout: float = 20.0
    """From the dial to being logged in; also how long a device waits for its turn to connect."""
    probe_after: float = 20.0
    probe_timeout: float = 3.0
    idle_close: float = 60.0
    max_open_clients: int = 200
    max_connecting: int = 8
    pgbouncer: bool = False
    proxy: str | None = None
    """Upstream proxy of devices that have none of their own."""
    upload_timeout: float = 45.0
    answer_timeout: float = 30.0
    """How long WhatsApp may take to confirm a message before it is in doubt."""
    restricted_for: float = 6 * 3600.0
    """WhatsApp does not say how long it keeps a device from writing to new contacts; tried again after this."""


def read_settings(settings: dict[str, Any]) -> Settings:
    """Raises SharddError when the session store is not named or a value has a wrong type."""
    try:
        return msgspec.convert({key: value for key, value in settings.items() if value is not None}, Settings)
    except msgspec.ValidationError as error:
        raise SharddError(f"the settings of transport 'whatsapp' cannot be used: {error}") from error
