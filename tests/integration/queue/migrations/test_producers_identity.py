"""Which login counts as bound: neither SET ROLE nor a membership bypasses bindings."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.producers import PRODUCERS, Connection, Tenants, insert, seen
from tests.support.queue_rows import connect


def bound(session: Connection) -> tuple[str | None, set[str]]:
    """As whom a session is bound, and to which devices."""
    ((name, keys),) = session.execute("SELECT shardd.bound_as(), shardd.bindings()").fetchall()
    return name, {key.removeprefix("device:") for key in keys or () if key.startswith("device:")}


def foreign_job(tenants: Tenants) -> int:
    """A job of device b1, inserted by the owner."""
    with connect(tenants.dsn) as owner:
        job = insert(owner, device_id="b1")
        assert job is not None
        return job


def assert_held(session: Connection, name: str = "alpha", device: str = "a1") -> None:
    """Bound to one device and nothing else."""
    assert bound(session) == (name, {device})
    foreign = "b1" if device != "b1" else "a1"
    with pytest.raises(errors.InsufficientPrivilege, match=f"device_id '{foreign}' is not bound to {name}"):
        insert(session, device_id=foreign)
    assert insert(session, device_id=device) is not None
    devices = {row[0] for row in session.execute("SELECT device_id FROM shardd.outcomes")}
    assert devices == {device}


def test_set_role_frees_nobody(tenants: Tenants, beta: str, free: str) -> None:
    tenants.role("alpha", free, beta)
    tenants.bind("alpha", "a1")
    foreign_job(tenants)
    with tenants.session("alpha") as session:
        for role in (PRODUCERS, free, beta, "alpha", "none"):
            session.execute("SET ROLE NONE" if role == "none" else f"SET ROLE {role}")  # type: ignore[call-overload]
            assert_held(session)
        session.execute("SET SESSION AUTHORIZATION alpha")
        assert_held(session)
        for forbidden in ("SET ROLE shardd", "SET SESSION AUTHORIZATION free", "SET role = 'postgres'"):
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(forbidden)  # type: ignore[call-overload]


def test_a_function_with_anothers_rights_frees_nobody(tenants: Tenants, free: str) -> None:
    tenants.bind(tenants.role("alpha"), "a1")
    foreign_job(tenants)
    with tenants.cluster.superuser(tenants.dbname) as superuser:
        superuser.execute("CREATE SCHEMA app AUTHORIZATION free")
        superuser.execute("GRANT USAGE ON SCHEMA app TO alpha")
        superuser.execute(
            "CREATE FUNCTION app.send(device text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ "
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (device, '+4915112345678', 'x') RETURNING id $$"
        )
        superuser.execute("CREATE VIEW app.outcomes AS SELECT * FROM shardd.outcomes")
        superuser.execute("ALTER FUNCTION app.send OWNER TO free")
        superuser.execute("GRANT EXECUTE ON FUNCTION app.send TO alpha")
        superuser.execute("ALTER VIEW app.outcomes OWNER TO free")
        superuser.execute("GRANT SELECT ON app.outcomes TO alpha")
    with tenants.session("alpha") as session:
        with pytest.raises(errors.InsufficientPrivilege, match="device_id 'b1' is not bound to alpha"):
            session.execute("SELECT app.send('b1')")
        job = session.execute("SELECT app.send('a1')").fetchone()
        assert job is not None
        assert seen(session, "app.outcomes") == set(job)


def test_a_role_that_cannot_log_in_binds_its_members(tenants: Tenants) -> None:
    tenants.role("team", login=False)
    tenants.role("squad", "team", login=False, producer=False)
    tenants.role("alpha", "team")
    tenants.role("beta", "squad")
    tenants.bind("team", "a1", is_group=True)
    foreign_job(tenants)
    for name in ("alpha", "beta"):
        with tenants.session(name) as session:
            assert_held(session, name)
    # Each keeps keys of its own, and the bindings of its own add to those of the team.
    tenants.bind("alpha", "b1")
    with tenants.session("alpha") as a, tenants.session("beta") as b:
        assert bound(a) == ("alpha", {"a1", "b1"})
        assert insert(a, device_id="a1", dedupe_key="k") is not None
        assert insert(b, device_id="a1", dedupe_key="k") is not None
        assert insert(a, device_id="b1") is not None
        a.execute("SET ROLE team")
        assert bound(a) == ("team", {"a1"}), "SET ROLE narrows"


def test_a_job_must_be_allowed_by_one_set_of_bindings_alone(tenants: Tenants) -> None:
    """A campaign through any device, and a device without that campaign, are no right to both at once."""
    tenants.role("team", login=False, producer=False)
    tenants.bind("team", "a2", campaigns=("ca",), is_group=True)
    tenants.bind(tenants.role("alpha", "team"), "a1")
    with tenants.session("alpha") as session:
        for fields in ({"device_id": "a1"}, {"device_id": "a2"}, {"device_id": "a2", "campaign": "ca"}):
            assert insert(session, **fields) is not None
        with pytest.raises(errors.InsufficientPrivilege, match="campaign 'ca' is not bound to alpha"):
            insert(session, device_id="a1", campaign="ca")


def test_all_producers_can_be_bound_at_once(tenants: Tenants) -> None:
    tenants.role("alpha")
    tenants.bind(PRODUCERS, "a1", is_group=True)
    job = foreign_job(tenants)
    with tenants.session("alpha") as session:
        assert_held(session)
        session.execute(f"SET ROLE {PRODUCERS}")  # type: ignore[call-overload]
        assert_held(session, PRODUCERS)
    with connect(tenants.dsn) as owner:
        assert job in seen(owner), "the daemon's own role is held by nothing"


def test_a_login_binds_nobody_but_itself(tenants: Tenants, free: str) -> None:
    """Before PostgreSQL 16 a login may make anybody a member of itself: that must not be a way to bind others."""
    tenants.bind(tenants.role("alpha"), "a1")
    with tenants.session("alpha") as session:
        try:
            session.execute("GRANT alpha TO free, shardd")
        except errors.InsufficientPrivilege:  # PostgreSQL 16
            with tenants.cluster.superuser() as superuser:
                superuser.execute("GRANT alpha TO free, shardd")
    job = foreign_job(tenants)
    with tenants.session(free) as session:
        assert bound(session) == (None, set())
        assert insert(session, device_id="b1") is not None
        assert job in seen(session)
        # Who acts as alpha is held as alpha, until it stops.
        session.execute("SET ROLE alpha")
        assert_held(session)
    with connect(tenants.dsn) as owner:
        assert bound(owner) == (None, set())


def test_a_pool_of_connections_is_bound_as_whom_it_works_for(tenants: Tenants) -> None:
    tenants.role("north", login=False)
    tenants.role("south", login=False)
    tenants.bind("north", "a1", is_group=True)
    tenants.bind("south", "b1", is_group=True)
    tenants.role("pool", "north", "south")
    with tenants.session("pool") as session:
        assert bound(session) == ("pool", {"a1", "b1"})
        for role, device in (("north", "a1"), ("south", "b1")):
            session.execute(f"SET ROLE {role}")  # type: ignore[call-overload]
            assert_held(session, role, device)
            assert insert(session, device_id=device, dedupe_key="k") is not None
            recipient = "+491510000001" + device.replace("a", "0").replace("b", "1")
            session.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [recipient])
            theirs = session.execute("SELECT recipient FROM shardd.visible_opt_outs").fetchall()
            assert theirs == [(recipient,)], "not the other tenant's"


READS = ("SELECT device_id FROM shardd.outcomes", "SELECT device_id FROM shardd.events WHERE job_id IS NOT NULL")


def test_a_pools_prepared_statements_follow_the_role_that_it_sets(tenants: Tenants) -> None:
    tenants.role("north", login=False)
    tenants.bind("north", "a1", is_group=True)
    tenants.role("pool")
    with tenants.cluster.superuser() as superuser:
        superuser.execute("GRANT north TO pool")
    with connect(tenants.dsn) as owner:
        for device in ("a1", "b1"):
            insert(owner, device_id=device)
        owner.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'failed', NULL, NULL)")
        owner.execute("UPDATE shardd.producers SET is_group = false")  # only who sets it is bound by it
    with tenants.session("pool") as session:
        for mode in ("auto", "force_generic_plan"):
            session.execute("SELECT set_config('plan_cache_mode', %s, false)", [mode])
            for number, statement in enumerate(READS):
                session.execute(f"PREPARE read{number} AS {statement}")  # type: ignore[call-overload]  # the statements above
            for role, devices in (("none", {"a1", "b1"}), ("north", {"a1"}), ("none", {"a1", "b1"}), ("north", {"a1"})):
                session.execute("SELECT set_config('role', %s, false)", [role])
                for number in range(len(READS)):
                    rows = session.execute(f"EXECUTE read{number}").fetchall()  # type: ignore[call-overload]
                    assert {row[0] for row in rows} == devices
            session.execute("RESET ROLE")
            session.execute("DEALLOCATE ALL")


def test_a_statement_that_was_planned_before_its_session_was_bound_shows_nothing_foreign(
    tenants: Tenants, free: str
) -> None:
    """Refused, or planned anew: PostgreSQL 18 notices the membership itself."""
    tenants.role("team", login=False)
    tenants.bind("team", "a1", is_group=True)
    foreign_job(tenants)
    with connect(tenants.dsn) as owner:
        owner.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'failed', NULL, NULL)")
        owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+4915112345678')")
    with tenants.session(free) as session, tenants.cluster.superuser() as superuser:
        reads = (*READS, "SELECT id FROM shardd.campaigns", "SELECT address FROM shardd.opt_outs")
        session.execute("SET plan_cache_mode = force_generic_plan")
        for number, statement in enumerate(reads):
            session.execute(f"PREPARE read{number} AS {statement}")  # type: ignore[call-overload]  # the statements above
            assert session.execute(f"EXECUTE read{number}").fetchall() != []  # type: ignore[call-overload]
        superuser.execute(f"GRANT team TO {free}")  # type: ignore[call-overload]
        for number, statement in enumerate(reads):
            try:
                told = str(session.execute(f"EXECUTE read{number}").fetchall())  # type: ignore[call-overload]
            except errors.InsufficientPrivilege as error:
                told = str(error)
            table = statement.split()[-1]
            assert told.startswith(
                (
                    "this statement was planned before the session was bound as free\nHINT:  Run DISCARD PLANS",
                    "[]" if statement in READS else f"free is bound, and cannot read {table}",
                )
            )
        session.execute("DISCARD PLANS")
        assert session.execute("EXECUTE read0").fetchall() == []


def test_who_owns_the_schema_is_never_bound_and_may_try_what_others_see(tenants: Tenants) -> None:
    tenants.bind(tenants.role("alpha"), "a1")
    tenants.bind("shardd", "a1")
    tenants.bind("postgres", "a1")
    job = foreign_job(tenants)
    for name in ("shardd", "postgres"):
        with tenants.session(name) as session:
            assert bound(session) == (None, set())
            assert job in seen(session)
    with tenants.session("postgres") as session:
        session.execute("SET ROLE alpha")
        assert_held(session)


@pytest.mark.parametrize("name", ["Shop 7", 'the "shop"', "x" * 63, "ünïcode", "public_", "none_"])
def test_every_name_of_a_role_can_be_bound(tenants: Tenants, name: str) -> None:
    tenants.role("member")
    with tenants.cluster.superuser() as superuser:
        identifier = psycopg.sql.Identifier(tenants.role(name, login=False))
        superuser.execute(psycopg.sql.SQL("GRANT {} TO member").format(identifier))
    tenants.bind(name, "a1", is_group=True)
    with tenants.session("member") as session:
        assert_held(session, "member")
        session.execute(psycopg.sql.SQL("SET ROLE {}").format(identifier))
        assert bound(session) == (name, {"a1"})


def test_a_binding_without_its_role_holds_nobody_and_hurts_nobody(tenants: Tenants, free: str) -> None:
    tenants.role("gone", login=False)
    tenants.bind("gone", "a1", is_group=True)
    tenants.cluster.drop_role("gone")
    with tenants.session(free) as session:
        assert bound(session) == (None, set())
        assert insert(session, device_id="b1") is not None
