"""The errors of shardd: a small hierarchy whose classes determine what a caller does.

The text of each is written for the user. A `SendError` is what is known about one message after an attempt to send it, which
decides the next state of its job (see `shardd.states`).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar


class ErrorClass(StrEnum):
    """Why a message was not sent; the same words in SQL and on the command line."""

    RECIPIENT = "recipient"  # does not exist, or has no address
    CONTENT = "content"  # the message itself: its media, its length, its template
    RATE_LIMIT = "rate_limit"  # the peer asked for fewer messages
    ACCOUNT = "account"  # credentials, ban, a session that is gone
    CONNECTION = "connection"  # the network between us and the peer
    SERVER = "server"  # the peer reported an error of its own
    TIMEOUT = "timeout"  # no answer in time
    DEVICE = "device"  # the device could not send, for another reason
    WORKER = "worker"  # our own process died or had to stop
    NODE = "node"  # in doubt: the node that had it was lost, and its journal may still tell
    EXPIRED = "expired"  # past its expiry
    OPTED_OUT = "opted_out"  # the recipient has opted out
    CANCELLED = "cancelled"  # by an operator or producer
    UNKNOWN = "unknown"


class SharddError(Exception):
    """An error whose text is written for the user of shardd."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE of sysexits.h


class UsageError(SharddError):
    """The command line is not valid."""

    exit_code = 64


class DeviceSettingsError(UsageError):
    """A device's settings are not what its transport needs; the text names the setting and the fix, never a secret."""


class DatabaseError(SharddError):
    """PostgreSQL is unreachable, refuses shardd, or lacks something that shardd needs."""

    exit_code = 69


class UnsureError(SharddError):
    """The answer to an act was lost: all of it was done, or nothing."""

    exit_code = 69


class NotMigratedError(DatabaseError):
    """There is no database yet, or it lacks tables, columns or functions of this release."""


class BlockedError(DatabaseError):
    """An open transaction holds a lock that we need; nothing was changed, and another attempt may succeed.

    `blocker`: which session that is, since when, and how to end it, if that could be found out.
    """

    exit_code = 75

    blocker: str | None = None


class RefusedDataError(DatabaseError):
    """PostgreSQL rejects a value; another attempt would fail in the same way."""


class RowRefusedError(RefusedDataError):
    """shardd's own checks in the database reject a row; the text names the column, the value and the fix."""

    exit_code = 65


class SourceError(SharddError):
    """The data of another system cannot be read as it is."""

    exit_code = 65


class AlreadyRunningError(SharddError):
    """Another supervisor holds this state folder."""

    exit_code = 75


class CopiedStateError(SharddError):
    """The state folder with the embedded database is a copy of another one."""

    exit_code = 75


class NotRunningError(SharddError):
    """No supervisor answers on the control socket."""

    exit_code = 3


class NotStartedError(SharddError):
    """The supervisor is starting, and cannot do yet what was asked."""

    exit_code = 75


class UnreachableError(SharddError):
    """A supervisor runs, but a command cannot reach it."""

    exit_code = 69


class ConfigError(SharddError):
    """The config file cannot be used; the text lists every error in it."""

    exit_code = 78

    lacks_variables = False
    """Whether a variable that the file names has no value."""
    lacks_only_variables = False
    """Whether that is all that is wrong."""


class PairingFailure(StrEnum):
    """Why a device was not paired."""

    WRONG_NUMBER = "wrong_number"  # the device has another number
    TAKEN = "taken"  # another device has this number
    TIMEOUT = "timeout"  # nobody linked a phone
    NO_CODE = "no_code"  # WhatsApp gave none for this number
    NOT_LINKED = "not_linked"  # the phone or WhatsApp refused
    NO_LOGIN = "no_login"  # linked, but the new session could not log in
    OUTDATED = "outdated"  # WhatsApp refuses the library's version
    BANNED = "banned"
    UNREACHABLE = "unreachable"  # WhatsApp, or the proxy
    BUSY = "busy"  # another process pairs the device
    CHANGED = "changed"  # the device was changed or removed meanwhile
    DATABASE = "database"
    ENDED = "ended"  # its process, without an outcome


class PairingError(SharddError):
    """A device was not paired; nothing has changed, so it can be tried again."""

    exit_code = 75

    def __init__(self, text: str, failure: PairingFailure = PairingFailure.ENDED) -> None:
        super().__init__(text)
        self.failure = failure


class JournalError(SharddError):
    """A shard's journal cannot be read or written, so no message of that shard may leave."""


class JournalHeldError(JournalError):
    """Another process holds the lock of a journal."""


class UnsafeFileError(SharddError):
    """A file or folder in the state folder is not as the daemon created it; the text names it and the fix."""

    exit_code = 78


class SendError(SharddError):
    """What is known about a message that was not sent, or may not have been."""

    error_class = ErrorClass.UNKNOWN

    def __init__(self, text: str, *, retry_after: float | None = None, error_class: ErrorClass | None = None) -> None:
        """`retry_after`: seconds that the peer asked us to wait, if it did.

        `error_class`: for retrying or cancelling many jobs at once; None: the usual one of this error.
        """
        super().__init__(text)
        self.retry_after = retry_after
        self.error_class = error_class or self.error_class


class PermanentError(SendError):
    """The message was not sent, and no attempt can succeed."""


class TransientError(SendError):
    """The message was not sent; a later attempt may succeed."""


class ExpiredError(SendError):
    """The message was not sent because it had expired."""

    error_class = ErrorClass.EXPIRED


class OptedOutError(SendError):
    """The message was not sent because its recipient has opted out."""

    error_class = ErrorClass.OPTED_OUT


class DeviceUnavailableError(SendError):
    """The message was not sent because its device cannot send now; the job waits for the device."""

    error_class = ErrorClass.DEVICE

    def __init__(
        self,
        text: str,
        *,
        state: str | None = None,
        until: datetime | None = None,
        retry_after: float | None = None,
        whole_account: bool = False,
        error_class: ErrorClass | None = None,
    ) -> None:
        """What is wrong with the device.

        `state`: the device state (`shardd.states.DeviceState`) that this error proves; None if the device is only unreachable
        at the moment. `until`: when the state ends. `retry_after`: seconds until the device is tried again if its state does
        not change. `whole_account`: the wait applies to every device of the same account.
        """
        super().__init__(text, retry_after=retry_after, error_class=error_class)
        self.state = state
        self.until = until
        self.whole_account = whole_account


class InDoubtError(SendError):
    """The message was handed over, and it is unknowable whether it was sent."""
