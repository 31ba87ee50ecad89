"""Everything that runs in a storm, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from shardd.embedded.home import find_home, prepare_home
from stormlib.database import Databases, dsn_of
from stormlib.link import Link
from stormlib.log import Log
from stormlib.node import Node

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent / "site"


@dataclass(frozen=True)
class Size:
    """How large a storm is. `ttl`: the lease period in seconds."""

    nodes: int = 3
    shards: int = 6
    ttl: float = 6.0
    sandbox_devices: int = 24


@dataclass
class Place:
    """The running parts."""

    folder: Path
    size: Size
    log: Log
    databases: Databases
    nodes: list[Node]
    sandbox: list[str]
    """Devices."""
    kept: bool = True
    """Whether the folder remains."""

    @property
    def witness(self) -> Path:
        """The folder of what workers knew."""
        return self.folder / "witness"


@asynccontextmanager
async def prepared(size: Size, package: Path | None = None) -> AsyncIterator[Place]:
    """The place of a storm; its nodes are not started. `package`: the folder that has another shardd for the nodes."""
    folder = _make_folder()
    log = Log(folder / "storm.jsonl")
    databases = Databases(prepare_home(folder / "pg", spare=folder / "spare"))
    place = Place(folder, size, log, databases, [], [f"s{number}" for number in range(size.sandbox_devices)])
    links: list[Link] = []
    try:
        await databases.start()
        async with await psycopg.AsyncConnection.connect(databases.primary.dsn(), autocommit=True) as connection:
            for name in place.sandbox:
                await connection.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", [name])
            for campaign in ("spring", "summer"):
                await connection.execute("INSERT INTO shardd.campaigns (id) VALUES (%s)", [campaign])
        environ = _environ(place, package)
        for number in range(size.nodes):
            own = [await Link.to(server.port) for server in databases.servers]
            links += own
            settings = _settings(size, [link.port for link in own])
            name = f"node-{number + 1}"
            place.nodes.append(Node(name, folder / name, settings, environ, log, databases=own, whatsapp=None))
        yield place
    finally:
        for node in place.nodes:
            await node.close()
        for link in links:
            await link.close()
        await databases.stop()
        log.close()
        if not place.kept:
            _remove(folder)


def _make_folder() -> Path:
    """Short, because a socket path has at most 107 bytes, and accessible for the server's account."""
    folder = Path(tempfile.mkdtemp(prefix="storm-", dir="/tmp"))
    folder.chmod(0o711)
    (folder / "witness").mkdir()
    return folder


def _remove(folder: Path) -> None:
    home = find_home(folder / "pg")
    if home is not None and not home.is_relative_to(folder):
        shutil.rmtree(home.parent)
    shutil.rmtree(folder)


def _settings(size: Size, ports: list[int]) -> dict[str, Any]:
    ttl = size.ttl
    return {
        "shards": size.shards,
        "database": {"dsn": dsn_of(ports), "connect_timeout": f"{ttl / 6:g}s", "statement_timeout": f"{ttl / 3:g}s"},
        # What the config demands: renew_every + 2 x the longer timeout <= ttl - margin.
        "lease": {"ttl": f"{ttl:g}s", "renew_every": f"{ttl / 12:g}s", "margin": f"{ttl / 6:g}s"},
        "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
        "queue": {"backoff": {"first": "200ms", "cap": "2s"}, "send_timeout": "20s"},
        "supervisor": {
            "spawn_every": "10ms", "backoff": {"first": "100ms", "cap": "1s"}, "breaker": {"crashes": 1000},
            "heartbeat_timeout": "10s", "drain_timeout": "10s",
        },
        "transports": {"sandbox": {"latency_min": "5ms", "latency_max": "80ms"}},
        "log": {"level": "info", "format": "json"},
    }  # fmt: skip


def _environ(place: Place, package: Path | None) -> dict[str, str]:
    path = [str(SITE), str(package or ROOT)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "SHARDD_STORM_WITNESS": str(place.witness),
    }
