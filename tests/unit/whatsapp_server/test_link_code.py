"""The phone's side of linking by code, with a device's side as the client implements it."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.whatsapp_server.crypto.keys import KeyPair, hkdf
from tests.whatsapp_server.crypto.link_code import PBKDF2_ROUNDS, LinkCodeExchange, WrongCodeError

CODE = "ABCD2345"


def crypt(code: str, salt: bytes, iv: bytes, data: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, PBKDF2_ROUNDS, 32)
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


class Device:
    def __init__(self) -> None:
        self.identity, self.ephemeral = KeyPair(), KeyPair()
        self.random = os.urandom(32)

    def hello(self) -> bytes:
        salt, iv = os.urandom(32), os.urandom(16)
        return salt + iv + crypt(CODE, salt, iv, self.ephemeral.public)

    def finish(self, wrapped: bytes, phone_identity: bytes) -> tuple[bytes, bytes]:
        """(wrapped key bundle, the secret that both should have)."""
        phone_ephemeral = crypt(CODE, wrapped[:32], wrapped[32:48], wrapped[48:])
        shared = self.ephemeral.agree(phone_ephemeral)
        salt, nonce = os.urandom(32), os.urandom(12)
        key = hkdf(shared, salt=salt, info=b"link_code_pairing_key_bundle_encryption_key", length=32)
        bundle = AESGCM(key).encrypt(nonce, self.identity.public + phone_identity + self.random, None)
        secret = hkdf(shared + self.identity.agree(phone_identity) + self.random, info=b"adv_secret", length=32)
        return salt + nonce + bundle, secret


@pytest.mark.parametrize("typed", ["ABCD2345", "ABCD-2345", "abcd-2345"])
def test_the_right_code_gives_both_the_same_secret(typed: str) -> None:
    device, phone = Device(), KeyPair()
    exchange = LinkCodeExchange("62811", device.hello())
    bundle, secret = device.finish(exchange.type_code(typed), phone.public)
    assert len(bundle) == 156
    assert exchange.open_bundle(bundle, phone, device.identity.public) == secret


def test_a_wrong_code_or_another_identity_opens_nothing() -> None:
    device, phone = Device(), KeyPair()
    exchange = LinkCodeExchange("62811", device.hello())
    bundle, _secret = device.finish(exchange.type_code("ABCD2346"), phone.public)
    with pytest.raises(WrongCodeError):
        exchange.open_bundle(bundle, phone, device.identity.public)
    bundle, _secret = device.finish(exchange.type_code(CODE), phone.public)
    with pytest.raises(WrongCodeError):
        exchange.open_bundle(bundle, phone, KeyPair().public)
