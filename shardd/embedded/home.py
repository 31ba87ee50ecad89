"""The folder of the embedded PostgreSQL, and the account that it runs as.

An ordinary user runs it as himself, in `STATE_DIR/pg` (0700). For root it runs as `postgres`, or else as `nobody`, and that
account must be able to reach its folder: the state folder itself (root's own) becomes passable for the account's group, but the
mode of a folder above never changes. Where one of those is closed (`/root`, a private temporary folder), the data is below
`SPARE` and `STATE_DIR/pg` is a link to it.

Root never opens a file for writing inside a folder that another account owns: a link planted there could lead anywhere.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from shardd.errors import DatabaseError
from shardd.state_files import open_file

SPARE: Final = Path("/var/lib/shardd-postgres")
"""For root, if the account that PostgreSQL runs as cannot reach the state folder."""

SOCKET_NAME: Final = ".s.PGSQL.5432"
MAX_SOCKET_PATH: Final = 107
"""Bytes; `sun_path` of a UNIX socket address holds 108 with the end mark (linux/un.h)."""

_LAUNCHER: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Account:
    """The operating system's user that PostgreSQL runs as."""

    name: str
    uid: int
    gid: int

    def spawn(
        self, command: Sequence[str], *, stdin: IO[bytes] | int, stdout: IO[bytes] | int, stderr: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Start a program as this account; it is interrupted when the calling thread ends.

        In a session of its own, because Ctrl-C on a terminal must not stop the database before its clients are done.
        """
        environ = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}
        if "LD_LIBRARY_PATH" in os.environ:
            environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        return subprocess.Popen(
            tied(command, self.uid, self.gid),
            stdin=stdin, stdout=stdout, stderr=stderr,
            cwd="/", env=environ, umask=0o077, start_new_session=True,
        )  # fmt: skip

    def run(self, command: Sequence[str], *, text: str = "") -> tuple[int, str]:
        """Run a short program as this account: its exit status and all its output."""
        process = self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with process:
            output, _ = process.communicate(text.encode(), timeout=30)
        return process.returncode, output.decode(errors="replace").strip()

    def write(self, path: Path, text: str) -> None:
        """Write a file as this account, mode 0600, in place of whatever is there."""
        status, output = self.run(["/usr/bin/env", "rm", "-f", "--", str(path)])
        if status == 0:
            status, output = self.run(["/usr/bin/env", "tee", "--", str(path)], text=text)
        if status != 0:
            raise DatabaseError(f"{path} cannot be written as {self.name}: {output}")

    def can_reach(self, folder: Path) -> bool:
        """Whether this account can enter the folder."""
        return self.run(["/usr/bin/env", "test", "-x", str(folder)])[0] == 0


@dataclass(frozen=True)
class Home:
    """The folder of PostgreSQL, and its owner."""

    folder: Path
    account: Account

    @property
    def data(self) -> Path:
        """The data folder (PGDATA)."""
        return self.folder / "data"

    @property
    def base(self) -> Path:
        """The folder above, which belongs to shardd."""
        return self.folder.parent


def open_own(path: Path) -> IO[bytes]:
    """Open a file directly in the state folder for appending; see `open_file`. Raises UnsafeFileError, DatabaseError."""
    try:
        return os.fdopen(open_file(path.parent, path.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")
    except OSError as error:
        raise DatabaseError(f"the embedded PostgreSQL cannot write {path}: {error.strerror}") from error


def tied(command: Sequence[str], uid: int, gid: int) -> list[str]:
    """A command that runs as this account, and is interrupted when the calling thread ends."""
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(uid), str(gid), str(os.getpid()), *command]


def my_name() -> str:
    """Name of the user we run as; PostgreSQL's programs require one."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise DatabaseError(
            f"the embedded PostgreSQL cannot run as uid {uid}, which has no entry in /etc/passwd: "
            "run as a user that has one, or name a server under `database: dsn:`"
        ) from None


def find_home(state_dir: Path) -> Path | None:
    """The folder of the embedded PostgreSQL in a state folder, or None if there is none yet."""
    folder = state_dir.absolute() / "pg"
    try:
        return folder.resolve(strict=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise DatabaseError(f"the embedded PostgreSQL's folder {folder} cannot be opened: {error}") from error


def prepare_home(state_dir: Path, spare: Path = SPARE) -> Home:
    """Find or create the folder and choose the account. Raises DatabaseError with the fix."""
    state_dir = state_dir.absolute()
    me = _own_account()
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = find_home(state_dir)
        if folder is None:
            folder = _give(state_dir / "pg", me) if me.uid else _make_for_other(state_dir, unprivileged(), spare)
    except OSError as error:
        raise DatabaseError(
            f"the embedded PostgreSQL's folder cannot be created in state_dir {state_dir}: {error.strerror or error}"
        ) from error
    length = len(os.fsencode(folder / SOCKET_NAME))
    if length > MAX_SOCKET_PATH:
        raise DatabaseError(
            f"state_dir {state_dir} is too long for the embedded PostgreSQL's socket ({length} bytes of at most "
            f"{MAX_SOCKET_PATH}): write a path that is {length - MAX_SOCKET_PATH} bytes shorter"
        )
    if "," in str(folder):
        raise DatabaseError(
            f"state_dir {state_dir} has a comma, which separates hosts in a connection string: choose a path without one"
        )
    return Home(folder, owner_of(folder))


def owner_of(folder: Path) -> Account:
    """The account that runs the embedded PostgreSQL of this folder. Raises DatabaseError if it cannot."""
    me, uid = _own_account(), folder.stat().st_uid
    if uid == me.uid and uid != 0:
        return me
    if me.uid != 0 or uid == 0:
        raise DatabaseError(
            f"the embedded PostgreSQL's folder {folder} belongs to uid {uid}, and shardd runs as {me.name} (uid {me.uid}): "
            "run shardd as the user that first ran it there, or choose another state_dir"
        )
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise DatabaseError(
            f"the owner (uid {uid}) of {folder} has no entry in /etc/passwd: add the user back"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _own_account() -> Account:
    """The account of this process. Raises DatabaseError if it has no name."""
    return Account(my_name(), os.geteuid(), os.getegid())


def unprivileged() -> Account:
    """The account of programs that refuse to run as root. Raises DatabaseError if there is none."""
    for name in ("postgres", "nobody"):
        try:
            entry: Any = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise DatabaseError(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as: run shardd as an ordinary "
        "user, or name a server under `database: dsn:`"
    )


def _make_for_other(state_dir: Path, account: Account, spare: Path) -> Path:
    if account.can_reach(state_dir.parent):
        _let_through(state_dir, account)
        if account.can_reach(state_dir):
            return _give(state_dir / "pg", account)
    slug = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    spare.mkdir(mode=0o711, parents=True, exist_ok=True)
    base = spare / slug
    base.mkdir(mode=0o700, exist_ok=True)
    _let_through(base, account)
    if not account.can_reach(base):
        raise DatabaseError(
            f"the embedded PostgreSQL runs as {account.name}, which can reach neither {state_dir} nor {base}: choose a "
            f"state_dir that {account.name} can reach, or run shardd as an ordinary user"
        )
    folder = _give(base / "pg", account)
    (state_dir / "pg").symlink_to(folder)
    return folder


def _let_through(folder: Path, account: Account) -> None:
    """Let the account's group pass root's own folder, without listing it, unless its group already has rights there."""
    status = folder.stat()
    if status.st_uid == 0 and status.st_mode & 0o070 == 0 and not account.can_reach(folder):
        os.chown(folder, -1, account.gid)
        folder.chmod(stat.S_IMODE(status.st_mode) | 0o010)


def _give(folder: Path, account: Account) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    # The unit's system call filter refuses chown, even one that changes nothing.
    if (status.st_uid, status.st_gid) != (account.uid, account.gid):
        os.chown(folder, account.uid, account.gid)
    return folder.resolve(strict=True)
