"""Signal's sender keys, with which a device encrypts a message once for a whole group.

The sender gives every member a chain key and a signing key (in a normal message), then sends one ``skmsg`` to all.
"""

from __future__ import annotations

import os

from .keys import DJB_TYPE, SIGNATURE_LENGTH, KeyPair, hkdf, signature_is_valid
from .protobuf_fields import Fields, Values, write_fields
from .ratchet import (
    VERSION,
    CannotDecryptError,
    Chain,
    MessageKeys,
    aes_decrypt,
    aes_encrypt,
    pad_message,
    unpad_message,
)


class ReceivedSenderKey:
    """A sender key as a group member has it, from a distribution message."""

    def __init__(self, distribution: bytes) -> None:
        fields = Fields(distribution[1:])
        self.key_id = fields.integer(1)
        self._start = fields.integer(2)
        self._chain = Chain(fields.data(3))
        self._signing_key = fields.data(4)[1:]

    def decrypt(self, message: bytes) -> bytes:
        """Plain bytes of a ``skmsg``, without WhatsApp's padding.

        Raises:
            AlreadyDecryptedError: This ciphertext was decrypted before.
            CannotDecryptError: Another key was used, or the signature is wrong.
        """
        body, signature = message[:-SIGNATURE_LENGTH], message[-SIGNATURE_LENGTH:]
        fields = Fields(body[1:])
        if fields.integer(1) != self.key_id:
            raise CannotDecryptError(f"sender key {fields.integer(1)} is not the one received, {self.key_id}")
        if not signature_is_valid(self._signing_key, body, signature):
            raise CannotDecryptError("wrong signature of a group message")
        keys = _message_keys(self._chain.seed_at(fields.integer(2) - self._start))
        return unpad_message(aes_decrypt(keys, fields.data(3)))


class OwnSenderKey:
    """A sender key as its owner has it."""

    def __init__(self) -> None:
        self._key_id = int.from_bytes(os.urandom(3), "big")
        self._chain_key = os.urandom(32)
        self._chain = Chain(self._chain_key)
        self._signing = KeyPair()

    def distribution(self) -> bytes:
        """The distribution message, which lets others read every message from the first on."""
        fields: Values = {1: self._key_id, 2: 0, 3: self._chain_key, 4: DJB_TYPE + self._signing.public}
        return VERSION + write_fields(fields)

    def encrypt(self, plain: bytes) -> bytes:
        """Encrypt a message as ``skmsg``."""
        index = self._chain.next
        sealed = aes_encrypt(_message_keys(self._chain.advance()), pad_message(plain))
        body = VERSION + write_fields({1: self._key_id, 2: index, 3: sealed})
        return body + self._signing.sign(body)


def _message_keys(seed: bytes) -> MessageKeys:
    keys = hkdf(seed, info=b"WhisperGroup", length=48)
    return MessageKeys(cipher=keys[16:], mac=b"", iv=keys[:16])
