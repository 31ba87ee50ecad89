"""PostgreSQL as a child of shardd: made on first use, started and stopped with it.

Who may connect. The server listens on one UNIX socket, in a folder of mode 0700, and on no network. Entering that
folder is not enough: `peer` authentication asks the kernel who is at the other end of the socket, and a map lets in root,
and the user that shardd runs as, as any of the roles `shardd` (the daemon), `producer` (inserts jobs, reads
outcomes) and `postgres` (superuser). With `trust`, another program of the account that runs the server (`nobody` often
runs several) could come in as superuser; a password would have to lie in a file beside the data, readable by the same
people that peer lets in. So a producer on the same machine runs as the daemon's user or as root; anything else is what a
real server is for.

Who owns the process. The server is our own child, never a daemon of its own: when shardd is killed, the kernel
interrupts the server, which then shuts down in order. A lock (`STATE_DIR/pg.lock`) says which process is the parent, so
whatever runs on the data while we hold it is an orphan on its way out: it is asked to stop, and waited for. Nothing here
waits on an event loop's own objects, so an instance may be used from one `asyncio.run` after another, but always from a
thread that lives as long as the server should (see `shardd.embedded.launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psycopg
from psycopg.rows import TupleRow

from shardd.embedded.binaries import Binaries, find_binaries
from shardd.embedded.home import SPARE, Home, find_home, my_name, open_own, prepare_home
from shardd.embedded.pid_file import is_ready, pid_in, works_in
from shardd.errors import AlreadyRunningError, DatabaseError
from shardd.state_files import open_file

ROLES: Final = ("shardd", "producer", "postgres")

_POLL: Final = 0.02  # seconds between two looks at a process or at a file that no event announces
_INITDB_TIMEOUT: Final = 120.0
_START_TIMEOUT: Final = 300.0  # recovery after a power loss replays up to max_wal_size
_STOP_TIMEOUT: Final = 30.0
_MAX_LOG: Final = 8 * 1024 * 1024

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "300",  # every open WhatsApp client holds up to two
    "max_wal_size": "512MB",
    "autovacuum_naptime": "10s",  # the queue's live table turns over quickly
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A row that a constraint refuses is the producer's news, not ours, and its text does not belong into a log.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


def embedded_dsn(state_dir: Path, role: str = "shardd") -> str:
    """Where programs of this machine connect; raises DatabaseError when there is no embedded database yet."""
    folder = find_home(state_dir)
    if folder is None:
        raise DatabaseError(f"there is no embedded database in {state_dir} yet: `shardd start` makes it")
    return _dsn(folder, role)


def _dsn(folder: Path, role: str, database: str = "shardd") -> str:
    # sslmode: a socket carries no TLS, and some drivers ask for it unless told.
    return f"postgresql://{role}@/{database}?host={quote(str(folder), safe='')}&sslmode=disable"


class EmbeddedPostgres:
    """The PostgreSQL of one state folder.

    `bin_dir`: use the programs of this folder. `settings`: more server settings, over the built-in ones. `spare`: where
    root keeps the data of a state folder that is closed to the server's account.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        spare: Path = SPARE,
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._bin_dir = bin_dir
        self._settings = {**_SETTINGS, **(settings or {})}
        self._spare = spare
        self._home: Home | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._wanted = False
        self._log_start = 0

    @property
    def home(self) -> Home:
        """Where the server lives, known once it was started."""
        assert self._home is not None
        return self._home

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self._state_dir / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it is our child and alive."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def dsn(self, role: str = "shardd", database: str = "shardd") -> str:
        """Connection string (URL) of a role of `ROLES`, known once the server was started."""
        if self._home is None:
            return embedded_dsn(self._state_dir, role)
        return _dsn(self._home.folder, role, database)

    async def start(self) -> str:
        """Make the database if there is none, start the server, return the daemon's DSN.

        Raises DatabaseError with the mend where it cannot run, AlreadyRunningError while another process runs it.
        """
        if self.pid is not None:
            return self.dsn()
        self._home = home = prepare_home(self._state_dir, self._spare)
        self._take_lock()
        try:
            await self._end_orphan(home)
            binaries = find_binaries(home, self._bin_dir)
            if not (home.data / "PG_VERSION").exists():
                await self._make_data(home, binaries)
            self._write_access(home)
            await self._serve(home, binaries)
            await self._make_roles()
        except BaseException:
            await self._end()
            raise
        self._wanted = True
        return self.dsn()

    async def stop(self) -> None:
        """Stop the server in order (fast shutdown), harder when it does not."""
        self._wanted = False
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        try:
            for stop_signal, patience in ((signal.SIGINT, _STOP_TIMEOUT), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if process is None or process.poll() is not None:
                    break
                process.send_signal(stop_signal)
                deadline = time.monotonic() + patience
                while time.monotonic() < deadline:
                    if process.poll() is not None:
                        break
                    await asyncio.sleep(_POLL)
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    async def restart_if_dead(self) -> bool:
        """Start the server again when it should run and does not; says whether it had to.

        Raises what `start` raises, and may then be called again.
        """
        if not self._wanted or self.pid is not None:
            return False
        self._process = None
        await self.start()
        return True

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = open_own(self._state_dir / "pg.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunningError(f"another process runs the embedded PostgreSQL of {self._state_dir}") from None
        self._lock = lock

    async def _end_orphan(self, home: Home) -> None:
        """Whatever runs on the data while we hold the lock lost its parent: ask it to stop and wait for its end."""
        pid_file = home.data / "postmaster.pid"
        deadline = time.monotonic() + _STOP_TIMEOUT
        asked = False
        while (pid := pid_in(pid_file)) is not None and works_in(pid, home.data):
            if not asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
                asked = True
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"a PostgreSQL that shardd did not start (pid {pid}) uses {home.data} and does not stop: end it by hand"
                )
            await asyncio.sleep(_POLL)
        # The number may belong to a stranger by now (a container starts counting anew), at which PostgreSQL would balk.
        if pid is not None:
            pid_file.unlink(missing_ok=True)

    async def _make_data(self, home: Home, binaries: Binaries) -> None:
        """Run initdb beside the data folder and rename, so that an interrupted run leaves no half-made data."""
        for left in home.folder.glob("data.new-*"):
            shutil.rmtree(left)
        fresh = home.folder / f"data.new-{os.getpid()}"
        command = [
            str(binaries.folder / "initdb"), "--pgdata", str(fresh), "--username=postgres", "--auth=peer",
            "--encoding=UTF8", "--no-locale",
        ]  # fmt: skip
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        with self._open_log() as log:
            process = home.account.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._process = process
        deadline = time.monotonic() + _INITDB_TIMEOUT
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise DatabaseError(f"initdb has not ended within {_INITDB_TIMEOUT:.0f} s; see {self.log_file}")
            await asyncio.sleep(_POLL)
        self._process = None
        if process.returncode != 0:
            raise DatabaseError(f"the embedded database cannot be made: {self._last_words()}")
        fresh.rename(home.data)

    def _write_access(self, home: Home) -> None:
        home.account.write(
            home.folder / "hba.conf", "# Written by shardd at every start.\nlocal all all peer map=shardd\n"
        )
        users = dict.fromkeys(("root", my_name()))
        rows = "".join(f'shardd "{user}" "{role}"\n' for user in users for role in ROLES)
        home.account.write(home.folder / "ident.conf", f"# Written by shardd at every start: map, user, role.\n{rows}")

    async def _serve(self, home: Home, binaries: Binaries) -> None:
        settings = {
            **self._settings,
            "unix_socket_directories": '"' + str(home.folder).replace('"', '""') + '"',
            "hba_file": str(home.folder / "hba.conf"),
            "ident_file": str(home.folder / "ident.conf"),
        }
        command = [str(binaries.folder / "postgres"), "-D", str(home.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            with self._open_log() as log:
                self._process = process = home.account.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            while process.poll() is None:
                if is_ready(home.data / "postmaster.pid", process.pid):
                    return
                if time.monotonic() > deadline:
                    raise DatabaseError(
                        f"the embedded PostgreSQL is not ready within {_START_TIMEOUT:.0f} s: {self._last_words()}"
                    )
                await asyncio.sleep(_POLL)
            said = self._last_words()
            # The children of a server that was killed need a moment to notice it.
            if "pre-existing shared memory block" not in said or time.monotonic() > deadline:
                raise DatabaseError(f"the embedded PostgreSQL does not start: {said}")
            await asyncio.sleep(10 * _POLL)

    async def _make_roles(self) -> None:
        here = files("shardd.embedded")
        try:
            async with await self._superuser("postgres") as connection:
                await connection.execute(here.joinpath("roles.sql").read_bytes())
                with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                    await connection.execute(here.joinpath("database.sql").read_bytes())
            async with await self._superuser("shardd") as connection:
                await connection.execute(here.joinpath("public_rights.sql").read_bytes())
        except psycopg.Error as error:
            raise DatabaseError(
                f"the embedded PostgreSQL started, and does not serve: {error}; see {self.log_file}"
            ) from error

    async def _superuser(self, database: str) -> psycopg.AsyncConnection[TupleRow]:
        dsn = self.dsn("postgres", database)
        return await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=10)

    def _open_log(self) -> IO[bytes]:
        log = open_own(self.log_file)
        if log.tell() > _MAX_LOG:
            log.truncate(0)
        self._log_start = os.fstat(log.fileno()).st_size
        return log

    def _last_words(self) -> str:
        with os.fdopen(open_file(self._state_dir, self.log_file.name, os.O_RDONLY), "rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-4:]
        return " / ".join(line.strip() for line in lines if line.strip()) + f" (see {self.log_file})"
