"""The child processes of commands: what they run, wherever the command was called."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.errors import SharddError
from shardd.transports.whatsapp import oneshot


async def test_a_child_runs_no_module_of_the_folder_in_which_the_command_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` looks there first, and root may call `shardd device pair` in a folder that others write to."""
    (tmp_path / "json.py").write_text("raise SystemExit('of the folder')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SharddError, match="KeyError"):
        [event async for event in oneshot.converse("shardd.transports.whatsapp.linking.unlinking", {}, timeout=30)]
