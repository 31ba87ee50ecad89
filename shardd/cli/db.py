"""`shardd db`: the schema of the database, and its address."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import click

from shardd import __version__
from shardd.cli.backup import backup, restore
from shardd.cli.database import find_embedded_dsn, reach_dsn
from shardd.cli.help import examples
from shardd.cli.options import OneOf, config_option, database_config_option, json_option, run_async
from shardd.cli.output import make_console, make_table, print_exactly, print_json, say
from shardd.cli.psql import run_psql
from shardd.cli.restored import restored
from shardd.config import Config
from shardd.embedded import embedded_dsn
from shardd.embedded.server import ROLES
from shardd.errors import UsageError
from shardd.queue.migrate import NO_INBOX_ROLE, NO_PRODUCER_ROLE, DatabaseState, migrate, migration_status
from shardd.queue.releases import is_older

NOT_CURRENT: Final = 1
"""Exit code of `shardd db status` when the database is not at this release."""


_role_option: Final = click.option(
    "--role", type=OneOf(ROLES), default="shardd", show_default=True, help="Role of the embedded database."
)


@click.group("db", epilog=examples("shardd db status", "shardd db psql"))
def db_group() -> None:
    """Migrate, back up or restore the database, show its state or DSN, or open psql."""


db_group.add_command(backup)
db_group.add_command(restore)
db_group.add_command(restored)


@db_group.command("migrate", epilog=examples("shardd db migrate"))
@config_option
@run_async
async def migrate_command(config: Config) -> None:
    """Migrate the database to this release."""
    async with reach_dsn(config, make=True) as dsn:
        applied = await migrate(dsn, waits=lambda reason: say(f"waiting: {reason}", err=True))
        state = await migration_status(dsn)
    for name in applied:
        say(f"applied {name}")
    if not applied:
        say("nothing to apply: the database is current")
    _print_notes(state)


@db_group.command("status", epilog=examples("shardd db status"))
@database_config_option
@json_option()
@run_async
async def status_command(config: Config, as_json: bool) -> None:
    """Show the database and its migrations.

    Exit codes: 0 current; 1 not current.
    """
    async with reach_dsn(config, make=False) as dsn:
        state = await migration_status(dsn)
    if as_json:
        print_json({**asdict(state), "current": state.current})
    else:
        _show(state)
        _print_notes(state)
        if state.open_means:
            say(
                f"note: every login may make {' and '.join(state.open_means)}, with which one alone can fill the server's lock "
                "table or its disk: a superuser revokes that with the SQL at the end of `shardd guide producers`",
                err=True,
            )
    if not state.current:
        raise click.exceptions.Exit(NOT_CURRENT)


@db_group.command("dsn", epilog=examples("export DATABASE_URL=$(shardd db dsn --role=producer)"))
@database_config_option
@_role_option
@run_async
async def dsn_command(config: Config, role: str) -> None:
    """Print the DSN of the database, for programs."""
    _check_role(config, role)
    print_exactly(await find_embedded_dsn(config, role) if config.database is None else config.database.dsn)


@db_group.command(
    "psql", epilog=examples("shardd db psql --role=producer", "shardd db psql -- -c 'TABLE shardd.campaigns'")
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENTS...]")
@_role_option
@database_config_option
@run_async
async def psql_command(arguments: tuple[str, ...], role: str, config: Config) -> None:
    """Open psql on the database.

    What follows -- is passed to psql, whose exit code this command has.
    """
    _check_role(config, role)
    async with reach_dsn(config, make=False) as dsn:
        code = await run_psql(dsn if config.database is not None else embedded_dsn(config.state_dir, role), arguments)
    raise click.exceptions.Exit(code)


def _check_role(config: Config, role: str) -> None:
    """Raises UsageError for a role of the embedded database when there is none."""
    if config.database is not None and role != "shardd":
        raise UsageError(
            f"--role {role} is for the embedded database, and {config.source} names a server: create roles there, such as "
            "CREATE ROLE app LOGIN PASSWORD '…' CONNECTION LIMIT 20 IN ROLE shardd_producer"
        )


def _show(state: DatabaseState) -> None:
    console = make_console()
    console.print(f"PostgreSQL {state.version}, database {state.database} ({state.size}), as {state.role}")
    table = make_table("migration", "state", "applied", whole=("state", "applied"))
    for one in state.migrations:
        at = f"{one.applied_at:%Y-%m-%d %H:%M:%S %Z}" if one.applied_at else ""
        table.add_row(f"{one.version:04} {one.name}", one.state, at)
    console.print(table)


def _print_notes(state: DatabaseState) -> None:
    if not state.producer_role:
        say(f"note: {NO_PRODUCER_ROLE}", err=True)
    if state.defined_by is not None and is_older(__version__, state.defined_by):
        say(
            f"note: shardd {state.defined_by} has written the functions and rights of this database, and this release, "
            f"{__version__}, leaves them as they are",
            err=True,
        )
    if not state.inbox_role:
        say(f"note: {NO_INBOX_ROLE}", err=True)
    if state.superuser:
        say(f"note: {state.role} is a superuser, which shardd does not need: use a role of its own", err=True)
    for right in state.open_rights:
        say(
            f"note: every role (PUBLIC) has the right {right}, so a program can come upon objects that another one created; the "
            f"owner revokes it with: REVOKE {right} FROM PUBLIC",
            err=True,
        )
    if state.closed:
        say(
            "note: this database is read-only (default_transaction_read_only), as after a restore that was interrupted: replace "
            "it by an empty one, and repeat that (shardd guide backup)",
            err=True,
        )
    if state.read_only:
        say("note: this server is a read-only standby: name the primary in the DSN", err=True)
