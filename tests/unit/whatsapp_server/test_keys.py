from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.whatsapp_server.crypto.keys import KeyPair, hkdf, signature_is_valid


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_signature_is_valid_for_its_key_and_message_only(private: bytes, message: bytes) -> None:
    key = KeyPair(private)
    signature = key.sign(message)

    assert signature_is_valid(key.public, message, signature)
    assert not signature_is_valid(key.public, message + b"!", signature)
    assert not signature_is_valid(KeyPair().public, message, signature)
    assert not signature_is_valid(key.public, message, bytes((signature[0] ^ 1,)) + signature[1:])


def test_a_signature_of_the_wrong_length_is_not_valid() -> None:
    key = KeyPair()
    assert not signature_is_valid(key.public, b"", key.sign(b"")[:-1])


def test_two_keys_agree() -> None:
    ours, theirs = KeyPair(), KeyPair()
    assert ours.agree(theirs.public) == theirs.agree(ours.public)


def test_derived_keys_depend_on_seed_and_label() -> None:
    key = KeyPair.derived(b"seed", "label")
    assert key.private == KeyPair.derived(b"seed", "label").private
    assert key.private != KeyPair.derived(b"seed", "other").private
    assert key.private != KeyPair.derived(b"other", "label").private


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "expected"),
    [
        (  # RFC 5869, test case 1
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (  # test case 3: no salt, no info
            "0b" * 22,
            "00" * 32,
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_gives_the_published_vectors(secret: str, salt: str, info: str, length: int, expected: str) -> None:
    derived = hkdf(bytes.fromhex(secret), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length)
    assert derived.hex() == expected
