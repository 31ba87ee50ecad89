from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardd import logs
from shardd.log_outlet import Outlet
from shardd.supervisor.systemd import Notifier, clean_environ


def _bound(name: str) -> socket.socket:
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.settimeout(10)
    systemd.bind("\0" + name[1:] if name.startswith("@") else name)
    return systemd


@pytest.fixture(params=["path", "abstract"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@shardd-test-{uuid.uuid4()}"


@pytest.fixture
def systemd(name: str) -> Iterator[socket.socket]:
    with _bound(name) as bound:
        yield bound


@pytest.fixture
def notifier(name: str, systemd: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": name})


def _heard(systemd: socket.socket) -> list[str]:
    return systemd.recv(65536).decode().split("\n")


def _heard_nothing(systemd: socket.socket) -> bool:
    systemd.setblocking(False)
    try:
        systemd.recv(65536)
    except BlockingIOError:
        return True
    finally:
        systemd.settimeout(10)
    return False


def test_a_life_from_start_to_stop(notifier: Notifier, systemd: socket.socket) -> None:
    notifier.status("starting: 3/16 shards")
    assert _heard(systemd) == ["STATUS=starting: 3/16 shards"]
    notifier.ready("16/16 shards")
    assert _heard(systemd) == ["READY=1", "STATUS=16/16 shards"]
    notifier.watchdog()
    assert _heard(systemd) == ["WATCHDOG=1"]

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    reloading, moment, status = _heard(systemd)
    assert reloading == "RELOADING=1"
    assert status == "STATUS=reloading the config file"
    assert moment.startswith("MONOTONIC_USEC=")
    assert before <= int(moment.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("16/16 shards")
    assert _heard(systemd) == ["READY=1", "STATUS=16/16 shards"]

    notifier.stopping("draining 16 shards")
    assert _heard(systemd) == ["STOPPING=1", "STATUS=draining 16 shards"]


def test_the_same_status_is_said_once(notifier: Notifier, systemd: socket.socket) -> None:
    notifier.ready("16/16 shards")
    _heard(systemd)
    notifier.status("16/16 shards")
    assert _heard_nothing(systemd)
    notifier.status("15/16 shards")
    assert _heard(systemd) == ["STATUS=15/16 shards"]


def test_a_status_is_one_line_whatever_it_quotes(notifier: Notifier, systemd: socket.socket) -> None:
    notifier.status("shard 3: boom\nREADY=1\r\nMAINPID=1 \ud800 \x1b[2J")
    assert _heard(systemd) == ["STATUS=shard 3: boom READY=1 MAINPID=1 \\ud800 \\x1b[2J"]


def fill(name: str) -> int:
    """Send to the socket until it takes nothing from anybody; returns how many datagrams it took."""
    address = "\0" + name[1:] if name.startswith("@") else name
    sent = 0
    with contextlib.ExitStack() as senders:
        # One may reach its own limit first (net.core.wmem_default) where the socket takes many (net.unix.max_dgram_qlen).
        while True:
            noise = senders.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            noise.connect(address)
            noise.setblocking(False)
            before = sent
            with contextlib.suppress(BlockingIOError):
                while True:
                    noise.send(b"X=1")
                    sent += 1
            if sent == before:
                return sent


def test_what_a_full_socket_refused_leads_the_next_datagram(
    notifier: Notifier, systemd: socket.socket, name: str
) -> None:
    sent = fill(name)
    notifier.ready("16/16 shards")  # returns, although systemd reads nothing
    notifier.watchdog()
    notifier.stopping("draining")
    for _ in range(sent):
        _heard(systemd)
    assert _heard_nothing(systemd)
    notifier.watchdog()
    assert _heard(systemd) == ["READY=1", "STOPPING=1", "STATUS=draining", "WATCHDOG=1"]
    notifier.watchdog()
    assert _heard(systemd) == ["WATCHDOG=1"]


def test_a_systemd_that_comes_back_hears_what_it_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "notify")
    log = io.StringIO()
    monkeypatch.setattr(logs._pipeline, "outlet", Outlet(log))
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("16/16 shards")
    for number in range(1000):
        notifier.status(f"{number}/1000 devices")
    with _bound(name) as systemd:
        notifier.watchdog()
        assert _heard(systemd) == ["READY=1", "STATUS=999/1000 devices", "WATCHDOG=1"]
    assert log.getvalue().count("systemd cannot be notified") == 1


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert notifier.watchdog_interval is None
    notifier.status("x")
    notifier.ready("x")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping("x")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_per_period_and_only_by_whom_systemd_meant(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier(environ).watchdog_interval == interval


def test_a_worker_cannot_speak_to_systemd(name: str, systemd: socket.socket) -> None:
    environ = {**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "KEPT": "yes"}
    program = """
import os
from shardd.supervisor.systemd import Notifier
notifier = Notifier(os.environ)
notifier.ready("a worker")
print(notifier.watchdog_interval, os.environ["KEPT"], "WATCHDOG_PID" in os.environ)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=clean_environ(environ), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "yes", "False"]
    assert _heard_nothing(systemd)
    subprocess.run(command, env=environ, capture_output=True, timeout=60, check=True)
    assert _heard(systemd) == ["READY=1", "STATUS=a worker"]
