"""The simulated phones: recipients of the devices under test, and owners of the accounts that these are linked to.

Every number is a phone, which is created when it is first used. A phone decrypts messages and can write messages.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from ..crypto.derived_keys import phone_seed
from ..crypto.ratchet import CannotDecryptError, SignalDevice
from ..crypto.sender_keys import OwnSenderKey, ReceivedSenderKey
from ..wire.neonize_library import load_neonize

load_neonize()
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: E402 - no stubs; after the library is loaded
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e  # noqa: E402

__all__ = ["GROUP_KIND", "Phone", "e2e"]

GROUP_KIND = "skmsg"


class Phone:
    """One phone: its Signal keys and sessions, and the sender keys of its groups.

    Attributes:
        online: Whether it is switched on; messages wait until it is.
        waiting: What it does when it is switched on again.
        retries: How often it asked for a message that it could not decrypt, by id.
        screen: The messages that it shows, by their chat (a number, or the id of a group), their sender's number and their id.
    """

    def __init__(self, number: str) -> None:
        self.number = number
        self.online = True
        self.waiting: list[Callable[[], None]] = []
        self.retries: Counter[str] = Counter()
        self.screen: dict[tuple[str, str, str], str] = {}
        self.signal = SignalDevice(phone_seed(number))
        self._received_sender_keys: dict[tuple[str, str], ReceivedSenderKey] = {}
        self._own_sender_keys: dict[str, OwnSenderKey] = {}

    def reinstall(self) -> None:
        """WhatsApp is installed anew: all keys are new ones, and what was encrypted for the old ones is unreadable."""
        self.signal = SignalDevice(os.urandom(32))
        self._received_sender_keys.clear()
        self._own_sender_keys.clear()

    def switch_on(self) -> None:
        """Everything that waited for it arrives."""
        self.online = True
        waiting, self.waiting = self.waiting, []
        for arrive in waiting:
            arrive()

    def read(self, sender: str, kind: str, sealed: bytes) -> e2e.Message:
        """Decrypt a message for this phone alone; a sender key in it is stored.

        Raises:
            CannotDecryptError: The ciphertext is not for this phone, or not a message.
        """
        message = _parse(self.signal.decrypt(sender, kind, sealed))
        distribution = message.senderKeyDistributionMessage
        if distribution.axolotlSenderKeyDistributionMessage:
            key = ReceivedSenderKey(distribution.axolotlSenderKeyDistributionMessage)
            self._received_sender_keys[distribution.groupID, sender] = key
        return message

    def read_group(self, group: str, sender: str, sealed: bytes) -> e2e.Message:
        """Decrypt a message for a whole group.

        Raises:
            CannotDecryptError: The phone has no sender key of the sender, or the ciphertext is not authentic.
        """
        key = self._received_sender_keys.get((group, sender))
        if key is None:
            raise CannotDecryptError(f"{self.number} has no sender key of {sender} for {group}")
        return _parse(key.decrypt(sealed))

    def own_sender_key(self, group: str) -> OwnSenderKey:
        """The key with which this phone writes to a group."""
        return self._own_sender_keys.setdefault(group, OwnSenderKey())


def _parse(plain: bytes) -> e2e.Message:
    try:
        return e2e.Message.FromString(plain)
    except DecodeError as error:
        raise CannotDecryptError("the plain bytes are not a message") from error
