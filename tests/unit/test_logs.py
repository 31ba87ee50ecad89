from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from shardd import logs
from shardd.logs import configure_logs, get_logger

SECRET = "geheim"

Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, pipeline = root.handlers[:], root.level, dict(vars(logs._pipeline))
    yield
    vars(logs._pipeline).update(pipeline)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w+", encoding="utf-8") as file:
        yield file


@pytest.fixture
def events(log_file: TextIO) -> Events:
    """Configures JSON at level info; calling it returns all events so far, one per line."""
    configure_logs("info", "json", log_file, node="host-a")
    return lambda: [json.loads(line) for line in Path(log_file.name).read_text(encoding="utf-8").splitlines()]


def test_an_event_is_one_json_object_with_the_important_fields_first(events: Events) -> None:
    get_logger("shardd.x").info("Shard %d is running", 3, pid=812, shard=3, action="shard_running", note="a\nb")
    (event,) = events()
    assert list(event) == ["ts", "level", "event", "action", "node", "shard", "logger", "pid", "note"]
    assert event["event"] == "Shard 3 is running"
    assert event["level"] == "info"
    assert event["node"] == "host-a"
    assert event["logger"] == "shardd.x"
    assert event["note"] == "a\nb"
    assert event["ts"].endswith("Z")


def test_a_new_level_reaches_loggers_that_exist(events: Events, log_file: TextIO) -> None:
    log = get_logger("shardd.x").bind(shard=1)
    log.debug("no")
    configure_logs("debug", "json", log_file)
    log.debug("yes")
    configure_logs("error", "json", log_file)
    log.warning("no")
    log.error("yes, too")
    assert [event["event"] for event in events()] == ["yes", "yes, too"]


def test_an_own_field_wins_over_one_of_the_process(events: Events) -> None:
    get_logger("shardd.x").info("own", node="host-b")
    get_logger("shardd.x").info("after")
    own, after = events()
    assert (own["node"], after["node"]) == ("host-b", "host-a")


def test_loggers_of_libraries_use_the_same_pipeline_from_warning_on(events: Events) -> None:
    library = logging.getLogger("psycopg.pool")
    library.info("chatter")
    library.warning("error connecting in %r", "pool-1")
    wrong_record = logging.LogRecord("aiohttp", logging.ERROR, __file__, 1, "wrong %d", ("format",), None)
    logging.getLogger().handlers[0].emit(wrong_record)  # straight there: pytest's own handler would refuse it
    warnings.warn("is old", DeprecationWarning, stacklevel=1)
    connecting, wrong, old = events()
    assert connecting["event"] == "error connecting in 'pool-1'"
    assert (connecting["level"], connecting["logger"], connecting["node"]) == ("warning", "psycopg.pool", "host-a")
    assert "wrong %d" in wrong["event"]
    assert "is old" in old["event"]


def test_a_library_that_installed_a_handler_is_not_heard_twice(log_file: TextIO, events: Events) -> None:
    logging.getLogger().addHandler(logging.StreamHandler(log_file))
    configure_logs("info", "json", log_file)
    logging.getLogger("whatsmeow.Client").error("once")
    assert [event["event"] for event in events()] == ["once"]


def _fail() -> None:
    local = SECRET  # noqa: F841  must not appear in a traceback
    raise ValueError("no such thing at postgresql://u:geheim@host/db\x1b[2J")


def _fail_with_cause() -> None:
    try:
        _fail()
    except ValueError as error:
        raise RuntimeError("the outer one") from error


def test_an_exception_is_data_within_the_same_line(events: Events) -> None:
    try:
        _fail_with_cause()
    except RuntimeError:
        get_logger("shardd.x").exception("Tick failed")
    (event,) = events()
    outer, cause = event["exception"]
    assert event["level"] == "error"
    assert (outer["exc_type"], outer["exc_value"]) == ("RuntimeError", "the outer one")
    assert cause["is_cause"]
    assert cause["frames"][-1]["name"] == "_fail"
    assert cause["frames"][-1]["filename"] == __file__
    assert SECRET not in json.dumps(event)


def test_an_exception_on_a_console_is_a_traceback_under_its_event(log_file: TextIO) -> None:
    configure_logs("info", "console", log_file)
    try:
        _fail_with_cause()
    except RuntimeError as error:
        get_logger("shardd.x").error("Tick failed", exc_info=error, shard=3)
    first, *trace = Path(log_file.name).read_text(encoding="utf-8").splitlines()
    assert "Tick failed" in first
    assert "shard=3" in first
    assert all(line.startswith("    ") or not line for line in trace)
    assert "    ValueError: no such thing at postgresql://u:***@host/db\\x1b[2J" in trace
    assert "    RuntimeError: the outer one" in trace


def test_a_stranger_s_text_neither_moves_the_cursor_nor_forges_a_line(log_file: TextIO) -> None:
    configure_logs("info", "console", log_file)
    evil = "\x1b[31mred\r\nforged \x9b2J\u2028\u202egnp\u200b\x7f\ud800"
    get_logger("shardd.x").info(evil, name=evil, list=[evil], inner={evil: evil})
    text = Path(log_file.name).read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()


def test_a_value_ends_where_it_ends(log_file: TextIO) -> None:
    configure_logs("info", "console", log_file)
    get_logger("shardd.x").info("sent", reference='a" job=7', other="b=c", plain="d")
    line = Path(log_file.name).read_text(encoding="utf-8").rstrip()
    assert line.endswith("reference='a\" job=7' other='b=c' plain=d")


def test_json_moves_no_cursor_either_and_says_the_text_exactly(events: Events, log_file: TextIO) -> None:
    evil = "\x1b[31m\x9b2J\u202e\x7f\n"
    get_logger("shardd.x").info(evil, name=evil)
    assert Path(log_file.name).read_text(encoding="utf-8").removesuffix("\n").isprintable()
    assert [(event["event"], event["name"]) for event in events()] == [(evil, evil)]


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://shardd:geheim@db.example/shardd",
        "socks5h://u:geheim@10.0.0.1:1080",
        "redis://:geheim@localhost",
        "host=db password=geheim user=u",
        "host=db password = 'x \\' geheim' user=u",
        "postgresql://db/shardd?user=u&password=geheim&sslmode=require",
        ["in a list: postgresql://u:geheim@h/d"],
        {"password": "geheim", "nested": {"API-Key": "x", "apikey": "geheim", "auth_token": "geheim"}},
        RuntimeError("connection to postgresql://u:geheim@h/d failed"),
    ],
)
def test_no_secret_gets_out_of_a_value(events: Events, log_file: TextIO, value: Any) -> None:
    get_logger("shardd.x").info(f"it was {value}" if isinstance(value, str) else "it was", value=value)
    configure_logs("info", "console", log_file)
    get_logger("shardd.x").info("and on a console", value=value)
    text = Path(log_file.name).read_text(encoding="utf-8")
    assert SECRET not in text
    assert "***" in text


def test_a_field_with_a_telling_name_is_blanked_and_what_is_no_secret_stays(events: Events) -> None:
    get_logger("shardd.x").info(
        "x", access_token="geheim", proxy_password=12, secret=None, url="http://h:80/a@b", tokens_left=3
    )
    (event,) = events()
    assert (event["access_token"], event["proxy_password"], event["secret"]) == ("***", "***", None)
    assert event["url"] == "http://h:80/a@b"


class _Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class _Number(int):
    pass


def _endless() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    return endless


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**80, 2**80),
        (_Number(3), 3),
        (float("inf"), "inf"),
        ("\ud800", "\ud800"),
        (Path("/etc/shardd"), "/etc/shardd"),
        (KeyError("k"), "KeyError: 'k'"),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (_Unshowable(), "<_Unshowable that cannot be shown>"),
    ],
)
def test_any_value_can_be_logged(events: Events, log_file: TextIO, value: Any, shown: Any) -> None:
    get_logger("shardd.x").info("odd", value=value)
    (event,) = events()
    assert event["value"] == shown
    configure_logs("info", "console", log_file)
    get_logger("shardd.x").info("odd", value=value)
    assert len(Path(log_file.name).read_bytes().splitlines()) == 2


def test_an_endless_value_ends(events: Events) -> None:
    get_logger("shardd.x").info("odd", value=_endless())
    assert len(events()) == 1


def test_an_exception_that_cannot_be_rendered_costs_its_traceback_only(events: Events) -> None:
    class Hostile(Exception):  # noqa: N818  not an error class of ours
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]  # hostile on purpose
            raise RuntimeError("no notes")

    get_logger("shardd.x").error("Tick failed", exc_info=Hostile())
    (event,) = events()
    assert event["event"] == "Tick failed"
    assert "no notes" in event["log_error"]


def test_what_nobody_caught_is_logged_too() -> None:
    program = """
import threading
from shardd.logs import configure_logs, log_uncaught
configure_logs("info", "json", node="host-a")
log_uncaught()
class Bad:
    def __del__(self): raise ValueError("in a callback")
def fail(): raise KeyError("in a thread")
bad = Bad(); del bad
thread = threading.Thread(target=fail); thread.start(); thread.join()
raise RuntimeError("in main")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [event["exception"][0]["exc_value"] for event in events] == ["in a callback", "'in a thread'", "in main"]
    assert {event["action"] for event in events} == {"uncaught_exception"}
