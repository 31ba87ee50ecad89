"""Parsing of statuses: the shapes of Meta's webhook reference, and what an error means."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.errors import DeviceUnavailableError, ErrorClass, PermanentError, SendError
from shardd.supervisor.inbound.cloud_statuses import Status, read_status

NUMBER = "106540352242922"
# The fields are those that published clients read; biz_opaque_callback_data is what the message was sent with.
SENT = {
    "id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA",
    "status": "sent",
    "timestamp": "1750030073",
    "recipient_id": "16505551234",
    "biz_opaque_callback_data": "shardd:17:3:1:-5",
    "conversation": {"id": "72b14ed6ebeb1e2f0b2d8b5a6e4e2a0b", "origin": {"type": "marketing"}},
    "pricing": {"billable": True, "pricing_model": "PMP", "category": "marketing", "type": "regular"},
}
MESSAGE = SENT["id"]


def read(**changed: Any) -> Status | None:
    return read_status(NUMBER, SENT | changed)


@pytest.mark.parametrize(
    ("word", "kind"), [("sent", "sent"), ("delivered", "delivered"), ("read", "read"), ("played", "read")]
)
def test_a_status_names_the_claim(word: str, kind: str) -> None:
    assert read(status=word) == Status(
        NUMBER, str(MESSAGE), kind, 1750030073.0, (17, 3, 1, -5), addresses=("+16505551234",)
    )


@pytest.mark.parametrize("changed", [{"status": "warning"}, {"id": ""}, {"id": 7}, {"id": "x" * 201}, {"id": "a\nb"}])
def test_what_says_nothing_is_skipped(changed: dict[str, Any]) -> None:
    assert read(**changed) is None


def test_sent_without_a_claim_only_repeats_the_answer() -> None:
    assert read(biz_opaque_callback_data="order-17") is None
    found = read(biz_opaque_callback_data="order-17", status="read", timestamp=1750030073)
    assert found == Status(NUMBER, str(MESSAGE), "read", 1750030073.0, None, addresses=("+16505551234",))


def test_a_recipient_with_a_username_is_named_by_the_business_scoped_id() -> None:
    found = read(recipient_id=None, recipient_user_id="US.13491208655302741918")
    assert found is not None
    assert found.addresses == ("US.13491208655302741918@bsuid",)


def error_in(*errors: dict[str, Any]) -> SendError:
    found = read(status="failed", errors=list(errors))
    assert found is not None
    assert found.error is not None
    return found.error


def test_an_error_means_what_it_means_in_an_answer() -> None:
    recipient = error_in({"code": 131026, "title": "Undeliverable", "error_data": {"details": "x"}})
    assert (type(recipient), str(recipient)) == (PermanentError, "131026: Undeliverable: x")
    assert recipient.error_class == ErrorClass.RECIPIENT
    payment = error_in({"code": 131042, "title": "Business eligibility payment issue"})
    assert isinstance(payment, DeviceUnavailableError)
    assert (payment.error_class, payment.retry_after) == (ErrorClass.ACCOUNT, 300.0)


def test_an_unknown_error_says_so_and_a_url_in_it_keeps_no_secret() -> None:
    error = error_in({"code": 999, "title": "no media at https://u:p@cdn.example/a?sig=x"})
    assert str(error) == "999: no media at https://cdn.example/a; this code is not on Meta's list of 18 June 2026"
    assert error.error_class == ErrorClass.UNKNOWN
    assert str(error_in()) == "Meta gives no reason"
    assert error_in().error_class == ErrorClass.SERVER
