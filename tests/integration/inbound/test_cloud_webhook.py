"""The listener for Meta's notifications over real HTTP: what is accepted, and what is passed on."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from shardd import ipc
from shardd.config import CloudWebhookConfig
from shardd.errors import DeviceUnavailableError, SharddError
from shardd.incoming import Incoming
from shardd.supervisor.inbound.cloud_webhook import MAX_BODY, CloudWebhook
from shardd.supervisor.inbound.unattributed import UnattributedReports
from tests.unit.inbound.test_cloud_notifications import NUMBER, notification, status

SECRET = "app-secret-of-this-test"
WORD = "word-of-this-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@dataclass
class Ears:
    """What was passed on, and where the listener is."""

    url: str
    http: aiohttp.ClientSession
    receipts: list[ipc.Receipt] = field(default_factory=list)
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    unattributed: UnattributedReports = field(default_factory=UnattributedReports)
    deaf: bool = False

    unavailable: list[tuple[str, str, float]] = field(default_factory=list)

    async def keep(self, receipts: Sequence[ipc.Receipt]) -> None:
        if self.deaf:
            raise RuntimeError("no room")
        self.receipts += receipts

    def cannot_send(self, device_id: str, error: DeviceUnavailableError, at: float) -> None:
        self.unavailable.append((device_id, str(error), at))

    async def incoming(self, messages: Sequence[Incoming]) -> None:
        self.texts += [(message.device_id, str(message.number), message.text) for message in messages]

    async def notify(self, said: Any, signed: str | None = None) -> int:
        """The status of the answer. `signed` None: as Meta would."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        headers = {"X-Hub-Signature-256": signature(body) if signed is None else signed}
        async with self.http.post(self.url, data=body, headers=headers) as answer:
            return answer.status


def config_at(port: int) -> CloudWebhookConfig:
    return CloudWebhookConfig(listen=f"127.0.0.1:{port}", path="/hook", app_secret=SECRET, verify_token=WORD)


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    config = config_at(free_port())
    async with aiohttp.ClientSession() as http:
        ears = Ears(f"http://{config.listen}/hook", http)
        webhook = CloudWebhook(
            config,
            lambda numbers: {number: ["one", "two"] if number == NUMBER else [] for number in numbers},
            receipts=ears.keep,
            incoming=ears.incoming,
            unavailable=ears.cannot_send,
            unattributed=ears.unattributed,
        )
        await webhook.start()
        yield ears
        await webhook.close()


async def test_signed_notifications_are_passed_on(ears: Ears) -> None:
    said = notification(
        statuses=[status("delivered"), status("failed", errors=[{"code": 131026, "title": "no"}])],
        messages=[{"id": "wamid.2", "from": "628", "text": {"body": "STOP"}}],
    )
    assert await ears.notify(said) == 200
    delivered, failed = ears.receipts[:2], ears.receipts[2:]
    assert delivered == [
        ipc.Receipt(device, ["wamid.1"], "delivered", 1700000000.0, addresses=("+628",)) for device in ("one", "two")
    ]
    assert [(r.device_id, r.message_ids, r.kind, r.error, r.error_class) for r in failed] == [
        (device, ["wamid.1"], "failed", "131026: no", "recipient") for device in ("one", "two")
    ]
    assert ears.texts == [("one", "+628", "STOP")]
    assert not ears.unavailable


async def test_an_error_of_the_account_is_passed_on_once_its_receipt_is_kept(ears: Ears) -> None:
    said = notification(statuses=[status("failed", errors=[{"code": 131042, "title": "unpaid"}])])
    ears.deaf = True
    assert await ears.notify(said) == 503
    assert not ears.unavailable
    ears.deaf = False
    assert await ears.notify(said) == 200
    assert ears.unavailable == [(device, "131042: unpaid", 1700000000.0) for device in ("one", "two")]


async def test_of_an_unknown_number_only_messages_are_passed_on(ears: Ears) -> None:
    said = notification(
        statuses=[status("read")],
        messages=[{"id": "wamid.2", "from": "628", "text": {"body": "STOP"}}],
        metadata={"phone_number_id": "999"},
    )
    assert await ears.notify(said) == 200
    assert not ears.receipts
    assert ears.texts == [("phone_number_id 999", "+628", "STOP")]
    assert ears.unattributed.count == 2


@pytest.mark.parametrize("signed", ["", "sha256=", "sha256=" + "0" * 64, "sha1=abc", "sha256=é", "sha256=\udcff"])
async def test_a_wrong_signature_is_refused(ears: Ears, signed: str) -> None:
    said = notification(statuses=[status("read")])
    assert await ears.notify(said, signed) == 401
    assert await ears.notify(said, signature(json.dumps(said).encode(), "another-secret")) == 401
    assert await ears.notify(json.dumps(said).encode() + b" ", signature(json.dumps(said).encode())) == 401
    assert not ears.receipts


async def test_what_could_not_be_kept_is_requested_again(ears: Ears) -> None:
    ears.deaf = True
    said = notification(statuses=[status("failed")])
    assert await ears.notify(said) == 503
    ears.deaf = False
    assert await ears.notify(said) == 200
    assert len(ears.receipts) == 2


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
async def test_what_is_not_json_is_refused(ears: Ears, body: bytes) -> None:
    assert await ears.notify(body) == 400


async def test_a_body_that_is_too_large_is_refused(ears: Ears) -> None:
    assert await ears.notify(b" " * (MAX_BODY + 1)) == 413


async def test_the_registration_repeats_the_challenge_if_the_token_is_right(ears: Ears) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": WORD, "hub.challenge": "1158201444<b>"}
    async with ears.http.get(ears.url, params=query) as answer:
        assert (answer.status, await answer.text()) == (200, "1158201444<b>")
        assert answer.content_type == "text/plain"
    for wrong in ({"hub.verify_token": "another"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": "é"}):
        async with ears.http.get(ears.url, params=query | wrong) as answer:
            assert answer.status == 403
    async with ears.http.get(ears.url) as answer:
        assert answer.status == 403


async def test_a_port_in_use_is_reported(ears: Ears) -> None:
    port = int(ears.url.split(":")[2].split("/")[0])
    second = CloudWebhook(
        config_at(port),
        lambda _: {},
        receipts=ears.keep,
        incoming=ears.incoming,
        unavailable=ears.cannot_send,
        unattributed=ears.unattributed,
    )
    with pytest.raises(SharddError, match=rf"webhook.listen 127.0.0.1:{port}: Address already in use: choose another"):
        await second.start()
