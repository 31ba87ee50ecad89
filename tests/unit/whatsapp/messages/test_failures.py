import time
from types import SimpleNamespace

import pytest

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, SendError, TransientError
from shardd.states import DeviceState
from shardd.transports.whatsapp.messages import failures
from shardd.transports.whatsapp.messages.failures import (
    RestrictionReport,
    SendContext,
    login_refusal,
    restriction_report,
    send_error,
    unreadable,
    upload_error,
)

CONTEXT = SendContext("6281234567890", 1_900_000_000.0)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("server returned error 463", DeviceUnavailableError),
        ("server returned error 429", DeviceUnavailableError),
        ("server returned error 479", TransientError),
        ("server returned error 503", TransientError),
        ("server returned error 403", PermanentError),
        ("no LID found for 6281234567890@s.whatsapp.net from server", PermanentError),
        ("failed to get group members: you're not participating in that group", PermanentError),
        ("failed to get group members: that group does not exist", PermanentError),
        ("failed to get device list: info query returned status 429: rate-overlimit", DeviceUnavailableError),
        ("failed to get device list: info query returned status 500: internal-server-error", TransientError),
        ("failed to get device list: info query timed out", TransientError),
        ("failed to get user info for x to fill LID cache: info query timed out", TransientError),
        (
            "failed to get device list: websocket disconnected before info query returned response",
            DeviceUnavailableError,
        ),
        ("websocket not connected", DeviceUnavailableError),
        ("failed to send message node: websocket not connected", DeviceUnavailableError),
        ("failed to send message node: frame socket is closed", DeviceUnavailableError),
        ("failed to get device list: failed to send usync query: websocket not connected", DeviceUnavailableError),
        ("client is nil", DeviceUnavailableError),
        (
            "failed to get LID for PN 62@s.whatsapp.net: pq: the database system is shutting down",
            DeviceUnavailableError,
        ),
        ("failed to prefetch sessions: driver: bad connection", DeviceUnavailableError),
        (
            "failed to create sender key distribution message to send 3EB0 to 1@g.us: driver: bad connection",
            DeviceUnavailableError,
        ),
        (
            "failed to encrypt group message to send 3EB0 to 1@g.us: failed to store sender key from 1_1:1: EOF",
            DeviceUnavailableError,
        ),
        ("can't send message to unknown server newsletterx", PermanentError),
        # From here on the frame may have left: nothing of this is proof.
        ("websocket disconnected before message send returned response", InDoubtError),
        ("websocket disconnected before message send (retry) returned response", InDoubtError),
        ("timed out waiting for message send response", InDoubtError),
        ("failed to send message node: write tcp 127.0.0.1:1: broken pipe", InDoubtError),
        ("server returned error 463 and more", InDoubtError),
        ("something that nobody has seen", InDoubtError),
        ("", InDoubtError),
    ],
)
def test_an_error_text_proves_what_it_proves_and_no_more(text: str, kind: type[SendError]) -> None:
    assert type(send_error(text, CONTEXT)) is kind


@pytest.mark.parametrize(
    ("reason", "kind", "error_class"),
    [
        (
            "failed to send prekey request: info query returned status 429: rate-overlimit",
            DeviceUnavailableError,
            ErrorClass.RATE_LIMIT,
        ),
        (
            "failed to send prekey request: info query returned status 503: service-unavailable",
            TransientError,
            ErrorClass.SERVER,
        ),
        ('got error getting prekeys: <error code="429" text="x"/>', DeviceUnavailableError, ErrorClass.RATE_LIMIT),
        ('got error getting prekeys: <error code="503" text="x"/>', TransientError, ErrorClass.SERVER),
        ("failed to send prekey request: info query timed out", TransientError, ErrorClass.TIMEOUT),
        (
            "failed to send prekey request: websocket disconnected before info query returned response",
            DeviceUnavailableError,
            ErrorClass.CONNECTION,
        ),
        ("failed to send prekey request: websocket not connected", DeviceUnavailableError, ErrorClass.CONNECTION),
        ("got empty response to prekey request", TransientError, ErrorClass.RECIPIENT),
        ('got error getting prekeys: <error code="404" text="item-not-found"/>', TransientError, ErrorClass.RECIPIENT),
        (
            "invalid signed prekey in prekey response: prekey ID has unexpected number",
            TransientError,
            ErrorClass.RECIPIENT,
        ),
        ("failed to process prekey bundle: invalid signature on device!", TransientError, ErrorClass.RECIPIENT),
        ("WhatsApp returned no keys", TransientError, ErrorClass.RECIPIENT),
        # The session store, wherever it fails on the way.
        (
            "failed to process prekey bundle: failed to check if 1_1:0's identity is trusted: driver: bad connection",
            DeviceUnavailableError,
            ErrorClass.DEVICE,
        ),
        (
            "failed to process prekey bundle: failed to save identity of 1_1:0: pq: the database system is shutting down",
            DeviceUnavailableError,
            ErrorClass.DEVICE,
        ),
        (
            "cipher encryption failed: failed to load session with 1_1:0: dial tcp 127.0.0.1:1: connect: connection refused",
            DeviceUnavailableError,
            ErrorClass.DEVICE,
        ),
        ("failed to check if store has session for 1_1:0: EOF", DeviceUnavailableError, ErrorClass.DEVICE),
    ],
)
def test_why_nobody_could_have_read_a_message_decides_what_waits(
    reason: str, kind: type[SendError], error_class: ErrorClass
) -> None:
    error = unreadable(reason, CONTEXT)
    assert (type(error), error.error_class) == (kind, error_class)
    assert not isinstance(error, InDoubtError)


@pytest.mark.parametrize(
    ("text", "error_class"),
    [
        ("server returned error 463", ErrorClass.ACCOUNT),
        ("server returned error 429", ErrorClass.RATE_LIMIT),
        ("server returned error 503", ErrorClass.SERVER),
        ("server returned error 404", ErrorClass.RECIPIENT),
        ("server returned error 400", ErrorClass.CONTENT),
        ("no LID found for 6281234567890@s.whatsapp.net from server", ErrorClass.RECIPIENT),
        ("failed to get group members: that group does not exist", ErrorClass.RECIPIENT),
        ("failed to get device list: info query returned status 429: rate-overlimit", ErrorClass.RATE_LIMIT),
        ("failed to get device list: info query returned status 500: internal-server-error", ErrorClass.SERVER),
        ("failed to get device list: info query timed out", ErrorClass.TIMEOUT),
        ("websocket not connected", ErrorClass.CONNECTION),
        ("can't send message to unknown server newsletterx", ErrorClass.RECIPIENT),
        ("frame too large (got 20000000 bytes, max 16777216 bytes)", ErrorClass.CONTENT),
        ("failed to prefetch sessions: driver: bad connection", ErrorClass.DEVICE),
        ("timed out waiting for message send response", ErrorClass.TIMEOUT),
        ("failed to send message node: write tcp 127.0.0.1:1: broken pipe", ErrorClass.CONNECTION),
    ],
)
def test_an_error_is_of_a_kind(text: str, error_class: ErrorClass) -> None:
    assert send_error(text, CONTEXT).error_class is error_class


def test_463_says_until_when() -> None:
    error = send_error("server returned error 463", CONTEXT)
    assert isinstance(error, DeviceUnavailableError)
    assert error.state == DeviceState.RESTRICTED
    assert error.until is not None
    assert error.until.timestamp() == CONTEXT.restricted_until


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("upload failed with status code 413", PermanentError),
        ("upload failed with status code 500", TransientError),
        ("failed to execute request: EOF", TransientError),
        ("failed to refresh media connections: info query timed out", TransientError),
    ],
)
def test_an_upload_never_leaves_doubt(text: str, kind: type[SendError]) -> None:
    assert type(upload_error(text)) is kind


@pytest.mark.parametrize(
    ("read", "event", "state", "words"),
    [
        (failures.logged_out, {"Reason": 2}, DeviceState.LOGGED_OUT, "the phone removed it"),
        (failures.logged_out, {"Reason": 99}, DeviceState.LOGGED_OUT, "reason 99"),
        (failures.replaced, {}, DeviceState.REPLACED, "another client"),
        (failures.banned, {"Code": 4, "Expire": 60}, DeviceState.BANNED, "the same message too often"),
        (failures.outdated, {}, DeviceState.CLIENT_OUTDATED, "405"),
        (failures.refused, {"Reason": 1, "Message": "no"}, None, "(400): no"),
        (failures.stream_error, {"Code": "516"}, None, "516"),
    ],
)
def test_an_event_moves_the_device(
    read: object, event: dict[str, object], state: DeviceState | None, words: str
) -> None:
    assert callable(read)
    failure = read(SimpleNamespace(**event))
    assert (failure.state, words in failure.text) == (state, True)
    error = failure.as_error()
    assert error.state == (state.value if state else None)
    assert (error.until is not None) == (state in {DeviceState.BANNED, DeviceState.CLIENT_OUTDATED})


@pytest.mark.parametrize(
    ("line", "state", "words", "seconds"),
    [
        ('Temporary ban connect failure: <failure code="105" expire="60" reason="402"/>', "banned", "code 105", 60),
        ('Temporary ban connect failure: <failure code="105" reason="402"/>', "banned", "code 105", 3600),
        (f'Temporary ban connect failure: <failure expire="{"9" * 400}"/>', "banned", "code None", 3600),
        ('Unknown connect failure: <failure location="lla" reason="418"/>', None, "(418)", None),
        ("Unknown connect failure: <failure/>", None, "(no reason)", None),
    ],
)
def test_a_refusal_that_the_library_only_logs(line: str, state: str | None, words: str, seconds: float | None) -> None:
    failure = login_refusal(line)
    assert failure is not None
    assert (failure.state, words in failure.text) == (state and DeviceState(state), True)
    assert seconds is None if failure.until is None else failure.until - time.time() == pytest.approx(seconds, abs=60)
    assert login_refusal(f'<message notify="{line}">') is None


def mex(data: str, attributes: str = 'from="s.whatsapp.net" id="7" t="1795902863" type="mex"') -> str:
    """As the library logs a stanza (whatsmeow, binary/xml.go)."""
    return f'<notification {attributes}><update op_name="NotificationUserReachoutTimelockUpdate">{data}</update></notification>'


TIMELOCK = '{"data":{"xwa2_notify_account_reachout_timelock":%s}}'


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (
            mex(TIMELOCK % '{"is_active":true,"time_enforcement_ends":"1795990000"}'),
            RestrictionReport(True, 1795990000.0),
        ),
        (mex(TIMELOCK % '{"is_active":true}'), RestrictionReport(True, None)),
        (mex(TIMELOCK % '{"is_active":true,"time_enforcement_ends":"1e300"}'), RestrictionReport(True, None)),
        (mex(TIMELOCK % '{"is_active":false}'), RestrictionReport(False, None)),
        (mex(TIMELOCK % "{}"), RestrictionReport(False, None)),
        (mex(TIMELOCK % '{"is_active":true,"time_enforcement_ends":"soon"}'), None),
        (mex(TIMELOCK % "[]"), None),
        (mex(TIMELOCK % '{"is_active":true'), None),
        (mex(TIMELOCK % "null"), None),
        (mex(TIMELOCK % '{"is_active":false}', 'from="s.whatsapp.net" type="picture"'), None),
        # What a stranger calls himself is an attribute of what he writes.
        ('<message from="1@lid" notify="' + mex(TIMELOCK % '{"is_active":false}') + '" type="text"></message>', None),
        ("Connected", None),
    ],
)
def test_what_whatsapp_reports_about_new_contacts(line: str, report: RestrictionReport | None) -> None:
    assert restriction_report(line) == report
