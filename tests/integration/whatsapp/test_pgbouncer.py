"""The shipped pgbouncer.ini, in a real PgBouncer before a PostgreSQL on TCP: few server connections, however many clients."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardd.embedded.home import Home
from shardd.transports.whatsapp.dsn import SCHEMA
from shardd.transports.whatsapp.store_setup import prepare_store
from tests.integration.whatsapp.conftest import StartHost
from tests.servers import PGBOUNCER, Server, free_port, start_process
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "pgbouncer.ini"
DEADLINE = 30.0


@pytest.fixture
def pooled(tcp_server: Server, server_home: Home) -> Iterator[str]:
    """The server through PgBouncer with the shipped config; only names and places are put in."""
    assert PGBOUNCER is not None, "needs pgbouncer: apt-get install pgbouncer, or ./scripts/test as root"
    port = free_port()
    text = SHIPPED.read_text()
    for pattern, value in (
        (
            r"host=db\.example port=5432 dbname=shardd",
            f"host=127.0.0.1 port={tcp_server.port} dbname=shardd user=shardd",
        ),
        (r"listen_port = \d+", f"listen_port = {port}\nunix_socket_dir ="),
        (r"auth_type = \S+", "auth_type = any"),
        (r"auth_file = \S+", ""),
    ):
        text, count = re.subn(pattern, value, text)
        assert count == 1, pattern
    ini = server_home.folder / "pgbouncer.ini"
    server_home.account.write(ini, text)
    process = start_process(server_home, [PGBOUNCER, str(ini)], port)
    yield f"postgresql://shardd@127.0.0.1:{port}/shardd_sessions?sslmode=disable"
    process.terminate()
    process.wait(DEADLINE)


async def test_many_clients_share_few_connections(
    pooled: str, tcp_server: Server, start_host: StartHost, whatsapp: ServerProcess, fresh_number: str
) -> None:
    await prepare_store(pooled, pgbouncer=True)
    numbers = [str(int(fresh_number) + 2_000_000 + n) for n in range(40)]
    jids = seed_postgres(tcp_server.dsn(), numbers, schema=SCHEMA)
    host = await start_host(sessions_dsn=pooled, pgbouncer=True)
    devices = [{"id": jid, "session": jid, "proxy": whatsapp.proxy_url()} for jid in jids]
    told = await asyncio.gather(*(host.send(device, f"+62812345{n:05}") for n, device in enumerate(devices)))
    assert all("message_id" in answer for answer in told), told
    assert (await host.ask("counts"))["open"] == 40
    ((servers,),) = tcp_server.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shardd'")
    assert 0 < servers <= 20
