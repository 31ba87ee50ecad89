"""Parsing of what Wablas and Whacenter post: the shapes that are published, and anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd import ipc
from shardd.incoming import Incoming, IncomingMedia
from shardd.supervisor.inbound.platform_reports import read_report

NOW = 1_700_000_000.0
WABLAS = {
    # The sample of Wablas' webhook, as clients have copied it: "all data POST sent from https://….wablas.com".
    "id": "3EB0C767D26A1B2C",
    "phone": "6281234567890",
    "message": "STOP",
    "pushName": "Budi",
    "isGroup": False,
    "messageType": "text",
    "file": "",
    "url": "",
    "mimeType": "",
    "deviceId": "ABC123",
    "sender": 6285156108635,
    "timestamp": "2023-11-14T12:00:00Z",
    "isFromMe": False,
}
TRACKING = {
    # Wablas, "Webhook Tracking Message", also at manual.test.co.id/docs/api/webhook-tracking-message.
    "id": "wablas.1",
    "phone": "6281234567890",
    "status": "read",
    "device_id": "ABC123",
}
WHACENTER = {
    # As published clients of Whacenter read it.
    "from": "6281234567890",
    "to": "6285156108635",
    "message": "ya",
    "media": "",
    "timestamp": "1700000000",
}


def test_a_message_of_wablas() -> None:
    assert read_report("wablas", "p1", WABLAS, NOW) == Incoming(
        device_id="p1",
        message_id="3EB0C767D26A1B2C",
        addresses=("+6281234567890",),
        at=1699963200.0,
        text="STOP",
        name="Budi",
    )
    form = {name: str(value) for name, value in WABLAS.items()} | {"isGroup": "false", "isFromMe": "true"}
    found = read_report("wablas", "p1", form, NOW)
    assert isinstance(found, Incoming)
    assert (found.own, found.group) == (True, None)


def test_a_message_of_a_group_or_with_a_file() -> None:
    grouped = WABLAS | {"isGroup": True, "group": {"group_id": "120363045069592672", "subject": "x"}}
    found = read_report("wablas", "p1", grouped, NOW)
    assert isinstance(found, Incoming)
    assert (found.group, found.can_opt_out) == ("120363045069592672@g.us", False)
    picture = WABLAS | {"messageType": "image", "file": "a.jpg", "url": "https://x/a.jpg", "mimeType": "image/jpeg"}
    found = read_report("wablas", "p1", picture, NOW)
    assert isinstance(found, Incoming)
    assert (found.kind, found.media, found.can_opt_out) == ("image", IncomingMedia("image/jpeg", None, "a.jpg"), False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("received", "delivered"),
        ("read", "read"),
        ("cancel", "failed"),
        ("reject", "failed"),
        ("sent", None),
        ("pending", None),
    ],
)
def test_a_status_of_wablas(status: str, kind: str | None) -> None:
    found = read_report("wablas", "p1", TRACKING | {"status": status}, NOW)
    if kind is None:
        assert found is None
        return
    failed = (f"Wablas reports: {status}", "server") if kind == "failed" else (None, None)
    assert found == ipc.Receipt("p1", ["wablas.1"], kind, NOW, *failed)


def test_a_message_of_whacenter_gets_an_id_that_its_repetition_has_too() -> None:
    found = read_report("whacenter", "p1", WHACENTER, NOW)
    assert isinstance(found, Incoming)
    assert (found.addresses, found.text, found.at) == (("+6281234567890",), "ya", 1_700_000_000.0)
    assert read_report("whacenter", "p1", WHACENTER, NOW + 60) == found
    others = [{"message": "no"}, {"timestamp": "1700000001"}, {"from": "6281234567891"}]
    ids = {
        one.message_id
        for change in others
        if isinstance(one := read_report("whacenter", "p1", WHACENTER | change, NOW), Incoming)
    }
    assert len(ids | {found.message_id}) == 4
    # Without a time two messages with the same text are two.
    bare = {"from": "6281234567890@c.us", "message": "ya"}
    first, second = (read_report("whacenter", "p1", bare, at) for at in (NOW, NOW + 1))
    assert isinstance(first, Incoming)
    assert isinstance(second, Incoming)
    assert first.addresses == ("+6281234567890",)
    assert first.message_id != second.message_id


SENDERS = {
    "081234567890": "+6281234567890",
    "6281234567890": "+6281234567890",
    " 6281234567890": "+6281234567890",
    "+62 812-3456-7890": "+6281234567890",
    "6281234567890@s.whatsapp.net": "+6281234567890",
    "6281234567890:3@s.whatsapp.net": "+6281234567890",
    "6281234567890@c.us": "+6281234567890",
    "100628123456789@lid": "100628123456789@lid",
    "100628123456789:3@lid": "100628123456789@lid",
    # No country's number: WhatsApp hides it.
    "100628123456789": "100628123456789@lid",
    # A length that our table of numbers does not have (yet).
    "62812345": "+62812345",
    "Budi": None,
    "1234@unknown": None,
    # A member of a group, without `isGroup`.
    "120363045069592672@g.us": None,
    "6281234567890-1405159342@G.us": None,
}


@pytest.mark.parametrize(("written", "address"), SENDERS.items())
@pytest.mark.parametrize("transport", ["wablas", "whacenter"])
def test_a_sender_is_read_in_every_spelling(transport: str, written: str, address: str | None) -> None:
    body = {**WABLAS, **WHACENTER, "from": written, "phone": written, "message": "STOP"}
    found = read_report(transport, "p1", body, NOW, region="ID")
    assert isinstance(found, Incoming)
    assert found.addresses == ((address,) if address else ())
    assert found.can_opt_out == (address is not None)
    assert found.details == (None if address else {"sender": written})
    assert found.group == (written.lower() if written.lower().endswith("@g.us") else None)


@pytest.mark.parametrize(
    "kind", ["text", "Text", "conversation", "extendedTextMessage", "button", "list", "buttonsResponse", "chat", ""]
)
def test_a_message_with_text_is_a_text(kind: str) -> None:
    found = read_report("wablas", "p1", {**WABLAS, "messageType": kind}, NOW)
    assert isinstance(found, Incoming)
    assert (found.kind, found.can_opt_out) == ("text", True)
    captioned = read_report("wablas", "p1", {**WABLAS, "messageType": kind, "file": "a.jpg"}, NOW)
    assert isinstance(captioned, Incoming)
    assert (captioned.kind, captioned.can_opt_out) == ("other", False)
    empty = read_report("wablas", "p1", {**WABLAS, "messageType": kind, "message": ""}, NOW)
    assert isinstance(empty, Incoming)
    assert empty.kind == "other"


@pytest.mark.parametrize(
    "body",
    [{}, {"from": "", "message": "x"}, {"from": "status@broadcast", "message": "x"}, {"phone": True, "message": "x"}],
)
def test_what_has_no_sender_is_skipped(body: dict[str, Any]) -> None:
    assert read_report("whacenter", "p1", body, NOW) is None
    assert read_report("wablas", "p1", body, NOW) is None


_any = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=30)
    | st.just("6281234567890")
    | st.just({"group_id": "1"})
)


@given(st.dictionaries(st.sampled_from(sorted(WABLAS | TRACKING | WHACENTER | {"group": 0})), _any))
def test_no_input_raises(body: dict[str, Any]) -> None:
    for transport in ("wablas", "whacenter"):
        read_report(transport, "p1", body, NOW)
