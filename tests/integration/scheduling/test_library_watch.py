"""What a refused version of the library means for all devices: real tables, and the answers that workers would report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from shardd import ipc
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.library import LibraryRefusals
from shardd.states import LIBRARY_PROOF, DeviceState
from shardd.supervisor.scheduling import library_watch
from shardd.supervisor.scheduling.library_watch import LibraryWatch
from shardd.supervisor.scheduling.table_sync import DeviceSync
from shardd.supervisor.services import Steps
from shardd.transports.whatsapp.messages.failures import OUTDATED_RETRY
from tests.support.queue_rows import add_devices, connect, take_epoch
from tests.support.scheduler_by_hand import make_scheduler

LOOK_EVERY = 0.05
LIBRARY = "neonize 0.5.2"


class Node:
    """A node without workers: the test answers for them. Devices a… are on shard 0, b… on shard 1."""

    def __init__(self, database: Database, dsn: str, name: str, library: str) -> None:
        steps = Steps()
        self.dsn = dsn
        self.held = False
        self.asked: list[str] = []
        """Devices that were to log in."""
        self.scheduler = make_scheduler()
        self.devices = DeviceSync(
            Devices(database),
            self.scheduler,
            steps.add("reading the devices"),
            changed=lambda: None,
            send=lambda _, __: True,
            defect=pytest.fail,
            warm_days=lambda: 0,
        )
        self.watch = LibraryWatch(
            LibraryRefusals(database, library=library, node_id=name, node=name),
            self.scheduler,
            self.devices,
            steps.add("watching the version of the library"),
            hold=self._hold,
            send=self._send,
        )
        self._running: list[asyncio.Task[None]] = []

    async def start(self, epochs: dict[int, int]) -> None:
        """With running workers of these shards."""
        await self.devices.sync()
        await self.watch.start()
        self._running = [asyncio.create_task(self.watch.run()), asyncio.create_task(self.devices.run())]
        for shard, epoch in epochs.items():
            self.shard_up(shard, epoch)

    def shard_up(self, shard: int, epoch: int) -> None:
        self.scheduler.shard_up(shard, epoch, time.monotonic())
        self._epoch = epoch

    async def stop(self) -> None:
        await self.watch.stop()
        await self.devices.stop()
        await asyncio.gather(*self._running)

    def refused(self, device: str, retry: float = OUTDATED_RETRY) -> None:
        """A worker reports that the version was refused when the device logged in, which it does again after `retry` seconds."""
        self.watch.answered(ipc.LoginAnswered(device, outdated=True))
        until = time.time() + retry
        report = ipc.DeviceChanged(device, DeviceState.CLIENT_OUTDATED, "refused", until, time.time())
        self.watch.device_changed(report, self._epoch)

    def accepted(self, device: str) -> None:
        self.watch.answered(ipc.LoginAnswered(device))

    def row(self, device: str) -> tuple[str, bool]:
        """The state of a device in the database, and whether it ends by itself."""
        with connect(self.dsn) as connection:
            query = "SELECT state, state_until IS NOT NULL FROM shardd.devices WHERE id = %s"
            return connection.execute(query, [device]).fetchone() or ("", False)

    @property
    def refusals(self) -> int:
        """What all nodes know to be refused."""
        with connect(self.dsn) as connection:
            return len(connection.execute("SELECT FROM shardd.library_refusals").fetchall())

    def _hold(self, held: bool) -> None:
        self.held = held

    def _send(self, _: int, message: ipc.ToWorker) -> bool:
        assert isinstance(message, ipc.Visit)
        self.asked.append(message.device_id)
        return True


@pytest.fixture
async def make_node(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[str], Node]]:
    monkeypatch.setattr(library_watch, "LOOK_EVERY", LOOK_EVERY)
    nodes: list[Node] = []

    def make(name: str, library: str = LIBRARY) -> Node:
        nodes.append(Node(database, dsn, name, library))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.stop()


def add_paired(dsn: str, *names: str) -> None:
    add_devices(dsn, *names, transport="whatsapp")
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.devices SET session = id || '@s.whatsapp.net', state = 'ready'")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # of the database
            await asyncio.sleep(0.02)


async def test_the_only_device_of_one_node_proves_nothing_about_those_of_others(
    make_node: Callable[[str], Node], database: Database, dsn: str
) -> None:
    """Its proxy or account may be the cause. It tries again by itself, and is not asked again and again meanwhile."""
    add_paired(dsn, "a1", *(f"b{number}" for number in range(LIBRARY_PROOF)))
    small, large = make_node("small"), make_node("large")
    await small.start({0: await take_epoch(database)})
    await large.start({})
    small.refused("a1")
    await until(lambda: small.row("a1") == ("client_outdated", True))
    assert small.asked == []
    assert (small.held, large.held, small.refusals) == (False, False, 0)


async def test_a_node_whose_version_is_refused_stops_none_that_has_another(
    make_node: Callable[..., Node], database: Database, dsn: str
) -> None:
    """As between the upgrades of two hosts: the one with the earlier version waits, the other goes on, and ends nothing of it."""
    proof = [f"a{number}" for number in range(LIBRARY_PROOF)]
    add_paired(dsn, *proof, "b1", "b2")
    old, new = make_node("old"), make_node("new", "neonize 0.5.3")
    await old.start({0: await take_epoch(database)})
    for device in proof:
        old.refused(device)
    await until(lambda: old.refusals == 1 and old.row(proof[-1])[0] == "client_outdated")

    await new.start({1: await take_epoch(database, 1)})
    looks = 0

    async def look_again() -> None:
        nonlocal looks
        age = await real_look()
        looks += 1
        return age

    real_look, new.watch._look = new.watch._look, look_again  # type: ignore[method-assign]
    await until(lambda: looks >= 3)
    assert (old.held, new.held) == (True, False)
    assert (new.watch.refused_since, list(new.watch.problems()), new.asked) == (None, [], [])
    new.accepted("b1")
    await until(lambda: looks >= 6)
    assert (old.held, old.refusals) == (True, 1), "it says nothing about the other version"
    assert next(problem.text for problem in old.watch.problems()).startswith(
        f"WhatsApp refuses this version of its library ({LIBRARY}"
    )
    assert (new.row("b1"), new.row("b2")) == (("ready", False), ("ready", False))


async def test_a_shard_that_is_up_first_proves_nothing_about_the_others(
    make_node: Callable[[str], Node], database: Database, dsn: str
) -> None:
    add_paired(dsn, "a1", "b1", "b2")
    node, epoch = make_node("only"), await take_epoch(database)
    await node.start({0: epoch})
    node.refused("a1")
    await until(lambda: node.row("a1") == ("client_outdated", True))
    assert (node.held, node.refusals) == (False, 0)
    node.shard_up(1, epoch)
    node.refused("b1")
    assert not node.held
    node.refused("b2")
    assert node.held
    await until(lambda: node.refusals == 1)


async def test_a_restriction_outlasts_a_refusal_of_the_version(
    make_node: Callable[[str], Node], database: Database, dsn: str
) -> None:
    """Otherwise the device would write to strangers as soon as a newer version is installed."""
    add_paired(dsn, "a1", "a2", "a3")
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.devices SET state = 'restricted', state_until = now() + interval '1 day' WHERE id = 'a1'"
        )
    node = make_node("only")
    await node.start({0: await take_epoch(database)})
    for device in ("a3", "a2", "a1"):
        node.refused(device)
    await until(lambda: node.row("a2") == ("client_outdated", False))
    assert node.row("a1") == ("restricted", True)
    assert node.scheduler.queues["a1"].state is DeviceState.CLIENT_OUTDATED
    node.accepted("a3")
    await until(lambda: node.row("a2") == ("ready", False))
    await until(lambda: node.scheduler.queues["a1"].state is DeviceState.RESTRICTED)
    assert node.row("a1") == ("restricted", True)


async def test_a_restriction_outlasts_an_odd_answer_that_one_device_gets(
    make_node: Callable[[str], Node], database: Database, dsn: str
) -> None:
    """It would be over with the hour for which such a device does not log in."""
    add_paired(dsn, "a1", "a2", "a3", "a4")
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.devices SET state = 'restricted', state_until = now() + interval '1 day' WHERE id IN ('a1', 'a2')"
        )
    node = make_node("only")
    await node.start({0: await take_epoch(database)})
    node.refused("a1", retry=0.0)
    node.refused("a2")
    assert node.scheduler.queues["a1"].state is DeviceState.CLIENT_OUTDATED
    node.accepted("a3")
    await until(lambda: node.scheduler.queues["a1"].state is DeviceState.RESTRICTED)
    assert node.scheduler.queues["a2"].state is DeviceState.CLIENT_OUTDATED
    assert (node.row("a1"), node.row("a2")) == (("restricted", True), ("restricted", True))


async def test_a_node_whose_end_of_a_refusal_was_not_written_learns_of_a_later_end(
    make_node: Callable[[str], Node], database: Database, dsn: str
) -> None:
    add_paired(dsn, "a1", "b1")
    first, second, epoch = make_node("first"), make_node("second"), await take_epoch(database)
    await first.start({0: epoch})
    first.accepted("a1")
    first.refused("a1")
    first.refused("b1")
    await until(lambda: first.refusals == 1)
    await second.start({1: epoch})
    assert second.held
    second.accepted("b1")
    await until(lambda: second.refusals == 0)
    await until(lambda: not first.held)
