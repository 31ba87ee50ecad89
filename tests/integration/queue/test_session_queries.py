"""Which session belongs to which device, also when several people pair at the same time."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from shardd.queue.database import Database
from shardd.queue.sessions import Adoption, SessionAdmin, number_of
from tests.support.daemon import Producer


@pytest.fixture
def devices(producer: Producer) -> Producer:
    producer.add_devices(3, transport="whatsapp")
    producer.execute("UPDATE shardd.devices SET state = 'logged_out', reason = 'the phone removed it'")
    return producer


def rows(producer: Producer) -> list[tuple[str | None, str, str | None]]:
    return [
        (session, state, reason)
        for session, state, reason in producer.execute("SELECT session, state, reason FROM shardd.devices ORDER BY id")
    ]


async def test_a_number_goes_to_one_device_only_whoever_pairs_at_the_same_time(
    database: Database, devices: Producer
) -> None:
    admin = SessionAdmin(database)
    sessions = [f"628111:{index}@s.whatsapp.net" for index in (1, 2, 3)]
    bound = await asyncio.gather(
        *(admin.bind(f"d{index}", session, old=None) for index, session in enumerate(sessions, 1))
    )
    assert sorted(bound) == [False, False, True]
    winner = bound.index(True)
    assert rows(devices)[winner] == (sessions[winner], "ready", None)
    assert [row[1] for row in rows(devices)].count("logged_out") == 2
    assert await admin.number_holder("628111", but="nobody") == f"d{winner + 1}"
    assert await admin.number_holder("628111", but=f"d{winner + 1}") is None
    assert await admin.number_holder("62811", but="nobody") is None


async def test_a_session_is_bound_only_to_what_was_looked_at(database: Database, devices: Producer) -> None:
    admin = SessionAdmin(database)
    assert await admin.bind("d1", "628111:1@s.whatsapp.net", old=None)
    assert not await admin.bind("d1", "628111:2@s.whatsapp.net", old=None), "it has a session by now"
    assert await admin.bind("d1", "628111:2@s.whatsapp.net", old="628111:1@s.whatsapp.net")
    devices.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'd2'")
    assert not await admin.bind("d2", "628222:1@s.whatsapp.net", old=None), "it was removed"
    assert not await admin.unbind("d1", "628111:1@s.whatsapp.net", "over"), "it has another one"
    assert await admin.unbind("d1", "628111:2@s.whatsapp.net", "over")
    assert rows(devices)[0] == (None, "unpaired", "over")


async def test_one_pairing_of_a_device_at_a_time(database: Database) -> None:
    admin = SessionAdmin(database)
    async with (
        admin.hold_pairing("d1", patience=30) as first,
        admin.hold_pairing("d2", patience=30) as other,
        admin.hold_pairing("d1", patience=30) as second,
    ):
        assert (first, other, second) == (True, True, False)
    async with admin.hold_pairing("d1", patience=30) as again:
        assert again


async def test_who_pairs_no_longer_keeps_nobody_from_it(database: Database, superuser_dsn: str, dbname: str) -> None:
    admin = SessionAdmin(database)
    with psycopg.connect(superuser_dsn, autocommit=True) as superuser:
        async with admin.hold_pairing("d1", patience=30) as first:
            assert first
            superuser.execute("SELECT pg_terminate_backend(pid, 10000) FROM shardd.pairings WHERE device_id = 'd1'")
        assert superuser.execute("SELECT count(*) FROM shardd.pairings").fetchone() == (1,)
        async with admin.hold_pairing("d1", patience=30) as second:
            assert second, "the connection that had it is gone"
            # A pooler may keep the connection of one that was killed.
            superuser.execute("UPDATE shardd.pairings SET expires_at = now() WHERE device_id = 'd1'")
            async with admin.hold_pairing("d1", patience=30) as third:
                assert third, "its time was over"


async def test_of_two_sessions_of_one_number_one_is_bound(database: Database, devices: Producer, dsn: str) -> None:
    admin = SessionAdmin(database)
    with psycopg.connect(dsn) as other:
        other.execute("UPDATE shardd.devices SET session = '628111:1@s.whatsapp.net' WHERE id = 'd2'")
        bound = asyncio.create_task(admin.bind("d1", "628111:2@s.whatsapp.net", old=None))
        with psycopg.connect(dsn, autocommit=True) as watch:
            while watch.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
                await asyncio.sleep(0)
                assert not bound.done()
        other.commit()
    assert not await bound, "the other one was quicker"


async def test_an_adoption_leaves_out_what_is_taken(database: Database, devices: Producer) -> None:
    admin = SessionAdmin(database)
    assert await admin.bind("d1", "628111:1@s.whatsapp.net", old=None)
    devices.execute(
        "UPDATE shardd.devices SET removed_at = now(), paused_at = now(), proxy = 'x', quiet_hours = 'none' WHERE id = 'd3'"
    )
    devices.execute("UPDATE shardd.devices SET gap_max = 9, label = 'mine' WHERE id = 'd2'")
    found = await admin.adopt(
        Adoption(
            ids=["new", "d1", "d2", "d3", "again"],
            sessions=[f"{number}:1@s.whatsapp.net" for number in (628222, 628333, 628444, 628555, 628111)],
            labels=["a", "b", "c", None, None],
            gap_min=1,
            gap_max=2,
        )
    )
    assert found == {"new", "d2", "d3"}
    assert devices.execute(
        "SELECT id, session, state, label, gap_max, paused_at, proxy, removed_at FROM shardd.devices WHERE id <> 'd1' ORDER BY id"
    ) == [
        ("d2", "628444:1@s.whatsapp.net", "ready", "mine", 9.0, None, None, None),
        ("d3", "628555:1@s.whatsapp.net", "ready", None, 2.0, None, None, None),
        ("new", "628222:1@s.whatsapp.net", "ready", "a", 2.0, None, None, None),
    ]
    # Their numbers have sent elsewhere for long, and what a removed device was told does not come back.
    assert devices.execute("SELECT id, warm, quiet_hours FROM shardd.devices ORDER BY id") == [
        ("d1", False, None),
        ("d2", True, None),
        ("d3", True, None),
        ("new", True, None),
    ]


@pytest.mark.parametrize("session", ["628111:12@s.whatsapp.net", "628111@s.whatsapp.net"])
def test_a_session_names_its_number(session: str) -> None:
    assert number_of(session) == "628111"
