"""What a job waits for by its pace: in `waits_for`, and not in the age of the oldest due job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.support.daemon import Daemon, Producer

INSERT = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, class, run_at) "
    "SELECT 'd1', '+49151' || 1000000 + g, 'x', %s, now() - interval '9 hours' FROM generate_series(1, %s) g"
)


def zone_far_from_midnight() -> tuple[str, timedelta]:
    """A time zone in which today does not end within the test, and how far it is ahead of UTC."""
    return ("UTC", timedelta()) if datetime.now(UTC).hour < 20 else ("Asia/Tokyo", timedelta(hours=9))


async def test_a_job_at_its_daily_limit_names_it_and_when_it_ends_and_is_not_due(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    zone, ahead = zone_far_from_midnight()
    daemon = make_daemon(pacing={"timezone": zone, "classes": {"marketing": {"daily_limit": 1}}})
    producer.add_devices(1)
    producer.execute(INSERT, "marketing", 3)
    await daemon.start()
    local = datetime.now(UTC) + ahead
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0) - ahead
    why = f"its daily limit, until {midnight:%Y-%m-%d %H:%M} UTC"

    def waiting() -> list[str]:
        return [row[0] for row in producer.execute("SELECT waits_for FROM shardd.outcomes WHERE state = 'queued'")]

    await daemon.until(lambda status: waiting() == [why, why])
    # Its device may send jobs of other classes, and does.
    producer.execute(INSERT, "service", 1)
    status = await daemon.until(lambda status: status["totals"]["sent"] == 2)
    status = await daemon.until(lambda now: now["queue"]["as_of"] > status["now"])
    assert (status["queue"]["queued"], status["queue"]["oldest_due_age"]) == (2, None)
    assert status["healthy"]

    # A wait that ends early is not reported any more.
    producer.execute('UPDATE shardd.devices SET classes = \'{"marketing": {"daily_limit": 3}}\'')
    await daemon.until(lambda status: status["totals"]["sent"] == 3)
    await daemon.until(lambda status: waiting() == [why])


async def test_what_an_earlier_run_recorded_ends_with_its_limit(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    producer.add_devices(1)
    producer.execute(
        "INSERT INTO shardd.lane_waits VALUES ('d1', '/marketing', 'its daily limit', now() + interval '1 day')"
    )
    producer.execute(INSERT, "marketing", 1)
    assert "its daily limit, until " in producer.execute("SELECT waits_for FROM shardd.outcomes")[0][0]
    await daemon.start()
    assert await producer.until_finished(daemon, 1) == {"sent": 1}
    await daemon.until(lambda _: producer.execute("SELECT FROM shardd.lane_waits WHERE until > now()") == [])


async def test_jobs_that_a_gap_spaces_out_are_not_called_late(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(pacing={"gap_min": "20s", "gap_max": "40s"})
    producer.add_devices(1)
    producer.execute(INSERT, "marketing", 10)
    await daemon.start()
    status = await daemon.until(lambda status: status["totals"]["sent"] == 1)
    status = await daemon.until(lambda now: now["queue"]["as_of"] > status["now"])
    assert (status["queue"]["queued"], status["queue"]["oldest_due_age"]) == (9, None)
