"""Runs the `shardd` executable as a person or a script does: its process, output, errors and exit code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds after which a test fails because a command hangs."""
PROGRAM = Path(sys.executable).with_name("shardd")


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """Runs `shardd` with one config file."""

    def __init__(self, config_file: Path) -> None:
        self.environ = {**os.environ, "SHARDD_CONFIG": str(config_file), "COLUMNS": "120"}

    async def __call__(self, *arguments: object, stdin: str = "") -> Ran:
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), *(str(argument) for argument in arguments)),
            env=self.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            process.kill()
            raise AssertionError(f"shardd {arguments} did not end") from None
        assert process.returncode is not None
        ran = Ran(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ran.err, ran.err
        assert "a defect of shardd" not in ran.err, ran.err
        return ran
