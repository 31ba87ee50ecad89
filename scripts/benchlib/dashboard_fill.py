"""Fills a database as it is after some months: devices, live and finished jobs, events, messages, opt-outs, webhooks.

`dashboard_fill.sql` has the statements. The triggers of the large tables are off meanwhile, and their indexes are built last:
otherwise a million jobs would take minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from shardd.postgres.sql_files import load_queries

QUERIES: Final = load_queries(Path(__file__).with_suffix(".sql"))
STEPS: Final = (
    "past_months", "devices", "device_days", "device_groups", "members", "campaigns", "opt_outs", "opt_out_log", "archive",
    "live", "order_groups", "dedupe_keys", "events", "messages", "webhooks", "webhook_failures", "acts", "next_job",
)  # fmt: skip
QUIET: Final = ("archive", "jobs", "devices", "device_group_members", "campaigns", "messages", "opt_outs")
"""Tables whose triggers would check, report or announce each row."""


@dataclass(frozen=True)
class Sizes:
    """How many of each."""

    devices: int
    finished: int
    live: int
    opt_outs: int = 20_000
    campaigns: int = 60
    groups: int = 20

    @property
    def jobs(self) -> int:
        """All of them."""
        return self.finished + self.live


def fill(connection: psycopg.Connection[Any], sizes: Sizes) -> None:
    """Fill a database that `migrate` has made; `connection` of its owner, with autocommit. Nothing is analysed."""
    first = _transaction(connection)
    connection.execute(QUERIES["transactions"])
    params = {**asdict(sizes), "first": first, "last": _transaction(connection)}
    _switch_triggers(connection, "DISABLE")
    indexes = connection.execute(QUERIES["indexes"]).fetchall()
    for name, _ in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*name.split("."))))
    for step in STEPS:
        connection.execute(QUERIES[step], params)
    connection.execute("SET maintenance_work_mem = '256MB'")
    for _, statement in indexes:
        connection.execute(statement)
    _switch_triggers(connection, "ENABLE")


def _transaction(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(QUERIES["transaction"]).fetchone()
    assert row is not None
    return int(row[0])


def _switch_triggers(connection: psycopg.Connection[Any], how: str) -> None:
    for table in QUIET:
        connection.execute(sql.SQL("ALTER TABLE shardd.{} {} TRIGGER USER").format(sql.Identifier(table), sql.SQL(how)))  # type: ignore[arg-type]  # one of our own words
