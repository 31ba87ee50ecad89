"""Groups, which tests create and clients query."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..wire.nodes import GROUP_SERVER, JID, Attributes, Node, lid_jid, number_jid

_FIRST_ID = 120363000000000000


class UnknownGroupError(LookupError):
    """No group has that id."""


@dataclass
class Group:
    """A group; ``members`` are phone numbers, the devices under test included."""

    id: str
    subject: str
    members: list[str]

    @property
    def jid(self) -> JID:
        """Its address."""
        return JID(self.id, GROUP_SERVER)

    def description(self) -> Node:
        """The group as a stanza; its id is given without the server part."""
        members = [
            Node("participant", {"jid": lid_jid(number), "phone_number": number_jid(number)}) for number in self.members
        ]
        attributes: Attributes = {"id": self.id, "subject": self.subject, "addressing_mode": "lid", "creation": 0}
        return Node("group", attributes | {"creator": lid_jid(self.members[0])}, members)


class GroupBook:
    """All groups, by id."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._ids = itertools.count(_FIRST_ID)

    def create(self, subject: str, members: list[str]) -> Group:
        """Create a group with at least one member."""
        if not members:
            raise ValueError("a group needs members")
        group = Group(str(next(self._ids)), subject, members)
        self._groups[group.id] = group
        return group

    def find(self, group_id: str) -> Group:
        """The group with that id.

        Raises:
            UnknownGroupError: There is none.
        """
        if group_id not in self._groups:
            raise UnknownGroupError(f"no group {group_id}")
        return self._groups[group_id]

    def of_member(self, number: str) -> list[Group]:
        """The groups that a number is a member of."""
        return [group for group in self._groups.values() if number in group.members]

    def clear(self) -> None:
        """Forget all groups."""
        self._groups.clear()
