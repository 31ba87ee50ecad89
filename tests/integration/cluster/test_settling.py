"""Shards after a fail-over that lost commits: nobody takes one before all nodes have settled again what they sent."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from shardd.clock import boot_now
from shardd.errors import DatabaseError
from shardd.postgres.servers import Identity
from shardd.queue.database import Database
from shardd.queue.leases import Node
from shardd.queue.migrate import migrate
from shardd.states import NodeState
from shardd.supervisor.cluster import caution, settling
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.settling import Settling
from tests.support.queue_rows import identity
from tests.support.servers import Server

TTL = 600.0
"""Seconds; no lease runs out, and no node counts as dead."""


async def drained(_: int) -> None:
    pass


async def cycle(keeper: LeaseKeeper) -> None:
    """Renew; the first tries may meet connections to a server that is gone."""
    async with asyncio.timeout(60):
        while True:
            try:
                await keeper.run_cycle(drained)
            except DatabaseError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture
async def make_keeper(tcp_server: Server, standby: Server) -> AsyncIterator[Callable[[str], LeaseKeeper]]:
    await migrate(tcp_server.dsn())
    async with AsyncExitStack() as stack:
        hosts = f"127.0.0.1:{tcp_server.port},127.0.0.1:{standby.port}"
        databases = [
            await stack.enter_async_context(Database(f"postgresql://shardd@{hosts}/shardd?sslmode=disable"))
            for _ in range(2)
        ]

        def make(name: str) -> LeaseKeeper:
            return LeaseKeeper(databases.pop(), node=identity(name), incarnation=uuid4(), shards=4, ttl=TTL, margin=5.0)

        yield make


async def test_a_shard_whose_lease_was_lost_waits_for_what_another_node_has_sent(
    make_keeper: Callable[[str], LeaseKeeper],
    tcp_server: Server,
    standby: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = make_keeper("one"), make_keeper("two")
    for keeper in (one, two):
        await keeper.register()
        for _ in range(2):
            await keeper.run_cycle(drained, may_take=False)
    await asyncio.to_thread(standby.wait_caught_up, tcp_server)
    await asyncio.to_thread(standby.stop_following)
    for keeper in (one, two):
        await keeper.run_cycle(drained)
    assert len(one.epochs) == len(two.epochs) == 2
    settled: list[str] = []

    async def settle() -> None:
        settled.append("one")

    one.settling.settle = settle
    await asyncio.to_thread(tcp_server.stop, signal.SIGQUIT)
    await asyncio.to_thread(standby.promote)
    await cycle(two)
    later = 0.0
    for module in (caution, settling):
        monkeypatch.setattr(module, "boot_now", lambda: boot_now() + later)
    # Longer after the fail-over than any lease of the time before may last.
    later += TTL + 1
    for _ in range(2):
        await cycle(two)
    assert two.epochs == {}
    await cycle(one)
    assert settled == ["one"]
    await cycle(two)
    assert two.epochs == {}, "the first node has not told it yet"
    later += TTL + 1
    await cycle(one)
    await cycle(two)
    await cycle(one)
    assert len(one.epochs) == len(two.epochs) == 2
    assert settled == ["one"]


BEFORE, AFTER = Identity(1, 1), Identity(1, 2)


def node(name: str, timeline: int | None, state: NodeState = NodeState.SERVING) -> Node:
    now = datetime.now(UTC)
    return Node(
        id=name, name=name, incarnation=uuid4(), shards=4, version="1", pid=1, host="h", state_dir="/s", place=None,
        ttl=TTL, margin=5.0, started_at=now, cordoned_at=None, summary=None, state=state, since=None, beat=None,
        timeline=timeline, seen_at=now, seen_ago=0.0, rival=None, rival_age=None,
    )  # fmt: skip


async def test_alone_or_without_a_change_nothing_waits() -> None:
    alone = Settling("me", TTL, BEFORE)
    assert alone.is_over(BEFORE, [node("me", None)])
    assert alone.is_over(AFTER, [node("me", None)])
    assert alone.is_over(None, [node("other", None)])
    fresh = Settling("me", TTL, None)
    assert fresh.is_over(AFTER, [node("other", 2), node("starting", None)])
    assert not fresh.is_over(AFTER, [node("other", 1)])


async def test_a_node_that_was_alive_at_the_change_is_awaited_until_it_has_settled_or_must_be_dead() -> None:
    me = Settling("me", TTL, BEFORE)
    others = [node("slow", 1), node("quick", 2)]
    assert not me.is_over(AFTER, others)
    assert not me.is_over(AFTER, others[1:]), "it may only be late with its renewal"
    assert me.is_over(AFTER, [node("slow", 2), node("quick", 2)])
    dead = Settling("me", 0.0, BEFORE)
    assert not dead.is_over(AFTER, others)
    assert dead.is_over(AFTER, others[1:])


async def test_it_settles_once_for_each_timeline_and_again_after_a_failure() -> None:
    me, tries = Settling("me", TTL, None), 0
    me.may_settle = False
    assert not await me.look(BEFORE, [])
    me.may_settle = True

    async def settle() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DatabaseError("away")

    me.settle = settle
    with pytest.raises(DatabaseError):
        await me.look(BEFORE, [])
    assert me.timeline is None
    assert await me.look(BEFORE, [])
    assert not await me.look(BEFORE, [])
    assert await me.look(replace(AFTER), [])
    assert (me.timeline, tries) == (2, 3)
