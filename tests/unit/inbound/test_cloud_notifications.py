"""Parsing of Meta's notifications: the documented shapes, and anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ({"messages": [{"from": "628", "type": "text", "text": {"body": "STOP"}}]}, [Wrote(NUMBER, "628", "STOP")]),
        ({"messages": [{"from": "628", "type": "button", "button": {"text": "Stop"}}]}, [Wrote(NUMBER, "628", "Stop")]),
        (
            {
                "messages": [
                    {"from": "628", "interactive": {"type": "list_reply", "list_reply": {"id": "1", "title": "No"}}}
                ]
            },
            [Wrote(NUMBER, "628", "No")],
        ),
        ({"messages": [{"from": "628", "type": "image", "image": {"id": "1"}}]}, []),
        ({"statuses": [status("read")]}, [Status(NUMBER, "wamid.1", "read", 1700000000.0)]),
        ({"statuses": [{"status": "read"}, 7, None], "messages": {"from": "628"}}, []),
    ],
)
def test_each_kind_of_report_is_read(value: dict[str, Any], heard: list[Report]) -> None:
    assert list(read_notification(notification(**value))) == heard


def test_all_reports_of_one_notification_are_read() -> None:
    value = {"statuses": [status("delivered"), status("read")], "messages": [{"from": "1", "text": {"body": "hi"}}]}
    whole = notification(**value)
    whole["entry"] *= 2
    assert len(list(read_notification(whole))) == 6


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
MESSAGE_FIELDS = ("from", "text", "button", "interactive")


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
                assert heard.sender.isascii()
                assert heard.sender.isdigit()
            case Status():
                assert 0 < len(heard.message_id) <= MAX_ID
                assert heard.message_id.isprintable()
