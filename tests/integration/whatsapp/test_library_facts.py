"""Facts of the library that no other test names, with the real library and the test server.

Not tested, because no test could fail for certain: that its maps are not locked ("concurrent map read and map write" ends the
process; `clients.library.LibraryLock`), that two processes on an empty store disturb each other (`sessions.setup`), and that Go
reads GOMAXPROCS and GOMEMLIMIT when it is loaded (`supervisor.workers.process`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.postgres.sql_files import query_text
from shardd.transports.whatsapp.clients.library import CHAT_HOST
from shardd.transports.whatsapp.clients.presence import NO_PUSH_NAME
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from tests.integration.whatsapp.conftest import MakeDevice
from tests.integration.whatsapp.host_process import HostProcess
from tests.support.facts import fact
from tests.whatsapp_server.client.device import PlainDevice
from tests.whatsapp_server.client.process import ClientError, ClientProcess
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.server import CHAT_HOST as SERVED_HOST

FRIEND = "6281299990001"
CYCLES = 5


# ---- its Python side


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """See `library_probe`."""
    folder = tmp_path_factory.mktemp("probe")
    command = [sys.executable, "-m", "tests.integration.whatsapp.library_probe", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@fact("Its import sets the root logger to INFO and adds a handler", "clients/library.py", "shardd/logs.py")
def test_its_import_changes_the_root_logger(probe: dict[str, Any]) -> None:
    assert (probe["root_level"], probe["handlers_added"]) == (logging.INFO, 1)


@fact("Go logs at the level of the logger neonize.utils.log", "clients/library.py")
def test_the_level_of_one_logger_decides_what_go_logs(probe: dict[str, Any]) -> None:
    assert probe["log_name"] == "neonize.utils.log"


@fact("connect reads the log's listener from the module neonize.aioze.client", "clients/library.py")
def test_the_listener_of_the_log_is_a_variable_of_a_module(probe: dict[str, Any]) -> None:
    assert probe["listener"]


@fact("It looks for ffmpeg unless neonize.utils.ffmpeg._ffmpeg_checked is set", "clients/library.py")
def test_ffmpeg_is_looked_for_once(probe: dict[str, Any]) -> None:
    assert probe["ffmpeg_checked"] is False


@fact("Events find their loop in a variable that is set only once", "clients/library.py")
def test_the_loop_of_the_events_is_set_once(probe: dict[str, Any]) -> None:
    assert probe["loop"]
    assert probe["loop_set_once"]


@fact("With a JID, a client's uuid is the number: two clients of one device would share it", "clients/client.py")
def test_a_client_is_known_by_its_number(probe: dict[str, Any]) -> None:
    assert probe["uuid"] == "6281100000001"


@fact("A client's finalizer stops whatever client has its uuid", "clients/client.py", "linking/pairing.py")
def test_a_client_has_a_finalizer(probe: dict[str, Any]) -> None:
    assert probe["finalizer"]


@fact("event.execute is called for every event", "clients/client.py", "clients/draining.py", "linking/pairing.py")
def test_all_events_pass_one_callback(probe: dict[str, Any]) -> None:
    assert probe["callback"]


@fact("A client opens nothing before connect", "clients/client.py")
def test_a_client_opens_nothing_when_it_is_made(probe: dict[str, Any]) -> None:
    assert probe["nothing_opened"]


@fact("A JID is written user:device@server, without a device for the phone", "clients/library.py", "messages/copies.py")
def test_a_jid_is_written_with_its_device(probe: dict[str, Any]) -> None:
    assert (probe["jid"], probe["phone"]) == ("6281100000001:7@s.whatsapp.net", "6281100000001@s.whatsapp.net")


# ---- the store


@fact(
    "The tables of the store have the columns that shardd reads",
    *("sessions/sql/sessions.sql", "sessions/sql/importing.sql", "sessions/importing.py", "sessions/store.py"),
)
def test_the_store_can_be_read(store: str) -> None:
    values = {"jid": "6281:1@s.whatsapp.net", "number": "6281", "lids": ["1"]}
    with psycopg.connect(store, autocommit=True) as connection:
        for name in ("session_digest", "knows_recipient", "list_sessions", "numbers_of", "delete_session"):
            connection.execute(query_text("shardd.transports.whatsapp.sessions", name), values)
        described = connection.execute(query_text("shardd.transports.whatsapp.sessions", "describe_tables")).fetchall()
    of_sessions = {row[0] for row in described if row[1] is not None}
    assert {"whatsmeow_device", "whatsmeow_identity_keys", "whatsmeow_sessions", "whatsmeow_contacts"} <= of_sessions
    assert {row[0] for row in described if row[1] is None} <= {"whatsmeow_version", "whatsmeow_lid_map"}


@fact("A session without a row in the store ends the process", "clients/pool.py", "sessions/store.py")
async def test_a_session_that_is_not_stored_ends_the_process(
    store: str, whatsapp: ServerProcess, plain_process: ClientProcess
) -> None:
    url = library_dsn(store, pgbouncer=False)
    opening = asyncio.create_task(
        plain_process.call("open", client="lost", store=url, proxy=whatsapp.proxy_url(), jid="628999:1@s.whatsapp.net")
    )
    assert await plain_process.ended() != 0
    with contextlib.suppress(ClientError):
        await opening


@fact("A DSN that is no URL silently becomes a file", "sessions/dsn.py")
async def test_a_dsn_that_is_no_url_becomes_a_file(
    store: str, whatsapp: ServerProcess, plain_process: ClientProcess, tmp_path: Path
) -> None:
    file = tmp_path / "host=127.0.0.1 dbname=shardd"
    await plain_process.call("open", client="new", store=str(file), proxy=whatsapp.proxy_url())
    await plain_process.event("qr", "new")
    assert file.exists()


@fact(
    "Each connect leaves open descriptors behind, which is why workers are replaced",
    *("clients/pool.py", "sessions/dsn.py", "shardd/supervisor/workers/budget.py"),
)
async def test_each_connect_leaves_descriptors_behind(host: HostProcess, device: dict[str, Any]) -> None:
    fds = []
    for _ in range(CYCLES):
        assert await host.ask("visit", device=device) is None
        await host.ask("close_device", device=device["id"])
        fds.append((await host.ask("counts"))["fds"])
    assert fds[-1] - fds[0] >= CYCLES - 1, fds


# ---- clients


@fact("An open client blocks one thread", "clients/library.py")
async def test_an_open_client_blocks_a_thread(host: HostProcess, make_device: MakeDevice, fresh_number: str) -> None:
    before = (await host.ask("counts"))["threads"]
    devices = [make_device(str(int(fresh_number) + 700_000 + n)) for n in range(3)]
    for device in devices:
        assert await host.ask("visit", device=device) is None
    # Other threads of the library end when they have been idle for a moment.
    await host.until(threads=before + len(devices))


@fact("The websocket goes to web.whatsapp.com, through the proxy of connect", "clients/client.py", "transport.py")
async def test_everything_goes_through_the_proxy(plain_device: PlainDevice) -> None:
    [login] = await plain_device.control.events("login", device=plain_device.name)
    assert login.details["proxy_user"] == plain_device.number
    assert SERVED_HOST == CHAT_HOST  # the test server treats no other host as WhatsApp


@fact("The end of the backlog is reported after each login, also if nothing waited", "messages/incoming.py")
async def test_the_end_of_the_backlog_is_reported_even_if_nothing_waited(plain_device: PlainDevice) -> None:
    await plain_device.event("OfflineSyncCompleted")


@fact("A message has its time in milliseconds, a receipt in seconds", "messages/incoming.py", "clients/receipts.py")
async def test_times_have_different_units(plain_device: PlainDevice) -> None:
    now = time.time()
    await plain_device.control.write(plain_device.name, FRIEND, "hello")
    message = await plain_device.event("Message")
    assert abs(message.details["timestamp"] / 1000 - now) < 3600
    await plain_device.send(FRIEND, "hello")
    receipt = await plain_device.event("Receipt")
    assert abs(int(receipt.details["Timestamp"]) - now) < 3600


@fact(
    "Without NEONIZE_BOT_TAG=off, messages to people say that a bot wrote them",
    *("oneshot.py", "shardd/supervisor/workers/process.py"),
)
async def test_messages_bear_a_bot_tag_unless_the_environment_says_otherwise(
    whatsapp: ServerProcess, plain_device: PlainDevice, tmp_path: Path
) -> None:
    await plain_device.close()
    tagged = await ClientProcess.start(whatsapp, tmp_path / "tagged.log", settings={})
    try:
        jid = f"{plain_device.name}@s.whatsapp.net"
        proxy = whatsapp.proxy_url(plain_device.name)
        await tagged.call("open", client="device", store=plain_device.store, proxy=proxy, jid=jid)
        await tagged.event("Connected", "device")
        await tagged.call("send", client="device", to=FRIEND, text="tagged")
    finally:
        await tagged.stop()
    [message] = await plain_device.control.wait_messages(text="tagged")
    assert message.bot_tag


@fact("A presence without the account's name fails, and says so", "clients/presence.py")
async def test_a_presence_needs_the_accounts_name(plain_device: PlainDevice) -> None:
    with pytest.raises(ClientError, match=NO_PUSH_NAME):
        await plain_device.process.call("presence", client="device")


@fact("A send takes no message id, so a crash leaves a doubt", "clients/client.py", "transport.py")
async def test_a_send_chooses_the_id_itself(plain_device: PlainDevice) -> None:
    with pytest.raises(ClientError, match="message_id"):
        await plain_device.process.call("send_as", client="device", to=FRIEND, text="mine", message_id="3EB0AAAA")


@fact("A refused login does not end the client's thread: it has to be stopped", "clients/client.py")
async def test_a_refused_login_leaves_the_client_running(plain_device: PlainDevice) -> None:
    await plain_device.close()
    await plain_device.control.fault("failure", "login", device=plain_device.name, code=405)
    await plain_device.open()
    await plain_device.event("ClientOutdated")
    assert await plain_device.process.call("is_running", client="device")
    await plain_device.close()


@fact("What a handler of an event raises is lost", "clients/client.py", "messages/arrivals.py")
async def test_an_error_in_a_handler_is_lost(plain_device: PlainDevice) -> None:
    await plain_device.process.call("fail_in_handlers", client="device")
    await plain_device.send(FRIEND, "one")
    await plain_device.event("failing")
    await plain_device.send(FRIEND, "two")
    await plain_device.event("failing")
    assert await plain_device.process.call("is_running", client="device")
