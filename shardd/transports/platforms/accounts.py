"""Which devices share an account at a platform: what the platform asks of one of them it asks of all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from shardd.transports.platforms.device_settings import secret_names


def account_of(transport: str, settings: Mapping[str, Any]) -> str | None:
    """A name for the account that a device sends with, or None when its transport has no accounts or its key is missing.

    A hash, so that it may be logged. Devices have the same account when their keys, and the base, if they name one, are
    written in the same way.
    """
    if not isinstance(settings, Mapping):  # a row can hold any JSON
        return None
    keys = [str(settings[name]) for name in sorted(secret_names(transport)) if settings.get(name)]
    if not keys:
        return None
    whole = "\0".join([transport, str(settings.get("base") or "").rstrip("/"), *keys])
    return f"{transport}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
