"""A child process trusts the server because of its environment alone, and a store can be seeded instead of paired."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.facts import fact
from tests.whatsapp_server.client.process import ClientProcess
from tests.whatsapp_server.launch import CLIENT_SITE, IMPORT_ROOT, ServerProcess, ServerStartError, launch
from tests.whatsapp_server.seed import seed_postgres

ROOT = "5a" * 32
LATE_IMPORT = f"""
import sys
assert not any(name.startswith("neonize") for name in sys.modules)
import neonize.proto.Neonize_pb2
from noise_root import BUILT_IN_ROOT, library_segments
memory = [segment.data for segment in library_segments() if segment.writable]
planted, built_in = (any(root in data for data in memory) for root in (bytes.fromhex("{ROOT}"), BUILT_IN_ROOT))
print("planted", planted, "built in", built_in)
"""


def run_child(code: str, folder: Path = IMPORT_ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CLIENT_SITE), **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@fact("WhatsApp's root key is in the library's memory once, where a test can replace it", "tests/whatsapp_server")
def test_the_root_is_planted_when_neonize_is_imported_late() -> None:
    assert "planted True built in False" in run_child(LATE_IMPORT, SHARDD_TEST_NOISE_ROOT=ROOT).stdout


def test_without_the_variable_the_library_stays_as_it_is() -> None:
    assert "planted False built in True" in run_child(LATE_IMPORT).stdout


def test_a_root_that_cannot_be_planted_fails_the_import() -> None:
    child = run_child("import neonize", SHARDD_TEST_NOISE_ROOT="5a5a")
    assert child.returncode != 0
    assert "a Noise root key has 32 bytes, got 2" in child.stderr


def test_an_installed_shardd_cannot_be_made_to_trust_a_test_server(tmp_path: Path) -> None:
    """A copy of the package elsewhere, with the environment that makes the clone's own processes trust the server."""
    shutil.copytree(IMPORT_ROOT / "shardd", tmp_path / "shardd")
    search_path = os.pathsep.join([str(CLIENT_SITE), str(tmp_path)])
    worker = "import shardd.transports.whatsapp.clients.library"
    child = run_child(worker, tmp_path, SHARDD_TEST_NOISE_ROOT=ROOT, PYTHONPATH=search_path)
    assert child.returncode != 0
    assert f"{tmp_path}/shardd is an installed shardd, which does not trust a test server" in child.stderr
    # The same, in the clone: what is refused is the installation.
    assert run_child(worker, SHARDD_TEST_NOISE_ROOT=ROOT).returncode == 0


def test_no_part_of_the_wheel_knows_of_another_root() -> None:
    project = tomllib.loads((IMPORT_ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert (wheel["packages"], wheel["force-include"]) == (["shardd"], {"systemd": "shardd/setup"})
    naming = re.compile(r"NOISE_ROOT|noise_root|sitecustomize|whatsapp_server", re.IGNORECASE)
    found = [file for file in (IMPORT_ROOT / "shardd").rglob("*.py") if naming.search(file.read_text())]
    assert found == []


def test_a_process_that_never_imports_neonize_pays_nothing() -> None:
    code = "import sys; print(sorted(name for name in sys.modules if 'noise' in name or 'ctypes' in name))"
    assert run_child(code, SHARDD_TEST_NOISE_ROOT=ROOT).stdout.strip() == "[]"


def test_a_client_that_was_not_prepared_refuses_the_server(whatsapp: ServerProcess, tmp_path: Path) -> None:
    code = f"""
import asyncio, os
from neonize._binder import ProxySettings
from neonize.aioze.client import NewAClient
async def main():
    client = NewAClient({str(tmp_path / "store.sqlite")!r}, new_device=True)
    try:
        await (await client.connect(ProxySettings({whatsapp.proxy_url()!r})))
    except Exception as error:
        print("refused:", error, flush=True)
    os._exit(0)
asyncio.run(main())
"""
    environment = whatsapp.client_environment() | {"SHARDD_TEST_NOISE_ROOT": ""}
    command = [sys.executable, "-c", code]
    child = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, cwd=IMPORT_ROOT, check=False
    )
    assert "failed to verify server cert" in child.stdout + child.stderr


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(ServerStartError, match="did not start"):
        launch(tmp_path)


async def test_seeded_devices_log_in_send_and_are_written_to(
    whatsapp: ServerProcess, plain_process: ClientProcess, empty_dsn: str
) -> None:
    control = whatsapp.async_control
    await plain_process.call("open", client="schema", store=empty_dsn, proxy=whatsapp.proxy_url())
    await plain_process.event("qr", "schema")

    jids = seed_postgres(empty_dsn, [f"6281177770{number:02d}" for number in range(30)], schema="public")
    assert jids[3] == "628117777003:1@s.whatsapp.net"
    await plain_process.call("open", client="seeded", store=empty_dsn, proxy=whatsapp.proxy_url(), jid=jids[3])
    await plain_process.event("Connected", "seeded")

    await plain_process.call("send", client="seeded", to="6281299990001", text="from a seeded device")
    [message] = await control.wait_messages(sender="628117777003:1")
    assert (message.text, message.read_by) == ("from a seeded device", ["6281299990001"])
    assert await control.events("prekeys_uploaded") == []
    await control.write("628117777003", "6281299990001", "to a seeded device")
    assert (await plain_process.event("Message", "seeded")).details["text"] == "to a seeded device"
