"""Uncommitted inserts of a producer do not block anything of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures.producers import Connection, Tenants, insert
from tests.support.daemon import Daemon, Producer


def occupy(connection: Connection, group: str, campaign: str) -> None:
    """Insert, and use again, whatever a row of a producer can lock; and read what it may read."""
    connection.execute("BEGIN")
    insert(connection, device_id="a1", dedupe_key="used", order_group="line")
    insert(connection, device_id="a1", dedupe_key="new", order_group="other", recipient="+6281200000001")
    insert(connection, device_group=group, campaign=campaign, recipient="+6281200000002")
    connection.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281200000003')")
    connection.execute("SELECT count(*) FROM shardd.outcomes")
    connection.execute("SELECT count(*) FROM shardd.events")


@pytest.mark.parametrize("bound", [False, True])
async def test_everybody_elses_jobs_go_their_whole_way(
    *,
    make_daemon: Callable[..., Daemon],
    producer: Producer,
    tenants: Tenants,
    alpha: str,
    beta: str,
    free: str,
    bound: bool,
) -> None:
    """Jobs of devices, groups, order groups and campaigns are claimed, sent and settled, expire and are cancelled."""
    name = alpha if bound else free
    with tenants.session(name) as first:
        insert(first, device_id="a1", dedupe_key="used", order_group="line", body="first")
    daemon = make_daemon(database={"statement_timeout": "2s"})
    await daemon.start()
    await producer.until_finished(daemon, 1)
    with tenants.session(name) as blocker, tenants.session(beta) as other:
        occupy(blocker, "ga", "ca")
        wanted: list[Any] = [
            insert(other, device_id="b1", body="plain", recipient="+6281200000001"),
            insert(other, device_id="b1", body="campaign", campaign="cb", recipient="+6281200000002"),
            *(insert(other, device_id="b1", body=f"{n}", order_group="line", dedupe_key=f"used{n}") for n in range(3)),
        ]
        producer.execute(
            "INSERT INTO shardd.jobs (device_group, recipient, body, campaign) VALUES ('ga', '+6281200000002', 'group', 'ca')"
        )
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) VALUES ('a1', '+6281200000004', 'due', now() + '1 s')"
        )
        ((late,),) = producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body, run_at, expires_at) "
            "VALUES ('a1', '+6281200000005', 'late', now() + '1 h', now() + '2 h') RETURNING id"
        )
        producer.execute("UPDATE shardd.jobs SET expires_at = now() WHERE id = %s", late)
        await daemon.until(
            lambda _: producer.states()["sent"] == 1 + len(wanted) + 2 and producer.states()["expired"] == 1
        )
        status = await daemon.status()
        assert not [kind for kind in ("step", "claim", "refused", "device") if status["problem_kinds"][kind]], status[
            "problems"
        ]
        blocker.execute("ROLLBACK")
    assert await daemon.stop() == 0
