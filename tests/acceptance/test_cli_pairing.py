"""`shardd device pair` as a person or a front end uses it, with the real library, beside a running daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.command import PATIENCE, PROGRAM, Command
from tests.daemon import Daemon, Producer
from tests.whatsapp_server.control_client import AsyncControlClient
from tests.whatsapp_server.launch import ServerProcess

RECIPIENT = "6281234567890"


class Pairing:
    """`shardd device pair --json`, while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        assert line, await self._error()
        event: dict[str, Any] = json.loads(line)
        return event

    async def code(self) -> str:
        """The first QR code or typed code."""
        event = await self.next()
        assert event["event"] in {"qr", "code"}, event
        return str(event["code"])

    async def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, what was still told, and stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()

    async def _error(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


StartPairing = Callable[..., Awaitable[Pairing]]


@pytest.fixture
async def daemon(make_daemon: Callable[..., Daemon], whatsapp: ServerProcess) -> Daemon:
    daemon = make_daemon(transports={"whatsapp": {"proxy": whatsapp.proxy_url(), "default_region": "ID"}})
    daemon.environ = whatsapp.client_environment()
    daemon.write_config()
    return daemon


@pytest.fixture
def control(whatsapp: ServerProcess) -> AsyncControlClient:
    """The phones' owners, and what WhatsApp saw."""
    return whatsapp.async_control


@pytest.fixture
def shardd(daemon: Daemon) -> Command:
    command = Command(daemon.config_file)
    command.environ |= daemon.environ | {"SHARDD_CONFIG": str(daemon.config_file)}
    return command


@pytest.fixture
async def start_pairing(shardd: Command) -> AsyncIterator[StartPairing]:
    running: list[Pairing] = []

    async def start(*arguments: str) -> Pairing:
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "device", "pair", *arguments, "--json"),
            env=shardd.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(Pairing(process))
        return running[-1]

    yield start
    for pairing in running:
        if pairing.process.returncode is None:
            pairing.process.kill()
            await pairing.process.wait()


def add_device(producer: Producer, device_id: str, **columns: Any) -> None:
    columns = {"transport": "whatsapp", "state": "unpaired", **columns}
    names = ", ".join(columns)
    values = ", ".join(["%s"] * len(columns))
    producer.execute(
        f"INSERT INTO shardd.devices (id, {names}) VALUES (%s, {values})",
        *(device_id, *columns.values()),
    )


def device_row(producer: Producer, device_id: str) -> tuple[Any, ...]:
    (row,) = producer.execute("SELECT session, state, reason FROM shardd.devices WHERE id = %s", device_id)
    return row


def stored_sessions(producer: Producer) -> list[str]:
    rows = producer.execute("SELECT jid FROM shardd_sessions.whatsmeow_device ORDER BY jid")
    return [row[0] for row in rows]


async def test_a_scanned_qr_pairs_a_device_that_the_running_daemon_then_sends_with(
    daemon: Daemon, producer: Producer, start_pairing: StartPairing, control: AsyncControlClient, fresh_number: str
) -> None:
    await daemon.start()
    add_device(producer, "shop")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('shop', %s, 'first words')", RECIPIENT
    )
    pairing = await start_pairing("shop")
    await control.scan(await pairing.code(), fresh_number)
    code, told, err = await pairing.end()
    session = f"{fresh_number}:1@s.whatsapp.net"
    assert (code, err) == (0, "")
    assert told == [
        {"event": "scanned", "device": "shop", "number": fresh_number},
        {"event": "paired", "device": "shop", "session": session, "number": fresh_number},
    ]
    assert device_row(producer, "shop") == (session, "ready", None)
    (message,) = await control.wait_messages(1, sender=fresh_number)
    assert (message.recipient, message.text) == (RECIPIENT, "first words")
    assert await producer.until_finished(daemon, 1) == {"sent": 1}


async def test_a_typed_code_pairs_without_a_daemon(
    producer: Producer, start_pairing: StartPairing, control: AsyncControlClient, fresh_number: str
) -> None:
    add_device(producer, "shop")
    pairing = await start_pairing("shop", "--phone", f"+{fresh_number[:4]} {fresh_number[4:]}")
    assert await control.enter_code(fresh_number, await pairing.code()) == "paired"
    code, told, _ = await pairing.end()
    assert (code, told[-1]["event"]) == (0, "paired")
    assert device_row(producer, "shop") == (f"{fresh_number}:1@s.whatsapp.net", "ready", None)
