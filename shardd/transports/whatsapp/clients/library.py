"""neonize, imported once and adapted to a daemon: its loop, its threads, and a lock around its global maps.

Its import calls `logging.basicConfig`, it looks for an ffmpeg that is never used, its events find their loop through a module
variable that is set only once, its blocking calls run in the event loop's default executor, and its log does not say which client
a line is about.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, ParamSpec, TypeVar

from neonize._binder import ProxySettings
from neonize.aioze import client as neonize_client
from neonize.aioze import events as neonize_events
from neonize.aioze.client import NewAClient
from neonize.proto.Neonize_pb2 import JID, LogEntry
from neonize.utils import ffmpeg as neonize_ffmpeg
from neonize.utils.jid import Jid2String

from shardd.tasks import Line

__all__ = ["CHAT_HOST", "JID", "LibraryLock", "NewAClient", "adopt_loop", "connect", "format_jid", "parse_jid"]

CHAT_HOST: Final = "web.whatsapp.com"
"""Where whatsmeow's websocket goes; media goes to hosts that the server names."""
READ_TIME: Final = 0.02
"""Seconds after which a call has certainly looked up its client; it is not awaited any further."""
WRITE_TIMEOUT: Final = 2.0
"""Seconds that one writer may keep others out, in case the library hangs there."""
IDLE_SECONDS: Final = 2.0
"""After which an idle thread ends."""

P = ParamSpec("P")
T = TypeVar("T")
Work = tuple["Future[Any]", Callable[[], Any]]

# The Go side logs at the level of this logger; the messages themselves go to loggers named whatsmeow.*. It must not be higher:
# only warnings show that a message would leave without a copy for anybody (`messages.copies`).
_level: Final = logging.getLogger("neonize.utils.log")
_level.setLevel(logging.WARNING)
neonize_ffmpeg._ffmpeg_checked = True  # noqa: SLF001 - or it warns that media cannot be sent, which is wrong


def adopt_loop() -> None:
    """Let events arrive in the running event loop, and blocking calls run in threads of it."""
    loop = asyncio.get_running_loop()
    neonize_events.event_global_loop = loop
    loop.set_default_executor(ElasticThreads())


async def connect(
    handle: NewAClient, proxy: str, logged: Callable[[str], None], *, verbose: bool = False
) -> asyncio.Task[None]:
    """Start a client; the task ends when the client is stopped. One at a time.

    `logged` gets each line that this client logs, in a thread of the library, and the library waits for it to return: Go calls it
    inside its own call (`goneonize/utils/log.go`), while the library's own listener only queues the line for another thread. The
    listener is a global that `connect` reads before it first awaits. `verbose`: also what the library logs at the level debug,
    each stanza among it, which costs up to a quarter more CPU.
    """
    usual = neonize_client.log_whatsmeow

    def listen(address: int, size: int) -> None:
        entry = LogEntry.FromString(ctypes.string_at(address, size))
        try:
            logged(entry.Message)
        finally:
            if entry.Level != "DEBUG":
                usual(address, size)

    neonize_client.log_whatsmeow = listen
    _level.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        task: asyncio.Task[None] = await handle.connect(ProxySettings(proxy))
        if verbose:
            await asyncio.sleep(0)  # the task reads the level in its first step
    finally:
        neonize_client.log_whatsmeow = usual
        _level.setLevel(logging.WARNING)
    return task


def parse_jid(text: str) -> JID:
    """`628…:1@s.whatsapp.net`, with or without a device number, as the library's JID. Raises ValueError."""
    user, at, server = text.partition("@")
    name, _, device = user.partition(":")
    if not at or not name or not server or (device and not device.isdecimal()):
        raise ValueError(f"{text!r} is not a JID: write user@server, such as 6281234567890@s.whatsapp.net")
    return JID(User=name, Device=int(device or 0), Server=server, RawAgent=0, Integrator=0, IsEmpty=False)


def format_jid(jid: JID) -> str:
    """A JID as the library writes it; device 0 is left out."""
    return str(Jid2String(jid))


class LibraryLock:
    """One writer or any number of readers of the library's global maps. One for each event loop that uses the library.

    The library keeps its clients in Go maps without locks. Connecting and stopping write to them, every other call reads them
    as its first step, and Go ends the whole process when it notices the two at once. One processor (GOMAXPROCS=1) makes that
    rare, not impossible: a map that grows allocates, and an allocation may wait for the garbage collector in the middle of a
    write. So writers are alone, and readers pass here first. A connect holds it for the time in which the library opens its
    database: a few milliseconds, many on a busy machine. A message needs several calls, so writers and readers take turns: none
    waits for more than one writer, or all messages would wait until the last of many devices has connected.
    """

    def __init__(self) -> None:
        self._inside = 0
        """Readers that have not certainly read."""
        self._writing = False
        self._readers = Line()
        self._writers = Line()

    async def read(self, call: Callable[[], asyncio.Future[Any]]) -> asyncio.Future[Any]:
        """Start a call that only reads; returns once it has certainly read, or is done."""
        if self._writing or self._writers:
            await self._readers.wait(self._read)
        else:
            self._inside += 1
        try:
            running = call()
        except BaseException:
            self._read()
            raise
        try:
            await asyncio.wait([running], timeout=READ_TIME)
        except asyncio.CancelledError:
            self._leave_after(running)  # it goes on without who waited
            raise
        self._read()
        return running

    def _leave_after(self, running: asyncio.Future[Any]) -> None:
        has_left = False

        def leave(*_: object) -> None:
            nonlocal has_left
            if not has_left:
                has_left = True
                self._read()

        running.add_done_callback(leave)
        asyncio.get_running_loop().call_later(READ_TIME, leave)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """While this is held no other call is in the maps."""
        if self._writing or self._inside or self._writers:
            await self._wait_to_write()
        else:
            self._writing = True
        try:
            yield
        finally:
            self._written()

    async def _wait_to_write(self) -> None:
        try:
            await self._writers.wait(self._written)
        except asyncio.CancelledError:
            if not self._writers and not self._writing:  # readers waited for this writer only
                self._let_readers_in()
            raise

    def _read(self) -> None:
        self._inside -= 1
        if not self._inside:
            self._let_writer_in()

    def _written(self) -> None:
        """All that waited for it go before the next writer, and those that come later after that."""
        self._writing = False
        self._let_readers_in()
        if not self._inside:
            self._let_writer_in()

    def _let_readers_in(self) -> None:
        while self._readers.let_in():
            self._inside += 1

    def _let_writer_in(self) -> None:
        if not self._writing:
            self._writing = self._writers.let_in()


class ElasticThreads(ThreadPoolExecutor):
    """Threads for the library's blocking calls, without an upper bound.

    Every open client blocks one thread for as long as it lives, and each call in flight one more. A pool of fixed size therefore
    deadlocks: when it is full of clients, not even `stop` finds a thread. The number of clients is bounded elsewhere, and idle
    threads end after a moment. They are daemons: one that hangs in the library does not keep the process alive.

    Event loops accept only a ThreadPoolExecutor as their default, hence the base; it never starts a thread of its own.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._guard = threading.Lock()
        self._waiting: dict[queue.SimpleQueue[Work], None] = {}
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in an idle thread, or in a new one."""
        future: Future[T] = Future()
        work: Work = (future, lambda: fn(*args, **kwargs))
        with self._guard:
            if self._closed:
                raise RuntimeError("no new calls after shutdown")
            inbox = self._waiting.popitem()[0] if self._waiting else None
        if inbox is None:
            threading.Thread(target=self._live, args=(work,), name="library-call", daemon=True).start()
        else:
            inbox.put(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - see the body
        """Accept no new calls. Running ones may hang in the library, so none is awaited."""
        with self._guard:
            self._closed = True

    def _live(self, work: Work) -> None:
        inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
        while True:
            _run(*work)
            del work  # an idle thread must not keep the last call's client alive
            with self._guard:
                self._waiting[inbox] = None
            try:
                work = inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._guard:
                    if inbox in self._waiting:
                        del self._waiting[inbox]
                        return
                work = inbox.get()  # it was handed work at the very moment its wait ended


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whoever awaits the future gets it
        future.set_exception(error)
    else:
        future.set_result(result)
