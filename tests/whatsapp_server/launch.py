"""Starts the server in its own process, and builds the environment in which a client process trusts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .control_client import AsyncControlClient, ControlClient

PACKAGE = str(__package__)
IMPORT_ROOT = Path(__file__).resolve().parents[PACKAGE.count(".") + 1]
"""The folder from which ``PACKAGE`` can be imported, wherever this package was copied to."""
CLIENT_SITE = Path(__file__).resolve().parent / "client" / "site"
START_DEADLINE = 60.0
STOP_DEADLINE = 10.0


class ServerStartError(RuntimeError):
    """The server process ended, or timed out, before it was ready; the message contains its log."""


@dataclass
class ServerProcess:
    """A running test server in its own process.

    Attributes:
        proxy_port: The port that clients use as their HTTP or SOCKS5 proxy.
        control_port: The port of the control protocol.
        ca: The path for SSL_CERT_FILE in a client's environment.
        noise_root: The hex value for SHARDD_TEST_NOISE_ROOT in a client's environment.
        control: Control client for plain code.
        async_control: Control client for asyncio.
    """

    process: subprocess.Popen[bytes]
    proxy_port: int
    control_port: int
    ca: str
    noise_root: str
    control: ControlClient
    async_control: AsyncControlClient

    def proxy_url(self, user: str = "", *, scheme: str = "http") -> str:
        """Proxy URL for a client. Faults before the login know a device only by ``user``: pass the device's number."""
        credential = f"{user.partition(':')[0]}:secret@" if user else ""
        return f"{scheme}://{credential}127.0.0.1:{self.proxy_port}"

    def client_environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment in which a Python child process trusts this server as soon as it imports neonize.

        It extends ``base`` (os.environ if None). Pass it when the process starts: Go reads its environment only once.
        """
        environment = dict(os.environ if base is None else base)
        search_path = [str(CLIENT_SITE), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in search_path if part)
        environment["SSL_CERT_FILE"] = self.ca
        environment["SHARDD_TEST_NOISE_ROOT"] = self.noise_root
        environment.setdefault(
            "GOMAXPROCS", "1"
        )  # neonize's maps are not locked: with more threads they crash a process now and then
        return environment

    def stop(self) -> None:
        """Stop the process and wait until it has ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(folder: Path, within: Sequence[str] = ()) -> ServerProcess:
    """Start a server with its keys and its log in ``folder``; it ends when this process ends, at the latest.

    ``within``: the beginning of a command that runs it elsewhere, such as in another network.

    Raises:
        ServerStartError: It was not ready within START_DEADLINE seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "server.log"
    command = [*within, sys.executable, "-m", PACKAGE, "--pki", str(folder), "--until-stdin-ends"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_server_environment(),
        )
    assert process.stdout is not None  # a pipe was asked for
    alarm = threading.Timer(START_DEADLINE, process.kill)
    alarm.start()
    try:
        line = process.stdout.readline()
    finally:
        alarm.cancel()
    if not line:
        process.wait()
        raise ServerStartError(f"the WhatsApp test server did not start:\n{log_path.read_text()}")
    ready = json.loads(line)
    port = ready["control_port"]
    return ServerProcess(process, control=ControlClient(port), async_control=AsyncControlClient(port), **ready)


def _server_environment() -> dict[str, str]:
    """Our environment, minus the variable that would patch the server's own copy of neonize."""
    return {name: value for name, value in os.environ.items() if name != "SHARDD_TEST_NOISE_ROOT"}
