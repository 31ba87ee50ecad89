"""Encrypted files and their storage."""

from __future__ import annotations

import hashlib

import pytest

from tests.whatsapp_server.crypto.ratchet import CannotDecryptError
from tests.whatsapp_server.state import media
from tests.whatsapp_server.state.media import KEY_INFO, MediaStore, open_file, seal_file


@pytest.mark.parametrize("kind", KEY_INFO)
def test_a_sealed_file_opens_with_its_key(kind: str) -> None:
    sealed = seal_file(b"picture", kind)
    assert open_file(sealed.blob, sealed.key, kind) == b"picture"
    assert sealed.plain_sha256 == hashlib.sha256(b"picture").digest()
    assert sealed.sealed_sha256 == hashlib.sha256(sealed.blob).digest()


def test_a_changed_file_or_another_kind_is_refused() -> None:
    sealed = seal_file(b"picture", "image")
    with pytest.raises(CannotDecryptError):
        open_file(bytes((sealed.blob[0] ^ 1,)) + sealed.blob[1:], sealed.key, "image")
    with pytest.raises(CannotDecryptError):
        open_file(sealed.blob, sealed.key, "video")


def test_the_storage_finds_a_blob_whatever_the_client_appends() -> None:
    storage = MediaStore()
    path = storage.put(b"blob")
    assert storage.get(path + "&hash=x&mms-type=image") == b"blob"
    assert storage.get("/v/blob/other") is None
    storage.clear()
    assert storage.get(path) is None


def test_the_storage_forgets_the_oldest_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "STORE_LIMIT", 10)
    storage = MediaStore()
    first, second = storage.put(b"12345678"), storage.put(b"abcdefgh")
    assert storage.get(first) is None
    assert storage.get(second) == b"abcdefgh"
