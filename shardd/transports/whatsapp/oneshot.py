"""Work that loads the library in a child process, which exits with it: making the tables, pairing, unlinking.

The library can hang for ever in a pairing, and the supervisor and the command line must not load it at all. The child reads
its request, a line of JSON with passwords in it, from standard input, because everybody can read arguments. The end of that is
the end of its caller, also of one that was killed. It reports events as JSON lines. Go prints to standard output, too, so the
child keeps that for itself first and points 1 to where 2 leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, NoReturn

from shardd.errors import SharddError
from shardd.postgres.dsn import without_libpq
from shardd.urls import scrub_urls

Report = Callable[[dict[str, Any]], None]
Work = Callable[[dict[str, Any], Report], Awaitable[None]]

GRACE: Final = 5.0
"""Seconds beyond its own deadline in which a child may report that, before it is killed."""
UNDOING: Final = 75.0
"""Seconds in which a child whose caller is gone may undo what it has begun."""
LIBRARY_ENVIRONMENT: Final = {"GOMAXPROCS": "1", "NEONIZE_BOT_TAG": "off"}


async def converse(module: str, request: dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
    """Run `python -m module` with this request; yields its events until its end.

    The child knows `timeout` (seconds) and is killed a little later, or when the caller goes away. Raises SharddError when
    it fails or reports nothing at all.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # no module of the folder in which the command was called
        "-m",
        module,
        env={**without_libpq(os.environ), **LIBRARY_ENVIRONMENT},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a ^C at the terminal is the caller's to handle
    )
    pidfd = os.pidfd_open(process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stderr = asyncio.create_task(process.stderr.read())
    reported = False
    try:
        async with asyncio.timeout(timeout + GRACE):
            process.stdin.write(json.dumps({**request, "timeout": timeout}).encode() + b"\n")
            while line := await process.stdout.readline():
                reported = True
                yield json.loads(line)
            await process.wait()
    except TimeoutError:
        raise SharddError(f"it did not end within {timeout:g} seconds") from None
    finally:
        # Not by process.kill(): it polls the child, which takes the exit code from asyncio's own watcher.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        await process.wait()
        last = (await stderr).decode(errors="replace").strip().splitlines()[-1:]
    if process.returncode != 0 or not reported:
        raise SharddError(last[0] if last else f"its process ended with code {process.returncode}")


def run(work: Work, *, alone: bool = True) -> NoReturn:
    """The child's side: do the requested work, report its events, and exit whatever still hangs.

    `alone`: without its caller, the work is still worth finishing. Otherwise it is cancelled then.
    """
    output = os.dup(1)
    os.dup2(2, 1)

    def report(event: dict[str, Any]) -> None:
        os.write(output, json.dumps(event).encode() + b"\n")

    code = 0
    try:
        asyncio.run(_bounded(work, json.loads(sys.stdin.readline()), report, alone=alone))
    except SharddError as error:
        report({"event": "failed", "reason": scrub_urls(str(error))})
    except BaseException as error:  # noqa: BLE001 - the parent shows the last line of stderr
        print(scrub_urls(f"{type(error).__name__}: {error}"), file=sys.stderr, flush=True)  # noqa: T201 - there is no log here
        code = 70
    os._exit(code)


async def _bounded(work: Work, request: dict[str, Any], report: Report, *, alone: bool) -> None:
    timeout = float(request.pop("timeout"))
    task = asyncio.ensure_future(work(request, report))
    caller_gone = asyncio.ensure_future(asyncio.Event().wait() if alone else _caller_gone())
    done, _ = await asyncio.wait([task, caller_gone], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        report({"event": "timeout", "reason": f"it did not end within {timeout:g} seconds"})
    elif task in done:
        task.result()
    else:
        task.cancel()
        await asyncio.wait([task], timeout=UNDOING)


async def _caller_gone() -> None:
    """Wait until nobody holds the other end of standard input."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(sys.stdin, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(sys.stdin)
