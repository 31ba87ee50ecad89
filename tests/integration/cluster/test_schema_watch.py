"""Whether a node can go on when a newer release has migrated its database."""

from __future__ import annotations

import pytest

from shardd import __version__
from shardd.queue.database import Database
from shardd.queue.migrate import load_migrations
from shardd.supervisor.cluster.schema_watch import SchemaWatch
from tests.support.queue_rows import connect

OWN = len(load_migrations())


def apply(dsn: str, number: int, oldest: str) -> None:
    """As a newer release does."""
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.migrations (version, name, sha256, release, oldest_release) VALUES (%s, 'new', '', '9.0.0', %s)",
            [number, oldest],
        )


async def test_a_node_goes_on_after_migrations_that_name_its_release(dsn: str, database: Database) -> None:
    watch = SchemaWatch(database)
    apply(dsn, OWN + 1, __version__)
    assert await watch.why_not(OWN) is None
    assert await watch.why_not(OWN + 1) is None
    apply(dsn, OWN + 2, "9.0.0")
    assert await watch.why_not(OWN + 1) is None  # as of the last renewal
    why = await watch.why_not(OWN + 2)
    assert why is not None
    assert f"{OWN + 2:04}_new.sql, applied at" in why
    assert f"needs shardd 9.0.0 or newer, and this is {__version__}" in why


@pytest.mark.parametrize(
    ("release", "goes_on"), [("0.9.0", False), ("0.10.0", True), ("1.0.0", True), ("0.9.12", False)]
)
async def test_releases_are_compared_by_their_numbers(
    dsn: str, database: Database, release: str, goes_on: bool
) -> None:
    apply(dsn, OWN + 1, "0.10.0")
    assert (await SchemaWatch(database, release).why_not(OWN + 1) is None) is goes_on
