import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.errors import PermanentError
from shardd.persons import Recipient
from shardd.phone_numbers import parse_recipient
from shardd.transports.whatsapp.messages import recipients
from shardd.transports.whatsapp.messages.recipients import Directory, Restrictions
from shardd.transports.whatsapp.sessions.store import SessionStore


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("+62 812-3456-7890", None, "6281234567890"),
        ("  +62 (812) 3456.7890 ", "DE", "6281234567890"),
        ("6281234567890", None, "6281234567890"),
        ("6281234567890", "ID", "6281234567890"),
        ("0812 3456 7890", "ID", "6281234567890"),
        ("0049 151 12345678", "ID", "4915112345678"),
        ("4915112345678", "ID", "4915112345678"),
        ("+5511987654321", None, "5511987654321"),
        ("6281234567890@s.whatsapp.net", None, "6281234567890"),
        ("6281234567890@c.us", None, "6281234567890"),
    ],
)
def test_a_number_is_one_number_however_it_is_spelled(text: str, region: str | None, number: str) -> None:
    assert parse_recipient(text, region) == Recipient(f"{number}@s.whatsapp.net", number)


@pytest.mark.parametrize("jid", ["120363041234567890@g.us", "6281234567890-1400000000@g.us", "123456789012345@lid"])
def test_groups_and_hidden_ids_are_taken_as_they_are(jid: str) -> None:
    assert parse_recipient(jid, None) == Recipient(jid)


@pytest.mark.parametrize(
    ("text", "region", "mend"),
    [
        ("0812 3456 7890", None, "default_region"),
        ("999", "DE", "without its country"),
        ("+62", None, "too few or too many digits"),
        ("+62 8123456789012345678", None, "too few or too many digits"),
        ("Budi", "ID", "write it as"),
        ("", "ID", "write it as"),
        ("٠٨١٢٣٤٥٦٧٨٩", "ID", "write it as"),
        ("6281234567890@example.com", None, "ID@g.us for a group"),
        ("6281234567890:x@s.whatsapp.net", None, "not a WhatsApp address"),
        ("@g.us", None, "not a WhatsApp address"),
    ],
)
def test_what_is_no_recipient_is_told_how_to_write_it(text: str, region: str | None, mend: str) -> None:
    with pytest.raises(PermanentError, match=mend):
        parse_recipient(text, region)


@given(st.text(max_size=40), st.sampled_from([None, "ID", "DE", "BR"]))
def test_any_text_is_read_or_refused(text: str, region: str | None) -> None:
    try:
        recipient = parse_recipient(text, region)
    except PermanentError:
        return
    assert recipient.jid.partition("@")[2] in {"s.whatsapp.net", "g.us", "lid"}


def test_what_whatsapp_said_is_known_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory()
    assert directory.lookup("62") == (False, None)
    directory.learn("62", None)
    directory.learn("55", "5511@s.whatsapp.net")
    assert directory.lookup("62") == (True, None)
    assert directory.lookup("55") == (True, "5511@s.whatsapp.net")
    now = recipients.time.monotonic()
    monkeypatch.setattr(recipients.time, "monotonic", lambda: now + recipients.ABSENT_FOR + 1)
    assert directory.lookup("62") == (False, None)
    assert directory.lookup("55") == (True, "5511@s.whatsapp.net")


def test_the_directory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "MAX_KNOWN", 2)
    directory = Directory()
    for number in ("1", "2", "3"):
        directory.learn(number, None)
    assert [directory.lookup(number)[0] for number in ("1", "2", "3")] == [False, True, True]


class SilentStore:
    """A session store that does not answer in time."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def knows_recipient(self, jid: str, number: str) -> bool:
        self.asked.set()
        await asyncio.Event().wait()
        return True


async def test_a_refusal_stays_known_when_the_store_does_not_answer_in_time() -> None:
    store = SilentStore()
    restrictions = Restrictions(cast("SessionStore", store))
    restrictions.accepted("d", "628")
    judging = asyncio.ensure_future(restrictions.is_contact("d", "1:1@s.whatsapp.net", "628"))
    await store.asked.wait()
    judging.cancel()
    assert await judging is False


def test_a_restriction_that_the_database_still_knows_holds_after_a_close() -> None:
    restrictions = Restrictions(cast("SessionStore", SilentStore()))
    restrictions.begin("d", None)
    restrictions.refused("d", 5e9)
    restrictions.forget("d")  # it is to be unlinked, which fails
    restrictions.begin("d", 5e9)
    assert restrictions.is_restricted("d")
    restrictions.forget("d")  # it gets another session
    restrictions.begin("d", None)
    assert not restrictions.is_restricted("d")
