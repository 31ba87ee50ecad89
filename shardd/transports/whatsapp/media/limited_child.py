"""The other end of `limited_process`: the loop of a child that analyses files.

A file is a program for its decoder, and small files can demand gigabytes or hours. The child has limits on memory and time, and
neither secrets nor connections.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec


def serve(look: Callable[[bytes, str], Any], *, may_open: bool = True) -> None:
    """Answer until the input ends. `look` gets a file and a hint, and raises nothing that a file causes.

    `may_open`: whether the child can open files and connections from now on, such as Python's own modules.

    The command line has the bytes of memory for data, and the seconds of CPU time for one file.
    """
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    # uvloop passes on inheritable descriptors, the worker's channel included, whose end must be seen when the worker exits.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(OSError):  # a service's system call filter may refuse it
        os.nice(10)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not may_open:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(9):
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, resource.RLIM_INFINITY)
        )
        length, hint_length = struct.unpack(">QB", head)
        hint = source.read(hint_length).decode()
        answer = msgspec.msgpack.encode(look(source.read(length), hint))
        target.write(struct.pack(">I", len(answer)) + answer)
        target.flush()
