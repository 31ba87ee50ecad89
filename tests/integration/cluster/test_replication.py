"""What the status says of the server's standbys, with real ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from shardd.queue.database import Database
from shardd.queue.migrate import migrate
from shardd.queue.server_limits import ServerLimits
from shardd.supervisor.cluster.server_watch import ServerWatch
from shardd.supervisor.status import NO_STANDBY
from tests.support.servers import Server


@pytest.fixture
async def watch(tcp_server: Server) -> AsyncIterator[ServerWatch]:
    await migrate(tcp_server.dsn())
    async with Database(tcp_server.dsn()) as database:
        yield ServerWatch(ServerLimits(database))


def replicate(server: Server, names: str) -> None:
    server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.execute("SELECT pg_reload_conf()")


async def until(watch: ServerWatch, true: Callable[[], bool]) -> None:
    """What the server counts changes without an event."""
    async with asyncio.timeout(60):
        while True:
            await watch.check()
            if true():
                return
            await asyncio.sleep(0.05)


async def test_the_kind_of_replication_is_told_where_it_may_be_seen(
    tcp_server: Server, standby: Server, watch: ServerWatch
) -> None:
    await watch.check()
    assert (watch.replication() or "").startswith("unknown: a superuser lets shardd see it with GRANT pg_monitor")
    assert watch.notes() == []
    tcp_server.execute("GRANT pg_monitor TO shardd")
    await until(watch, lambda: (watch.replication() or "").startswith("asynchronous: walreceiver is "))
    (note,) = watch.notes()
    assert "a fail-over would undo what is not there yet" in note
    replicate(tcp_server, "*")
    await until(watch, lambda: watch.replication() == "synchronous: walreceiver")
    assert watch.notes() == []
    tcp_server.execute("ALTER ROLE shardd SET synchronous_commit = local")
    replicate(tcp_server, "")
    await asyncio.to_thread(standby.stop)
    await until(watch, lambda: watch.replication() == NO_STANDBY)
    assert list(watch.problems()) == []


async def test_commits_that_wait_for_a_standby_are_a_problem_until_they_do_not(
    watch: ServerWatch, tcp_server: Server
) -> None:
    replicate(tcp_server, "gone")

    def insert() -> None:
        with psycopg.connect(tcp_server.dsn(), autocommit=True) as connection:
            connection.execute("INSERT INTO shardd.devices (id, transport) VALUES ('a', 'sandbox')")

    insertion = threading.Thread(target=insert)
    insertion.start()
    await until(watch, lambda: bool(list(watch.problems())))
    (problem,) = watch.problems()
    assert "commits have waited for a synchronous standby for " in problem.text
    assert "synchronous_standby_names is 'gone', and connected is none" in problem.text
    replicate(tcp_server, "")
    await asyncio.to_thread(insertion.join)
    await until(watch, lambda: not list(watch.problems()))
