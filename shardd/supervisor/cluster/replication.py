"""The server's standbys: what a fail-over to one of them can undo, and commits that wait for one. Words, without I/O."""

from __future__ import annotations

from typing import Final

from shardd.queue.server_limits import Replication, Standby
from shardd.supervisor.status import NO_STANDBY

HANGS: Final = 2.0
"""Seconds for which a commit may wait for a standby."""
SYNCHRONOUS: Final = ("sync", "quorum")
"""Modes of standbys for which commits wait."""
LOCAL: Final = ("off", "local")
"""Values of synchronous_commit with which they do not."""


def is_asynchronous(replication: Replication) -> bool:
    """Whether a fail-over can undo commits."""
    modes = [standby.mode for standby in replication.standbys]
    known = bool(modes) and None not in modes
    return known and (replication.commit in LOCAL or not any(mode in SYNCHRONOUS for mode in modes))


def describe_replication(replication: Replication) -> str:
    """In a few words."""
    standbys = replication.standbys
    if not standbys:
        return NO_STANDBY
    if any(standby.mode is None for standby in standbys):
        return "unknown: a superuser lets shardd see it with GRANT pg_monitor TO its user"
    if is_asynchronous(replication):
        return f"asynchronous: {', '.join(map(_lag, standbys))}"
    return f"synchronous: {', '.join(standby.name for standby in standbys if standby.mode in SYNCHRONOUS)}"


def describe_loss(replication: Replication) -> str | None:
    """A note on what a fail-over can undo; None: nothing, or that is unknown."""
    if not is_asynchronous(replication):
        return None
    return (
        f"replication is {describe_replication(replication)}; a fail-over would undo what is not there yet: jobs, replies and "
        "opt-outs. Messages are not repeated (shardd guide several-hosts)"
    )


def describe_hang(replication: Replication) -> str | None:
    """The problem that commits wait for a standby; None: there is none."""
    if replication.waits is None or replication.waits < HANGS:
        return None
    connected = ", ".join(standby.name for standby in replication.standbys) or "none"
    return (
        f"commits have waited for a synchronous standby for {replication.waits:.0f} s: synchronous_standby_names is "
        f"{replication.names!r}, and connected is {connected}. Start the standby, or change that setting"
    )


def _lag(standby: Standby) -> str:
    return f"{standby.name} is {standby.lag:.1f} s behind"
