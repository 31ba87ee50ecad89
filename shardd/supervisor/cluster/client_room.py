"""How many WhatsApp clients each worker of a host may keep open: what its memory, file descriptors and threads allow. Pure.

Each budget leaves room for what else needs the same: PostgreSQL and the supervisor on the host, and what the library leaks with
every connect, for which workers are replaced (`worker.recycle`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MIB: Final = 2**20
CLIENT_MEMORY: Final = 360 * 1024
"""Bytes for each open client: 304 kB of the library (300 clients in one process), and what shardd keeps for it."""
CLIENT_FDS: Final = 3
"""The connection to WhatsApp's server and up to two to the session store."""
CLIENT_THREADS: Final = 1
"""The library's call for a connection lasts as long as that."""
WORKER_MEMORY: Final = 96 * MIB
"""Bytes of a worker without clients that sends: the library alone takes 64 MiB."""
WORKER_THREADS: Final = 50
HOST_SHARE: Final = 0.5
"""Of the host's memory: for all workers."""
GROWTH_SHARE: Final = 0.5
"""Of the memory and of the file descriptors at which a worker is replaced: the rest is for what the library leaks."""
GO_SHARE: Final = 0.8
"""Of the memory beyond which the library's runtime collects without end."""
THREADS_SHARE: Final = 0.7
LEAST: Final = 32
"""Clients, even if a budget has room for less: a worker that may open only a few would connect for each message."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a host, or the container or service that shardd runs in, gives it."""

    memory: int
    """Bytes."""
    fds: int
    """File descriptors of a process, at most."""
    threads: int | None
    """Of all processes together; None: not limited."""


@dataclass(frozen=True, slots=True, order=True)
class ClientRoom:
    """Clients that each worker may have open; the smaller room is the one that counts."""

    clients: int
    limit: str = field(compare=False)
    """What allows no more, in words."""


def room_for_clients(host: Host, *, workers: int, rss: int, fds: int, go_memory: int) -> ClientRoom:
    """What the budgets allow each of so many workers.

    `rss`, `fds`: at which one is replaced (bytes, descriptors); 0: never. `go_memory`: bytes beyond which the library's runtime
    spends its time on collecting garbage.
    """
    workers = max(1, workers)
    free = int(host.memory * HOST_SHARE) // workers - WORKER_MEMORY
    room = [
        ClientRoom(free // CLIENT_MEMORY, "the memory of this host"),
        ClientRoom(int(go_memory * GO_SHARE) // CLIENT_MEMORY, "worker.go_memory_limit"),
        ClientRoom(int(host.fds * GROWTH_SHARE) // CLIENT_FDS, "the limit of file descriptors (LimitNOFILE)"),
    ]
    if rss:
        room.append(ClientRoom(int(rss * GROWTH_SHARE) // CLIENT_MEMORY, "worker.recycle.rss"))
    if fds:
        room.append(ClientRoom(int(fds * GROWTH_SHARE) // CLIENT_FDS, "worker.recycle.fds"))
    if host.threads is not None:
        threads = int(host.threads * THREADS_SHARE) // workers - WORKER_THREADS
        room.append(ClientRoom(threads // CLIENT_THREADS, "the limit of threads (TasksMax)"))
    least = min(room)
    return ClientRoom(max(LEAST, least.clients), least.limit)
