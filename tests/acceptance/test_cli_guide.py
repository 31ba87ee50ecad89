"""`shardd guide` as a person has it: in a pager on a terminal, as plain text in a pipe, and from an installed wheel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.command import Command
from tests.support.terminal import COLOURS, Terminal


async def test_a_pager_shows_a_page_in_colours(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nprintf 'in the pager\\n'\nexec cat\n")
    pager.chmod(0o755)
    async with Terminal({**os.environ, "PAGER": str(pager)}, "guide", "pace", columns=60) as terminal:
        await terminal.until("Commands on this page")
        assert await terminal.process.wait() == 0
    lines = terminal.text.splitlines()
    assert lines[0] == "in the pager"
    assert max(len(line) for line in lines if not line.startswith("    ")) <= 60
    assert "`" not in terminal.text  # colours show what is code


async def test_a_screenful_is_shown_without_waiting_for_a_key(tmp_path: Path) -> None:
    """By less, the usual pager, if it is there; otherwise by more, which has no colours."""
    environ = {key: value for key, value in os.environ.items() if key not in ("PAGER", "LESS")}
    async with Terminal(environ, "guide", lines=60) as terminal:
        assert await terminal.process.wait() == 0
        await terminal.until("third-party")
    assert bool(COLOURS.search(terminal.painted)) == (shutil.which("less") is not None)


async def test_a_pipe_gets_plain_text_without_a_config(tmp_path: Path) -> None:
    shardd = Command(tmp_path / "missing.yaml")
    ran = await shardd("guide", "pace")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Pacing\n======\n\n")
    assert "\x1b" not in ran.out
    unknown = await shardd("guide", "pacing")
    assert (unknown.code, unknown.out) == (64, "")
    assert unknown.err == "shardd: the guide has no page 'pacing'; did you mean pace? all pages: shardd guide\n"
