"""The event of an incoming message has the fields that the guide shows."""

from __future__ import annotations

import json

from tests.support.guide import blocks
from tests.support.queue_rows import connect

LEFT_OUT = {"chat", "choice", "details"}
"""Of the whole message below; the guide's example has none of them."""


def test_a_message_has_the_fields_of_the_example(dsn: str) -> None:
    (example,) = (json.loads(block.text) for block in blocks("webhooks") if block.language == "json")
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.messages (device_id, message_id, sender, number, lid, name, chat, own, status, kind, text, "
            "choice, quoted_id, job_id, details, media_type, media_size, media_name, media_node, media_path, media_error, "
            "opt_out, written_at) "
            "VALUES ('shop', 'm', '+4915112345678', '+4915112345678', '1@lid', 'Ada', '1@g.us', false, false, 'image', 'x', 'y', "
            "'q', 17, '{}', 'image/jpeg', 5, 'a.jpg', 'host-a', '/a', 'b', false, now()), "
            "('shop', 'unreadable', '', NULL, NULL, NULL, NULL, false, false, 'text', '', NULL, "
            "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, now())"
        )
        whole, empty = connection.execute(
            "SELECT kind, data FROM shardd.events WHERE kind = 'message.received' ORDER BY id"
        ).fetchall()
    kind, data = whole
    assert example["type"] == kind
    assert example["data"].keys() == data.keys() - LEFT_OUT
    assert data["media"].keys() - {"name", "error"} == example["data"]["media"].keys()
    for name, value in example["data"].items():
        assert type(value) is type(data[name]), name
    # What is not known is left out; a sender that cannot be read is empty.
    assert empty[1].keys() == {
        *(
            "id",
            "device_id",
            "message_id",
            "sender",
            "own",
            "status",
            "kind",
            "text",
            "opt_out",
            "written_at",
            "received_at",
        )
    }
    assert (empty[1]["sender"], empty[1]["text"]) == ("", "")
