"""`shardd db backup` and `shardd db restore`: the whole database in one file of pg_dump.

A restored database does not know what happened since, so `restore` asks whether anything did.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Final

import click

from shardd.cli.acts import acts, record
from shardd.cli.backup_file import ARCHIVE, new_file
from shardd.cli.database import command_pool, reach_alone, reach_dsn
from shardd.cli.help import examples
from shardd.cli.options import OneOf, config_option, database_config_option, run_async
from shardd.cli.output import say
from shardd.cli.psql import check_tls, psql_surroundings
from shardd.config import Config
from shardd.control_client import glance
from shardd.embedded.binaries import find_client
from shardd.embedded.home import tied
from shardd.errors import DatabaseError, UsageError
from shardd.postgres.dsn import complete_dsn
from shardd.queue.lives import Lives
from shardd.queue.migrate import migrate
from shardd.queue.restoring import closed, end_what_may_be_done, sent_since, server_major
from shardd.state_files import Start, last_start
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore
from shardd.words import count

_PLAIN: Final = ["--no-owner", "--no-privileges"]
"""Rights are given by every start, roles belong to the server."""
NEW_KEYS: Final = (
    "those in flight become in doubt, and the keys that WhatsApp devices had agreed with recipients are deleted: with old keys, "
    "recipients cannot decrypt what is sent. New ones are agreed, and no phone is paired again"
)
"""What `--sent-since-backup=maybe` does besides cancelling."""
_ASK: Final = (
    "was anything sent or received after this backup was made? The restored database does not know it. "
    f"--sent-since-backup=maybe: jobs that waited then are cancelled, {NEW_KEYS}. --sent-since-backup=no: all goes on as it was "
    "then; only if shardd was stopped before the backup and did not run since"
)


_NOT_COMPLETE: Final = (
    "the restore is not complete, and the database stays read-only, so that shardd does not run on it: if it has tables, replace "
    "it by an empty one; then repeat (shardd guide backup)"
)


@click.command("backup", epilog=examples("shardd db backup shardd.dump"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@database_config_option
@run_async
async def backup(file: Path, config: Config) -> None:
    """Write the database to FILE, or `-` for stdout, with the keys of the WhatsApp sessions.

    shardd may run meanwhile. What reads FILE can send as your devices: only you may read it.
    """
    if str(file) == "-" and sys.stdout.isatty():
        raise UsageError(
            "a backup is not for a terminal: name a file, or pass it on, such as: shardd db backup - | gzip"
        )
    async with reach_dsn(config, make=False) as dsn:
        pg_dump = await _Client.find("pg_dump", dsn)
        if str(file) == "-":
            await pg_dump.run(dsn, ["--format=custom", *_PLAIN], stdout=sys.stdout.buffer)
            return
        with new_file(file) as target:
            await pg_dump.run(dsn, ["--format=custom", *_PLAIN], stdout=target)
            size = os.fstat(target.fileno()).st_size
    say(f"{file}: {size:,} bytes")


@click.command("restore", epilog=examples("shardd db restore shardd.dump --sent-since-backup=no"))
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--sent-since-backup",
    "sent",
    type=OneOf(("maybe", "no")),
    help="Whether anything was sent or received after the backup was made; must be given.",
)
@config_option
@acts("restore")
@run_async
async def restore(file: Path, sent: str | None, config: Config) -> None:
    """Restore a file of `shardd db backup`, or `-` for stdin, into an empty database.

    While shardd is stopped on every host. If this command is interrupted, the database stays read-only: empty it and repeat.
    """
    if sent is None:
        raise UsageError(_ASK)
    if glance(config.control_socket) is not None:
        raise UsageError("shardd runs: stop it on every host first")
    start = _last_start(config) if sent == "no" else None
    with _open(file) as archive:
        async with reach_alone(config) as dsn:
            pg_restore = await _Client.find("pg_restore", dsn)
            begun = False
            try:
                async with closed(dsn) as writing:
                    begun = True
                    await pg_restore.run(writing, ["--single-transaction", *_PLAIN], stdin=archive)
                    await migrate(writing)
                    if sent == "maybe":
                        await end_what_waited(config, writing)
                    else:
                        await _refuse_if_sent(start, writing)
                    async with command_pool(config, writing) as database:
                        await Lives(database).begin(f"restored, --sent-since-backup={sent}")
                        await record(database, config, "the database", f"--sent-since-backup={sent}")
            except BaseException:
                if begun:
                    say(_NOT_COMPLETE, err=True)
                raise
    say("restored; next: add the opt-outs that were made since (shardd guide backup), then start shardd")


def _last_start(config: Config) -> Start | None:
    """See `last_start`. Raises UsageError, before anything is restored."""
    try:
        return last_start(config.state_dir)
    except OSError as error:
        raise UsageError(f"state_dir {config.state_dir}: whether shardd ran since: {error.strerror}") from error


async def _refuse_if_sent(start: Start | None, dsn: str) -> None:
    """Raises UsageError when something shows that the backup is older than what was sent."""
    if why := await sent_since(dsn, start):
        raise UsageError(
            f"--sent-since-backup=no: {why}, and may have sent messages: repeat with --sent-since-backup=maybe"
        )


async def end_what_waited(config: Config, dsn: str) -> None:
    """Something may have been sent or received since the backup of this database. Raises DatabaseError."""
    async with command_pool(config, dsn) as database:
        ended = await end_what_may_be_done(database)
    say(
        f"cancelled {count(ended.waiting, 'job')} that waited; {count(ended.in_flight, 'job')} in flight will be in doubt"
    )
    # Those that were restored, also if the library reaches them through the PgBouncer of sessions_dsn.
    store = SessionStore(sessions_dsn(complete_dsn(dsn)))
    try:
        renewed = await store.forget_ratchets()
    finally:
        await store.close()
    say(f"{count(renewed, 'WhatsApp session')} will agree new keys with every recipient")
    if config.database is not None and config.database.sessions_dsn:
        say("note: if sessions_dsn leads to another database, the WhatsApp sessions there were not restored", err=True)


def _open(file: Path) -> FileIO:
    """The archive, at its begin. Raises UsageError."""
    if str(file) == "-":
        if sys.stdin.isatty():
            raise UsageError("a backup does not come from a terminal: shardd db restore - … < FILE")
        return FileIO(os.dup(sys.stdin.fileno()))
    try:
        archive = file.open("rb", buffering=0)  # pg_restore begins where this descriptor is
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    if archive.read(len(ARCHIVE)) != ARCHIVE:
        archive.close()
        raise UsageError(f"{file}: is no file of `shardd db backup` (or of pg_dump --format=custom)")
    archive.seek(0)
    return archive


@dataclass(frozen=True, slots=True)
class _Client:
    """A client program of the server's version."""

    name: str
    program: Path

    @classmethod
    async def find(cls, name: str, dsn: str) -> _Client:
        """Raises DatabaseError when there is none that can connect."""
        program = find_client(name, await server_major(dsn))
        check_tls(program, dsn)
        return cls(name, program)

    async def run(
        self, dsn: str, arguments: list[str], *, stdin: FileIO | None = None, stdout: IO[bytes] | None = None
    ) -> None:
        """Run it until it ends, at the latest with this process. Raises DatabaseError."""
        options, environ = psql_surroundings(dsn, os.environ)
        command = [str(self.program), *arguments, *(options or ["--dbname="])]  # empty: PGDATABASE
        process = await asyncio.create_subprocess_exec(
            *tied(command, os.geteuid(), os.getegid()),
            env=environ | {"PGAPPNAME": f"shardd/{self.name}"},
            stdin=stdin or asyncio.subprocess.DEVNULL, stdout=stdout, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            reason = " ".join(errors.decode(errors="replace").split()) or f"exit code {process.returncode}"
            raise DatabaseError(f"{self.name} failed: {reason}")
