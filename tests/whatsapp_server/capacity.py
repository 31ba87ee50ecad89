"""Measures how many devices this server can serve: ``python -m tests.whatsapp_server.capacity --dsn postgres://…``.

It seeds a store, logs in every device with plain neonize in a few processes, sends one message from each, and prints
seconds, bytes and counts as JSON. The database must be empty and allow about 500 connections: each plain client opens two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from .client.process import ClientProcess
from .launch import ServerProcess, launch
from .seed import seed_postgres

FIRST_NUMBER = 628150000000
RECIPIENT = "6281299990001"
AT_ONCE = 8  # per process
DEADLINE = 600.0
IDLE_CONNECTIONS_END = "idle_session_timeout=2000"  # milliseconds; plain clients never close their connection pools


async def log_in(process: ClientProcess, server: ServerProcess, dsn: str, jids: list[str]) -> None:
    """Open these devices, AT_ONCE at a time, and wait until each is connected."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def open_one(jid: str) -> None:
        async with turns:
            await process.call("open", client=jid, store=dsn, proxy=server.proxy_url(), jid=jid, deadline=DEADLINE)
            await process.event("Connected", jid, deadline=DEADLINE)

    await asyncio.gather(*map(open_one, jids))


async def send_one_each(process: ClientProcess, jids: list[str]) -> None:
    """Send one text from each device, AT_ONCE at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def send_one(jid: str) -> None:
        async with turns:
            await process.call("send", client=jid, to=RECIPIENT, text=f"hello from {jid}", deadline=DEADLINE)

    await asyncio.gather(*map(send_one, jids))


async def measure(dsn: str, devices: int, processes: int, folder: Path) -> dict[str, Any]:
    """Run the measurement; returns seconds, bytes and counts."""
    server = launch(folder)
    clients = [await ClientProcess.start(server, folder / "neonize.log") for _ in range(processes)]
    try:
        await clients[0].call("open", client="schema", store=dsn, proxy=server.proxy_url())
        await clients[0].event("qr", "schema")
        begun = time.monotonic()
        jids = seed_postgres(dsn, [str(FIRST_NUMBER + number) for number in range(devices)])
        figures: dict[str, Any] = {"devices": devices, "seeding": time.monotonic() - begun}
        figures["server_empty"] = server.control.stats()["rss"]
        store = dsn + ("&" if "?" in dsn else "?") + IDLE_CONNECTIONS_END
        shares = [jids[number::processes] for number in range(processes)]

        begun = time.monotonic()
        await asyncio.gather(
            *(log_in(*pair) for pair in ((c, server, store, s) for c, s in zip(clients, shares, strict=True)))
        )
        stats = await server.async_control.stats()
        figures |= {"login_seconds": time.monotonic() - begun, "online": stats["online"]}
        figures |= {"server_logged_in": stats["rss"], "server_login_cpu": stats["cpu"]}

        begun = time.monotonic()
        await asyncio.gather(*(send_one_each(c, s) for c, s in zip(clients, shares, strict=True)))
        await server.async_control.wait_messages(devices, timeout=DEADLINE)
        stats = await server.async_control.stats()
        figures |= {"send_seconds": time.monotonic() - begun, "messages": stats["counts"]["messages"]}
        figures |= {"server_rss": stats["rss"], "server_peak": stats["peak_rss"], "server_cpu": stats["cpu"]}
        figures["clients"] = [await client.call("usage", deadline=DEADLINE) for client in clients]
        return figures
    finally:
        for client in clients:
            await client.stop()
        server.stop()


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.capacity", description=__doc__)
    parser.add_argument("--dsn", required=True, help="empty PostgreSQL database, as a postgres:// URL")
    parser.add_argument("--devices", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(options.dsn, options.devices, options.processes, Path(folder)))
    print(json.dumps(figures, indent=2))  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
