"""WhatsApp's binary encoding of a node tree.

Every element is a list: its tag, its attributes as name and value in turn, and, if the length is even, its content.
Frequent strings are tokens of one or two bytes; digits and hex are packed two to a byte; addresses have their own forms.
"""

from __future__ import annotations

import zlib
from enum import IntEnum

from .nodes import JID, Attributes, AttributeValue, Content, MalformedStanzaError, Node


class Mark(IntEnum):
    """Bytes that introduce a value; every byte below FIRST_DICTIONARY is a token."""

    EMPTY = 0
    FIRST_DICTIONARY = 236
    LAST_DICTIONARY = 239
    MESSENGER_JID = 246
    DEVICE_JID = 247
    LIST_8 = 248
    LIST_16 = 249
    PAIR_JID = 250
    PACKED_HEX = 251
    BYTES_8 = 252
    BYTES_20 = 253
    BYTES_32 = 254
    PACKED_DIGITS = 255


DIGITS = "0123456789-."
HEX = "0123456789ABCDEF"
PACKED_LIMIT = 128
COMPRESSED = 2
_SERVER_OF_DOMAIN = {0: "s.whatsapp.net", 1: "lid", 128: "hosted", 129: "hosted.lid"}
_DOMAIN_OF_SERVER = {server: domain for domain, server in _SERVER_OF_DOMAIN.items()}
_PACKED_ALPHABETS = {Mark.PACKED_DIGITS: DIGITS, Mark.PACKED_HEX: HEX}
_LENGTH_BYTES = {Mark.BYTES_8: 1, Mark.BYTES_20: 3, Mark.BYTES_32: 4}


class TokenTables:
    """The strings with short forms: 236 of one byte, and four dictionaries of two bytes."""

    def __init__(self, single: list[str], double: list[list[str]]) -> None:
        self.single = single
        self.double = double
        self.code_of = {
            token: bytes((Mark.FIRST_DICTIONARY + number, index))
            for number, dictionary in enumerate(double)
            for index, token in enumerate(dictionary)
        }
        # A string in both tables gets the shorter form; code 0 is not a token but the empty list.
        self.code_of.update({token: bytes((index,)) for index, token in enumerate(single) if index and token})


class Codec:
    """Encodes and decodes stanzas with one set of token tables."""

    def __init__(self, tokens: TokenTables) -> None:
        self._tokens = tokens

    def encode(self, node: Node) -> bytes:
        """The stanza as the content of a frame, with the leading flag byte (never compressed)."""
        writer = _Writer(self._tokens)
        writer.node(node)
        return b"\0" + bytes(writer.out)

    def decode(self, frame: bytes) -> Node:
        """The stanza in a frame.

        Raises:
            MalformedStanzaError: The bytes are not a node, end too early, or use an unknown token.
        """
        try:
            body = zlib.decompress(frame[1:]) if frame[0] & COMPRESSED else frame[1:]
            return _Reader(self._tokens, body).node()
        except (IndexError, UnicodeDecodeError, zlib.error) as error:
            raise MalformedStanzaError(f"cannot decode a frame of {len(frame)} bytes: {error}") from error


class _Writer:
    def __init__(self, tokens: TokenTables) -> None:
        self._code_of = tokens.code_of
        self.out = bytearray()

    def node(self, node: Node) -> None:
        attributes = [(name, value) for name, value in node.attributes.items() if value is not None and value != ""]
        self._list_header(2 * len(attributes) + 1 + (node.content is not None))
        self._string(node.tag)
        for name, value in attributes:
            self._string(name)
            self._value(value)
        if isinstance(node.content, list):
            self._list_header(len(node.content))
            for child in node.content:
                self.node(child)
        elif node.content is not None:
            self._value(node.content)

    def _value(self, value: AttributeValue | Content) -> None:
        if isinstance(value, JID):
            self._jid(value)
        elif isinstance(value, bytes):
            self._bytes(value)
        else:
            self._string(str(value))

    def _jid(self, jid: JID) -> None:
        if jid.device and jid.server in _DOMAIN_OF_SERVER:
            self.out += bytes((Mark.DEVICE_JID, _DOMAIN_OF_SERVER[jid.server], jid.device))
            self._string(jid.user)
            return
        self.out.append(Mark.PAIR_JID)
        if jid.user:
            self._string(jid.user)
        else:
            self.out.append(Mark.EMPTY)
        self._string(jid.server)

    def _string(self, text: str) -> None:
        if (code := self._code_of.get(text)) is not None:
            self.out += code
        elif 0 < len(text) < PACKED_LIMIT and not text.strip(DIGITS):
            self._packed(Mark.PACKED_DIGITS, DIGITS, text)
        elif 0 < len(text) < PACKED_LIMIT and not text.strip(HEX):
            self._packed(Mark.PACKED_HEX, HEX, text)
        else:
            self._bytes(text.encode())

    def _packed(self, mark: Mark, alphabet: str, text: str) -> None:
        nibbles = [alphabet.index(character) for character in text]
        odd = len(nibbles) % 2
        if odd:
            nibbles.append(0xF)
        self.out += bytes((mark, odd << 7 | len(nibbles) // 2))
        self.out += bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))

    def _bytes(self, data: bytes) -> None:
        mark = Mark.BYTES_8 if len(data) < 1 << 8 else Mark.BYTES_20 if len(data) < 1 << 20 else Mark.BYTES_32
        self.out.append(mark)
        self.out += len(data).to_bytes(_LENGTH_BYTES[mark], "big")
        self.out += data

    def _list_header(self, length: int) -> None:
        if length == 0:
            self.out.append(Mark.EMPTY)
        elif length < 1 << 8:
            self.out += bytes((Mark.LIST_8, length))
        else:
            self.out.append(Mark.LIST_16)
            self.out += length.to_bytes(2, "big")


class _Reader:
    def __init__(self, tokens: TokenTables, data: bytes) -> None:
        self._tokens = tokens
        self._data = data
        self._at = 0

    def node(self) -> Node:
        size = self._list_size(self._byte())
        if size == 0:
            raise MalformedStanzaError("a node cannot be an empty list")
        tag = self._string()
        attributes: Attributes = {}
        for _ in range((size - 1) // 2):
            name = self._string()
            value = self._value(self._byte(), as_text=True)
            if isinstance(value, (str, JID)):
                attributes[name] = value
        return Node(tag, attributes, self._content() if size % 2 == 0 else None)

    def _content(self) -> Content:
        mark = self._byte()
        if mark in (Mark.LIST_8, Mark.LIST_16):
            return [self.node() for _ in range(self._list_size(mark))]
        value = self._value(mark, as_text=False)
        return str(value) if isinstance(value, JID) else value

    def _string(self) -> str:
        value = self._value(self._byte(), as_text=True)
        return value if isinstance(value, str) else ""

    def _value(self, mark: int, *, as_text: bool) -> str | bytes | JID | None:
        if mark == Mark.EMPTY:
            return None
        if mark < Mark.FIRST_DICTIONARY:
            return self._tokens.single[mark]
        if mark <= Mark.LAST_DICTIONARY:
            return self._tokens.double[mark - Mark.FIRST_DICTIONARY][self._byte()]
        if mark in _LENGTH_BYTES:
            data = self._take(self._integer(_LENGTH_BYTES[Mark(mark)]))
            return data.decode() if as_text else data
        if mark in _PACKED_ALPHABETS:
            return self._packed(_PACKED_ALPHABETS[Mark(mark)])
        return self._jid(mark)

    def _jid(self, mark: int) -> JID:
        if mark == Mark.PAIR_JID:
            user = self._string()
            return JID(user, self._string())
        if mark == Mark.DEVICE_JID:
            domain, device = self._byte(), self._byte()
            return JID(self._string(), _SERVER_OF_DOMAIN.get(domain, "s.whatsapp.net"), device)
        if mark == Mark.MESSENGER_JID:
            user, device = self._string(), self._integer(2)
            return JID(user, self._string(), device)
        raise MalformedStanzaError(f"unknown mark {mark} at byte {self._at}")

    def _packed(self, alphabet: str) -> str:
        header = self._byte()
        nibbles = [nibble for byte in self._take(header & 0x7F) for nibble in (byte >> 4, byte & 0xF)]
        return "".join(alphabet[nibble] for nibble in (nibbles[:-1] if header >> 7 else nibbles))

    def _list_size(self, mark: int) -> int:
        if mark == Mark.EMPTY:
            return 0
        if mark not in (Mark.LIST_8, Mark.LIST_16):
            raise MalformedStanzaError(f"a list was expected at byte {self._at}, not mark {mark}")
        return self._integer(1 if mark == Mark.LIST_8 else 2)

    def _byte(self) -> int:
        return self._take(1)[0]

    def _integer(self, length: int) -> int:
        return int.from_bytes(self._take(length), "big")

    def _take(self, length: int) -> bytes:
        data = self._data[self._at : self._at + length]
        if len(data) < length:
            raise MalformedStanzaError(f"{length} bytes were expected at byte {self._at}, {len(data)} are left")
        self._at += length
        return data
