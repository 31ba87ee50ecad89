"""A transport: the way in which a kind of device sends.

A send has two halves, because the journal is written between them. `prepare` does everything that can fail without a message
leaving: check the recipient, take a healthy client or rebuild it, upload. Then the worker writes `started` to the journal and
calls `deliver`, after which only positive proof counts as sent and only positive proof counts as not sent; every other end,
an unexpected exception and a deadline included, is in doubt.

Both raise `shardd.errors.SendError`. `prepare` raises PermanentError, TransientError, OptedOutError or DeviceUnavailableError;
`deliver` those too, where it is certain that nothing left, and InDoubtError.

The worker calls both for one device at a time (the device's lock) unless `in_flight` is more than one. `fetch` comes before,
without the lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import DeviceSpec, JobSpec, StoreAccess
from shardd.opt_out_words import OptOutWords


class Events(Protocol):
    """Receives what a transport learns about devices and messages outside a call."""

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        """A device is in another state (`shardd.states.DeviceState`); `until` in POSIX seconds."""

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        """`kind` is `delivered`, `read` or `unreadable`; `at` in POSIX seconds; `by`: see `shardd.ipc.Receipt`."""

    def incoming(self, name: str | None, message: Incoming) -> int:
        """A message was received; `name`: of its file in the spool, None: it could not be written.

        Returns the number of the message among those of this worker, from 1: see `JobSpec.heard`.
        """

    def defect(self, text: str) -> None:
        """Something was lost through a bug of shardd or of a library."""

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        """See `shardd.ipc.Visited`."""

    def login_answered(self, device_id: str, *, outdated: bool) -> None:
        """See `shardd.ipc.LoginAnswered`."""

    def clients_changed(self, opened: list[str], closed: list[str], openings: int) -> None:
        """See `shardd.ipc.Clients`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a worker gives its transports besides their settings."""

    shard: int = 0
    record_dir: Path | None = None
    """Where the sandbox records its messages."""
    sessions_dsn: str | None = None
    store_access: StoreAccess = field(default_factory=StoreAccess)
    opt_out_words: OptOutWords = field(default_factory=lambda: OptOutWords(()))
    spool: IncomingSpool | None = None
    """Where incoming messages are written; None: nowhere."""
    inbox: Collection[str] | None = None
    """`inbox.include` of the config; None: only opt-outs are kept."""
    inbox_media: bool = False
    """Whether files of incoming messages are to be downloaded: then their keys are kept until that is done."""
    may_pass: Callable[[], bool] = lambda: True
    """Whether bytes of a client may still leave or arrive: the shard may belong to another node soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Positive proof that the other side took over a message."""

    message_id: str
    members_without_keys: int | None = None
    """Of a group: how many members' phones got no copy, because their keys could not be had."""


class Transport(ABC):
    """One per worker and transport; owns all clients of its devices. Defined in `shardd.config.transports`."""

    in_flight: int = 1
    """Jobs of one device at the same time; set by the worker, as the supervisor says."""

    @abstractmethod
    def __init__(self, settings: Any, surroundings: Surroundings, events: Events) -> None:
        """`settings`: has the fields of the transport's section, as msgpack carries them: paths are text, tuples lists.

        It is not the section itself, whose pydantic would cost each worker 12 to 24 MB and a third of a second.
        """

    async def start(self) -> None:
        """Load what sending needs. Called once, before the worker is ready."""

    async def fetch(self, device: DeviceSpec, job: JobSpec) -> Any:
        """Get what the job needs from elsewhere (media), before the device's lock is taken."""
        return None

    def discard(self, fetched: Any) -> None:
        """Free what `fetch` returned; called once for each, however the job ended."""

    @abstractmethod
    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> Any:
        """Do everything before the hand-over; nothing may leave here."""

    def other_addresses(self, prepared: Any) -> Sequence[str]:
        """Addresses of the recipient to which the message goes, or may go, besides that of the job."""
        return ()

    @abstractmethod
    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Any) -> Sent:
        """Hand the message over."""

    def expect(self, device_id: str, again: float | None) -> None:
        """A job of this device has ended, and within `again` seconds the next one will probably come; None: unknown."""

    def visit_turn(self) -> AbstractAsyncContextManager[Any]:
        """Limits concurrent visits: entered before the device's lock is taken, because it may wait for long."""
        return nullcontext()

    def hold_logins(self, *, held: bool) -> None:
        """Log in no device until further notice; see `shardd.ipc.HoldLogins`."""

    async def visit(self, device: DeviceSpec, *, late: bool = False, probe: bool = False) -> None:
        """Open the device for a moment, to hear what was sent to it. Returns once it is open; `Events.visited` follows.

        `late`: it could not be repeated in time; `probe`: log in even while logins are held, and close no other client for it.
        Called in a turn and under the device's lock. Raises DeviceUnavailableError.
        """

    def change_store_access(self, access: StoreAccess) -> None:
        """The session store is reached in another way from now on."""

    async def close_device(self, device_id: str) -> None:
        """Close what is open for this device and wait for its end."""

    async def close(self) -> None:
        """Close everything."""

    def open_clients(self) -> int:
        """How many clients are open now."""
        return 0

    def connects(self) -> int:
        """Connect cycles since the start."""
        return 0

    def gave_way(self) -> int:
        """Clients that were closed of late to make room, although their devices will send again soon."""
        return 0

    def previews_left_out(self) -> int:
        """Texts since the start whose link has no preview, though one was wanted."""
        return 0
