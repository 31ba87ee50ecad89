"""The folder of PgBouncer's socket and config, and the account that it runs as.

An ordinary user runs it as himself, in `STATE_DIR/pgbouncer`. For root it runs as the account of the embedded PostgreSQL, whose
socket no other can reach, or else as postgres or nobody, in a folder of that account below /run, because the state folder may be
closed to it; nothing in it is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardd.embedded.home import MAX_SOCKET_PATH, Account, find_home, owner_of, unprivileged
from shardd.errors import SharddError
from shardd.pgbouncer.errors import PgBouncerError
from shardd.pgbouncer.ini import PORT
from shardd.state_files import open_file

RUN: Final = Path("/run")


@dataclass(frozen=True, slots=True)
class Folder:
    """Mode 0700; `account` owns it."""

    path: Path
    account: Account

    @property
    def socket(self) -> Path:
        """What PgBouncer listens on."""
        return self.path / f".s.PGSQL.{PORT}"

    @property
    def ini(self) -> Path:
        """Its config file."""
        return self.path / "pgbouncer.ini"

    def write(self, ini: str) -> None:
        """Write the config file, mode 0600. Blocks for a moment. Raises PgBouncerError."""
        try:
            if self.account.uid != os.geteuid():
                # Root opens no file in another account's folder.
                self.account.write(self.ini, ini)
                return
            file = open_file(
                self.path.parent, f"{self.path.name}/{self.ini.name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            )
            with os.fdopen(file, "w", encoding="utf-8") as text:
                text.write(ini)
        except (OSError, SharddError) as error:
            raise PgBouncerError(f"its config cannot be written: {error}") from error

    def remove(self) -> None:
        """Remove the folder, if it can be."""
        shutil.rmtree(self.path, ignore_errors=True)


def prepare_folder(state_dir: Path) -> Folder:
    """Find or create it. Raises PgBouncerError."""
    state_dir = state_dir.absolute()
    if os.geteuid() == 0:
        account = _other_account(state_dir)
        path = RUN / f"shardd-pgbouncer-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]}"
    else:
        account = Account(str(os.geteuid()), os.geteuid(), os.getegid())
        path = state_dir / "pgbouncer"
    folder = Folder(path, account)
    length = len(os.fsencode(folder.socket))
    if length > MAX_SOCKET_PATH:
        raise PgBouncerError(
            f"its socket {folder.socket} has {length} bytes of at most {MAX_SOCKET_PATH}: shorten state_dir"
        )
    if "," in str(path):
        raise PgBouncerError(f"state_dir {state_dir} has a comma, which separates hosts in a connection string")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {account.uid, os.geteuid()}:
            raise PgBouncerError(f"{path} is not a folder of shardd's: remove it")
        # The unit's system call filter refuses chown, even one that changes nothing.
        if (status.st_uid, status.st_gid) != (account.uid, account.gid):
            os.chown(path, account.uid, account.gid)
        if stat.S_IMODE(status.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise PgBouncerError(f"its folder {path} cannot be used: {error.strerror}") from error
    return folder


def _other_account(state_dir: Path) -> Account:
    try:
        if (home := find_home(state_dir)) is not None:
            return owner_of(home)
    except SharddError as error:
        raise PgBouncerError(str(error)) from error
    try:
        return unprivileged()
    except SharddError:
        raise PgBouncerError(
            "it refuses to run as root, and there is no user postgres or nobody to run it as: run shardd as an ordinary user"
        ) from None
