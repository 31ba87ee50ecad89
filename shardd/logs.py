"""Structured logs: one event per line on stderr, readable on a terminal, JSON otherwise.

    log = get_logger(__name__)
    log.info("Shard 3 is running", action="shard_running", shard=3, pid=812)

`event` is for people, `action` its stable name for programs. Everything passes one pipeline, which may be reconfigured at any
time (a reload changes the level of existing loggers); the loggers of libraries use it too, from warning on, because their lower
levels carry protocol traffic.

Two rules shape the code. A log call never raises and never blocks for long: leases must be renewed while a terminal is stopped or
a pager does not read (`shardd.log_outlet`). And no secret is logged: passwords in connection strings and values of fields such as
`token` are blanked, and tracebacks have no local variables. structlog binds, renders and formats tracebacks; its own processor
chain raises what a value's methods raise, and its loggers block.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Any, Final, NoReturn, TextIO, cast

import msgspec

from shardd.lean_structlog import ConsoleRenderer, ExceptionDictTransformer, FilteringBoundLogger, structlog
from shardd.log_outlet import Outlet
from shardd.visible import visible, visible_json

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
Render = Callable[[float, dict[str, Any], ExcInfo | None], str]

LEVELS: Final = MappingProxyType(
    {
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warning": logging.WARNING,
        "error": logging.ERROR,
        "critical": logging.CRITICAL,
    }
)
_SYSLOG: Final = MappingProxyType({"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2})
_ORDER: Final = ("action", "node", "shard", "device", "job")
_EVENT_WIDTH: Final = 44
_MAX_DEPTH: Final = 6

_SECRET_FIELD: Final = re.compile(
    r"passw(or)?d|passphrase|secret|token|api_?key|authorization|credential", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://[^\s:/?#@]*:)[^\s/?#@]+(?=@)"  # scheme://user:password@host
    r"|(?P<pair>\b\w*password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^\s&'\"]+)",  # password=… in a connection string or URL query
    re.IGNORECASE,
)
_BLANK: Final = "***"


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose events carry `logger=name`; may be made before `configure_logs`."""
    # The level is the pipeline's, so that it can change for existing loggers.
    wrapper = structlog.make_filtering_bound_logger(logging.NOTSET)
    logger = structlog.wrap_logger(None, processors=[_to_pipeline], wrapper_class=wrapper)
    return cast("FilteringBoundLogger", logger.bind(logger=name))


def configure_logs(level: str, fmt: str, stream: TextIO | None = None, **bound: Any) -> None:
    """Set where and how events are written from now on, for the whole process.

    Args:
        level: debug, info, warning, error or critical; lower ones are not written.
        fmt: console, json, or auto: console if the stream is a terminal.
        stream: None: stderr.
        bound: fields of every event, such as node and shard.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream is not None and stream.isatty()  # Python has no sys.stderr when descriptor 2 was closed
    console = fmt == "console" or (fmt == "auto" and terminal)
    _pipeline.bound = bound
    _pipeline.render = _console_renderer(colors=terminal and "NO_COLOR" not in os.environ) if console else _render_json
    _pipeline.outlet = Outlet(stream)
    root = logging.getLogger()
    # All of them: neonize adds a handler when it is imported first.
    root.handlers[:] = [_ForeignHandler()]
    logging.captureWarnings(capture=True)
    set_log_level(level)


def bind_logs(**bound: Any) -> None:
    """Add fields to every event from now on."""
    _pipeline.bound = {**_pipeline.bound, **bound}


def set_log_level(level: str) -> None:
    """Write events from this level on, also of existing loggers."""
    _pipeline.level = LEVELS[level]
    logging.getLogger().setLevel(max(_pipeline.level, logging.WARNING) if level != "debug" else logging.INFO)


def log_uncaught() -> None:
    """Log uncaught exceptions of all threads and of callbacks from C; for a process's main."""
    log = get_logger("shardd")

    def in_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("Uncaught exception", action="uncaught_exception", exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            thread = args.thread.name if args.thread else None
            exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
            log.error("Uncaught exception in a thread", action="uncaught_exception", thread=thread, exc_info=exc_info)

    def in_callback(args: sys.UnraisableHookArgs) -> None:
        where = args.err_msg or "Exception ignored in"
        exc_info = None if args.exc_value is None else (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("Uncaught exception", action="uncaught_exception", where=where, object=args.object, exc_info=exc_info)

    sys.excepthook = in_main
    threading.excepthook = in_thread
    sys.unraisablehook = in_callback


class _Pipeline:
    """The way of every event of the process."""

    def __init__(self) -> None:
        self.level: int = logging.INFO
        self.bound: Mapping[str, Any] = {}
        self.render: Render = _render_json
        self.outlet = Outlet(sys.stderr)

    def emit(self, level: str, fields: Mapping[str, Any]) -> None:
        """Write one event; `fields` holds `event` and what belongs to it. Never raises."""
        if LEVELS[level] < self.level:
            return
        if self.outlet.lost and self.outlet.writable():
            lost, self.outlet.lost = self.outlet.lost, 0
            notice = f"{lost} log lines were lost, because they were not read"
            self._write("warning", {"event": notice, "action": "log_lines_lost", "lost": lost})
        self._write(level, fields)

    def _write(self, level: str, fields: Mapping[str, Any]) -> None:
        given = {**self.bound, **fields}
        exc_info = _exc_info(given.pop("exc_info", None))
        entry: dict[str, Any] = {"level": level, "event": _plain(given.pop("event", ""))}
        for key in _ORDER:
            if key in given:
                entry[key] = _plain(given.pop(key))
        for key, value in given.items():
            if key not in entry:
                entry[key] = _field(key, value)
        try:
            line = self.render(time.time(), entry, exc_info)
        except Exception as error:  # noqa: BLE001  an exception's own methods run here; logging it must not raise another
            line = _render_json(time.time(), {**entry, "log_error": _as_text(error)}, None)
        prefix = f"<{_SYSLOG[level]}>" if self.outlet.is_journal else ""
        self.outlet.put(f"{prefix}{line}\n".encode("utf-8", "backslashreplace"))


def _to_pipeline(_logger: Any, level: str, fields: MutableMapping[str, Any]) -> NoReturn:
    _pipeline.emit(level, fields)
    raise structlog.DropEvent  # done: there is no logger behind the processors


class _ForeignHandler(logging.Handler):
    """Passes the records of the standard library's `logging` to the pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001  a library's wrong format string must not cost the event
            event = f"{record.msg} {record.args}"
        level = record.levelname.lower()
        _pipeline.emit(
            level if level in LEVELS else "info", {"event": event, "logger": record.name, "exc_info": record.exc_info}
        )


def _exc_info(value: Any) -> ExcInfo | None:
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    found = value if isinstance(value, tuple) else sys.exc_info() if value else None
    return None if found is None or found[1] is None else cast("ExcInfo", found)


def _redact(text: str) -> str:
    # The two searches save nearly every event the regular expression.
    if "://" not in text and "assw" not in text.lower():
        return text
    return _SECRET_TEXT.sub(lambda match: (match["url"] or match["pair"]) + _BLANK, text)


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON data without secrets; whatever JSON does not know becomes text."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return {str(key): _field(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < _MAX_DEPTH:
        return [_plain(item, depth + 1) for item in value]
    return _redact(value if type(value) is str else _as_text(value))


def _field(key: str, value: Any, depth: int = 0) -> Any:
    return _BLANK if value is not None and _is_secret(key) else _plain(value, depth)


@lru_cache(maxsize=1024)  # there are few field names, and several in each event
def _is_secret(key: str) -> bool:
    return bool(_SECRET_FIELD.search(key))


def _as_text(value: Any) -> str:
    try:
        text = str(value)
        return f"{type(value).__name__}: {text}" if isinstance(value, BaseException) else text
    except Exception:  # noqa: BLE001  the value's own __str__ may do anything
        return f"<{type(value).__name__} that cannot be shown>"


_exception_as_data: Final = ExceptionDictTransformer(show_locals=False)


def _render_json(at: float, entry: dict[str, Any], exc_info: ExcInfo | None) -> str:
    ts = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"ts": ts, **entry}
    if exc_info is not None:
        line["exception"] = _plain(_exception_as_data(exc_info), depth=-_MAX_DEPTH)  # exception groups nest deeply
    try:
        text = msgspec.json.encode(line).decode()
    except (UnicodeEncodeError, OverflowError, TypeError, msgspec.MsgspecError):
        text = json.dumps(line)  # slower, but takes lone surrogates, subclasses of int, and integers beyond 64 bits
    return visible_json(text)  # it may end up on a terminal


def _visible(value: Any) -> Any:
    """An event may quote text from outside; structlog shows everything but plain texts by its `repr`."""
    return visible(value) if isinstance(value, str) else value


def _console_renderer(*, colors: bool) -> Render:
    renderer = ConsoleRenderer(
        colors=colors,
        pad_event_to=_EVENT_WIDTH,
        repr_native_str=False,
        sort_keys=False,
        timestamp_key="ts",
    )

    def render(at: float, entry: dict[str, Any], exc_info: ExcInfo | None) -> str:
        ts = datetime.fromtimestamp(at, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")[11:23]
        # `action` and `logger` are for programs.
        shown = {key: _visible(value) for key, value in entry.items() if key not in {"action", "logger"}}
        line = str(renderer(None, "", {"ts": ts, **shown})).rstrip()
        if exc_info is None:
            return line
        trace = "".join(traceback.format_exception(*exc_info)).rstrip().split("\n")
        return "\n".join([line, *(f"    {visible(_redact(row))}" for row in trace)])

    return render


_pipeline = _Pipeline()
