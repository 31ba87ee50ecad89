"""Who reads incoming messages, through real logins, in the inbox as in the events.

Members of shardd_inbox read all of them, bound producers those of their devices, and every other producer none.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from shardd.incoming import Incoming
from shardd.queue.database import Database
from shardd.queue.inbox import Inbox
from tests.fixtures.producers import Connection, Tenants, seen

EVENTS = ("shardd.events", "shardd.read_events(NULL, 1000, '{message.received}')")


def message(device_id: str) -> Incoming:
    return Incoming(device_id=device_id, message_id=f"A-{device_id}", addresses=("+6281234567890",), text="hi", at=5.0)


@pytest.fixture
async def inbox(tenants: Tenants) -> None:
    async with Database(tenants.dsn) as database:
        assert await Inbox(database).store([message(one) for one in ("a1", "a2", "b1")], {}) == 3
        assert await Inbox(database).store([message("a1")], {}) == 0, "told once"


def devices(session: Connection, what: str) -> list[str]:
    kind = "" if what == "shardd.inbox" else "WHERE kind = 'message.received'"
    return sorted(row[0] for row in session.execute(f"SELECT device_id FROM {what} {kind}"))  # type: ignore[call-overload]  # names of this test


@pytest.mark.usefixtures("inbox")
def test_a_bound_producer_reads_what_is_written_to_its_devices(tenants: Tenants, alpha: str, beta: str) -> None:
    tenants.bind(beta, groups=("ga",), campaigns=("ca",))
    with tenants.session(alpha) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["a1"]
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT 1 FROM shardd.messages")
    with tenants.session(beta) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["b1"], "a group or a campaign means jobs, not what is written to devices"


@pytest.mark.usefixtures("inbox")
@pytest.mark.parametrize("others_are_bound", [False, True])
def test_an_unbound_producer_reads_nothing_unless_it_is_a_member_of_shardd_inbox(
    tenants: Tenants, alpha: str, free: str, others_are_bound: bool
) -> None:
    if not others_are_bound:
        tenants.free(alpha)
        tenants.free("beta")
    with tenants.session(free) as session:
        with pytest.raises(errors.InsufficientPrivilege, match=f"{free} may not read the inbox") as refused:
            session.execute("EXPLAIN SELECT 1 FROM shardd.inbox")
        assert f"GRANT shardd_inbox TO {free}" in str(refused.value.diag.message_hint)
        for what in EVENTS:
            assert devices(session, what) == []
    reader = tenants.role("reader", "shardd_inbox")
    with tenants.session(reader) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["a1", "a2", "b1"]
    only = tenants.role("only_reader", "shardd_inbox", producer=False)
    with tenants.session(only) as session:
        assert devices(session, "shardd.inbox") == ["a1", "a2", "b1"]
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT 1 FROM shardd.outcomes")


@pytest.mark.usefixtures("inbox")
def test_a_bound_member_of_shardd_inbox_still_reads_its_devices_only(
    tenants: Tenants, make_role: Callable[..., str]
) -> None:
    both = tenants.role("both", "shardd_inbox")
    with tenants.session(both) as session:
        plan = "PREPARE mine AS SELECT device_id FROM shardd.inbox"
        session.execute(plan)
        assert len(session.execute("EXECUTE mine").fetchall()) == 3
        tenants.bind(both, "a1")
        assert session.execute("EXECUTE mine").fetchall() == []
        session.execute("DISCARD PLANS")
        assert session.execute("EXECUTE mine").fetchall() == [("a1",)]
        assert seen(session, "shardd.inbox") == {1}
