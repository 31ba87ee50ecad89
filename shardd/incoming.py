"""What a person wrote to a device: one record for all transports, from the moment it is received until it is in the database.

A record holds what the sender claims, so its values are adapted to what the database can hold, and each has a length.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

import msgspec

from shardd.storable import possible_time, storable

MAX_TEXT: Final = 65536
"""Characters; WhatsApp's own limit of a message."""
MAX_NAME: Final = 500
"""Characters of a name, an id or a MIME type."""
MAX_SIZE: Final = 2**62
"""Bytes."""

_OPT_OUT_KINDS: Final = frozenset({"text", "button", "list", "edit"})


class MetaMedia(msgspec.Struct, frozen=True, tag="cloud_api"):
    """The file of a message that came by the Cloud API."""

    id: str


class MediaSource(msgspec.Struct, frozen=True, omit_defaults=True, tag="whatsapp"):
    """Where the encrypted file of a message is, and its key. A secret: whoever has it can read the file."""

    kind: str
    """Of the keys that are derived from `key`: image, video, audio or document."""
    path: str
    """At WhatsApp's storage, with its query."""
    key: bytes
    plain_sha256: bytes
    sealed_sha256: bytes
    """Of the encrypted file."""

    def __repr__(self) -> str:
        """Without the key, for logs and errors."""
        return "MediaSource(…)"


class IncomingMedia(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file of a message, as the sender describes it."""

    mime_type: str | None = None
    size: int | None = None
    """Bytes."""
    name: str | None = None
    source: MediaSource | MetaMedia | None = None
    """None: it is not to be downloaded, or cannot be."""
    unavailable: str | None = None
    """Why it cannot be."""

    def __post_init__(self) -> None:
        """Adapt what the sender claims."""
        _adapt(self, {"mime_type": MAX_NAME, "name": MAX_NAME})
        if self.size is not None and not 0 <= self.size <= MAX_SIZE:
            msgspec.structs.force_setattr(self, "size", None)


class Incoming(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="incoming"):
    """A message to a device, or what somebody did with one (a reaction, an edit, a deletion)."""

    device_id: str
    message_id: str
    addresses: tuple[str, ...]
    """Of the sender, the best first: `+628123…`, `ID@lid`; what else they are known by follows."""
    at: float
    """When it was written, POSIX seconds; never after it arrived."""
    timed: bool = True
    """False: the platform gave no time that can be, so `at` is when it arrived."""
    identified: bool = True
    """False: the platform gave neither an id nor a time, so its repetition is another message."""
    kind: str = "text"
    """text, image, video, audio, voice, document, sticker, location, contact, button, list, reaction, edit, delete, other; or
    preference: the person stopped or resumed marketing messages in WhatsApp itself."""
    text: str = ""
    """The text or caption; of a reaction the emoji, of a button or list entry its title."""
    name: str | None = None
    """The sender's name, as they call themselves."""
    group: str | None = None
    """`ID@g.us`; None: a chat of two."""
    own: bool = False
    """It was written on the device's own phone."""
    status: bool = False
    """It was posted as a status."""
    history: bool = False
    """It was written before the device was paired: nothing follows from it but its row."""
    choice: str | None = None
    """The id of the button or list entry that was chosen."""
    quoted_id: str | None = None
    """The id of the message that this one quotes, reacts to, edits or deletes."""
    new_number: str | None = None
    """With +: the platform reports that the sender has this number from now on."""
    details: dict[str, Any] | None = None
    """Location: latitude, longitude, name, address. Contact: name, vcard."""
    media: IncomingMedia | None = None
    opt_out: bool = False
    """It asks for no more messages."""
    take_back: bool = False
    """It takes such a request back."""

    def __post_init__(self) -> None:
        """Adapt what the sender claims."""
        _adapt(
            self,
            {
                **dict.fromkeys(("message_id", "kind", "name", "group", "choice", "quoted_id"), MAX_NAME),
                "text": MAX_TEXT,
            },
        )
        msgspec.structs.force_setattr(self, "addresses", tuple(storable(one, MAX_NAME) for one in self.addresses))
        msgspec.structs.force_setattr(self, "at", possible_time(self.at))
        # What is dated in the future would count against all that the person says until then.
        if self.at > (now := time.time()):
            msgspec.structs.force_setattr(self, "at", now)
            msgspec.structs.force_setattr(self, "timed", False)

    @property
    def can_opt_out(self) -> bool:
        """Whether a message of this kind is an opt-out, or takes one back, if it has the words.

        No caption is one, and only in a chat of two.
        """
        in_chat_of_two = self.group is None and not self.own and not self.status and not self.history
        return self.kind in _OPT_OUT_KINDS and in_chat_of_two and bool(self.addresses)

    @property
    def number(self) -> str | None:
        """The sender's phone number with +; None: WhatsApp did not send it."""
        return next((one for one in self.addresses if "@" not in one), None)

    @property
    def lid(self) -> str | None:
        """The address by which WhatsApp hides the number."""
        return next((one for one in self.addresses if one.endswith("@lid")), None)


def is_wanted(message: Incoming, include: Collection[str] | None) -> bool:
    """Whether a message is kept. `include`: see `inbox.include` of the config; None: only what opt-outs depend on."""
    if message.opt_out or message.take_back or message.new_number is not None:
        return True
    if include is None:
        return False
    special = (
        (message.own, "own"),
        (message.status, "status"),
        (message.group is not None, "groups"),
        (message.history, "history"),
    )
    return all(word in include for applies, word in special if applies)


def _adapt(record: msgspec.Struct, fields: dict[str, int]) -> None:
    for field, most in fields.items():
        text = getattr(record, field)
        if text is not None and (clean := storable(text, most)) is not text:
            msgspec.structs.force_setattr(record, field, clean)
