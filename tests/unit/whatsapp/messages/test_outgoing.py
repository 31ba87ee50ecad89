"""Jobs as messages. What phones expect of a link is read from Baileys (src/Utils/messages.ts), whose previews they show."""

from __future__ import annotations

import json

import pytest

from shardd.errors import PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.links.previews import LinkPreview
from shardd.transports.whatsapp.messages.outgoing import ShownLink, plain_message, revocation
from shardd.transports.whatsapp.messages.quotes import add_quote

BODY = "Lihat WWW.Toko.Example!"
LINK = ShownLink("WWW.Toko.Example", LinkPreview("Kopi", "Diskon", b"JPEG"))
QUOTE = json.dumps({"id": "7", "sender": "+6281234567890", "text": "?", "kind": "text"})


def job(quote: str | None = None) -> JobSpec:
    return JobSpec(1, 1, 1, 1, "d", "+6281234567890", body=BODY, quote=quote)


def test_a_text_with_a_link_has_its_preview_and_keeps_it_beside_a_quote() -> None:
    for quote in (None, QUOTE):
        message = add_quote(plain_message(job(quote), LINK), job(quote))
        text = message.extendedTextMessage
        assert (text.text, text.matchedText, text.title, text.description) == (BODY, LINK.text, "Kopi", "Diskon")
        assert text.JPEGThumbnail == b"JPEG"
        assert text.contextInfo.stanzaID == ("7" if quote else "")
        assert [field.name for field, _ in message.ListFields()] == ["extendedTextMessage"]


def test_what_a_page_does_not_say_is_left_out() -> None:
    text = plain_message(job(), ShownLink(LINK.text, LinkPreview("Kopi", "", None))).extendedTextMessage
    assert not text.HasField("description")
    assert not text.HasField("JPEGThumbnail")


def test_a_text_without_a_preview_is_a_plain_one() -> None:
    assert plain_message(job()).conversation == BODY


def test_a_revocation_names_the_message_as_one_of_the_account() -> None:
    spec = JobSpec(1, 1, 1, 1, "d", "+6281234567890", kind="revoke", revokes="3EB0")
    protocol = revocation(spec, "6281234567890@s.whatsapp.net").protocolMessage
    key = protocol.key
    assert (protocol.type, key.remoteJID, key.fromMe, key.ID) == (
        protocol.REVOKE,
        "6281234567890@s.whatsapp.net",
        True,
        "3EB0",
    )
    assert not key.participant


def test_nothing_is_revoked_without_the_id_of_a_message() -> None:
    spec = JobSpec(1, 1, 1, 1, "d", "+6281234567890", kind="revoke")
    with pytest.raises(PermanentError, match="cannot be deleted any more"):
        revocation(spec, "6281234567890@s.whatsapp.net")
