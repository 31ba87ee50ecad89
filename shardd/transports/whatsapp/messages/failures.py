"""What the library's events and error texts mean: for the device, and for the message.

The library reports events without a text and errors as strings. Only this module interprets them; every line of its tables was
seen against a protocol-level server or is in whatsmeow's source. An unknown text never counts as proof of anything.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, SendError, TransientError
from shardd.states import DeviceState
from shardd.storable import MAX_TIME
from shardd.transports.whatsapp.version import installed_library
from shardd.urls import scrub_urls

RATE_BACKOFF: Final = 60.0
"""Seconds that a device backs off after WhatsApp reported too many requests."""
UNKNOWN_BAN: Final = 3600.0
"""Seconds for which a ban is assumed to last if WhatsApp does not say how long."""
_MOST_DIGITS: Final = 10
"""Of a number of seconds."""
OUTDATED_RETRY: Final = 3600.0
"""Seconds until a device may log in again that alone was refused for the library's version."""

# Neonize.proto, ConnectFailureReason, in WhatsApp's own numbers.
_LOGOUT_REASONS: Final = MappingProxyType(
    {
        2: "the phone removed it (401)",
        4: "the account is locked, or its main phone is gone (403)",
        5: "the account is banned or unknown (406)",
    }
)
_FAILURE_NAMES: Final = MappingProxyType(
    {1: "400", 6: "405", 7: "409, bad user agent", 8: "500", 9: "501, experimental", 10: "503"}
)
_SERVER_REASONS: Final = frozenset({8, 9, 10})
# Neonize.proto, TemporaryBan.TempBanReason.
_BAN_REASONS: Final = MappingProxyType(
    {
        1: "it wrote to too many people who do not have it as a contact",
        2: "too many people blocked it",
        3: "it created too many groups with people who do not have it as a contact",
        4: "it sent the same message too often",
        5: "it sent too many messages to a broadcast list",
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a client is of no further use. `state` None: the device's state is unchanged. `until`: POSIX seconds."""

    text: str
    state: DeviceState | None = None
    until: float | None = None
    retry_after: float | None = None
    error_class: ErrorClass = ErrorClass.ACCOUNT

    def as_error(self) -> DeviceUnavailableError:
        """The error that a send raises for it."""
        until = datetime.fromtimestamp(self.until, UTC) if self.until is not None else None
        return DeviceUnavailableError(
            self.text,
            state=self.state and self.state.value,
            until=until,
            retry_after=self.retry_after,
            error_class=self.error_class,
        )


def logged_out(event: Any) -> Failure:
    """LoggedOut: the library deletes the session."""
    reason = _LOGOUT_REASONS.get(event.Reason, f"reason {event.Reason}")
    return Failure(f"WhatsApp ended this session: {reason}", DeviceState.LOGGED_OUT)


def replaced(_: Any) -> Failure:
    """StreamReplaced: the same session logged in elsewhere."""
    return Failure("another client logged in with this session", DeviceState.REPLACED)


def banned(event: Any) -> Failure:
    """TemporaryBan: `Expire` is seconds from now."""
    reason = _BAN_REASONS.get(event.Code, f"code {event.Code}")
    return Failure(f"WhatsApp banned this account for a time: {reason}", DeviceState.BANNED, time.time() + event.Expire)


def outdated(_: Any = None) -> Failure:
    """ClientOutdated: failure 405. Also what a login that is held would end with."""
    return Failure(
        f"WhatsApp refuses this version of the library ({installed_library()}, failure 405)",
        DeviceState.CLIENT_OUTDATED,
        time.time() + OUTDATED_RETRY,
        error_class=ErrorClass.DEVICE,
    )


def refused(event: Any) -> Failure:
    """ConnectFailure: any other failure of a login."""
    name = _FAILURE_NAMES.get(event.Reason, f"reason {event.Reason}")
    detail = f": {event.Message}" if event.Message else ""
    error_class = ErrorClass.SERVER if event.Reason in _SERVER_REASONS else ErrorClass.ACCOUNT
    return Failure(f"WhatsApp refused the login ({name}){detail}", retry_after=RATE_BACKOFF, error_class=error_class)


_ATTRIBUTES: Final = r"(?: [a-z_]+=\"[^\"<>]*\")*"
_LOGIN_REFUSAL: Final = re.compile(rf"(Temporary ban|Unknown) connect failure: <failure({_ATTRIBUTES})/?>")


def login_refusal(line: str) -> Failure | None:
    """In a line of the library's log; None: it is another line.

    The library cannot pass on a refusal with a number that it does not know (goneonize/utils/encoder.go:
    `EncodeTemporaryBan`, `EncodeConnectFailureReason`), but whatsmeow logs its stanza (connectionevents.go:
    `handleConnectFailure`).
    """
    if (match := _LOGIN_REFUSAL.match(line)) is None:
        return None
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', match[2]))
    if match[1] == "Unknown":
        reason = fields.get("reason", "no reason")
        return Failure(f"WhatsApp refused the login ({reason})", retry_after=RATE_BACKOFF)
    expire = fields.get("expire", "")
    seconds = float(expire) if expire.isdecimal() and len(expire) < _MOST_DIGITS else UNKNOWN_BAN
    text = f"WhatsApp banned this account for a time: code {fields.get('code')}"
    return Failure(text, DeviceState.BANNED, time.time() + seconds)


def is_unencodable(text: str) -> bool:
    """Whether the library ended because it could not encode an event: the error of Go's protobuf library."""
    return text.startswith("proto:")


def stream_error(event: Any) -> Failure:
    """StreamError: a code that whatsmeow does not know."""
    text = f"WhatsApp ended the connection (stream error {event.Code or 'without a code'})"
    return Failure(text, error_class=ErrorClass.CONNECTION)


@dataclass(frozen=True, slots=True)
class RestrictionReport:
    """What WhatsApp reports about the restriction on writing to new contacts."""

    active: bool
    until: float | None
    """POSIX seconds; None: WhatsApp did not report it."""


_REPORT: Final = re.compile(
    rf"<notification{_ATTRIBUTES} type=\"mex\"{_ATTRIBUTES}><update{_ATTRIBUTES}>(\{{.*\}})</update></notification>"
)


def restriction_report(line: str) -> RestrictionReport | None:
    """In a line of the library's debug log, which has each stanza that it receives; None: it is another line.

    whatsmeow has an event for it (types/events/events.go: NotifyAccountReachoutTimelock), which neonize 0.5.2 does not pass on.
    """
    if "xwa2_notify_account_reachout_timelock" not in line or (match := _REPORT.fullmatch(line)) is None:
        return None
    try:
        found = json.loads(match[1])["data"]["xwa2_notify_account_reachout_timelock"]
        until = float(found.get("time_enforcement_ends") or 0)
        return RestrictionReport(bool(found.get("is_active")), until if 0 < until < MAX_TIME else None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True, slots=True)
class SendContext:
    """What an error text is read with."""

    recipient: str
    restricted_until: float
    """POSIX seconds: until when the device must not write to new contacts, if the error is a restriction."""


def _server_refused(match: re.Match[str], context: SendContext) -> SendError:
    """An ack with an error is proof that the server did not take the message."""
    code = int(match[1])
    if code == 463:
        return Failure(
            # It becomes the device's reason: the number would stay there when the person is forgotten.
            "WhatsApp does not let this account write to new contacts for now (463); the recipient is one",
            DeviceState.RESTRICTED,
            context.restricted_until,
        ).as_error()
    if code == 429:
        return _too_fast("sends too fast")
    if code in {400, 403, 404, 405, 406}:
        error_class = ErrorClass.RECIPIENT if code in {403, 404} else ErrorClass.CONTENT
        return PermanentError(f"WhatsApp refused this message to {context.recipient} ({code})", error_class=error_class)
    return TransientError(f"WhatsApp did not take the message (error {code})", error_class=ErrorClass.SERVER)


def _too_fast(what: str) -> SendError:
    text = f"WhatsApp reports that this account {what} (429)"
    return DeviceUnavailableError(text, retry_after=RATE_BACKOFF, error_class=ErrorClass.RATE_LIMIT)


def _rate_limited(_: re.Match[str], __: SendContext) -> SendError:
    return _too_fast("asks too often")


def _unknown_recipient(_: re.Match[str], context: SendContext) -> SendError:
    return PermanentError(f"{context.recipient} is not on WhatsApp", error_class=ErrorClass.RECIPIENT)


def _no_group(_: re.Match[str], context: SendContext) -> SendError:
    text = f"group {context.recipient} does not exist, or this account is not a member of it"
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _not_connected(_: re.Match[str], __: SendContext) -> SendError:
    return DeviceUnavailableError(
        "the connection to WhatsApp ended before the message left", error_class=ErrorClass.CONNECTION
    )


def _query_failed(match: re.Match[str], __: SendContext) -> SendError:
    refused = re.search("info query returned|<error ", match.string) is not None
    did = "refused" if refused else "did not answer"
    text = f"WhatsApp {did} a request that precedes the message: {match.string}"
    return TransientError(text, error_class=ErrorClass.SERVER if refused else _no_answer(match.string))


def _unsendable(match: re.Match[str], context: SendContext) -> SendError:
    error_class = ErrorClass.CONTENT if "too large" in match.string else ErrorClass.RECIPIENT
    return PermanentError(f"a message to {context.recipient} cannot be sent: {match.string}", error_class=error_class)


def _store_failed(match: re.Match[str], __: SendContext) -> SendError:
    return store_error(match.string)


# The first match decides. whatsmeow queries (info queries), encrypts, sends one frame, then waits for its ack: an error of a step
# before the frame is proof that nothing left.
_SEND_ERRORS: Final[tuple[tuple[str, Callable[[re.Match[str], SendContext], SendError]], ...]] = (
    (r"server returned error (\d+)$", _server_refused),
    (r"no LID found for .* from server", _unknown_recipient),
    (r"failed to get group members: .*(not participating|does not exist|403|404)", _no_group),
    (r"(info query returned status 429|rate-overlimit)", _rate_limited),
    (r"websocket disconnected before info query( \(retry\))? returned response", _not_connected),
    (r"(websocket not connected|frame socket is closed)$", _not_connected),
    (r"^(the store doesn't contain a device JID|client is nil)$", _not_connected),
    (r"info query (timed out|returned)", _query_failed),
    (r"^failed to (get user info|get device list|get group members)", _query_failed),
    (r"^failed to (get LID for PN|fetch LID mappings|prefetch sessions|save cached sessions)", _store_failed),
    (r"^failed to (create sender key distribution message to send|encrypt group message to send)", _store_failed),
    (
        r"^(can't send message to unknown server|message recipient must be a user JID|sending to non-status)",
        _unsendable,
    ),
    (r"^(failed to send message node: )?frame too large", _unsendable),
)


def send_error(text: str, context: SendContext) -> SendError:
    """What an error text of `send_message` proves about the message."""
    text = scrub_urls(text)
    for pattern, read in _SEND_ERRORS:
        if match := re.search(pattern, text):
            return read(match, context)
    return InDoubtError(
        f"no answer from WhatsApp to a message that was handed over: {text}", error_class=_no_answer(text)
    )


# Why a device cannot be encrypted for: what came of the request for its keys, or an error of the session store on the way
# (`store/signal.go` and `store/sqlstore` of whatsmeow, `lib/pq`, Go's `net`). The first match decides.
_KEY_ERRORS: Final[tuple[tuple[str, Callable[[re.Match[str], SendContext], SendError]], ...]] = (
    (r'(info query returned status 429|rate-overlimit|<error code="429")', _rate_limited),
    (r"websocket disconnected before info query( \(retry\))? returned response", _not_connected),
    (r"(websocket not connected|frame socket is closed)$", _not_connected),
    (r'info query (timed out|returned)|<error code="5\d\d"', _query_failed),
    (r"failed to (save|check|clear|load|store|deserialize) ", _store_failed),
    (r"\b(pq|sql): |driver: bad connection|dial tcp|read tcp|write tcp|\bEOF$", _store_failed),
)


def unreadable(reason: str, context: SendContext) -> SendError:
    """What to do about a message that nobody could have read, which therefore did not leave; `reason`: the library's words."""
    reason = scrub_urls(reason)
    for pattern, read in _KEY_ERRORS:
        if match := re.search(pattern, reason):
            return read(match, context)
    return TransientError(
        f"{context.recipient} could not have read the message: {reason}", error_class=ErrorClass.RECIPIENT
    )


def store_error(text: str) -> SendError:
    """What an error of the session store means: the job waits for the database."""
    return DeviceUnavailableError(f"the session store failed: {scrub_urls(text)}")


def upload_error(text: str) -> SendError:
    """What an error text of `upload` means: the message itself has not been handed over."""
    text = scrub_urls(text)  # Go quotes the whole URL, with the upload token
    if re.search(r"status code (400|413|415)\b", text):
        return PermanentError(f"WhatsApp refused the media: {text}", error_class=ErrorClass.CONTENT)
    error_class = ErrorClass.SERVER if "status code" in text else _no_answer(text)
    return TransientError(f"the media could not be uploaded: {text}", error_class=error_class)


def _no_answer(text: str) -> ErrorClass:
    """Why no answer came, as far as the text shows."""
    return ErrorClass.TIMEOUT if re.search(r"tim(ed|e) ?out|deadline exceeded", text) else ErrorClass.CONNECTION
