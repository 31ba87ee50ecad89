"""The channel over a real socketpair, between a supervisor's end and a worker's end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardd import ipc
from shardd.channel import Channel

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


class End:
    """One end: what it heard, and how often it was lost."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.losses = 0
        self._news = asyncio.Condition()
        self.channel: Channel

    async def connect(self, sock: socket.socket, decode: Any) -> None:
        self.channel = await Channel.connect(sock, decode, self._hear, self._lose)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(HANG), self._news:
            await self._news.wait_for(what)

    def _hear(self, message: Any) -> None:
        self.heard.append(message)
        self._tell()

    def _lose(self) -> None:
        self.losses += 1
        self._tell()

    def _tell(self) -> None:
        async def tell() -> None:
            async with self._news:
                self._news.notify_all()

        self._task = asyncio.ensure_future(tell())


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    ours, theirs = socket.socketpair()
    supervisor, worker = End(), End()
    await supervisor.connect(ours, ipc.decode_to_supervisor)
    await worker.connect(theirs, ipc.decode_to_worker)
    yield supervisor, worker
    supervisor.channel.close()
    worker.channel.close()


@pytest.fixture
async def raw() -> AsyncIterator[tuple[socket.socket, End]]:
    """A bare socket that can say anything, and a worker's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    worker = End()
    await worker.connect(theirs, ipc.decode_to_worker)
    with ours:
        yield ours, worker
    worker.channel.close()


def drain(number: int) -> ipc.Drain:
    return ipc.Drain(timeout=float(number))


async def test_messages_arrive_in_order_both_ways(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    for number in range(1000):
        supervisor.channel.say(drain(number))
        worker.channel.say(ipc.Ready(pid=number))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await worker.until(lambda: len(worker.heard) == 1000)
    await supervisor.until(lambda: len(supervisor.heard) == 1000)
    assert worker.heard == [drain(number) for number in range(1000)]
    assert supervisor.heard == [ipc.Ready(pid=number) for number in range(1000)]


async def test_what_is_said_in_one_turn_leaves_as_one_frame() -> None:
    ours, theirs = socket.socketpair()
    end = End()
    await end.connect(ours, ipc.decode_to_supervisor)
    theirs.setblocking(False)
    for number in range(50):
        end.channel.say(drain(number))
    await asyncio.sleep(0)
    data = await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert len(ipc.decode_to_worker(data[4:])) == 50
    end.channel.close()
    theirs.close()


async def test_frames_may_arrive_in_pieces_or_together(raw: tuple[socket.socket, End]) -> None:
    sock, worker = raw
    data = b"".join(ipc.encode([drain(2 * number), drain(2 * number + 1)]) for number in range(4))
    loop = asyncio.get_running_loop()
    for byte in data:
        await loop.sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0)
    await worker.until(lambda: len(worker.heard) == 8)
    await loop.sock_sendall(sock, data)
    await worker.until(lambda: len(worker.heard) == 16)
    assert worker.heard == [drain(number) for number in range(8)] * 2


async def test_a_message_larger_than_every_buffer_arrives(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    jobs = [ipc.JobSpec(number, 1, 1, 9, "a", "+628", body="\U0001f600" * 65536) for number in range(40)]
    supervisor.channel.say(ipc.Send(jobs=jobs))
    supervisor.channel.say(drain(1))
    await worker.until(lambda: len(worker.heard) == 2)
    assert worker.heard == [ipc.Send(jobs=jobs), drain(1)]


async def test_no_frame_is_larger_than_the_other_side_takes(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    # 300 messages of 256 KiB: more than one frame may hold.
    jobs = [ipc.JobSpec(number, 1, 1, 9, "a", "+628", body="\U0001f600" * 65536) for number in range(300)]
    for job in jobs:
        supervisor.channel.say(ipc.Send(jobs=[job]))
    await worker.until(lambda: len(worker.heard) == 300 or worker.losses)
    assert worker.losses == 0
    assert [message.jobs[0].id for message in worker.heard] == list(range(300))


async def test_the_end_of_the_other_side_is_told_once(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    supervisor.channel.close()
    await worker.until(lambda: worker.losses)
    worker.channel.say(ipc.Ready(pid=1))
    worker.channel.flush()
    worker.channel.close()
    assert (worker.losses, supervisor.losses) == (1, 0)


async def test_what_was_said_before_closing_arrives(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    for number in range(100):
        supervisor.channel.say(drain(number))
    supervisor.channel.close()
    await worker.until(lambda: worker.losses)
    assert worker.heard == [drain(number) for number in range(100)]


async def test_a_killed_process_is_told() -> None:
    ours, theirs = socket.socketpair()
    end = End()
    child = await asyncio.create_subprocess_exec("sleep", "600", pass_fds=[theirs.fileno()])
    theirs.close()
    await end.connect(ours, ipc.decode_to_supervisor)
    child.kill()
    await end.until(lambda: end.losses)
    await child.wait()
    assert end.losses == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        (ipc.MAX_FRAME + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04nope",
        b"\x00\x00\x00\x00",
        ipc.encode([ipc.Ready(pid=1)]),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_nonsense_ends_the_channel(raw: tuple[socket.socket, End], nonsense: bytes) -> None:
    sock, worker = raw
    await asyncio.get_running_loop().sock_sendall(sock, ipc.encode([drain(1)]) + nonsense)
    await worker.until(lambda: worker.losses)
    assert worker.heard == [drain(1)]
    assert worker.losses == 1
