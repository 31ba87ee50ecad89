"""The shipped pgbouncer.ini in a real PgBouncer: few server connections, however many clients."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardd.embedded.home import Home, prepare_home
from shardd.transports.whatsapp.sessions.dsn import SCHEMA
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.integration.whatsapp.conftest import StartHost
from tests.support.facts import fact
from tests.support.servers import PATIENCE, PGBOUNCER, Server, free_port, wait_for_port
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "pgbouncer.ini"
assert PGBOUNCER is not None, "needs pgbouncer: apt-get install pgbouncer, or ./scripts/test as root"


@pytest.fixture
def home(state_dir: Path) -> Home:
    return prepare_home(state_dir, spare=state_dir / "spare")


@pytest.fixture
def direct(home: Home) -> Iterator[str]:
    """A PostgreSQL on a port of the loopback interface, which believes every name."""
    server = Server(home, home.data)
    server.make()
    server.start()
    server.execute("CREATE ROLE shardd LOGIN SUPERUSER")
    yield server.dsn("postgres")
    server.stop(signal.SIGQUIT)


@pytest.fixture
def pooled(direct: str, home: Home) -> Iterator[str]:
    """The same through PgBouncer with the shipped config; only names and places are put in."""
    port = free_port()
    text = SHIPPED.read_text()
    for pattern, value in (
        (r"host=db\.example port=5432 dbname=shardd", direct.partition("@")[2].partition("?")[0]),
        (r"listen_port = \d+", f"listen_port = {port}\nunix_socket_dir ="),
        (r"auth_type = \S+", "auth_type = any"),
        (r"auth_file = \S+", ""),
    ):
        replaced = re.sub(r"(.*):(\d+)/(\w+)", r"host=\1 port=\2 dbname=\3 user=shardd", value)
        text, count = re.subn(pattern, replaced, text)
        assert count == 1, pattern
    ini = home.folder / "pgbouncer.ini"
    home.account.write(ini, text)
    process = home.account.spawn(
        [PGBOUNCER, str(ini)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for_port(port, process)
    yield f"postgresql://shardd@127.0.0.1:{port}/shardd_sessions?sslmode=disable"
    process.terminate()
    process.communicate(timeout=PATIENCE)


@fact("With binary_parameters the store works through a pooler of transactions", "sessions/dsn.py")
async def test_many_clients_share_few_connections(
    pooled: str, direct: str, start_host: StartHost, whatsapp: ServerProcess, fresh_number: str
) -> None:
    await prepare_store(pooled, pgbouncer=True)
    numbers = [str(int(fresh_number) + 2_000_000 + n) for n in range(40)]
    jids = seed_postgres(direct, numbers, schema=SCHEMA)
    host = await start_host(sessions_dsn=pooled, pgbouncer=True)
    devices = [{"id": jid, "session": jid, "proxy": whatsapp.proxy_url()} for jid in jids]
    told = await asyncio.gather(*(host.send(device, f"+62812345{n:05}") for n, device in enumerate(devices)))
    assert all("message_id" in answer for answer in told), told
    assert (await host.ask("counts"))["open"] == 40
    with psycopg.connect(direct) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shardd' AND pid <> pg_backend_pid()"
        (servers,) = connection.execute(query).fetchone() or (0,)
    assert 0 < servers <= 20
