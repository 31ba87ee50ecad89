"""Webhooks from a real outbox to real receivers that misbehave in every way."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from shardd.config import WebhookConfig
from shardd.queue.database import Database
from shardd.queue.leases import Leases
from shardd.queue.webhooks import FAILURES_KEPT, Event, Hold, Progress, SetAside, WebhookAdmin, WebhookRow, WebhookStore
from shardd.supervisor.outbox import endpoint
from shardd.supervisor.outbox.webhooks import Webhooks
from shardd.supervisor.outbox.window import REFUSALS
from shardd.supervisor.services import Steps
from shardd.supervisor.status import WebhookStatus
from shardd.tasks import end_tasks
from tests.support.queue_rows import add_devices, connect, identity, memory_of
from tests.support.webhook_receiver import HANG, PATIENCE, RESET, SECRET, Answer, Posted, Receiver

OTHER_SECRET = f"whsec_{base64.b64encode(b'another key of 32 bytes, for now').decode()}"


class Node:
    """The webhooks of one supervisor."""

    def __init__(self, database: Database, name: str = "node-a", ttl: float = 30.0) -> None:
        self.database, self.name, self.ttl = database, name, ttl
        self.incarnation = uuid4()
        self.store = WebhookStore(database, incarnation=self.incarnation, ttl=ttl)
        self.webhooks = Webhooks(database, self.store, {}, Steps().add("listening"))
        self.task: asyncio.Task[None] | None = None

    async def start(self, **configs: WebhookConfig) -> None:
        memory = memory_of(self.database, self.name)
        leases = Leases(
            self.database, node=identity(self.name), incarnation=self.incarnation, ttl=self.ttl, memory=memory
        )
        await leases.register(8, "test")
        self.webhooks.configure(configs)
        self.task = asyncio.create_task(self.webhooks.run())
        await self.until(lambda rows: {row.name for row in rows if row.node == self.name} >= configs.keys())

    async def until(self, true: Callable[[list[WebhookRow]], bool]) -> dict[str, WebhookRow]:
        """Until the rows fulfil a condition."""
        deadline = time.monotonic() + PATIENCE
        while True:
            rows = await WebhookAdmin(self.database).all()
            if true(rows):
                return {row.name: row for row in rows}
            assert time.monotonic() < deadline, f"never came true: {rows}"
            await asyncio.sleep(0.02)

    async def crash(self) -> None:
        """End without a word to the database."""
        assert self.task is not None
        await end_tasks([self.task])
        for each in self.webhooks._endpoints.values():
            each._hold = None  # so that it closes its connections and no more
            await each.stop()

    async def stop(self) -> None:
        if self.task is not None:
            await end_tasks([self.task])
            await self.webhooks.close()


def hook(receiver: Receiver, **options: Any) -> WebhookConfig:
    options = {"backoff": {"first": "20ms", "cap": "100ms"}, "secret": SECRET, "timeout": "5s", **options}
    return WebhookConfig(url=receiver.url, **options)


def tell(dsn: str, first: int, last: int, kind: str = "job.sent") -> None:
    """Events as the triggers would write them."""
    with connect(dsn) as connection, connection.transaction():
        connection.execute(
            "INSERT INTO shardd.outbox (kind, job_id, device_id, state) "
            "SELECT %s, g, 'a', 'sent' FROM generate_series(%s::bigint, %s) g",
            [kind, first, last],
        )
        connection.execute("SELECT shardd.announce_events()")


@pytest.fixture
async def node(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(endpoint, "SAVE_EVERY", 0.05)
    node = Node(database)
    yield node
    await node.stop()


def jobs(posts: list[Posted]) -> list[int | None]:
    return [post.job for post in posts]


async def test_an_event_arrives_signed_with_its_id_and_all_its_data(node: Node, dsn: str) -> None:
    add_devices(dsn, "a")  # before the webhook was configured: not told
    async with Receiver() as receiver:
        await node.start(crm=hook(receiver))
        with connect(dsn) as connection:
            connection.execute("UPDATE shardd.devices SET state = 'banned', reason = 'spam' WHERE id = 'a'")
            number, at = connection.execute("SELECT max(event_id), max(at) FROM shardd.events").fetchall()[0]
        (post,) = await receiver.until_taken(1)
        assert post.number == number
        assert post.headers["Content-Type"] == "application/json"
        body = post.json
        assert body.pop("timestamp") == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert body == {
            "type": "device.state",
            "data": {
                "device_id": "a", "transport": "sandbox", "label": None, "from": "ready", "to": "banned",
                "state": "banned", "reason": "spam", "until": None,
            },
        }  # fmt: skip
        rows = await node.until(lambda rows: rows[0].delivered == 1)
        assert (rows["crm"].behind, rows["crm"].error, rows["crm"].node) == (0, None, "node-a")


async def test_only_the_kinds_that_are_wanted_are_posted_and_the_cursor_passes_the_others(node: Node, dsn: str) -> None:
    async with Receiver() as receiver:
        await node.start(crm=hook(receiver, kinds="job.failed, device.*"))
        tell(dsn, 1, 500)
        tell(dsn, 501, 502, "job.failed")
        tell(dsn, 503, 900)
        await receiver.until_taken(2)
        await node.stop()
        rows = await node.until(lambda _: True)
        assert (sorted(jobs(receiver.taken)), rows["crm"].behind, rows["crm"].node) == ([501, 502], 0, None)  # type: ignore[type-var]  # they have jobs


async def test_a_secret_that_is_being_replaced_signs_beside_the_new_one(node: Node, dsn: str) -> None:
    async with Receiver(secret=SECRET) as old, Receiver(secret=OTHER_SECRET) as new:
        both = {"secret": OTHER_SECRET, "previous_secret": SECRET}
        await node.start(old=hook(old, **both), new=hook(new, **both))
        tell(dsn, 1, 1)
        for receiver in (old, new):
            (post,) = await receiver.until_taken(1)
            assert len(post.headers["webhook-signature"].split()) == 2


async def test_events_of_one_job_keep_their_order_and_no_more_go_at_once_than_allowed(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: Answer(200, {}, delay=0.002)) as receiver:
        await node.start(crm=hook(receiver, concurrency="3"))
        for kind in ("job.sent", "job.delivered", "job.read"):
            tell(dsn, 1, 40, kind)
        await receiver.until_taken(120)
        for job in range(1, 41):
            assert [post.kind for post in receiver.taken if post.job == job] == [
                "job.sent",
                "job.delivered",
                "job.read",
            ]
        assert receiver.most_at_once == 3
        assert max(Counter(post.number for post in receiver.posted).values()) == 1


async def test_with_one_at_a_time_everything_is_in_order(node: Node, dsn: str) -> None:
    async with Receiver() as receiver:
        await node.start(crm=hook(receiver, concurrency="1"))
        tell(dsn, 1, 300)
        assert jobs(await receiver.until_taken(300)) == list(range(1, 301))


@pytest.mark.parametrize("fault", [500, 429, RESET, 301, 404], ids=str)
async def test_every_event_arrives_under_one_id_however_the_receiver_fails_first(
    node: Node, dsn: str, fault: int | str
) -> None:
    def manner(post: Posted) -> int | str | Answer:
        if post.earlier:
            return 200
        return Answer(fault, {"Location": "/elsewhere"}) if isinstance(fault, int) else fault

    async with Receiver(manner) as receiver:
        await node.start(crm=hook(receiver))
        tell(dsn, 1, 20)
        await receiver.until_taken(20)
        assert Counter(jobs(receiver.taken)) == dict.fromkeys(range(1, 21), 1)
        assert all(count == 2 for count in Counter(post.number for post in receiver.posted).values())
        assert {post.headers["Host"] for post in receiver.posted} == {f"127.0.0.1:{receiver.port}"}
        rows = await node.until(lambda rows: rows[0].delivered == 20)
        assert (rows["crm"].failures, rows["crm"].error, rows["crm"].set_aside) == (0, None, 0)


async def test_a_receiver_that_hangs_is_cut_off_and_delays_no_other(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: HANG) as slow, Receiver() as quick:
        await node.start(slow=hook(slow, timeout="300ms"), quick=hook(quick))
        tell(dsn, 1, 200)
        await quick.until_taken(200)
        assert slow.taken == []
        rows = await node.until(lambda rows: {row.name: row.failures for row in rows}["slow"] >= 2)
        assert (rows["slow"].error, rows["slow"].behind) == ("no answer within 0.3 s", 200)
        assert rows["quick"].failures == 0
        slow.manner = lambda _: 204
        await slow.until_taken(200)


async def test_an_unreachable_receiver_gets_everything_when_it_is_back(node: Node, dsn: str) -> None:
    receiver = Receiver()
    await receiver.start()
    await node.start(crm=hook(receiver))
    await receiver.stop()
    tell(dsn, 1, 50)
    rows = await node.until(lambda rows: rows[0].failures >= 3)
    assert rows["crm"].error == "cannot be reached: Connection refused"
    assert rows["crm"].failing_since is not None
    (trouble,) = node.webhooks.notes()
    assert re.match(r"webhook crm has failed for \d+ s: cannot be reached", trouble)
    (status,) = node.webhooks.statuses()
    assert (status.name, status.failing, status.disabled) == ("crm", True, False)
    assert status.behind is not None
    assert status.behind >= 0
    assert "geheim" not in trouble
    async with receiver:
        await receiver.until_taken(50)
        rows = await node.until(lambda rows: rows[0].delivered == 50)
        assert (rows["crm"].failing_since, rows["crm"].next_at, node.webhooks.notes()) == (None, None, [])
        assert node.webhooks.statuses() == [WebhookStatus(name="crm", failing=False, disabled=False, behind=0.0)]


async def test_a_retry_after_is_obeyed(node: Node, dsn: str) -> None:
    times: list[float] = []

    def manner(post: Posted) -> int | Answer:
        times.append(time.monotonic())
        return Answer(429, {"Retry-After": "1"}) if len(times) == 1 else 200

    async with Receiver(manner) as receiver:
        await node.start(crm=hook(receiver, concurrency="1"))
        tell(dsn, 1, 3)
        await receiver.until_taken(3)
        assert times[1] - times[0] >= 0.99, "asked again before its time"


async def test_a_refused_event_is_set_aside_and_blocks_no_other(node: Node, dsn: str) -> None:
    poison = {3, 7}

    async with Receiver(lambda post: 422 if post.job in poison else 200) as receiver:
        await node.start(crm=hook(receiver))
        tell(dsn, 1, 10)
        await receiver.until_taken(8)
        tell(dsn, 11, 30)
        await receiver.until_taken(28)
        rows = await node.until(lambda rows: rows[0].dropped == 2 and rows[0].delivered == 28)
        assert (rows["crm"].set_aside, rows["crm"].behind) == (2, 0)
        tries = Counter(post.job for post in receiver.posted if post.job in poison)
        assert all(count >= REFUSALS for count in tries.values())
        admin = WebhookAdmin(node.database)
        seen = len(receiver.posted)
        failures = await admin.failures("crm", 10)
        assert [(row.kind, row.error, row.tries) for row in failures] == [
            ("job.sent", "HTTP 422", tries[7]),
            ("job.sent", "HTTP 422", tries[3]),
        ]

        # An operator mended the receiver for one of them.
        poison.remove(3)
        assert await admin.ask_retry("crm") == 2
        await receiver.until_taken(29)
        await receiver.until(lambda r: any(post.job == 7 for post in r.posted[seen:]))
        rows = await node.until(lambda rows: rows[0].delivered == 29 and rows[0].set_aside == 1)
        (left,) = await admin.failures("crm", 10)
        assert (left.again, left.tries) == (False, tries[7] + 1)
        assert {post.body for post in receiver.posted if post.job == 3} == {receiver.taken[-1].body}


async def test_a_receiver_that_refuses_everything_loses_nothing(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: 401) as receiver:
        await node.start(crm=hook(receiver))
        tell(dsn, 1, 8)
        await receiver.until(lambda r: len(r.posted) >= 8 * REFUSALS)
        receiver.manner = lambda _: 200
        await receiver.until_taken(8)
        rows = await node.until(lambda rows: rows[0].delivered == 8)
        assert (rows["crm"].dropped, rows["crm"].set_aside) == (0, 0)


async def test_events_that_are_too_old_are_set_aside(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: 500) as receiver:
        await node.start(crm=hook(receiver, give_up="1s"))
        tell(dsn, 1, 30)
        rows = await node.until(lambda rows: rows[0].dropped == 30)
        assert (rows["crm"].set_aside, rows["crm"].behind) == (30, 0)
        tell(dsn, 31, 31)
        receiver.manner = lambda _: 200
        await receiver.until(lambda r: 31 in jobs(r.taken))


async def test_410_disables_until_the_url_changes_or_an_operator_retries(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: 410) as receiver:
        await node.start(crm=hook(receiver, concurrency="1"))
        tell(dsn, 1, 5)
        rows = await node.until(lambda rows: rows[0].disabled_at is not None)
        assert len(receiver.posted) == 1
        (trouble,) = node.webhooks.notes()
        assert trouble == (
            "webhook crm is disabled: HTTP 410: it wants no more events; once its receiver wants events again: "
            "shardd webhook retry crm"
        )
        # Neither a restart nor a new event wakes it.
        receiver.manner = lambda _: 200
        await node.stop()
        again = Node(node.database)
        await again.start(crm=hook(receiver, concurrency="1"))
        tell(dsn, 6, 6)
        await again.until(lambda _: again.webhooks.notes() == [trouble])
        assert len(receiver.posted) == 1
        assert await WebhookAdmin(node.database).ask_retry("crm") == 0
        await receiver.until_taken(6)

        receiver.manner = lambda _: 410
        tell(dsn, 7, 7)
        await again.until(lambda rows: rows[0].disabled_at is not None)
        receiver.manner = lambda _: 200
        again.webhooks.configure({"crm": hook(receiver, kinds="job.*")})
        await receiver.until_taken(7)
        rows = await again.until(lambda rows: rows[0].delivered == 7)
        assert (rows["crm"].disabled_at, rows["crm"].kinds) == (None, ["job.*"])
        await again.stop()


async def test_a_crash_repeats_what_was_not_saved_under_the_same_ids(
    node: Node, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "SAVE_EVERY", 3600.0)
    async with Receiver() as receiver:
        await node.start(crm=hook(receiver))
        tell(dsn, 1, 30)
        await receiver.until_taken(30)
        await node.crash()
        # The next incarnation of the node need not wait until the hold runs out.
        again = Node(node.database)
        await again.start(crm=hook(receiver))
        await receiver.until(lambda r: len(r.taken) >= 60)
        await again.stop()
        counts = Counter(post.number for post in receiver.posted)
        assert len(counts) == 30
        assert set(counts.values()) == {2}
        bodies = {(post.number, post.body) for post in receiver.posted}
        assert len(bodies) == 30
        last = Node(node.database)
        await last.start(crm=hook(receiver))
        tell(dsn, 31, 31)
        await receiver.until_taken(31)
        assert len(receiver.posted) == 61, "what was noted is not repeated"
        await last.stop()


async def test_one_node_delivers_and_another_takes_over_when_it_is_gone(node: Node, dsn: str) -> None:
    async with Receiver() as receiver:
        short = Node(node.database, "node-a", ttl=1.0)
        other = Node(node.database, "node-b", ttl=1.0)
        await short.start(crm=hook(receiver))
        other.webhooks.configure({"crm": hook(receiver)})
        await Leases(node.database, node=identity("node-b"), incarnation=other.incarnation, ttl=1.0).register(8, "test")
        other.task = asyncio.create_task(other.webhooks.run())
        tell(dsn, 1, 20)
        await receiver.until_taken(20)
        assert max(Counter(post.number for post in receiver.posted).values()) == 1
        await short.until(lambda rows: rows[0].delivered == 20)
        await short.crash()
        tell(dsn, 21, 40)
        await receiver.until_taken(40)
        rows = await other.until(lambda rows: rows[0].delivered == 40)
        assert rows["crm"].node == "node-b"
        assert max(Counter(post.number for post in receiver.posted).values()) == 1
        await other.stop()


async def test_who_lost_its_hold_saves_nothing(node: Node, database: Database) -> None:
    await node.start()
    hold = await node.store.take("crm", ["*"], "x")
    assert hold is not None
    newer = await node.store.take("crm", ["*"], "x")
    assert isinstance(newer, Hold)
    assert newer.epoch > hold.epoch
    far = Progress(cursor=(2**62, 9), delivered=1, dropped=0, failures=0, error=None, wait=None, disabled=False)
    assert await node.store.save("crm", hold.epoch, far) is None
    assert await node.store.save("crm", newer.epoch, far) == (0, 0)
    # The answer of a save may be lost.
    assert await node.store.save("crm", newer.epoch, far) == (0, 0)
    (row,) = await WebhookAdmin(database).all()
    assert row.delivered == 1
    stranger = WebhookStore(database, incarnation=uuid4(), ttl=30.0)
    assert await stranger.take("crm", ["*"], "x") is None, "an incarnation that is not registered"


async def test_what_is_purged_before_it_is_delivered_is_counted(node: Node, dsn: str) -> None:
    async with Receiver(lambda _: 500) as receiver:
        await node.start(crm=hook(receiver))
        tell(dsn, 1, 5)
        await node.until(lambda rows: rows[0].failures >= 2)
        with connect(dsn) as connection:
            assert connection.execute("SELECT shardd.purge_events('0', 1000, 100)").fetchone() == (5,)
        rows = await node.until(lambda rows: rows[0].missed == 5)
        assert rows["crm"].behind == 0
        receiver.manner = lambda _: 200
        tell(dsn, 6, 6)
        await receiver.until(lambda r: 6 in jobs(r.taken))
        told = "webhook crm did not deliver 5 events before they were deleted (events.keep, events.most)"
        await node.until(lambda rows: rows[0].failures == 0 and node.webhooks.notes() == [told])


async def test_set_aside_events_are_bounded(node: Node, database: Database) -> None:
    await node.start()
    assert await node.store.take("crm", ["*"], "x") is not None
    when = datetime.now(UTC)
    for first in range(0, FAILURES_KEPT + 200, 300):
        aside = [
            SetAside(Event(n, f"evt_{n}_a", when, "job.sent", "", "{}"), 1, "HTTP 400")
            for n in range(first, first + 300)
        ]
        await node.store.set_aside("crm", aside)
    (row,) = await WebhookAdmin(database).all(10)
    assert row.set_aside == FAILURES_KEPT
    assert [failure.event_id for failure in await WebhookAdmin(database).failures("crm", 2)] == [
        "evt_1199_a",
        "evt_1198_a",
    ]


async def test_a_webhook_that_leaves_the_config_gets_nothing_more_and_is_forgotten_later(node: Node, dsn: str) -> None:
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(Receiver()) for _ in range(2)]
        await node.start(one=hook(one), two=hook(two))
        node.webhooks.configure({"one": hook(one)})
        rows = await node.until(lambda rows: {row.name: row.node for row in rows}["two"] is None)
        tell(dsn, 1, 3)
        await one.until_taken(3)
        assert two.posted == []
        admin = WebhookAdmin(node.database)
        assert await admin.forget(3600.0) == []
        assert await admin.forget(0.0) == ["two"]
        assert rows["two"].delivered == 0
        assert json.dumps([row.name for row in await admin.all(1)]) == '["one"]'
