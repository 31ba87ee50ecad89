"""What a bound producer may insert, through real logins, without learning what else exists."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from tests.fixtures.producers import Connection, Tenants, insert, seen
from tests.support.queue_rows import connect

ALLOWED: list[dict[str, Any]] = [
    {"device_id": "a1"},
    {"device_id": "a1", "campaign": "ca"},
    {"device_group": "ga"},
    {"device_group": "ga", "campaign": "ca"},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"device_id": "b1"}, "device_id 'b1' is not bound to alpha"),
    ({"device_id": "a2"}, "device_id 'a2' is not bound to alpha"),  # of its group, and still not its own
    ({"device_id": "b1", "campaign": "ca"}, "device_id 'b1' is not bound to alpha"),
    ({"device_group": "gb"}, "device_group 'gb' is not bound to alpha"),
    ({"device_id": "a1", "campaign": "cb"}, "campaign 'cb' is not bound to alpha"),
    ({"device_group": "ga", "campaign": "cb"}, "campaign 'cb' is not bound to alpha"),
]


def refusal(session: Connection, **fields: Any) -> dict[str, str | None]:
    """Everything that an INSERT's refusal tells."""
    with pytest.raises(psycopg.Error) as caught:
        insert(session, **fields)
    told = caught.value.diag
    names = ("sqlstate", "message_primary", "message_detail", "message_hint", "column_name", "table_name", "context")
    return {name: getattr(told, name) for name in names}


@pytest.mark.parametrize("fields", ALLOWED)
def test_a_bound_role_inserts_for_what_is_bound(tenants: Tenants, alpha: str, fields: dict[str, Any]) -> None:
    with tenants.session(alpha) as session:
        job = insert(session, **fields)
        assert seen(session) == {job}


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_a_bound_role_inserts_for_nothing_else(
    tenants: Tenants, alpha: str, fields: dict[str, Any], message: str
) -> None:
    with tenants.session(alpha) as session:
        told = refusal(session, **fields)
    assert (told["sqlstate"], told["message_primary"]) == (errors.InsufficientPrivilege.sqlstate, message)
    assert "shardd producer add" in (told["message_hint"] or "")


def test_what_is_foreign_is_refused_as_if_it_did_not_exist(tenants: Tenants, alpha: str) -> None:
    with connect(tenants.dsn) as owner:
        owner.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'b2'")
        owner.execute("UPDATE shardd.campaigns SET state = 'cancelled' WHERE id = 'cb'")
    with tenants.session(alpha) as session:
        for column, base, foreign in (
            ("device_id", {}, ("b1", "b2", "ga")),
            ("device_group", {}, ("gb", "b1")),
            ("campaign", {"device_id": "a1"}, ("cb",)),
        ):
            unknown = refusal(session, **base, **{column: "x1"})
            for name in foreign:
                told = refusal(session, **base, **{column: name})
                assert {key: (value or "").replace(name, "x1") for key, value in told.items()} == {
                    key: value or "" for key, value in unknown.items()
                }
        # And as quickly: nothing is looked at after the refusal, however wrong the row is.
        assert refusal(session, device_id="b1", recipient="bob")["column_name"] == "device_id"


def test_a_role_that_is_bound_to_campaigns_alone_sends_through_any_device(tenants: Tenants) -> None:
    tenants.bind(tenants.role("alpha"), campaigns=("ca",))
    with tenants.session("alpha") as session:
        jobs = {insert(session, device_id="a1", campaign="ca"), insert(session, device_group="gb", campaign="ca")}
        assert seen(session) == jobs
        assert (
            refusal(session, device_id="a1")["message_primary"] == "campaign is empty, but alpha is bound to campaigns"
        )
        assert (
            refusal(session, device_id="a1", campaign="cb")["message_primary"] == "campaign 'cb' is not bound to alpha"
        )
        # The first device narrows it for good: what is taken away later never gives more.
        tenants.bind("alpha", "a1")
        insert(session, device_id="a1", campaign="ca")
        insert(session, device_id="a1")
        refusal(session, device_id="a2", campaign="ca")
        with connect(tenants.dsn) as owner:
            owner.execute("DELETE FROM shardd.producer_devices")
        refusal(session, device_id="a1", campaign="ca")


def test_who_lost_everything_that_was_bound_may_do_nothing(tenants: Tenants) -> None:
    tenants.bind(tenants.role("alpha"), groups=("ga",))
    with connect(tenants.dsn) as owner, tenants.session("alpha") as session:
        job = insert(session, device_group="ga")
        owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'cancelled', NULL, NULL)", [job])
        owner.execute("DELETE FROM shardd.device_groups WHERE id = 'ga'")
        for fields in ({"device_group": "ga"}, {"device_id": "a1"}):
            refusal(session, **fields)
        assert seen(session) == set()
        tenants.free("alpha")
        assert insert(session, device_id="a1") is not None


def test_bound_roles_make_no_campaigns(tenants: Tenants, alpha: str, free: str) -> None:
    with tenants.session(alpha) as session:
        told = []
        for name in ("new", "cb", "not an id"):
            with pytest.raises(errors.InsufficientPrivilege) as caught:
                session.execute("INSERT INTO shardd.campaigns (id) VALUES (%s) ON CONFLICT DO NOTHING", [name])
            told.append(caught.value.diag.message_primary)
        assert set(told) == {"alpha is bound, and cannot create campaigns"}
    with tenants.session(free) as session:
        session.execute("INSERT INTO shardd.campaigns (id) VALUES ('new')")


# ---- keys


def test_dedupe_keys_are_each_bound_roles_own(tenants: Tenants, alpha: str, beta: str, free: str) -> None:
    tenants.role("other")
    with (
        tenants.session(alpha) as a,
        tenants.session(beta) as b,
        tenants.session(free) as f,
        tenants.session("other") as o,
    ):
        for session, device in ((a, "a1"), (b, "b1"), (f, "a1")):
            assert insert(session, device_id=device, dedupe_key="order-17") is not None
            assert insert(session, device_id=device, dedupe_key="order-17") is None
        assert insert(o, device_id="a1", dedupe_key="order-17") is None, "those that are not bound share theirs"


def test_order_groups_are_each_bound_roles_own(tenants: Tenants, alpha: str, beta: str, free: str) -> None:
    tenants.bind(beta, "a1")
    with (
        tenants.session(alpha) as a,
        tenants.session(beta) as b,
        tenants.session(free) as f,
        connect(tenants.dsn) as owner,
    ):
        jobs = [[insert(session, device_id="a1", order_group="g") for _ in range(2)] for session in (a, b, f)]
        held = {row[0] for row in owner.execute("SELECT id FROM shardd.jobs WHERE held")}
        assert held == {second for _, second in jobs}
        # What fails to one holds back none of the others.
        owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', NULL, NULL)", [jobs[0][0]])
        assert insert(b, device_id="a1", order_group="h") is not None
        third = insert(b, device_id="a1", order_group="g")
        for job, word in ((jobs[0][1], f"job {jobs[0][0]} of its order group"), (third, "the job before it")):
            ((waits,),) = owner.execute("SELECT waits_for FROM shardd.all_outcomes WHERE id = %s", [job]).fetchall()
            assert waits.startswith(word)


def test_nobody_waits_for_an_open_transaction_of_another_role(tenants: Tenants, alpha: str, beta: str) -> None:
    with tenants.session(alpha) as a, tenants.session(beta) as b, a.transaction():
        insert(a, device_id="a1", dedupe_key="k", order_group="g")
        b.execute("SET statement_timeout = '20s'")
        assert insert(b, device_id="b1", dedupe_key="k", order_group="g") is not None


async def test_a_retried_job_keeps_its_owner(tenants: Tenants, alpha: str, beta: str, database: Database) -> None:
    with tenants.session(alpha) as a, tenants.session(beta) as b, connect(tenants.dsn) as owner:
        job = insert(a, device_id="a1", dedupe_key="k", order_group="g")
        owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'failed', NULL, NULL)", [job])
        assert [one.done async for chunk in JobAdmin(database).retry(Traits(), [job or 0]) for one in chunk] == [True]
        assert owner.execute("SELECT producer, held FROM shardd.jobs").fetchall() == [("alpha", False)]
        assert insert(a, device_id="a1", dedupe_key="k") is None, "the key is taken"
        assert insert(b, device_id="b1", dedupe_key="k") is not None
        shown = await JobAdmin(database).show(job or 0)
        assert shown is not None
        assert shown.producer == "alpha"


def test_no_producer_says_whose_a_job_is(tenants: Tenants, alpha: str, free: str) -> None:
    for name in (alpha, free):
        with tenants.session(name) as session, pytest.raises(errors.InsufficientPrivilege):
            insert(session, device_id="a1", producer="beta")


# ---- what costs nothing while nobody is bound


def test_row_security_is_on_while_somebody_is_bound(tenants: Tenants, free: str) -> None:
    def guarded() -> set[bool]:
        with connect(tenants.dsn) as owner:
            rows = owner.execute(
                "SELECT relrowsecurity FROM pg_class WHERE relnamespace = 'shardd'::regnamespace "
                "AND relname IN ('jobs', 'campaigns', 'opt_outs')"
            ).fetchall()
        return {row[0] for row in rows}

    def copied() -> None:
        with (
            tenants.session(free) as session,
            session.cursor().copy("COPY shardd.jobs (device_id, recipient, body) FROM STDIN") as copy,
        ):
            copy.write_row(("b1", "+4915112345678", "hello"))

    assert guarded() == {False}
    copied()
    tenants.bind(tenants.role("alpha"), "a1")
    tenants.bind(tenants.role("beta"), "b1")
    assert guarded() == {True}
    with pytest.raises(errors.FeatureNotSupported, match="COPY FROM not supported with row-level security"):
        copied()
    tenants.free("alpha")
    assert guarded() == {True}
    tenants.free("beta")
    assert guarded() == {False}
    copied()
