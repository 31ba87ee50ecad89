"""More WhatsApp devices than PostgreSQL has connections for: all send, with a PgBouncer of the daemon's and without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from shardd.embedded.home import Home
from shardd.queue.migrate import migrate
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.servers import Server
from tests.whatsapp_server.launch import ServerProcess

DEVICES = 60
ROOM = 40
"""`max_connections` of the server, of which a daemon alone may take half."""

MakeFleet = Callable[..., Any]


@pytest.fixture
def small_server(server_home: Home) -> Iterator[Server]:
    """A PostgreSQL with few connections."""
    server = Server(server_home, server_home.folder / "data-1", settings={"max_connections": str(ROOM)})
    server.make()
    server.start()
    server.execute("CREATE ROLE shardd LOGIN CREATEROLE")
    server.execute("CREATE DATABASE shardd OWNER shardd")
    yield server
    server.stop()


@pytest.fixture
async def small_fleet(
    small_server: Server, whatsapp: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    await migrate(small_server.dsn())
    await prepare_store(sessions_dsn(small_server.dsn()))
    fleet = Fleet(whatsapp, small_server.dsn(), lambda: tmp_path_factory.mktemp("node"))
    yield fleet
    await fleet.close()


async def test_sixty_devices_send_through_a_pgbouncer_of_the_daemons(small_fleet: Fleet, small_server: Server) -> None:
    phones = small_fleet.add(DEVICES)
    daemon = small_fleet.daemon()
    await daemon.start()
    status = await daemon.status()
    assert status["sessions"].startswith("through a PgBouncer")
    assert "60 WhatsApp devices may need 120 connections to PostgreSQL, which has " in status["sessions"]
    jobs = small_fleet.send_many(phones, 2)
    assert await small_fleet.finished(jobs) == {"sent": jobs}
    status = await daemon.status()
    assert status["totals"]["open_clients"] == DEVICES
    assert (status["healthy"], status["notes"]) == (True, [])
    assert status["totals"]["failed"] == 0
    assert await daemon.stop() == 0
    assert small_fleet.check_deliveries() == {"sent": jobs}
    assert "too many clients" not in daemon.log_file.read_text()


async def test_without_a_pgbouncer_devices_wait_and_none_fails(small_fleet: Fleet, small_server: Server) -> None:
    phones = small_fleet.add(DEVICES)
    daemon = small_fleet.daemon(transports={"whatsapp": {"pooler": "/nowhere/pgbouncer"}})
    await daemon.start()
    status = await daemon.status()
    (note,) = [note for note in status["notes"] if note.startswith("sessions: ")]
    assert "client per worker is open at once" in note or "clients per worker are open at once" in note
    assert "apt-get install pgbouncer" in note
    jobs = small_fleet.send_many(phones, 1)
    assert await small_fleet.finished(jobs) == {"sent": jobs}
    assert {small_fleet.device(phone)["state"] for phone in phones} == {"ready"}
    status = await daemon.status()
    assert status["totals"]["open_clients"] < DEVICES / 2
    assert (status["problems"], status["totals"]["failed"]) == ([], 0)
    assert await daemon.stop() == 0
    assert small_fleet.check_deliveries() == {"sent": jobs}
