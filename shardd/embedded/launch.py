"""Run a program as another account, and no longer than its parent.

Run as a script (`python -I -S launch.py UID GID PARENT_PID PROGRAM ARGUMENT…`), it changes to the account, asks the kernel to
interrupt the program when its parent dies, and replaces itself with the program. A script, not `preexec_fn`, because no Python
code is safe between fork and exec in a process with threads. The order matters: changing the account clears the parent-death
signal. It imports nothing of shardd, so that it starts within milliseconds.

To the kernel, the parent is the *thread* that started this script.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the program; an error prints one line and exits with 126."""
    uid, gid, parent = (int(number) for number in arguments[:3])
    command = arguments[3:]
    try:
        if os.geteuid() != uid:
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
        # SIGINT is PostgreSQL's fast shutdown: transactions are rolled back, committed data is written.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)  # cannot fail with a valid signal
        if os.getppid() != parent:  # it died before the signal was set up
            return
        os.execv(command[0], command)  # noqa: S606 - no shell, on purpose
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]} as uid {uid}: {error.strerror}\n")
        sys.exit(126)


if __name__ == "__main__":
    main(sys.argv[1:])
