"""The phone's side of linking by an eight-character code.

Both sides encrypt an ephemeral key with the code (PBKDF2, AES-CTR). Under the resulting shared secret the device sends its
identity key and a random value, from which both derive the secret that a QR code would have contained.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keys import KeyPair, hkdf

PBKDF2_ROUNDS = 131072
SALT_LENGTH, IV_LENGTH, NONCE_LENGTH, KEY_LENGTH = 32, 16, 12, 32
_BUNDLE_INFO = b"link_code_pairing_key_bundle_encryption_key"


class WrongCodeError(Exception):
    """The bundle cannot be decrypted: the code that was typed is not the one that the device displayed."""


class LinkCodeExchange:
    """One attempt of a device to be linked to the phone with ``number``."""

    def __init__(self, number: str, wrapped_device_key: bytes) -> None:
        self.number = number
        self.reference = base64.urlsafe_b64encode(os.urandom(18)).decode()
        self._wrapped_device_key = wrapped_device_key
        self._ephemeral = KeyPair()
        self._device_key = b""

    def type_code(self, code: str) -> bytes:
        """The owner types the code, with or without its dash; returns the phone's wrapped ephemeral key."""
        code = code.replace("-", "").upper()
        salt, iv = (
            self._wrapped_device_key[:SALT_LENGTH],
            self._wrapped_device_key[SALT_LENGTH : SALT_LENGTH + IV_LENGTH],
        )
        self._device_key = _crypt(code, salt, iv, self._wrapped_device_key[SALT_LENGTH + IV_LENGTH :])
        self._ephemeral = KeyPair()
        own_salt, own_iv = os.urandom(SALT_LENGTH), os.urandom(IV_LENGTH)
        return own_salt + own_iv + _crypt(code, own_salt, own_iv, self._ephemeral.public)

    def open_bundle(self, wrapped: bytes, identity: KeyPair, device_identity: bytes) -> bytes:
        """The ADV secret, from the device's wrapped key bundle.

        Raises:
            WrongCodeError: The bundle was made with another code, or names other identities.
        """
        salt, nonce, sealed = (
            wrapped[:SALT_LENGTH],
            wrapped[SALT_LENGTH : SALT_LENGTH + NONCE_LENGTH],
            wrapped[SALT_LENGTH + NONCE_LENGTH :],
        )
        shared = self._ephemeral.agree(self._device_key)
        key = hkdf(shared, salt=salt, info=_BUNDLE_INFO, length=KEY_LENGTH)
        try:
            bundle = AESGCM(key).decrypt(nonce, sealed, None)
        except InvalidTag as error:
            raise WrongCodeError from error
        if bundle[: 2 * KEY_LENGTH] != device_identity + identity.public:
            raise WrongCodeError
        secret = shared + identity.agree(device_identity) + bundle[2 * KEY_LENGTH :]
        return hkdf(secret, info=b"adv_secret", length=KEY_LENGTH)


def _crypt(code: str, salt: bytes, iv: bytes, data: bytes) -> bytes:
    """Wrap or unwrap a key under the code; AES-CTR is its own inverse."""
    key = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, PBKDF2_ROUNDS, KEY_LENGTH)
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()
