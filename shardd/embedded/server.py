"""The server process: created on first use, started, stopped, and started again when it died.

No object of an event loop is kept, so an instance may be used from one `asyncio.run` after another, but always from a thread that
lives as long as the server should (see `shardd.embedded.launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psycopg
from psycopg.rows import TupleRow

from shardd.embedded.binaries import Binaries, find_binaries
from shardd.embedded.home import SOCKET_NAME, SPARE, Home, find_home, my_name, open_own, prepare_home
from shardd.errors import AlreadyRunningError, CopiedStateError, DatabaseError, NotMigratedError
from shardd.postgres.dsn import without_libpq
from shardd.postgres.sql_files import queries_of
from shardd.state_files import STARTS_FILE, is_copy, open_file, read_others_file

ROLES: Final = ("shardd", "producer", "inbox", "postgres")

_POLL: Final = 0.02  # seconds between two looks at a process or a file, whose changes no event announces
_INITDB_TIMEOUT: Final = 120.0
_START_TIMEOUT: Final = 300.0  # recovery after a power loss replays up to max_wal_size
_STOP_TIMEOUT: Final = 30.0
_MAX_LOG: Final = 8 * 1024 * 1024
_ROOM: Final = 16 * 1024 * 1024  # a segment of the write-ahead log, which a start may have to create
_MAX_PID_FILE: Final = 8192  # bytes; PostgreSQL itself reads no more than BLCKSZ

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
    # A row that a constraint refuses is the producer's error, and its text does not belong in a log.
    "log_min_messages": "log",
    "log_checkpoints": "off",
    # `restart_if_dead` starts it again, and sees why it does not start. By itself PostgreSQL 18 has waited for ever for a
    # recovery that had failed: seen on a full disk, and later with room.
    "restart_after_crash": "off",
}


def embedded_dsn(state_dir: Path, role: str = "shardd") -> str:
    """The DSN for programs of this machine; raises NotMigratedError when there is no embedded database yet."""
    folder = find_home(state_dir)
    if folder is None:
        raise NotMigratedError(f"there is no embedded database in {state_dir} yet: `shardd start` creates it")
    return _dsn(folder, role)


def is_others(state_dir: Path) -> bool:
    """Whether we are root, and the state folder belongs to another account: root opens no file there."""
    try:
        owner = state_dir.stat().st_uid
    except OSError:
        return False
    return os.geteuid() == 0 and owner != 0


def others_dsn(state_dir: Path) -> str | None:
    """For root: the DSN of the embedded database in the state folder of another account, or None if the folder is no such one.

    Root opens no file there and so cannot start the server. Raises NotMigratedError with the fix while it is not running.
    """
    if not is_others(state_dir):
        return None
    folder = find_home(state_dir)
    pid = None if folder is None else pid_in(folder / "data" / "postmaster.pid")
    if folder is None or pid is None or not _works_in(pid, folder / "data"):
        raise NotMigratedError(
            f"the embedded database in {state_dir} is not running, and root does not start it in the folder of another account: "
            "start shardd first"
        )
    return _dsn(folder, "shardd")


def _dsn(folder: Path, role: str, database: str = "shardd") -> str:
    # port: Debian's psql takes that of a local cluster otherwise. sslmode: a socket carries no TLS, which some drivers request.
    return f"postgresql://{role}@/{database}?host={quote(str(folder), safe='')}&port=5432&sslmode=disable"


def pid_in(pid_file: Path) -> int | None:
    """Process id of the server that wrote the `postmaster.pid`, if there is one. Raises UnsafeFileError, OSError."""
    lines = _lines(pid_file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def is_up(state_dir: Path) -> bool:
    """Whether the embedded PostgreSQL of a state folder accepts connections. Raises UnsafeFileError, DatabaseError, OSError."""
    folder = find_home(state_dir)
    pid_file = None if folder is None else folder / "data" / "postmaster.pid"
    pid = None if pid_file is None else pid_in(pid_file)
    return pid_file is not None and pid is not None and _is_ready(pid_file, pid)


class EmbeddedPostgres:
    """The PostgreSQL of one state folder.

    `bin_dir`: use the programs of this folder. `settings`: server settings, over the built-in ones. `spare`: where root keeps the
    data of a state folder that is closed to the server's account.
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
        """The server's folder and account, known once it was started."""
        assert self._home is not None
        return self._home

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self._state_dir / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it is our child and alive."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def dsn(self, role: str = "shardd", database: str = "shardd") -> str:
        """Connection string (URL) of a role of `ROLES`, known once the server was started."""
        return _dsn(self.home.folder, role, database)

    async def start(self) -> str:
        """Create the database if there is none, start the server, return the daemon's DSN.

        Raises DatabaseError with the fix where it cannot run, AlreadyRunningError while another process runs it,
        CopiedStateError.
        """
        if self.pid is not None:
            return self.dsn()
        self._refuse_copy()
        # libpq would add what the caller's variables say of another server, such as PGSERVICE or PGHOSTADDR.
        for name in os.environ.keys() - without_libpq(os.environ).keys():
            del os.environ[name]
        self._home = home = prepare_home(self._state_dir, self._spare)
        self._take_lock()
        try:
            await self._end_orphan(home)
            binaries = find_binaries(home, self._bin_dir)
            if not (home.data / "PG_VERSION").exists():
                await self._make_data(home, binaries)
            self._write_access(home)
            await self._serve(home, binaries)
            await self._set_up()
        except BaseException:
            await self._end()
            raise
        self._wanted = True
        return self.dsn()

    async def stop(self) -> None:
        """Stop the server cleanly (fast shutdown), and harder if it does not."""
        self._wanted = False
        await self._end()

    async def restart_if_dead(self) -> bool:
        """Start the server again if it should run and does not; returns whether that was necessary.

        Raises what `start` raises, and may then be called again.
        """
        if not self._wanted or self.pid is not None:
            return False
        self._process = None
        await self.start()
        return True

    async def _end(self) -> None:
        process, self._process = self._process, None
        try:
            for stop_signal, patience in ((signal.SIGINT, _STOP_TIMEOUT), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if process is None or process.poll() is not None:
                    break
                process.send_signal(stop_signal)
                await _wait_until(lambda: process.poll() is not None, patience)
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _refuse_copy(self) -> None:
        try:
            copied = is_copy(self._state_dir)
        except OSError as error:
            raise DatabaseError(f"{self._state_dir / STARTS_FILE}: {error.strerror}") from error
        if copied:
            raise CopiedStateError(
                f"state_dir {self._state_dir} is a copy of another one, or was restored: with the embedded database in it, the "
                "jobs that wait there would be sent from both. If this one is to take the other's place, stop that one for good, "
                f"read shardd guide backup, delete {self._state_dir / STARTS_FILE}, and start again; for a node of its own, name "
                "an empty state_dir"
            )

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
        """A server that runs on the data while we hold the lock has lost its parent: stop it."""
        pid_file = home.data / "postmaster.pid"
        pid = pid_in(pid_file)
        if pid is None:
            return
        if _works_in(pid, home.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            if not await _wait_until(lambda: pid_in(pid_file) is None or not _works_in(pid, home.data), _STOP_TIMEOUT):
                raise DatabaseError(
                    f"a PostgreSQL that shardd did not start (pid {pid}) uses {home.data} and does not stop: end it yourself"
                )
        # The pid may be another program's by now (a container starts counting anew), and PostgreSQL would refuse to start.
        pid_file.unlink(missing_ok=True)
        # In a copy that was made while the other one ran, it names that one's server.
        (home.folder / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)

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
        process = self._spawn(home, command)
        try:
            ended = await _wait_until(lambda: process.poll() is not None, _INITDB_TIMEOUT)
        finally:
            self._process = None
            if process.poll() is None:
                # Asked to stop, it would first finish its step, which may take long; what it has made is of no use.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                shutil.rmtree(fresh, ignore_errors=True)
        if not ended:
            raise DatabaseError(f"initdb did not end within {_INITDB_TIMEOUT:.0f} s; see {self.log_file}")
        if process.returncode != 0:
            raise DatabaseError(f"the embedded database cannot be created: {self._last_log_lines()}")
        fresh.rename(home.data)

    def _write_access(self, home: Home) -> None:
        home.account.write(
            home.folder / "hba.conf", "# Written by shardd at every start.\nlocal all all peer map=shardd\n"
        )
        pairs = [(user, role) for user in ("root", my_name()) for role in ROLES]
        # The account of a PgBouncer that root runs; it can read and write the data anyway.
        pairs.append((home.account.name, "shardd"))
        rows = "".join(f'shardd "{user}" "{role}"\n' for user, role in dict.fromkeys(pairs))
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
        while lines := await self._try_to_start(home, command, deadline):
            # The children of a killed server need a moment to notice.
            if "pre-existing shared memory block" not in lines or time.monotonic() > deadline:
                raise DatabaseError(f"the embedded PostgreSQL does not start: {lines}")
            await asyncio.sleep(10 * _POLL)

    async def _try_to_start(self, home: Home, command: list[str], deadline: float) -> str | None:
        """None once the server is ready; if it ended, the end of its log. Raises DatabaseError past the deadline."""
        process, pid_file = self._spawn(home, command), home.data / "postmaster.pid"
        patience = deadline - time.monotonic()
        if not await _wait_until(lambda: process.poll() is not None or _is_ready(pid_file, process.pid), patience):
            limit = f"{_START_TIMEOUT:.0f} s"
            raise DatabaseError(f"the embedded PostgreSQL is not ready within {limit}: {self._last_log_lines()}")
        return None if process.poll() is None else self._last_log_lines()

    async def _set_up(self) -> None:
        queries = queries_of("shardd.embedded")
        try:
            async with await self._superuser("postgres") as connection:
                await connection.execute(queries["create_roles"])
                with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                    await connection.execute(queries["create_database"])
            async with await self._superuser("shardd") as connection:
                await connection.execute(queries["restrict_public"])
        except psycopg.Error as error:
            raise DatabaseError(
                f"the embedded PostgreSQL started, but cannot be used: {error}; see {self.log_file}"
            ) from error

    async def _superuser(self, database: str) -> psycopg.AsyncConnection[TupleRow]:
        dsn = self.dsn("postgres", database)
        return await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=10)

    def _spawn(self, home: Home, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program that `_end` stops, with its output in the log."""
        with open_own(self.log_file) as log:
            if log.tell() > _MAX_LOG:
                log.truncate(0)
            self._log_start = os.fstat(log.fileno()).st_size
            self._process = home.account.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self._process

    def _last_log_lines(self) -> str:
        with os.fdopen(open_file(self._state_dir, self.log_file.name, os.O_RDONLY), "rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        fatal = [line for line in lines if re.search(r"\b(?:FATAL|PANIC): ", line)]
        return " / ".join((fatal or lines)[-4:]) + f" (see {self.log_file}){self._lack_of_room()}"

    def _lack_of_room(self) -> str:
        """What to add to an error when the disk is full: then the log may lack its last lines."""
        disk = os.statvfs(self._state_dir)
        free = disk.f_bavail * disk.f_frsize
        return f"; its disk is full: {free / 2**20:.1f} MiB are free, make room" if free < _ROOM else ""


async def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL)
    return True


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether the server with this process id accepts connections.

    Its status is in the eighth line of the file (PostgreSQL's miscadmin.h: LOCK_FILE_LINE_PM_STATUS).
    """
    lines = _lines(pid_file)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _works_in(pid: int, folder: Path) -> bool:
    """Whether the working directory of a process is this folder; that of a PostgreSQL server is its data folder."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


def _lines(pid_file: Path) -> list[str]:
    content = read_others_file(pid_file, _MAX_PID_FILE)
    return [] if content is None else content.decode(errors="replace").splitlines()
