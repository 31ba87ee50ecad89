"""Decrypting a file of WhatsApp as it arrives. Pure.

A file is encrypted with AES-256-CBC and PKCS #7 padding, and ends with the first 10 bytes of an HMAC-SHA256 over the
initialization vector and the ciphertext. HKDF-SHA256 makes the vector and both keys of the media key (whatsmeow, download.go and
upload.go; Baileys, messages-media.ts).
"""

from __future__ import annotations

import hashlib
import hmac
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shardd.incoming import MediaSource

MAC: Final = 10
"""Bytes at the end of a file."""
BLOCK: Final = 16
OVERHEAD: Final = MAC + BLOCK
"""Bytes that an encrypted file is longer, at most."""
_INFO: Final = MappingProxyType(
    {
        "image": b"WhatsApp Image Keys",
        "video": b"WhatsApp Video Keys",
        "audio": b"WhatsApp Audio Keys",
        "document": b"WhatsApp Document Keys",
    }
)


class WrongFileError(Exception):
    """The file is not the one of the message; the text continues "the file"."""


class PlainFile:
    """One file that is not encrypted, from its first byte to its last."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.expected: bytes | None = None
        """Its SHA-256; None: not known."""

    def feed(self, data: bytes) -> bytes:
        """The next bytes."""
        self._digest.update(data)
        return data

    def finish(self) -> bytes:
        """No more bytes. Raises WrongFileError."""
        if self.expected is not None and self._digest.digest() != self.expected:
            raise WrongFileError("is not the one that the message describes")
        return b""


class SealedFile:
    """One encrypted file, from its first byte to its last."""

    def __init__(self, source: MediaSource) -> None:
        keys = HKDF(SHA256(), length=112, salt=None, info=_INFO[source.kind]).derive(source.key)
        vector, cipher_key, mac_key = keys[:16], keys[16:48], keys[48:80]
        self._source = source
        self._cipher = Cipher(algorithms.AES(cipher_key), modes.CBC(vector)).decryptor()
        self._mac = hmac.new(mac_key, vector, "sha256")
        self._sealed, self._plain = hashlib.sha256(), hashlib.sha256()
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the file; returns what can be decrypted of it."""
        self._sealed.update(data)
        self._rest += data
        # What may be the end is kept back: the padding and the MAC.
        size = max(0, len(self._rest) - OVERHEAD) // BLOCK * BLOCK
        ready = bytes(self._rest[:size])
        del self._rest[:size]
        return self._decrypt(ready)

    def finish(self) -> bytes:
        """The last bytes. Raises WrongFileError: what was decrypted so far is worth nothing then."""
        ready, mac = bytes(self._rest[:-MAC]), bytes(self._rest[-MAC:])
        if self._sealed.digest() != self._source.sealed_sha256:
            raise WrongFileError("is not the one that the message describes")
        if not ready or len(ready) % BLOCK:
            raise WrongFileError("was not encrypted as the message describes")
        self._mac.update(ready)
        if not hmac.compare_digest(self._mac.digest()[:MAC], mac):
            raise WrongFileError("was not encrypted with the key of the message")
        plain = self._cipher.update(ready) + self._cipher.finalize()
        padding = plain[-1]
        if not 1 <= padding <= BLOCK or plain[-padding:] != bytes([padding]) * padding:
            raise WrongFileError("was not encrypted as the message describes")
        plain = plain[:-padding]
        self._plain.update(plain)
        if self._plain.digest() != self._source.plain_sha256:
            raise WrongFileError("is not the one that the message describes")
        return plain

    def _decrypt(self, ready: bytes) -> bytes:
        self._mac.update(ready)
        plain = self._cipher.update(ready)
        self._plain.update(plain)
        return plain
