"""The report about the transaction that holds back events: whose, since when, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardd.queue.events import HeldEvents
from shardd.supervisor.outbox.upkeep import describe_held

NOBODY = HeldEvents(20.0, None, None, None, None, None, None, None, None)
SESSION = replace(
    NOBODY,
    pid=7,
    database="shop",
    user="ada",
    application="report",
    address="10.0.0.7",
    state="idle in transaction",
    age=90.0,
)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (
            SESSION,
            ["database shop has been open for 90 s", "pid 7, user ada, application 'report', 10.0.0.7, idle in", "(7)"],
        ),
        (
            replace(SESSION, age=None, state=None, address=None),
            ["hidden (GRANT pg_read_all_stats", "application 'report'): end"],
        ),
        (
            replace(NOBODY, prepared="tx", user="ada", database="shop", age=5.0),
            ["'tx' of user ada in database shop", "5 s"],
        ),
        (NOBODY, ["not found among the sessions"]),
    ],
)
def test_the_holder_is_described(held: HeldEvents, words: list[str]) -> None:
    text = describe_held(held)
    assert text.startswith("no event of the last 20 s can be read or goes to a webhook: ")
    assert all(word in text for word in words), text
