"""Fixtures: `shardd device …` beside a daemon whose WhatsApp is the test server, over a store of this test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.command import PATIENCE, PROGRAM, Command
from tests.daemon import Daemon, Producer
from tests.whatsapp_server.control_client import AsyncControlClient
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres


class Pairing:
    """`shardd device pair --json`, while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def code(self) -> str:
        """The first code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        event = json.loads(line or "null")
        assert event is not None, (await self.end())[2]
        assert event["event"] in {"qr", "code"}, event
        return str(event["code"])

    async def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, the events that were still told, and stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@dataclass(frozen=True)
class Place:
    """A node, its command line, its database and its WhatsApp."""

    daemon: Daemon
    shardd: Command
    producer: Producer
    server: ServerProcess
    pairings: list[Pairing]

    @property
    def control(self) -> AsyncControlClient:
        """The phones and their owners."""
        return self.server.async_control

    @property
    def store(self) -> str:
        """The DSN of the session store, which need not be prepared."""
        assert self.daemon.dsn is not None
        return sessions_dsn(self.daemon.dsn)

    async def pair(self, *arguments: str) -> Pairing:
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "device", "pair", *arguments, "--json"),
            env=self.shardd.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.pairings.append(Pairing(process))
        return self.pairings[-1]

    def add(self, device_id: str, **columns: Any) -> None:
        """A device row, unpaired unless told otherwise."""
        columns = {"transport": "whatsapp", "state": "unpaired", **columns}
        names, values = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self.producer.execute(
            f"INSERT INTO shardd.devices (id, {names}) VALUES (%s, {values})", device_id, *columns.values()
        )

    async def add_paired(self, device_id: str, number: str, *, index: int = 1, **columns: Any) -> str:
        """A device with a session that is in the store; gives the session. `index`: see seed_postgres."""
        await prepare_store(self.store)
        (session,) = seed_postgres(self.store, [number], index=index)
        self.add(device_id, **{"state": "ready", "session": session, **columns})
        return session

    def send(self, device_id: str, body: str, to: str = "+6281234567890") -> None:
        self.producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s)", device_id, to, body
        )

    def row(self, device_id: str) -> tuple[str | None, str, str | None]:
        """Session, state and reason."""
        rows = self.producer.execute("SELECT session, state, reason FROM shardd.devices WHERE id = %s", device_id)
        session, state, reason = rows[0]
        return session, state, reason

    def sessions(self) -> list[str]:
        """What is in the store."""
        rows = self.producer.execute("SELECT jid FROM shardd_sessions.whatsmeow_device ORDER BY jid")
        return [row[0] for row in rows]


@pytest.fixture
async def place(
    make_daemon: Callable[..., Daemon], producer: Producer, whatsapp: ServerProcess
) -> AsyncIterator[Place]:
    """The daemon is not started."""
    daemon = make_daemon(transports={"whatsapp": {"proxy": whatsapp.proxy_url(), "default_region": "ID"}})
    daemon.environ = whatsapp.client_environment()
    daemon.write_config()
    shardd = Command(daemon.config_file)
    shardd.environ |= daemon.environ | {"SHARDD_CONFIG": str(daemon.config_file)}
    place = Place(daemon, shardd, producer, whatsapp, [])
    yield place
    for pairing in place.pairings:
        if pairing.process.returncode is None:
            pairing.process.kill()
            await pairing.process.wait()
