"""Encrypted files as WhatsApp's storage keeps them; the key is in the message.

A file is encrypted with AES-256-CBC, with keys expanded from a 32-byte media key and the kind of media, and ends with a
10-byte MAC.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from typing import NamedTuple

from ..crypto.keys import hkdf
from ..crypto.ratchet import CannotDecryptError, MessageKeys, aes_decrypt, aes_encrypt

MAC_LENGTH = 10
STORE_LIMIT = 128 * 1024 * 1024
KEY_INFO = {
    "image": b"WhatsApp Image Keys",
    "sticker": b"WhatsApp Image Keys",
    "video": b"WhatsApp Video Keys",
    "audio": b"WhatsApp Audio Keys",
    "voice": b"WhatsApp Audio Keys",
    "document": b"WhatsApp Document Keys",
}


class SealedFile(NamedTuple):
    """An encrypted file, with the values that its message must contain."""

    blob: bytes
    key: bytes
    plain_sha256: bytes
    sealed_sha256: bytes


def seal_file(plain: bytes, kind: str) -> SealedFile:
    """Encrypt a file as a phone does before uploading it."""
    key = os.urandom(32)
    keys = _expand(key, kind)
    sealed = aes_encrypt(keys, plain)
    blob = sealed + _mac(keys, sealed)
    return SealedFile(blob, key, hashlib.sha256(plain).digest(), hashlib.sha256(blob).digest())


def open_file(blob: bytes, key: bytes, kind: str) -> bytes:
    """Decrypt a file as a recipient does.

    Raises:
        CannotDecryptError: The blob is not authentic.
    """
    keys = _expand(key, kind)
    sealed, mac = blob[:-MAC_LENGTH], blob[-MAC_LENGTH:]
    if not hmac.compare_digest(mac, _mac(keys, sealed)):
        raise CannotDecryptError("wrong MAC of a file")
    return aes_decrypt(keys, sealed)


class MediaStore:
    """Blobs by path; beyond STORE_LIMIT bytes the oldest are dropped."""

    def __init__(self) -> None:
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def put(self, blob: bytes) -> str:
        """Keep a blob; returns the path under which it is found, with a query as the real ones have."""
        name = f"/v/blob/{hashlib.sha256(blob).hexdigest()}"
        if name not in self._blobs:
            self._blobs[name] = blob
            self._size += len(blob)
        while self._size > STORE_LIMIT and len(self._blobs) > 1:
            self._size -= len(self._blobs.popitem(last=False)[1])
        return name + "?ccb=1"

    def get(self, path: str) -> bytes | None:
        """The blob of a path; its query is ignored."""
        return self._blobs.get(path.partition("?")[0])

    def clear(self) -> None:
        """Forget all blobs."""
        self._blobs.clear()
        self._size = 0


def _expand(key: bytes, kind: str) -> MessageKeys:
    expanded = hkdf(key, info=KEY_INFO[kind], length=112)
    return MessageKeys(iv=expanded[:16], cipher=expanded[16:48], mac=expanded[48:80])


def _mac(keys: MessageKeys, sealed: bytes) -> bytes:
    return hmac.digest(keys.mac, keys.iv + sealed, "sha256")[:MAC_LENGTH]
