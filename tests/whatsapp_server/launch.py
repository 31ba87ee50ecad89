"""Starts the server in a process of its own, and tells what a client process needs to trust it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.whatsapp_server.control_client import AsyncControlClient, ControlClient

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_SITE = Path(__file__).resolve().parent / "client_site"
START_DEADLINE = 60.0
STOP_DEADLINE = 10.0


class ServerStartError(RuntimeError):
    """The server process ended, or said nothing, before it was ready; the text holds its last words."""


@dataclass
class ServerProcess:
    """A running test server.

    Attributes:
        proxy_port: Port that clients use as their HTTP or SOCKS5 proxy.
        control_port: Port of the control client.
        ca: Path for SSL_CERT_FILE in a client's environment.
        noise_root: Hex, for SHARDD_TEST_NOISE_ROOT in a client's environment.
        control: The control client.
        async_control: The same for asyncio.
    """

    process: subprocess.Popen[bytes]
    proxy_port: int
    control_port: int
    ca: str
    noise_root: str
    control: ControlClient
    async_control: AsyncControlClient

    def proxy_url(self, user: str = "", *, scheme: str = "http") -> str:
        """Proxy address for a client; ``user``, a device's number, names it to faults that strike before the login."""
        credential = f"{user.partition(':')[0]}:secret@" if user else ""
        return f"{scheme}://{credential}127.0.0.1:{self.proxy_port}"

    def client_environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment in which any Python child process trusts this server, once it imports neonize.

        ``base`` is what to start from; os.environ if None. It must be given to the process at its start: Go reads its
        environment once.
        """
        environment = dict(os.environ if base is None else base)
        search_path = [str(CLIENT_SITE), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in search_path if part)
        environment["SSL_CERT_FILE"] = self.ca
        environment["SHARDD_TEST_NOISE_ROOT"] = self.noise_root
        environment.setdefault("GOMAXPROCS", "1")  # with more, neonize's unguarded maps kill a process now and then
        return environment

    def stop(self) -> None:
        """End the process, and wait for its end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(folder: Path) -> ServerProcess:
    """Start a server whose keys and log are in ``folder``; it ends with this process at the latest.

    Raises:
        ServerStartError: It did not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "server.log"
    command = [sys.executable, "-m", "tests.whatsapp_server", "--pki", str(folder), "--until-stdin-ends"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_server_environment()
        )
    assert process.stdout is not None  # a pipe was asked for
    alarm = threading.Timer(START_DEADLINE, process.kill)
    alarm.start()
    line = process.stdout.readline()
    alarm.cancel()
    if not line:
        process.wait()
        raise ServerStartError(f"the WhatsApp test server did not start:\n{log_path.read_text()}")
    ready = json.loads(line)
    port = ready["control_port"]
    return ServerProcess(process, control=ControlClient(port), async_control=AsyncControlClient(port), **ready)


def _server_environment() -> dict[str, str]:
    """Ours, without what would make this server's own copy of neonize take part in a test."""
    return {name: value for name, value in os.environ.items() if name != "SHARDD_TEST_NOISE_ROOT"}
