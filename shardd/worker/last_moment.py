"""The kernel ends this process at a given moment, whatever it does by then.

A worker that hangs, is stopped (SIGSTOP), or sleeps with its machine cannot close its clients when its lease ends, and one that
goes on afterwards might send before it looks at a clock. The kernel can: a timer of its own, on the clock that goes on during a
suspend, sends SIGKILL. After a suspend that is before any program runs again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Final

_SIGEV_SIGNAL: Final = 0
_TIMER_ABSTIME: Final = 1
_NANO: Final = 1_000_000_000


class _Event(ctypes.Structure):
    """`struct sigevent`: 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("_rest", ctypes.c_char * (64 - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class LastMoment:
    """A timer of the kernel that ends this process; one that is not set never does."""

    def __init__(self) -> None:
        """Raises OSError when the kernel has no timer for this user (see RLIMIT_SIGPENDING)."""
        self._library = _library()
        self._timer = ctypes.c_void_p()
        event = _Event(signo=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        self._check(self._library.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)))

    def set(self, at: float) -> None:
        """End this process at this moment of `shardd.clock`, or at once if it has passed, instead of at an earlier one."""
        # A moment of 0 would stop the timer.
        nanoseconds = max(1, int(at * _NANO))
        times = _Times(0, 0, *divmod(nanoseconds, _NANO))
        self._check(self._library.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(times), None))

    @staticmethod
    def _check(result: int) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    # Before version 2.34 of glibc these functions were in a library of their own.
    return library if hasattr(library, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)
