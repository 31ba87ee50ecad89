"""Real daemons whose WhatsApp devices talk to the test server: everything of the product, and nothing of WhatsApp.

Devices are paired by writing their sessions into the store. A condition on rows, or on what the server holds, is looked at again
ten times a second, because both come from other processes; all else is awaited.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from shardd.embedded import EmbeddedPostgres
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.daemon import Daemon
from tests.fix_postgres import FAST, TEMPLATE, Cluster, make_state_dir, remove_state_dir, run
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.record import Event, Message
from tests.whatsapp_server.seed import seed_postgres

T = TypeVar("T")

PATIENCE = 100.0
"""Seconds after which a test calls something hung."""
LOOK_AGAIN = 0.1
_FIRST_NUMBER = 628130000000
_FIRST_RECIPIENT = 628150000000
_numbers = itertools.count(_FIRST_NUMBER)
_recipients = itertools.count(_FIRST_RECIPIENT)

QUICK = {
    "supervisor": {"heartbeat_every": "200ms", "drain_timeout": "20s"},
    "queue": {"backoff": {"first": "100ms", "cap": "1s"}},
    "transports": {"whatsapp": {"connect_timeout": "10s", "answer_timeout": "8s", "probe_timeout": "2s"}},
}


@dataclass(frozen=True)
class Phone:
    """A device of ours. `number`: its account; `name`: how the server calls it."""

    id: str
    number: str

    @property
    def name(self) -> str:
        return f"{self.number}:1"


class Fleet:
    """One database with paired devices, one WhatsApp server, any number of daemons."""

    def __init__(self, server: ServerProcess, dsn: str, make_folder: Callable[[], Path]) -> None:
        self.server = server
        self.control = server.async_control
        self.dsn = dsn
        self.daemons: list[Daemon] = []
        self._make_folder = make_folder
        self._connection: psycopg.Connection[DictRow] = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)

    # ---- making

    def daemon(self, **config: Any) -> Daemon:
        """A daemon whose workers trust the test server; not started."""
        daemon = Daemon(self._make_folder(), self.dsn, **{**QUICK, **config})
        daemon.environ = self.server.client_environment({})
        self.daemons.append(daemon)
        return daemon

    def add(self, count: int) -> list[Phone]:
        """Paired devices, which reach WhatsApp through the test server."""
        phones = [Phone(f"wa-{number}", str(number)) for number in itertools.islice(_numbers, count)]
        sessions = seed_postgres(sessions_dsn(self.dsn), [phone.number for phone in phones])
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO shardd.devices (id, transport, session, proxy) VALUES (%s, 'whatsapp', %s, %s)",
                [
                    (phone.id, session, self.server.proxy_url(phone.name))
                    for phone, session in zip(phones, sessions, strict=True)
                ],
            )
        return phones

    def stranger(self) -> str:
        """A number that nobody has written to."""
        return str(next(_recipients))

    def send(self, phone: Phone, body: str, to: str | None = None, *, on_doubt: str = "hold") -> int:
        """Insert a job, to a stranger unless told otherwise."""
        (row,) = self.rows(
            "INSERT INTO shardd.jobs (device_id, recipient, body, on_doubt) VALUES (%s, %s, %s, %s) RETURNING id",
            *(phone.id, "+" + (to or self.stranger()), body, on_doubt),
        )
        return int(row["id"])

    def send_many(self, phones: list[Phone], each: int, *, to: str = "") -> int:
        """Insert jobs with a body of their own, `each` for each device; returns how many."""
        jobs = [(phone.id, "+" + (to or self.stranger()), f"{phone.id} {n}") for n in range(each) for phone in phones]
        with self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s)", jobs)
        return len(jobs)

    # ---- looking

    def rows(self, statement: str, *params: Any) -> list[dict[str, Any]]:
        cursor = self._connection.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

    def job(self, job: int) -> dict[str, Any]:
        """What a producer sees of a job."""
        (row,) = self.rows("SELECT * FROM shardd.outcomes WHERE id = %s", job)
        return row

    def device(self, phone: Phone) -> dict[str, Any]:
        """The row that `shardd device show` shows."""
        (row,) = self.rows("SELECT * FROM shardd.devices WHERE id = %s", phone.id)
        return row

    def states(self) -> Counter[str]:
        rows = self.rows("SELECT state, count(*) AS jobs FROM shardd.outcomes GROUP BY state")
        return Counter({row["state"]: row["jobs"] for row in rows})

    async def until(self, true: Callable[[], T], patience: float = PATIENCE) -> T:
        """The first value that counts as true."""
        deadline = time.monotonic() + patience
        while not (value := true()):
            assert time.monotonic() < deadline, f"never came true; jobs: {self.states()}\n{self._log_tails()}"
            await asyncio.sleep(LOOK_AGAIN)
        return value

    async def finished(self, jobs: int, patience: float = PATIENCE) -> Counter[str]:
        """Until so many jobs have come to an end."""

        def states() -> Counter[str] | None:
            found = self.states()
            return found if sum(found[s] for s in ("sent", "failed", "cancelled", "in_doubt")) >= jobs else None

        return await self.until(states, patience)  # type: ignore[return-value] # until returns what is true

    async def job_is(self, job: int, state: str) -> dict[str, Any]:
        """The row of a job once it is in a state."""
        await self.until(lambda: self.job(job)["state"] == state)
        return self.job(job)

    async def device_is(self, phone: Phone, state: str) -> dict[str, Any]:
        """The row of a device once it is in a state."""
        await self.until(lambda: self.device(phone)["state"] == state)
        return self.device(phone)

    def seen(self, body: str, *, accepted_only: bool = True) -> list[Message]:
        """The messages with this text that arrived at WhatsApp."""
        return self.server.control.messages(text=body, accepted_only=accepted_only)

    def logins(self, phone: Phone | None = None) -> list[Event]:
        return self.server.control.events("login", device=phone.name if phone else "")

    async def asleep(self, daemon: Daemon) -> None:
        """Until no client is open: at the server, because a heartbeat may be from before the last login, and in the status."""
        await self.until(lambda: self.server.control.stats()["connections"] == 0)
        await daemon.until(lambda status: status["totals"]["open_clients"] == 0)

    def check_one_client_each(self) -> None:
        """No device was ever logged in twice at the same time."""
        online: Counter[str] = Counter()
        for event in self.server.control.events():
            if event.kind in ("login", "disconnect"):
                online[event.device] += 1 if event.kind == "login" else -1
                assert online[event.device] <= 1, f"two clients of {event.device} at {event.time}"

    def check_deliveries(self) -> Counter[str]:
        """Hold the rows against the server's record; returns the rows by state. Every body must be unique."""
        arrived: Counter[str] = Counter()
        for message in self.server.control.messages():
            assert message.error == "", message
            arrived[message.text] += 1
        assert not self.server.control.events("undecryptable")
        twice = [text for text, times in arrived.items() if times > 1]
        assert not twice, f"sent twice: {twice[:5]}"
        rows = self.rows(
            "SELECT body, 'live' AS state FROM shardd.jobs UNION ALL SELECT body, state FROM shardd.archive"
        )
        states = {row["body"]: row["state"] for row in rows}
        claimed = [body for body, state in states.items() if state == "sent" and not arrived[body]]
        assert not claimed, f"called sent, but never arrived: {claimed[:5]}"
        hidden = [text for text in arrived if states[text] not in ("sent", "in_doubt")]
        assert not hidden, f"arrived, but neither sent nor in doubt: {hidden[:5]}"
        return Counter(states.values())

    # ---- ending

    async def close(self) -> None:
        for daemon in self.daemons:
            await daemon.close()
        self._connection.close()

    def _log_tails(self) -> str:
        return "\n".join(daemon.log_tail(30) for daemon in self.daemons)


def tasks_of(pid: int) -> int:
    """Threads of a process (proc(5))."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


@pytest.fixture(scope="session")
def fleet_cluster() -> Iterator[tuple[Cluster, str]]:
    """A PostgreSQL with room for the connections of hundreds of clients, and a database in it with an empty session store."""
    folder = make_state_dir()
    cluster = Cluster(folder)
    cluster.server = EmbeddedPostgres(folder, settings={**FAST, "max_connections": "700"}, spare=folder / "spare")
    try:
        run(cluster.start())
        cluster.make_template()
        prepared = cluster.create_database(TEMPLATE)
        run(prepare_store(sessions_dsn(cluster.dsn(prepared))))
        yield cluster, prepared
    finally:
        run(cluster.stop())
        remove_state_dir(folder)


@pytest.fixture
async def fleet(
    whatsapp: ServerProcess, fleet_cluster: tuple[Cluster, str], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A new database and the server as new; daemons end with the test."""
    cluster, prepared = fleet_cluster
    name = cluster.create_database(prepared)
    fleet = Fleet(whatsapp, cluster.dsn(name), lambda: tmp_path_factory.mktemp("node"))
    yield fleet
    await fleet.close()
    cluster.drop_database(name)
