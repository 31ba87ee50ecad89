"""A real MariaDB server for the test run, with a socket in a temporary folder, and without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

PROGRAMS = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
PATIENCE = 60.0


class MariaDb:
    """Started by the constructor; `stop` ends it and removes its data."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shardd-mysql-", dir="/tmp"))
        self.socket = self.folder / "socket"
        self._run("mariadb-install-db", "--no-defaults", *self._data(), "--auth-root-authentication-method=normal")
        self._process = subprocess.Popen(
            [
                *(
                    self._find("mariadbd"),
                    "--no-defaults",
                    *self._data(),
                    f"--socket={self.socket}",
                    "--skip-networking",
                ),
                *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--default-time-zone=+07:00"),
                *(f"--pid-file={self.folder}/pid", "--character-set-server=utf8mb4"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("wb"),
        )
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def dsn(self, database: str, user: str = "root", password: str = "") -> str:
        return f"mysql://{user}:{quote(password)}@localhost/{database}?unix_socket={quote(str(self.socket))}"

    def execute(self, statements: str, database: str = "") -> None:
        self._run("mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", database, stdin=statements)

    def dump(self, database: str, *options: str) -> bytes:
        arguments = ("--no-defaults", f"--socket={self.socket}", "--user=root", *options, database)
        return self._run("mariadb-dump", *arguments)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        shutil.rmtree(self.folder)

    def _data(self) -> list[str]:
        # It runs as root only with this option.
        return [f"--datadir={self.folder}/data", *(["--user=root"] if os.geteuid() == 0 else [])]

    @staticmethod
    def _find(program: str) -> str:
        found = shutil.which(program, path=PROGRAMS)
        assert found is not None, f"{program} is missing: apt-get install mariadb-server"
        return found

    def _run(self, program: str, *arguments: str, stdin: str = "") -> bytes:
        done = subprocess.run(
            [self._find(program), *(one for one in arguments if one)],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
