"""`shardd token`: programs that ask the dashboard by JSON. It works on the database, with the daemon up or down."""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.acts import acts, change, change_each
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import WIDE, Column, Listing
from shardd.cli.names import id_argument, ids_argument, login_name, report, without
from shardd.cli.options import OneOf, ReadBy, database_config_option, json_list_option, json_option
from shardd.cli.output import Text, print_exactly, print_json, say
from shardd.config import Config
from shardd.config.values import Seconds
from shardd.errors import UsageError
from shardd.queue.api_tokens import PRODUCERS, ApiToken, ApiTokens, May, NewToken
from shardd.queue.producers import ProducerAdmin
from shardd.queue.queries import Queries
from shardd.words import ago, moment_text

LONGEST_ROLE: Final = 63
"""Bytes of a role's name in PostgreSQL."""


def _expires(token: ApiToken) -> Text | str:
    return Text(f"expired {ago(token.expires_at)}", "yellow") if token.expired else ago(token.expires_at) or "never"


TOKENS: Final = Listing[ApiToken](
    one="token",
    none="no tokens; make one with: shardd token add NAME --may=look",
    columns=[
        Column("name", lambda token: token.name),
        Column("may", lambda token: token.may.value, whole=True),
        Column("as role", lambda token: token.role or ""),
        Column("expires", _expires, whole=True),
        Column("last used", lambda token: ago(token.used_at) or "never", whole=True),
        Column("made", lambda token: ago(token.created_at), whole=True, at_least=WIDE),
        Column("by", lambda token: token.created_by, at_least=WIDE),
    ],
)


@click.group("token", epilog=examples("shardd token add shop --may=send --role=shop"))
def token_group() -> None:
    """Add, list and remove tokens.

    With a token, a program asks the dashboard by JSON. See: shardd guide api
    """


@token_group.command(
    "add",
    epilog=examples(
        "shardd token add monitor --may=look --expires=90d", "shardd token add shop --may=send --role=shop"
    ),
)
@id_argument("token", "name", "NAME")
@click.option("--may", required=True, type=OneOf([may.value for may in May]), help="What it is for.")
@click.option(
    "--role",
    metavar="ROLE",
    help=f"PostgreSQL role with whose rights and bindings it sends.  [default: {PRODUCERS}, without bindings]",
)
@click.option(
    "--expires",
    "lives",
    type=ReadBy(Seconds("1m", "3660d")),
    metavar="DURATION",
    help="How long it works.  [default: until it is removed]",
)
@json_option("Print an object with the token, for programs; times in ISO 8601.")
@database_config_option
@acts("add")
def add(*, name: str, may: str, role: str | None, lives: float | None, as_json: bool, config: Config) -> None:
    """Make a token, and print it.

    It is shown now and never again: the database keeps a hash of it.

    `look` reads what the pages show. `operate` also pauses, resumes, cancels, retries and decides. `send` inserts jobs, and sees
    what became of those that its role sees.
    """
    what = May(may)
    if what != May.SEND and role is not None:
        raise UsageError(f"--role {role}: a token with --may={may} acts as no role; leave --role out")
    acts_as = (role or PRODUCERS) if what is May.SEND else None

    async def work(database: Queries) -> NewToken | None:
        if acts_as is not None:
            await _check_role(database, config, acts_as)
        return await ApiTokens(database).add(name, what, role=acts_as, created_by=login_name(), lives=lives)

    made = change(
        config,
        "token",
        work,
        changed=lambda made: [] if made is None else [name],
        detail=lambda _: f"may {may}{'' if acts_as is None else f' as {acts_as}'}",
    )
    if made is None:
        raise UsageError(f"token {name} already exists: choose another name, or first: shardd token remove {name}")
    if as_json:
        print_json(
            {"name": name, "may": what.value, "role": acts_as, "token": made.token, "expires_at": made.expires_at}
        )
        return
    print_exactly(made.token)
    until = "until it is removed" if made.expires_at is None else f"until {moment_text(made.expires_at)}"
    say(
        f"token {name} may {may}{'' if acts_as is None else f' as {acts_as}'}, {until}; it is not shown again", err=True
    )


@token_group.command("list", epilog=examples("shardd token list"))
@json_list_option
@database_config_option
def list_(*, as_json: bool, config: Config) -> None:
    """List tokens, without the tokens themselves."""
    TOKENS.show(with_database(config, lambda database: ApiTokens(database).all()), as_json=as_json)


@token_group.command("remove", epilog=examples("shardd token remove shop"))
@ids_argument("token", "names", "NAME...")
@database_config_option
@acts("remove")
def remove(*, names: list[str], config: Config) -> None:
    """End tokens, at once."""
    gone = change_each(config, "token", lambda database: ApiTokens(database).remove(names))
    report("removed", "token", gone, {"unknown; the others: shardd token list": without(names, gone)})


async def _check_role(database: Queries, config: Config, role: str) -> None:
    """Raise UsageError for a role that a token cannot send as, with the SQL that changes that."""
    if not 0 < len(role.encode()) <= LONGEST_ROLE or "\0" in role:
        raise UsageError(f"--role: a role's name has 1 to {LONGEST_ROLE} bytes, this one {len(role.encode())}")
    acting, producers = await ApiTokens(database).acting(role), ProducerAdmin(database)
    who = "run" if config.database is None else "let a superuser of the server run"
    where = " in `shardd db psql --role=postgres`" if config.database is None else ""
    if not acting.is_there:
        raise UsageError(f"role {role} does not exist: {who}{where}: {acting.create_role} {acting.grant_role}")
    found = await producers.role(role)
    assert found is not None  # it is there
    if found.unbindable:
        raise UsageError(
            f"role {role} is a superuser, a member of the role that owns shardd's tables, or has BYPASSRLS: a token would have "
            "rights that no binding holds; name a role of its own"
        )
    needed = [] if found.may_insert or role == PRODUCERS else [(await producers.statements(role))[1]]
    if not acting.may_act:
        needed.append(acting.grant_role)
    if needed:
        why = "shardd may not act as it" if not acting.may_act else f"it is not a member of {PRODUCERS}"
        raise UsageError(f"role {role}: {why}; {who}{where}: {' '.join(needed)}")
