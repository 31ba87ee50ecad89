import pytest

from shardd.transports.whatsapp.messages.copies import NO_KEYS, Copies

PHONE, TABLET = "100628150000001@lid", "100628150000001:7@lid"
OWN = "100628130000001@lid"
NO_SESSION = "can't encrypt message for device: no signal session established with 100628150000001_1:0"


def left_out(device: str, error: str = NO_SESSION) -> str:
    return f"Failed to encrypt 3EB0D6E48444160455409E for {device}: {error}"


def test_a_message_is_readable_as_long_as_one_device_of_the_recipient_gets_a_copy() -> None:
    copies = Copies([PHONE, TABLET])
    assert not copies.unreadable
    copies.heard(left_out(PHONE))
    copies.heard(left_out(OWN))
    assert not copies.unreadable
    copies.heard(left_out(TABLET))
    assert copies.unreadable


def test_copies_for_own_devices_make_no_reader() -> None:
    copies = Copies([PHONE])
    copies.heard(left_out(PHONE))
    assert copies.unreadable


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([left_out(PHONE)], NO_KEYS),
        (
            [
                f"Failed to fetch prekeys for [{PHONE} {OWN}] with no existing session: info query timed out",
                left_out(PHONE),
            ],
            "info query timed out",
        ),
        (
            [f"Failed to fetch prekey for {PHONE}: got error getting prekeys: <error/>", left_out(PHONE)],
            "got error getting prekeys: <error/>",
        ),
        ([f"Failed to fetch prekey for {OWN}: got error getting prekeys: <error/>", left_out(PHONE)], NO_KEYS),
        ([left_out(PHONE, "cipher encryption failed: two\nlines")], "cipher encryption failed: two\nlines"),
        ([left_out(OWN, "something about the own phone"), left_out(PHONE, "EOF")], "EOF"),
    ],
)
def test_the_reason_is_what_kept_the_recipients_keys(lines: list[str], reason: str) -> None:
    copies = Copies([PHONE])
    for line in lines:
        copies.heard(line)
    assert copies.reason == reason


@pytest.mark.parametrize(
    "line",
    ["", "Failed to encrypt", "Failed to get privacy token for x: y", f"Sent to {PHONE}", "Failed to encrypt a for b"],
)
def test_other_lines_say_nothing(line: str) -> None:
    copies = Copies([PHONE])
    copies.heard(line)
    assert not copies.unreadable
    assert copies.reason == ""


def test_a_group_is_never_unreadable_and_counts_the_phones_of_its_members() -> None:
    copies = Copies(None, own=["628130000001@s.whatsapp.net", OWN])
    for device in (OWN, PHONE, TABLET, "100628150000002@lid", "100628150000003:4@lid"):
        copies.heard(left_out(device))
    assert not copies.unreadable
    assert copies.phones_left_out == 2
