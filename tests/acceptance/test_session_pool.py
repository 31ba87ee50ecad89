"""More WhatsApp devices than PostgreSQL has connections for: all send, with a PgBouncer of the daemon's and without one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from shardd.embedded import embedded_dsn
from shardd.embedded.home import Home
from shardd.pgbouncer.folder import prepare_folder
from shardd.queue.migrate import migrate
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.whatsapp_fleet import QUICK, Fleet, Phone
from tests.support.daemon import Daemon, wait_gone
from tests.support.servers import Server
from tests.whatsapp_server.launch import ServerProcess

DEVICES = 60
FEW = 14
"""Devices of tests that take longer; still more than can connect directly."""
ROOM = 40
"""`max_connections` of the server, of which a daemon alone may take half."""
POOLED = {
    "transports": {
        "whatsapp": {**QUICK["transports"]["whatsapp"], "pooler": os.environ.get("SHARDD_PGBOUNCER", "auto")}
    }
}


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
    daemon = small_fleet.daemon(**POOLED)
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


def send(fleet: Fleet, phones: list[Phone], body: str) -> int:
    """A job of each device to a new recipient; returns how many."""
    for phone in phones:
        fleet.send(phone, f"{phone.id} {body}")
    return len(phones)


def poolers_of(daemon: Daemon) -> list[int]:
    """Process ids of the PgBouncers of a state folder."""
    ini = os.fsencode(prepare_folder(daemon.home).ini)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if ini in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


async def test_it_survives_reloads_and_deaths(small_fleet: Fleet) -> None:
    phones = small_fleet.add(FEW)
    daemon = small_fleet.daemon(**POOLED)
    await daemon.start()
    jobs = send(small_fleet, phones, "at first")
    await small_fleet.finished(jobs)
    (first,) = poolers_of(daemon)

    daemon.write_config(log={"level": "debug"})
    daemon.kill(signal.SIGHUP)
    await daemon.wait_said("reloaded")
    assert poolers_of(daemon) == [first]

    os.kill(first, signal.SIGKILL)
    await wait_gone(first)
    jobs += send(small_fleet, phones, "with another PgBouncer")
    await small_fleet.finished(jobs)
    (second,) = poolers_of(daemon)
    assert second != first

    jobs += send(small_fleet, phones, "while the supervisor dies")
    await daemon.until(lambda s: s["totals"]["sent"] >= 2 * FEW + 5)
    daemon.kill(signal.SIGKILL)
    await daemon.wait_end()
    await daemon.start()
    await small_fleet.finished(jobs)
    (third,) = poolers_of(daemon)
    assert third != second
    assert await daemon.stop() == 0
    assert poolers_of(daemon) == []
    states = small_fleet.check_deliveries()
    assert states["sent"] + states["in_doubt"] == jobs
    assert small_fleet.rows("SELECT id FROM shardd.devices WHERE state <> 'ready'") == []


async def test_it_follows_the_primary(
    small_fleet: Fleet, small_server: Server, server_home: Home, whatsapp: ServerProcess
) -> None:
    """And no session is written to the former primary, which comes back as if nothing had happened."""
    phones = small_fleet.add(FEW)
    standby = small_server.make_standby(server_home.folder / "data-2")
    try:
        hosts = f"127.0.0.1:{small_server.port},127.0.0.1:{standby.port}"
        daemon = small_fleet.daemon(database={"dsn": f"postgresql://shardd@{hosts}/shardd?sslmode=disable"}, **POOLED)
        small_fleet.reconnect()
        await daemon.start()
        jobs = send(small_fleet, phones, "to the primary")
        await small_fleet.finished(jobs)
        (pooler,) = poolers_of(daemon)
        await asyncio.to_thread(standby.wait_caught_up, small_server)

        await asyncio.to_thread(small_server.stop, signal.SIGQUIT)
        await asyncio.to_thread(standby.promote)
        small_fleet.dsn = standby.dsn()
        small_fleet.reconnect()
        jobs += send(small_fleet, phones, "to its successor")
        assert await small_fleet.finished(jobs) == {"sent": jobs}

        await asyncio.to_thread(small_server.start)
        before = identities(small_server)
        jobs += send(small_fleet, phones, "beside the former primary")
        assert await small_fleet.finished(jobs) == {"sent": jobs}
        assert poolers_of(daemon) == [pooler]
        assert identities(small_server) == before
        assert identities(standby) >= before + 2 * FEW
        assert await daemon.stop() == 0
        assert small_fleet.check_deliveries() == {"sent": jobs}
    finally:
        standby.stop()


async def test_the_embedded_database_gets_one_as_soon_as_it_is_needed(
    whatsapp: ServerProcess, state_dir: Path, tmp_path: Path
) -> None:
    daemon = Daemon(state_dir, None, **QUICK)
    daemon.environ = whatsapp.client_environment({})
    await daemon.start()
    dsn = embedded_dsn(state_dir)
    await prepare_store(sessions_dsn(dsn))
    fleet = Fleet(whatsapp, dsn, lambda: tmp_path)
    fleet.daemons.append(daemon)
    try:
        assert (await daemon.status())["sessions"] is None
        with psycopg.connect(embedded_dsn(state_dir, "postgres"), autocommit=True) as superuser:
            superuser.execute(f"ALTER ROLE shardd CONNECTION LIMIT {ROOM}")
        phones = fleet.add(FEW)
        await daemon.until(lambda s: (s["sessions"] or "").startswith("through a PgBouncer"))
        jobs = send(fleet, phones, "with the embedded database")
        assert await fleet.finished(jobs) == {"sent": jobs}
        assert await daemon.stop() == 0
        assert poolers_of(daemon) == []
    finally:
        await fleet.close()


def identities(server: Server) -> int:
    """Recipients whose keys the sessions have."""
    ((count,),) = server.execute("SELECT count(*) FROM shardd_sessions.whatsmeow_identity_keys", database="shardd")
    return int(count)
