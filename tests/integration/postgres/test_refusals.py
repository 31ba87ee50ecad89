"""Each refusal by PostgreSQL becomes one sentence with its fix, whatever language the server uses."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardd.embedded.home import Home
from shardd.errors import DatabaseError
from shardd.postgres.errors import has_no_room
from shardd.postgres.servers import Servers, Terms
from shardd.queue.database import Database
from tests.support.servers import Server

TERMS = Terms(application_name="shardd/test", connect_timeout=10.0, statement_timeout=5.0)
LOCALE = "de_DE.UTF-8"


@pytest.fixture(params=["english", "german"])
def server(request: pytest.FixtureRequest, server_home: Home) -> Iterator[Server]:
    """A server that asks for passwords, and has room for few."""
    server = Server(server_home, server_home.folder / "data")
    server.make()
    server.settings = {"max_connections": "6", "superuser_reserved_connections": "2", "max_wal_senders": "0"}
    if request.param == "german":
        speak_german(server)
    try:
        server.start()
        server.execute("CREATE ROLE shardd LOGIN PASSWORD 'right'")
        server.execute("CREATE ROLE retired NOLOGIN")
        server.execute("CREATE DATABASE shardd OWNER shardd")
        server.home.account.write(
            server.data / "pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\nhost all retired 127.0.0.1/32 trust\n"
            "host all nobody 127.0.0.1/32 trust\nhost all shardd 127.0.0.1/32 scram-sha-256\n",
        )
        server.execute("SELECT pg_reload_conf()")
        if request.param == "german":
            assert server.execute("SELECT current_setting('lc_messages')") == [(LOCALE,)]
        yield server
    finally:
        server.stop()


def speak_german(server: Server) -> None:
    """With a locale of its own, because a test machine need not have one, and Debian's translations."""
    localedef = shutil.which("localedef")
    translations = Path("/usr/share/locale/de/LC_MESSAGES").glob("postgres-*.mo")
    if localedef is None or not Path("/usr/share/i18n/locales/de_DE").exists() or not any(translations):
        pytest.skip("no German here: apt-get install locales postgresql")
    folder = server.home.folder / "locale"
    made, said = server.home.account.run(["/usr/bin/env", "mkdir", str(folder)])
    assert made == 0, said
    made, said = server.home.account.run([localedef, "-i", "de_DE", "-f", "UTF-8", str(folder / LOCALE)])
    assert made == 0, said
    server.environ = {"LOCPATH": str(folder)}
    server.settings = {**server.settings, "lc_messages": LOCALE}


async def refusal(dsn: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        await Servers(dsn, TERMS).connect()
    text = str(caught.value)
    assert "\n" not in text
    assert "right" not in text
    return text


async def test_a_wrong_password_is_reported(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:wrong@")
    assert (await refusal(dsn)).endswith("refuses the password of user shardd: correct the DSN")
    assert "wrong" not in await refusal(dsn)
    assert (await refusal(server.dsn())).endswith("refuses the password of user shardd: correct the DSN")


async def test_an_unknown_database_is_reported(server: Server) -> None:
    dsn = server.dsn("nowhere").replace("shardd@", "shardd:right@")
    assert "has no such database: create it (createdb --owner=shardd nowhere)" in await refusal(dsn)


@pytest.mark.parametrize("user", ["nobody", "retired"])
async def test_a_user_who_cannot_log_in_is_reported(user: str, server: Server) -> None:
    assert f"has no user {user} that may log in: create it (createuser {user})" in await refusal(server.dsn(user=user))


async def test_a_user_whom_no_rule_lets_in_is_reported(server: Server) -> None:
    assert "does not accept this user: see its pg_hba.conf" in await refusal(server.dsn(user="stranger"))


async def test_a_server_without_room_is_reported(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:right@")
    held = [psycopg.connect(dsn) for _ in range(4)]
    assert "has no free connection: `shardd status` lists who has them, if shardd runs. Limit" in await refusal(dsn)
    with pytest.raises(DatabaseError) as caught:
        await Servers(dsn, TERMS).connect()
    assert has_no_room(caught.value), "known by the server's code, also to those who only see the error"
    for connection in held:
        connection.close()


async def test_a_limit_of_connections_is_reported_by_whose_it_is(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:right@")
    with psycopg.connect(dsn):
        server.execute("ALTER ROLE shardd CONNECTION LIMIT 1")
        assert "user shardd has as many connections to PostgreSQL at" in await refusal(dsn)
        server.execute("ALTER ROLE shardd CONNECTION LIMIT -1")
        server.execute("ALTER DATABASE shardd CONNECTION LIMIT 1")
        assert "has as many connections as the CONNECTION LIMIT of the database allows" in await refusal(dsn)


async def test_a_server_that_speaks_another_transport_is_reported(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:right@").replace("sslmode=disable", "sslmode=require")
    assert "and sslmode of the DSN do not agree about TLS" in await refusal(dsn)


async def test_a_server_that_is_on_its_way_up_or_down_is_reported(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:right@")
    with psycopg.connect(server.dsn("postgres", "postgres")) as kept:
        kept.execute("SELECT 1")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)  # smart: it waits for this session, and lets nobody in
        while (text := await refusal_or_none(dsn)) is None:
            pass
    assert "is starting or stopping: try again in a moment" in text


async def refusal_or_none(dsn: str) -> str | None:
    try:
        async with await Servers(dsn, TERMS).connect():
            return None
    except DatabaseError as error:
        return str(error)


async def test_a_lost_connection_and_a_full_disk_are_reported(server: Server) -> None:
    dsn = server.dsn().replace("shardd@", "shardd:right@")
    async with Database(dsn, max_size=1) as database:

        async def run(statement: str) -> None:
            async with database.connection() as connection:
                await connection.execute(statement)

        with pytest.raises(DatabaseError, match="was lost"):
            await run("SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(DatabaseError, match="has no space left on its disk"):
            await run("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$")
