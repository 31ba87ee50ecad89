"""`shardd producer` with a real database and without a daemon; test_producers has the effect of bindings."""

from __future__ import annotations

import pytest

from tests.fixtures.producers import Tenants, insert
from tests.support.command import Command


async def test_a_role_is_bound_looked_at_and_freed(shardd: Command, tenants: Tenants) -> None:
    tenants.role("alpha")
    assert (await shardd("producer", "list", "--json")).json == []
    made = await shardd(
        "producer", "add", "alpha", "--device", "a1", "--device=a2", "--group", "ga", "--campaign", "ca"
    )
    assert (made.code, made.err) == (0, "")
    assert made.out.splitlines() == [
        "bound alpha to 2 devices and 1 device group and 1 campaign",
        "alpha sends through a1, a2, group ga, in campaign ca or none",
    ]
    again = await shardd("producer", "add", "alpha", "--device", "-", stdin="a1\n")
    assert again.out.splitlines()[0] == "alpha is bound to all of it already"

    (row,) = (await shardd("producer", "list", "--json")).json
    assert (row["role"], row["devices"], row["groups"], row["campaigns"]) == ("alpha", ["a1", "a2"], ["ga"], ["ca"])
    assert (row["is_there"], row["held"], row["may_insert"], row["any_device"]) == (True, True, True, False)
    shown = (await shardd("producer", "show", "alpha", "--json")).json
    assert (shown["role"], shown["sets"]) == ("alpha", [row])
    assert "sends through a1, a2, group ga, in campaign ca or none" in (await shardd("producer", "show", "alpha")).out
    assert "1 bound role" in (await shardd("producer", "list")).out

    less = await shardd("producer", "remove", "alpha", "--device", "a2", "--device", "b1", "--campaign", "ca")
    assert less.out.splitlines() == [
        "took 1 device and 1 campaign from alpha",
        "not bound to it: b1",
        "alpha sends through a1, group ga, in no campaign",
    ]
    nothing = await shardd("producer", "remove", "alpha", "--device", "a1", "--group", "ga")
    assert "alpha sends nothing: no device or group is bound to it" in nothing.out
    with tenants.session("alpha") as session, pytest.raises(Exception, match="device_id 'a1' is not bound to alpha"):
        insert(session, device_id="a1")

    freed = await shardd("producer", "remove", "alpha")
    assert freed.out == "alpha is free: it may insert for every device, and sees every job and event\n"
    with tenants.session("alpha") as session:
        assert insert(session, device_id="b1") is not None


async def test_a_role_that_does_not_exist_is_answered_with_the_sql_that_makes_it(
    shardd: Command, tenants: Tenants
) -> None:
    ran = await shardd("producer", "add", 'the "shop"', "--device", "a1")
    assert ran.code == 64
    assert ran.out == 'CREATE ROLE "the ""shop""" LOGIN PASSWORD \'…\' CONNECTION LIMIT 20 IN ROLE shardd_producer;\n'
    assert ran.err.startswith(
        'shardd: role the "shop" does not exist: let an administrator of the server run the SQL above'
    )
    assert (await shardd("producer", "list", "--json")).json == []


async def test_nothing_is_bound_when_one_name_is_unknown(shardd: Command, tenants: Tenants) -> None:
    tenants.role("alpha")
    ran = await shardd(
        "producer", "add", "alpha", "--device", "a1", "--device", "x1", "--group", "gx", "--campaign", "cx"
    )
    assert (ran.code, ran.out) == (64, "")
    assert ran.err.splitlines() == [
        "device x1: unknown, so nothing was bound; the others: shardd device list",
        "group gx: unknown, so nothing was bound; the others: shardd group list",
        "campaign cx: unknown, so nothing was bound; the others: shardd campaign list",
    ]
    assert (await shardd("producer", "list", "--json")).json == []


async def test_who_would_not_be_held_is_refused_or_named(shardd: Command, tenants: Tenants) -> None:
    for role in ("postgres", "shardd"):
        ran = await shardd("producer", "add", role, "--device", "a1")
        assert (ran.code, ran.out) == (64, "")
        assert f"role {role} is a superuser, a member of the role that owns" in ran.err
    tenants.role("alpha", producer=False)
    tenants.role("other", "alpha")
    ran = await shardd("producer", "add", "alpha", "--device", "a1")
    assert ran.code == 0
    assert ran.err.splitlines() == [
        "note: alpha may insert nothing until an administrator of the server runs: GRANT shardd_producer TO alpha;",
        "note: other may act as alpha and is free: bind it, too",
    ]


async def test_a_group_of_logins_binds_its_members(shardd: Command, tenants: Tenants) -> None:
    tenants.role("team", login=False)
    tenants.role("alpha", "team")
    assert (await shardd("producer", "add", "team", "--campaign", "ca")).out.splitlines() == [
        "bound team to 1 campaign",
        "team sends through any device, in campaign ca",
    ]
    await shardd("producer", "add", "alpha", "--device", "a1")
    sets = (await shardd("producer", "show", "alpha", "--json")).json["sets"]
    assert [(one["role"], one["members"]) for one in sets] == [("alpha", []), ("team", ["alpha"])]
    assert "alpha, as a member of team" in (await shardd("producer", "show", "alpha")).out
    assert "still bound by team" in (await shardd("producer", "remove", "alpha")).out


async def test_a_binding_of_a_role_that_is_gone_shows(shardd: Command, tenants: Tenants) -> None:
    tenants.role("alpha")
    tenants.bind("alpha", "a1")
    tenants.cluster.drop_role("alpha")
    assert "there is no such role: was it renamed?" in (await shardd("producer", "list")).out
    assert (await shardd("producer", "show", "alpha", "--json")).json["sets"][0]["is_there"] is False


async def test_a_program_that_keeps_a_table_is_waited_for_but_not_for_long(shardd: Command, tenants: Tenants) -> None:
    tenants.role("alpha")
    with tenants.session("producer") as session:
        with session.transaction():
            insert(session, device_id="a1")
            ran = await shardd("producer", "add", "alpha", "--device", "a1")
            assert (ran.code, ran.out) == (69, "")
            assert ran.err.startswith(
                "shardd: nothing was changed, because another program's transaction holds a lock on a table"
            )
            assert insert(session, device_id="a1") is not None
        assert (await shardd("producer", "list", "--json")).json == []
    assert (await shardd("producer", "add", "alpha", "--device", "a1")).code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["add", "alpha"], "shardd: nothing to bind: add --device, --group or --campaign"),
        (["add", "alpha", "--device", "a b"], "shardd: a b: not a device id"),
        (["add", "x" * 64, "--device", "a1"], "shardd: a role's name has 1 to 63 bytes, this one 64"),
        (["remove", "nobody"], "shardd: role nobody is not bound; those that are: shardd producer list"),
        (["show", "nobody"], "shardd: role nobody does not exist, and is not bound"),
        (["show", "producer"], "shardd: role producer is not bound: it may insert everything"),
    ],
)
async def test_bad_input_is_refused_in_one_line(shardd: Command, arguments: list[str], error: str) -> None:
    ran = await shardd("producer", *arguments)
    assert (ran.code, ran.out) == (64, "")
    assert error in ran.err
