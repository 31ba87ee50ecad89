"""Strangers' texts in an operator's views: every view, on a real terminal, in a pipe, and as JSON."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardd.config import load_config
from shardd.states import ShardState
from shardd.supervisor.admin.control import Control
from shardd.supervisor.admin.starting import Starting
from shardd.supervisor.status import Status
from shardd.supervisor.systemd import Notifier
from tests.support.command import Command
from tests.support.daemon import Daemon
from tests.support.queue_rows import connect
from tests.support.terminal import COLOURS, SCREEN, Terminal
from tests.unit.cli.test_status_view import node

EVIL = (
    "x\x1b[2J\x1b[38;5;213m\x1b]52;c;aGk=\x07\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\\x9b2J\x7f\r"
    "\n9999 sent  forged\u202egnp\u2066\u200b\u200d\ufeff[red]r[/red][link=http://evil.example]l[/link] \u0301東京"
)
"""Clears the screen, colours, writes the clipboard, links, returns the carriage, imitates a row, turns the direction around."""


@dataclass(frozen=True)
class Rows:
    """What was written to the database."""

    job: str


STATEMENTS = (
    "INSERT INTO shardd.devices (id, transport) VALUES ('shop', 'sandbox'), ('shut', 'whatsapp')",
    "UPDATE shardd.devices SET label = %(evil)s, paused_at = now(), paused_why = %(evil)s WHERE id = 'shop'",
    "UPDATE shardd.devices SET state = 'banned', reason = %(evil)s WHERE id = 'shut'",
    "INSERT INTO shardd.device_groups (id, label) VALUES ('team', %(evil)s)",
    "INSERT INTO shardd.device_group_members VALUES ('team', 'shop')",
    "INSERT INTO shardd.campaigns (id, label) VALUES ('spring', %(evil)s)",
    "UPDATE shardd.campaigns SET state = 'paused', why = %(evil)s",
    """INSERT INTO shardd.jobs (device_id, recipient, kind, media, file_name, mime_type, body, campaign, order_group, reference,
        dedupe_key, metadata) VALUES ('shop', '+4915112345678', 'document', 'https://example.com/a', %(evil)s, 'text/plain',
        %(line)s, 'spring', %(evil)s, %(evil)s, %(evil)s, %(json)s)""",
    "UPDATE shardd.jobs SET error = %(evil)s",
    """INSERT INTO shardd.opt_outs (recipient, note, words, source, created_by)
        VALUES ('+4915199999999', %(evil)s, %(evil)s, 'operator', 'me')""",
    """INSERT INTO shardd.webhook_cursors (name, kinds, target, node, incarnation, expires_at, error)
        VALUES ('crm', '{job.*}', '', 'n', gen_random_uuid(), now(), %(evil)s)""",
    """INSERT INTO shardd.webhook_failures (name, id, event_id, at, kind, body, tries, error)
        VALUES ('crm', 1, 'evt_1_a', now(), 'job.sent', '', 1, %(evil)s)""",
)
"""A row of everything that has a text of others."""


@pytest.fixture
def rows(dsn: str, config_file: object) -> Rows:
    # The body of a message may have lines: that they stay in their column has a test of its own.
    values = {"evil": EVIL, "line": EVIL.replace("\n", ""), "json": json.dumps({EVIL: EVIL})}
    with connect(dsn) as connection:
        for statement in STATEMENTS:
            connection.execute(statement, values)
        row = connection.execute("SELECT id FROM shardd.jobs").fetchone()
    assert row is not None
    return Rows(str(row[0]))


VIEWS = (
    "job list",
    "job show JOB",
    "job list --reference EVIL",
    "device list",
    "device show shop",
    "device show shut",
    "group list",
    "group show team",
    "campaign list",
    "campaign show spring",
    "event list",
    "opt-out list",
    "opt-out show +4915199999999",
    "webhook list",
    "webhook failed crm",
)


def arguments(view: str, rows: Rows) -> list[str]:
    return [{"JOB": rows.job, "EVIL": EVIL}.get(word, word) for word in view.split()]


def check_harmless(painted: bytes) -> None:
    """Whatever a terminal obeys here is ours: colours, and the ends of lines."""
    assert b"\x1b[38;5;213m" not in painted
    text = SCREEN.sub(b"", COLOURS.sub(b"", painted)).decode().replace("\r\n", "\n")
    assert [sign for sign in text if sign != "\n" and not sign.isprintable()] == []
    assert [line for line in text.splitlines() if line.strip().startswith("9999")] == []


async def test_no_view_lets_a_terminal_obey_a_stranger(shardd: Command, rows: Rows) -> None:
    for view in VIEWS:
        words = arguments(view, rows)
        async with Terminal(shardd.environ, *words, columns=240) as terminal:
            code, piped = await asyncio.gather(terminal.end(), shardd(*words))
        assert (code, piped.code, piped.err) == (0, 0, ""), (view, terminal.text)
        check_harmless(terminal.painted)
        assert r"\x1b[2J" in terminal.text, view
        assert "[red]" in terminal.text or "…" in terminal.text, view
        check_harmless(piped.out.encode())
        assert "\x1b" not in piped.out, view


async def test_json_says_every_text_exactly_and_shows_a_terminal_none(shardd: Command, rows: Rows) -> None:
    for view in (*VIEWS, "opt-out export"):
        words = [*arguments(view, rows), "--json"]
        async with Terminal(shardd.environ, *words) as terminal:
            code, piped = await asyncio.gather(terminal.end(), shardd(*words))
        assert (code, piped.code, piped.err) == (0, 0, ""), (view, terminal.text)
        for painted in (piped.out.encode(), terminal.painted):
            check_harmless(painted)
            assert EVIL in texts(json.loads(painted)), view


async def test_json_is_ascii_where_the_locale_is_not_utf_8(shardd: Command, rows: Rows) -> None:
    shardd.environ["PYTHONIOENCODING"] = "latin-1"
    assert EVIL in texts((await shardd("job", "show", rows.job, "--json")).json)
    assert (await shardd("job", "list")).code == 0


async def test_an_export_is_exact_in_a_pipe_and_harmless_on_a_terminal(shardd: Command, rows: Rows) -> None:
    piped = await shardd("opt-out", "export")
    (row,) = csv.DictReader(io.StringIO(piped.out, newline=""))
    assert (row["note"], row["words"]) == (EVIL, EVIL)
    async with Terminal(shardd.environ, "opt-out", "export") as terminal:
        assert await terminal.end() == 0
    check_harmless(terminal.painted)


async def test_errors_and_questions_quote_harmlessly(shardd: Command, rows: Rows, tmp_path: Path) -> None:
    config = tmp_path / f"{EVIL.replace('/', '')}.yaml"
    config.write_text(f"{json.dumps(EVIL)}: 1\nshards: {json.dumps(EVIL)}\n")
    commands = (
        ["job", "list", "--campaign", EVIL],
        ["job", "show", EVIL],
        ["job", "list", "--limit", EVIL],
        ["job", "list", "--state", EVIL],
        ["job", f"--{EVIL}"],
        [EVIL],
        ["device", "add", EVIL, "--transport", "sandbox"],
        ["event", "list", "--after", EVIL],
        ["event", "list", "--kind", EVIL],
        ["webhook", "retry", EVIL],
        ["config", "check", str(config)],
        ["config", "check", EVIL],
        ["opt-out", "add", EVIL],
        ["import", "legacy", "--from", EVIL, "--yes"],
    )
    for words in commands:
        async with Terminal(shardd.environ, *words, columns=240) as terminal:
            code = await terminal.end()
        assert code in {64, 65, 78}, (words, terminal.text)
        check_harmless(terminal.painted)


async def test_a_long_error_breaks_between_words_on_a_terminal_and_is_one_line_elsewhere(shardd: Command) -> None:
    words = ["job", "retry"]
    piped = await shardd(*words)
    async with Terminal(shardd.environ, *words, columns=60) as terminal:
        assert await terminal.end() == 64
    lines = terminal.text.replace("\r\n", "\n").splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 60 for line in lines)
    assert " ".join(lines) + "\n" == piped.err


TIMED = {
    "event list": r"\d\d-\d\d \d\d:\d\d:\d\d ",
    "opt-out list": r" (now|\d+[smhd] ago) ",
    "device list": "last sent",
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("view", TIMED)
async def test_times_and_states_are_not_cut(shardd: Command, rows: Rows, view: str, columns: int) -> None:
    async with Terminal(shardd.environ, *view.split(), columns=columns) as terminal:
        assert await terminal.end() == 0
    lines = terminal.text.replace("\r\n", "\n").splitlines()
    if columns == 80 or view == "device list":
        assert any(re.search(TIMED[view], line) for line in lines), lines
    else:
        assert any(re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines), lines
    assert all(len(line) <= columns for line in lines)
    assert re.search(r"\w  \w", lines[0])


async def test_a_daemon_on_a_terminal_says_that_it_runs_though_its_log_is_silent(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(log={"level": "warning", "format": "auto"})
    daemon.write_config()
    async with Terminal({**os.environ, "SHARDD_CONFIG": str(daemon.config_file)}, "start") as terminal:
        await terminal.until("shardd is running: 2/2 shards")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.end() == 0
    assert terminal.text.count("is running") == 1


class EvilNode:
    """What a control socket asks of a supervisor, with the texts of strangers in its answer."""

    def status(self) -> Status:
        healthy = node(2, down={1: ShardState.BROKEN})
        return msgspec.structs.replace(
            healthy, node=EVIL, version=EVIL, database=EVIL, problems=[EVIL, EVIL], notes=[EVIL], healthy=False
        )


async def test_the_status_and_the_live_picture_are_harmless(tmp_path: Path) -> None:
    config = tmp_path / "shards.yaml"
    config.write_text(f"state_dir: {tmp_path}\n")
    starting = Starting(load_config(config), Notifier({}))
    control = Control(starting, lambda: None, socket=tmp_path / "control.sock", group=False, metrics=None)
    control.node = EvilNode()  # type: ignore[assignment]
    await control.start()
    try:
        shardd = Command(config)
        async with Terminal(shardd.environ, "status", columns=240) as terminal:
            assert await terminal.end() == 1
        check_harmless(terminal.painted)
        assert r"problem  x\x1b[2J\x1b[38;5;213m" in terminal.text
        async with Terminal(shardd.environ, "status", "--watch", columns=240) as live:
            await live.shows("forged")
            os.write(live.fd, b"q")
            assert await live.end() == 0
        check_harmless(live.painted)
        assert EVIL in texts((await shardd("status", "--json")).json)
    finally:
        await control.close()


def texts(value: Any) -> set[str]:
    """Every string in a document."""
    if isinstance(value, str):
        return {value}
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return set().union(*map(texts, inner))
