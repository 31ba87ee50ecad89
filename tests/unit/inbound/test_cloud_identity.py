"""Who wrote, and what they want, by Meta's names of a person: the number, wa_id and the business-scoped id."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.incoming import is_wanted
from shardd.supervisor.inbound.cloud_messages import read_message, read_preference

# developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids, updated on 28 May 2026: people with
# a username may be without `from` and `wa_id`; the id has a country, a full stop and up to 128 letters and digits.
USER = "US.13491208655302741918"
PARENT = "US.ENT.11815799212886844830"
MESSAGE = {"id": "wamid.1", "timestamp": "1749416383", "type": "text", "text": {"body": "STOP"}}


def test_a_sender_has_every_address_by_which_meta_knows_them() -> None:
    contact = {"profile": {"name": "Ana"}, "wa_id": "553187654321", "user_id": USER}
    found = read_message(MESSAGE | {"from": "5531987654321", "from_user_id": USER}, [contact])
    assert found is not None
    assert found.addresses == ("+5531987654321", "+553187654321", f"{USER}@bsuid")
    assert (found.name, found.number, found.can_opt_out) == ("Ana", "+5531987654321", True)


@pytest.mark.parametrize("written", ["16505551234", "+16505551234", 16505551234])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_sender_is_heard_with_and_without_a_plus_and_contacts(written: object, others: int) -> None:
    """Meta's table of parameters has `+16505551234`, its example `16505551234`."""
    contacts = [{"profile": {"name": "Other"}, "wa_id": f"1650555000{number}"} for number in range(others)]
    found = read_message(MESSAGE | {"from": written}, contacts if others != 1 else [])
    assert found is not None
    assert (found.addresses, found.can_opt_out) == (("+16505551234",), True)
    mine = {"profile": {"name": "Ana"}, "wa_id": "16505551234", "user_id": USER}
    found = read_message(MESSAGE | {"from": written}, [*contacts, mine])
    assert found is not None
    assert (found.addresses, found.name) == (("+16505551234", f"{USER}@bsuid"), "Ana")


# Meta's reference of messages in groups (developers.facebook.com/docs/whatsapp/cloud-api/groups/webhooks).
GROUP = "Y2FwaV9ncm91cDoxNzA1NTU1MDEzOToxMjAzNjM0MDQ2OTQyMzM4MjAZD"


@pytest.mark.parametrize("group", [GROUP, 7, {"id": GROUP}])
def test_a_message_in_a_group_opts_nobody_out(group: Any) -> None:
    found = read_message(MESSAGE | {"from": "16505551234", "group_id": group}, [])
    assert found is not None
    assert (found.group, found.can_opt_out) == (str(group), False)
    assert not is_wanted(found, ())
    assert is_wanted(found, ["groups"])


@pytest.mark.parametrize(
    ("what", "number"),
    [("user_changed_number", "+12195555358"), ("customer_changed_number", "+12195555358"), ("other", None)],
)
def test_a_changed_number_is_read(what: str, number: str | None) -> None:
    """The example of Meta's page on system messages, which has no contacts."""
    system = {"body": "User Sheena changed from 16505551234 to 12195555358", "wa_id": "12195555358", "type": what}
    message = {"id": "wamid.2", "timestamp": "1739321024", "from": "16505551234", "type": "system", "system": system}
    found = read_message(message, [])
    assert found is not None
    assert (found.addresses, found.new_number, found.can_opt_out) == (("+16505551234",), number, False)
    assert (found.kind, found.text) == ("other", system["body"])
    assert found.details == {"type": what} | ({"number": number} if number else {})
    assert is_wanted(found, None) == (number is not None)


@pytest.mark.parametrize("user", [USER, PARENT])
def test_a_sender_with_a_username_has_no_number(user: str) -> None:
    contacts = [{"profile": {"name": "Other"}, "user_id": "US.7"}, {"profile": {"name": "Ana"}, "user_id": user}]
    found = read_message(MESSAGE | {"from_user_id": user}, contacts)
    assert found is not None
    assert (found.addresses, found.name, found.number) == ((f"{user}@bsuid",), "Ana", None)
    assert found.can_opt_out


@pytest.mark.parametrize("user", ["", "us.1", "US.", "US.a b", "US." + "1" * 129, "1349"])
def test_what_names_nobody_is_skipped(user: str) -> None:
    assert read_message(MESSAGE | {"from_user_id": user}, []) is None


# The example of Meta's user_preferences webhook reference.
PREFERENCE = {
    "wa_id": "16505551234",
    "detail": "User requested to stop marketing messages",
    "category": "marketing_messages",
    "value": "stop",
    "timestamp": 1731705721,
}


def test_who_stops_marketing_messages_in_whatsapp_opts_out() -> None:
    found = read_preference(PREFERENCE, [{"wa_id": "16505551234", "user_id": USER}])
    assert found is not None
    assert (found.addresses, found.at) == (("+16505551234", f"{USER}@bsuid"), 1731705721.0)
    assert (found.kind, found.text, found.opt_out) == ("preference", "stop", True)
    assert read_preference(PREFERENCE, []) != read_preference(PREFERENCE | {"timestamp": 1731705722}, [])


def test_who_resumes_them_is_heard_and_stays_opted_out() -> None:
    found = read_preference(PREFERENCE | {"value": "resume"}, [])
    assert found is not None
    assert (found.text, found.opt_out, found.can_opt_out) == ("resume", False, False)


@pytest.mark.parametrize("change", [{"value": "pause"}, {"category": "calls"}, {"wa_id": True}, {"value": None}])
def test_another_preference_is_skipped(change: dict[str, Any]) -> None:
    assert read_preference(PREFERENCE | change, []) is None
