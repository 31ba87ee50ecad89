"""What WhatsApp answers to logins with the installed version of its library, and what follows for all devices.

The version is the same for every device of a node, so a refusal for it (failure 405) concerns all of them. One answer is no
proof: it may be due to one device's proxy or account. Several in a row, with no login accepted in between, are.

No I/O and no clock of its own: times are POSIX seconds.
"""

from __future__ import annotations

from shardd.states import LIBRARY_PROOF, LIBRARY_TRANSITIONS, LibraryState


class LibraryAnswers:
    """Those that one node received."""

    def __init__(self) -> None:
        self.state = LibraryState.ACCEPTED
        self.since: float | None = None
        """Since when the version has been refused, for one device or for all; None: it is accepted."""
        self.refused: set[str] = set()
        """Devices that were refused since then."""

    def outdated(self, device_id: str, devices: int, now: float) -> None:
        """A login was refused because of the version. `devices`: how many could log in, on any node."""
        self.refused.add(device_id)
        proven = len(self.refused) >= min(LIBRARY_PROOF, devices)
        self._move("proven" if proven else "refused", now)

    def proven(self, since: float) -> None:
        """Another node, or an earlier run, has found that out."""
        self._move("proven", since)

    def accepted(self) -> None:
        """A login was accepted, or another node saw one."""
        self._move("accepted", None)
        self.refused.clear()
        self.since = None

    def _move(self, event: str, now: float | None) -> None:
        after = LIBRARY_TRANSITIONS[self.state].get(event)
        if after is not None:
            self.state = after
            self.since = self.since or now
