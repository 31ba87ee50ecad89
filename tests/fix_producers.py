"""Fixtures: two tenants with devices, a group and a campaign each, and logins that are bound to what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardd.queue.database import Database
from shardd.queue.producer_admin import Bindings, ProducerAdmin
from tests.fix_postgres import Cluster
from tests.queue_rows import add_campaigns, add_devices, add_group

Connection = psycopg.Connection[Any]

PRODUCERS = "shardd_producer"


class Tenants:
    """A database with devices a1, a2 and b1, b2, groups ga and gb, campaigns ca and cb; roles are made and bound on demand."""

    def __init__(self, cluster: Cluster, dbname: str, make_role: Callable[..., str]) -> None:
        self.cluster = cluster
        self.dbname = dbname
        self.dsn = cluster.dsn(dbname)
        self._make_role = make_role
        add_devices(self.dsn, "a1", "a2", "b1", "b2")
        add_group(self.dsn, "ga", "a1", "a2")
        add_group(self.dsn, "gb", "b1", "b2")
        add_campaigns(self.dsn, "ca", "cb")

    def role(self, name: str, *groups: str, login: bool = True, producer: bool = True) -> str:
        """A new role of the server that may insert."""
        return self._make_role(name, *([PRODUCERS] if producer else []), *groups, login=login)

    def bind(
        self,
        name: str,
        *devices: str,
        groups: tuple[str, ...] = (),
        campaigns: tuple[str, ...] = (),
        is_group: bool = False,
    ) -> None:
        """As `shardd producer add` does."""

        async def work() -> None:
            async with Database(self.dsn, application_name="shardd/test") as database:
                bound = await ProducerAdmin(database).bind(
                    name, Bindings(devices, groups, campaigns), is_group=is_group
                )
                assert bound.unknown == []

        with ThreadPoolExecutor(1) as thread:  # the test may have a loop of its own
            thread.submit(asyncio.run, work()).result()

    def free(self, name: str) -> None:
        """As `shardd producer remove` does."""
        with psycopg.connect(self.dsn, autocommit=True) as owner:
            owner.execute("DELETE FROM shardd.producers WHERE role = %s", [name])

    @contextmanager
    def session(self, name: str) -> Iterator[Connection]:
        """A login of this name."""
        with psycopg.connect(self.cluster.dsn(self.dbname, name), autocommit=True) as connection:
            yield connection


def insert(connection: Connection, **fields: Any) -> int | None:
    """The new job's id; None when the INSERT did nothing."""
    values = {"recipient": "+6281234567890", "body": "hello", **fields}
    statement = sql.SQL("INSERT INTO shardd.jobs ({}) VALUES ({}) RETURNING id").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
    )
    row = connection.execute(statement, list(values.values())).fetchone()
    return None if row is None else row[0]


def seen(connection: Connection, what: str = "shardd.outcomes") -> set[Any]:
    """The ids that a session sees in a view or a table."""
    return {row[0] for row in connection.execute(sql.SQL("SELECT id FROM {}").format(sql.SQL(what)))}  # type: ignore[arg-type]  # names of the tests


@pytest.fixture
def tenants(postgres: Cluster, make_role: Callable[..., str], dbname: str) -> Tenants:
    return Tenants(postgres, dbname, make_role)


@pytest.fixture
def alpha(tenants: Tenants) -> str:
    """A login that is bound to device a1, group ga and campaign ca."""
    tenants.bind(tenants.role("alpha"), "a1", groups=("ga",), campaigns=("ca",))
    return "alpha"


@pytest.fixture
def beta(tenants: Tenants) -> str:
    """A login that is bound to device b1 and campaign cb."""
    tenants.bind(tenants.role("beta"), "b1", campaigns=("cb",))
    return "beta"


@pytest.fixture
def free(tenants: Tenants) -> str:
    """A login that is not bound."""
    return tenants.role("free")
