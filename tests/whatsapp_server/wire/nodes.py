"""The values in a stanza: addresses (JID) and nodes.

Attributes keep their types, because the client requires them: ``from`` must be a JID, not a string that looks like one.
The typed accessors raise ``MalformedStanzaError``, so handlers need no checks.
"""

from __future__ import annotations

from typing import NamedTuple

USER_SERVER = "s.whatsapp.net"
LID_SERVER = "lid"
GROUP_SERVER = "g.us"
LID_OFFSET = 10**14  # a number's LID is the number plus this, so no table is needed


class MalformedStanzaError(ValueError):
    """The client sent a stanza without a required part."""


class JID(NamedTuple):
    """An address: user@server, with a device index (0: the phone itself)."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        if not self.user:
            return self.server
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}"

    @property
    def number(self) -> str:
        """The phone number behind a number or LID address."""
        return str(int(self.user) - LID_OFFSET) if self.server == LID_SERVER else self.user


SERVER = JID("", USER_SERVER)


def number_jid(number: str, device: int = 0) -> JID:
    """The address of a phone number."""
    return JID(number, USER_SERVER, device)


def lid_jid(number: str, device: int = 0) -> JID:
    """The LID address of a phone number on this server."""
    return JID(str(int(number) + LID_OFFSET), LID_SERVER, device)


AttributeValue = str | int | JID | None
Attributes = dict[str, AttributeValue]
Content = list["Node"] | bytes | str | None


class Node:
    """One XML-like element: tag, attributes, and either children, bytes, text or nothing."""

    __slots__ = ("attributes", "content", "tag")

    def __init__(self, tag: str, attributes: Attributes | None = None, content: Content = None) -> None:
        self.tag = tag
        self.attributes = attributes or {}
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        attributes = "".join(f" {name}={str(value)!r}" for name, value in self.attributes.items() if value is not None)
        if self.content is None:
            return f"<{self.tag}{attributes}/>"
        if isinstance(self.content, list):
            inner = "".join(map(repr, self.content))
        else:
            inner = self.content if isinstance(self.content, str) else self.content.hex()
        return f"<{self.tag}{attributes}>{inner}</{self.tag}>"

    @property
    def children(self) -> list[Node]:
        """Child nodes; empty when the content is something else."""
        return self.content if isinstance(self.content, list) else []

    def find(self, *path: str) -> Node | None:
        """The first child with that tag, and so on down ``path``; None if a step is missing."""
        node: Node | None = self
        for tag in path:
            node = next((child for child in node.children if child.tag == tag), None) if node else None
        return node

    def need(self, *path: str) -> Node:
        """Like ``find``, but a missing step is a ``MalformedStanzaError``."""
        found = self.find(*path)
        if found is None:
            raise MalformedStanzaError(f"<{self.tag}> has no {'/'.join(path)}: {self!r}")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """An attribute as text; without ``default`` a missing one is a ``MalformedStanzaError``."""
        value = self.attributes.get(name)
        if value is None:
            if default is None:
                raise MalformedStanzaError(f"<{self.tag}> has no attribute {name}: {self!r}")
            return default
        return str(value)

    def jid(self, name: str) -> JID:
        """An attribute that must be an address."""
        value = self.attributes.get(name)
        if not isinstance(value, JID):
            raise MalformedStanzaError(f"<{self.tag}> has no address in attribute {name}: {self!r}")
        return value

    @property
    def data(self) -> bytes:
        """Content as bytes; empty without content."""
        if isinstance(self.content, str):
            return self.content.encode()
        return self.content if isinstance(self.content, bytes) else b""

    @property
    def number(self) -> int:
        """Content read as a big-endian integer."""
        return int.from_bytes(self.data, "big")
