"""Parsing of Meta's notifications: the documented shapes, and anything else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.incoming import Incoming, IncomingMedia, MetaMedia
from shardd.supervisor.inbound.cloud_notifications import Report, Wrote, read_notification
from shardd.supervisor.inbound.cloud_statuses import MAX_ID, Status

NUMBER = "106540352242922"


def notification(**value: Any) -> dict[str, Any]:
    whole = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "1555", "phone_number_id": NUMBER},
        **value,
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1", "changes": [{"field": "messages", "value": whole}]}],
    }


def status(word: str, **more: Any) -> dict[str, Any]:
    return {"id": "wamid.1", "status": word, "timestamp": "1700000000", "recipient_id": "628", **more}


@pytest.mark.parametrize(
    ("value", "heard"),
    [
        (
            {
                "messages": [
                    {"id": "wamid.2", "text": {"body": "no sender"}},
                ]
            },
            [],
        ),
        ({"statuses": [status("read")]}, [Status(NUMBER, "wamid.1", "read", 1700000000.0, addresses=("+628",))]),
        ({"statuses": [{"status": "read"}, 7, None], "messages": {"from": "628"}}, []),
    ],
)
def test_each_kind_of_report_is_read(value: dict[str, Any], heard: list[Report]) -> None:
    assert list(read_notification(notification(**value))) == heard


def test_all_reports_of_one_notification_are_read() -> None:
    value = {
        "statuses": [status("delivered"), status("read")],
        "messages": [{"id": "a", "from": "1", "text": {"body": "hi"}}],
    }
    whole = notification(**value)
    whole["entry"] *= 2
    assert len(list(read_notification(whole))) == 6


def message(kind: str, **parts: Any) -> dict[str, Any]:
    return {"id": "wamid.2", "from": "628123", "timestamp": "1700000000", "type": kind, **parts}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (message("text", text={"body": "STOP"}), {"text": "STOP"}),
        (
            message("text", text={"body": "two"}, context={"from": "1555", "id": "wamid.1"}),
            {"text": "two", "quoted_id": "wamid.1"},
        ),
        (
            message("button", button={"text": "Stop", "payload": "p1"}, context={"id": "wamid.1"}),
            {"kind": "button", "text": "Stop", "choice": "p1", "quoted_id": "wamid.1"},
        ),
        (
            message("interactive", interactive={"type": "button_reply", "button_reply": {"id": "b1", "title": "Yes"}}),
            {"kind": "button", "text": "Yes", "choice": "b1"},
        ),
        (
            message("interactive", interactive={"type": "list_reply", "list_reply": {"id": "r1", "title": "No"}}),
            {"kind": "list", "text": "No", "choice": "r1"},
        ),
        (
            message("reaction", reaction={"message_id": "wamid.1", "emoji": "👍"}),
            {"kind": "reaction", "text": "👍", "quoted_id": "wamid.1"},
        ),
        (
            message(
                "document", document={"id": "9", "mime_type": "application/pdf", "filename": "a.pdf", "caption": "x"}
            ),
            {
                "kind": "document",
                "text": "x",
                "media": IncomingMedia(mime_type="application/pdf", name="a.pdf", source=MetaMedia("9")),
            },
        ),
        (
            message("audio", audio={"id": "9", "mime_type": "audio/ogg", "voice": True}),
            {"kind": "voice", "media": IncomingMedia(mime_type="audio/ogg", source=MetaMedia("9"))},
        ),
        (
            message("location", location={"latitude": 1.5, "longitude": "x", "name": "Here"}),
            {"kind": "location", "details": {"latitude": 1.5, "longitude": None, "name": "Here"}},
        ),
        (
            message("contacts", contacts=[{"name": {"formatted_name": "Bob"}, "phones": [{"phone": "+1 555"}]}]),
            {"kind": "contact", "text": "Bob", "details": {"contacts": [{"name": "Bob", "phones": ["+1 555"]}]}},
        ),
        (message("order", order={}), {"kind": "other", "details": {"type": "order"}}),
    ],
)
def test_each_kind_of_message_is_read(said: dict[str, Any], read: dict[str, Any]) -> None:
    contacts = [{"wa_id": "628123", "profile": {"name": "Ada"}}]
    (wrote,) = read_notification(notification(messages=[said], contacts=contacts))
    whole = {"device_id": "", "message_id": "wamid.2", "addresses": ("+628123",), "at": 1700000000.0, "name": "Ada"}
    assert wrote == Wrote(NUMBER, Incoming(**{**whole, **read}))


def test_a_person_whose_account_has_another_number_has_both() -> None:
    contacts = [{"wa_id": "5531987654321", "profile": {"name": "Ada"}}]
    said = {**message("text", text={"body": "STOP"}), "from": "553187654321"}
    (wrote,) = read_notification(notification(messages=[said], contacts=contacts))
    assert isinstance(wrote, Wrote)
    assert wrote.message.addresses == ("+553187654321", "+5531987654321")


_names = st.sampled_from(
    [
        "entry",
        "changes",
        "value",
        "metadata",
        "phone_number_id",
        "statuses",
        "id",
        "status",
        "errors",
        "messages",
        "from",
        "text",
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=20,
)


def test_a_message_without_an_id_is_named_after_its_content() -> None:
    """Meta's reference of the webhook `messages` gives each type an id; should one lack it, a STOP must not be lost."""
    stop = {"from": "628", "timestamp": "1700000000", "type": "text", "text": {"body": "STOP"}}
    again = {name: stop[name] for name in reversed(stop)}
    later = {**stop, "timestamp": "1700000001"}
    told = [one for one in read_notification(notification(messages=[stop, again, later])) if isinstance(one, Wrote)]
    names = [one.message.message_id for one in told]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("no-id-") for name in names)
    assert {one.message.text for one in told} == {"STOP"}


@given(_json, _json)
def test_no_input_raises(whole: Any, part: Any) -> None:
    list(read_notification(whole))
    list(read_notification(notification(statuses=part, messages=part)))
    list(read_notification(notification(statuses=[part], messages=[part])))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("1700000000") | st.just("failed"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
STATUS_FIELDS = ("id", "status", "timestamp", "errors", "biz_opaque_callback_data")
MESSAGE_FIELDS = ("id", "from", "timestamp", "type", "text", "button", "interactive", "image", "location", "contacts")


def objects(*names: str) -> st.SearchStrategy[Any]:
    """Objects of which any field may be anything."""
    return JSON | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(names, JSON | st.just("delivered") | st.just("4711"))
    )


@given(
    JSON | st.lists(objects(*STATUS_FIELDS), max_size=3), JSON | st.lists(objects(*MESSAGE_FIELDS), max_size=3), JSON
)
def test_whatever_a_field_contains_the_reports_can_be_stored(statuses: Any, messages: Any, metadata: Any) -> None:
    for heard in (
        *read_notification(notification(statuses=statuses, messages=messages)),
        *read_notification(notification(statuses=statuses, metadata=metadata)),
        *read_notification({"entry": [{"changes": [{"value": statuses}, statuses]}, messages]}),
        *read_notification(metadata),
    ):
        match heard:
            case Wrote():
                assert heard.message.number is not None
                assert msgspec.json.decode(msgspec.json.encode(heard.message), type=Incoming) == heard.message
            case Status():
                assert 0 < len(heard.message_id) <= MAX_ID
                assert heard.message_id.isprintable()
