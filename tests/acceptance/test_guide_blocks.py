"""Every block of code of the README and the guide, as a user would run it: against one daemon with the embedded PostgreSQL.

The pages run one after the other in an order in which each finds what it talks about; `BEFORE` makes what else it needs. Blocks
that nothing runs say why (`tests/unit/test_pages.py`).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
import yaml

from shardd.embedded import embedded_dsn
from shardd.embedded.server import pid_in
from tests.fixtures.legacy import OldPostgresql
from tests.fixtures.postgres import Cluster, make_state_dir, remove_state_dir
from tests.integration.inbound.test_cloud_webhook import free_port
from tests.support.command import PROGRAM
from tests.support.guide import ON_A_FRESH_DEBIAN, PAGES, ROOT, WITH_TWO_DATABASES, Block, blocks
from tests.support.node import install_by_npm

pytestmark = pytest.mark.timeout(300)
PATIENCE = 200.0
"""Seconds after which a block is called hung."""
SECRET = "whsec_" + "c2hhcmRkLXRlc3Qtc2VjcmV0LW9mLTMyLWJ5dGVzIQ=="
ENVIRON = {
    "CRM_WEBHOOK_SECRET": SECRET,
    "SHARDD_DB_PASSWORD": "correct-horse-battery",
    **{name: f"test-{name.lower()}" for name in ("WABLAS_TOKEN", "WHACENTER_DEVICE", "CLOUD_TOKEN")},
    **{name: f"test-{name.lower()}" for name in ("META_APP_SECRET", "META_VERIFY_TOKEN", "WABLAS_WEBHOOK_SECRET")},
}
FIRST = ("README", "pair", "insert", "webhooks", "platforms", "campaigns", "outcomes", "producers")
LAST = ("opt-outs",)
"""Pages that run first and last, each with all its blocks in their order; the others in the order of their names."""
MESSAGE = (
    "INSERT INTO shardd.messages "
    "(id, device_id, message_id, sender, number, own, status, kind, text, opt_out, written_at) OVERRIDING SYSTEM VALUE "
    "VALUES (4711, 'me', 'M1', '+4915112345678', '+4915112345678', false, false, 'text', 'How many?', false, now())"
)
BEFORE = {
    "README": ["DELETE FROM shardd.devices WHERE id = 'me'"],
    "campaigns": [
        "INSERT INTO shardd.devices (id, transport) VALUES ('berlin-2', 'sandbox')",
        "UPDATE shardd.devices SET removed_at = NULL WHERE id = 'berlin-1'",
    ],
    "producers": ["CREATE ROLE shop LOGIN IN ROLE shardd_producer"],
    "replies": [MESSAGE],
}
"""What the superuser does before a page."""


@dataclass(frozen=True)
class Delivery:
    """A request that the webhook of the config received."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["type"])


class Story:
    """A folder like the clone's, with a daemon that the README's own block started, and what the pages take for granted."""

    def __init__(self, folder: Path, old: OldPostgresql) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.config = folder / "shards.yaml"
        self.begun: set[str] = set()
        self.deliveries: list[Delivery] = []
        self.receiver = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.dashboard = f"127.0.0.1:{free_port()}"
        self.instead = {
            "$PWD/.venv/bin": str(PROGRAM.parent),
            "config/demo.yaml": str(self.config),
            "/var/lib/shardd": str(self.state_dir),
            "/srv/inbox": str(folder / "inbox"),
            "postgresql://…": shlex.quote(old.dsn),
            "127.0.0.1:8484": self.dashboard,
        }
        """What stands for what the pages name."""
        (folder / "inbox").mkdir()
        (folder / "ids.txt").write_text("bulk-1\nbulk-2\n")
        (folder / "tills.txt").write_text("till-2\ntill-3\n")
        (folder / "unsubscribed.csv").write_text("recipient\n+4915100000001\n")
        dump = old.dump(folder / "old.sql")
        (folder / "old.sql.gz").write_bytes(gzip.compress(dump.read_bytes()))
        self._write_config()

    @property
    def environ(self) -> dict[str, str]:
        path = os.pathsep.join([str(PROGRAM.parent), *self._programs(), os.environ["PATH"]])
        given = {**os.environ, **ENVIRON, "PATH": path, "SHARDD_CONFIG": str(self.config), "COLUMNS": "120"}
        if self.begun:
            given["DATABASE_URL"] = embedded_dsn(self.state_dir, "producer")
        return given

    def __enter__(self) -> Self:
        threading.Thread(target=self.receiver.serve_forever, daemon=True).start()
        (self.beginning,) = (block.text for block in blocks("README") if "\nshardd start\n" in block.text)
        self.daemon = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.filled_in(self.beginning)],
            cwd=self.folder,
            env={**self.environ, "SHARDD_CONFIG": ""},
            stderr=(self.folder / "log").open("wb"),
            start_new_session=True,
        )
        try:
            self.run(["shardd", "status", "--wait", "--timeout=180s"])
        except BaseException:
            self.__exit__()  # else the daemon would outlive its folder
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.daemon.pid, signal.SIGTERM)
        try:
            self.daemon.wait(PATIENCE)
        finally:
            if self.daemon.poll() is None:
                os.killpg(self.daemon.pid, signal.SIGKILL)
            self.receiver.shutdown()
            self.receiver.server_close()

    def begin(self, page: str) -> None:
        """Do, once, what the page needs; earlier jobs have ended by then, but for those of a platform that is not there."""
        if page not in self.begun:
            self.begun.add(page)
            self.until(
                "SELECT 1 WHERE NOT EXISTS (SELECT FROM shardd.outcomes "
                "WHERE state IN ('queued', 'sending') AND device_id IS DISTINCT FROM 'jakarta-1')"
            )
            for statement in BEFORE.get(page, []):
                self.execute(statement, "postgres")

    def filled_in(self, text: str) -> str:
        for name, instead in self.instead.items():
            text = text.replace(name, instead)
        return text

    def execute(self, statement: str, role: str = "producer", *params: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(embedded_dsn(self.state_dir, role), autocommit=True) as connection:
            cursor = connection.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run it with a person at its stdin who says yes to every question; it succeeds."""
        person, inner = os.openpty()
        os.write(person, b"y\n" * 20)
        try:
            ran = subprocess.run(
                command, cwd=self.folder, env=self.environ, stdin=inner, capture_output=True, text=True,
                timeout=PATIENCE, check=False,
            )  # fmt: skip
        finally:
            os.close(person)
            os.close(inner)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}\n{self.log()}"
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    def sent(self, said: str) -> None:
        """A program printed the id of its job, which is sent."""
        found = re.fullmatch(r"job ([0-9]+)\n", said)
        assert found is not None, said
        self.until(f"SELECT 1 FROM shardd.outcomes WHERE id = {found[1]} AND state = 'sent'")

    def until(self, query: str) -> None:
        """Wait until the query returns a row."""
        deadline = time.monotonic() + PATIENCE
        while not self.execute(query):
            assert time.monotonic() < deadline, f"{query}\n{self.log()}"
            time.sleep(0.1)

    def deliver(self, kind: str) -> Delivery:
        """Send a message, and wait until its event of this kind is posted."""
        (row,) = self.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345679', 'Hi') RETURNING id"
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            for one in list(self.deliveries):
                if one.kind == kind and json.loads(one.body)["data"]["job_id"] == row[0]:
                    return one
            assert time.monotonic() < deadline, f"{kind} was never delivered\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        return "\n".join((self.folder / "log").read_text().splitlines()[-20:])

    def _programs(self) -> list[str]:
        """The folder of the embedded server's programs, for psql."""
        home = self.state_dir / "pg" / "data" / "postmaster.pid"
        pid = pid_in(home) if home.exists() else None
        return [] if pid is None else [str(Path(f"/proc/{pid}/exe").resolve().parent)]

    def _write_config(self) -> None:
        """The demonstration's, with what the pages configure; no platform is reached."""
        config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
        nowhere = f"http://127.0.0.1:{free_port()}"
        config |= {
            "state_dir": str(self.state_dir),
            "shards": 2,
            "dashboard": {"listen": self.dashboard},
            "webhooks": {
                "crm": {
                    "url": f"http://127.0.0.1:{self.receiver.server_port}/hooks/shardd",
                    "secret": "${CRM_WEBHOOK_SECRET}",
                    "kinds": "job.*, message.received, message.media, device.state",
                }
            },
            "transports": {
                "sandbox": config["transports"]["sandbox"],
                "wablas": {
                    "base": nowhere,
                    "webhook": {"listen": f"127.0.0.1:{free_port()}", "secret": "${WABLAS_WEBHOOK_SECRET}"},
                },
                "whacenter": {"base": nowhere},
                "cloud_api": {"base": nowhere},
            },
        }
        self.config.write_text(yaml.safe_dump(config))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        deliveries = self.deliveries

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.append(Delivery({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Receive


@pytest.fixture(scope="module")
def story(cluster: Cluster) -> Iterator[Story]:
    folder = make_state_dir()
    old = OldPostgresql(cluster)
    try:
        with Story(folder, old) as story:
            yield story
    finally:
        old.drop()
        remove_state_dir(folder)


def run_commands(story: Story, block: Block, folder: Path) -> None:
    if block.text == story.beginning:
        assert story.daemon.poll() is None  # the story began with it
    else:
        story.run(["bash", "-euo", "pipefail", "-c", story.filled_in(block.text)])


def run_statements(story: Story, block: Block, folder: Path) -> None:
    story.execute(block.text, block.value if block.word == "as" and block.value else "producer")


def compare_output(story: Story, block: Block, folder: Path) -> None:
    command = ["psql", story.environ["DATABASE_URL"], "-c", block.value or ""]
    ran = subprocess.run(command, env=story.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.returncode, ran.stderr.partition("CONTEXT:")[0]) == (1, block.text)


def check_config(story: Story, block: Block, folder: Path) -> None:
    file = folder / "shards.yaml"
    file.write_text(story.filled_in(block.text))
    story.run(["shardd", "config", "check", str(file)])


def run_python(story: Story, block: Block, folder: Path) -> None:
    (folder / "program.py").write_text(block.text)
    story.sent(story.run([sys.executable, str(folder / "program.py")]).stdout)


def run_node(story: Story, block: Block, folder: Path) -> None:
    (folder / "program.mjs").write_text(block.text)
    install_by_npm(folder, "--fetch-retries=0", "pg@8", timeout=PATIENCE)
    story.sent(story.run(["node", str(folder / "program.mjs")]).stdout)


def run_go(story: Story, block: Block, folder: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("there is no Go")
    (folder / "main.go").write_text(block.text)
    try:
        for command in (["mod", "init", "example"], ["mod", "tidy"]):
            subprocess.run(["go", *command], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"Go cannot get the library: {error}")
    subprocess.run(["go", "build", "-o", "program"], cwd=folder, check=True, timeout=PATIENCE)
    story.sent(story.run([str(folder / "program")]).stdout)


def run_php(story: Story, block: Block, folder: Path) -> None:
    """A producer, or a receiver of webhooks."""
    if shutil.which("php") is None:
        pytest.skip("there is no PHP")
    program = folder / "program.php"
    program.write_text(block.text)
    if "pg_connect" in block.text:
        if "pgsql" not in subprocess.run(["php", "-m"], check=True, capture_output=True, text=True).stdout.split():
            pytest.skip("PHP has no pgsql")
        story.sent(story.run(["php", str(program)]).stdout)
        return
    delivery = story.deliver("job.sent")
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(["php", "-S", address, str(program)], env=story.environ, stderr=subprocess.DEVNULL)
    try:
        assert answer_of(address, delivery) == 200
        assert answer_of(address, Delivery(delivery.headers, delivery.body + b" ")) == 401
    finally:
        server.kill()
        server.wait()


def answer_of(address: str, delivery: Delivery) -> int:
    headers = {name: value for name, value in delivery.headers.items() if name.startswith(("webhook-", "content-type"))}
    request = urllib.request.Request(f"http://{address}/", delivery.body, headers)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:  # PHP does not announce that it listens
            assert time.monotonic() < deadline
            time.sleep(0.05)


def compare_delivery(story: Story, block: Block, folder: Path) -> None:
    delivery = story.deliver("job.sent")
    head, _, body = block.text.partition("\n\n")
    shown, real = json.loads(body), json.loads(delivery.body)
    assert set(re.findall(r"^([a-z-]+): ", head, re.MULTILINE)) <= set(delivery.headers)
    assert re.fullmatch(r"evt_[0-9]+_[0-9a-f]+", delivery.headers["webhook-id"])
    assert list(shown) == list(real)
    assert set(shown["data"]) == set(real["data"])


RUNS = {
    "sh": run_commands,
    "sql": run_statements,
    "text": compare_output,
    "yaml": check_config,
    "python": run_python,
    "js": run_node,
    "go": run_go,
    "php": run_php,
    "http": compare_delivery,
}
"""How a block of each language is run."""


def in_order() -> list[Block]:
    pages = [page for page in PAGES if page not in {*FIRST, *LAST, *ON_A_FRESH_DEBIAN, *WITH_TWO_DATABASES}]
    here = [block for page in (*FIRST, *pages, *LAST) for block in blocks(page) if block.runs]
    return [block for block in here if block.language in RUNS]


@pytest.mark.parametrize("block", in_order(), ids=lambda block: block.name)
def test_block(story: Story, block: Block, tmp_path: Path) -> None:
    story.begin(block.page)
    RUNS[block.language](story, block, tmp_path)
