"""Tables on terminals that are too narrow for them."""

from __future__ import annotations

import pytest
from rich.text import Text

from shardd.cli.output import make_console, make_table


@pytest.mark.parametrize("columns", [200, 80])
def test_what_is_long_gives_way_and_an_id_stays_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = make_table("id", "sent\nper hour", "reference", "waits for, or error", right=("id",))
    table.add_row("22222222-2222-2222-2222-222222222222", "12", Text("r" * 120), Text("its turn; " * 30))
    make_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("22222222-2222-2222-2222-222222222222 12       rrr")
    assert lines[-1].count("…") == 2
    assert max(map(len, lines)) <= columns
