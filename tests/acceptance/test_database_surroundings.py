"""A database with unusual settings or encoding, or that becomes read-only for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import sql

from tests.fixtures.postgres import Cluster
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.hostile_settings import HOSTILE, alter_role


async def test_settings_of_role_and_environment_change_nothing(
    make_daemon: Callable[..., Daemon], postgres: Cluster, dbname: str, producer: Producer, shardd: Command
) -> None:
    producer.add_devices(3)
    with postgres.superuser(dbname) as superuser:
        for role in ("shardd", "producer"):
            alter_role(superuser, role, dbname, HOSTILE if role == "shardd" else {"datestyle": "German, DMY"})
    environ = {
        "PGOPTIONS": "-c datestyle=SQL",
        "PGDATESTYLE": "German",
        "PGCLIENTENCODING": "LATIN1",
        "PGTZ": "Asia/Tokyo",
    }
    daemon = make_daemon()
    daemon.environ |= environ
    shardd.environ |= environ
    await daemon.start()
    producer = Producer(postgres.dsn(dbname, "producer"))
    text = "Grüße, 您好 \\d{2} 'x'"
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at, metadata) "
        "SELECT 'd' || n, '+4915112345678', %s, now() + interval '100 ms', %s FROM generate_series(1, 3) n",
        *(text, json.dumps({"text": text})),
    )
    assert await producer.until_finished(daemon, 3) == {"sent": 3}
    assert [message["body"] for message in daemon.messages()] == [text] * 3
    for words in (("job", "list"), ("device", "list"), ("event", "list"), ("db", "status")):
        ran = await shardd(*words, "--json")
        assert (ran.code, ran.err) == (0, ""), words
    (job, *_) = (await shardd("job", "list", "--json")).json
    assert job["created_at"].endswith(("Z", "+00:00"))
    assert await daemon.stop() == 0


@pytest.fixture
def wrong_database(postgres: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the daemon's that is not in UTF8."""
    name = f"in_{request.param.lower()}"
    with postgres.superuser() as superuser:
        superuser.execute(
            sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {} OWNER shardd LC_COLLATE 'C' LC_CTYPE 'C'"
            ).format(sql.Identifier(name), sql.Literal(request.param))
        )
    yield name
    postgres.drop_database(name)


@pytest.mark.parametrize("wrong_database", ["SQL_ASCII", "LATIN1"], indirect=True)
async def test_a_database_in_another_encoding_is_refused_in_words(
    make_daemon: Callable[..., Daemon], postgres: Cluster, wrong_database: str, shardd: Command
) -> None:
    encoding = wrong_database.removeprefix("in_").upper()
    words = (
        f"(database {wrong_database}, user shardd) is stored in {encoding}",
        "createdb --encoding=UTF8 --template=template0 --owner=shardd NAME",
    )
    daemon = make_daemon(database={"dsn": postgres.dsn(wrong_database)})
    await daemon.start(wait=False)
    assert await daemon.wait_end() == 69
    log = daemon.log_tail()
    assert "Traceback" not in log
    assert all(word in log for word in words), log
    shardd.environ["SHARDD_CONFIG"] = str(daemon.config_file)
    for arguments in (("db", "migrate"), ("db", "status"), ("job", "list")):
        ran = await shardd(*arguments)
        assert ran.code == 69
        assert all(word in ran.err for word in words), ran.err


async def test_a_server_that_was_read_only_for_a_while_is_used_again(
    make_daemon: Callable[..., Daemon], postgres: Cluster, dbname: str, producer: Producer
) -> None:
    """What a failover looks like from outside: connections end, new ones cannot write, then they can again."""

    def set_read_only(value: str) -> None:
        with postgres.superuser() as superuser:
            change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only TO {}")
            superuser.execute(change.format(sql.Identifier(dbname), sql.Literal(value)))
            if value == "on":
                superuser.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = 'shardd'",
                    [dbname],
                )

    def refused(status: dict[str, Any]) -> bool:
        return "read-only" in daemon.log_tail(50)

    daemon = make_daemon()
    producer.add_devices(3)
    await daemon.start()
    set_read_only("on")
    await daemon.until(refused)
    set_read_only("off")
    producer.add_jobs(30, 3)
    assert await producer.until_finished(daemon, 30) == {"sent": 30}
    assert await daemon.stop() == 0
