"""Leases with a real server: one owner per shard by the database's clock, through crashes and returns."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from shardd.clock import Deadlines, boot_now
from shardd.errors import AlreadyRunningError, DatabaseError
from shardd.postgres.servers import Identity
from shardd.queue.database import Database
from shardd.queue.leases import Leases, Renewed
from shardd.supervisor.cluster import caution as caution_module
from shardd.supervisor.cluster import leases as leases_module
from shardd.supervisor.cluster.caution import Caution
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.plan import plan
from shardd.supervisor.cluster.renewal import Renewal
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.services import Step
from tests.support.queue_rows import connect, identity, memory_of

TTL = 600.0


def expire(dsn: str, *, node: str | None = None) -> None:
    """Time passes, as the database's clock tells it."""
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now() WHERE node_id = coalesce(%s, node_id)", [node])
        connection.execute(
            "UPDATE shardd.nodes SET seen_at = now() - interval '1 hour' WHERE name = coalesce(%s, name)", [node]
        )


def holders(dsn: str) -> dict[int, str]:
    with connect(dsn) as connection:
        return dict(connection.execute("SELECT shard, node_id FROM shardd.leases WHERE expires_at > now()").fetchall())


async def incarnation(database: Database, node: str, ttl: float = TTL) -> Leases:
    leases = Leases(database, node=identity(node), incarnation=uuid4(), ttl=ttl, memory=memory_of(database, node))
    await leases.register(8, "test")
    return leases


# ---- the statements


async def test_a_shard_has_one_owner(dsn: str, database: Database) -> None:
    a, b = await incarnation(database, "a"), await incarnation(database, "b")
    epoch = await a.take(3)
    assert epoch is not None
    assert await b.take(3) is None
    assert await b.take(4) is not None
    assert holders(dsn) == {3: "a", 4: "b"}
    assert await a.renew([epoch]) == Renewed(True, {epoch})


async def test_a_shard_that_was_given_back_can_be_taken(database: Database) -> None:
    a, b = await incarnation(database, "a"), await incarnation(database, "b")
    epoch = await a.take(3)
    assert epoch is not None
    await a.release([epoch], [])
    assert await a.renew([epoch]) == Renewed(True, set())
    assert await b.take(3) is not None


async def test_a_lease_that_ran_out_can_be_taken_and_not_renewed(dsn: str, database: Database) -> None:
    a, b = await incarnation(database, "a"), await incarnation(database, "b")
    old = await a.take(3)
    assert old is not None
    expire(dsn)
    assert await a.renew([old]) == Renewed(True, set())
    new = await b.take(3)
    assert new is not None
    assert new > old
    assert await a.renew([old]) == Renewed(True, set())
    # To give back what is no longer one's own takes nothing away from the new owner.
    await a.release([old], [])
    assert holders(dsn) == {3: "b"}


async def test_a_lease_runs_out_by_the_databases_clock(dsn: str, database: Database) -> None:
    a = await incarnation(database, "a", ttl=0.0)
    assert await a.take(3) is not None
    assert holders(dsn) == {}
    b = await incarnation(database, "b")
    assert await b.take(3) is not None


async def test_a_renewal_counts_from_now(dsn: str, database: Database) -> None:
    a = await incarnation(database, "a")
    epoch = await a.take(3)
    assert epoch is not None
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now() + interval '1 second'")
        assert await a.renew([epoch]) == Renewed(True, {epoch})
        row = connection.execute("SELECT expires_at > now() + interval '500 seconds' FROM shardd.leases").fetchone()
    assert row == (True,)


async def test_an_epoch_that_another_node_has_too_is_neither_renewed_nor_released(dsn: str, database: Database) -> None:
    # As after a fail-over that lost the takeover by `a`: the new primary hands its epoch out again, to `b`.
    a, b = await incarnation(database, "a"), await incarnation(database, "b")
    epoch = await b.take(3)
    assert epoch is not None
    assert await a.renew([epoch]) == Renewed(True, set())
    await a.release([epoch], [])
    assert holders(dsn) == {3: "b"}
    assert await b.renew([epoch]) == Renewed(True, {epoch})


async def test_a_new_incarnation_takes_over_its_nodes_shards_at_once(dsn: str, database: Database) -> None:
    old = await incarnation(database, "a")
    before = await old.take(3)
    assert before is not None
    new = await incarnation(database, "a")
    after = await new.take(3)
    assert after is not None
    assert after > before
    assert await old.renew([before]) == Renewed(False, set())
    assert await new.renew([after]) == Renewed(True, {after})


async def test_an_earlier_incarnation_neither_renews_nor_takes(dsn: str, database: Database) -> None:
    old = await incarnation(database, "a")
    kept = await old.take(3)
    assert kept is not None
    new = await incarnation(database, "a")
    taken = await new.take(4)
    assert taken is not None
    assert await old.renew([kept]) == Renewed(False, set())
    for shard in (3, 4, 5):
        assert await old.take(shard) is None
    assert await new.renew([taken]) == Renewed(True, {taken})


async def test_epochs_are_never_used_twice(dsn: str, database: Database) -> None:
    seen = []
    for number in range(12):
        leases = await incarnation(database, f"node-{number % 3}")
        epoch = await leases.take(number % 4)
        assert epoch is not None
        seen.append(epoch)
        expire(dsn)
    assert seen == sorted(set(seen))


async def test_of_many_who_want_a_free_shard_one_gets_it(dsn: str) -> None:
    databases = [Database(dsn, max_size=1) for _ in range(4)]
    try:
        for database in databases:
            await database.open()
        nodes = [await incarnation(database, f"node-{number}") for number, database in enumerate(databases)]
        for shard in range(15):
            got = await asyncio.gather(*(node.take(shard) for node in nodes))
            assert sum(epoch is not None for epoch in got) == 1
            # The same when all of them find one that ran out.
            expire(dsn)
            for number, node in enumerate(nodes):
                await node.register(8, f"test {number}")
            got = await asyncio.gather(*(node.take(shard) for node in nodes))
            assert sum(epoch is not None for epoch in got) == 1
    finally:
        for database in databases:
            await database.close()


async def test_nodes_that_stopped_or_fell_silent_are_not_waited_for(dsn: str, database: Database) -> None:
    a, b = await incarnation(database, "a"), await incarnation(database, "b")
    assert [node.name for node in await a.live_nodes()] == ["a", "b"]
    await b.forget()
    assert [node.name for node in await a.live_nodes()] == ["a"]
    expire(dsn)
    assert await a.live_nodes() == []
    await a.renew([])
    assert [node.name for node in await a.live_nodes()] == ["a"]


async def test_a_later_incarnation_is_not_forgotten_by_an_earlier_one(database: Database) -> None:
    old = await incarnation(database, "a")
    new = await incarnation(database, "a")
    await old.forget()
    assert [node.name for node in await new.live_nodes()] == ["a"]


async def test_another_place_takes_a_node_over_only_when_it_is_silent_and_has_no_lease(
    dsn: str, database: Database
) -> None:
    """As of a copied folder, or of the same one after a restart of the machine: nobody knows whether the other is dead."""
    here = await incarnation(database, "a")
    assert await here.take(3) is not None

    async def register_elsewhere(place: str | None) -> bool:
        there = Leases(database, node=identity("renamed", id="a", place=place), incarnation=uuid4(), ttl=TTL)
        return await there.register(8, "test")

    for place in ("there", None):
        assert not await register_elsewhere(place)
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour'")
        assert not await register_elsewhere("there"), "its lease may be in use"
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
        connection.execute("UPDATE shardd.nodes SET seen_at = now()")
        assert not await register_elsewhere("there"), "it was seen just now"
        connection.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour'")
    assert await register_elsewhere("there")
    assert await here.renew([]) == Renewed(False, set())


async def test_who_holds_the_lock_of_a_folder_ends_what_had_it_under_another_id(dsn: str, database: Database) -> None:
    memory = memory_of(database, "old")
    old = Leases(database, node=identity("a", id="old", place="lock"), incarnation=uuid4(), ttl=TTL, memory=memory)
    place = identity("a", id="old", place="lock").place
    await old.register(8, "test")
    assert await old.take(3) is not None
    new = Leases(
        database,
        node=replace(identity("a", id="new"), place=place),
        incarnation=uuid4(),
        ttl=TTL,
        memory=copy.copy(memory),
    )
    assert await new.register(8, "test")
    await new.release_earlier()
    assert holders(dsn) == {}
    assert [node.id for node in await new.live_nodes()] == ["new"]


# ---- the keeper


Drained = tuple[list[int], Callable[[int], Awaitable[None]]]


@pytest.fixture
def drained() -> Drained:
    """What was asked to be drained, and the way to ask."""
    asked: list[int] = []

    async def give_back(shard: int) -> None:
        asked.append(shard)

    return asked, give_back


def keeper(database: Database, node: str, *, shards: int = 8, ttl: float = TTL, margin: float = 5.0) -> LeaseKeeper:
    memory = memory_of(database, node)
    return LeaseKeeper(
        database, node=identity(node), incarnation=uuid4(), shards=shards, ttl=ttl, margin=margin, memory=memory
    )


async def cycle(node: LeaseKeeper, drained: Drained) -> set[int]:
    """One cycle, and the end of what it began to give back."""
    lost = await node.run_cycle(drained[1])
    await asyncio.gather(*node.moving.values())
    return lost


async def test_a_single_node_takes_every_shard(dsn: str, database: Database, drained: Drained) -> None:
    a = keeper(database, "a")
    assert not a.good()
    await a.register()
    assert await cycle(a, drained) == set()
    assert set(a.epochs) == set(range(8))
    assert a.good()
    assert TTL - 5.0 >= a.seconds_left() > TTL - 65.0
    before = a.epochs
    await cycle(a, drained)
    assert a.epochs == before
    assert drained[0] == []


async def test_two_nodes_share_evenly(dsn: str, database: Database, drained: Drained) -> None:
    a, b = keeper(database, "a"), keeper(database, "b")
    await a.register()
    await cycle(a, drained)
    await b.register()
    await cycle(b, drained)
    assert b.epochs == {}  # a has not given anything back yet
    assert a.alone()  # as of its last renewal
    assert not b.alone()
    wanted = plan(8, ["a", "b"], dict.fromkeys(range(8), "a"))
    await cycle(a, drained)
    assert sorted(drained[0]) == [shard for shard, node in sorted(wanted.items()) if node == "b"]
    await cycle(b, drained)
    assert holders(dsn) == wanted
    assert set(a.epochs) | set(b.epochs) == set(range(8))
    assert len(a.epochs) == len(b.epochs) == 4


async def test_nodes_that_join_and_leave_keep_the_shares_even_and_move_no_more_than_that(
    dsn: str, database: Database, drained: Drained
) -> None:
    nodes = {name: keeper(database, name, shards=7) for name in "abcd"}
    for number, name in enumerate("abcd", start=1):
        before = holders(dsn)
        await nodes[name].register()
        for _ in range(2):  # the first to give back, the second to take
            for each in list(nodes.values())[:number]:
                await cycle(each, drained)
        assert set(holders(dsn)) == set(range(7))
        assert {holder for shard, holder in holders(dsn).items() if before.get(shard) != holder} == {name}
        assert sorted(len(node.epochs) for node in nodes.values())[-number:] == [
            7 // number + (place >= number - 7 % number) for place in range(number)
        ]
    before = holders(dsn)
    await nodes.pop("c").give_up()
    for each in nodes.values():
        await cycle(each, drained)
    assert all(holders(dsn)[shard] == holder for shard, holder in before.items() if holder != "c")
    assert sorted(len(node.epochs) for node in nodes.values()) == [2, 2, 3]


async def test_a_slow_drain_delays_neither_renewals_nor_what_else_can_be_taken(dsn: str, database: Database) -> None:
    a, b = keeper(database, "a"), keeper(database, "b")
    drained = asyncio.Event()

    async def slowly(_: int) -> None:
        await drained.wait()

    await a.register()
    await a.run_cycle(slowly)
    await b.register()
    theirs = {shard for shard, node in plan(8, ["a", "b"], dict.fromkeys(range(8), "a")).items() if node == "b"}
    async with asyncio.timeout(60):
        await a.run_cycle(slowly)
        # All of them at once, and none is released before it is drained.
        assert set(a.moving) == theirs
        assert set(a.serving) == set(range(8)) - theirs
        lost = min(a.serving)
        with connect(dsn) as connection:
            connection.execute("UPDATE shardd.leases SET expires_at = now() + interval '1 minute'")
            connection.execute("DELETE FROM shardd.leases WHERE shard = %s", [lost])
        assert await a.run_cycle(slowly) == {lost}
        for node in (a, b):
            await node.run_cycle(slowly)
        with connect(dsn) as connection:
            (soonest,) = connection.execute("SELECT min(expires_at) - now() FROM shardd.leases").fetchone() or (None,)
        assert soonest is not None
        assert soonest.total_seconds() > TTL / 2
        assert set(holders(dsn)) == set(range(8))
        assert {holders(dsn)[shard] for shard in theirs} == {"a"}
        drained.set()
        await asyncio.gather(*a.moving.values())
        for node in (a, b):
            await node.run_cycle(slowly)
    assert len(a.epochs) == len(b.epochs) == 4


async def test_a_lease_that_is_lost_while_its_shard_is_drained_is_reported_at_once(
    dsn: str, database: Database
) -> None:
    """Also when the rest of the cycle fails: the worker of that shard is to be fenced."""
    a, b = keeper(database, "a"), keeper(database, "b")
    lost: set[int] = set()
    a.on_lost = lost.update

    async def forever(_: int) -> None:
        await asyncio.Event().wait()

    await a.register()
    await a.run_cycle(forever)
    await b.register()
    await a.run_cycle(forever)
    assert a.moving
    with connect(dsn) as connection:
        connection.execute("DELETE FROM shardd.leases WHERE shard = %s", [min(a.moving)])
        connection.execute("REVOKE ALL ON shardd.nodes FROM CURRENT_USER")
        connection.execute("GRANT UPDATE ON shardd.nodes TO CURRENT_USER")
        connection.execute(
            "GRANT SELECT (id, incarnation, away_since, leaving_at, beats, beat, beat_at) ON shardd.nodes TO CURRENT_USER"
        )
    with pytest.raises(DatabaseError):
        await a.run_cycle(forever)
    assert lost == {min(a.moving)}
    await a.give_up()


async def test_a_lost_lease_is_reported_and_taken_again_only_in_the_next_cycle(
    dsn: str, database: Database, drained: Drained
) -> None:
    a = keeper(database, "a")
    await a.register()
    await cycle(a, drained)
    before = a.epochs
    expire(dsn)
    assert await cycle(a, drained) == set(range(8))
    assert a.epochs == {}
    assert not a.good()
    assert a.due() <= 0  # in a moment, not when the next renewal is due
    await cycle(a, drained)
    assert a.due() == float("inf")
    assert set(a.epochs) == set(range(8))
    assert not set(a.epochs.values()) & set(before.values())


async def test_a_lost_lease_is_reported_at_once_though_the_cycle_fails_afterwards(
    dsn: str, database: Database, drained: Drained
) -> None:
    """Until then the workers' clients are open beside those of another node."""
    a = keeper(database, "a")
    reported: list[int] = []
    a.on_lost = reported.extend
    await a.register()
    await a.run_cycle(drained[1])
    expire(dsn)
    with connect(dsn) as connection:
        # The renewal does not need it, and the next statement does.
        connection.execute("ALTER TABLE shardd.nodes RENAME rival TO elsewhere")
        with pytest.raises(DatabaseError):
            await a.run_cycle(drained[1])
        connection.execute("ALTER TABLE shardd.nodes RENAME elsewhere TO rival")
    assert sorted(reported) == list(range(8))


async def test_a_machine_that_slept_for_longer_than_its_leases_trusts_none_of_them(
    database: Database, drained: Drained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot ask the database before it hands something over; the monotonic clock stood still meanwhile."""
    a = keeper(database, "a")
    await a.register()
    await a.run_cycle(drained[1])
    assert a.good()
    monkeypatch.setattr(leases_module, "boot_now", lambda: boot_now() + TTL)
    assert not a.good()
    assert not a.known()


async def test_a_dead_nodes_shards_go_to_the_living(dsn: str, database: Database, drained: Drained) -> None:
    a, b = keeper(database, "a"), keeper(database, "b")
    for node in (a, b):
        await node.register()
    for node in (a, b):
        await cycle(node, drained)
    assert set(holders(dsn).values()) == {"a", "b"}
    expire(dsn, node="a")
    await cycle(b, drained)
    assert holders(dsn) == dict.fromkeys(range(8), "b")


async def test_a_lease_that_expires_while_a_node_looks_is_not_taken_for_a_share_of_the_dead(
    dsn: str, database: Database, drained: Drained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes to be another live node's is looked for again only at the next renewal."""
    a, b = keeper(database, "a"), keeper(database, "b")
    for node in (a, b):
        await node.register()
    for node in (a, b, a, b):
        await cycle(node, drained)
    with connect(dsn) as connection:
        ago = f"interval '{TTL - 0.5} seconds'"
        connection.execute(f"UPDATE shardd.leases SET expires_at = expires_at - {ago} WHERE node_id = 'a'")  # type: ignore[arg-type]  # ours
        connection.execute(f"UPDATE shardd.nodes SET seen_at = seen_at - {ago} WHERE id = 'a'")  # type: ignore[arg-type]  # ours
    looks: list[str] = []

    def slowly(name: str) -> None:
        ask = getattr(Leases, name)

        async def answer(leases: Leases) -> object:
            found = await ask(leases)
            looks.append(name)
            while len(looks) == 1 and "a" in holders(dsn).values():  # noqa: ASYNC110  # nothing announces that a lease expires
                await asyncio.sleep(0.01)
            return found

        monkeypatch.setattr(Leases, name, answer)

    slowly("nodes")
    slowly("held")
    await cycle(b, drained)
    assert len(looks) == 2
    assert b.due() < TTL / 2 or len(b.epochs) == 8  # as soon as that lease expires, if it had not before
    monkeypatch.undo()
    await cycle(b, drained)
    assert holders(dsn) == dict.fromkeys(range(8), "b")


async def test_a_node_that_stops_is_left_out_from_the_begin_of_its_stop(
    dsn: str, database: Database, drained: Drained
) -> None:
    """It takes nothing any more: what it were to take would wait until it has given back the first of its own."""
    nodes = [keeper(database, name, shards=9) for name in "abc"]
    for node in nodes:
        await node.register()
    for node in nodes * 2:
        await cycle(node, drained)
    a, b, _ = nodes
    told: list[bool] = []
    a.on_leaving = lambda: told.append(True)
    a.leave()
    await cycle(a, drained)
    expire(dsn, node="c")
    await cycle(b, drained)
    assert (len(a.epochs), len(b.epochs), told) == (3, 6, [True])


async def test_a_node_that_stops_in_order_leaves_its_shards_at_once(
    dsn: str, database: Database, drained: Drained
) -> None:
    a, b = keeper(database, "a"), keeper(database, "b")
    for node in (a, b):
        await node.register()
    for node in (a, b):
        await cycle(node, drained)
    await a.give_up()
    assert a.epochs == {}
    await cycle(b, drained)
    assert holders(dsn) == dict.fromkeys(range(8), "b")


async def test_after_an_outage_the_first_node_back_leaves_the_others_their_shares(
    dsn: str, database: Database, drained: Drained
) -> None:
    a, b = (keeper(database, name, margin=TTL) for name in "ab")  # so that every cycle comes too late
    for node in (a, b):
        await node.register()
    for node in (a, b, a):
        await cycle(node, drained)
    before = holders(dsn)
    for node in (a, b):
        node.drop_all()
    expire(dsn)
    await cycle(a, drained)
    assert a.epochs.keys() == {shard for shard, node in before.items() if node == "a"}
    await cycle(b, drained)
    assert holders(dsn) == before


async def test_a_node_that_did_not_survive_an_outage_is_not_awaited_for_long(
    dsn: str, database: Database, drained: Drained
) -> None:
    a, b = (keeper(database, name, ttl=3.0, margin=3.0) for name in "ab")
    for node in (a, b):
        await node.register()
    for node in (a, b, a):
        await cycle(node, drained)
    expire(dsn)
    a.drop_all()
    await cycle(a, drained)
    assert len(a.epochs) == 4
    async with asyncio.timeout(60):
        while len(a.epochs) < 8:
            await asyncio.sleep(max(0.0, min(a.due(), 1.0)))
            # Its own leases are valid all the time.
            a.deadlines = Deadlines(boot_now() + 1, boot_now() + 1)
            await cycle(a, drained)


async def test_past_its_deadline_a_node_trusts_none_of_its_leases(database: Database, drained: Drained) -> None:
    a = keeper(database, "a", ttl=5.0, margin=5.0)
    await a.register()
    await cycle(a, drained)
    assert a.epochs
    assert not a.good()
    assert a.seconds_left() <= 0
    assert a.drop_all() == set(range(8))
    assert a.epochs == {}


async def test_a_renewal_that_fails_changes_nothing(dsn: str, database: Database, drained: Drained) -> None:
    a = keeper(database, "a")
    await a.register()
    await cycle(a, drained)
    before, left = a.epochs, a.seconds_left()
    with connect(dsn) as connection:
        connection.execute("ALTER TABLE shardd.leases RENAME TO elsewhere")
        with pytest.raises(DatabaseError):
            await cycle(a, drained)
        connection.execute("ALTER TABLE shardd.elsewhere RENAME TO leases")
    assert a.epochs == before
    assert a.seconds_left() <= left


async def test_a_renewal_that_waits_in_the_database_counts_from_when_it_was_sent(
    dsn: str, database: Database, drained: Drained
) -> None:
    """The row expires a lease's time after the statement began, however long it waited for a lock afterwards."""
    a = keeper(database, "a")
    await a.register()
    await a.run_cycle(drained[1])
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = %s)"
    with connect(dsn) as watching, connect(dsn) as connection:
        with connection.transaction():
            connection.execute("SELECT FROM shardd.nodes FOR UPDATE")
            turn = asyncio.create_task(a.run_cycle(drained[1]))
            async with asyncio.timeout(60):
                while watching.execute(waiting, [watching.info.dbname]).fetchone() == (0,):  # noqa: ASYNC110  # it is told by the database only
                    await asyncio.sleep(0.01)
            waited = boot_now()
        await turn
    assert a.deadlines.soft <= waited + TTL - 5.0
    assert a.deadlines.hard <= waited + TTL - 2.5


async def test_nodes_must_agree_about_the_number_of_shards(database: Database, drained: Drained) -> None:
    a = keeper(database, "a")
    await a.register()
    b = keeper(database, "b", shards=4)
    with pytest.raises(
        AlreadyRunningError, match=r"node a is running with shards: 8, this config has shards: 4; .* stop"
    ):
        await b.register()
    assert [
        node.name for node in await Leases(database, node=identity("x"), incarnation=uuid4(), ttl=TTL).live_nodes()
    ] == ["a"]
    # The same node may come back with another number: its earlier self is dead.
    again = keeper(database, "a", shards=4)
    await again.register()
    await cycle(again, drained)
    assert set(again.epochs) == set(range(4))


async def test_a_restart_ends_every_lease_of_the_earlier_run(dsn: str, database: Database, drained: Drained) -> None:
    """Also those of shards that another node should have now: nobody else can settle what was in flight under them."""
    a = keeper(database, "a")
    await a.register()
    await cycle(a, drained)
    b = keeper(database, "b")
    await b.register()
    again = keeper(database, "a")
    await again.register()
    await cycle(again, drained)
    await cycle(b, drained)
    assert sorted(holders(dsn)) == list(range(8))
    assert len(again.epochs) == len(b.epochs) == 4


async def test_a_second_node_of_the_same_name_is_refused_and_both_are_named(
    database: Database, drained: Drained
) -> None:
    first = keeper(database, "a")
    await first.register()
    await cycle(first, drained)
    second = LeaseKeeper(database, node=identity("a", id="b"), incarnation=uuid4(), shards=8, ttl=TTL, margin=5.0)
    registering = asyncio.create_task(second.register())
    async with asyncio.timeout(60):
        while not registering.done():
            await cycle(first, drained)
            await asyncio.sleep(0.1)
    with pytest.raises(AlreadyRunningError, match="would be a second node of that name: change `node` in its config"):
        await registering
    await cycle(first, drained)
    (problem,) = first.problems()
    assert problem.text.startswith("node a on host host (pid ")
    assert "was refused" in problem.text


async def test_of_two_supervisors_on_one_folder_the_later_one_wins_for_good(
    dsn: str, database: Database, drained: Drained
) -> None:
    old = keeper(database, "a")
    await old.register()
    await cycle(old, drained)
    new = keeper(database, "a")
    await new.register()
    await cycle(new, drained)
    kept = new.epochs
    assert set(kept) == set(range(8))
    for _ in range(3):
        await cycle(old, drained)
        assert not old.good()
        await cycle(new, drained)
        assert new.epochs == kept


# ---- when the database's clock, or its leases, are not what they were


async def both_serve(database: Database, drained: Drained) -> tuple[LeaseKeeper, LeaseKeeper]:
    a, b = keeper(database, "a"), keeper(database, "b")
    for node in (a, b):
        await node.register()
    for node in (a, b, a, b):
        await cycle(node, drained)
    return a, b


async def test_when_the_databases_clock_jumps_no_lease_of_another_node_is_taken_for_a_leases_time(
    dsn: str, database: Database, drained: Drained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder counts on its own clock, and is still serving."""
    _, b = await both_serve(database, drained)
    kept = b.epochs
    expire(dsn, node="a")
    with monkeypatch.context() as jump:
        for module in (leases_module, caution_module):
            jump.setattr(module, "boot_now", lambda: boot_now() - TTL)
        await cycle(b, drained)
        assert b.epochs == kept
        assert 0 < b.due() < float("inf")
    # A lease's time later.
    await cycle(b, drained)
    assert set(b.epochs) == set(range(8))


async def test_after_a_fail_over_no_lease_of_another_node_is_taken_for_a_leases_time(
    dsn: str, database: Database, drained: Drained
) -> None:
    """The new server may not know the last renewal of its holder, nor that it was taken at all."""
    _, b = await both_serve(database, drained)
    kept = b.epochs
    expire(dsn)
    with connect(dsn) as connection:
        connection.execute("DELETE FROM shardd.leases WHERE node_id = 'a'")
    server = database.server
    assert server is not None
    b._caution = Caution(TTL, 1.0, Identity(server.cluster, server.timeline - 1))
    for _ in range(3):
        await cycle(b, drained)
    # Its own, which had expired, it takes again.
    assert set(b.epochs) == set(kept)


# ---- two machines that were resumed from one snapshot


def snapshot_of(node: LeaseKeeper) -> LeaseKeeper:
    """Another machine with the same memory: same state folder, same boot, same incarnation, same leases."""
    other = copy.copy(node)
    other._leases = copy.copy(node._leases)
    other._leases.memory = copy.copy(node._leases.memory)
    other._epochs, other._moving = dict(node._epochs), {}
    return other


async def test_of_two_machines_resumed_from_one_snapshot_one_goes_on_and_both_are_named(
    dsn: str, database: Database, drained: Drained
) -> None:
    one = keeper(database, "a")
    await one.register()
    await cycle(one, drained)
    two = snapshot_of(one)
    kept = one.epochs
    await cycle(two, drained)
    assert two.epochs == kept
    await cycle(one, drained)
    assert one.epochs == {}
    assert (one.cloned, two.cloned) == (True, False)
    assert one.displacement().count("node a on host host (pid ") == 2
    assert "resumed from one snapshot" in one.displacement()
    # Nothing that the loser does from here on touches what the other one has.
    await one._leases.release(list(kept.values()), list(kept.values()), leaving=True)
    assert await one._leases.take(0) is None
    await one.give_up()
    await cycle(two, drained)
    assert two.epochs == kept
    assert holders(dsn) == dict.fromkeys(range(8), "a")
    (problem,) = two.problems()
    assert "resumed from the same snapshot of a machine, was refused" in problem.text
    assert problem.text.count("node a on host host (pid ") == 2
    with connect(dsn) as connection:
        query = "SELECT count(*) FROM shardd.epochs WHERE drained_at IS NOT NULL"
        assert connection.execute(query).fetchone() == (0,)


async def test_the_lock_of_a_folder_proves_only_with_its_last_beat_that_the_one_before_is_dead(
    dsn: str, database: Database, drained: Drained
) -> None:
    """On a machine that was resumed from a snapshot, it is the lock that the other machine has, too."""
    one = keeper(database, "a")
    await one.register()
    snapshot = copy.copy(memory_of(database, "a"))
    await cycle(one, drained)
    two = Leases(database, node=identity("a"), incarnation=uuid4(), ttl=TTL, memory=snapshot)
    assert not await two.register(8, "test")
    renamed = Leases(
        database, node=replace(identity("a"), id="b"), incarnation=uuid4(), ttl=TTL, memory=copy.copy(snapshot)
    )
    assert await renamed.register(8, "test")
    await renamed.release_earlier()
    assert holders(dsn) == dict.fromkeys(range(8), "a")


@pytest.mark.parametrize("stored", [False, True])
async def test_a_snapshot_that_is_made_while_a_renewal_waits_for_its_answer_is_noticed_too(
    dsn: str, database: Database, drained: Drained, *, stored: bool
) -> None:
    one = keeper(database, "a")
    await one.register()
    await cycle(one, drained)
    with lost_answer(one, stored=stored), pytest.raises(DatabaseError):
        await cycle(one, drained)
    two = snapshot_of(one)
    for node in (one, two, one, two):
        await cycle(node, drained)
    assert [bool(node.epochs) for node in (one, two)] == [True, False]
    assert two.cloned


@pytest.mark.parametrize("stored", [False, True])
async def test_an_answer_to_a_renewal_that_is_lost_does_no_harm(
    dsn: str, database: Database, drained: Drained, *, stored: bool
) -> None:
    node = keeper(database, "a")
    await node.register()
    await cycle(node, drained)
    kept = node.epochs
    with lost_answer(node, stored=stored):
        for _ in range(3):
            with pytest.raises(DatabaseError):
                await cycle(node, drained)
    # What is released meanwhile counts, too.
    await node.release(0)
    assert holders(dsn) == dict.fromkeys(range(1, 8), "a")
    await cycle(node, drained)
    assert node.epochs == kept | {0: node.epochs[0]}
    with connect(dsn) as connection:
        assert connection.execute("SELECT beats FROM shardd.nodes").fetchone() == (3,)


@contextmanager
def lost_answer(node: LeaseKeeper, *, stored: bool) -> Iterator[None]:
    """Meanwhile the connection breaks at each renewal, before or after the database has stored it."""
    before = node._leases._database

    class Breaking(Database):
        async def rows(self, make: Any, name: str, params: Any = None) -> list[Any]:
            if stored or name != "renew_leases":
                found = await before.rows(make, name, params)
            if name == "renew_leases":
                raise DatabaseError("the connection is lost")
            return found

    node._leases._database = Breaking("")
    try:
        yield
    finally:
        node._leases._database = before


# ---- when it looks


@asynccontextmanager
async def renewing(node: LeaseKeeper, drained: Drained, taken: asyncio.Event, dsn: str) -> AsyncIterator[None]:
    """A node that would look again only after an hour; `taken` is set when it holds every shard."""

    async def renew() -> None:
        await cycle(node, drained)
        if len(node.epochs) == 8:
            taken.set()

    async with Database(dsn, max_size=2) as database:
        renewal = Renewal(Step("renewing"), renew, every=3600.0, due=node.due)
        heard = asyncio.Event()

        def wake(_: str) -> None:
            heard.set()
            renewal.wake()

        listener = NotificationListener(database, "shardd_leases", heard=wake, step=Step("listening"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(renewal.run())
            tasks.create_task(listener.run())
            await heard.wait()
            yield
            await listener.stop()
            await renewal.stop()


async def shared(database: Database, drained: Drained) -> tuple[LeaseKeeper, LeaseKeeper]:
    """Two nodes with four shards each."""
    a, b = keeper(database, "a"), keeper(database, "b")
    for node in (a, b):
        await node.register()
    for node in (a, b, a, b):
        await cycle(node, drained)
    assert len(a.epochs) == len(b.epochs) == 4
    return a, b


async def test_a_node_looks_again_as_soon_as_a_lease_of_another_has_expired(
    dsn: str, database: Database, drained: Drained
) -> None:
    _, b = await shared(database, drained)
    with connect(dsn) as connection:  # a has been silent for nearly a lease's time
        ago = f"interval '{TTL - 1.0} seconds'"
        connection.execute(f"UPDATE shardd.leases SET expires_at = expires_at - {ago} WHERE node_id = 'a'")  # type: ignore[arg-type]  # ours
        connection.execute(f"UPDATE shardd.nodes SET seen_at = seen_at - {ago} WHERE id = 'a'")  # type: ignore[arg-type]  # ours
    taken = asyncio.Event()
    async with asyncio.timeout(60), renewing(b, drained, taken, dsn):
        await taken.wait()
    assert holders(dsn) == dict.fromkeys(range(8), "b")


async def test_a_node_takes_what_another_gives_back_at_once_shard_by_shard(
    dsn: str, database: Database, drained: Drained
) -> None:
    a, b = await shared(database, drained)
    a.leave()
    taken = asyncio.Event()
    async with asyncio.timeout(60), renewing(b, drained, taken, dsn):
        first, *rest = a.epochs
        await a.release(first)
        while first not in b.epochs:  # noqa: ASYNC110  # nothing announces a step of another node's
            await asyncio.sleep(0.01)
        assert set(a.epochs) == set(rest)
        # It serves on what it has not given back, and takes nothing any more.
        assert await a.run_cycle(drained[1]) == set()
        assert set(a.serving) == set(rest)
        await a.give_up()
        await taken.wait()
    assert holders(dsn) == dict.fromkeys(range(8), "b")
