"""Decrypting files of WhatsApp. The test server encrypts them as the real library accepts it (test_neonize.py)."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import pytest

from shardd.incoming import MediaSource
from shardd.supervisor.inbound.media.sealed import MAC, SealedFile, WrongFileError
from tests.whatsapp_server.state.media import KEY_INFO, seal_file

KINDS = ("image", "video", "audio", "document")


def source_of(plain: bytes, kind: str) -> tuple[bytes, MediaSource]:
    sealed = seal_file(plain, kind)
    return sealed.blob, MediaSource(kind, "/x", sealed.key, sealed.plain_sha256, sealed.sealed_sha256)


def opened(blob: bytes, source: MediaSource, chunk: int) -> bytes:
    file = SealedFile(source)
    parts = [file.feed(blob[start : start + chunk]) for start in range(0, len(blob), chunk)]
    return b"".join([*parts, file.finish()])


@pytest.mark.parametrize(
    ("size", "chunk"), list(itertools.product((0, 1, 15, 16, 17, 31, 32, 33, 1000, 4096), (1, 7, 16, 26, 4096)))
)
def test_it_is_the_same_in_chunks_of_any_size(size: int, chunk: int) -> None:
    plain = bytes(number * 7 % 256 for number in range(size))
    blob, source = source_of(plain, KINDS[size % 4])
    assert opened(blob, source, chunk) == plain


def test_every_kind_has_the_keys_of_its_name() -> None:
    assert set(KINDS) <= KEY_INFO.keys()
    for kind, other in itertools.permutations(KINDS, 2):
        blob, source = source_of(b"secret", kind)
        assert opened(blob, source, 100) == b"secret"
        with pytest.raises(WrongFileError, match="key"):
            opened(blob, msgspec.structs.replace(source, kind=other), 100)


@pytest.mark.parametrize("claimed", [True, False], ids=["as its message says", "as sent"])
def test_no_changed_byte_and_no_missing_one_passes(claimed: bool) -> None:
    """Whoever sends a file may also say which hash it has; then the MAC, the padding and the hash of the content decide."""
    blob, source = source_of(b"x" * 40, "image")
    for place in (0, 20, len(blob) - MAC - 1, len(blob) - 1):
        changed = bytearray(blob)
        changed[place] ^= 1
        said = hashlib.sha256(changed).digest() if claimed else source.sealed_sha256
        with pytest.raises(WrongFileError):
            opened(bytes(changed), msgspec.structs.replace(source, sealed_sha256=said), 16)
    for size in (0, 1, MAC, MAC + 1, MAC + 16, len(blob) - 1):
        said = hashlib.sha256(blob[:size]).digest() if claimed else source.sealed_sha256
        with pytest.raises(WrongFileError):
            opened(blob[:size], msgspec.structs.replace(source, sealed_sha256=said), 16)


def test_a_file_with_another_content_than_its_message_says_is_refused() -> None:
    blob, source = source_of(b"this", "image")
    with pytest.raises(WrongFileError, match="describes"):
        opened(blob, msgspec.structs.replace(source, plain_sha256=bytes(32)), 100)


def test_a_key_is_not_shown() -> None:
    _, source = source_of(b"x", "image")
    assert str(source.key) not in repr(source)
    assert source.key.hex() not in repr(source)
