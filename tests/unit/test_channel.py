"""The channel over a real socketpair between a supervisor and a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardd import ipc, wire
from shardd.channel import Channel
from shardd.wire import OutOfSyncError, Reader, Undecodable, Unencodable

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


class End:
    """One end: what it heard, and how often it was lost."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.losses = 0
        self.unreads: list[Undecodable] = []
        self.unsents: list[Unencodable] = []
        self.failures: list[tuple[Any, str]] = []
        self.out_of_steps: list[str] = []
        self.fails_at: Any = None
        self._news = asyncio.Condition()
        self.channel: Channel

    async def connect(self, sock: socket.socket, reader: Reader) -> None:
        self.channel = await Channel.connect(sock, reader, self)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(HANG), self._news:
            await self._news.wait_for(what)

    # ---- shardd.channel.Listener

    def received(self, message: Any) -> None:
        if message == self.fails_at:
            raise LookupError("a defect")
        self.messages.append(message)
        self._tell()

    def undecodable(self, what: Undecodable) -> None:
        self.unreads.append(what)
        self._tell()

    def unencodable(self, what: Unencodable) -> None:
        self.unsents.append(what)

    def failed(self, message: Any, error: Exception) -> None:
        self.failures.append((message, str(error)))

    def out_of_sync(self, error: OutOfSyncError) -> None:
        self.out_of_steps.append(str(error))
        self._tell()

    def disconnected(self) -> None:
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
    await supervisor.connect(ours, wire.supervisor_reader())
    await worker.connect(theirs, wire.worker_reader())
    yield supervisor, worker
    supervisor.channel.close()
    worker.channel.close()


@pytest.fixture
async def raw() -> AsyncIterator[tuple[socket.socket, End]]:
    """A bare socket that can say anything, and a worker's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    worker = End()
    await worker.connect(theirs, wire.worker_reader())
    with ours:
        yield ours, worker
    worker.channel.close()


def encode(*messages: Any) -> bytes:
    data, unsent = wire.encode(list(messages))
    assert unsent == []
    return bytes(data)


def drain(number: int) -> ipc.Drain:
    return ipc.Drain(timeout=float(number))


async def test_messages_arrive_in_order_both_ways(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    for number in range(1000):
        supervisor.channel.send(drain(number))
        worker.channel.send(ipc.Ready(rss=number))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await worker.until(lambda: len(worker.messages) == 1000)
    await supervisor.until(lambda: len(supervisor.messages) == 1000)
    assert worker.messages == [drain(number) for number in range(1000)]
    assert supervisor.messages == [ipc.Ready(rss=number) for number in range(1000)]


async def test_what_is_said_in_one_turn_leaves_with_one_write() -> None:
    ours, theirs = socket.socketpair()
    end = End()
    await end.connect(ours, wire.supervisor_reader())
    theirs.setblocking(False)
    for number in range(50):
        end.channel.send(drain(number))
    await asyncio.sleep(0)
    data = await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
    assert len(list(wire.worker_reader().feed(data))) == 50
    end.channel.close()
    theirs.close()


async def test_messages_may_arrive_in_pieces_or_together(raw: tuple[socket.socket, End]) -> None:
    sock, worker = raw
    data = encode(*map(drain, range(8)))
    loop = asyncio.get_running_loop()
    for byte in data:
        await loop.sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0)
    await worker.until(lambda: len(worker.messages) == 8)
    await loop.sock_sendall(sock, data)
    await worker.until(lambda: len(worker.messages) == 16)
    assert worker.messages == [drain(number) for number in range(8)] * 2


async def test_a_message_larger_than_every_buffer_arrives(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    large = ipc.SendJob(ipc.JobSpec(1, 1, 1, 9, "a", "+628", body="\U0001f600" * 2**21))
    supervisor.channel.send(large)
    supervisor.channel.send(drain(1))
    await worker.until(lambda: len(worker.messages) == 2)
    assert worker.messages == [large, drain(1)]


async def test_no_message_is_larger_than_the_other_side_takes(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    # 300 messages of 256 KiB: more than one message may hold.
    jobs = [ipc.JobSpec(number, 1, 1, 9, "a", "+628", body="\U0001f600" * 65536) for number in range(300)]
    for job in jobs:
        supervisor.channel.send(ipc.SendJob(job))
    await worker.until(lambda: len(worker.messages) == 300 or worker.losses)
    assert worker.losses == 0
    assert [message.job.id for message in worker.messages] == list(range(300))


async def test_the_end_of_the_other_side_is_told_once(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    supervisor.channel.close()
    await worker.until(lambda: worker.losses)
    worker.channel.send(ipc.Ready(rss=1))
    worker.channel.flush()
    worker.channel.close()
    assert (worker.losses, supervisor.losses) == (1, 0)


async def test_what_was_said_before_closing_arrives(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    for number in range(100):
        supervisor.channel.send(drain(number))
    supervisor.channel.close()
    await worker.until(lambda: worker.losses)
    assert worker.messages == [drain(number) for number in range(100)]


async def test_a_killed_process_is_told() -> None:
    ours, theirs = socket.socketpair()
    end = End()
    child = await asyncio.create_subprocess_exec("sleep", "600", pass_fds=[theirs.fileno()])
    theirs.close()
    await end.connect(ours, wire.supervisor_reader())
    child.kill()
    await end.until(lambda: end.losses)
    await child.wait()
    assert end.losses == 1


@pytest.mark.parametrize("size", [0, wire.MAX_MESSAGE + 1, int.from_bytes(b"GET ", "big")])
async def test_what_is_out_of_step_is_told_once_and_what_is_said_still_arrives(
    raw: tuple[socket.socket, End], size: int
) -> None:
    sock, worker = raw
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, encode(drain(1)) + size.to_bytes(4, "big") + b"nonsense")
    await worker.until(lambda: worker.out_of_steps)
    await loop.sock_sendall(sock, encode(drain(2)))
    worker.channel.send(ipc.Defect("out of step"))
    worker.channel.flush()
    data = await loop.sock_recv(sock, 1 << 16)
    assert list(wire.supervisor_reader().feed(data)) == [ipc.Defect("out of step")]
    assert worker.messages == [drain(1)]
    assert [f"{size:,} bytes" in error for error in worker.out_of_steps] == [True]
    assert worker.losses == 0


async def test_a_message_that_cannot_be_read_is_told_and_costs_no_other(raw: tuple[socket.socket, End]) -> None:
    sock, worker = raw
    nope = encode(ipc.Ready(rss=1)) + b"\x00\x00\x00\x04nope"
    await asyncio.get_running_loop().sock_sendall(sock, encode(drain(1)) + nope + encode(drain(2)))
    await worker.until(lambda: len(worker.messages) == 2)
    assert worker.messages == [drain(1), drain(2)]
    assert [what.kind for what in worker.unreads] == ["ready", "?"]
    assert worker.losses == 0


async def test_a_message_that_cannot_be_encoded_is_told_and_costs_no_other(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    good = ipc.JobSpec(1, 1, 1, 9, "a", "+628")
    bad = ipc.JobSpec(2, 1, 1, 9, "a", "+628", details={"order": 2**70})
    for message in (drain(1), ipc.SendJob(bad), ipc.SendJob(good), drain(2)):
        supervisor.channel.send(message)
    await worker.until(lambda: len(worker.messages) == 3)
    assert worker.messages == [drain(1), ipc.SendJob(good), drain(2)]
    assert [what.item for what in supervisor.unsents] == [bad]


async def test_what_one_message_sets_off_costs_no_other(ends: tuple[End, End]) -> None:
    supervisor, worker = ends
    worker.fails_at = drain(2)
    for number in range(1, 4):
        supervisor.channel.send(drain(number))
    await worker.until(lambda: len(worker.messages) == 2)
    assert worker.messages == [drain(1), drain(3)]
    assert worker.failures == [(drain(2), "a defect")]
    assert worker.losses == 0
