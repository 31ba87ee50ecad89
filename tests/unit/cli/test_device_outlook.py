"""What `shardd device show` prints about a device's next sends and counts."""

from __future__ import annotations

from datetime import UTC

import pytest

from shardd.cli.device.outlook import next_words
from shardd.pacing import CLASSES, DevicePace, Pace
from shardd.supervisor.scheduling.outlook import ClassOutlook, DeviceOutlook
from shardd.supervisor.scheduling.outlook_words import Outlook, sent_words


def outlook(pace: DevicePace, *turns: ClassOutlook, note: str | None = None, **fields: object) -> Outlook:
    values = {
        "id": "d",
        "held": None,
        "in_flight": 0,
        "sent_today": 7,
        "sent_this_hour": 2,
        "sending_days": 1,
        **fields,
    }
    classes = dict(zip(CLASSES, turns, strict=False))
    return Outlook(DeviceOutlook(classes=classes, **values), pace, note)  # type: ignore[arg-type]  # the values are of many types


def turn(wait: float | None, why: str | None = None) -> ClassOutlook:
    return ClassOutlook(wait=wait, why=why)


@pytest.mark.parametrize(
    ("pace", "words"),
    [
        (DevicePace(zone=UTC), "not counted: it has neither a gap nor a limit"),
        (DevicePace(Pace(daily_limit=9)), "7 of 9; this hour 2 (no limit)"),
        (DevicePace(Pace(gap_max=1)), "7 (no limit); this hour 2 (no limit)"),
        (
            DevicePace(Pace(hourly_limit=5, daily_limit=90), {"reply": Pace(hourly_limit=6)}, warm_up=(10, 20, 30)),
            "7 of 20 (reply: no limit); day 2 of 3 of its warm-up; this hour 2 of 5 (reply: 6)",
        ),
        (
            DevicePace(Pace(daily_limit=90), {"marketing": Pace(daily_limit=50)}),
            "7 of 50 (service, reply: 90); this hour 2 (no limit)",
        ),
    ],
)
def test_counts_stand_against_their_limits(pace: DevicePace, words: str) -> None:
    assert sent_words(outlook(pace)) == words


def test_turns_are_told_together_where_they_are_the_same() -> None:
    pace = DevicePace()
    assert next_words(outlook(pace, turn(0), turn(0), turn(0))) == "now"
    assert next_words(outlook(pace, turn(8.2, "its gap"), turn(8.2, "its gap"), turn(0))) == (
        "marketing, service: in 8.2s: its gap\nreply: now"
    )
    assert next_words(outlook(pace, turn(None, "a person"))) == "unknown when: a person"
    assert next_words(outlook(pace, turn(0), held="it is paused: tea")) == "not now: it is paused: tea"
    assert next_words(outlook(pace, turn(0), note="nobody runs")) == "now\nnobody runs"
    later = next_words(outlook(pace, turn(7200.0, "its quiet hours")))
    assert "UTC (in " in later
    assert later.endswith(": its quiet hours")
