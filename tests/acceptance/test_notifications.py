"""Every login may notify, with any number of any texts: the only effect is an earlier poll."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.fixtures.postgres import Cluster
from tests.support.daemon import Daemon, Producer

CHANNELS = ("shardd_jobs", "shardd_devices", "shardd_campaigns", "shardd_work", "shardd_events", "shardd_webhooks")
FIRST = -(2**63)


@pytest.fixture
def stranger(postgres: Cluster, dbname: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of a login that may connect and has no other right."""
    with postgres.superuser(dbname) as connection:
        login = sql.Identifier(f"stranger_of_{dbname}")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(login))
        connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(login))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM shardd.jobs")
        yield connection
        connection.execute("RESET SESSION AUTHORIZATION")
        connection.execute(sql.SQL("DROP ROLE {}").format(login))


@contextmanager
def flood(stranger: psycopg.Connection[Any], payload: Callable[[int], str]) -> Iterator[list[int]]:
    """Notifications on every channel, as fast as they go; yields how many have been sent."""
    sent, over = [0], threading.Event()

    def work() -> None:
        cursor = stranger.cursor()
        while not over.is_set():
            texts = [payload(sent[0] + number) for number in range(200)]
            cursor.execute(
                "SELECT pg_notify(c, t) FROM unnest(%s::text[]) t, unnest(%s::text[]) c", [texts, list(CHANNELS)]
            )
            sent[0] += len(texts) * len(CHANNELS)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def looks(producer: Producer) -> int:
    """How often the tables of devices and campaigns have been read."""
    return int(
        producer.execute(
            "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables WHERE relname IN ('devices', 'campaigns')"
        )[0][0]
    )


@pytest.mark.parametrize(
    "payload",
    [
        '["me","a\\u0000b",0,0]',
        '["me","/marketing",0,0]',
        "",
        "x" * 7999,
        '["me", {}]',
        f'["me","a/b",{FIRST},{FIRST}]',
    ],
)
async def test_no_text_of_a_notification_keeps_anybody_from_sending(
    make_daemon: Callable[..., Daemon], producer: Producer, stranger: psycopg.Connection[Any], payload: str
) -> None:
    daemon = make_daemon()
    (device,) = producer.add_devices(1, prefix="me")
    await daemon.start()
    for channel in CHANNELS:
        stranger.execute("SELECT pg_notify(%s, %s)", [channel, payload.replace('"me"', f'"{device}"')])
    producer.add_jobs(3, 1, prefix="me")
    assert await producer.until_finished(daemon, 3) == {"sent": 3}
    status = await daemon.status()
    assert (status["healthy"], status["problems"], status["notes"]) == (True, [], [])


async def test_a_flood_of_notifications_starves_nobody_and_causes_few_looks(
    make_daemon: Callable[..., Daemon], producer: Producer, stranger: psycopg.Connection[Any]
) -> None:
    daemon = make_daemon(webhooks={"shop": {"url": "http://127.0.0.1:9/", "secret": "whsec_" + "c2VjcmV0" * 4}})
    devices = producer.add_devices(20)
    producer.execute("INSERT INTO shardd.campaigns (id) SELECT 'c' || n FROM generate_series(1, 20) n")
    await daemon.start()

    def payload(number: int) -> str:
        made_up = [devices[number % 20], f"x{number}/marketing", FIRST, number]
        real = [devices[number % 20], f"c{1 + number % 20}/reply", 1_700_000_000_000_000, number]
        return json.dumps(made_up if number % 2 else real)

    before = looks(producer)
    with flood(stranger, payload) as sent:
        while sent[0] < 20_000:  # noqa: ASYNC110  # the flood tells nobody
            await asyncio.sleep(0.01)
        for round_ in range(1, 4):
            producer.add_jobs(60, 20)
            await producer.until_finished(daemon, 60 * round_)
        await daemon.until(lambda s: any("arrive faster than" in note for note in s["notes"]))
    assert producer.states() == {"sent": 180}
    # Each look is for many notifications.
    assert looks(producer) - before < sent[0] / 20
    status = await daemon.status()
    assert (status["healthy"], status["problems"]) == (True, [])
