"""Turns to connect: no more at once than the window, in the order of their coming, and none lost by a cancellation."""

from __future__ import annotations

import asyncio
import random

import pytest

from shardd.errors import DeviceUnavailableError
from shardd.transports.whatsapp.clients import window as window_module
from shardd.transports.whatsapp.clients.connecting import Connecting, Turn
from shardd.transports.whatsapp.clients.window import USUAL, ConnectWindow


def nothing() -> None:
    """Reports are tested elsewhere."""


class Devices:
    """Devices that connect until they are released."""

    def __init__(self, connecting: Connecting) -> None:
        self._connecting = connecting
        self._ends: dict[str, asyncio.Event] = {}
        self.entered: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.inside: list[str] = []
        self.turns: dict[str, Turn] = {}

    async def connect(self, name: str, *, visit: bool = False) -> None:
        self._ends[name], self.entered[name] = asyncio.Event(), asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._connect(name, visit=visit))
        await asyncio.sleep(0)

    def let_end(self, name: str) -> None:
        self._ends[name].set()

    async def end(self, name: str) -> None:
        self.let_end(name)
        await asyncio.wait([self.tasks[name]])
        await asyncio.sleep(0)

    async def _connect(self, name: str, *, visit: bool) -> None:
        async with self._connecting.turn(name, visit=visit) as self.turns[name]:
            self.inside.append(name)
            self.entered[name].set()
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)


async def test_no_more_connect_at_once_than_the_window_and_in_order() -> None:
    devices = Devices(Connecting(ConnectWindow(2), 60.0, nothing))
    for name in "abcd":
        await devices.connect(name)
    assert devices.inside == ["a", "b"]
    await devices.end("b")
    assert devices.inside == ["a", "c"]
    await devices.end("a")
    await devices.end("c")
    assert devices.inside == ["d"]
    await devices.end("d")


async def test_a_window_that_grows_lets_the_next_in_at_once() -> None:
    window = ConnectWindow(8)
    connecting = Connecting(window, 60.0, nothing)
    devices = Devices(connecting)
    for name in "abcd":
        await devices.connect(name)
    assert devices.inside == list("ab")
    connecting.dialled(devices.turns["a"])
    await asyncio.sleep(0)
    assert devices.inside == list("abc")
    for name in "abcd":
        await devices.end(name)


async def test_who_only_waits_for_the_network_blocks_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "LEAST_PATIENCE", 0.01)
    connecting = Connecting(ConnectWindow(1), 60.0, nothing)
    devices = Devices(connecting)
    await devices.connect("hangs")
    await devices.connect("next")
    connecting.dialled(devices.turns["hangs"])
    async with asyncio.timeout(10.0):
        await devices.entered["next"].wait()
    assert devices.inside == ["hangs", "next"]
    await devices.end("next")
    assert connecting.most == 2
    await devices.end("hangs")
    assert connecting.most == 1


async def test_who_has_not_dialled_yet_waits_for_the_worker_and_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "LEAST_PATIENCE", 0.01)
    devices = Devices(Connecting(ConnectWindow(1), 60.0, nothing))
    await devices.connect("queues")
    await devices.connect("next")
    await asyncio.sleep(0.1)  # nothing may happen, which no event shows
    assert devices.inside == ["queues"]
    await devices.end("queues")
    await devices.end("next")


async def test_the_window_does_not_grow_while_more_hang_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "LEAST_PATIENCE", 0.0)
    window = ConnectWindow(32)
    connecting = Connecting(window, 60.0, nothing)
    devices = Devices(connecting)
    for number in range(200):
        await devices.connect(str(number))
        if str(number) in devices.turns:
            connecting.dialled(devices.turns[str(number)])  # and hangs at once
    assert window.size <= USUAL + 2
    for number in range(200):
        await devices.end(str(number))
    assert connecting.most == window.size


async def test_a_visit_lets_all_others_connect_before_it() -> None:
    devices = Devices(Connecting(ConnectWindow(1), 60.0, nothing))
    await devices.connect("first")
    await devices.connect("visit", visit=True)
    await devices.connect("send")
    await devices.end("first")
    assert devices.inside == ["send"]
    await devices.end("send")
    assert devices.inside == ["visit"]
    await devices.end("visit")


async def test_who_waits_too_long_is_told_and_leaves_no_trace() -> None:
    connecting = Connecting(ConnectWindow(1), 0.01, nothing)
    devices = Devices(connecting)
    await devices.connect("a")
    with pytest.raises(DeviceUnavailableError, match=r"device b waited 0\.01 seconds for others to connect"):
        async with connecting.turn("b"):
            pass
    await devices.end("a")
    await devices.connect("c")
    assert devices.inside == ["c"]
    await devices.end("c")


@pytest.mark.parametrize("seed", range(20))
async def test_no_turn_is_lost_by_cancellations(seed: int) -> None:
    random_, window = random.Random(seed), ConnectWindow(2)
    devices = Devices(Connecting(window, 60.0, nothing))
    for number in range(200):
        await devices.connect(str(number), visit=random_.random() < 0.3)
        assert len(devices.inside) <= window.size
        if random_.random() < 0.5 and devices.inside:
            devices.let_end(random_.choice(devices.inside))
        if random_.random() < 0.5:
            random_.choice(list(devices.tasks.values())).cancel()
        for _ in range(random_.randrange(3)):
            await asyncio.sleep(0)
    for name in devices.tasks:
        devices.let_end(name)
    _, waiting = await asyncio.wait(devices.tasks.values(), timeout=10.0)
    assert not waiting, "a turn was lost"


async def test_on_a_slow_machine_logins_that_take_long_keep_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "LEAST_PATIENCE", 0.01)
    window = ConnectWindow(1)
    connecting = Connecting(window, 60.0, nothing)
    devices = Devices(connecting)
    await devices.connect("slow")
    await devices.connect("next")
    connecting.dialled(devices.turns["slow"])
    window.accepted(60.0)  # another one, after that
    await asyncio.sleep(0.1)  # nothing may happen, which no event shows
    assert devices.inside == ["slow"]
    await devices.end("slow")
    assert devices.inside == ["next"]
    await devices.end("next")
