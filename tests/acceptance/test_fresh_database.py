"""A database without statistics: a producer inserts a day's jobs before shardd starts for the first time."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.daemon import Daemon, Producer

DEVICES = 2034
JOBS = 10_000


async def test_a_days_work_inserted_before_the_first_start_is_sent(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    producer.add_devices(DEVICES)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, class) "
        "SELECT 'd' || 1 + g %% %s, '+49151' || 1000000 + g, 'x', (ARRAY['marketing', 'service', 'reply'])[1 + g / %s %% 3] "
        "FROM generate_series(0, %s) g",
        *(DEVICES, DEVICES, JOBS - 1),
    )
    lanes = producer.execute("SELECT count(DISTINCT (device_id, lane)) FROM shardd.jobs")[0][0]
    analysed = producer.execute(
        "SELECT coalesce(last_analyze, last_autoanalyze) FROM pg_stat_user_tables WHERE relname = 'jobs'"
    )
    assert (lanes, analysed) == (6102, [(None,)])
    daemon = make_daemon()
    await daemon.start()
    await producer.until_finished(daemon, JOBS)
    assert producer.states() == {"sent": JOBS}
    status = await daemon.status()
    assert (status["healthy"], status["problems"]) == (True, [])


async def test_each_of_very_many_campaigns_on_one_device_has_its_turn(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    (device,) = producer.add_devices(1)
    producer.execute("INSERT INTO shardd.campaigns (id) SELECT 'c' || n FROM generate_series(1, 700) n")
    producer.execute(
        "INSERT INTO shardd.campaigns (id, state) SELECT 'a' || n, 'paused' FROM generate_series(1, 300) n"
    )
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
        "SELECT %s, '+49151' || 1000000 + n, 'x', 'c' || 1 + n %% 700 FROM generate_series(1, 1400) n",
        device,
    )
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
        "SELECT %s, '+49151' || 1000000 + n, 'x', 'a' || n FROM generate_series(1, 300) n",
        device,
    )
    daemon = make_daemon(queue={"scan_every": "300ms"})
    await daemon.start()
    await producer.until_finished(daemon, 1400)
    assert producer.states() == {"sent": 1400, "queued": 300}
    producer.execute("UPDATE shardd.campaigns SET state = 'running' WHERE state = 'paused'")
    await producer.until_finished(daemon, 1700)
    assert producer.states() == {"sent": 1700}
