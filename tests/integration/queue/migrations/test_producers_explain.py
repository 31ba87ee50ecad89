"""What EXPLAIN tells a bound producer of foreign rows: the same whether there is what it asks for or not.

Comparisons of text and numbers are leakproof: PostgreSQL uses them on an index before the filter of a view or of row security.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from psycopg import errors

from tests.fixtures.producers import Connection, Tenants, insert
from tests.support.queue_rows import connect

FILL = """
INSERT INTO shardd.jobs (device_id, recipient, body, reference, order_group, campaign, dedupe_key)
SELECT 'b' || 1 + n % 2, '+49170' || 1000000 + n, 'x', 'secret-' || n, 'g' || n % 50, CASE WHEN n % 2 = 0 THEN 'cb' END,
       'key-' || n
  FROM generate_series(1, 2000) n;
SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs WHERE id % 4 <> 1), 'failed', 'no such person', 'recipient');
INSERT INTO shardd.jobs (device_id, recipient, body, reference) SELECT 'a1', '+49151' || 1000000 + n, 'x', 'mine-' || n
  FROM generate_series(1, 300) n;
SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs WHERE device_id = 'a1' AND id % 2 = 0), 'failed', 'x', 'recipient');
INSERT INTO shardd.opt_outs (recipient) SELECT '+49170' || 1000000 + n FROM generate_series(1, 2000) n;
INSERT INTO shardd.campaigns (id, label) SELECT 'foreign-' || n, 'secret-' || n FROM generate_series(1, 300) n;
"""

# A condition on a relation, and two values for it: of a row that alpha must not see, and of none.
ASKED = [
    ("outcomes", "id = {}", "1001", "9001"),
    ("outcomes", "id BETWEEN {0} AND {0} AND state = 'queued'", "1001", "9001"),
    ("outcomes", "reference = '{}'", "secret-1", "absent-1"),
    ("outcomes", "reference >= '{}'", "secret-", "zecret-"),
    ("outcomes", "reference LIKE '{}%'", "secret-9", "absent-9"),
    ("outcomes", "order_group = '{}'", "g7", "x7"),
    ("outcomes", "recipient = '{}'", "+491701000001", "+491601000001"),
    ("outcomes", "device_id = '{}'", "b1", "x1"),
    ("outcomes", "campaign = '{}'", "cb", "cx"),
    ("outcomes", "campaign IN ('{}', 'cy')", "cb", "cx"),
    ("outcomes", "reference = '{0}' OR recipient = '{0}'", "secret-1", "absent-1"),
    ("outcomes", "error = '{}'", "no such person", "no such answer"),
    ("outcomes", "EXISTS (SELECT FROM shardd.outcomes o WHERE o.reference = '{}')", "secret-1", "absent-1"),
    ("outcomes", "(reference, 1) IN (VALUES ('{}', 1))", "secret-1", "absent-1"),
    ("events", "job_id = {}", "1002", "9002"),
    ("events", "reference = '{}'", "secret-2", "absent-2"),
    ("events", "reference BETWEEN '{0}' AND '{0}~'", "secret-2", "absent-2"),
    ("events", "device_id = '{}'", "b1", "x1"),
    ("events", "campaign = '{}'", "cb", "cx"),
    ("events", "data ->> 'recipient' = '{}'", "+491701000002", "+491601000002"),
    ("visible_campaigns", "id = '{}'", "foreign-1", "unknown-1"),
    ("visible_campaigns", "id >= '{}'", "foreign-", "zoreign-"),
    ("visible_campaigns", "label = '{}'", "secret-1", "absent-1"),
    ("visible_opt_outs", "address = '{}'", "491701000001", "491601000001"),
    ("visible_opt_outs", "address BETWEEN '{}' AND '491701999999'", "491701000001", "491701900001"),
    ("visible_opt_outs", "recipient = '{}'", "+491701000001", "+491601000001"),
    ("outcomes_by_reference('{}')", "true", "secret-1", "absent-1"),
    ("outcome_by_dedupe_key('{}')", "true", "key-1", "absent-1"),
]

SHAPES = [
    "SELECT 1 FROM shardd.{what} WHERE {condition}",
    "SELECT * FROM shardd.{what} WHERE {condition} ORDER BY 1 DESC LIMIT 1",
    "SELECT count(*) FROM (VALUES (1), (2)) v (n) JOIN LATERAL (SELECT FROM shardd.{what} WHERE {condition} LIMIT v.n) x ON true",
    "INSERT INTO shardd.opt_outs (recipient) SELECT '+4915112345678' FROM shardd.{what} WHERE {condition}",
]  # fmt: skip

METHODS = ([], ["seqscan"], ["seqscan", "bitmapscan"], ["indexscan", "indexonlyscan", "bitmapscan"])
"""What the session forbids the planner."""


@pytest.fixture
def session(tenants: Tenants, alpha: str) -> Iterator[Connection]:
    """Alpha's, among many foreign rows with statistics."""
    with connect(tenants.dsn) as owner:
        owner.execute(FILL)
        owner.execute("VACUUM ANALYZE")
    with tenants.session(alpha) as connection:
        yield connection


def explain(session: Connection, statement: str, options: str) -> str:
    """The plan, without what another execution of the same statement would say otherwise."""
    with session.transaction(force_rollback=True):
        rows = session.execute(f"EXPLAIN ({options}) {statement}").fetchall()  # type: ignore[call-overload]  # of the statements here
    text = "\n".join(row[0] for row in rows)
    text = re.sub(r"\nPlanning:\n( .*\n)*", "\n", text)
    text = re.sub(r"[Tt]ime[:=] ?[0-9.]+( ms)?|Memory: \w+|(shared )?(dirtied|written)=\d+", "", text)
    return re.sub(
        r"hit=(\d+)( read=(\d+))?|read=(\d+)", lambda m: f"buffers={sum(int(m[i] or 0) for i in (1, 3, 4))}", text
    )


@pytest.mark.parametrize(("what", "condition", "there", "absent"), ASKED)
def test_a_plan_does_not_tell_whether_a_foreign_row_is_there(
    session: Connection, what: str, condition: str, there: str, absent: str
) -> None:
    for forbidden in METHODS:
        session.execute("RESET ALL")
        for name in forbidden:
            session.execute("SELECT set_config(%s, 'off', false)", [f"enable_{name}"])
        for shape in SHAPES:
            for options in ("COSTS", "ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF"):
                statement = shape.format(what=what, condition=condition)
                for _ in range(5):  # others of the server may come in between: what a plan tells, it tells each time
                    told = [
                        explain(session, statement.format(value), options).replace(value, "…")
                        for value in (there, absent)
                    ]
                    if told[0] == told[1]:
                        break
                assert told[0] == told[1], shape


@pytest.mark.parametrize(
    ("statement", "there", "absent"),
    [
        ("SELECT id FROM shardd.campaigns WHERE id = '{}'", "foreign-1", "unknown-1"),
        ("SELECT count(*) FROM shardd.campaigns WHERE label >= '{}'", "secret-", "zecret-"),
        ("SELECT id FROM shardd.campaigns WHERE id = '{}' FOR KEY SHARE", "foreign-1", "unknown-1"),
        ("SELECT 1 FROM shardd.opt_outs WHERE address >= '{}' AND address < '4:'", "49", "499"),
        ("SELECT 1 FROM shardd.jobs j JOIN shardd.opt_outs o ON o.address = '{}'", "491701000001", "491601000001"),
        ("INSERT INTO shardd.opt_outs (recipient) VALUES ('{}') RETURNING address", "+491701000001", "+491601000001"),
        (
            "INSERT INTO shardd.opt_outs (recipient) VALUES ('{}') ON CONFLICT (address) DO NOTHING",
            "+491701000001",
            "+491601000001",
        ),
        (
            "INSERT INTO shardd.opt_outs (recipient) SELECT recipient || '0' FROM shardd.opt_outs WHERE address = '{}'",
            "491701000001",
            "491601000001",
        ),
        ("INSERT INTO shardd.campaigns (id) VALUES ('{}')", "foreign-1", "unknown-1"),
        ("INSERT INTO shardd.campaigns (id) VALUES ('{}') ON CONFLICT (id) DO NOTHING", "foreign-1", "unknown-1"),
        ("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('{}', '+4915112345678', 'x')", "b1", "x1"),
    ],
)
def test_a_table_is_refused_before_anything_of_it_is_planned(
    session: Connection, statement: str, there: str, absent: str
) -> None:
    """Not even by estimates, which PREPARE and EXPLAIN show without a look at a row."""
    is_read = not statement.startswith(
        ("INSERT INTO shardd.campaigns", "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES")
    )
    for prefix in ("", "EXPLAIN ANALYZE ", *(["EXPLAIN "] if is_read else [])):
        told = []
        for value in (there, absent):
            with pytest.raises(errors.InsufficientPrivilege) as caught:
                session.execute(prefix + statement.format(value))  # type: ignore[call-overload]  # the statements above
            told.append(str(caught.value).replace(value, "…"))
        assert told[0] == told[1]


@pytest.mark.parametrize("column", ["dedupe_key", "order_group", "reference"])
def test_the_plan_of_an_insert_does_not_tell_whether_others_have_a_key(
    session: Connection, tenants: Tenants, beta: str, column: str
) -> None:
    with tenants.session(beta) as other, connect(tenants.dsn) as owner:
        for inserter in (other, owner):
            insert(inserter, device_id="b1", **{column: "there-1"})
    told = [
        explain(
            session,
            f"INSERT INTO shardd.jobs (device_id, recipient, body, {column}) VALUES ('a1', '+4915112345678', 'x', '{value}') "
            "ON CONFLICT DO NOTHING RETURNING id",
            "ANALYZE, BUFFERS OFF, TIMING OFF, SUMMARY OFF",
        )
        for value in ("there-1", "other-1")
    ]
    assert told[0] == told[1]


def test_the_jobs_table_shows_of_a_foreign_job_only_that_its_id_is_queued(session: Connection) -> None:
    """RETURNING id needs a filter that lets some rows pass; nothing but the id can be asked for."""
    session.execute("SELECT FROM shardd.jobs WHERE id = 1001")
    for column in ("reference", "recipient", "device_id", "campaign", "producer", "ctid", "xmin"):
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f"EXPLAIN SELECT FROM shardd.jobs WHERE {column} IS NOT NULL")  # type: ignore[call-overload]


def test_no_sequence_tells_how_far_it_is(session: Connection) -> None:
    for question in (
        "last_value FROM shardd.jobs_id_seq",
        "nextval('shardd.jobs_id_seq')",
        "currval('shardd.opt_out_log_id_seq')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f"SELECT {question}")  # type: ignore[call-overload]  # the questions above
    assert session.execute("SELECT FROM pg_sequences WHERE last_value IS NOT NULL").fetchall() == []


def test_a_free_role_reads_through_indexes_while_others_are_bound(
    session: Connection, tenants: Tenants, free: str
) -> None:
    with tenants.session(free) as unbound:
        unbound.execute("SET enable_seqscan = off")
        for statement, index in (
            ("SELECT * FROM shardd.outcomes WHERE id = 1001", "jobs_pkey"),
            ("SELECT * FROM shardd.outcomes WHERE reference = 'secret-1'", "jobs_reference"),
            ("SELECT * FROM shardd.outcomes ORDER BY id DESC LIMIT 3", "Index Scan Backward using archive_"),
            ("SELECT * FROM shardd.campaigns WHERE id = 'cb'", "campaigns_pkey"),
            ("SELECT address FROM shardd.opt_outs WHERE address = '491701000001'", "opt_outs_pkey"),
        ):
            plan = explain(unbound, statement, "COSTS")
            assert index in plan
            assert "bound" not in plan, "the half that is for bound roles is left out"
