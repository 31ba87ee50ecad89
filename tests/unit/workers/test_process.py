"""The end of a worker process: its exit and the end of its channel are two events."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardd import ipc
from shardd.config.load import parse_config
from shardd.errors import SharddError
from shardd.supervisor.workers import process as process_module
from shardd.supervisor.workers.launch import LaunchSpec, launch, stderr_of_shard
from shardd.supervisor.workers.process import WorkerProcess

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging

LEAVES_A_CHILD = """
import os, socket, sys
from shardd import ipc, wire
channel, lifeline = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
if os.fork():
    os._exit(3)
if os.read(lifeline, 1):
    channel.sendall(wire.encode([ipc.Defect("last message")])[0])
"""


class LeavesAChild(LaunchSpec):
    """Dies at once; its child holds the channel, and sends one more message when the lifeline has a byte."""

    def command(self, channel: int, lifeline: int, log: int) -> list[str]:  # it logs nothing
        return [sys.executable, "-c", LEAVES_A_CHILD, str(channel), str(lifeline)]


class Watched(WorkerProcess):
    """Tells when it is dead."""

    def __init__(self, state_dir: Path, died: Callable[[str], None]) -> None:
        super().__init__(0, state_dir, died, epoch=1)
        self.dead = asyncio.Event()

    def _reap(self) -> None:
        super()._reap()
        self.dead.set()


class Heard:
    """Notes what arrives (`shardd.channel.Listener`)."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.process: WorkerProcess

    def received(self, message: Any) -> None:
        self.messages.append(message)

    def disconnected(self) -> None:
        self.process.disconnected()


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def died(tmp_path: Path, lifeline: tuple[int, int], ends: list[str]) -> Heard:
    config = parse_config(f"state_dir: {tmp_path}", "test", {})
    heard, process = Heard(), Watched(tmp_path, ends.append)
    heard.process = process
    setup = ipc.Setup("test", 0, "/j", "0" * 32, 90.0, {}, [])
    launched = launch(LeavesAChild.of(config), tmp_path, stderr_of_shard(0), lifeline[0])
    await process.start(launched, setup, heard)  # type: ignore[arg-type]  # nothing else happens
    async with asyncio.timeout(HANG):
        await process.dead.wait()
    return heard


async def test_messages_that_arrive_after_the_death_are_received(tmp_path: Path, lifeline: tuple[int, int]) -> None:
    ends: list[str] = []
    heard = await died(tmp_path, lifeline, ends)
    os.write(lifeline[1], b"x")
    async with asyncio.timeout(HANG):
        await heard.process.gone.wait()
    assert heard.messages == [ipc.Defect("last message")]
    assert ends == ["exit code 3"]


async def test_a_channel_that_does_not_end_is_not_awaited_forever(
    tmp_path: Path, lifeline: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "EOF_GRACE", 0.1)
    ends: list[str] = []
    heard = await died(tmp_path, lifeline, ends)
    async with asyncio.timeout(HANG):
        await heard.process.gone.wait()
    assert heard.messages == []
    assert ends == ["exit code 3"]


async def test_a_close_that_takes_too_long_names_both_causes(
    tmp_path: Path, lifeline: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "CLOSE_TIMEOUT", 0.01)
    process = (await died(tmp_path, lifeline, [])).process  # its channel is open, but nothing answers
    with pytest.raises(
        SharddError, match=r"device a did not close within 0\.01 s: .* still sending, or .* stored; pause"
    ):
        await process.close_client("a")
    os.write(lifeline[1], b"x")
    async with asyncio.timeout(HANG):
        await process.gone.wait()
