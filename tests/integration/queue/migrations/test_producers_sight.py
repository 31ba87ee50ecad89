"""What a bound producer sees, through real logins: everything that is bound to it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from psycopg import errors, sql

from tests.fixtures.producers import Connection, Tenants, insert, seen
from tests.support.queue_rows import add_devices, connect

SECRET = "+4917099999999"
"""A recipient that alpha must never see."""


@dataclass(frozen=True)
class Scene:
    """Jobs by who may see them, live ones and archived ones."""

    theirs: set[int]
    foreign: set[int]


@pytest.fixture
def scene(tenants: Tenants, alpha: str, beta: str, free: str) -> Scene:
    """Inserted by all three; half of each ended. Alpha's are those of device a1, of group ga, and of campaign ca."""
    theirs, foreign = set(), set()
    tenants.bind(beta, "a1")
    with (
        tenants.session(alpha) as a,
        tenants.session(beta) as b,
        tenants.session(free) as f,
        connect(tenants.dsn) as owner,
    ):
        for _ in range(2):
            theirs |= {
                insert(a, device_id="a1"), insert(b, device_id="a1"), insert(b, device_id="a1", campaign="cb"),
                insert(f, device_id="a1"), insert(f, device_group="ga"), insert(f, device_id="b2", campaign="ca"),
            }  # fmt: skip
            foreign |= {
                insert(b, device_id="b1", recipient=SECRET), insert(f, device_id="a2", recipient=SECRET),
                insert(f, device_group="gb", recipient=SECRET), insert(f, device_id="b2", campaign="cb", recipient=SECRET),
            }  # fmt: skip
        ended = sorted(theirs)[:6] + sorted(foreign)[:4]
        owner.execute("SELECT shardd.end_jobs(%s::bigint[], 'failed', 'no such person', 'recipient')", [ended])
        owner.execute("UPDATE shardd.devices SET state = 'banned'")
        owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [SECRET])
    return Scene(theirs - {None}, foreign - {None})  # type: ignore[arg-type]  # none was refused


def test_a_bound_role_sees_what_is_bound_whoever_inserted_it(tenants: Tenants, alpha: str, scene: Scene) -> None:
    with tenants.session(alpha) as session:
        assert seen(session) == scene.theirs
        assert seen(session, "shardd.visible_campaigns") == {"ca"}
        live = seen(session, "shardd.jobs")
        assert live == {job for job in scene.theirs if job > 10} | (live & scene.theirs)
        assert live < scene.theirs
        for events in ("shardd.events", "shardd.read_events(NULL, 1000)"):
            rows = session.execute(sql.SQL("SELECT job_id, device_id, kind FROM {}").format(sql.SQL(events))).fetchall()
            assert {row[0] for row in rows if row[0]} == scene.theirs - live
            assert {row[1] for row in rows if row[2] == "device.state"} == {"a1"}
        mine = {"device:a1": True, "group:ga": True, "campaign:ca": True}
        assert session.execute("SELECT shardd.bound_as(), shardd.bindings()").fetchall() == [("alpha", mine)]


def test_who_is_not_bound_sees_everything_as_before(tenants: Tenants, free: str, scene: Scene) -> None:
    with tenants.session(free) as session:
        assert seen(session) == scene.theirs | scene.foreign
        assert seen(session, "shardd.campaigns") == {"ca", "cb"}
        assert {row[0] for row in session.execute("SELECT address FROM shardd.opt_outs")} == {SECRET.removeprefix("+")}
        told = {row[0] for row in session.execute("SELECT job_id FROM shardd.read_events(NULL, 1000)") if row[0]}
        assert len(told) == 10
        assert session.execute("SELECT shardd.bound_as()").fetchone() == (None,)


def test_the_newest_come_first_through_the_barrier(tenants: Tenants, alpha: str, scene: Scene) -> None:
    with tenants.session(alpha) as session:
        rows = session.execute("SELECT id FROM shardd.outcomes ORDER BY id DESC LIMIT 3").fetchall()
    assert [row[0] for row in rows] == sorted(scene.theirs, reverse=True)[:3]


def test_a_job_is_found_by_its_id_or_reference_by_who_may_see_it(
    tenants: Tenants, alpha: str, beta: str, free: str, scene: Scene
) -> None:
    with tenants.session(alpha) as a, tenants.session(beta) as b, tenants.session(free) as f:
        for job in scene.theirs | scene.foreign:
            found = seen(a, f"shardd.outcome({job})")
            assert found == scene.theirs & {job}
            assert seen(f, f"shardd.outcome({job})") == {job}
        mine, again, others = (insert(who, device_id="a1", reference="order-17") for who in (a, a, b))
        insert(b, device_id="b1", reference="order-18")
        by_reference = "SELECT * FROM shardd.outcomes_by_reference(%s)"
        assert [row[0] for row in a.execute(by_reference, ["order-17"])] == [again, mine], "those that it inserted"
        assert [row[0] for row in f.execute(by_reference, ["order-17"])] == [others, again, mine]
        assert a.execute(by_reference, ["order-18"]).fetchall() == []
        with connect(tenants.dsn) as owner:
            owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', NULL, NULL)", [mine])
        whole = "SELECT * FROM shardd.outcomes WHERE id = ANY (%s) ORDER BY id DESC"
        assert a.execute(by_reference, ["order-17"]).fetchall() == a.execute(whole, [[mine, again]]).fetchall()
        with connect(tenants.dsn) as owner:
            owner.execute("DELETE FROM shardd.producer_devices WHERE role = 'alpha'")
        assert a.execute(by_reference, ["order-17"]).fetchall() == [], "it is not bound to the device any more"


def test_the_first_job_of_a_dedupe_key_is_found_by_who_owns_the_key(
    tenants: Tenants, alpha: str, beta: str, free: str
) -> None:
    by_key = "SELECT id, state FROM shardd.outcome_by_dedupe_key('order-17')"
    with tenants.session(alpha) as a, tenants.session(beta) as b, tenants.session(free) as f:
        mine, theirs, others = (
            insert(who, device_id=device, dedupe_key="order-17") for who, device in ((a, "a1"), (b, "b1"), (f, "a2"))
        )
        assert insert(a, device_id="a1", dedupe_key="order-17") is None, "a repeated key inserts nothing"
        for session, job in ((a, mine), (b, theirs), (f, others)):
            assert session.execute(by_key).fetchall() == [(job, "queued")]
        assert a.execute("SELECT * FROM shardd.outcome_by_dedupe_key('order-18')").fetchall() == []
        with connect(tenants.dsn) as owner:
            owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', NULL, NULL)", [mine])
        assert a.execute(by_key).fetchall() == [(mine, "failed")]
        with connect(tenants.dsn) as owner:
            owner.execute("DELETE FROM shardd.producer_devices WHERE role = 'alpha'")
        assert a.execute(by_key).fetchall() == [], "it is not bound to the device any more"


def test_a_producer_reads_back_the_id_and_is_told_where_the_rest_is(producer_dsn: str, dsn: str) -> None:
    add_devices(dsn, "d1")
    statement = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345678', 'x') RETURNING {}"
    with connect(producer_dsn) as producer:
        assert producer.execute(statement.format("id")).fetchone() == (1,)  # type: ignore[arg-type]  # of the line above
        with pytest.raises(errors.InsufficientPrivilege, match="permission denied for table jobs"):
            producer.execute(statement.format("*"))  # type: ignore[arg-type]  # likewise
        ((told,),) = producer.execute("SELECT obj_description('shardd.jobs'::regclass)").fetchall()
    assert "RETURNING id works, RETURNING * is" in told
    assert "shardd.outcome_by_dedupe_key(key)" in told


READABLE = {
    "shardd.outcomes": ("recipient", "device_id", "campaign", "reference", "id::text"),
    "shardd.events": ("data::text", "device_id", "campaign", "job_id::text"),
    "shardd.read_events(NULL, 1000)": ("data::text", "device_id", "campaign", "job_id::text"),
    "shardd.visible_campaigns": ("id",),
    "shardd.visible_opt_outs": ("address", "recipient"),
    "shardd.jobs": ("id::text",),
}


@pytest.fixture
def spy(tenants: Tenants, alpha: str) -> Iterator[Connection]:
    """Alpha's session, with the cheapest of functions and an operator that tell what they are shown."""
    with tenants.cluster.superuser(tenants.dbname) as superuser:
        superuser.execute("CREATE SCHEMA spying AUTHORIZATION alpha")
    with tenants.session(alpha) as session:
        session.execute("SET client_min_messages = 'notice'")
        session.execute(
            "CREATE FUNCTION spying.look(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
            "$$ BEGIN RAISE NOTICE '%', coalesce($1, 'NULL'); RETURN true; END $$"
        )
        session.execute(
            "CREATE FUNCTION spying.same(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS "
            "$$ BEGIN RAISE NOTICE '%', coalesce($1, 'NULL'); RETURN true; END $$"
        )
        session.execute("CREATE OPERATOR spying.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = spying.same)")
        yield session


@pytest.mark.parametrize("what", READABLE)
def test_a_function_in_the_question_is_shown_no_foreign_row(spy: Connection, scene: Scene, what: str) -> None:
    shown: list[str] = []
    spy.add_notice_handler(lambda told: shown.append(told.message_primary or ""))
    foreign = {str(job) for job in scene.foreign} | {SECRET, SECRET.removeprefix("+"), "b1", "gb"}
    for column in READABLE[what]:
        for clause in (
            "WHERE spying.look({0})", "WHERE {0} OPERATOR(spying.===) 'x'", "WHERE spying.look({0}) ORDER BY 1 LIMIT 100",
            "WHERE (SELECT spying.look({0}))", "GROUP BY 1 HAVING bool_and(spying.look({0}))",
            "JOIN (SELECT 1 AS one) x ON spying.look({0})",
        ):  # fmt: skip
            shown.clear()
            statement = f"SELECT {column} FROM {what} {clause.format(column)}"
            spy.execute(statement)  # type: ignore[call-overload]  # the clauses above
            if what != "shardd.visible_opt_outs":
                assert shown, f"nothing was looked at: {statement}"
            for word in shown:
                assert word not in foreign, statement
                assert SECRET not in word, statement


def test_an_error_in_the_question_tells_of_no_foreign_row(tenants: Tenants, alpha: str, scene: Scene) -> None:
    with tenants.session(alpha) as session:
        for job in scene.foreign:
            session.execute("SELECT 1 / (id - %s) FROM shardd.outcomes", [job])
            session.execute("SELECT id FROM shardd.outcomes WHERE 1 / (id - %s) IS NOT NULL", [job])
            session.execute("SELECT id FROM shardd.jobs WHERE 1 / (id - %s) IS NOT NULL", [job])


def test_the_planners_statistics_tell_nothing(tenants: Tenants, alpha: str, scene: Scene) -> None:
    with connect(tenants.dsn) as owner:
        for table in ("jobs", "campaigns", "opt_outs", "archive", "outbox"):
            owner.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("shardd", table)))
    with tenants.session(alpha) as session:
        rows = session.execute("SELECT * FROM pg_stats WHERE schemaname = 'shardd'").fetchall()
        rows += session.execute("SELECT * FROM pg_stats_ext WHERE schemaname = 'shardd'").fetchall()
    assert rows == []


@pytest.mark.parametrize(
    "what",
    [
        "all_outcomes", "all_events", "bound_outcomes", "bound_events", "retries", "outbox", "archive", "devices",
        "device_groups", "dedupe_keys", "order_groups", "opt_out_log", "contacts",
        "producers", "producer_devices", "producer_groups", "producer_campaigns",
    ],
)  # fmt: skip
def test_what_stands_behind_the_views_is_closed(tenants: Tenants, alpha: str, what: str) -> None:
    with tenants.session(alpha) as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier("shardd", what)))


@pytest.mark.parametrize("call", ["session_binding()", "bound_roles('beta')"])
def test_nobody_asks_what_is_bound_to_others(tenants: Tenants, alpha: str, call: str) -> None:
    with tenants.session(alpha) as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute(sql.SQL("SELECT shardd.{}").format(sql.SQL(call)))  # type: ignore[arg-type]  # the calls above


# ---- opt-outs


def test_every_role_opts_people_out_and_a_bound_one_reads_its_own_only(
    tenants: Tenants, alpha: str, beta: str, free: str, scene: Scene
) -> None:
    with tenants.session(alpha) as a, tenants.session(beta) as b, tenants.session(free) as f:
        opt_out = "INSERT INTO shardd.opt_outs (recipient) VALUES (%s) ON CONFLICT DO NOTHING"
        for session, recipient in ((a, "+4915100000001"), (b, "+4915100000002"), (a, "+4915100000002")):
            session.execute(opt_out, [recipient])
        assert {row[0] for row in a.execute("SELECT address FROM shardd.visible_opt_outs")} == {"4915100000001"}
        assert {row[0] for row in b.execute("SELECT address FROM shardd.visible_opt_outs")} == {"4915100000002"}
        # What was added for another address of the person would reveal the number behind a LID.
        with connect(tenants.dsn) as owner:
            owner.execute("INSERT INTO shardd.same_person (address, other) VALUES ('4915100000004', '123456789@lid')")
            a.execute(opt_out, ["123456789@lid"])
            assert owner.execute("SELECT 1 FROM shardd.opt_outs WHERE address = '4915100000004'").fetchall() == [(1,)]
        assert {row[0] for row in a.execute("SELECT address FROM shardd.visible_opt_outs")} == {
            "4915100000001",
            "123456789@lid",
        }
        for table in ("opt_outs", "visible_opt_outs"):
            assert len(f.execute(f"SELECT address FROM shardd.{table}").fetchall()) == 5  # type: ignore[call-overload]  # the names above
        # Who is free sees what it added, and what is there already, as before.
        returning = (
            "INSERT INTO shardd.opt_outs (recipient) VALUES (%s) ON CONFLICT (address) DO NOTHING RETURNING address"
        )
        told = [f.execute(returning, [f"+49151000000{number:02}"]).fetchall() for number in (1, 3)]
        assert told == [[], [("4915100000003",)]]
        made = "INSERT INTO shardd.campaigns (id) VALUES ('cf') ON CONFLICT (id) DO NOTHING RETURNING id"
        assert [f.execute(made).fetchall() for _ in range(2)] == [[("cf",)], []]
        # They hold for everybody.
        job = insert(b, device_id="b1", recipient="+4915100000001")
        assert b.execute("SELECT state FROM shardd.outcomes WHERE id = %s", [job]).fetchall() == [("opted_out",)]


# ---- notifications


def test_no_notification_names_anything_while_somebody_is_bound(tenants: Tenants, beta: str, free: str) -> None:
    with connect(tenants.dsn) as listener, tenants.session(beta) as b, tenants.session(free) as f:
        for channel in ("shardd_jobs", "shardd_events", "shardd_devices", "shardd_campaigns", "done"):
            listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        insert(b, device_id="b1", campaign="cb")
        insert(f, device_id="b1")
        listener.execute("UPDATE shardd.campaigns SET state = 'paused'")
        listener.execute("UPDATE shardd.devices SET state = 'banned'")
        listener.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'failed', NULL, NULL)")
        listener.execute("NOTIFY done")
        heard: dict[str, set[str]] = {}
        for told in listener.notifies(timeout=30):
            heard.setdefault(told.channel, set()).add(told.payload)
            if told.channel == "done":
                break
    assert heard.keys() == {"shardd_jobs", "shardd_events", "shardd_devices", "shardd_campaigns", "done"}
    assert set().union(*heard.values()) == {""}
