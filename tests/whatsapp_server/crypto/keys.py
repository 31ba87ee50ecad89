"""X25519 key pairs and their signatures, XEdDSA (signal.org/docs/specifications/xeddsa).

libsodium does the curve arithmetic. Keys can be derived from a seed and a label, so the server, a seeded store and a test
agree on the keys of a phone without exchanging them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from nacl import bindings, exceptions

KEY_LENGTH = 32
SIGNATURE_LENGTH = 64
DJB_TYPE = b"\x05"  # Signal's prefix of a serialised Curve25519 public key
_FIELD = 2**255 - 19
_SIGN_BIT = 0x80
_NONCE_PREFIX = b"\xfe" + b"\xff" * 31


class KeyPair:
    """A private key of 32 bytes (random unless given) and its public key."""

    __slots__ = ("__dict__", "private", "public")

    def __init__(self, private: bytes | None = None) -> None:
        scalar = bytearray(private or os.urandom(KEY_LENGTH))
        scalar[0] &= 0xF8
        scalar[31] = scalar[31] & 0x7F | 0x40
        self.private = bytes(scalar)
        self.public = bindings.crypto_scalarmult_base(self.private)

    @classmethod
    def derived(cls, seed: bytes, label: str) -> KeyPair:
        """The key pair of this seed and label."""
        return cls(hmac.digest(seed, label.encode(), "sha256"))

    @cached_property
    def _exchange_key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.private)

    def agree(self, public: bytes) -> bytes:
        """The 32-byte Diffie-Hellman secret with another public key."""
        return self._exchange_key.exchange(X25519PublicKey.from_public_bytes(public))

    def sign(self, message: bytes) -> bytes:
        """A 64-byte XEdDSA signature."""
        reduce, edwards_point = (
            bindings.crypto_core_ed25519_scalar_reduce,
            bindings.crypto_scalarmult_ed25519_base_noclamp,
        )
        scalar = reduce(self.private + bytes(KEY_LENGTH))
        point = edwards_point(scalar)
        if point[31] & _SIGN_BIT:  # a verifier assumes the point with sign bit 0
            scalar = bindings.crypto_core_ed25519_scalar_negate(scalar)
            point = point[:31] + bytes((point[31] & ~_SIGN_BIT,))
        nonce = reduce(hashlib.sha512(_NONCE_PREFIX + scalar + message + os.urandom(64)).digest())
        commitment = edwards_point(nonce)
        challenge = reduce(hashlib.sha512(commitment + point + message).digest())
        product = bindings.crypto_core_ed25519_scalar_mul(challenge, scalar)
        return commitment + bindings.crypto_core_ed25519_scalar_add(nonce, product)


def signature_is_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of an X25519 public key signed the message; libsignal keeps the point's sign in the last bit."""
    if len(signature) != SIGNATURE_LENGTH:
        return False
    u = int.from_bytes(public, "little") % (1 << 255)
    y = (u - 1) * pow(u + 1, -1, _FIELD) % _FIELD
    point = bytearray(y.to_bytes(KEY_LENGTH, "little"))
    point[31] |= signature[63] & _SIGN_BIT
    plain_signature = signature[:63] + bytes((signature[63] & ~_SIGN_BIT,))
    try:
        bindings.crypto_sign_open(plain_signature + message, bytes(point))
    except exceptions.BadSignatureError:
        return False
    return True


def hkdf(secret: bytes, *, salt: bytes = bytes(KEY_LENGTH), info: bytes = b"", length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    key = hmac.digest(salt, secret, "sha256")
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes((counter,)), "sha256")
        out += block
        counter += 1
    return out[:length]
