"""Every command, argument and option, with what nobody should write there: one line, an honest exit code, no traceback.

The commands run in this process, as `main` runs them, because there are some hundreds of cases.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from shardd.cli import main as entry
from tests.support.command import Command
from tests.support.queue_rows import add_devices, insert_jobs

NOT_UTF8 = b"x\xff\xfe".decode(errors="surrogateescape")
HOSTILE = {
    "no UTF-8": NOT_UTF8,
    "Arabic digits": "٣",
    "underscores": "1_0",
    "5000 digits": "9" * 5000,
    "negative": "-7",
    "empty": "",
    "long": "x" * 100_000,
    "controls": "\x1b[2J\r\n9999 forged\x07",
    "NaN": "nan",
    "infinity": "1e9999",
    "spaces": "  3 ",
    "JSON": '{"a":' * 3000,
    "a lone percent": "%s%n{0}{id}",
}
HONEST = {0, 1, 3, 4, 5, 64, 65, 69, 75, 78, 130}
"""Of sysexits.h and the help of the commands; 70 would be a defect, and 2 click's own."""


@dataclass(frozen=True)
class Case:
    """A command line."""

    words: tuple[str, ...]
    parameter: str
    kind: str

    def __str__(self) -> str:
        return f"{' '.join(self.words[:3])[:40]} {self.parameter}: {self.kind}"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


GOOD = {
    "transport": "sandbox",
    "source": "/dev/null",
    "group": "team",
    "job_id": "1",
    "shard": "0",
    "numbers": "628123",
    "recipients": "+4915112345678",
    "recipient": "+4915112345678",
    "file": "/dev/null",
}


def good_value(parameter: click.Parameter) -> str:
    return GOOD.get(str(parameter.name), "one")


def lines_of(path: tuple[str, ...], command: click.Command, hostile: click.Parameter, value: str) -> list[str]:
    """A command line that is right but for one value."""
    words = list(path)
    last: list[str] = []
    for parameter in command.params:
        is_hostile = parameter is hostile
        if not is_hostile and not parameter.required:
            continue
        said = value if is_hostile else good_value(parameter)
        if isinstance(parameter, click.Option):
            words.append(f"{max(parameter.opts, key=len)}={said}")
        else:
            last += [said]
    if "yes" in {parameter.name for parameter in command.params}:
        words.append("--yes")
    return [*words, "--", *last] if last else words


def cases(kind: str) -> Iterator[Case]:
    for path, command in commands(entry.cli):
        for parameter in command.params:
            if parameter.type is click.UNPROCESSED or (isinstance(parameter, click.Option) and parameter.is_flag):
                continue
            yield Case(tuple(lines_of(path, command, parameter, HOSTILE[kind])), str(parameter.name), kind)


@pytest.fixture
def place(dsn: str, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_devices(dsn, "one")
    insert_jobs(dsn, "one")
    monkeypatch.setenv("SHARDD_CONFIG", str(config_file))
    monkeypatch.setenv("COLUMNS", "100")


def run(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, stdin: bytes = b"") -> object:
    """The exit code, in a folder of its own: `db backup FILE` and `setup systemd --root=` write there."""
    monkeypatch.setattr(sys, "argv", ["shardd", *words])
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file, "utf-8"))
        with pytest.raises(SystemExit) as ended:
            entry.main()
    return ended.value.code or 0


def check_told(code: object, err: str, out: str) -> None:
    assert code in HONEST, (code, err[:500])
    assert "Traceback" not in err
    assert "a defect of shardd" not in err
    assert all(line.isprintable() and len(line) <= 2100 for line in err.splitlines()), err[:3000]
    assert all(line.isprintable() for line in out.splitlines())
    if code != 0:
        assert err.count("\n") == 1, err[:3000]


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_value_of_every_command_is_taken_or_refused_in_one_line(
    place: None, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`job retry --campaign=<bytes that are no UTF-8>` ended in a traceback."""
    failed = []
    for case in cases(kind):
        try:
            code = run(case.words, monkeypatch)
            told = capsys.readouterr()
            check_told(code, told.err, told.out)
            if case.kind == "no UTF-8":
                assert code == 64
        except Exception as error:  # noqa: BLE001  all of them are shown at once
            failed.append(f"{case}: {type(error).__name__} {str(error)[:400]}")
            capsys.readouterr()
    assert not failed, f"{len(failed)}\n" + "\n".join(failed[:40])


async def test_bytes_that_are_no_utf_8_are_refused_as_a_shell_hands_them_over(shardd: Command) -> None:
    ran = await shardd("job", "retry", f"--campaign={NOT_UTF8}")
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == "shardd: the argument --campaign=x\\xff\\xfe is not UTF-8: write it in UTF-8\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("stauts",),
            "No such command 'stauts'. (Did you mean one of: 'restart', 'start', 'status'?); see shardd --help",
        ),
        (("devices", "list"), "No such command 'devices'. Did you mean 'device'?; see shardd --help"),
        (("job", "rety", "1"), "No such command 'rety'. Did you mean 'retry'?; see shardd job --help"),
        (("status", "--jsno"), "No such option '--jsno'. Did you mean '--json'?; see shardd status --help"),
    ],
)
async def test_a_slip_of_the_pen_is_answered_with_what_was_meant(
    shardd: Command, words: tuple[str, ...], error: str
) -> None:
    ran = await shardd(*words)
    assert (ran.code, ran.out, ran.err) == (64, "", f"shardd: {error}\n")


async def test_without_a_file_the_usual_config_is_checked(shardd: Command) -> None:
    ran = await shardd("config", "check")
    assert ran.code == 0
    assert ran.out.startswith(f"{shardd.environ['SHARDD_CONFIG']}: good (")


async def test_a_state_without_devices_is_not_called_a_fleet_without_any(shardd: Command) -> None:
    ran = await shardd("device", "list", "--state=paused")
    assert (ran.code, ran.out) == (0, "no such devices; all of them: shardd device list\n")


STDIN = {
    "no UTF-8": b"one\n\xff\xfe\n",
    "NUL": b"on\0e\n",
    "UTF-16": "one\n".encode("utf-16"),
    "long line": b"x" * 3_000_000,
    "controls": b"\x1b[2J\x07\n",
    "nothing": b"",
    "only remarks": b"# one\n\n",
    "5000 digits": b"9" * 4000 + b"\n",
}


READERS = (
    ("job", "cancel", "-", "--yes"),
    ("device", "pause", "-"),
    ("group", "add", "team", "-"),
    ("campaign", "pause", "-"),
    ("opt-out", "add", "-"),
)


def test_names_on_stdin_are_taken_or_refused(
    place: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in READERS:
        for kind, content in STDIN.items():
            code = run(words, monkeypatch, content)
            told = capsys.readouterr()
            check_told(code, told.err, told.out)
            assert code == 64, (words, kind, told)


FILES = {
    "no UTF-8": b"recipient,note\n+4915112345678,\xff\n",
    "UTF-16": "recipient,note\n+4915112345678,x\n".encode("utf-16"),
    "NUL in a note": b"recipient,note\n+4915112345678,a\0b\n",
    "NUL in a number": b"+4915112345678\0\n",
    "long header": b"recipient," + b"x" * 200_000 + b"\n+4915112345678,x\n",
    "long field": b"recipient,note\n+4915112345678," + b"x" * 200_000 + b"\n",
    "long line": b"9" * 3_000_000,
    "no column": b"\x1b[2J,b\n1,2\n",
    "an open quote": b'recipient,note\n+4915112345678,"x\n',
    "other digits": "recipient\n\u0664\u0669\u0661\u0665\u0661\u0661\n".encode(),
    "bad moments": b"recipient,said_at\n+4915112345678,9999-99-99\n",
    "far moments": b"recipient,said_at\n+4915112345678,0001-01-01T00:00:00+23:59\n",
}


REFUSED = {"no UTF-8", "UTF-16", "no column", "bad moments", "long header", "NUL in a note", "NUL in a number"}


def test_a_file_of_opt_outs_is_taken_or_refused(
    place: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "list.csv"
    for kind, content in FILES.items():
        file.write_bytes(content)
        for source in (str(file), "-"):
            code = run(("opt-out", "import", source), monkeypatch, content)
            told = capsys.readouterr()
            check_told(code, told.err, told.out)
            assert code == 64 or kind not in REFUSED, (kind, told)


@pytest.mark.parametrize("name", ["SHARDD_CONFIG", "SHARDD_IMPORT_FROM", "SHARDD_IMPORT_SESSIONS"])
def test_variables_that_are_no_utf_8_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, NOT_UTF8)
    code = run(("import", "legacy", "--yes", "--from=x"), monkeypatch)
    told = capsys.readouterr()
    check_told(code, told.err, told.out)
    assert code == 64
    assert name in told.err


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        "shards: 2\n".encode("utf-16"),
        b"shards: \xff\n",
        b"shards: ${ODD}\n",
        b"node: ${ODD}\n",
        b"shards: \xd9\xa3\n",
        b"shards: " + b"9" * 5000,
        b"shards: 1_0\n",
        b"a\0b: 1\n",
        b"[" * 5000,
        b"a: " * 5000,
        b"queue: {claim: .nan}\n",
        b'"\\x1b[2J\\n9999 forged": "\\x07"\n',
        b"",
    ],
    ids=lambda content: content[:20].decode("latin-1").encode("unicode_escape").decode(),
)
def test_config_files_in_other_encodings_are_refused_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file = tmp_path / "shards.yaml"
    file.write_bytes(content)
    monkeypatch.setenv("ODD", NOT_UTF8)
    code = run(("config", "check", str(file)), monkeypatch)
    told = capsys.readouterr()
    assert code == (78 if content else 0), told
    assert "defect" not in told.err
    assert all(line.isprintable() and len(line) <= 2100 for line in told.err.splitlines())
    assert all(line.startswith(str(file)) or line.endswith("errors") for line in told.err.splitlines())
