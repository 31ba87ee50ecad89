"""Signal's X3DH and Double Ratchet (signal.org/docs), message version 3, for one simulated device.

All state is in memory. Every session uses the same one-time prekey, which is acceptable only in a test double.
"""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .keys import DJB_TYPE, KeyPair, hkdf
from .protobuf_fields import Fields, Values, write_fields

VERSION = b"\x33"
MAC_LENGTH = 8
AES_BLOCK_BITS = 128
MAX_SKIPPED = 2000
SIGNED_PREKEY_ID = ONE_TIME_PREKEY_ID = 1
_DISCONTINUITY = b"\xff" * 32


class CannotDecryptError(Exception):
    """The ciphertext is for another device, its session is unknown, or its MAC is wrong."""


class AlreadyDecryptedError(CannotDecryptError):
    """The message key was used before: the same ciphertext arrived twice."""


class PrekeyBundle(NamedTuple):
    """The public keys that are needed to open a session with a device."""

    identity: bytes
    signed_prekey_id: int
    signed_prekey: bytes
    one_time_prekey_id: int | None = None
    one_time_prekey: bytes | None = None


class MessageKeys(NamedTuple):
    """The keys of one message, derived from its position in a chain."""

    cipher: bytes
    mac: bytes
    iv: bytes


class Chain:
    """A hash chain of message keys; the keys of skipped messages are kept, as these may arrive late."""

    __slots__ = ("_key", "_skipped", "next")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._skipped: dict[int, bytes] = {}
        self.next = 0

    def advance(self) -> bytes:
        """The seed of the next message's keys."""
        seed = hmac.digest(self._key, b"\x01", "sha256")
        self._key = hmac.digest(self._key, b"\x02", "sha256")
        self.next += 1
        return seed

    def seed_at(self, index: int) -> bytes:
        """The seed of the message with that index; it can be taken once."""
        if index < self.next:
            try:
                return self._skipped.pop(index)
            except KeyError:
                raise AlreadyDecryptedError(f"message {index} of the chain was decrypted before") from None
        if index - self.next > MAX_SKIPPED:
            raise CannotDecryptError(f"message {index} is too far ahead of {self.next}")
        while self.next < index:
            skipped = self.next
            self._skipped[skipped] = self.advance()
        return self.advance()


class Session:
    """The ratchet state with one remote device."""

    __slots__ = (
        "_announce",
        "_own_ratchet",
        "_previous",
        "_receiving",
        "_root",
        "_sending",
        "base_key",
        "their_identity",
    )

    def __init__(self, their_identity: bytes, root: bytes, own_ratchet: KeyPair, sending: Chain) -> None:
        self.their_identity = their_identity
        self.base_key = b""
        self._root = root
        self._own_ratchet = own_ratchet
        self._sending = sending
        self._receiving: dict[bytes, Chain] = {}
        self._previous = 0
        self._announce: Values | None = None

    @classmethod
    def answered(cls, device: SignalDevice, base_key: bytes, their_identity: bytes, *, with_one_time: bool) -> Session:
        """The session that another device opened with our prekeys."""
        signed = device.signed_prekey
        secrets = [signed.agree(their_identity), device.identity.agree(base_key), signed.agree(base_key)]
        if with_one_time:
            secrets.append(device.one_time_prekey.agree(base_key))
        root, chain_key = _first_keys(secrets)
        session = cls(their_identity, root, signed, Chain(chain_key))
        session.base_key = base_key
        return session

    @classmethod
    def opened(cls, device: SignalDevice, bundle: PrekeyBundle) -> Session:
        """A new session, opened with the other device's prekeys."""
        base, own_ratchet = KeyPair(), KeyPair()
        secrets = [
            device.identity.agree(bundle.signed_prekey),
            base.agree(bundle.identity),
            base.agree(bundle.signed_prekey),
        ]
        if bundle.one_time_prekey is not None:
            secrets.append(base.agree(bundle.one_time_prekey))
        root, chain_key = _first_keys(secrets)
        session = cls(bundle.identity, root, own_ratchet, Chain(b""))
        session._receiving[bundle.signed_prekey] = Chain(chain_key)
        session._sending = session._step(own_ratchet, bundle.signed_prekey)
        session._announce = {
            1: bundle.one_time_prekey_id,
            2: DJB_TYPE + base.public,
            3: DJB_TYPE + device.identity.public,
            5: device.registration_id,
            6: bundle.signed_prekey_id,
        }
        return session

    def encrypt(self, own_identity: bytes, plain: bytes) -> tuple[str, bytes]:
        """(kind, ciphertext); the kind is ``pkmsg`` until the other side has answered, then ``msg``."""
        index = self._sending.next
        keys = _message_keys(self._sending.advance())
        fields: Values = {
            1: DJB_TYPE + self._own_ratchet.public,
            2: index,
            3: self._previous,
            4: aes_encrypt(keys, plain),
        }
        body = VERSION + write_fields(fields)
        message = body + _mac(keys, own_identity, self.their_identity, body)
        if self._announce is None:
            return "msg", message
        return "pkmsg", VERSION + write_fields(self._announce | {4: message})

    def decrypt(self, own_identity: bytes, message: bytes) -> bytes:
        """Plain bytes of a ``msg``."""
        body, mac = message[:-MAC_LENGTH], message[-MAC_LENGTH:]
        fields = Fields(body[1:])
        their_ratchet = fields.data(1)[1:]
        chain = self._receiving.get(their_ratchet)
        if chain is None:
            chain = self._step(self._own_ratchet, their_ratchet)
            self._receiving[their_ratchet] = chain
            self._previous = max(self._sending.next - 1, 0)
            self._own_ratchet = KeyPair()
            self._sending = self._step(self._own_ratchet, their_ratchet)
        self._announce = None
        keys = _message_keys(chain.seed_at(fields.integer(2)))
        if not hmac.compare_digest(mac, _mac(keys, self.their_identity, own_identity, body)):
            raise CannotDecryptError("wrong MAC")
        return aes_decrypt(keys, fields.data(4))

    def _step(self, own: KeyPair, theirs: bytes) -> Chain:
        """Advance the Diffie-Hellman ratchet: set a new root key and return its chain."""
        keys = hkdf(own.agree(theirs), salt=self._root, info=b"WhisperRatchet", length=64)
        self._root = keys[:32]
        return Chain(keys[32:])


class SignalDevice:
    """The keys of one device, derived from a seed, and its sessions by remote address."""

    def __init__(self, seed: bytes) -> None:
        self.identity = KeyPair.derived(seed, "identity")
        self.signed_prekey = KeyPair.derived(seed, "signed prekey")
        self.one_time_prekey = KeyPair.derived(seed, "one-time prekey")
        self.signature = self.identity.sign(DJB_TYPE + self.signed_prekey.public)
        self.registration_id = int.from_bytes(hmac.digest(seed, b"registration", "sha256")[:2], "big") | 1
        self._sessions: dict[str, Session] = {}

    def knows(self, address: str) -> bool:
        """Whether there is a session with that device."""
        return address in self._sessions

    def open_session(self, address: str, bundle: PrekeyBundle) -> None:
        """Open a session with a device that has not written yet."""
        self._sessions[address] = Session.opened(self, bundle)

    def encrypt(self, address: str, plain: bytes) -> tuple[str, bytes]:
        """The kind and the ciphertext of a message, after WhatsApp's padding; a session must exist."""
        return self._sessions[address].encrypt(self.identity.public, pad_message(plain))

    def decrypt(self, address: str, kind: str, message: bytes) -> bytes:
        """Plain bytes of a ``pkmsg`` or ``msg``, without WhatsApp's padding.

        Raises:
            AlreadyDecryptedError: This ciphertext was decrypted before.
            CannotDecryptError: There is no session, or the message is not authentic.
        """
        if kind == "pkmsg":
            fields = Fields(message[1:])
            base_key, identity, message = fields.data(2)[1:], fields.data(3)[1:], fields.data(4)
            known = self._sessions.get(address)
            if known is None or known.base_key != base_key:
                self._sessions[address] = Session.answered(self, base_key, identity, with_one_time=1 in fields)
        if address not in self._sessions:
            raise CannotDecryptError(f"no session with {address}")
        return unpad_message(self._sessions[address].decrypt(self.identity.public, message))


def pad_message(plain: bytes) -> bytes:
    """WhatsApp's padding: 1 to 15 bytes, each of that value."""
    count = os.urandom(1)[0] % 15 + 1
    return plain + bytes((count,)) * count


def unpad_message(padded: bytes) -> bytes:
    """Undo ``pad_message``."""
    return padded[: -padded[-1]]


def aes_encrypt(keys: MessageKeys, plain: bytes) -> bytes:
    """AES-256-CBC with PKCS#7 padding."""
    padder = padding.PKCS7(AES_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(keys.cipher), modes.CBC(keys.iv)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()


def aes_decrypt(keys: MessageKeys, sealed: bytes) -> bytes:
    """Undo ``aes_encrypt``."""
    decryptor = Cipher(algorithms.AES(keys.cipher), modes.CBC(keys.iv)).decryptor()
    unpadder = padding.PKCS7(AES_BLOCK_BITS).unpadder()
    try:
        return unpadder.update(decryptor.update(sealed) + decryptor.finalize()) + unpadder.finalize()
    except ValueError as error:
        raise CannotDecryptError("wrong padding") from error


def _first_keys(secrets: list[bytes]) -> tuple[bytes, bytes]:
    keys = hkdf(_DISCONTINUITY + b"".join(secrets), info=b"WhisperText", length=64)
    return keys[:32], keys[32:]


def _message_keys(seed: bytes) -> MessageKeys:
    keys = hkdf(seed, info=b"WhisperMessageKeys", length=80)
    return MessageKeys(keys[:32], keys[32:64], keys[64:])


def _mac(keys: MessageKeys, sender: bytes, receiver: bytes, body: bytes) -> bytes:
    return hmac.digest(keys.mac, DJB_TYPE + sender + DJB_TYPE + receiver + body, "sha256")[:MAC_LENGTH]
