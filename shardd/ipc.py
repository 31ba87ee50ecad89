"""The messages between supervisor and worker; `shardd.wire` makes bytes of them.

The supervisor decides and owns the database; the worker owns clients and the journal. Times are POSIX seconds of the wall
clock where they leave the process, durations are seconds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shardd.states import ALONE_FROM, DeviceState, Verdict

MAX_TEXT: Final = 2000
"""Characters of an error, a reason or a message id."""
ClaimKey = tuple[int, int, int, int]
"""(job id, epoch, attempt, token): names one claim. A database that was restored, or that lost commits in a fail-over, hands out
ids and epochs once more; the row's random token does not come again."""
MAX_TIME: Final = 2.0**35
"""POSIX seconds, in the year 3058: Python and PostgreSQL can say what day that is in every time zone."""


def storable(text: str) -> str:
    """The text as UTF-8 and PostgreSQL can hold it: no NUL, no half of a surrogate pair; at most MAX_TEXT characters."""
    if text.isascii() and "\0" not in text and len(text) <= MAX_TEXT:
        return text
    return text[:MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _keep_storable(message: msgspec.Struct, field: str, text: str | None) -> None:
    if text is not None and (clean := storable(text)) is not text:
        msgspec.structs.force_setattr(message, field, clean)


def _keep_possible(message: msgspec.Struct, field: str, seconds: float | None) -> None:
    # So written that NaN, which is neither more nor less than anything, is out of bounds too.
    if seconds is not None and not 0.0 <= seconds <= MAX_TIME:
        msgspec.structs.force_setattr(message, field, MAX_TIME if seconds > MAX_TIME else 0.0)


class DeviceSpec(msgspec.Struct, frozen=True, array_like=True):
    """What a worker must know of a device."""

    id: str
    transport: str
    settings: dict[str, Any] = {}
    session: str | None = None
    """The whatsmeow key of the stored session (`628…:1@s.whatsapp.net`); None: not paired."""
    proxy: str | None = None
    """Upstream proxy URL (http, socks5) of this device's connections."""

    def __repr__(self) -> str:
        """Without settings and proxy, which hold keys and passwords."""
        return f"DeviceSpec(id={self.id!r}, transport={self.transport!r}, session={self.session!r})"


class JobSpec(msgspec.Struct, frozen=True, array_like=True):
    """A claimed job on its way to a worker."""

    id: int
    epoch: int
    attempt: int
    token: int
    device_id: str
    recipient: str
    kind: str = "text"
    body: str = ""
    media: str | None = None
    file_name: str | None = None
    mime_type: str | None = None
    details: str | None = None
    """JSON, as it stands in the row: it is read where it is used (`shardd.transports.details`). Location: latitude, longitude,
    name, address. Contact: name, phone. Template: name, language, components."""
    expires_at: float | None = None
    """POSIX seconds, by the clock of this host, after which the message must not leave any more."""
    heeds_opt_outs: bool = True
    """Whether it must not go to somebody who opted out while it was on its way."""
    worker_deaths: int = 0
    """Workers that died, or were replaced for their memory, while they prepared it."""

    @property
    def alone(self) -> bool:
        """Whether no other job may be under way in its worker at the same time."""
        return self.worker_deaths >= ALONE_FROM

    @property
    def key(self) -> ClaimKey:
        """Names the claim."""
        return (self.id, self.epoch, self.attempt, self.token)


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What a claim came to."""

    id: int
    epoch: int
    attempt: int
    token: int
    verdict: Verdict
    message_id: str | None = None
    error: str | None = None
    retry_after: float | None = None
    """Seconds before the job (transient) or the device (unavailable) may be tried again."""
    device_state: DeviceState | None = None
    """With `unavailable`: the state of the device that this proves."""
    at: float = 0.0
    """When the outcome was known, POSIX seconds."""
    error_class: str | None = None
    """What kind of thing went wrong (`shardd.errors.ErrorClass`)."""
    whole_account: bool = False
    """With `unavailable`: every device of the same account must wait for `retry_after`."""
    suspect: bool = False
    """Its preparation had begun when its worker died, or was replaced for its memory."""

    def __post_init__(self) -> None:
        """Strangers' texts and numbers end up in the database: what it cannot hold must not stop the settling of all others."""
        _keep_storable(self, "error", self.error)
        _keep_storable(self, "message_id", self.message_id)
        _keep_possible(self, "retry_after", self.retry_after)
        _keep_possible(self, "at", self.at)

    @property
    def key(self) -> ClaimKey:
        """Names the claim."""
        return (self.id, self.epoch, self.attempt, self.token)


# ---- supervisor → worker


class TransportSpec(msgspec.Struct, frozen=True):
    """How a worker's devices of one transport send."""

    implementation: str
    """`module:Class` of a `shardd.transports.base.Transport`, loaded when a device needs it."""
    settings: dict[str, Any]
    """Its section of the config, as plain data."""
    in_flight: int = 1
    """Jobs of one device at the same time."""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message: who the worker is and how it sends."""

    node: str
    shard: int
    epoch: int
    journal: str
    """Path of the shard's journal; the worker holds its lock."""
    state_id: str
    """Of the state folder that the journal belongs to."""
    send_timeout: float
    transports: dict[str, TransportSpec]
    devices: list[DeviceSpec]
    heartbeat_every: float = 1.0
    fsync: bool = False
    sessions_dsn: str | None = None
    careful_for: float = 0.0
    """Seconds in which it takes one job after the other, because its predecessors died."""
    opt_out_words: list[str] = []
    """By which recipients say that they want no more messages."""


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Send these; each is answered by one Outcome."""

    jobs: list[JobSpec]


class Devices(msgspec.Struct, frozen=True, tag="devices"):
    """Devices that came, changed or went."""

    changed: list[DeviceSpec] = []
    removed: list[str] = []


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """These claims are settled in the database: the journal may forget them."""

    claims: list[ClaimKey]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Finish what is in flight, send the rest back as `returned`, close every client, answer Drained and exit."""

    timeout: float
    memory: int | None = None
    """Because the worker has grown beyond these bytes: jobs that are being prepared are suspects."""


class Lease(msgspec.Struct, frozen=True, tag="lease"):
    """The shard is this node's for so long: a worker that hears no more of it ends by itself.

    A supervisor that hangs, or a host that was paused, would otherwise leave clients open whose devices belong to another.
    """

    left: float
    """Seconds, counted from when this is heard."""
    grace: float
    """Seconds beyond that for what has started."""


class LogLevel(msgspec.Struct, frozen=True, tag="log_level"):
    """Log from this level on."""

    level: str


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Close the clients of these devices, so that another process may use their sessions (pairing, take-over)."""

    devices: list[str]
    request: int


class Audit(msgspec.Struct, frozen=True, tag="audit"):
    """Say again how claims ended that the journal remembers, then which are in flight: a message may have been lost."""

    request: int


# ---- worker → supervisor


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has its journal's lock and its transports, and takes jobs."""

    pid: int
    rss: int = 0
    """Bytes that it takes before it does anything."""


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Said by the worker's event loop every `heartbeat_every` seconds; counters count from the worker's start."""

    lag: float
    """Seconds that the loop was late for this beat."""
    devices: int
    open_clients: int
    in_flight: int
    sent: int
    failed: int
    rss: int
    """Bytes."""
    fds: int
    connects: int = 0
    """Connect cycles since the start: each leaks a little in the library."""
    journal: str | None = None
    """Why nothing may be handed over: what the journal is told now might not be found after a crash. None: it would be."""


class Outcomes(msgspec.Struct, frozen=True, tag="outcomes"):
    """Claims that ended."""

    outcomes: list[Outcome]


class DeviceChanged(msgspec.Struct, frozen=True, tag="device_changed"):
    """A device turned out to be in another state."""

    device_id: str
    state: DeviceState
    reason: str
    until: float | None = None
    at: float = 0.0

    def __post_init__(self) -> None:
        """Like Outcome's."""
        _keep_storable(self, "reason", self.reason)
        _keep_possible(self, "until", self.until)
        _keep_possible(self, "at", self.at)


class Receipt(msgspec.Struct, frozen=True, tag="receipt"):
    """What became of messages that were sent: delivered, read, or failed after all."""

    device_id: str
    message_ids: list[str]
    kind: str
    at: float
    error: str | None = None
    """Why they failed."""
    error_class: str | None = None

    def __post_init__(self) -> None:
        """Like Outcome's."""
        msgspec.structs.force_setattr(self, "message_ids", [storable(text) for text in self.message_ids])
        _keep_storable(self, "error", self.error)
        _keep_possible(self, "at", self.at)


class OptedOut(msgspec.Struct, frozen=True, tag="opted_out"):
    """Somebody wrote to a device that he wants no more messages."""

    device_id: str
    recipients: list[str]
    """All that name this one person, each once, the best first: `+628123…`, `ID@lid`."""
    words: str
    at: float

    def __post_init__(self) -> None:
        """Like Outcome's."""
        _keep_storable(self, "words", self.words)
        _keep_possible(self, "at", self.at)


class Defect(msgspec.Struct, frozen=True, tag="defect"):
    """Something went wrong in the worker that nobody but shardd itself can be at fault for."""

    text: str

    def __post_init__(self) -> None:
        """Like Outcome's."""
        _keep_storable(self, "text", self.text)


class InFlight(msgspec.Struct, frozen=True, tag="in_flight"):
    """Answer to Audit; it follows all outcomes that were known by then."""

    request: int
    claims: list[ClaimKey]
    """In flight."""
    started: list[ClaimKey]
    """Those of which the journal says that their messages may have left, settled ones excepted."""


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """Somebody else told the worker to end (SIGTERM): it takes no more jobs and exits when what it has in flight has ended."""


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """Nothing is in flight any more; the worker exits."""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """Answer to Close."""

    request: int


ToWorker = Setup | Send | Devices | Settled | Drain | Close | Lease | LogLevel | Audit
ToSupervisor = (
    Ready | Heartbeat | Outcomes | DeviceChanged | Receipt | OptedOut | Leaving | Drained | Closed | Defect | InFlight
)
