"""The messages between supervisor and worker; `shardd.wire` encodes them.

The supervisor decides and owns the database; the worker owns clients and the journal. Times are POSIX seconds of the wall clock,
durations are seconds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shardd.incoming import Incoming
from shardd.states import ALONE_FROM, DeviceState, Verdict
from shardd.storable import possible_time, storable

MAX_TEXT: Final = 2000
"""Characters of an error, a reason or a message id."""
ClaimKey = tuple[int, int, int, int]
"""(job id, epoch, attempt, token): identifies one claim. A database that was restored, or that lost commits in a fail-over, hands
out ids and epochs again; the row's random token is unique."""
MAX_INDEX: Final = 2**31 - 1
"""Of a recipient's device, as PostgreSQL can represent it."""


def _keep_storable(message: msgspec.Struct, field: str, text: str | None) -> None:
    if text is not None and (clean := storable(text, MAX_TEXT)) is not text:
        msgspec.structs.force_setattr(message, field, clean)


def _keep_possible(message: msgspec.Struct, field: str, seconds: float | None) -> None:
    if seconds is not None and (possible := possible_time(seconds)) is not seconds:
        msgspec.structs.force_setattr(message, field, possible)


class DeviceSpec(msgspec.Struct, frozen=True, array_like=True):
    """What a worker must know about a device."""

    id: str
    transport: str
    settings: dict[str, Any] = {}
    session: str | None = None
    """The whatsmeow key of the stored session (`628…:1@s.whatsapp.net`); None: not paired."""
    proxy: str | None = None
    """Upstream proxy URL (http, socks5) of this device's connections."""
    restricted_until: float | None = None
    """Until when, in POSIX seconds, it may not write to new contacts, as far as the database knows."""

    def __repr__(self) -> str:
        """Without settings and proxy, which hold keys and passwords."""
        return f"DeviceSpec(id={self.id!r}, transport={self.transport!r}, session={self.session!r})"


class _OfClaim(msgspec.Struct, frozen=True, array_like=True):
    """What a job and an outcome begin with."""

    id: int
    epoch: int
    attempt: int
    token: int

    @property
    def key(self) -> ClaimKey:
        """Identifies the claim."""
        return (self.id, self.epoch, self.attempt, self.token)


CLAIM_FIELDS: Final = frozenset(_OfClaim.__struct_fields__)


class JobSpec(_OfClaim, frozen=True, array_like=True):
    """A claimed job on its way to a worker."""

    device_id: str
    recipient: str
    kind: str = "text"
    body: str = ""
    media: str | None = None
    file_name: str | None = None
    mime_type: str | None = None
    details: str | None = None
    """JSON as in the row, parsed where it is used (`shardd.transports.details`). Location: latitude, longitude, name, address.
    Contact: name, phone. Template: name, language, components. Text: link_preview."""
    quote: str | None = None
    """JSON of the message that it answers, as the row has it: id, sender, text, kind; None or {}: it quotes none."""
    revokes: str | None = None
    """The id of the message that it deletes for everyone; with kind `revoke`."""
    expires_at: float | None = None
    """POSIX seconds, by the clock of this host, after which the message must not leave."""
    heeds_opt_outs: bool = True
    """Whether it must not go to a recipient who opted out after it was claimed."""
    worker_deaths: int = 0
    """How many workers died, or were replaced for their memory, while they prepared it."""
    heard: int = 0
    """How many messages (`Arrived`) of this worker were received before the recipient's opt-out was last checked."""

    @property
    def alone(self) -> bool:
        """Whether no other job may be in flight in its worker at the same time."""
        return self.worker_deaths >= ALONE_FROM


class Outcome(_OfClaim, frozen=True, array_like=True):
    """The result of a claim."""

    verdict: Verdict
    message_id: str | None = None
    error: str | None = None
    retry_after: float | None = None
    """Seconds before the job (transient) or the device (unavailable) may be tried again."""
    device_state: DeviceState | None = None
    """With `unavailable`: the state that the device turned out to be in."""
    at: float = 0.0
    """When the outcome was known, POSIX seconds."""
    error_class: str | None = None
    """A value of `shardd.errors.ErrorClass`."""
    whole_account: bool = False
    """With `unavailable`: every device of the same account must wait for `retry_after`."""
    suspect: bool = False
    """Its preparation had begun when its worker died, or was replaced for its memory."""
    members_without_keys: int | None = None
    """With `sent`, of a message to a group: members who cannot read it. None: it was to one person."""

    def __post_init__(self) -> None:
        """Adapt texts and numbers of other systems to what the database can hold: one must not block the settling of others."""
        _keep_storable(self, "error", self.error)
        _keep_storable(self, "message_id", self.message_id)
        _keep_possible(self, "retry_after", self.retry_after)
        _keep_possible(self, "at", self.at)


# ---- supervisor → worker


class TransportSpec(msgspec.Struct, frozen=True):
    """How a worker's devices of one transport send."""

    implementation: str
    """`module:Class` of a `shardd.transports.base.Transport`, loaded when a device needs it."""
    settings: dict[str, Any]
    """Its section of the config, as plain data."""
    in_flight: int = 1
    """Jobs of one device at the same time."""


class StoreAccess(msgspec.Struct, frozen=True):
    """How the clients of sessions reach their store, and how many of them there may be."""

    pooler: str | None = None
    """The DSN of a PgBouncer in transaction mode in front of it; None: as `Setup.sessions_dsn` says."""
    clients: int = 100_000
    """Clients that may be open at once."""
    limit: str = "max_open_clients"
    """What allows no more, in words."""
    scarce: bool = False
    """Whether that is because PostgreSQL has no connections for more."""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message: which shard the worker serves, and how it sends."""

    node: str
    shard: int
    journal: str
    """Path of the shard's journal; the worker holds its lock."""
    state_id: str
    """Of the journal's state folder."""
    send_timeout: float
    transports: dict[str, TransportSpec]
    devices: list[DeviceSpec]
    heartbeat_every: float = 1.0
    fsync: bool = False
    sessions_dsn: str | None = None
    store_access: StoreAccess = StoreAccess()
    careful_for: float = 0.0
    """Seconds for which it takes one job at a time, because its predecessors died."""
    opt_out_words: list[str] = []
    """Words by which recipients opt out."""
    take_back_words: list[str] = []
    """Words by which they take that back."""
    inbox: list[str] | None = None
    """`inbox.include` of the config; None: of incoming messages, only opt-outs are kept."""
    inbox_media: bool = False
    """Whether files of incoming messages are to be downloaded."""


class SendJob(msgspec.Struct, frozen=True, tag="send_job"):
    """Send this job; the answer is one Outcome. Each job has its own message: one that cannot be decoded costs no other."""

    job: JobSpec
    again: float | None = None
    """Seconds within which, after this one, the device may send its next job; None: it is not known to have any."""


class Devices(msgspec.Struct, frozen=True, tag="devices"):
    """Devices that were added, changed or removed."""

    changed: list[DeviceSpec] = []
    removed: list[str] = []


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """Claims that are settled in the database: the journal may forget them."""

    claims: list[ClaimKey]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Return what has not started, finish what has, close every client and exit."""

    timeout: float
    memory: int | None = None
    """Bytes that the worker has outgrown, if that is the reason: jobs that are being prepared are suspects then."""


class Lease(msgspec.Struct, frozen=True, tag="lease"):
    """Until when the node's lease of the shard is good: without a new one by then, the worker ends itself.

    A supervisor that hangs, or a host that was paused, would otherwise leave clients open whose devices belong to another node.
    See `shardd.clock.Deadlines`: moments, because a worker that reads this late must not trust its lease for longer.
    """

    soft: float
    hard: float


class LogLevel(msgspec.Struct, frozen=True, tag="log_level"):
    """Log from this level on."""

    level: str


class ChangeStoreAccess(msgspec.Struct, frozen=True, tag="change_store_access"):
    """Clients that open from now on reach the session store in this way."""

    access: StoreAccess


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Close a device's client, so that another process may use its session (pairing, unlinking)."""

    device_id: str
    request: int


class OptOutAnswer(msgspec.Struct, frozen=True, tag="opt_out_answer"):
    """Answer to OptOutQuestion."""

    request: int
    opted_out: list[str] = []
    """Those of its addresses that opted out."""
    unknown: list[str] = []
    """Addresses of jobs whose persons could not be checked: nothing may be sent to them."""
    error: str | None = None
    """Why not."""


class OptOutsHeard(msgspec.Struct, frozen=True, tag="opt_outs_heard"):
    """A device of this node has received an opt-out, which may not be stored yet: answers about this person hold no more."""

    addresses: list[str]
    """Of the person."""


class Visit(msgspec.Struct, frozen=True, tag="visit"):
    """Open a device for a moment, to hear what was sent to it; the answer is one Visited."""

    device_id: str
    late: bool = False
    """It could not be repeated in time."""
    probe: bool = False
    """It logs in even while logins are held, and closes no other client for it."""


class HoldLogins(msgspec.Struct, frozen=True, tag="hold_logins"):
    """Log in no device of this transport until further notice: the version of its library is refused. Open clients go on."""

    transport: str
    held: bool


class Audit(msgspec.Struct, frozen=True, tag="audit"):
    """Report again the outcomes in the journal, then which claims are in flight: a message may have been lost."""

    request: int


# ---- worker → supervisor


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """A spare worker has loaded everything, and waits for its Setup."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has its journal's lock and its transports, and takes jobs."""

    rss: int
    """Bytes that it takes before it does anything."""


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Sent by the worker's event loop every `heartbeat_every` seconds."""

    lag: float
    """Seconds that the loop was late for this beat."""
    open_clients: int
    rss: int
    """Bytes."""
    fds: int
    connects: int
    """Connect cycles since the start: each leaks a little in the library."""
    journal: str | None = None
    """Why nothing may be handed over: an entry that is written now might not be found after a crash. None: it would be."""
    spool: str | None = None
    """Why incoming messages cannot be written to the disk; None: they can."""
    previews_left_out: int = 0
    """Texts since the start whose link has no preview, though one was wanted."""
    gave_way: int = 0
    """Clients that were closed of late to make room, although their devices will send again soon."""


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
        """See Outcome."""
        _keep_storable(self, "reason", self.reason)
        _keep_possible(self, "until", self.until)
        _keep_possible(self, "at", self.at)


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, tag="receipt"):
    """Messages that were sent are `delivered`, `read`, `failed` after all, or `unreadable`; or one is `sent` (see `claim`).

    `unreadable`: a device of the recipient could not decrypt them, and their client can no longer encrypt them again.
    """

    device_id: str
    message_ids: list[str]
    kind: str
    at: float
    error: str | None = None
    """Why they failed."""
    error_class: str | None = None
    claim: ClaimKey | None = None
    """The claim with which the only message was sent, if the platform repeats it."""
    by: int = 0
    """Index of the recipient's device for which they are unreadable; 0 is the phone."""
    addresses: tuple[str, ...] = ()
    """The recipient's, as the platform names them, which may differ from the job's."""

    def __post_init__(self) -> None:
        """See Outcome."""
        msgspec.structs.force_setattr(self, "message_ids", [storable(text, MAX_TEXT) for text in self.message_ids])
        _keep_storable(self, "error", self.error)
        _keep_possible(self, "at", self.at)
        if not 0 <= self.by <= MAX_INDEX:
            msgspec.structs.force_setattr(self, "by", MAX_INDEX)


class OptOutQuestion(msgspec.Struct, frozen=True, tag="opt_out_question"):
    """Who opted out of these, right before messages are handed over. What is learned here is remembered in the database.

    A job's own address was checked when it was claimed. WhatsApp may list the person under others, to which the message goes.
    """

    request: int
    persons: list[tuple[str, list[str]]]
    """The address of a job, and the others of the same person."""


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """A message was received."""

    name: str | None = None
    """Of its file in the spool; None: it could not be written."""
    unspooled: Incoming | None = None
    """The message, if it could not be written."""


class Visited(msgspec.Struct, frozen=True, tag="visited"):
    """A device was online, for a visit or for a send; or a visit failed.

    It has what had waited for it, unless it was opened for a send and closed to make room before all of that had arrived.
    """

    device_id: str
    online: bool
    at: float
    """When it was last online for certain, or when the visit failed; POSIX seconds."""
    presence: bool = False
    """Whether it showed its presence."""
    note: str | None = None
    """Why the visit failed, or why no presence was shown."""

    def __post_init__(self) -> None:
        """See Outcome."""
        _keep_storable(self, "note", self.note)
        _keep_possible(self, "at", self.at)


class LoginAnswered(msgspec.Struct, frozen=True, tag="login_answered"):
    """The other side accepted a login of a device, or refused it because of the version of the library."""

    device_id: str
    outdated: bool = False


class Clients(msgspec.Struct, frozen=True, omit_defaults=True, tag="clients"):
    """Clients were opened or closed, or more or fewer can be opened at a time; and once when a worker begins (`anew`)."""

    opened: list[str] = []
    """Ids of their devices."""
    closed: list[str] = []
    openings: int | None = None
    """How many devices without a client may be given jobs at the same time; None: any number."""
    anew: bool = False
    """No other clients are open."""


class Defect(msgspec.Struct, frozen=True, tag="defect"):
    """A defect of shardd itself in the worker."""

    text: str

    def __post_init__(self) -> None:
        """See Outcome."""
        _keep_storable(self, "text", self.text)


class AuditReply(msgspec.Struct, frozen=True, tag="audit_reply"):
    """Answer to Audit; it follows all outcomes that were known by then."""

    request: int
    claims: list[ClaimKey]
    """In flight."""
    started: list[ClaimKey]
    """Those that the journal has as started: their messages may have left. Without settled ones."""


class Stopping(msgspec.Struct, frozen=True, tag="stopping"):
    """The worker got SIGTERM, or its lease is over: it takes no more jobs and exits when what it has in flight has ended."""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """Answer to Close."""

    request: int


ToWorker = (
    Setup
    | SendJob
    | Devices
    | Settled
    | Drain
    | Close
    | Lease
    | LogLevel
    | Visit
    | HoldLogins
    | Audit
    | OptOutAnswer
    | OptOutsHeard
    | ChangeStoreAccess
)
ToSupervisor = (
    Loaded
    | Ready
    | Heartbeat
    | Outcomes
    | DeviceChanged
    | Receipt
    | OptOutQuestion
    | Arrived
    | Visited
    | LoginAnswered
    | Clients
    | Stopping
    | Closed
    | Defect
    | AuditReply
)
