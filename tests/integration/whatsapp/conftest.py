"""The transport in a separate process, with a real PostgreSQL and the test WhatsApp server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.postgres import Cluster
from tests.integration.whatsapp.host_process import HostProcess
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres

StartHost = Callable[..., Awaitable[HostProcess]]
MakeDevice = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Iterator[str]:
    """The DSN of a prepared session store, which all tests share with unique numbers."""
    name = cluster.create_database()
    dsn = sessions_dsn(cluster.dsn(name))
    asyncio.run(prepare_store(dsn))
    yield dsn
    cluster.drop_database(name)


@pytest.fixture
def make_device(store: str, whatsapp: ServerProcess) -> MakeDevice:
    """Creates paired devices as a worker receives them. Their proxy is the test server, with the device's name as user."""

    def make(number: str) -> dict[str, Any]:
        (session,) = seed_postgres(store, [number])
        return {"id": f"dev-{number}", "session": session, "proxy": whatsapp.proxy_url(f"{number}:1")}

    return make


@pytest.fixture
def device(make_device: MakeDevice, fresh_number: str) -> dict[str, Any]:
    """One paired device."""
    return make_device(fresh_number)


@pytest.fixture
async def start_host(store: str, whatsapp: ServerProcess, tmp_path: Path) -> AsyncIterator[StartHost]:
    """Starts processes with the transport; settings may be given."""
    hosts: list[HostProcess] = []

    async def start(**settings: Any) -> HostProcess:
        settings = {"sessions_dsn": store, **settings}
        host = await HostProcess.start(settings, whatsapp.client_environment(), tmp_path / f"host-{len(hosts)}.log")
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        await host.stop()


@pytest.fixture
async def host(start_host: StartHost) -> HostProcess:
    """The transport with its usual settings."""
    return await start_host()
