"""Two releases at once: hosts are upgraded one after the other, and back, while jobs are inserted and sent."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from shardd import __version__
from shardd.tasks import wait_for_event
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.next_release import GROW, NextRelease

DEVICES = 8
LEASE = {"ttl": "15s", "renew_every": "500ms", "margin": "2s"}
EVERY = 0.2
"""Seconds between the jobs of the producer: for every device one."""

EXPANDS = f"""-- A column in every table, also in those that older nodes read and write.
-- oldest release: {__version__}{GROW}"""
DEFINES = "CREATE OR REPLACE FUNCTION shardd.mood() RETURNS text LANGUAGE sql RETURN 'of {}';\n"

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def later(tmp_path: Path) -> NextRelease:
    """A release that adds to everything that two of them share."""
    release = NextRelease(tmp_path / "later", "0.3.0")
    release.migrate("moods", EXPANDS)
    release.append("queue/migrations/definitions.sql", DEFINES.format(release.version))
    release.replace("queue/columns.py", '        "quote",\n', '        "quote",\n        "mood",\n')
    release.replace(
        "supervisor/status.py", "    problems: int = 0\n", '    problems: int = 0\n    mood: str = "fine"\n'
    )
    return release


class Inserting:
    """A program that inserts jobs all the time."""

    def __init__(self, dsn: str) -> None:
        self.jobs = 0
        self._dsn = dsn

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            stop = asyncio.Event()
            tasks.create_task(self._insert(stop))
            yield
            stop.set()

    async def _insert(self, stop: asyncio.Event) -> None:
        statement = (
            "INSERT INTO shardd.jobs (device_id, recipient, body) "
            "SELECT 'd' || g, '+49151' || 1000000 + g, 'x' FROM generate_series(1, %s) g"
        )
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            while not await wait_for_event(stop, EVERY):
                await connection.execute(statement, [DEVICES])
                self.jobs += DEVICES


def deliveries(*daemons: Daemon) -> Counter[int]:
    return Counter(message["job"] for daemon in daemons for message in daemon.messages())


async def until_all_send(*daemons: Daemon) -> None:
    """Wait until each has sent what it had not at the begin."""
    before = [len(daemon.messages()) for daemon in daemons]
    for daemon, sent in zip(daemons, before, strict=True):
        await daemon.until(lambda _, daemon=daemon, sent=sent: len(daemon.messages()) > sent + DEVICES)  # type: ignore[misc]


async def until_healthy(*daemons: Daemon) -> None:
    """Wait until each says so, of itself and of the others."""
    for daemon in daemons:
        await daemon.until(
            lambda status: not status["problems"] and all(one["problems"] == 0 for one in status["nodes"])
        )


CAUSED = re.compile(r"cached plan|does not exist|deadlock|denied|lacks tables|unexpected keyword")
"""What a node says when a migration breaks something under it."""


def complaints(daemon: Daemon) -> list[str]:
    """Errors that it has logged, and warnings about the schema; a slow machine causes others."""
    lines = daemon.log_file.read_text().splitlines()
    return [line for line in lines if json.loads(line)["level"] in ("error", "critical") or CAUSED.search(line)]


async def restart(daemon: Daemon, release: NextRelease | None) -> None:
    """As the guide says; None: as the release of this tree."""
    assert await daemon.stop() == 0, daemon.log_tail()
    daemon.environ = {} if release is None else release.environ
    await daemon.start()


async def test_hosts_are_upgraded_one_by_one_and_one_goes_back(
    make_daemon: MakeDaemon, dsn: str, producer: Producer, later: NextRelease
) -> None:
    nodes = [make_daemon(node=name, lease=LEASE, shards=2, supervisor={"spares": 0}) for name in ("one", "two")]
    one, two = nodes
    for place, node in enumerate(nodes):
        node.take_place(place)
    await asyncio.gather(*(node.start() for node in nodes))
    producer.add_devices(DEVICES)
    inserting = Inserting(dsn)
    async with inserting.running():
        await until_all_send(one, two)
        await restart(one, later)
        await until_all_send(one, two)
        await until_healthy(one, two)
        listed = await Command(two.config_file)("cluster", "list", "--json")
        assert [(node["version"], node["state"]) for node in listed.json["nodes"]] == [
            (later.version, "serving"),
            (__version__, "serving"),
        ]
        await restart(two, later)
        await until_all_send(one, two)
        # And back: the schema and the functions stay those of the later one.
        await restart(one, None)
        await until_all_send(one, two)
        await until_healthy(one, two)
        assert [node["version"] for node in (await two.status())["nodes"]] == [__version__, later.version]
    assert await producer.until_finished(one, inserting.jobs) == {"sent": inserting.jobs}
    sent = deliveries(one, two)
    assert (len(sent), set(sent.values())) == (inserting.jobs, {1})
    assert producer.execute("SELECT shardd.mood()") == [(f"of {later.version}",)]
    for node in nodes:
        assert complaints(node) == []


async def test_what_an_older_node_cannot_run_on_is_refused_while_it_lives_and_ends_it_when_it_comes_back(
    make_daemon: MakeDaemon, producer: Producer, tmp_path: Path
) -> None:
    later = NextRelease(tmp_path / "later", "0.3.0")
    file = later.migrate("contracts", "ALTER TABLE shardd.jobs ADD COLUMN mood text;")
    node = make_daemon(node="one", lease=LEASE, supervisor={"spares": 0})
    await node.start()
    command = Command(node.config_file)
    command.environ |= later.environ
    refused = await command("db", "migrate")
    assert refused.code == 69
    assert f"nothing was changed: {file} needs shardd 0.3.0 or newer on every node" in refused.err
    assert f"(shardd {__version__}). To go on, stop them first" in refused.err

    # It is cut off for so long that it counts as dead.
    node.kill(signal.SIGSTOP)
    producer.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour'")
    migrated = await command("db", "migrate")
    assert (migrated.code, migrated.out.splitlines()[0]) == (0, f"applied {file}")
    node.kill(signal.SIGCONT)
    assert await node.wait_end() == 69
    ended = node.log_file.read_text()
    await node.start(wait=False)
    assert await node.wait_end() == 69
    needs = f"{file}, applied at .* needs shardd 0.3.0 or newer, and this is {__version__}. Upgrade shardd to 0.3.0, or"
    for log in (ended, node.log_file.read_text().removeprefix(ended)):
        assert re.search(needs, log), log
