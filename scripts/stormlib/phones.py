"""The WhatsApp devices of a storm: paired with the test WhatsApp server, whose record says what recipients can read."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from shardd.errors import DatabaseError
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from stormlib.records import Delivery, Visit
from tests.whatsapp_server.launch import ServerProcess, ServerStartError, launch
from tests.whatsapp_server.record import Event
from tests.whatsapp_server.seed import seed_postgres

FIRST_NUMBER = 628130000000
FIRST_RECIPIENT = 628150000000
TRIES = 5
RECIPIENTS = 40
"""Few, so that most messages go to somebody who is known."""
SETTINGS: Mapping[str, Any] = {
    "visit_every": "never", "connect_timeout": "10s", "answer_timeout": "8s", "probe_timeout": "2s", "probe_after": "5s",
    "idle_close": "10s", "linger": "10s",
}  # fmt: skip


class Phones:
    """Paired devices and their server."""

    def __init__(self, server: ServerProcess, count: int) -> None:
        self.server = server
        self.numbers = [str(FIRST_NUMBER + number) for number in range(count)]
        self.devices = [f"w{number}" for number in range(count)]
        self.recipients = [f"+{FIRST_RECIPIENT + number}" for number in range(RECIPIENTS)]

    @classmethod
    async def start(cls, folder: Path, count: int) -> Self:
        """With a server of their own, for which a busy machine may take several tries."""
        for _ in range(TRIES - 1):
            with suppress(ServerStartError):
                return cls(await asyncio.to_thread(launch, folder), count)
        return cls(await asyncio.to_thread(launch, folder), count)

    async def pair(self, dsn: str) -> None:
        """Add the devices and their sessions to a database."""
        for left in reversed(range(TRIES)):
            try:
                await prepare_store(sessions_dsn(dsn))
                break
            except DatabaseError:  # like the server, the library may take long to load
                if not left:
                    raise
        sessions = await asyncio.to_thread(seed_postgres, sessions_dsn(dsn), self.numbers)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for device, session in zip(self.devices, sessions, strict=True):
                statement = "INSERT INTO shardd.devices (id, transport, session) VALUES (%s, 'whatsapp', %s)"
                await connection.execute(statement, [device, session])

    def deliveries(self, visits: Sequence[Visit]) -> list[Delivery]:
        """What recipients can read, each with the node whose client had logged in last."""
        of_number = dict(zip(self.numbers, self.devices, strict=True))
        found = []
        for message in self.server.control.messages():
            at, device = message.arrivals[0].time, of_number[message.sender]
            before = [visit for visit in visits if visit.device == device and visit.begin <= at]
            found.append(Delivery(message.text, device, at, before[-1].by if before else ""))
        return found

    def visits(self) -> list[Visit]:
        """When which node's client was logged in, as the server saw it."""
        of_name = {f"{number}:1": device for number, device in zip(self.numbers, self.devices, strict=True)}
        return pair_logins(self.server.control.events(), of_name)

    def defects(self) -> list[str]:
        """Errors of the server itself, which make its record worthless."""
        events = self.server.control.events
        return [str(event) for event in (*events("server_error"), *events("protocol_error"))]

    def stop(self) -> None:
        """End the server."""
        self.server.stop()


def pair_logins(events: Sequence[Event], of_name: Mapping[str, str]) -> list[Visit]:
    """By the time of each login. A device's connections end in the order in which they began, nearly always."""
    visits: list[Visit] = []
    still: defaultdict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.kind == "login":
            still[event.device].append(len(visits))
            visits.append(Visit(of_name[event.device], str(event.details.get("proxy_user", "")), event.time))
        elif event.kind == "disconnect" and still[event.device]:
            visits[still[event.device].pop(0)].end = event.time
    return visits
