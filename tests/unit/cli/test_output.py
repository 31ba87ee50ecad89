"""Tables on terminals that are too narrow for them."""

from __future__ import annotations

import json
from collections import Counter

import click
import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text as LibraryText

from shardd.cli.legacy.commands import show_report
from shardd.cli.output import Lines, Text, ask, make_console, make_facts, make_table, print_json, say, say_error
from shardd.legacy.report import Report


@pytest.mark.parametrize("columns", [200, 80])
def test_what_is_long_gives_way_and_an_id_stays_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = make_table("id", "sent\nper hour", "reference", "waits for, or error", right=("id",))
    table.add_row("22222222-2222-2222-2222-222222222222", "12", Text("r" * 120), Text("its turn; " * 30))
    make_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("22222222-2222-2222-2222-222222222222  12        rrr")
    assert lines[-1].count("…") == 2
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", [80, 60])
def test_times_ids_and_numbers_stay_whole_while_something_else_can_give_way(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = make_table("id", "at", "kind", "sent", "device", "what", right=("sent",), whole=("at",))
    table.add_row("4711", "11-28 15:00:00", "k" * 30, "1,234,567", Text("d" * 40), Text("w" * 60))
    make_console().print(table)
    header, line = capsys.readouterr().out.splitlines()
    assert line.startswith("4711  11-28 15:00:00  kkk")
    assert "  1,234,567  ddd" in line
    assert len(line) == columns
    assert header.split() == ["id", "at", "kind", "sent", "device", "what"]


def test_headers_of_several_words_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(make_table("in 10 min", "last sent", "set aside"))
    assert capsys.readouterr().out.rstrip() == "in 10 min  last sent  set aside"


def test_a_value_makes_no_line_and_its_brackets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table("id", "why")
    table.add_row("a\nb", Text("[red]x[/red]\r\n1 forged"))
    table.add_row(LibraryText("c\nd"), "")
    make_console().print(table)
    make_console().print("one\ntwo", Text("three\nfour"))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "id    why",
        r"a\nb  [red]x[/red]\r\n1 forged",
        r"c\nd",
        r"one\ntwo three\nfour",
    ]


def test_the_lines_of_a_value_stay_beside_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(make_facts([("state", "sent\nbody x"), ("empty", ""), ("body", Lines("hello\nstate failed"))]))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        r"state  sent\nbody x",
        "body   hello",
        "       state failed",
    ]


def test_what_no_text_of_ours_holds_is_made_visible_too(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(Group(LibraryText("\x1b[2J"), "\x9b2J [red]x[/red] :smile:"))
    assert capsys.readouterr().out == "\\x1b[2J\n\\x9b2J [red]x[/red] :smile:\n"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [{"a": float("-inf")}]])
def test_a_number_that_json_cannot_say_is_null(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"n": value, "text": "\u0085\ud800"})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"n": [{"a": None}] if isinstance(value, list) else None, "text": "\u0085\ud800"}


@pytest.mark.parametrize(
    "name", ["東京東京", "cafe\u0301\u0301\u0301\u0301\u0301\u0301\u0301", "\u0301x", "a\u200bb", "\u3164", "🎉"]
)
def test_what_is_wide_or_combined_moves_no_column(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table("name", "state")
    table.add_row(name, "sent")
    table.add_row("x" * 20, "sent")
    make_console().print(table)
    _, first, second = capsys.readouterr().out.splitlines()
    assert cell_len(first.partition("sent")[0]) == cell_len(second.partition("sent")[0]) == 22


def test_the_report_of_an_import_has_the_lines_that_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\n9999 forged"
    report = Report(evil, dry_run=True, keep_all=False, finished=Counter({evil: 1}), remarks=[evil])
    report.refuse(evil, evil, evil, evil)
    report.note(evil, evil, evil, evil)
    report.doubt(evil, evil)
    show_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() and not line.strip().startswith("9999") for line in lines)
    assert len(lines) == 10


def test_a_line_and_a_question_are_made_visible() -> None:
    evil = "x\x1b[2J\n9999"

    @click.command()
    def command() -> None:
        say(evil)
        say_error(evil)
        ask(evil)

    ran = CliRunner().invoke(command, input="y\n", color=True)
    assert (ran.exit_code, ran.stdout) == (0, "x\\x1b[2J\\n9999\n")
    assert ran.stderr.startswith("x\\x1b[2J\\n9999\nx\\x1b[2J\\n9999 [y/N]: ")
