"""Work that loads the library in a process of its own, which ends with it: making the tables, pairing, unlinking.

The library can hang for ever in a pairing, and the supervisor and the command line must not load it at all. Such a process
is told what to do by one JSON object on its standard input (arguments could be read by everybody, and there are passwords in
it), and says what happens in JSON lines. Go prints to the standard output, too, so the child keeps that for itself before
anything else and lets 1 lead to where 2 does.
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

Say = Callable[[dict[str, Any]], None]

FAREWELL: Final = 5.0
"""Seconds beyond its own deadline that a process has to say so, before it is killed."""
LIBRARY_ENVIRONMENT: Final = {"GOMAXPROCS": "1", "NEONIZE_BOT_TAG": "off"}


async def converse(module: str, request: dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
    """Run `python -m module` with this request: what it says, until its end.

    The process is told `timeout` (seconds) and killed a little later, or when the caller goes away. Raises SharddError when
    it ends badly or says nothing at all.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
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
    noise = asyncio.create_task(process.stderr.read())
    said = False
    try:
        async with asyncio.timeout(timeout + FAREWELL):
            process.stdin.write(json.dumps({**request, "timeout": timeout}).encode())
            process.stdin.close()
            while line := await process.stdout.readline():
                said = True
                yield json.loads(line)
            await process.wait()
    except TimeoutError:
        raise SharddError(f"it did not end within {timeout:g} seconds") from None
    finally:
        # Not by process.kill(): that looks whether the child has ended, which takes its exit code from asyncio's own watcher.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        await process.wait()
        last = (await noise).decode(errors="replace").strip().splitlines()[-1:]
    if process.returncode != 0 or not said:
        raise SharddError(last[0] if last else f"its process ended with code {process.returncode}")


def run(work: Callable[[dict[str, Any], Say], Awaitable[None]]) -> NoReturn:
    """The child's side: do the work that the standard input asks for, say what it says, and end whatever still hangs."""
    answers = os.dup(1)
    os.dup2(2, 1)

    def say(words: dict[str, Any]) -> None:
        os.write(answers, json.dumps(words).encode() + b"\n")

    code = 0
    try:
        asyncio.run(_bounded(work, json.load(sys.stdin), say))
    except SharddError as error:
        say({"event": "failed", "reason": scrub_urls(str(error))})
    except BaseException as error:  # noqa: BLE001 - the last line of stderr is what the other side shows
        print(scrub_urls(f"{type(error).__name__}: {error}"), file=sys.stderr, flush=True)  # noqa: T201 - there is no log here
        code = 70
    os._exit(code)


async def _bounded(work: Callable[[dict[str, Any], Say], Awaitable[None]], request: dict[str, Any], say: Say) -> None:
    timeout = float(request.pop("timeout"))
    task = asyncio.ensure_future(work(request, say))
    done, _ = await asyncio.wait([task], timeout=timeout)
    if not done:
        say({"event": "timeout", "reason": f"nothing came of it within {timeout:g} seconds"})
        return
    task.result()
