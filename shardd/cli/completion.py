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
    config = context.params.get("config")
    if not isinstance(config, Config):
        return []
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return _find_devices(config, incomplete)
    except Exception:  # noqa: BLE001  # whatever it is, a line that somebody is typing is not the place to report it
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _find_devices(config: Config, start: str) -> list[str]:
    # Loaded only when there is something to complete.
    import psycopg  # noqa: PLC0415

    from shardd.embedded import embedded_dsn, is_up  # noqa: PLC0415
    from shardd.queue.columns import QUERIES  # noqa: PLC0415

    if config.database is None and not is_up(config.state_dir):
        return []
    dsn = embedded_dsn(config.state_dir) if config.database is None else config.database.dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(QUERIES["device_ids"], {"start": start, "most": PROPOSED}).fetchall()
    return [str(row[0]) for row in rows]


def _give_up(*_: Any) -> NoReturn:
    raise TimeoutError
