"""`scripts/bench whatsapp`: real workers compared with plain neonize, both with the project's WhatsApp server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from benchlib import pooler
from benchlib.cluster import Cluster, temporary_cluster
from benchlib.sweep import Sweep, sweep
from benchlib.whatsapp_results import WhatsappResults
from benchlib.whatsapp_round import Figures, Load, Measure, plain_round, shardd_pooled_round, shardd_round
from tests.whatsapp_server.launch import ServerProcess, launch

Say = Callable[[str], None]

MAX_CONNECTIONS: Final = 1500
"""The library keeps two connections per client, even for some time after it is closed."""
SMALL_FLEET: Final = 300
"""Devices of the sweep without PgBouncer, which larger numbers require."""


@asynccontextmanager
async def bed(max_connections: int = MAX_CONNECTIONS) -> AsyncIterator[tuple[Cluster, ServerProcess]]:
    """A PostgreSQL and a WhatsApp server, in separate processes."""
    async with temporary_cluster({"max_connections": str(max_connections)}) as cluster:
        server = launch(cluster.folder / "whatsapp")
        try:
            yield cluster, server
        finally:
            server.stop()


async def run(*, quick: bool, devices: int, say: Say) -> WhatsappResults:
    """Run all measurements; `devices`: number for the sweep; `say` gets progress messages."""
    load, number_of_rounds = (Load(40, 4), 1) if quick else (Load(100, 10), 5)
    subjects: dict[str, Measure] = {"plain": plain_round, "shardd": shardd_round}
    if pooler.PROGRAM is not None:
        subjects["pooled"] = shardd_pooled_round
    else:
        say("no pgbouncer: what it saves is left out (Debian: apt-get install pgbouncer)")
    async with bed() as (cluster, server):
        rounds: dict[str, list[Figures]] = defaultdict(list)
        for number in range(1, number_of_rounds + 1):
            for who, measure in subjects.items():
                server.control.start_over()
                figures = await measure(cluster, server, load)
                rounds[who].append(figures)
                say(
                    f"round {number}/{number_of_rounds}: {who}: {figures.refresh_cpu:.2f} ms per refresh, "
                    f"{figures.send_cpu:.2f} ms per warm send, {figures.client_rss / 1024:.0f} KiB per client"
                )
        return WhatsappResults(
            rounds=dict(rounds),
            devices=load.devices,
            messages=load.messages,
            sweeps=[result async for result in _sweeps(cluster, server, devices, say)],
            server=cluster.settings(),
            quick=quick,
        )


async def _sweeps(cluster: Cluster, server: ServerProcess, devices: int, say: Say) -> AsyncIterator[Sweep]:
    for pgbouncer in (False, True) if pooler.PROGRAM is not None else (False,):
        number = devices if pgbouncer else min(devices, SMALL_FLEET)
        say(f"sweep: {number:,} devices {'with' if pgbouncer else 'without'} PgBouncer")
        yield await sweep(cluster, server, devices=number, pgbouncer=pgbouncer)
