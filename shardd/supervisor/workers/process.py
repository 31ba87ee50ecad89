"""The worker of a shard, seen from the supervisor: setup, channel, heartbeat, death.

Its death is noticed by a pidfd, so that a reused pid cannot be mistaken for it. How it is exec'd is in
`shardd.supervisor.workers.launch`; restarting is up to `shardd.supervisor.workers.pool`.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shardd import ipc
from shardd.channel import Channel, Listener
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.supervisor.silence import Silence
from shardd.supervisor.workers.installed import REPLACED, were_replaced
from shardd.supervisor.workers.launch import Launched, describe_exit, stderr_of_shard
from shardd.wire import OutOfSyncError, supervisor_reader

log = get_logger(__name__)

ABORT_GRACE: Final = 2.0
"""Seconds between SIGABRT, which makes a worker print its stacks, and SIGKILL."""
OUT_OF_SYNC_GRACE: Final = 5.0
"""Seconds that a worker whose messages cannot be decoded gets to finish what has started."""
CLOSE_GRACE: Final = 20.0
"""Seconds beyond a drain in which a worker ends: its clients still have to store what WhatsApp was told they have received."""
EOF_GRACE: Final = 5.0
"""Seconds from its death to the end of its channel, at most; a child of its own may still hold the socket."""
HEARING: Final = 0.5
"""Seconds between looks at its silence, at most; a longer gap is one of the supervisor's own."""
CLOSE_TIMEOUT: Final = 60.0
"""Seconds for the close of a client: its send must end before, then it may take 40 s to store what it has received."""


class WorkerProcess:
    """A running worker. `died` is called once, with how it ended, when the process is gone and its channel has ended."""

    def __init__(self, shard: int, state_dir: Path, died: Callable[[str], None], *, epoch: int | None) -> None:
        """`epoch`: of the lease that it serves."""
        self.shard = shard
        self.epoch = epoch
        self._state_dir = state_dir
        self._died = died
        self._out_of_sync: str | None = None
        self._channel: Channel | None = None
        self._launched: Launched | None = None
        self.ready_at: float | None = None
        self.silence = Silence(counts=HEARING)
        """Since its last heartbeat, or since its start."""
        self.beat: ipc.Heartbeat | None = None
        self.rss_at_start = 0
        """Bytes that it took when it was ready."""
        self.arrived = 0
        """`Arrived` messages that were received."""
        self.gone = asyncio.Event()
        self._status: int | None = None
        """Its exit status, once it is dead."""
        self._disconnected = False
        """Nothing more will arrive on the channel."""
        self._aborted_at: float | None = None
        self._requests = itertools.count(1)
        self._closing: dict[int, asyncio.Future[None]] = {}
        """By request: clients that it was asked to close."""

    @property
    def exit_status(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None: it lives."""
        return self._status

    @property
    def pid(self) -> int:
        """The process id; 0 before `start`."""
        return self._launched.process.pid if self._launched is not None else 0

    async def start(self, launched: Launched, setup: ipc.Setup, listener: Listener) -> None:
        """Send a process its setup; `listener` gets its messages. Call it on the main thread."""
        self._launched = launched
        asyncio.get_running_loop().add_reader(launched.pidfd, self._reap)
        self._channel = await Channel.connect(launched.channel, supervisor_reader(), listener)
        if self.gone.is_set():
            self._channel.close()  # it was killed meanwhile
        self.send(setup)

    def send(self, message: ipc.ToWorker) -> bool:
        """Send the worker a message; False when it is gone."""
        if self._channel is None or self.gone.is_set():
            return False
        self._channel.send(message)
        return True

    async def close_client(self, device_id: str) -> None:
        """Close a device's client; when the worker dies, its client is gone too. Raises SharddError."""
        request = next(self._requests)
        closed = self._closing[request] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            self.send(ipc.Close(device_id, request))
            done, _ = await asyncio.wait([closed, gone], timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._closing[request]
        if not done:
            raise SharddError(
                f"the client of device {device_id} did not close within {CLOSE_TIMEOUT:g} s: the device is still sending, or "
                "what it received is still being stored; pause it, then try again"
            )

    def abort(self) -> None:
        """End a worker that does not answer: it prints its stacks, then is killed."""
        now = time.monotonic()
        if self._aborted_at is None:
            self._aborted_at = now
            self._signal(signal.SIGABRT)
        elif now > self._aborted_at + ABORT_GRACE:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    # ---- what its messages report

    def ready(self, message: ipc.Ready) -> None:
        """It takes jobs."""
        self.ready_at, self.rss_at_start = time.monotonic(), message.rss
        self.silence.end()

    def heartbeat(self, message: ipc.Heartbeat) -> None:
        """Its event loop runs."""
        self.beat = message
        self.silence.end()

    def client_closed(self, request: int) -> None:
        """The answer to `close_client`."""
        closed = self._closing.get(request)
        if closed is not None and not closed.done():
            closed.set_result(None)

    def out_of_sync(self, error: OutOfSyncError) -> None:
        """None of its messages can be decoded any more: it is replaced."""
        self._out_of_sync = f"its messages cannot be decoded any more: {error}"
        log.error(self._out_of_sync, action="defect", shard=self.shard)
        self._disconnected = True
        # It still receives: what has started may end, and is in its journal then.
        self.send(ipc.Drain(timeout=OUT_OF_SYNC_GRACE))
        asyncio.get_running_loop().call_later(OUT_OF_SYNC_GRACE + CLOSE_GRACE, self.kill)

    def disconnected(self) -> None:
        """Everything that it sent has arrived. Its death is noticed through the pidfd."""
        self._disconnected = True
        self._end()

    # ----

    def _signal(self, signum: int) -> None:
        if self._launched is not None:
            self._launched.signal(signum)

    def _reap(self) -> None:
        assert self._launched is not None
        asyncio.get_running_loop().remove_reader(self._launched.pidfd)
        self._status = self._launched.reap()
        if self._channel is None or self._disconnected:
            self.disconnected()
        else:
            # Its last messages may still be in the socket's buffer; EOF follows them.
            asyncio.get_running_loop().call_later(EOF_GRACE, self.disconnected)

    def _end(self) -> None:
        """Call `died` once it is dead and everything that it sent has arrived."""
        if self._status is None or self.gone.is_set() or not self._disconnected:
            return
        self.gone.set()
        if self._channel is not None:
            self._channel.close()
        how = self._out_of_sync or describe_exit(self._status, self._state_dir, stderr_of_shard(self.shard))
        self._died(f"{how}; {REPLACED}" if were_replaced() else how)
