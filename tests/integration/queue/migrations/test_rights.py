"""Rights in the schema: every object and right is compared with one list, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from shardd.errors import DatabaseError
from shardd.queue.migrate import migrate, migration_status
from tests.fixtures.postgres import TEMPLATE, Cluster

Connection = psycopg.Connection[Any]

INSERTABLE = (
    "body, campaign, class, dedupe_key, details, device_group, device_id, expires_at, file_name, kind, max_attempts, media, "
    "metadata, mime_type, on_doubt, on_unreadable, order_group, priority, recipient, reference, reply_to, "
    "revokes, run_at, variables"
)

ALLOWED = {
    # (what, who) → rights; who: everybody (PUBLIC), the group of the producers, or that of the inbox's readers.
    # What does not stand here is the owner's alone.
    ("schema shardd", "producers"): "USAGE",
    ("relation jobs", "producers"): f"INSERT({INSERTABLE}); SELECT(id)",
    ("relation campaigns", "producers"): "INSERT(device_cap, id, label, weight); SELECT",
    (
        "relation opt_outs",
        "producers",
    ): "INSERT(note, recipient); SELECT(address, created_at, recipient, said_at, source)",
    ("relation outcomes", "producers"): "SELECT",
    ("relation events", "producers"): "SELECT",
    ("relation visible_campaigns", "producers"): "SELECT",
    ("relation visible_opt_outs", "producers"): "SELECT",
    ("function outcome(bigint)", "producers"): "EXECUTE",
    ("function newest_outcomes(integer,bigint,bigint)", "producers"): "EXECUTE",
    ("function outcomes_by_reference(text)", "producers"): "EXECUTE",
    ("function outcome_by_dedupe_key(text)", "producers"): "EXECUTE",
    ("function read_events(text,integer,text[],text)", "producers"): "EXECUTE",
    ("function events_end()", "producers"): "EXECUTE",
    ("function event_id(bigint,bigint)", "producers"): "EXECUTE",
    ("function iso_time(timestamp with time zone)", "producers"): "EXECUTE",
    ("function json_fault(jsonb,integer)", "producers"): "EXECUTE",
    ("function decimals(jsonb)", "producers"): "EXECUTE",
    ("function refuse(text,text,text,text,text)", "producers"): "EXECUTE",
    ("function bound_as()", "producers"): "EXECUTE",
    ("function bindings()", "producers"): "EXECUTE",
    ("function sees_all()", "producers"): "EXECUTE",
    ("function confirm_plan()", "producers"): "EXECUTE",
    ("function refuse_bound_reader(text)", "producers"): "EXECUTE",
    ("relation inbox", "producers"): "SELECT",
    ("function message(bigint)", "producers"): "EXECUTE",
    ("function reads_inbox()", "producers"): "EXECUTE",
    ("function sees_inbox()", "producers"): "EXECUTE",
    ("schema shardd", "readers"): "USAGE",
    ("relation inbox", "readers"): "SELECT",
    ("function message(bigint)", "readers"): "EXECUTE",
    ("function bindings()", "readers"): "EXECUTE",
    ("function bound_as()", "readers"): "EXECUTE",
    ("function reads_inbox()", "readers"): "EXECUTE",
    ("function sees_inbox()", "readers"): "EXECUTE",
    ("function refuse(text,text,text,text,text)", "readers"): "EXECUTE",
}

RIGHTS = """
WITH objects AS (
    SELECT 'schema ' || n.nspname AS what, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl, NULL AS part
      FROM pg_namespace n WHERE n.nspname = 'shardd'
    UNION ALL
    SELECT 'relation ' || c.relname,
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)),
           NULL
      FROM pg_class c WHERE c.relnamespace = 'shardd'::regnamespace AND c.relkind NOT IN ('i', 'I', 'c')
    UNION ALL
    SELECT 'relation ' || c.relname, t.attacl, t.attname
      FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
     WHERE c.relnamespace = 'shardd'::regnamespace AND t.attacl IS NOT NULL
    UNION ALL
    SELECT 'function ' || p.proname || '(' || (
               SELECT coalesce(string_agg(format_type(one, NULL), ',' ORDER BY place), '')
                 FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a(one, place)) || ')',
           coalesce(p.proacl, acldefault('f', p.proowner)), NULL
      FROM pg_proc p WHERE p.pronamespace = 'shardd'::regnamespace
    UNION ALL
    SELECT 'type ' || t.typname, coalesce(t.typacl, acldefault('T', t.typowner)), NULL
      FROM pg_type t WHERE t.typnamespace = 'shardd'::regnamespace AND t.typcategory <> 'A'
)
SELECT o.what,
       CASE a.grantee WHEN 0 THEN 'everybody' WHEN 'shardd_inbox'::regrole THEN 'readers' ELSE 'producers' END,
       a.privilege_type, o.part::text
  FROM objects o CROSS JOIN aclexplode(o.acl) a
 WHERE a.grantee IN (0, 'shardd_producer'::regrole, 'shardd_inbox'::regrole)
 ORDER BY 1, 2, 3, 4
"""


@pytest.fixture(scope="module")
def dbname_of_module(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_database(TEMPLATE)
    yield name
    cluster.drop_database(name)


@pytest.fixture
def superuser(dbname_of_module: str, cluster: Cluster) -> Iterator[Connection]:
    with cluster.superuser(dbname_of_module) as connection:
        yield connection


def rights(connection: Connection) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for what, who, right, part in connection.execute(RIGHTS):
        found.setdefault((what, who), {}).setdefault(right, []).extend([] if part is None else [part])
    return {
        key: "; ".join(f"{right}({', '.join(parts)})" if parts else right for right, parts in sorted(mine.items()))
        for key, mine in found.items()
    }


def test_every_right_is_on_the_list(superuser: Connection) -> None:
    assert rights(superuser) == ALLOWED


def test_no_other_role_has_a_right(superuser: Connection) -> None:
    rows = superuser.execute(
        RIGHTS.replace(
            "a.grantee IN (0, 'shardd_producer'::regrole, 'shardd_inbox'::regrole)",
            "a.grantee NOT IN (0, 'shardd_producer'::regrole, 'shardd_inbox'::regrole, 'shardd'::regrole)",
        )
    ).fetchall()
    assert rows == []


async def test_what_is_made_later_starts_closed(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        before = rights(owner)
        owner.execute("CREATE FUNCTION shardd.later() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        owner.execute("CREATE TYPE shardd.later AS ENUM ('x')")
        assert rights(owner) == before
        # A table's type is born open, whatever the default is: the next run of the migrations closes it.
        owner.execute("CREATE TABLE shardd.later_table (id integer)")
        owner.execute("GRANT EXECUTE ON FUNCTION shardd.later() TO PUBLIC, shardd_producer")
        owner.execute("GRANT SELECT ON shardd.devices TO shardd_producer")
        owner.execute("GRANT SELECT (settings) ON shardd.devices TO shardd_producer")
        assert rights(owner) != before
        await migrate(dsn)
        assert rights(owner) == before


async def test_a_new_month_of_the_archive_starts_closed(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        before = rights(owner)
        rows = owner.execute("SELECT relname FROM pg_class WHERE relname ~ '^archive_[0-9]{4}_[0-9]{2}$'").fetchall()
        assert len(rows) == 3
        for (month,) in rows:
            owner.execute(f'DROP TABLE shardd."{month}"')  # type: ignore[call-overload]  # a name from the catalogue
        owner.execute("SELECT shardd.prepare_archive()")
        assert len(owner.execute("SELECT FROM pg_class WHERE relname ~ '^archive_[0-9]{4}_[0-9]{2}$'").fetchall()) == 3
        assert rights(owner) == before


INHERITING = {
    "bound_roles",
    "check_carried",
    "check_content",
    "check_json",
    "check_sizes",
    "check_terms",
    "codes_of_job",
    "codes_of_opt_out",
    "contact_details",
    "is_assigned",
    "read_local_number",
    "read_number",
    "refuse_unsent",
    "render_body",
    "resolve",
    "session_binding",
}
"""Functions that admit_job, admit_opt_out, admit_producer, bound_as and bindings call, and nobody else may."""


def test_no_name_in_a_function_depends_on_the_caller(superuser: Connection) -> None:
    """Bound when it was made, under its own search_path, or called by nobody but a function that has one.

    pg_temp stands last: where it is not named, the caller's temporary types and tables are looked at first.
    """
    rows = superuser.execute(
        "SELECT proname, prosqlbody IS NOT NULL, proconfig, prosecdef FROM pg_proc WHERE pronamespace = 'shardd'::regnamespace"
    ).fetchall()
    assert len(rows) > 30
    open_to = {what.split()[1].partition("(")[0] for what, _ in ALLOWED if what.startswith("function ")}
    for name, bound, config, definer in rows:
        pinned = "search_path=pg_catalog, pg_temp" in (config or [])
        assert bound or pinned or name in INHERITING, name
        assert pinned or not definer, name
        assert name not in INHERITING & open_to


async def test_in_a_database_of_its_own_nobody_makes_anything(cluster: Cluster) -> None:
    """As PostgreSQL 15 has it: public belongs to the database's owner. On 14 it is told what only the superuser can take away."""
    name = cluster.create_database()
    try:
        with cluster.superuser(name) as superuser:
            superuser.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
            superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        await migrate(cluster.dsn(name))
        assert (await migration_status(cluster.dsn(name))).open_rights == []
        with psycopg.connect(cluster.dsn(name, "producer"), autocommit=True) as producer:
            for statement in (
                "CREATE TEMP TABLE mine (id integer)", "CREATE DOMAIN pg_temp.mine AS text", "CREATE SCHEMA mine",
                "CREATE TABLE public.mine (id integer)",
                "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            ):  # fmt: skip
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    producer.execute(statement)  # type: ignore[call-overload]  # the statements above
    finally:
        cluster.drop_database(name)


async def test_as_a_superuser_it_takes_no_right_outside_of_its_schema(cluster: Cluster) -> None:
    """The database may be somebody else's, and so are functions that are made in it later."""
    name = cluster.create_database(owner="postgres")
    try:
        with cluster.superuser(name) as superuser:
            superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
            await migrate(cluster.dsn(name, "postgres"))
            superuser.execute("CREATE FUNCTION public.theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
            assert rights(superuser) == ALLOWED
        with psycopg.connect(cluster.dsn(name, "producer"), autocommit=True) as somebody:
            somebody.execute("CREATE TEMP TABLE mine (id integer)")
            somebody.execute("CREATE TABLE public.mine (id integer)")
            assert somebody.execute("SELECT public.theirs()").fetchone() == (1,)
    finally:
        cluster.drop_database(name)


async def test_rights_that_only_another_can_take_away_are_told(cluster: Cluster) -> None:
    """As PostgreSQL 14 has it: everybody may create in public, which belongs to the superuser."""
    name = cluster.create_database(owner="postgres")
    try:
        with cluster.superuser(name) as superuser:
            superuser.execute("ALTER SCHEMA public OWNER TO postgres")
            superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
            superuser.execute(f"GRANT CREATE ON DATABASE {name} TO shardd")  # type: ignore[call-overload]  # a name of ours
            await migrate(cluster.dsn(name))
            told = (await migration_status(cluster.dsn(name))).open_rights
            assert told == ["CREATE ON SCHEMA public", f"TEMPORARY ON DATABASE {name}"]
            for right in told:
                superuser.execute(f"REVOKE {right} FROM PUBLIC")  # type: ignore[call-overload]  # as the note says it
            assert (await migration_status(cluster.dsn(name))).open_rights == []
    finally:
        cluster.drop_database(name)


async def test_a_schema_of_somebody_else_is_refused(cluster: Cluster) -> None:
    name = cluster.create_database()
    try:
        with cluster.superuser(name) as superuser:
            superuser.execute("CREATE SCHEMA shardd AUTHORIZATION producer")
            with pytest.raises(
                DatabaseError,
                match=r"schema shardd of this database belongs to producer, .*ALTER SCHEMA shardd OWNER TO shardd",
            ):
                await migrate(cluster.dsn(name))
    finally:
        cluster.drop_database(name)
