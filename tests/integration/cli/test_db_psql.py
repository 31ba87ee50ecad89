"""`shardd db psql` with the system's psql, or that of the wheel: on the database of the config, whatever else is named."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from shardd.embedded import EmbeddedPostgres
from tests.support.command import PATIENCE, Command
from tests.support.daemon import Producer
from tests.support.terminal import Terminal

ELSEWHERE = {
    "PGPORT": "1",
    "PGHOST": "/nowhere",
    "PGHOSTADDR": "127.0.0.9",
    "PGSERVICE": "nowhere",
    "PGDATABASE": "nothing",
    "PGUSER": "nobody",
    "PGOPTIONS": "-c search_path=nothing",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCLUSTER": "99/nowhere",
}


async def test_the_database_of_the_config_is_opened_whatever_the_user_names(shardd: Command, dsn: str) -> None:
    shardd.environ |= ELSEWHERE
    name = dsn.partition("?")[0].rpartition("/")[2]
    ran = await shardd("db", "psql", "--", "-Atc", "SELECT current_user, current_database()")
    assert (ran.code, ran.out, ran.err) == (0, f"shardd|{name}\n", "")
    assert (await shardd("db", "psql", stdin="SELECT 40 + 2 AS sum;\n")).out.split() == [
        "sum",
        "-----",
        "42",
        "(1",
        "row)",
    ]
    wrong = await shardd("db", "psql", "--", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nothing")
    assert (wrong.code, 'column "nothing" does not exist' in wrong.err) == (1, True)
    assert (await shardd("db", "psql", "--role=producer")).code == 64


async def test_an_interrupt_ends_a_statement_and_not_the_session(shardd: Command, producer: Producer) -> None:
    async with Terminal(shardd.environ, "db", "psql", "--", "-X") as terminal:
        await terminal.until("=>")
        terminal.type("SELECT pg_sleep(1000);\r")
        running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"
        async with asyncio.timeout(PATIENCE):
            while not producer.execute(running):  # noqa: ASYNC110  no event announces it
                await asyncio.sleep(0.05)
        os.killpg(terminal.process.pid, signal.SIGINT)  # what the terminal does at ^C
        await terminal.until("canceling statement due to user request")
        terminal.type("SELECT 40 + 2 AS still_here;\r")
        await terminal.until("(1 row)")
        terminal.type("\\q\r")
        assert await terminal.end() == 0


async def test_the_embedded_database_is_started_for_it_and_opened_as_another_role(
    tmp_path: Path, state_dir: Path
) -> None:
    config = tmp_path / "shards.yaml"
    config.write_text(f"state_dir: {state_dir}\n")
    shardd = Command(config)
    shardd.environ |= ELSEWHERE
    early = await shardd("db", "psql")
    assert (early.code, "there is no embedded database" in early.err) == (69, True)
    assert (await shardd("db", "migrate")).code == 0
    for role in ("shardd", "producer", "inbox", "postgres"):
        ran = await shardd("db", "psql", f"--role={role}", "--", "-Atc", "SELECT current_user")
        assert (ran.code, ran.out) == (0, f"{role}\n"), ran.err
    server = EmbeddedPostgres(state_dir)
    await server.start()  # nothing was left running
    await server.stop()
