"""Faults: what goes wrong, where, for which device, and how often.

A fault is a kind (what happens) at a stage (where). The first fault that applies is used, and counts as used once.

=============  ======================================================================================================
kind           what happens
=============  ======================================================================================================
mute           neither the stage nor anything after it is answered; TCP stays up
ignore         this one stanza is not answered; the connection stays usable
delay          the answer is sent ``seconds`` late (at ``message``: accepted at once, only the ack is late)
drop           the TCP connection is cut
error          the answer is the error ``code``: an ack error, an iq error, or an HTTP status, by stage
omit           the answer leaves things out: at ``usync`` the devices of a user, at ``prekeys`` the whole user
refuse         at ``prekeys``: the answer has the error ``code`` in the place of a user's keys
failure        at ``login`` or ``online``: ``<failure reason=code [expire]>``, then the connection ends
stream_error   ``<stream:error [code]>`` with an optional ``conflict``, then the connection ends
=============  ======================================================================================================

Before the login, and at ``upload`` and ``download``, a device is known only by the user name of its proxy credential: its
number, if its proxy is ``ServerProcess.proxy_url(number)``.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """Where a fault applies."""

    CONNECT = "connect"
    TLS = "tls"
    UPGRADE = "upgrade"
    LOGIN = "login"
    ONLINE = "online"  # right after <success>
    MESSAGE = "message"
    USYNC = "usync"
    PREKEYS = "prekeys"
    IQ = "iq"  # every other request
    UPLOAD = "upload"
    DOWNLOAD = "download"


class Kind(StrEnum):
    """What a fault does."""

    MUTE = "mute"
    IGNORE = "ignore"
    DELAY = "delay"
    DROP = "drop"
    ERROR = "error"
    OMIT = "omit"
    REFUSE = "refuse"
    FAILURE = "failure"
    STREAM_ERROR = "stream_error"


HTTP_STAGES = frozenset({Stage.CONNECT, Stage.UPGRADE, Stage.UPLOAD, Stage.DOWNLOAD})
STREAM_STAGES = frozenset({Stage.LOGIN, Stage.ONLINE, Stage.MESSAGE, Stage.USYNC, Stage.PREKEYS, Stage.IQ})
_STAGES_OF_KIND = {
    Kind.IGNORE: STREAM_STAGES - {Stage.LOGIN, Stage.ONLINE},
    Kind.ERROR: frozenset(Stage) - {Stage.TLS, Stage.LOGIN, Stage.ONLINE},
    Kind.OMIT: frozenset({Stage.USYNC, Stage.PREKEYS}),
    Kind.REFUSE: frozenset({Stage.PREKEYS}),
    Kind.FAILURE: frozenset({Stage.LOGIN, Stage.ONLINE}),
    Kind.STREAM_ERROR: STREAM_STAGES,
}
_identities = itertools.count(1)


@dataclass
class Fault:
    """One rule.

    Attributes:
        kind: What happens.
        at: Where.
        device: ``number`` or ``number:index``; before the login, the proxy's user name. Empty: every device.
        recipient: Number or group, at ``message``; number at ``usync`` and ``prekeys``, whose request may name several, and at
            ``prekeys`` also ``number:index`` (0: the phone). Empty: every recipient, and for ``omit`` and ``refuse`` all but the
            device's own account.
        times: How often it applies before it is used up; None: without limit.
        probability: The chance that it applies when it could.
        seconds: For ``delay``.
        code: For ``error``, ``failure`` and ``stream_error``.
        expire: For ``failure`` 402: seconds until the ban ends.
        conflict: For ``stream_error``: ``replaced`` or ``device_removed``.
        accepted: At ``message``, for ``mute``, ``ignore`` and ``drop``: WhatsApp accepted the message before the fault.
        strangers_only: At ``message``: only for recipients that the account has never written to.
        xmlns: At ``iq``: only for requests in this namespace.
    """

    kind: Kind
    at: Stage
    device: str = ""
    recipient: str = ""
    times: int | None = 1
    probability: float = 1.0
    seconds: float = 0.0
    code: int | None = None
    expire: int | None = None
    conflict: str = ""
    accepted: bool = False
    strangers_only: bool = False
    xmlns: str = ""
    id: int = field(default_factory=lambda: next(_identities))
    struck: int = 0

    def __post_init__(self) -> None:
        self.kind, self.at = Kind(self.kind), Stage(self.at)
        if self.at not in _STAGES_OF_KIND.get(self.kind, frozenset(Stage)):
            raise ValueError(f"a fault of kind {self.kind} cannot apply at {self.at}")
        if self.kind in (Kind.ERROR, Kind.REFUSE) and self.code is None and self.at is not Stage.CONNECT:
            raise ValueError(f"a fault of kind {self.kind} needs a code")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, not {self.probability}")

    def spares(self, device: str, asker: str) -> bool:
        """Whether an ``omit`` or a ``refuse`` leaves this device (or number) alone, in a request of the account ``asker``."""
        return not device_matches(self.recipient, device) if self.recipient else device.partition(":")[0] == asker


@dataclass(frozen=True)
class Occasion:
    """A point in the protocol at which a fault could apply."""

    at: Stage
    device: str = ""
    recipients: tuple[str, ...] = ()
    stranger: bool = False
    xmlns: str = ""


class FaultList:
    """The active faults, in the order in which they were added."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._faults: list[Fault] = []
        self._chance = chance or random.Random()

    def inject(self, fault: Fault) -> Fault:
        """Add a fault after the others."""
        self._faults.append(fault)
        return fault

    def remove(self, fault_id: int) -> bool:
        """Remove one fault; False if it was used up or already removed."""
        before = len(self._faults)
        self._faults = [fault for fault in self._faults if fault.id != fault_id]
        return len(self._faults) < before

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def in_force(self) -> list[Fault]:
        """The faults that can still apply."""
        return list(self._faults)

    def strike(self, occasion: Occasion) -> Fault | None:
        """The first fault that applies here; it counts as used once."""
        for fault in self._faults:
            if self._applies(fault, occasion):
                fault.struck += 1
                if fault.times is not None and fault.struck >= fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    def _applies(self, fault: Fault, occasion: Occasion) -> bool:
        return (
            fault.at is occasion.at
            and device_matches(fault.device, occasion.device)
            and (not fault.recipient or any(device_matches(fault.recipient, one) for one in occasion.recipients))
            and fault.xmlns in ("", occasion.xmlns)
            and (occasion.stranger or not fault.strangers_only)
            and (fault.probability == 1 or self._chance.random() < fault.probability)
        )


def device_matches(pattern: str, device: str) -> bool:
    """Whether ``number`` or ``number:index`` matches the device, whose index may not be known yet; "" matches every device."""
    number, _, index = pattern.partition(":")
    device_number, _, device_index = device.partition(":")
    return not pattern or (number == device_number and (index == device_index or not index or not device_index))
