"""Which releases of shardd can share a database: during an upgrade of several hosts, two do.

A migration names the oldest release that can run on the schema after it; without that, it is the release that applied it. Older
releases, which do not know the file, find that in the record of migrations: at a start, and at a renewal of their leases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from shardd.errors import DatabaseError
from shardd.postgres.servers import Connection
from shardd.queue.columns import QUERIES
from shardd.queue.queries import Record, column_of, rows_of

_OLDEST: Final = "-- oldest release: "
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def order(release: str) -> tuple[int, ...]:
    """What releases are compared by; 0.3.0rc1 is 0.3.0, and what is no release is older than all."""
    match = _RELEASE.match(release)
    return (0, 0, 0) if match is None else tuple(map(int, match.groups()))


def is_older(release: str, than: str) -> bool:
    """Whether it came out before the other one."""
    return order(release) < order(than)


def oldest_release(text: str, name: str) -> str | None:
    """What the header of a migration names; None: nothing. Raises DatabaseError."""
    header = takewhile(lambda line: line.startswith("--"), text.splitlines())
    named = next((line.removeprefix(_OLDEST).strip() for line in header if line.startswith(_OLDEST)), None)
    if named is not None and not _RELEASE.fullmatch(named):
        raise DatabaseError(f"migration {name} names the oldest release {named!r}: write one such as 0.3.0")
    return named


async def last_defined(connection: Connection) -> str | None:
    """The newest release that wrote its functions and rights; None: none has. Raises psycopg.Error."""
    return max(await column_of(connection, QUERIES["defining_releases"]), key=order, default=None)


async def refuse_older_nodes(connection: Connection, needed: Sequence[tuple[str, str]], release: str) -> None:
    """Raises DatabaseError when a node runs that cannot run after a migration.

    `needed`: the files, each with the oldest release that can; `release`: the one that would apply them.
    """
    if not needed:
        return
    name, oldest = max(needed, key=lambda one: order(one[1]))
    nodes = await _live_nodes(connection)
    older = [node for node in nodes if is_older(node["version"], oldest)]
    if not older:
        return
    which = ", ".join(f"{node['name']} on host {node['host']} (shardd {node['version']})" for node in older)
    fix = f"upgrade these to {oldest} first, or stop them" if is_older(oldest, release) else "stop them first"
    raise DatabaseError(
        f"nothing was changed: {name} needs shardd {oldest} or newer on every node, and older ones run: {which}. "
        f"To go on, {fix}; one that was killed counts until its lease.ttl is over"
    )


async def _live_nodes(connection: Connection) -> Sequence[Record]:
    if not (await column_of(connection, QUERIES["has_nodes"]))[0]:
        return []
    return await rows_of(connection, Record, QUERIES["live_releases"])
