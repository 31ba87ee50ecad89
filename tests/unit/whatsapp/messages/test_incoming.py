"""How the messages of the library are read; the fields are those of WhatsApp's own definition (waE2E.proto)."""

from __future__ import annotations

from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as library

from shardd.incoming import MAX_TEXT, Incoming, IncomingMedia
from shardd.transports.whatsapp.messages.incoming import read_incoming
from tests.whatsapp_server.state.phones import e2e

NUMBER, LID = "6281234567890", "77001"


def jid(user: str, server: str) -> Any:
    return library.JID(User=user, Server=server, Device=0, RawAgent=0, Integrator=0, IsEmpty=not user)


def event(message: Any, *, chat: Any = None, own: bool = False) -> Any:
    sender = jid(LID, "lid")
    source = library.MessageSource(
        Chat=chat or sender,
        Sender=sender,
        SenderAlt=jid(NUMBER, "s.whatsapp.net"),
        RecipientAlt=jid("628111", "s.whatsapp.net"),
        IsFromMe=own,
        IsGroup=chat is not None and chat.Server == "g.us",
        BroadcastListOwner=jid("", ""),
    )
    info = library.MessageInfo(MessageSource=source, ID="3A01", Pushname="Ada", Timestamp=1_700_000_000_123)
    return library.Message(Info=info, Message=message)


def read(message: Any, **given: Any) -> Incoming | None:
    return read_incoming(event(message, **given), "d1")


def wrapped(name: str, inner: Any) -> Any:
    message = e2e.Message()
    getattr(message, name).message.CopyFrom(inner)
    return message


QUOTE = e2e.ContextInfo(stanzaID="3EB0AA", participant=f"{NUMBER}@s.whatsapp.net")
PLAIN = e2e.Message(conversation="stop")
FLOW = e2e.InteractiveResponseMessage.NativeFlowResponseMessage(paramsJSON='{"id": "b1"}')


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (PLAIN, {"text": "stop"}),
        (e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="hi")), {"text": "hi"}),
        (
            e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="hi", contextInfo=QUOTE)),
            {"text": "hi", "quoted_id": "3EB0AA"},
        ),
        (wrapped("ephemeralMessage", wrapped("viewOnceMessage", PLAIN)), {"text": "stop"}),
        (
            e2e.Message(reactionMessage=e2e.ReactionMessage(text="👍", key={"ID": "3EB0AA"})),
            {"kind": "reaction", "text": "👍", "quoted_id": "3EB0AA"},
        ),
        (
            e2e.Message(
                buttonsResponseMessage=e2e.ButtonsResponseMessage(
                    selectedDisplayText="Yes", selectedButtonID="b1", contextInfo=QUOTE
                )
            ),
            {"kind": "button", "text": "Yes", "choice": "b1", "quoted_id": "3EB0AA"},
        ),
        (
            e2e.Message(
                templateButtonReplyMessage=e2e.TemplateButtonReplyMessage(selectedDisplayText="Yes", selectedID="b1")
            ),
            {"kind": "button", "text": "Yes", "choice": "b1"},
        ),
        (
            e2e.Message(
                interactiveResponseMessage=e2e.InteractiveResponseMessage(
                    body={"text": "Yes"}, nativeFlowResponseMessage=FLOW
                )
            ),
            {"kind": "button", "text": "Yes", "choice": "b1"},
        ),
        (
            e2e.Message(
                listResponseMessage=e2e.ListResponseMessage(title="Large", singleSelectReply={"selectedRowID": "r2"})
            ),
            {"kind": "list", "text": "Large", "choice": "r2"},
        ),
        (
            e2e.Message(imageMessage=e2e.ImageMessage(mimetype="image/png", fileLength=9, caption="my dog")),
            {"kind": "image", "text": "my dog", "media": IncomingMedia(mime_type="image/png", size=9)},
        ),
        (
            wrapped(
                "documentWithCaptionMessage",
                e2e.Message(
                    documentMessage=e2e.DocumentMessage(mimetype="application/pdf", fileName="a.pdf", caption="x")
                ),
            ),
            {"kind": "document", "text": "x", "media": IncomingMedia(mime_type="application/pdf", name="a.pdf")},
        ),
        (
            e2e.Message(audioMessage=e2e.AudioMessage(mimetype="audio/ogg", PTT=True)),
            {"kind": "voice", "media": IncomingMedia(mime_type="audio/ogg")},
        ),
        (e2e.Message(stickerMessage=e2e.StickerMessage()), {"kind": "sticker", "media": IncomingMedia()}),
        (
            e2e.Message(
                locationMessage=e2e.LocationMessage(degreesLatitude=1.5, degreesLongitude=float("nan"), name="Here")
            ),
            {"kind": "location", "details": {"latitude": 1.5, "longitude": None, "name": "Here"}},
        ),
        (
            e2e.Message(contactMessage=e2e.ContactMessage(displayName="Bob", vcard="BEGIN:VCARD")),
            {"kind": "contact", "text": "Bob", "details": {"contacts": [{"name": "Bob", "vcard": "BEGIN:VCARD"}]}},
        ),
        (
            e2e.Message(protocolMessage=e2e.ProtocolMessage(key={"ID": "3A00"}, type=14, editedMessage=PLAIN)),
            {"kind": "edit", "text": "stop", "quoted_id": "3A00"},
        ),
        (
            e2e.Message(protocolMessage=e2e.ProtocolMessage(key={"ID": "3A00"}, type=0)),
            {"kind": "delete", "quoted_id": "3A00"},
        ),
        (e2e.Message(orderMessage=e2e.OrderMessage()), {"kind": "other", "details": {"type": "orderMessage"}}),
    ],
)
def test_each_kind_of_message_is_read(message: Any, expected: dict[str, Any]) -> None:
    found = read(message)
    assert found == Incoming(
        device_id="d1",
        message_id="3A01",
        addresses=(f"+{NUMBER}", f"{LID}@lid"),
        at=1_700_000_000.123,
        name="Ada",
        **expected,
    )


@pytest.mark.parametrize(
    "message",
    [
        e2e.Message(),
        e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="1@g.us")),
        e2e.Message(protocolMessage=e2e.ProtocolMessage(type=3)),
        wrapped("ephemeralMessage", e2e.Message()),
    ],
)
def test_what_no_person_wrote_is_no_message(message: Any) -> None:
    assert read(message) is None


def test_the_chat_decides_what_it_is() -> None:
    group = read(PLAIN, chat=jid("120", "g.us"))
    assert group is not None
    assert (group.group, group.own, group.status, group.can_opt_out) == ("120@g.us", False, False, False)
    status = read(PLAIN, chat=jid("status", "broadcast"))
    assert status is not None
    assert (status.group, status.status, status.can_opt_out) == (None, True, False)
    own = read(PLAIN, chat=jid("55", "lid"), own=True)
    assert own is not None
    assert (own.own, own.addresses, own.can_opt_out) == (True, ("+628111", "55@lid"), False)
    assert read(PLAIN, chat=jid("1", "newsletter")) is None


@pytest.mark.parametrize("wire", [b"\x0a\x04\xff\xfe\x00a", b"\x0a\x03\xed\xa0\xbd"])
def test_bytes_that_are_not_utf_8_become_a_text(wire: bytes) -> None:
    found = read(e2e.Message.FromString(wire))
    assert found is not None
    assert found.text.startswith("\N{REPLACEMENT CHARACTER}")
    assert "\0" not in found.text
    assert found.text.encode().decode() == found.text


def test_an_endless_text_is_cut() -> None:
    found = read(e2e.Message(conversation="x" * (MAX_TEXT + 5)))
    assert found is not None
    assert len(found.text) == MAX_TEXT
