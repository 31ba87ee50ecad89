"""The `shardd` command, run by an operator whose network has no faults, and repeated until it is answered."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from shardd.errors import UsageError
from stormlib.log import Log
from stormlib.node import send

TRY_LIMIT = 60.0
"""Seconds after which a try is given up: the database may be frozen. A very busy machine needs half of them to load it."""
AGAIN_AFTER = 0.3


class Command:
    """`environ`: of its processes."""

    def __init__(self, folder: Path, dsn: str, environ: Mapping[str, str], log: Log) -> None:
        folder.mkdir()
        self._config = folder / "shards.yaml"
        self._config.write_text(
            yaml.safe_dump({"node": "operator", "state_dir": str(folder / "state"), "database": {"dsn": dsn}})
        )
        self._environ = dict(environ)
        self._log = log

    async def run(self, *words: str) -> dict[str, Any]:
        """Repeat a command until it has done what can be done; returns the JSON that it printed, if any.

        Raises RuntimeError: it can never be done.
        """
        whole = [sys.executable, "-m", "shardd.cli.main", *words, f"--config={self._config}"]
        while True:
            process = await asyncio.create_subprocess_exec(
                *whole, env=self._environ, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(TRY_LIMIT):
                    printed, said = (text.decode() for text in await process.communicate())
            except TimeoutError:
                printed, said = "", "no answer in time"
            finally:
                if process.returncode is None:
                    send(process.pid, signal.SIGKILL)
                    await process.wait()
            done = process.returncode == 0 or (process.returncode == UsageError.exit_code and printed.startswith("{"))
            last = "".join(deque(said.splitlines(), 1))
            self._log.write("command", words=words, code=process.returncode, printed=printed.strip(), said=last)
            if done:
                found: dict[str, Any] = json.loads(printed) if printed.startswith("{") else {}
                return found
            if process.returncode == UsageError.exit_code:
                raise RuntimeError(f"shardd {' '.join(words)}: {said}")
            await asyncio.sleep(AGAIN_AFTER)
