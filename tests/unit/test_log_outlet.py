from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from shardd import logs
from shardd.logs import configure_logs, get_logger

Pipe = tuple[int, TextIO]


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, pipeline = root.handlers[:], root.level, dict(vars(logs._pipeline))
    yield
    vars(logs._pipeline).update(pipeline)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(("no_color", "colored"), [(None, True), ("1", False)])
def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch, no_color: str | None, colored: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        configure_logs("info", "auto", terminal)
        get_logger("shardd.x").info("Shard 3 is running", shard=3)
        text = os.read(master, 4096).decode()
    os.close(master)
    assert "Shard 3 is running" in text
    assert ("\x1b[" in text) is colored
    assert not text.startswith("{")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        yield reading, stream
    os.close(reading)


def _drain(reading: int) -> bytes:
    os.set_blocking(reading, False)
    found = b""
    try:
        while piece := os.read(reading, 65536):
            found += piece
    except BlockingIOError:
        pass
    return found


def test_anything_but_a_terminal_gets_json(pipe: Pipe) -> None:
    reading, stream = pipe
    configure_logs("info", "auto", stream)
    get_logger("shardd.x").info("hello")
    assert json.loads(_drain(reading))["event"] == "hello"


def test_a_reader_that_stands_still_stops_nobody_and_learns_what_it_missed(pipe: Pipe) -> None:
    reading, stream = pipe
    configure_logs("info", "json", stream)
    log = get_logger("shardd.x")
    for number in range(2000):  # more than a pipe holds; returns although nobody reads
        log.info("line", number=number)
    seen = [json.loads(line) for line in _drain(reading).splitlines()]
    log.info("again")
    notice, again = (json.loads(line) for line in _drain(reading).splitlines())
    assert notice["action"] == "log_lines_lost"
    assert 0 < len(seen) < 2000
    assert len(seen) + notice["lost"] == 2000
    assert again["event"] == "again"


def test_after_a_torn_line_the_next_one_begins_on_its_own(pipe: Pipe) -> None:
    reading, stream = pipe
    configure_logs("info", "json", stream)
    os.set_blocking(stream.fileno(), False)
    try:
        while True:
            os.write(stream.fileno(), b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(stream.fileno(), True)
    os.read(reading, 8192)  # room for the first two pieces of a long line
    get_logger("shardd.x").info("x" * 20_000)
    torn = _drain(reading)
    get_logger("shardd.x").info("whole")
    torn_line, *whole_lines = (line for line in (torn + _drain(reading)).splitlines() if line)
    assert torn_line.startswith(b"{")
    assert torn_line.endswith(b"xxx")
    assert [json.loads(line)["event"] for line in whole_lines][1:] == ["whole"]


def test_a_line_longer_than_a_pipe_arrives_whole_when_somebody_reads(pipe: Pipe) -> None:
    reading, stream = pipe
    configure_logs("info", "json", stream)
    found: list[str] = []

    def read_one_line() -> None:
        with os.fdopen(os.dup(reading), encoding="utf-8") as lines:
            found.append(lines.readline())

    reader = threading.Thread(target=read_one_line)
    reader.start()
    get_logger("shardd.x").info("x" * 300_000)
    reader.join(timeout=30)
    assert json.loads(found[0])["event"] == "x" * 300_000


def test_a_reader_that_went_away_stops_nobody(pipe: Pipe) -> None:
    stream = pipe[1]
    configure_logs("info", "json", stream)
    gone, stream_gone = os.pipe()
    os.close(gone)
    os.dup2(stream_gone, stream.fileno())
    os.close(stream_gone)
    get_logger("shardd.x").error("nobody hears this")
    assert logs._pipeline.outlet.lost == 1


def test_the_journal_learns_the_priority(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    reading, stream = pipe
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    configure_logs("debug", "auto", stream)
    log = get_logger("shardd.x")
    for say in (log.debug, log.info, log.warning, log.error, log.critical):
        say("x")
    lines = _drain(reading).decode().splitlines()
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{"]


def test_a_process_without_stderr_logs_nowhere_and_lives(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    program = """
import os, sys
assert sys.stderr is None
assert os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY) == 2
from shardd.logs import configure_logs, get_logger
get_logger("x").error("nobody hears this")
configure_logs("info", "auto")
get_logger("x").error("nor this")
"""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program, str(precious)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert precious.read_bytes() == b""
