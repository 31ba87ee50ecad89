"""Every platform misbehaving in every way: what counts as sent, not sent or in doubt, and that nothing is posted twice."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from shardd.errors import (
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    OptedOutError,
    PermanentError,
    SendError,
    TransientError,
)
from shardd.states import DeviceState
from tests.fixtures.platforms import MakeDevice
from tests.platform_server import server as steps
from tests.platform_server.server import PlatformServer, Step, says
from tests.whatsapp_server.crypto.pki import Pki

PLATFORMS = ["wablas", "whacenter", "cloud_api"]
HTML = b"<html>Bad Gateway</html>"

DOUBTFUL: list[tuple[str, Step]] = [
    ("reset before the request was read", steps.reset_before_read),
    ("reset after the request was read", steps.reset_after_read),
    ("end without an answer", steps.hang_up_after_read),
    ("cut off", steps.cut_off),
    ("endless", steps.endless),
    ("no HTTP", steps.no_http),
    ("no JSON", says(200, b"<html>Thank you</html>")),
    ("nothing", says(200)),
    ("no status", says(200, {"message": "Success", "data": {}})),
    ("status of a wrong type", says(200, {"status": "true", "messages": [{"id": 7}]})),
    ("a list", says(200, b"[true]")),
    ("deep JSON", says(200, b"[" * 100_000)),
    ("500", says(500, HTML)),
    ("502", says(502, HTML)),
    ("503, which may come after the work", says(503, HTML, Retry_After="1")),
    ("500 and a contradiction", says(500, {"status": True, "messages": [{"id": "x"}]})),
    ("429 and a contradiction", says(429, {"status": True, "error": {"code": "?"}, "messages": [{"id": "x"}]})),
    ("408", says(408, HTML)),
    ("302, which may come after the work", says(302, Location="http://127.0.0.1:1/login")),
]


@pytest.mark.parametrize("transport", PLATFORMS)
@pytest.mark.parametrize("step", [step for _, step in DOUBTFUL], ids=[name for name, _ in DOUBTFUL])
async def test_what_nobody_can_know_is_in_doubt_and_is_not_repeated(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str, step: Step
) -> None:
    platforms.next(step)
    error = await (await make_platform_device(transport)).fail()
    assert isinstance(error, InDoubtError), repr(error)
    assert platforms.connections == 1
    assert len(platforms.received) == (0 if step is steps.reset_before_read else 1)


@pytest.mark.parametrize("transport", PLATFORMS)
@pytest.mark.parametrize("step", [steps.slow, steps.stall])
async def test_an_answer_that_does_not_come_in_time_is_in_doubt(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str, step: Step
) -> None:
    platforms.next(step)
    device = await make_platform_device(transport, connect_timeout=0.2, answer_timeout=0.3)
    assert isinstance(await device.fail(), InDoubtError)
    assert (platforms.connections, len(platforms.received)) == (1, 1)


async def test_a_slow_answer_is_waited_for(platforms: PlatformServer, make_platform_device: MakeDevice) -> None:
    device = await make_platform_device("wablas")
    platforms.next(steps.slow)
    prepared = await device.prepare(body="hello")
    sending = asyncio.create_task(device.hand_over(prepared))
    await platforms.until_received(1)
    platforms.released.set()
    assert (await sending).message_id == f"wablas.{platforms.received[0].number}"


@pytest.mark.parametrize("transport", PLATFORMS)
@pytest.mark.parametrize(
    ("retry_after", "bounds"),
    [
        ("7", (7, 7)),
        (None, (60, 60)),
        ("soon", (60, 60)),
        ("-1", (60, 60)),
        ("99999999", (86400, 86400)),
        pytest.param(formatdate(time() + 3600, usegmt=True), (1, 3600), id="in an hour"),
    ],
)
async def test_429_rests_the_account_as_long_as_it_says(
    platforms: PlatformServer,
    make_platform_device: MakeDevice,
    transport: str,
    retry_after: str | None,
    bounds: tuple[int, int],
) -> None:
    header = {} if retry_after is None else {"Retry_After": retry_after}
    platforms.next(says(429, {"status": False, "message": "slow down", "error": {"code": 130429}}, **header))
    device = await make_platform_device(transport)
    error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.retry_after is not None
    assert bounds[0] <= error.retry_after <= bounds[1]
    # Meta's 130429 is a limit of one phone number; of the others, nothing says whose limit it is.
    whole = transport != "cloud_api"
    assert (error.state, error.whole_account, error.error_class) == (None, whole, ErrorClass.RATE_LIMIT)
    if whole:  # the next one does not even ask
        again = await device.fail()
        assert isinstance(again, DeviceUnavailableError)
        assert again.retry_after is not None
        assert again.retry_after <= error.retry_after
    assert platforms.connections == 1


@pytest.mark.parametrize("transport", PLATFORMS)
@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_is_not_followed(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str, status: int
) -> None:
    platforms.next(says(status, Location=f"{platforms.base}/api/send"))
    error = await (await make_platform_device(transport)).fail()
    assert isinstance(error, DeviceUnavailableError)
    assert "has moved" in str(error)
    assert platforms.connections == 1


@pytest.mark.parametrize("transport", PLATFORMS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, DeviceUnavailableError),
        (403, DeviceUnavailableError),
        (404, DeviceUnavailableError),
        (413, PermanentError),
        (422, PermanentError),
    ],
)
async def test_a_status_that_means_not_carried_out(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str, status: int, kind: type[SendError]
) -> None:
    platforms.next(says(status, HTML))
    error = await (await make_platform_device(transport)).fail()
    assert type(error) is kind
    if isinstance(error, DeviceUnavailableError):
        assert error.state == (DeviceState.LOGGED_OUT if status == 401 else None)


CLIENTS = "answers that published clients record; the platform's own reference was not readable"
NOWHERE = "no source was found: what such a sentence would mean"
SENTENCES: list[tuple[str, type[SendError], ErrorClass, str]] = [
    ("token invalid", DeviceUnavailableError, ErrorClass.ACCOUNT, CLIENTS),
    ("secret key invalid", DeviceUnavailableError, ErrorClass.ACCOUNT, CLIENTS),
    ("device not found", DeviceUnavailableError, ErrorClass.ACCOUNT, CLIENTS),
    ("Invalid API Key", DeviceUnavailableError, ErrorClass.ACCOUNT, CLIENTS),
    ("Device ID tidak ditemukan", DeviceUnavailableError, ErrorClass.ACCOUNT, NOWHERE),
    ("device not connected or not found", DeviceUnavailableError, ErrorClass.DEVICE, CLIENTS),
    ("your device is disconnected, scan QR", DeviceUnavailableError, ErrorClass.DEVICE, NOWHERE),
    ("Too many requests", DeviceUnavailableError, ErrorClass.RATE_LIMIT, NOWHERE),
    ("kuota habis", DeviceUnavailableError, ErrorClass.ACCOUNT, NOWHERE),
    ("phone number is not registered", PermanentError, ErrorClass.RECIPIENT, NOWHERE),
    ("wrong number", PermanentError, ErrorClass.RECIPIENT, NOWHERE),
    ("image url is broken", PermanentError, ErrorClass.CONTENT, NOWHERE),
    ("no", PermanentError, ErrorClass.UNKNOWN, NOWHERE),
    ("", PermanentError, ErrorClass.UNKNOWN, NOWHERE),
]


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("words", ["message", "msg"])
@pytest.mark.parametrize("row", SENTENCES, ids=[row[0] for row in SENTENCES])
async def test_status_false_is_not_sent(
    platforms: PlatformServer,
    make_platform_device: MakeDevice,
    row: tuple[str, type[SendError], ErrorClass, str],
    words: str,
    status: int,
) -> None:
    sentence, kind, error_class, _ = row
    platforms.otherwise = says(status, {"status": False, words: sentence})
    for transport in ("wablas", "whacenter"):
        error = await (await make_platform_device(transport)).fail()
        assert (type(error), error.error_class) == (kind, error_class)
        assert sentence in str(error)


async def test_a_refusal_that_repeats_the_message_is_not_read_for_its_words(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    body = "your token is invalid"
    platforms.next(says(200, {"status": False, "message": f"will not send: {body}"}))
    assert isinstance(await (await make_platform_device("wablas")).fail(body=body), PermanentError)


async def test_a_server_that_refuses_without_blaming_the_message_is_asked_again(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    platforms.next(says(500, {"status": False, "message": "boom"}))
    error = await (await make_platform_device("wablas")).fail()
    assert isinstance(error, TransientError)
    assert error.error_class == ErrorClass.SERVER


CODES: list[tuple[int, dict[str, Any], type[SendError], ErrorClass]] = [
    # The statuses are those of Meta's list, where it names one; a client must not rely on them.
    (400, {"code": 80007}, DeviceUnavailableError, ErrorClass.RATE_LIMIT),
    (400, {"code": 17}, DeviceUnavailableError, ErrorClass.RATE_LIMIT),
    (400, {"code": 613}, DeviceUnavailableError, ErrorClass.RATE_LIMIT),
    (400, {"code": 130429}, DeviceUnavailableError, ErrorClass.RATE_LIMIT),
    (400, {"code": 131056}, TransientError, ErrorClass.RATE_LIMIT),
    (429, {"code": 131056}, TransientError, ErrorClass.RATE_LIMIT),
    (400, {"code": 131048}, DeviceUnavailableError, ErrorClass.RATE_LIMIT),
    (400, {"code": 131064}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (401, {"code": 190}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (401, {"code": 0}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (400, {"code": 102}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (400, {"code": 104}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (403, {"code": 200}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (400, {"code": 131042}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (400, {"code": 100, "error_subcode": 33}, DeviceUnavailableError, ErrorClass.ACCOUNT),
    (400, {"code": 131057}, DeviceUnavailableError, ErrorClass.SERVER),
    (400, {"code": 131063}, TransientError, ErrorClass.ACCOUNT),
    (400, {"code": 134011}, TransientError, ErrorClass.ACCOUNT),
    (400, {"code": 100}, PermanentError, ErrorClass.CONTENT),
    (400, {"code": 131026}, PermanentError, ErrorClass.RECIPIENT),
    (403, {"code": 130497}, PermanentError, ErrorClass.RECIPIENT),
    (400, {"code": 130403}, PermanentError, ErrorClass.RECIPIENT),
    (400, {"code": 131047}, PermanentError, ErrorClass.CONTENT),
    (400, {"code": 131050}, OptedOutError, ErrorClass.OPTED_OUT),
    (404, {"code": 132001}, PermanentError, ErrorClass.CONTENT),
    (503, {"code": 131016}, TransientError, ErrorClass.SERVER),
    (500, {"code": 131000}, TransientError, ErrorClass.SERVER),
    (400, {"code": 1}, TransientError, ErrorClass.SERVER),
    (400, {"code": 999999}, PermanentError, ErrorClass.UNKNOWN),
    (500, {"code": 999999}, InDoubtError, ErrorClass.SERVER),
    (400, {"code": "100"}, PermanentError, ErrorClass.CONTENT),
    (200, {"code": None}, InDoubtError, ErrorClass.SERVER),
]


@pytest.mark.parametrize("row", CODES, ids=[f"{status} {error}" for status, error, *_ in CODES])
async def test_codes_of_the_cloud_api(
    platforms: PlatformServer,
    make_platform_device: MakeDevice,
    row: tuple[int, dict[str, Any], type[SendError], ErrorClass],
) -> None:
    status, error, kind, error_class = row
    platforms.next(says(status, {"error": error | {"message": "(#1) So it is", "error_data": {"details": "and so"}}}))
    raised = await (await make_platform_device("cloud_api")).fail()
    assert (type(raised), raised.error_class) == (kind, error_class)
    if error["code"] in {0, 102, 104, 190}:
        assert isinstance(raised, DeviceUnavailableError)
        assert raised.state == DeviceState.LOGGED_OUT
    if isinstance(error["code"], int):
        assert f"{error['code']}: (#1) So it is: and so" in str(raised)
    assert ("this code is not on Meta's list of 18 June 2026" in str(raised)) == (error["code"] == 999999)


async def test_a_secret_key_of_wablas_follows_the_token(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    """wablas.com/documentation/api: `Authorization: token.secret_key`."""
    device = await make_platform_device("wablas", settings={"token": "some-token", "secret_key": "some-key"})
    await device.send(body="hello")
    assert [received.key for received in platforms.received] == ["some-token.some-key"]


@pytest.mark.parametrize("transport", PLATFORMS)
async def test_a_platform_that_repeats_the_key_does_not_get_it_into_our_errors(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str
) -> None:
    key = {"wablas": "to/ken.value", "whacenter": "some-id", "cloud_api": "EAAB+/x"}[transport]
    settings = {"wablas": {"token": key}, "whacenter": {"device_id": key}}.get(
        transport, {"phone_number_id": "1", "token": key}
    )
    said = f"{key} is bad, {key.replace('/', chr(92) + '/')} too"
    for answer in (
        says(200, {"status": False, "message": said, "msg": said, "error": {"code": 100, "message": said}}),
        says(200, said.encode()),
    ):
        platforms.next(answer)
        error = await (await make_platform_device(transport, settings=settings)).fail()
        assert "*** is bad, *** too" in str(error)


@pytest.mark.parametrize("transport", PLATFORMS)
async def test_nobody_there_is_certainly_not_sent(make_platform_device: MakeDevice, transport: str) -> None:
    with socket.socket() as taken:  # bound, but not listening: refused
        taken.bind(("127.0.0.1", 0))
        device = await make_platform_device(transport, f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert (error.state, error.whole_account, error.error_class) == (None, False, ErrorClass.CONNECTION)
    assert "nothing was sent" in str(error)


async def test_a_host_that_does_not_accept_is_certainly_not_sent(make_platform_device: MakeDevice) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # a backlog of one: what comes after it waits in vain
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        device = await make_platform_device(
            "cloud_api", f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.3
        )
        error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert "no connection in time" in str(error)


async def test_a_certificate_that_nobody_vouches_for_is_certainly_not_sent(
    make_platform_device: MakeDevice, tmp_path: Path
) -> None:
    server = PlatformServer()
    await server.start(Pki.in_folder(tmp_path).tls_context())
    try:
        error = await (await make_platform_device("wablas", server.base)).fail()
    finally:
        await server.stop()
    assert isinstance(error, DeviceUnavailableError)
    assert "certificate" in str(error)
    assert not server.received


async def test_a_name_that_cannot_be_looked_up_is_certainly_not_sent(make_platform_device: MakeDevice) -> None:
    error = await (await make_platform_device("wablas", f"https://{'a' * 64}.invalid")).fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.CONNECTION
