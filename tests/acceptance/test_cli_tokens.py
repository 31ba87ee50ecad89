"""`shardd token` with a real database and without a daemon; dashboard/test_api_tokens.py has the effect of tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import shardd as shardd_package
from shardd.queue.api_tokens import FORM
from tests.fixtures.postgres import Cluster
from tests.fixtures.producers import Tenants
from tests.support.command import Command
from tests.support.daemon import Producer

INSTALL = Path(shardd_package.__file__).with_name("guide") / "install.md"


async def test_a_token_is_shown_once_and_only_its_hash_is_stored(shardd: Command, producer: Producer) -> None:
    made = await shardd("token", "add", "monitor", "--may=look")
    token = made.out.strip()
    assert made.code == 0
    assert FORM.fullmatch(token)
    assert made.err == "token monitor may look, until it is removed; it is not shown again\n"
    again = await shardd("token", "add", "monitor", "--may=operate")
    assert (again.code, again.out) == (64, "")
    assert "token monitor already exists: choose another name, or first: shardd token remove monitor" in again.err

    (row,) = (await shardd("token", "list", "--json")).json
    assert (row["name"], row["may"], row["role"], row["expired"]) == ("monitor", "look", None, False)
    (stored,) = producer.execute("SELECT to_jsonb(t)::text, sha256 FROM shardd.api_tokens t")
    assert stored[1] == hashlib.sha256(token.encode()).digest()
    assert token not in stored[0]
    assert token not in (await shardd("token", "list")).out

    gone = await shardd("token", "remove", "monitor", "nobody")
    assert (gone.code, gone.out) == (64, "removed 1 token\n")
    assert gone.err == "token nobody: unknown; the others: shardd token list\n"
    assert (await shardd("token", "list", "--json")).json == []


async def test_a_token_can_expire(shardd: Command, producer: Producer) -> None:
    made = (await shardd("token", "add", "short", "--may=operate", "--expires=1h", "--json")).json
    assert (made["name"], made["may"], made["role"]) == ("short", "operate", None)
    producer.execute("UPDATE shardd.api_tokens SET expires_at = now() - interval '3 minutes' WHERE name = 'short'")
    assert "expired 3m ago" in (await shardd("token", "list")).out
    for wrong in ("0", "soon", "60"):
        ran = await shardd("token", "add", "other", "--may=look", f"--expires={wrong}")
        assert (ran.code, ran.out) == (64, "")
        assert f"--expires: {wrong}" in ran.err


async def test_only_a_sending_token_acts_as_a_role(shardd: Command, tenants: Tenants) -> None:
    made = await shardd("token", "add", "free", "--may=send")
    assert made.err == "token free may send as shardd_producer, until it is removed; it is not shown again\n"
    ran = await shardd("token", "add", "odd", "--may=look", "--role=shardd_producer")
    assert (ran.code, ran.out) == (64, "")
    assert "--role shardd_producer: a token with --may=look acts as no role" in ran.err


@pytest.mark.parametrize("role", ["postgres", "shardd"])
async def test_no_token_has_the_rights_of_an_owner(shardd: Command, role: str) -> None:
    ran = await shardd("token", "add", "root", "--may=send", f"--role={role}")
    assert (ran.code, ran.out) == (64, "")
    assert f"role {role} is a superuser, a member of the role that owns shardd's tables" in ran.err


async def test_a_role_that_cannot_be_used_is_answered_with_the_sql_that_mends_it(
    shardd: Command, tenants: Tenants
) -> None:
    ran = await shardd("token", "add", "shop", "--may=send", "--role=the shop")
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == (
        "shardd: role the shop does not exist: let a superuser of the server run: "
        'CREATE ROLE "the shop" NOLOGIN IN ROLE shardd_producer; GRANT "the shop" TO shardd'
        + _no_rights(tenants)
        + ";\n"
    )
    tenants.role("shop", producer=False)
    ran = await shardd("token", "add", "shop", "--may=send", "--role=shop")
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == (
        "shardd: role shop: shardd may not act as it; let a superuser of the server run: "
        f"GRANT shardd_producer TO shop; GRANT shop TO shardd{_no_rights(tenants)};\n"
    )
    with tenants.cluster.superuser() as superuser:
        superuser.execute(ran.err.partition("run: ")[2].encode())
    assert (await shardd("token", "add", "shop", "--may=send", "--role=shop")).code == 0


async def test_the_sql_of_the_install_page_lets_tokens_send(
    postgres: Cluster, make_role: Callable[..., str], tmp_path: Path
) -> None:
    owner = make_role("berlin")
    database = postgres.create_database("template0", owner=owner)
    try:
        config_file = tmp_path / "shards.yaml"
        config_file.write_text(
            f"state_dir: {tmp_path}\ndatabase: {{dsn: '{postgres.dsn(database, owner)}'}}\ntransports: {{sandbox: {{}}}}\n"
        )
        shardd = Command(config_file)
        assert (await shardd("db", "migrate")).code == 0
        refused = await shardd("token", "add", "shop", "--may=send")
        assert (refused.code, "GRANT shardd_producer TO berlin" in refused.err) == (64, True)
        grants = re.findall(r"^GRANT .* TO shardd;", INSTALL.read_text(), re.MULTILINE)
        with postgres.superuser() as superuser:
            for grant in grants:
                superuser.execute(grant.replace("TO shardd;", f"TO {owner};").encode())
        made = await shardd("token", "add", "shop", "--may=send")
        assert made.err == "token shop may send as shardd_producer, until it is removed; it is not shown again\n"
    finally:
        postgres.drop_database(database)


def _no_rights(tenants: Tenants) -> str:
    """What later versions can add to a GRANT: shardd need not have the rights of a role to act as it."""
    with tenants.cluster.superuser() as superuser:
        return " WITH INHERIT FALSE" if superuser.info.server_version >= 160000 else ""
