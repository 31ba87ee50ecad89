"""The words between supervisor and worker, and their framing.

One socketpair per worker carries length-prefixed msgpack frames (4 bytes, big endian, then the payload) both ways. A
frame holds a list of messages: whatever was said in one turn of the event loop travels as one write. The supervisor
decides and owns the database; the worker owns clients and the journal. Times are POSIX seconds of the wall clock where
they leave the process, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes. 500 jobs of 65,536 characters each, in four-byte characters, are twice this: see `divide`."""
MAX_TEXT: Final = 2000
"""Characters of an error, a reason or a message id."""
ClaimKey = tuple[int, int, int, int]
"""(job id, epoch, attempt, token): names one claim. A database that was restored, or that lost commits in a fail-over, hands out
ids and epochs once more; the row's random token does not come again."""
_JOB_REST: Final = 16 * 1024
"""Bytes; more than all of a job but its body and media (the queue's INSERT sees to it)."""


def storable(text: str) -> str:
    """The text as UTF-8 and PostgreSQL can hold it: no NUL, no half of a surrogate pair; at most MAX_TEXT characters."""
    if text.isascii() and "\0" not in text and len(text) <= MAX_TEXT:
        return text
    return text[:MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _keep_storable(message: msgspec.Struct, field: str, text: str | None) -> None:
    if text is not None and (clean := storable(text)) is not text:
        msgspec.structs.force_setattr(message, field, clean)


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
    details: dict[str, Any] | None = None
    """Location: latitude, longitude, name, address. Contact: name, phone. Template: name, language, components."""
    expires_at: float | None = None
    """POSIX seconds, by the clock of this host, after which the message must not leave any more."""
    heeds_opt_outs: bool = True
    """Whether it must not go to somebody who opted out while it was on its way."""

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
    verdict: str
    message_id: str | None = None
    error: str | None = None
    retry_after: float | None = None
    """Seconds before the job (transient) or the device (unavailable) may be tried again."""
    device_state: str | None = None
    """With `unavailable`: the state of the device that this proves (`shardd.states.DeviceState`)."""
    at: float = 0.0
    """When the outcome was known, POSIX seconds."""
    error_class: str | None = None
    """What kind of thing went wrong (`shardd.errors.ErrorClass`)."""
    whole_account: bool = False
    """With `unavailable`: every device of the same account must wait for `retry_after`."""

    def __post_init__(self) -> None:
        """Texts of strangers end up in the database: one that it cannot hold must not stop the settling of all others."""
        _keep_storable(self, "error", self.error)
        _keep_storable(self, "message_id", self.message_id)

    @property
    def key(self) -> ClaimKey:
        """Names the claim."""
        return (self.id, self.epoch, self.attempt, self.token)


# ---- supervisor → worker


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
    transports: dict[str, Any]
    """The `transports` part of the config, as plain data."""
    devices: list[DeviceSpec]
    heartbeat_every: float = 1.0
    fsync: bool = False
    sessions_dsn: str | None = None
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
    """Finish what is in hand, send the rest back as `returned`, close every client, answer Drained and exit."""

    timeout: float


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


# ---- worker → supervisor


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has its journal's lock and its transports, and takes jobs."""

    pid: int


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


class Outcomes(msgspec.Struct, frozen=True, tag="outcomes"):
    """Claims that ended."""

    outcomes: list[Outcome]


class DeviceChanged(msgspec.Struct, frozen=True, tag="device_changed"):
    """A device turned out to be in another state."""

    device_id: str
    state: str
    reason: str
    until: float | None = None
    at: float = 0.0

    def __post_init__(self) -> None:
        """Like Outcome's."""
        _keep_storable(self, "reason", self.reason)


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


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """Somebody else told the worker to end (SIGTERM): it takes no more jobs and exits when what it has in hand has ended."""


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """Nothing is in hand any more; the worker exits."""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """Answer to Close."""

    request: int


ToWorker = Setup | Send | Devices | Settled | Drain | Close | Lease | LogLevel
ToSupervisor = Ready | Heartbeat | Outcomes | DeviceChanged | Receipt | OptedOut | Leaving | Drained | Closed

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(list[ToWorker])
_to_supervisor = msgspec.msgpack.Decoder(list[ToSupervisor])


def encode(messages: list[Any]) -> bytes:
    """One frame with these messages, ready to be written."""
    payload = _encoder.encode(messages)
    return len(payload).to_bytes(4, "big") + payload


def divide(jobs: list[JobSpec]) -> Iterator[Send]:
    """These jobs in as many messages as it takes for each to fit into a frame."""
    room = MAX_FRAME
    part: list[JobSpec] = []
    for job in jobs:
        size = _JOB_REST + 4 * (len(job.body) + len(job.media or ""))
        if size > room and part:
            yield Send(jobs=part)
            part, room = [], MAX_FRAME
        part.append(job)
        room -= size
    if part:
        yield Send(jobs=part)


def decode_to_worker(payload: bytes) -> list[ToWorker]:
    """The messages of one frame from the supervisor. Raises msgspec.DecodeError."""
    return _to_worker.decode(payload)


def decode_to_supervisor(payload: bytes) -> list[ToSupervisor]:
    """The messages of one frame from a worker. Raises msgspec.DecodeError."""
    return _to_supervisor.decode(payload)
