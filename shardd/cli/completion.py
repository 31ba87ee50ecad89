"""What a shell proposes when somebody presses Tab: `_SHARDD_COMPLETE=bash_source shardd` prints the script for bash, and so on.

Words of options and commands click knows itself; here are the names that only the database knows. It is asked for at most a
moment, and nothing is ever printed: without an answer, nothing is proposed.
"""

from __future__ import annotations

import signal
from typing import Any, Final, NoReturn

import click

from shardd.config import Config

PATIENCE: Final = 1.0
"""Seconds."""
PROPOSED: Final = 200
"""Devices; with more, a shell's list is of no use."""


def complete_devices(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of devices that begin with what was typed."""
    return [row[0] for row in _ask(context, "device_ids", {"start": incomplete, "most": PROPOSED})]


def complete_nodes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of nodes that begin with what was typed."""
    names = {row[0] for row in _ask(context, "node_names", {})}
    return sorted(name for name in names if name.startswith(incomplete))


def _ask(context: click.Context, query: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows that a statement finds in a moment."""
    config = context.params.get("config")
    if not isinstance(config, Config):
        return []
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return _find(config, query, params)
    except Exception:  # noqa: BLE001  # whatever it is, a line that somebody is typing is not the place to report it
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _find(config: Config, query: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    # Loaded only when there is something to complete.
    import psycopg  # noqa: PLC0415

    from shardd.embedded import embedded_dsn, is_up  # noqa: PLC0415
    from shardd.queue.columns import QUERIES  # noqa: PLC0415

    if config.database is None and not is_up(config.state_dir):
        return []
    dsn = embedded_dsn(config.state_dir) if config.database is None else config.database.dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(QUERIES[query], params).fetchall()


def _give_up(*_: Any) -> NoReturn:
    raise TimeoutError
