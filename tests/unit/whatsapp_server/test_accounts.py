from __future__ import annotations

import os
import time

import pytest

from tests.whatsapp_server.crypto.derived_keys import LinkedKeys
from tests.whatsapp_server.crypto.keys import DJB_TYPE, signature_is_valid
from tests.whatsapp_server.state.accounts import AccountBook, PublicKeys, UnknownDeviceError
from tests.whatsapp_server.wire.nodes import Node

NOISE_KEY = os.urandom(32)


def keys() -> PublicKeys:
    return PublicKeys(b"1234", os.urandom(32), 7, os.urandom(32), os.urandom(64))


def test_a_linked_device_logs_in_with_its_noise_key_only() -> None:
    book = AccountBook()
    device = book.link("62811", 1, NOISE_KEY, keys())
    assert book.login("62811", 1, NOISE_KEY) is device
    assert book.login("62811", 1, os.urandom(32)) is None


def test_a_device_never_seen_is_taken_in_and_a_removed_one_is_not() -> None:
    book = AccountBook()
    device = book.login("62811", 3, NOISE_KEY)
    assert device is not None
    assert (device.name, str(device.jid), device.keys) == ("62811:3", "62811:3@s.whatsapp.net", None)
    assert book.account("62811").next_index() == 4

    book.remove(device)
    assert book.login("62811", 3, NOISE_KEY) is None
    assert book.account("62811").next_index() == 4


def test_the_keys_of_a_seeded_device_are_known() -> None:
    device = AccountBook().login("62811", 1, LinkedKeys("62811", 1).noise.public)
    assert device is not None
    assert device.keys is not None
    assert device.keys.identity == LinkedKeys("62811", 1).identity.public
    assert signature_is_valid(device.keys.identity, DJB_TYPE + device.keys.signed_prekey, device.keys.signature)
    bundle = device.take_bundle()
    assert bundle is not None
    assert bundle.one_time_prekey is None


def test_each_one_time_prekey_is_given_out_once() -> None:
    device = AccountBook().link("62811", 1, NOISE_KEY, keys())
    prekeys = [os.urandom(32) for _ in range(2)]
    device.add_prekeys(
        [
            Node("key", None, [Node("id", None, bytes((0, 1, number))), Node("value", None, prekey)])
            for number, prekey in enumerate(prekeys)
        ]
    )
    bundles = [device.take_bundle() for _ in range(3)]
    assert [bundle and bundle.one_time_prekey for bundle in bundles] == [*prekeys, None]
    assert [bundle and bundle.one_time_prekey_id for bundle in bundles] == [256, 257, None]


def test_devices_are_named_by_number_and_index() -> None:
    book = AccountBook()
    first, second = (book.link("62811", index, NOISE_KEY, None) for index in (1, 2))
    assert book.device("62811:1") is first
    assert book.device("62811") is second
    for unknown in ("62812", "62811:3"):
        with pytest.raises(UnknownDeviceError):
            book.device(unknown)


def test_standing_ends_with_time_or_forgiveness() -> None:
    account = AccountBook().account("62811")
    account.banned_until = account.restricted_until = time.time() + 60
    assert account.is_banned
    assert account.is_restricted
    account.banned_until = account.restricted_until = time.time() - 1
    assert not account.is_banned
    assert not account.is_restricted


def test_strangers_are_those_never_written_to() -> None:
    account = AccountBook().account("62811")
    assert account.is_stranger("62899")
    account.contacts.add("62899")
    assert not account.is_stranger("62899")
    assert not account.is_stranger("62811")
