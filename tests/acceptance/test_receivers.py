"""Programs in Python, Node and PHP get a reply by webhook, verify it with their own Standard Webhooks library, and answer it.

Node's libraries are installed by npm; where that is not possible, or there is no Node, the test is skipped. The PHP library is
used if STANDARD_WEBHOOKS_PHP names the file that loads it (`init.php` of the library, or Composer's `vendor/autoload.php`), and
PHP has pdo_pgsql.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from shardd.embedded import EmbeddedPostgres
from tests.fixtures.postgres import Cluster
from tests.fixtures.whatsapp_fleet import Fleet
from tests.integration.inbound.test_cloud_webhook import free_port
from tests.support.node import install_by_npm

RECEIVERS = Path(__file__).parents[1] / "receivers"
SECRET = "whsec_" + "c2hhcmRkLXRlc3Qtc2VjcmV0LW9mLTMyLWJ5dGVzIQ=="
NPM_TIMEOUT = 100.0


def python(_: Path) -> list[str]:
    return [sys.executable, str(RECEIVERS / "receiver.py")]


def node(folder: Path) -> list[str]:
    for file in ("receiver.mjs", "package.json"):
        shutil.copy(RECEIVERS / file, folder)
    install_by_npm(folder, "--no-package-lock", timeout=NPM_TIMEOUT)
    return ["node", str(folder / "receiver.mjs")]


def php(_: Path) -> list[str]:
    if shutil.which("php") is None or not Path(os.environ.get("STANDARD_WEBHOOKS_PHP", "")).is_file():
        pytest.skip("there is no PHP, or STANDARD_WEBHOOKS_PHP does not name its library")
    extensions = subprocess.run(["php", "-m"], check=True, capture_output=True, text=True).stdout
    if "pdo_pgsql" not in extensions:
        pytest.skip("PHP has no pdo_pgsql")
    return ["php", "-S", f"127.0.0.1:{free_port()}", str(RECEIVERS / "receiver.php")]


@pytest.fixture
async def listen(fleet_cluster: tuple[Cluster, str], fleet: Fleet) -> AsyncIterator[Callable[[list[str]], Any]]:
    """Starts a receiver with the rights of a reader of the inbox; returns its address."""
    cluster: Cluster = fleet_cluster[0]
    assert isinstance(cluster.server, EmbeddedPostgres)
    dsn = cluster.dsn(urlsplit(fleet.dsn).path.removeprefix("/"), "inbox")
    parts = urlsplit(dsn)
    database = {
        "PGHOST": parse_qs(parts.query)["host"][0],
        "PGDATABASE": parts.path.removeprefix("/"),
        "PGUSER": "inbox",
    }
    processes = []

    async def start(command: list[str]) -> str:
        environ = {**os.environ, **database, "DSN": dsn, "SECRET": SECRET}
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=subprocess.PIPE)
        processes.append(process)
        if command[0] == "php":
            address = command[2]
            async with asyncio.timeout(30):
                while not await accepts(address):  # noqa: ASYNC110 - it does not announce that it listens
                    await asyncio.sleep(0.05)
            return f"http://{address}/"
        assert process.stdout is not None
        async with asyncio.timeout(30):
            return f"http://127.0.0.1:{int(await process.stdout.readline())}/"

    yield start
    for process in processes:
        process.kill()
        await process.wait()


async def accepts(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "make"), [("Python", python), ("Node", node), ("PHP", php)])
async def test_a_reply_is_verified_and_answered(
    fleet: Fleet, listen: Callable[[list[str]], Any], tmp_path: Path, name: str, make: Callable[[Path], list[str]]
) -> None:
    url = await listen(make(tmp_path))
    async with aiohttp.ClientSession() as http:
        forged = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        async with http.post(url, json={"type": "message.received", "data": {"id": 1}}, headers=forged) as answer:
            assert answer.status == 400, "it verifies what it gets"
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(webhooks={"app": {"url": url, "secret": SECRET}})
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "How many?", person), "sent")
    written = fleet.server.control.write(phone.name, person, "zwei für mich, пожалуйста 👍")
    (heard,) = await fleet.until(lambda: fleet.seen(f"{name} heard: zwei für mich, пожалуйста 👍"))
    assert (heard.recipient, heard.quoted_id) == (person, written)
    assert await daemon.stop() == 0
