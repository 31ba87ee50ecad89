"""Accounts and their linked devices: who may log in, who is banned, restricted or unlinked, and which keys are known."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..crypto.derived_keys import LinkedKeys
from ..crypto.ratchet import PrekeyBundle
from ..wire.nodes import JID, Node, lid_jid, number_jid

if TYPE_CHECKING:
    from ..handlers.connection import ChatConnection

OFFLINE_QUEUE = 1000
_KEY_ID_LENGTH = 3
_PREKEY_LENGTH = _KEY_ID_LENGTH + 32


class UnknownDeviceError(LookupError):
    """No device of that name has logged in or paired."""


Delivery = tuple[str, ...]
"""What identifies a stanza that a device has to confirm."""


class PublicKeys(NamedTuple):
    """A linked device's public Signal keys, without its one-time prekeys."""

    registration: bytes
    identity: bytes
    signed_prekey_id: int
    signed_prekey: bytes
    signature: bytes


def _receipt(node: Node, peer: str) -> Delivery:
    """Of a receipt or its ack, where the address of the peer has another name."""
    return "receipt", *(str(node.attributes.get(name)) for name in ("id", "type", peer, "participant"))


@dataclass(eq=False)
class LinkedDevice:
    """One device linked to an account: the client under test."""

    number: str
    index: int
    noise_key: bytes
    keys: PublicKeys | None = None
    connection: ChatConnection | None = None
    waiting: deque[Node] = field(default_factory=lambda: deque(maxlen=OFFLINE_QUEUE))
    unconfirmed: dict[Delivery, Node] = field(default_factory=dict)  # handed over and not confirmed yet
    logins: int = 0
    presences: int = 0
    active_at: float = field(default_factory=time.time)  # when it was linked, or last showed itself as available
    longest_silence: float = 0.0  # seconds without either
    offline_since: float = field(default_factory=time.time)
    longest_offline: float = 0.0  # seconds
    _prekeys: bytes = b""  # packed: a device uploads 812 of them, and there are thousands of devices

    @property
    def name(self) -> str:
        """``number:index``, its name in the control protocol and in the record."""
        return f"{self.number}:{self.index}"

    @property
    def jid(self) -> JID:
        """Its phone number address."""
        return number_jid(self.number, self.index)

    @property
    def lid(self) -> JID:
        """Its LID address."""
        return lid_jid(self.number, self.index)

    def show_presence(self) -> None:
        """It shows itself as available."""
        self.presences += 1
        self.longest_silence, self.active_at = self.silence(), time.time()

    def offline(self) -> float:
        """The longest time so far, in seconds, in which it was not logged in."""
        return max(self.longest_offline, 0.0 if self.connection else time.time() - self.offline_since)

    def silence(self) -> float:
        """The longest time so far, in seconds, in which it was not available."""
        return max(self.longest_silence, time.time() - self.active_at)

    def add_prekeys(self, nodes: list[Node]) -> None:
        """Store the one-time prekeys of an upload."""
        self._prekeys += b"".join(node.need("id").data + node.need("value").data for node in nodes)

    def take_bundle(self) -> PrekeyBundle | None:
        """Keys for a new session, with a one-time prekey if one is left; None if its keys are not known."""
        if self.keys is None:
            return None
        key_id: int | None = None
        prekey: bytes | None = None
        if self._prekeys:
            taken, self._prekeys = self._prekeys[:_PREKEY_LENGTH], self._prekeys[_PREKEY_LENGTH:]
            key_id, prekey = int.from_bytes(taken[:_KEY_ID_LENGTH], "big"), taken[_KEY_ID_LENGTH:]
        return PrekeyBundle(self.keys.identity, self.keys.signed_prekey_id, self.keys.signed_prekey, key_id, prekey)

    def deliver(self, node: Node) -> None:
        """Send a stanza now, or at the device's next login."""
        if self.connection is None or self.connection.muted:
            self.waiting.append(node)
        else:
            self.hand_over(self.connection, node)

    def hand_over(self, connection: ChatConnection, node: Node) -> None:
        """Send a stanza now; a message or a receipt that the device does not confirm is sent again at its next login."""
        if node.tag == "message":
            self.unconfirmed["message", node.text("id")] = node
        elif node.tag == "receipt":
            self.unconfirmed[_receipt(node, "from")] = node
        connection.send(node)

    def confirm_message(self, message_id: str) -> None:
        """It has received a message."""
        self.unconfirmed.pop(("message", message_id), None)

    def confirm_receipt(self, ack: Node) -> None:
        """It has received a receipt."""
        self.unconfirmed.pop(_receipt(ack, "to"), None)

    def wait_again(self) -> None:
        """At a login: what it did not confirm waits for it, before everything else."""
        self.waiting.extendleft(reversed(self.unconfirmed.values()))
        self.unconfirmed.clear()


@dataclass(eq=False)
class Account:
    """A phone number with its linked devices, bans and restrictions. Times are Unix seconds."""

    number: str
    devices: dict[int, LinkedDevice] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)
    banned_until: float = 0.0
    ban_code: int = 0
    restricted_until: float = 0.0

    @property
    def is_banned(self) -> bool:
        """Whether a temporary ban is in force."""
        return time.time() < self.banned_until

    @property
    def is_restricted(self) -> bool:
        """Whether messages to strangers are refused with 463."""
        return time.time() < self.restricted_until

    def is_stranger(self, recipient: str) -> bool:
        """Whether this account has never written to that number (its own number is not a stranger)."""
        return recipient != self.number and recipient not in self.contacts

    def next_index(self) -> int:
        """Index for the next device that is paired."""
        return max([*self.devices, *self.removed], default=0) + 1


class AccountBook:
    """All accounts, by number; an account is created when it is first used."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def account(self, number: str) -> Account:
        """The account of a number."""
        if number not in self._accounts:
            self._accounts[number] = Account(number)
        return self._accounts[number]

    def link(self, number: str, index: int, noise_key: bytes, keys: PublicKeys | None) -> LinkedDevice:
        """Add a newly paired device."""
        account = self.account(number)
        account.removed.discard(index)
        account.devices[index] = LinkedDevice(number, index, noise_key, keys)
        return account.devices[index]

    def login(self, number: str, index: int, noise_key: bytes) -> LinkedDevice | None:
        """The device that logs in with that Noise key; None if it may not log in.

        An unknown device is accepted: its store may have been seeded, or paired with an earlier server. If it has the
        Noise key of a seeded device, its Signal keys are known too.
        """
        account = self.account(number)
        if index in account.removed:
            return None
        device = account.devices.get(index)
        if device is None:
            device = self.link(number, index, noise_key, _seeded_keys(number, index, noise_key))
        return device if device.noise_key == noise_key else None

    def device(self, name: str) -> LinkedDevice:
        """The device named ``number:index``, or the latest device of ``number``.

        Raises:
            UnknownDeviceError: There is none.
        """
        number, _, index = name.partition(":")
        devices = self._accounts[number].devices if number in self._accounts else {}
        if not devices or (index and int(index) not in devices):
            raise UnknownDeviceError(f"no device {name} has logged in or paired")
        return devices[int(index)] if index else devices[max(devices)]

    def devices(self) -> list[LinkedDevice]:
        """All linked devices that are known."""
        return [device for account in self._accounts.values() for device in account.devices.values()]

    def online(self) -> list[LinkedDevice]:
        """The devices that are logged in."""
        return [device for device in self.devices() if device.connection]

    def clear_standing(self) -> None:
        """End all bans and restrictions, and forget all contacts."""
        for account in self._accounts.values():
            account.banned_until = account.restricted_until = 0.0
            account.contacts.clear()

    def remove(self, device: LinkedDevice) -> None:
        """Unlink a device; its later logins are refused."""
        account = self.account(device.number)
        account.devices.pop(device.index, None)
        account.removed.add(device.index)


def _seeded_keys(number: str, index: int, noise_key: bytes) -> PublicKeys | None:
    keys = LinkedKeys(number, index)
    if keys.noise.public != noise_key:
        return None
    registration = keys.registration_id.to_bytes(4, "big")
    signed = keys.signed_prekey.public
    return PublicKeys(registration, keys.identity.public, LinkedKeys.SIGNED_PREKEY_ID, signed, keys.signature)
