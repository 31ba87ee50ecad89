"""Who could read a message, from what the library logs while it encrypts it.

whatsmeow encrypts a message for each device of a list in turn (`send.go`, `encryptMessageForDevices`, August 2026). A device
that it cannot encrypt for is left out with a warning, and the message is sent all the same, even if none is left: WhatsApp
acknowledges it, and the call succeeds. The warning names the message and the device; the reason may be in an earlier one
(`prekeys.go`, `fetchPreKeysNoError`). An empty device list leaves no trace, so the list is asked for before the message, and
again after it: the library drops one that WhatsApp reports as changed (`notification.go`, `handleDeviceNotification`), and
asks anew while it sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

NO_SESSION: Final = "no signal session established"
"""A device without a session and without keys to start one; the reason is what came of the request for its keys."""
NO_KEYS: Final = "WhatsApp returned no keys"

_LEFT_OUT: Final = re.compile(r"Failed to encrypt (?P<message>\S+) for (?P<device>\S+): (?P<error>.*)", re.DOTALL)
_NO_ANSWER: Final = re.compile(r"Failed to fetch prekeys for \[.*\] with no existing session: (?P<error>.*)", re.DOTALL)
_NO_BUNDLE: Final = re.compile(r"Failed to fetch prekey for (?P<device>\S+): (?P<error>.*)", re.DOTALL)


class Copies:
    """The copies of one message: who gets none, and why. Fed with log lines, which come in order, before the message leaves."""

    def __init__(self, devices: Iterable[str] | None, *, own: Iterable[str] = ()) -> None:
        """`devices`: JIDs of the recipient's devices, as the library writes them; None for a group, with its many readers.

        `own`: JIDs of the sender's account.
        """
        self._own = frozenset(own)
        self._devices = None if devices is None else frozenset(devices)
        self._query_error: str | None = None
        self._bundle_errors: dict[str, str] = {}
        self._left_out: dict[str, str] = {}

    def heard(self, line: str) -> None:
        """Take a line of the library's log into account."""
        if match := _LEFT_OUT.fullmatch(line):
            device, error = match["device"], match["error"]
            if NO_SESSION in error:
                error = self._bundle_errors.get(device) or self._query_error or NO_KEYS
            self._left_out[device] = error
        elif match := _NO_ANSWER.fullmatch(line):
            self._query_error = match["error"]
        elif match := _NO_BUNDLE.fullmatch(line):
            self._bundle_errors[match["device"]] = match["error"]

    def encrypted_for(self, devices: Iterable[str]) -> None:
        """These are the recipient's devices that the library had when it encrypted the message."""
        self._devices = frozenset(devices)

    @property
    def unreadable(self) -> bool:
        """Whether no device of the recipient gets a copy."""
        return self._devices is not None and self._devices <= self._left_out.keys()

    @property
    def reason(self) -> str:
        """Why the first device that got no copy got none; empty if all got one, or if there was none."""
        ours = self._left_out if self._devices is None else self._left_out.keys() & self._devices
        return next((error for device, error in self._left_out.items() if device in ours), "")

    @property
    def phones_left_out(self) -> int:
        """How many people's phones got no copy, without the sender's own. A linked device is written with its number."""
        return sum(":" not in device and device not in self._own for device in self._left_out)
