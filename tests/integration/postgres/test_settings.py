"""The settings that a connection relies on hold, whatever the server, database, role or environment defines."""

from __future__ import annotations

import psycopg
import pytest

from shardd.errors import DatabaseError
from shardd.postgres.settings import SETTINGS, Setting, settings_for
from shardd.queue.database import Database
from tests.fixtures.postgres import Cluster
from tests.support.hostile_settings import HOSTILE, alter_role


async def current_settings(database: Database) -> dict[str, str]:
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT name, setting FROM pg_settings")
        return dict(await cursor.fetchall())


def test_every_setting_has_a_hostile_value() -> None:
    assert HOSTILE.keys() == {setting.name for setting in SETTINGS}


async def test_no_setting_of_the_role_gets_through(dsn: str, dbname: str, postgres: Cluster) -> None:
    async with Database(dsn) as database:
        friendly = await current_settings(database)
    hostile = [name for name in HOSTILE if name in friendly]
    assert len(hostile) > 30
    with postgres.superuser(dbname) as superuser:
        alter_role(superuser, "shardd", dbname)
    with psycopg.connect(dsn) as plain:
        found = dict(plain.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert [name for name in hostile if found[name] == friendly[name]] == [], "these values are not hostile"
    async with Database(dsn) as database:
        assert await current_settings(database) == friendly


async def test_no_setting_of_the_environment_gets_through(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Database(dsn) as database:
        friendly = await current_settings(database)
    monkeypatch.setenv(
        "PGOPTIONS", "-c datestyle=German -c search_path=public -c default_transaction_isolation=serializable"
    )
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    monkeypatch.setenv("PGTZ", "Asia/Jakarta")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    async with Database(dsn) as database:
        assert await current_settings(database) == friendly


def test_a_setting_that_the_server_does_not_have_is_left_out() -> None:
    assert "transaction_timeout" not in settings_for(16, 5.0)
    assert settings_for(17, 5.0)["transaction_timeout"] == "0"
    assert Setting("transaction_timeout", "0", since=17) in SETTINGS


async def test_a_role_for_whom_no_trigger_runs_is_refused(dsn: str, dbname: str, postgres: Cluster) -> None:
    with postgres.superuser(dbname) as superuser:
        alter_role(superuser, "shardd", dbname, {"session_replication_role": "replica"})
    with pytest.raises(DatabaseError, match=r"runs no triggers.*ALTER ROLE shardd RESET session_replication_role"):
        await Database(dsn).open()


@pytest.mark.parametrize("asked", ["off", "on", "local", "remote_write"])
async def test_a_commit_is_durable_before_it_is_acknowledged(
    asked: str, dsn: str, dbname: str, postgres: Cluster
) -> None:
    with postgres.superuser(dbname) as superuser:
        alter_role(superuser, "shardd", dbname, {"synchronous_commit": asked})
    async with Database(dsn) as database:
        assert (await current_settings(database))["synchronous_commit"] == ("on" if asked == "off" else asked)
