"""Schemathesis reads the OpenAPI document and makes up requests: nothing but what the document says comes back."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from tests.fixtures.api import MakeProgram
from tests.support.command import Command
from tests.support.daemon import Daemon

EXAMPLES = 10
INHERENT = "positive_data_acceptance"
"""That all which the document allows is accepted: it cannot say which devices, positions and times there are."""
ENDLESS = "/events/stream"


@pytest.mark.parametrize("may", ["operate", "send"])
async def test_requests_that_a_stranger_makes_of_the_document(
    may: str, daemon: Daemon, devices: None, make_program: MakeProgram, tmp_path: Path
) -> None:
    assert (await Command(daemon.config_file)("campaign", "add", "spring")).code == 0
    program = await make_program(may)
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps((await program.get("/openapi.json")).json))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", str(document), f"--url={program.site}/api/v1",
        f"--header=Authorization: Bearer {program.token}", f"--exclude-path={ENDLESS}", f"--max-examples={EXAMPLES}",
        "--checks=all", f"--exclude-checks={INHERENT}", "--no-color", "--request-timeout=60",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert re.search(r"\b[1-9]\d* generated, ", told.decode())
