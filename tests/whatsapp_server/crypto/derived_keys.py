"""Keys derived from a phone number, so that the server and a seeded store agree without exchanging any."""

from __future__ import annotations

import hmac

from .keys import DJB_TYPE, KeyPair

WORLD_SEED = b"shardd test phones"


def phone_seed(number: str) -> bytes:
    """The seed of all keys of the phone with that number."""
    return hmac.digest(WORLD_SEED, number.encode(), "sha256")


class LinkedKeys:
    """The keys of a linked device that was written into a store instead of being paired."""

    SIGNED_PREKEY_ID = 1

    def __init__(self, number: str, index: int) -> None:
        self._seed = hmac.digest(phone_seed(number), f"linked device {index}".encode(), "sha256")
        self.noise = KeyPair.derived(self._seed, "noise")
        self.identity = KeyPair.derived(self._seed, "identity")

    @property
    def registration_id(self) -> int:
        """Signal registration id, 31 bits."""
        return int.from_bytes(hmac.digest(self._seed, b"registration", "sha256")[:4], "big") >> 1

    @property
    def signed_prekey(self) -> KeyPair:
        """The signed prekey, whose id is SIGNED_PREKEY_ID."""
        return KeyPair.derived(self._seed, "signed prekey")

    @property
    def signature(self) -> bytes:
        """The identity's signature of the signed prekey."""
        return self.identity.sign(DJB_TYPE + self.signed_prekey.public)

    def prekey(self, key_id: int) -> KeyPair:
        """One-time prekey with that id."""
        return KeyPair.derived(self._seed, f"prekey {key_id}")
