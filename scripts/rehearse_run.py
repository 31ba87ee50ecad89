"""The rehearsal: every command is carried out by the real `shardd`, on a WhatsApp server of the tests with simulated phones.

Everything is in a temporary folder, which is removed. No process outlives this one.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
from clone_daemon import SHARDD, Stopped, running_daemon, signals_held, stop_on_signals

from shardd.config import load_config
from shardd.embedded import embedded_dsn
from shardd.errors import SharddError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # not by PYTHONPATH, which the daemon would inherit

from tests.support.pairing_screen import PairingScreen  # noqa: E402  # found only now
from tests.whatsapp_server.control_client import ControlError  # noqa: E402  # likewise
from tests.whatsapp_server.launch import ServerProcess, ServerStartError, launch  # noqa: E402  # likewise

OWNER, FRIEND = "6281100000001", "4915112345678"
PATIENCE = 90.0
"""Seconds after which a step is called stuck."""
WIDEST = 100
"""Columns that are used of a wider terminal."""


def main() -> int:
    """Run; returns the exit status."""
    stop_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the code, where the encoding does not have its glyphs
    try:
        with _folder() as folder:
            Rehearsal(folder).run()
    except Stopped:
        print("stopped")
        return 130
    except (SharddError, ControlError, ServerStartError, TimeoutError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that root's PostgreSQL can reach, with a short path: a socket's has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="shardd-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Rehearsal:
    """The steps, in their order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._width = min(WIDEST, shutil.get_terminal_size().columns)
        self._config_file = folder / "shards.yaml"
        self._environ: Mapping[str, str] = {}

    def run(self) -> None:
        """Raises SharddError or TimeoutError for a step that fails."""
        self._say(
            "shardd, PostgreSQL and the WhatsApp library are real. WhatsApp and the phones are simulated on this machine."
        )
        server = launch(self._folder / "whatsapp")
        try:
            self._config_file.write_text(
                f"node: rehearsal\nstate_dir: {self._folder / 'state'}\nshards: 1\nlog: {{level: warning}}\n"
                f"transports: {{whatsapp: {{proxy: {server.proxy_url()!r}}}}}\n"
            )
            config = load_config(self._config_file)
            config.state_dir.mkdir(mode=0o711)
            self._environ = {
                **server.client_environment(),
                "SHARDD_CONFIG": str(self._config_file),
                "PATH": f"{SHARDD.parent}:{os.environ.get('PATH', os.defpath)}",
                "COLUMNS": str(self._width),
            }
            self._command("shardd start &")
            with running_daemon(self._config_file, config, self._environ):
                with psycopg.connect(embedded_dsn(config.state_dir, "inbox"), autocommit=True) as connection:
                    self._converse(server, Events(connection))
                self._say("Done; stopping shardd and removing its folder.")
        finally:
            server.stop()

    def _converse(self, server: ServerProcess, events: Events) -> None:
        phones = server.control
        self._shell("shardd device add shop --transport=whatsapp")
        self._command("shardd device pair shop")
        with ExitStack() as ended:
            with signals_held():
                command = [str(SHARDD), "device", "pair", "shop"]
                screen = ended.enter_context(PairingScreen(command, self._environ, columns=self._width))
            code = screen.code(PATIENCE)
            print("\n".join(screen.drawn(colours=sys.stdout.isatty())))
            self._say(f"The phone of +{OWNER} scans this code.")
            device = phones.scan(code, OWNER).partition("@")[0]
            print(screen.end(PATIENCE))
        self._shell(f"shardd send shop +{FRIEND} 'Your table is ready.'")
        (message,) = phones.wait_messages(1, recipient=FRIEND)
        self._say(f"The phone of +{FRIEND} decrypts and shows: {message.text}")
        events.wait("job.delivered")
        self._say("Its delivery receipt has arrived. Its owner reads the message and answers:")
        phones.receipt(device, FRIEND, message.id, read=True)
        events.wait("job.read")
        self._shell("shardd job show 1 | grep -E '^(state|delivered|read) '")
        phones.write(device, FRIEND, "Thank you!")
        events.wait("message.received")
        self._shell("shardd inbox list")

    def _shell(self, command: str) -> None:
        """Show a command, carry it out, and show what it prints. Raises SharddError when it fails."""
        self._command(command)
        with ExitStack() as ended:
            with signals_held():
                process = subprocess.Popen(
                    ["bash", "-o", "pipefail", "-c", command],
                    env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    start_new_session=True,
                )  # fmt: skip
                ended.callback(_end_group, process)
            said, _ = process.communicate()
        print(said, end="", flush=True)
        if process.returncode != 0:
            raise SharddError(f"`{command}` ended with status {process.returncode}")

    def _command(self, command: str) -> None:
        print(f"\n$ {command}", flush=True)

    def _say(self, text: str) -> None:
        print("\n".join(f"# {line}" for line in textwrap.wrap(text, self._width - 2)), flush=True)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a shell and what it started, unless it has ended: it waits for that."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Events:
    """What happens, as any program hears of it."""

    def __init__(self, connection: psycopg.Connection[tuple[str, str]]) -> None:
        self._connection = connection
        self._position: str | None = None
        connection.execute("LISTEN shardd_events")

    def wait(self, kind: str) -> None:
        """Wait for the next event of a kind, and skip those before it. Raises TimeoutError."""
        while True:
            query = "SELECT position, kind FROM shardd.read_events(%s, 100)"
            for position, found in self._connection.execute(query, [self._position]).fetchall():
                self._position = position
                if found == kind:
                    return
            if not list(self._connection.notifies(timeout=PATIENCE, stop_after=1)):
                raise TimeoutError(f"the event {kind} did not come within {PATIENCE:g} s")


if __name__ == "__main__":
    sys.exit(main())
