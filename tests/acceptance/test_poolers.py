"""A PgBouncer in front of `database.dsn`: refused unless each client keeps its server connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from shardd.queue.migrate import migrate
from tests.fixtures.servers import MakePooler
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.servers import Pooler, Server

NODE = "pooled"


@pytest.fixture
async def migrated(tcp_server: Server) -> Server:
    await migrate(tcp_server.dsn())
    return tcp_server


def settings_left_behind(pooler: Pooler) -> Iterator[tuple[str, str]]:
    """What a stranger finds changed on the server connections of the pool."""
    with psycopg.connect(pooler.dsn(), autocommit=True, prepare_threshold=None) as stranger:
        cursor = stranger.execute("SELECT name, setting FROM pg_settings WHERE source = 'session'")
        # PgBouncer itself gives each client what the client asked for at its start.
        yield from (
            row for row in cursor.fetchall() if row[0] not in {"client_encoding", "application_name", "DateStyle"}
        )


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_connections_is_refused_in_words(
    mode: str, migrated: Server, make_pooler: MakePooler, make_daemon: Callable[..., Daemon]
) -> None:
    pooler = make_pooler(mode)
    daemon = make_daemon(database={"dsn": pooler.dsn()})
    await daemon.start(wait=False)
    assert await daemon.wait_end() == 69
    log = daemon.log_tail()
    assert "Traceback" not in log
    assert f"127.0.0.1:{pooler.port}" in log
    assert "name the server itself in database.dsn, or a pool with pool_mode = session" in log
    assert list(settings_left_behind(pooler)) == []


async def test_a_pooler_that_shares_connections_is_noticed_among_other_clients(
    migrated: Server, make_pooler: MakePooler, make_daemon: Callable[..., Daemon]
) -> None:
    """Server connections go around in the pool, and one that nobody uses is picked at random."""
    pooler = make_pooler("transaction", server_round_robin="1", min_pool_size="6")
    held = [psycopg.connect(pooler.dsn()) for _ in range(5)]
    for connection in held:
        connection.execute("SELECT 1")
    for connection in held[1:]:
        connection.rollback()
    daemon = make_daemon(database={"dsn": pooler.dsn()})
    await daemon.start(wait=False)
    assert await daemon.wait_end() == 69
    assert "pool_mode = session" in daemon.log_tail()
    for connection in held:
        connection.close()


async def test_a_pooler_that_keeps_connections_with_their_clients_serves(
    migrated: Server, make_pooler: MakePooler, make_daemon: Callable[..., Daemon]
) -> None:
    pooler = make_pooler("session")
    producer = Producer(migrated.dsn())
    producer.add_devices(5)
    daemon = make_daemon(database={"dsn": pooler.dsn()})
    await daemon.start()
    producer.add_jobs(100, 5)
    assert await producer.until_finished(daemon, 100) == {"sent": 100}
    assert await daemon.stop() == 0
    # What a client leaves behind is PgBouncer's to clear, which it does at once (server_reset_query).
    assert list(settings_left_behind(pooler)) == []


async def test_commands_and_producers_work_through_any_pooler(
    migrated: Server, make_pooler: MakePooler, tmp_path: Path
) -> None:
    pooler = make_pooler("transaction")
    file = tmp_path / "shards.yaml"
    file.write_text(f"shards: 2\nstate_dir: state\ndatabase: {{dsn: '{pooler.dsn()}'}}\n")
    shardd = Command(file)
    assert (await shardd("device", "add", "d1", "--transport=sandbox")).code == 0
    producer = Producer(pooler.dsn())
    producer.add_jobs(3, 1)
    for words in (("job", "list"), ("device", "list"), ("event", "list"), ("db", "status")):
        ran = await shardd(*words, "--json")
        assert (ran.code, ran.err) == (0, ""), words
    assert [job["recipient"] for job in (await shardd("job", "list", "--json")).json] == [
        "+491511000002",
        "+491511000001",
        "+491511000000",
    ]
    assert (await shardd("job", "cancel", "--device=d1", "--yes")).code == 0
    assert producer.states() == {"cancelled": 3}
    assert list(settings_left_behind(pooler)) == []
    ran = await shardd("db", "migrate")
    assert ran.code == 69
    assert "pool_mode = session" in ran.err
