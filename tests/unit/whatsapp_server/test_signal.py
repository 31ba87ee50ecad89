"""Two simulated devices exchange messages: the ratchet and the sender keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.whatsapp_server.crypto.protobuf_fields import Fields, WireFormatError, write_fields
from tests.whatsapp_server.crypto.ratchet import (
    MAX_SKIPPED,
    ONE_TIME_PREKEY_ID,
    SIGNED_PREKEY_ID,
    AlreadyDecryptedError,
    CannotDecryptError,
    Chain,
    PrekeyBundle,
    SignalDevice,
    pad_message,
    unpad_message,
)
from tests.whatsapp_server.crypto.sender_keys import OwnSenderKey, ReceivedSenderKey


def bundle_of(device: SignalDevice, *, one_time: bool = True) -> PrekeyBundle:
    bundle = PrekeyBundle(device.identity.public, SIGNED_PREKEY_ID, device.signed_prekey.public)
    if not one_time:
        return bundle
    return bundle._replace(one_time_prekey_id=ONE_TIME_PREKEY_ID, one_time_prekey=device.one_time_prekey.public)


@pytest.fixture
def ani() -> SignalDevice:
    return SignalDevice(b"ani")


@pytest.fixture
def budi(ani: SignalDevice) -> SignalDevice:
    budi = SignalDevice(b"budi")
    ani.open_session("budi", bundle_of(budi))
    return budi


def test_a_conversation_turns_the_ratchet(ani: SignalDevice, budi: SignalDevice) -> None:
    for turn in range(3):
        kind, sealed = ani.encrypt("budi", b"question %d" % turn)
        assert kind == ("pkmsg" if turn == 0 else "msg")
        assert budi.decrypt("ani", kind, sealed) == b"question %d" % turn
        kind, sealed = budi.encrypt("ani", b"answer %d" % turn)
        assert kind == "msg"
        assert ani.decrypt("budi", kind, sealed) == b"answer %d" % turn


def test_a_session_needs_no_one_time_prekey(ani: SignalDevice) -> None:
    cici = SignalDevice(b"cici")
    ani.open_session("cici", bundle_of(cici, one_time=False))
    assert cici.decrypt("ani", *ani.encrypt("cici", b"hello")) == b"hello"


@given(order=st.permutations(range(6)))
def test_messages_of_one_sender_may_come_in_any_order(order: list[int]) -> None:
    ani, budi = SignalDevice(b"ani"), SignalDevice(b"budi")
    ani.open_session("budi", bundle_of(budi))
    sealed = [ani.encrypt("budi", bytes([number])) for number in range(6)]
    assert [budi.decrypt("ani", *sealed[number]) for number in order] == [bytes([number]) for number in order]


def test_a_late_message_of_an_older_chain_is_still_read(ani: SignalDevice, budi: SignalDevice) -> None:
    first, late = ani.encrypt("budi", b"first"), ani.encrypt("budi", b"late")
    budi.decrypt("ani", *first)
    ani.decrypt("budi", *budi.encrypt("ani", b"turn"))
    budi.decrypt("ani", *ani.encrypt("budi", b"new chain"))
    assert budi.decrypt("ani", *late) == b"late"


def test_the_same_ciphertext_is_read_once(ani: SignalDevice, budi: SignalDevice) -> None:
    sealed = ani.encrypt("budi", b"once")
    budi.decrypt("ani", *sealed)
    with pytest.raises(AlreadyDecryptedError):
        budi.decrypt("ani", *sealed)


def test_what_is_not_authentic_or_not_for_us_is_refused(ani: SignalDevice, budi: SignalDevice) -> None:
    kind, sealed = ani.encrypt("budi", b"secret")
    with pytest.raises(CannotDecryptError, match="no session"):
        budi.decrypt("stranger", "msg", sealed)
    budi.decrypt("ani", kind, sealed)
    ani.decrypt("budi", *budi.encrypt("ani", b"answer"))
    kind, sealed = ani.encrypt("budi", b"forged")
    with pytest.raises(CannotDecryptError, match="MAC"):
        budi.decrypt("ani", kind, sealed[:-1] + bytes((sealed[-1] ^ 1,)))


def test_a_chain_does_not_run_ahead_without_end() -> None:
    with pytest.raises(CannotDecryptError, match="too far ahead"):
        Chain(bytes(32)).seed_at(MAX_SKIPPED + 1)


@given(st.binary(max_size=64))
def test_padding_comes_off_again(plain: bytes) -> None:
    assert unpad_message(pad_message(plain)) == plain


def test_a_group_reads_what_its_member_writes() -> None:
    sender = OwnSenderKey()
    member = ReceivedSenderKey(sender.distribution())
    sealed = [sender.encrypt(text) for text in (b"one", b"two", b"three")]

    assert [member.decrypt(sealed[number]) for number in (0, 2, 1)] == [b"one", b"three", b"two"]
    with pytest.raises(AlreadyDecryptedError):
        member.decrypt(sealed[0])


def test_a_group_message_that_is_not_authentic_is_refused() -> None:
    sender = OwnSenderKey()
    member = ReceivedSenderKey(sender.distribution())
    sealed = sender.encrypt(b"text")
    with pytest.raises(CannotDecryptError, match="signature"):
        member.decrypt(sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    with pytest.raises(CannotDecryptError, match="is not the one received"):
        member.decrypt(OwnSenderKey().encrypt(b"text"))


@given(st.dictionaries(st.integers(1, 40), st.one_of(st.integers(0, 1 << 40), st.binary(max_size=300))))
def test_wire_fields_come_back(values: dict[int, int | bytes]) -> None:
    fields = Fields(write_fields(dict(values)))
    for number, value in values.items():
        assert number in fields
        assert (fields.integer(number) if isinstance(value, int) else fields.data(number)) == value


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x0d\x00\x00\x00\x00", b"\xff"])
def test_bytes_that_are_no_fields_are_refused(data: bytes) -> None:
    with pytest.raises(WireFormatError):
        Fields(data)


def test_a_field_of_the_other_type_is_refused() -> None:
    fields = Fields(write_fields({1: 5, 2: b"five"}))
    assert (fields.integer(9), fields.data(9)) == (0, b"")
    with pytest.raises(WireFormatError):
        fields.data(1)
    with pytest.raises(WireFormatError):
        fields.integer(2)
