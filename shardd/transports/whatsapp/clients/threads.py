"""Threads for the library's blocking calls.

Every open client keeps one thread blocked for as long as it lives, and each call in flight one more. A pool of fixed size
therefore ends in a deadlock: when it is full of clients, not even `stop` finds a thread. This one grows as needed, since the
number of clients is bounded elsewhere, and its idle threads leave after a moment, so that a closed client leaves none behind.
The threads are daemons: one that hangs in the library does not keep the process from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

IDLE_SECONDS: Final = 2.0

P = ParamSpec("P")
T = TypeVar("T")
Work = tuple["Future[Any]", Callable[[], Any]]


class ElasticThreads(ThreadPoolExecutor):
    """An executor without an upper bound. Event loops accept only a ThreadPoolExecutor as their default, hence the base."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # the base class never gets to start one
        self._guard = threading.Lock()
        self._waiting: dict[queue.SimpleQueue[Work], None] = {}
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread that is free, or in a new one."""
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
        """Take no new calls. What runs may hang in the library, so nothing is waited for."""
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
                work = inbox.get()  # it was given away in the very moment in which the wait ended


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whoever awaits the future gets it
        future.set_exception(error)
    else:
        future.set_result(result)
