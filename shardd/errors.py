"""The errors of shardd: a small hierarchy, so that a caller can tell what an error obliges it to do.

`SharddError` and its children below `SendError` carry the text that a user reads. A `SendError` says what is known
about one message after a try, which decides the next state of its job (see `shardd.states`).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar


class ErrorClass(StrEnum):
    """What kind of thing kept a message from being sent; the same words in SQL and on the command line."""

    RECIPIENT = "recipient"  # nobody there, or no address
    CONTENT = "content"  # the message itself: its media, its length, its template
    RATE_LIMIT = "rate_limit"  # the other side asked for fewer messages
    ACCOUNT = "account"  # credentials, ban, a session that is gone
    CONNECTION = "connection"  # the network between us and the other side
    SERVER = "server"  # the other side answered that it failed
    TIMEOUT = "timeout"  # no answer in time
    DEVICE = "device"  # the device could not send, for another reason
    WORKER = "worker"  # our own process died or had to stop
    EXPIRED = "expired"  # too late
    OPTED_OUT = "opted_out"  # the recipient wants no more messages
    CANCELLED = "cancelled"  # somebody decided so
    UNKNOWN = "unknown"


class SharddError(Exception):
    """An error whose text is written for the user of shardd."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE of sysexits.h


class UsageError(SharddError):
    """The command line asks for something that cannot be done as written."""

    exit_code = 64


class DeviceSettingsError(UsageError):
    """A device's settings are not what its transport needs; the text names the setting and the mend, never a secret."""


class DatabaseError(SharddError):
    """PostgreSQL cannot be reached, refuses us, or lacks something that shardd needs."""

    exit_code = 69


class BlockedError(DatabaseError):
    """Somebody's open transaction keeps a lock that we need; nothing was changed, and asked again, it may succeed.

    `blocker`: which session that is, for how long, and how to end it, if that could be seen.
    """

    exit_code = 75

    blocker: str | None = None


class RefusedDataError(DatabaseError):
    """PostgreSQL looked at a value and does not want it: asked again, it says the same."""


class RowRefusedError(RefusedDataError):
    """The database looked at a row and does not want it; the text names the column, the value and the fix."""

    exit_code = 65


class SourceError(SharddError):
    """What another system left cannot be read as it is."""

    exit_code = 65


class AlreadyRunningError(SharddError):
    """Another supervisor holds this state folder."""

    exit_code = 75


class NotRunningError(SharddError):
    """No supervisor answers at the control socket."""

    exit_code = 3


class UnreachableError(SharddError):
    """A supervisor runs, but a command cannot reach it."""

    exit_code = 69


class ConfigError(SharddError):
    """The config file cannot be used; the text lists every error in it."""

    exit_code = 78


class PairingError(SharddError):
    """A device got no session; nothing has changed, so it may be tried again."""

    exit_code = 75


class JournalError(SharddError):
    """A shard's journal cannot be read or written, so no message of that shard may leave."""


class JournalHeldError(JournalError):
    """Another process holds the lock of a journal."""


class UnsafeFileError(SharddError):
    """A file or folder of the state folder is not what the daemon made there; the text names it and the fix."""

    exit_code = 78


class SendError(SharddError):
    """What is known about a message that was not simply sent."""

    def __init__(self, text: str, *, error_class: ErrorClass = ErrorClass.UNKNOWN) -> None:
        """`error_class`: what kind of thing went wrong, for those who retry or cancel many jobs at once."""
        super().__init__(text)
        self.error_class = error_class


class PermanentError(SendError):
    """The message was not sent, and the same message can never be."""


class TransientError(SendError):
    """The message was not sent; the same message may succeed later."""

    def __init__(
        self, text: str, *, retry_after: float | None = None, error_class: ErrorClass = ErrorClass.UNKNOWN
    ) -> None:
        """`retry_after`: seconds that the other side asked us to wait, if it did."""
        super().__init__(text, error_class=error_class)
        self.retry_after = retry_after


class ExpiredError(SendError):
    """The message was not sent because its time was over."""


class OptedOutError(SendError):
    """The message was not sent: its recipient wants no more."""

    def __init__(self, text: str) -> None:
        super().__init__(text, error_class=ErrorClass.OPTED_OUT)


class DeviceUnavailableError(SendError):
    """The message was not sent because its device cannot send now; the job waits for the device."""

    def __init__(
        self,
        text: str,
        *,
        state: str | None = None,
        until: datetime | None = None,
        retry_after: float | None = None,
        whole_account: bool = False,
        error_class: ErrorClass = ErrorClass.DEVICE,
    ) -> None:
        """Say what is wrong with the device.

        `state`: the device state (`shardd.states.DeviceState`) that this error proves, or None when the device is only
        unreachable at the moment. `until`: when the state ends by itself. `retry_after`: seconds before the device is
        tried again when the state stays as it is. `whole_account`: the wait is meant for every device of the same account.
        """
        super().__init__(text, error_class=error_class)
        self.state = state
        self.until = until
        self.retry_after = retry_after
        self.whole_account = whole_account


class InDoubtError(SendError):
    """The message was handed over and nobody can know whether it was sent."""
