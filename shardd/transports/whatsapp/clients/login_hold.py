"""Whether this worker may log in while WhatsApp refuses the version of the library. No I/O; times are those of the event loop."""

from __future__ import annotations

from typing import Final

from shardd.states import LIBRARY_PROOF
from shardd.transports.whatsapp.messages.failures import outdated

BY_ITSELF: Final = 10.0
"""Seconds for which a worker holds its logins after the last refusal, until it hears what all workers have found."""


class LoginHold:
    """On the word of the supervisor, and by itself after refusals of several devices in a row."""

    def __init__(self) -> None:
        self.held = False
        """The supervisor says so."""
        self._refused: set[str] = set()
        """Devices that were refused since the last login that was accepted."""
        self._refused_at = float("-inf")

    def hold(self, *, held: bool) -> None:
        """The supervisor holds the logins of all workers, or does so no longer."""
        self.held = held
        self._refused.clear()

    def refused(self, device_id: str, now: float) -> None:
        """A login was refused for the version."""
        self._refused.add(device_id)
        self._refused_at = now

    def accepted(self) -> None:
        """A login was accepted."""
        self._refused.clear()

    def check(self, now: float) -> None:
        """Raises DeviceUnavailableError while logins are held."""
        by_itself = len(self._refused) >= LIBRARY_PROOF and now < self._refused_at + BY_ITSELF
        if self.held or by_itself:
            raise outdated().as_error()
