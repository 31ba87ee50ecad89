"""Which transactions a snapshot sees."""

from __future__ import annotations

import pytest

from shardd.postgres.snapshots import Snapshot


def test_open_and_later_transactions_are_not_seen() -> None:
    snapshot = Snapshot.read("5:9:5,7")
    assert [one for one in range(3, 12) if snapshot.sees(one)] == [3, 4, 6, 8]
    assert Snapshot.read("5:5:").sees(4)
    assert not Snapshot.read("5:5:").sees(5)


@pytest.mark.parametrize(
    "text",
    ["", "today", "5:4:", "0:4:", "5:9:4", "5:9:9", "5:9:7,6", "5:9", "5:9:7,", "-1:9:", "5:9:x", "9" * 20 + ":1:"],
)
def test_what_postgresql_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        Snapshot.read(text)
