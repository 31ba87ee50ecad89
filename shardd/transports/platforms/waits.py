"""How long a message, a device or an account waits after an error of a platform that names no time itself. Seconds."""

from __future__ import annotations

from typing import Final

RATE_BACKOFF: Final = 60.0
"""After a rate limit."""
SERVICE_RETRY: Final = 30.0
"""After an error of the platform's own."""
PHONE_RETRY: Final = 60.0
"""For a device whose phone the platform cannot reach, or whose number is in maintenance."""
SETUP_RETRY: Final = 300.0
"""For an account, an address or a setting that a person must fix."""
ENFORCED_RETRY: Final = 3600.0
"""For a restriction that ends by itself after hours or days."""
