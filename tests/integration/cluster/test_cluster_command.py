"""`shardd cluster` beside nodes that share a database: what it shows, and that the nodes do what it asks for at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from shardd.queue.database import Database
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.renewal import Renewal
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.services import Step
from tests.support.command import Command
from tests.support.queue_rows import connect, identity, memory_of

TTL = 600.0


class Running:
    """A node that would look again only after an hour, unless it hears of a reason."""

    def __init__(self, database: Database, name: str, *, id: str | None = None) -> None:  # noqa: A002  # a field's name
        memory = memory_of(database, id or name)
        self.keeper = LeaseKeeper(
            database, node=identity(name, id=id), incarnation=uuid4(), shards=8, ttl=TTL, margin=5.0, memory=memory
        )
        self.changed = asyncio.Event()
        self.drained = asyncio.Event()
        """Until it is set, nothing that is given back is drained."""
        self.drained.set()
        self._renewal = Renewal(Step("renewing"), self.look, every=3600.0, due=self.keeper.due)
        self._database = database

    async def look(self) -> None:
        """Renew once."""
        await self.keeper.run_cycle(self._drain)
        self.changed.set()

    async def _drain(self, _: int) -> None:
        await self.drained.wait()

    async def until(self, true: Callable[[], bool]) -> None:
        """Until a look has made it true."""
        async with asyncio.timeout(60):
            while not true():
                await self.changed.wait()
                self.changed.clear()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """From the registration on."""
        await self.keeper.register()
        await self.look()
        heard = asyncio.Event()

        def wake(_: str) -> None:
            heard.set()
            self._renewal.wake()

        listener = NotificationListener(self._database, "shardd_leases", heard=wake, step=Step("listening"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewal.run())
            tasks.create_task(listener.run())
            await heard.wait()
            yield
            await listener.stop()
            await self._renewal.stop()


@asynccontextmanager
async def two_nodes(dsn: str) -> AsyncIterator[tuple[Running, Running]]:
    """Nodes with four shards each."""
    async with Database(dsn, max_size=4) as database, Database(dsn, max_size=4) as other:
        one, two = Running(database, "host-a"), Running(other, "host-b")
        async with one.run(), two.run():
            await one.look()  # nothing announces a node that joins
            await two.until(lambda: len(two.keeper.epochs) == 4)
            yield one, two


async def listed(shardd: Command) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The nodes by name, and the moves."""
    found = (await shardd("cluster", "list", "--json")).json
    assert found["shards"] == 8
    return {node["name"]: node for node in found["nodes"]}, found["moves"]


async def test_a_node_that_is_cordoned_gives_its_shards_away_at_once_and_takes_its_share_again_afterwards(
    shardd: Command, dsn: str
) -> None:
    async with two_nodes(dsn) as (one, two):
        nodes, moves = await listed(shardd)
        assert moves == []
        assert {name: node["state"] for name, node in nodes.items()} == {"host-a": "serving", "host-b": "serving"}
        assert sorted(nodes["host-a"]["holds"] + nodes["host-b"]["holds"]) == list(range(8))
        assert nodes["host-a"]["planned"] == nodes["host-a"]["holds"] == sorted(one.keeper.epochs)

        one.drained.clear()
        ran = await shardd("cluster", "cordon", "host-a")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out == "cordoned node host-a: it gives 4 shards back; see: shardd cluster list\n"
        await one.until(lambda: len(one.keeper.moving) == 4)
        nodes, moves = await listed(shardd)
        assert nodes["host-a"]["state"] == "cordoned"
        assert (len(nodes["host-a"]["holds"]), nodes["host-a"]["planned"]) == (4, [])
        assert moves == [{"shard": shard, "from": "host-a", "to": "host-b"} for shard in nodes["host-a"]["holds"]]
        assert "moves: host-a → host-b: " in (await shardd("cluster", "list")).out
        assert (await shardd("cluster", "cordon", "host-a")).out == "node host-a is cordoned already\n"

        one.drained.set()
        await two.until(lambda: len(two.keeper.epochs) == 8)
        assert one.keeper.epochs == {}
        assert one.keeper.known()

        ran = await shardd("cluster", "uncordon", "host-a")
        assert (ran.code, ran.out) == (0, "uncordoned node host-a: it takes its share\n")
        await one.until(lambda: len(one.keeper.epochs) == 4)
        assert (await shardd("cluster", "uncordon", "host-a")).out == "node host-a is not cordoned\n"


async def test_a_node_stays_cordoned_through_a_restart(shardd: Command, dsn: str, database: Database) -> None:
    async with Running(database, "host-a").run():
        pass
    await shardd("cluster", "cordon", "host-a", "--yes")
    again = Running(database, "host-a")
    async with again.run():
        assert again.keeper.epochs == {}
        await shardd("cluster", "uncordon", "host-a")
        await again.until(lambda: len(again.keeper.epochs) == 8)


async def test_the_last_node_that_takes_shards_is_cordoned_only_if_that_is_meant(
    shardd: Command, dsn: str, database: Database
) -> None:
    one = Running(database, "host-a")
    async with one.run():
        ran = await shardd("cluster", "cordon", "host-a")
        assert ran.code == 64
        assert "no other node takes shards: while host-a is cordoned, nothing is sent" in ran.err
        assert len(one.keeper.epochs) == 8
        assert (await shardd("cluster", "cordon", "host-a", "--yes")).code == 0
        await one.until(lambda: not one.keeper.epochs)
        await one.until(lambda: "no node takes shards" in " ".join(p.text for p in one.keeper.picture.problems()))
        shown = await shardd("cluster", "list")
        assert "moves: free → nobody: 0-7" in shown.out


async def test_an_unknown_node_is_answered_with_the_one_that_was_meant(
    shardd: Command, dsn: str, database: Database
) -> None:
    assert (await shardd("cluster", "list")).out == "no nodes yet: each registers when it starts\n"
    async with Running(database, "host-a").run():
        for command in ("cordon", "uncordon"):
            ran = await shardd("cluster", command, "hots-a")
            assert (ran.code, ran.out) == (64, "")
            assert ran.err == "shardd: node hots-a is unknown; did you mean host-a? All: shardd cluster list\n"
        ran = await shardd("cluster", "cordon", "x")
        assert ran.err == "shardd: node x is unknown; the others: shardd cluster list\n"


async def test_a_name_means_the_node_that_runs_and_an_id_any(shardd: Command, dsn: str, database: Database) -> None:
    """A host that was replaced had the name before."""
    async with Running(database, "host-a", id="old").run():
        pass
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.nodes SET seen_at = '-infinity'")
    async with Running(database, "host-a", id="new").run(), Running(database, "host-b").run():
        await shardd("cluster", "cordon", "host-a")
        await shardd("cluster", "cordon", "old")
        found = (await shardd("cluster", "list", "--json")).json["nodes"]
        assert [(node["id"], node["state"]) for node in found] == [
            ("new", "cordoned"), ("old", "stopped"), ("host-b", "serving"),
        ]  # fmt: skip
        assert all(node["cordoned_at"] for node in found if node["name"] == "host-a")
        with connect(dsn) as connection:
            connection.execute("UPDATE shardd.nodes SET seen_at = now() WHERE id = 'old'")
        ran = await shardd("cluster", "uncordon", "host-a")
        assert ran.code == 64
        assert "2 nodes have the name host-a: write the id of one: new (on host, /host-a), old (on host, " in ran.err


async def test_what_a_node_does_is_shown_with_since_when(shardd: Command, dsn: str, database: Database) -> None:
    await Running(database, "host-a").keeper.register()
    states = {
        "away_since = now() - interval '7 minutes'": "away 7m ago",
        "leaving_at = now() - interval '2 minutes'": "leaving 2m ago",
        "cordoned_at = now(), seen_at = now() - interval '3 hours'": "silent 3h ago, cordoned",
    }
    for change, shown in states.items():
        with connect(dsn) as connection:
            connection.execute(f"UPDATE shardd.nodes SET {change}")  # type: ignore[arg-type]  # ours
        assert shown in (await shardd("cluster", "list")).out
