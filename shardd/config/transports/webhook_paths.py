"""The secret path of a device at the webhook of a platform that signs nothing: who knows it may report for this device.

It is made from the config's secret and the device's id, so it is stored nowhere, and stays the same as long as both do.
"""

from __future__ import annotations

import hmac


def webhook_path(secret: str, transport: str, device_id: str) -> str:
    """Such as `/wablas/3f…`, with 40 hexadecimal digits."""
    digest = hmac.new(secret.encode(), f"{transport}\0{device_id}".encode(), "sha256").hexdigest()
    return f"/{transport}/{digest[:40]}"
