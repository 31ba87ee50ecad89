"""Faults of nodes and of their network: how each is made, and repaired when its time is over.

Each is a context: entered, the fault is there; left, it is repaired.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from stormlib.link import Link
from stormlib.node import Node, send
from stormlib.place import Place
from stormlib.plan import Fault, Kind

Make = Callable[[Place, Fault], AbstractAsyncContextManager[str]]
"""Makes a fault; what it yields says what was struck, empty: there was nothing to strike."""

BUSY_WAIT = 2.0
"""Lease periods for which a kill waits until its victim has delivered something without an answer. A worker often has nothing on
the way, because the database is away, or because it has just started; its death would be no test."""

KINDS = {
    "kill worker": Kind(3),
    "kill supervisor": Kind(2, 0.0, 0.2),
    "kill node": Kind(3, 0.1, 1.8),
    "stop node": Kind(2, 0.0, 1.0),
    "freeze worker briefly": Kind(1, 0.1, 0.6),
    "freeze worker": Kind(1, 1.2, 2.0),
    "freeze supervisor briefly": Kind(1, 0.1, 0.6),
    "freeze supervisor": Kind(1, 1.2, 2.2),
    "freeze node": Kind(2, 1.2, 2.2),
    "cut node from database": Kind(2, 0.1, 1.8),
    "part node from database": Kind(2, 0.1, 1.8),
    "pull node's cable": Kind(3, 0.1, 1.8),
}


@asynccontextmanager
async def _kill_worker(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    busy = await place.in_hand.stop_one(node, BUSY_WAIT * place.size.ttl)
    pid = _one_worker(node, fault) if busy is None else busy[0]
    if pid is not None:
        send(pid, signal.SIGKILL)
    yield f"{node.name}: {_doubts(busy)}" if pid is not None else ""


@asynccontextmanager
async def _kill_supervisor(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    node.signal_supervisor(signal.SIGKILL)
    yield node.name


@asynccontextmanager
async def _kill_node(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    busy = await place.in_hand.stop_one(node, BUSY_WAIT * place.size.ttl)
    node.kill_all()
    yield f"{node.name}: {_doubts(busy)}"
    node.start()


@asynccontextmanager
async def _stop_node(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    code = await node.stop()
    yield f"{node.name} exit code {code}"
    node.start()


@asynccontextmanager
async def _freeze_worker(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    pid = _one_worker(node, fault)
    async with frozen([] if pid is None else [pid]):
        yield f"{node.name} worker {pid}" if pid is not None else ""


@asynccontextmanager
async def _freeze_supervisor(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    pids = [node.pid] if node.pid is not None else []
    async with frozen(pids):
        yield node.name


@asynccontextmanager
async def _freeze_node(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    pids = [node.pid] if node.pid is not None else []
    async with frozen([*pids, *node.worker_pids()]):
        yield node.name


@asynccontextmanager
async def frozen(pids: Sequence[int]) -> AsyncIterator[None]:
    """Stop these processes for the block."""
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


def cut(links: Callable[[Node], Sequence[Link]]) -> Make:
    """Connections over these links of a node end, and none can be made."""

    @asynccontextmanager
    async def make(place: Place, fault: Fault) -> AsyncIterator[str]:
        node = place.nodes[fault.node]
        for link in links(node):
            await link.cut()
        yield node.name
        await _repair(links(node))

    return make


def part(links: Callable[[Node], Sequence[Link]]) -> Make:
    """Nothing passes these links of a node."""

    @asynccontextmanager
    async def make(place: Place, fault: Fault) -> AsyncIterator[str]:
        node = place.nodes[fault.node]
        for link in links(node):
            link.hang()
        yield node.name
        await _repair(links(node))

    return make


@asynccontextmanager
async def _pull_cable(place: Place, fault: Fault) -> AsyncIterator[str]:
    node = place.nodes[fault.node]
    if node.cable is None:
        async with part(_all)(place, fault) as struck:
            yield f"{struck}, by proxies"
        return
    await node.cable.pull()
    yield node.name
    await node.cable.plug()


async def _repair(links: Sequence[Link]) -> None:
    for link in links:
        await link.repair()


def _databases(node: Node) -> list[Link]:
    return node.databases


def _all(node: Node) -> list[Link]:
    return node.links


def _doubts(busy: tuple[int, int] | None) -> str:
    return (
        "no worker has an answer to come"
        if busy is None
        else f"worker {busy[0]} without the answers of {busy[1]} messages"
    )


def _one_worker(node: Node, fault: Fault) -> int | None:
    pids = node.worker_pids()
    return pids[int(fault.pick * len(pids))] if pids else None


MAKERS: dict[str, Make] = {
    "kill worker": _kill_worker,
    "kill supervisor": _kill_supervisor,
    "kill node": _kill_node,
    "stop node": _stop_node,
    "freeze worker briefly": _freeze_worker,
    "freeze worker": _freeze_worker,
    "freeze supervisor briefly": _freeze_supervisor,
    "freeze supervisor": _freeze_supervisor,
    "freeze node": _freeze_node,
    "cut node from database": cut(_databases),
    "part node from database": part(_databases),
    "pull node's cable": _pull_cable,
}
