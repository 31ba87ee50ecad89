"""Everything that runs in a storm, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from shardd.embedded.home import find_home, prepare_home
from stormlib.cable import LOOPBACK, Cable
from stormlib.database import Databases, dsn_of
from stormlib.in_hand import InHand
from stormlib.link import Link
from stormlib.log import Log
from stormlib.node import Node
from stormlib.phones import SETTINGS, Phones
from stormlib.pooler import SessionPooler
from stormlib.records import Span

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent / "site"
CAMPAIGNS = ("spring", "summer")
GROUPS = 2
GROUP_SIZE = 8


@dataclass(frozen=True)
class Size:
    """How large a storm is. `ttl`: the lease period in seconds."""

    nodes: int = 3
    shards: int = 6
    ttl: float = 6.0
    sandbox_devices: int = 48
    whatsapp_devices: int = 6


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
    groups: dict[str, list[str]]
    """The devices of device groups."""
    in_hand: InHand
    setbacks: list[Span] = field(default_factory=list)
    """When the database forgot what was committed."""
    phones: Phones | None = None
    pooler: SessionPooler | None = None
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
    devices = [f"s{number}" for number in range(size.sandbox_devices)]
    # Each has devices of several shards.
    groups = {f"g{number}": devices[number :: len(devices) // GROUP_SIZE] for number in range(GROUPS)}
    links: list[Link] = []
    place = Place(folder, size, log, databases, [], devices, groups, InHand(folder / "witness"))
    try:
        await databases.start()
        await _add_sandbox(place)
        if size.whatsapp_devices:
            await _add_whatsapp(place, links)
        await _add_nodes(place, links, package)
        yield place
    finally:
        for node in place.nodes:
            await node.close()
        for link in links:
            await link.close()
        for node in place.nodes:
            if node.cable is not None:
                await node.cable.remove()
        if place.pooler is not None:
            place.pooler.kill()
        if place.phones is not None:
            place.phones.stop()
        await databases.stop()
        log.close()
        if not place.kept:
            _remove(folder)


async def _add_sandbox(place: Place) -> None:
    async with await psycopg.AsyncConnection.connect(place.databases.primary.dsn(), autocommit=True) as connection:
        for name in place.sandbox:
            await connection.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", [name])
        for campaign in CAMPAIGNS:
            await connection.execute("INSERT INTO shardd.campaigns (id) VALUES (%s)", [campaign])
        for group, devices in place.groups.items():
            await connection.execute("INSERT INTO shardd.device_groups (id) VALUES (%s)", [group])
            statement = (
                "INSERT INTO shardd.device_group_members (device_group, device_id) SELECT %s, unnest(%s::text[])"
            )
            await connection.execute(statement, [group, devices])


async def _add_whatsapp(place: Place, links: list[Link]) -> None:
    databases = place.databases
    place.phones = await Phones.start(place.folder / "whatsapp", place.size.whatsapp_devices)
    await place.phones.pair(databases.primary.dsn())
    links.append(await Link.to(databases.primary.port))
    place.pooler = SessionPooler(databases.home, links[-1])
    databases.promoted = place.pooler.follow
    await place.pooler.start()


async def _add_nodes(place: Place, links: list[Link], package: Path | None) -> None:
    size, environ = place.size, environ_of(place, package)
    for number in range(size.nodes):
        name = f"node-{number + 1}"
        cable = await Cable.lay()
        host = LOOPBACK if cable is None else cable.far
        own = [await Link.to(server.port, host=host) for server in place.databases.servers]
        settings = _settings(size, dsn_of([link.port for link in own], host=host))
        sessions = whatsapp = None
        if place.phones is not None and place.pooler is not None:
            sessions = await Link.to(place.pooler.port, host=host)
            settings["database"]["sessions_dsn"] = place.pooler.dsn(sessions)
            whatsapp = await Link.to(place.phones.server.proxy_port, host=host)
            proxy = f"http://{name}:storm@{host}:{whatsapp.port}"
            settings["transports"]["whatsapp"] = {**SETTINGS, "proxy": proxy, "pgbouncer": True}
        node = Node(
            name, place.folder / name, settings, environ, place.log,
            cable=cable, databases=own, sessions=sessions, whatsapp=whatsapp,
        )  # fmt: skip
        place.nodes.append(node)
        links += node.links


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


def _settings(size: Size, dsn: str) -> dict[str, Any]:
    ttl = size.ttl
    return {
        "shards": size.shards,
        "database": {"dsn": dsn, "connect_timeout": f"{ttl / 6:g}s", "statement_timeout": f"{ttl / 3:g}s"},
        # What the config demands: renew_every + 2 x the longer timeout <= ttl - margin.
        "lease": {"ttl": f"{ttl:g}s", "renew_every": f"{ttl / 12:g}s", "margin": f"{ttl / 6:g}s"},
        "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
        # A message that a phone cannot decrypt would go once more, as a job that nobody asked for.
        "queue": {"backoff": {"first": "200ms", "cap": "2s"}, "send_timeout": "20s", "on_unreadable": "report"},
        "supervisor": {
            "spawn_every": "10ms", "backoff": {"first": "100ms", "cap": "1s"}, "breaker": {"crashes": 1000},
            "heartbeat_timeout": "10s", "drain_timeout": "10s",
        },
        # A worker that dies has messages on the way, nearly always: some not delivered yet, others delivered without an answer.
        "transports": {
            "sandbox": {"latency_min": "20ms", "latency_max": "300ms", "hang_rate": 0.7, "hang_for": "300ms"},
        },
        "log": {"level": "info", "format": "json"},
    }  # fmt: skip


def environ_of(place: Place, package: Path | None) -> dict[str, str]:
    """Of the processes of shardd."""
    environ = dict(os.environ) if place.phones is None else place.phones.server.client_environment()
    path = [str(SITE), str(package or ROOT), environ.get("PYTHONPATH", "")]
    return {
        **environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "SHARDD_STORM_WITNESS": str(place.witness),
    }
