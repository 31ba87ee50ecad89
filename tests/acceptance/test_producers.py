"""Two bound producers on a running daemon: each sends its own jobs, and sees nothing of the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fixtures.producers import Tenants, insert, seen
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import connect


async def test_two_bound_producers_share_a_daemon_and_nothing_else(
    make_daemon: Callable[..., Daemon], producer: Producer, tenants: Tenants
) -> None:
    daemon = make_daemon(retention={"finished": "30d", "dedupe_keys": "30d"})
    shardd = Command(daemon.config_file)
    await daemon.start()
    jobs: dict[str, list[int | None]] = {}
    for name, letter in (("alpha", "a"), ("beta", "b")):
        tenants.role(name)
        bound = await shardd(
            "producer", "add", name, f"--device={letter}1", f"--group=g{letter}", f"--campaign=c{letter}"
        )
        assert bound.code == 0
        with tenants.session(name) as session:
            jobs[name] = [
                insert(
                    session, device_id=f"{letter}1", campaign=f"c{letter}", dedupe_key="order-17", order_group="steps"
                ),
                insert(session, device_id=f"{letter}1", order_group="steps", body="second"),
                insert(session, device_group=f"g{letter}"),
            ]
            assert insert(session, device_id=f"{letter}1", dedupe_key="order-17") is None
    states = await producer.until_finished(daemon, 6)
    assert states == {"sent": 6}
    # What was archived keeps its owner, also when retention went over it, and when its months are written anew.
    with connect(tenants.dsn) as owner:
        kept = jobs["alpha"][2]
        owner.execute("SELECT shardd.prepare_archive()")
        owner.execute(
            "CREATE TABLE shardd.archive_2020_01 PARTITION OF shardd.archive FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')"
        )
        owner.execute("ALTER TABLE shardd.archive DISABLE TRIGGER refuse_transition")  # nobody doubts what was sent
        owner.execute("UPDATE shardd.archive SET state = 'in_doubt', settled_at = '2020-01-15Z' WHERE id = %s", [kept])
        owner.execute("UPDATE shardd.archive SET settled_at = '2020-01-15Z' WHERE id = %s", [jobs["beta"][2]])
        owner.execute("ALTER TABLE shardd.archive ENABLE TRIGGER refuse_transition")
        owner.execute("SELECT shardd.forget_month(now())")
        owners = dict(owner.execute("SELECT id, producer FROM shardd.archive").fetchall())
    jobs["beta"].pop()
    assert owners == {job: name for name, theirs in jobs.items() for job in theirs}

    for name, letter in (("alpha", "a"), ("beta", "b")):
        with tenants.session(name) as session:
            assert seen(session) == set(jobs[name])
            assert seen(session, "shardd.visible_campaigns") == {f"c{letter}"}
            for events in ("shardd.events", "shardd.read_events(NULL, 1000)"):
                told: list[tuple[Any, ...]] = session.execute(f"SELECT job_id, kind, data FROM {events}").fetchall()  # type: ignore[call-overload]  # the names above
                assert {job for job, _, _ in told if job} >= set(jobs[name])
                others = set(jobs["beta" if name == "alpha" else "alpha"])
                assert not others & {job for job, _, _ in told}
                assert {data["device_id"] for _, _, data in told} <= {f"{letter}1", f"{letter}2"}
            assert insert(session, device_id=f"{letter}1", dedupe_key="order-17") is None, "the key is still its own"
    # What an operator brings back stays its owner's.
    with connect(tenants.dsn) as owner:
        owner.execute("UPDATE shardd.archive SET state = 'failed' WHERE id = %s", [jobs["beta"][0]])
    assert (await shardd("job", "retry", jobs["beta"][0])).code == 0
    await producer.until_finished(daemon, 5)
    shown = (await shardd("job", "show", jobs["beta"][0], "--json")).json
    assert (shown["state"], shown["producer"], shown["dedupe_key"]) == ("sent", "beta", "order-17")
    assert await daemon.stop() == 0


async def test_a_binding_that_holds_nobody_is_a_problem(make_daemon: Callable[..., Daemon], tenants: Tenants) -> None:
    tenants.bind(tenants.role("alpha"), "a1")
    tenants.bind(tenants.role("beta"), "b1")
    tenants.cluster.drop_role("alpha")
    with tenants.cluster.superuser() as superuser:
        superuser.execute("ALTER ROLE beta BYPASSRLS")
    daemon = make_daemon()
    await daemon.start()
    status = await daemon.until(lambda status: len(status["problems"]) == 2)
    assert status["problems"][0].startswith("producer alpha is bound, but there is no such role: was it renamed?")
    assert status["problems"][1].startswith("producer beta is bound, but no binding holds it")
    assert not status["healthy"]
    assert await daemon.stop() == 0
