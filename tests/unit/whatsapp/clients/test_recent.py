"""What the library can still encrypt again, counted as the library counts it."""

from __future__ import annotations

import pytest

from shardd.transports.whatsapp.clients.recent import KEPT, RecentMessages, unanswered


def test_a_message_is_undelivered_until_a_device_of_its_recipient_confirms_it() -> None:
    recent = RecentMessages()
    assert recent.undelivered() == (0, 0.0)
    recent.add("A", 1.0, group=False)
    recent.add("B", 2.0, group=False)
    assert recent.undelivered() == (2, 2.0)
    recent.confirm(["B", "unknown"])
    assert recent.undelivered() == (1, 1.0)
    recent.confirm(["A"])
    assert recent.undelivered() == (0, 0.0)
    assert recent.holds("A")


def test_a_device_may_confirm_before_the_server_has_answered() -> None:
    recent = RecentMessages()
    recent.confirm(["A", "G", "of another send"], sending=True)
    recent.add("A", 1.0, group=False)
    recent.add("G", 2.0, group=True)
    assert recent.undelivered() == (1, 2.0)
    recent.sends_ended()
    recent.add("of another send", 3.0, group=False)
    assert recent.undelivered() == (2, 3.0)


def test_the_members_of_a_group_confirm_one_by_one() -> None:
    recent = RecentMessages()
    recent.add("G", 1.0, group=True)
    recent.confirm(["G"])
    assert recent.undelivered() == (1, 1.0)


def test_it_forgets_what_the_library_forgets() -> None:
    recent = RecentMessages()
    for number in range(KEPT + 1):
        recent.add(f"M{number}", float(number), group=False)
    assert not recent.holds("M0")
    assert recent.holds("M1")
    assert recent.undelivered() == (KEPT, float(KEPT))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("123@lid/3EB0 from 123@lid: failed to fetch prekeys: 429", ("3EB0", 0)),
        ("123@lid/3EB0 from 123:7@lid: couldn't find message 3EB0", ("3EB0", 7)),
        ("628@s.whatsapp.net/3EB0 from 628.1:12@s.whatsapp.net: x\ny", ("3EB0", 12)),
        ("120363@g.us/3EB0 from 123@lid: websocket not connected", ("3EB0", 0)),
        ("123@lid/3EB0 from 999:2@lid: another device of our own account", None),
        ("123@lid/3EB0 from nobody: x", None),
    ],
)
def test_the_library_says_that_it_did_not_answer(line: str, found: tuple[str, int] | None) -> None:
    """The line is whatsmeow's, retry.go: `Failed to handle retry receipt for %s/%s from %s: %v`."""
    assert unanswered(f"Failed to handle retry receipt for {line}") == found
    assert unanswered(f"Handled retry receipt for {line}") is None
