"""How clients reach the session store while connections are short: a real server, and a PgBouncer that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shardd import ipc
from shardd.config import parse_config
from shardd.errors import DatabaseError
from shardd.pgbouncer import PgBouncerError
from shardd.supervisor.cluster import session_pool
from shardd.supervisor.cluster.client_room import Host
from shardd.supervisor.cluster.session_pool import SessionPool
from shardd.supervisor.cluster.store_plan import COMMANDS, DAEMON
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.services import Steps
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.support.daemon import wait_gone
from tests.support.servers import PGBOUNCER, Server

DEVICES = 10
ROOM = DAEMON + COMMANDS + 5
"""Connections that the login may have: five for clients, after those of the daemon and of commands."""


class Pool(SessionPool):
    """With what it published, and checked by hand."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._published: list[ipc.StoreAccess] = []
        self.devices = DEVICES
        text = f"{{state_dir: {folder}, transports: {{whatsapp: {{pooler: {PGBOUNCER or 'auto'}}}}}}}"
        super().__init__(
            CurrentConfig(parse_config(text, "x.yaml", folder)),
            sessions_dsn(server.dsn()),
            Steps(),
            devices=lambda: self.devices,
            workers=lambda: 1,
            host=lambda: Host(memory=2**33, fds=1024, threads=None),
            publish=self._published.append,
        )

    @property
    def published(self) -> list[ipc.StoreAccess]:
        """Without the first, which has the room for clients, before anything was decided."""
        return self._published[1:]

    @property
    def pid(self) -> int:
        """Of its PgBouncer."""
        assert self._pooler is not None
        assert self._pooler.pid is not None
        return self._pooler.pid

    async def check(self) -> None:
        await self._check()

    async def kill(self) -> int:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
        return pid


@pytest.fixture
async def pool(tcp_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(session_pool, "COUNT_EVERY", 0.0)
    tcp_server.execute(f"ALTER ROLE shardd CONNECTION LIMIT {ROOM}")
    pool = Pool(tcp_server, tmp_path)
    yield pool
    await pool.close()


async def test_one_that_died_is_started_again_and_workers_notice_nothing(pool: Pool) -> None:
    await pool.check()
    (access,) = pool.published
    assert access.pooler is not None
    first = await pool.kill()
    await pool.check()
    assert pool.pid != first
    assert pool.published == [access]
    assert list(pool.problems()) == []


async def test_one_that_dies_again_and_again_is_a_problem_and_not_in_use(pool: Pool) -> None:
    await pool.check()
    await pool.kill()
    await pool.check()
    await pool.kill()
    await pool.check()
    pooled, direct = pool.published
    assert pooled.pooler is not None
    assert (direct.pooler, direct.clients) == (None, 2)
    (problem,) = pool.problems()
    assert "ends again and again" in problem.text
    assert pool.notes() == [f"sessions: {pool.text}"]


async def test_a_failure_is_forgotten_when_no_pgbouncer_is_needed_any_more(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str | None) -> None:
        raise PgBouncerError("it is broken")

    monkeypatch.setattr(session_pool, "RETRY_FIRST", 3600.0)
    monkeypatch.setattr(session_pool, "RETRY_CAP", 3600.0)
    with monkeypatch.context() as broken:
        broken.setattr(session_pool, "find_program", fail)
        await pool.check()
    assert pool.text is not None
    assert pool.text.endswith("other devices wait; it is broken")
    pool.devices = 1
    await pool.check()
    assert pool.published[-1] == ipc.StoreAccess(clients=170, limit="the limit of file descriptors (LimitNOFILE)")
    pool.devices = DEVICES
    await pool.check()
    assert pool.text.startswith("through a PgBouncer")


async def test_a_database_that_was_away_for_a_moment_delays_nothing(
    pool: Pool, tcp_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_pool, "COUNT_EVERY", 3600.0)
    tcp_server.stop()
    with pytest.raises(DatabaseError):
        await pool.check()
    tcp_server.start()
    await pool.check()
    assert [access.pooler is not None for access in pool.published] == [True]
