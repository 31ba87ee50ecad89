"""What a node does while it cannot renew its leases: what it has handed over may end, and nothing else begins."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from shardd.queue.migrate import migrate
from tests.support.daemon import Daemon, Producer
from tests.support.servers import Server

DRAINING = "lease not renewed: draining the worker"


async def test_sends_that_outlast_the_trust_in_a_lease_end_in_time_and_are_not_in_doubt(
    tcp_server: Server, make_daemon: Callable[..., Daemon]
) -> None:
    """Forty of forty were in doubt: their workers were killed in the moment in which they began to drain."""
    await migrate(tcp_server.dsn())
    daemon = make_daemon(
        # Sends that take longer than a lease is trusted after the last renewal, and end before the workers must.
        lease={"ttl": "20s", "renew_every": "1s", "margin": "10s"},
        transports={"sandbox": {"latency_min": "11500ms", "latency_max": "11600ms"}},
        database={"dsn": tcp_server.dsn(), "connect_timeout": "4s", "statement_timeout": "4s"},
    )
    producer = Producer(tcp_server.dsn())
    producer.add_devices(40)
    await daemon.start()
    producer.add_jobs(40, 40)
    await daemon.until(lambda s: s["totals"]["in_flight"] == 40)
    await asyncio.to_thread(tcp_server.stop, signal.SIGQUIT)
    await daemon.until(lambda _: DRAINING in daemon.log_file.read_text())
    await daemon.until(lambda s: all(shard["pid"] is None for shard in s["shards"]))
    await asyncio.to_thread(tcp_server.start)
    assert await producer.until_finished(daemon, 40) == {"sent": 40}
    assert len(daemon.messages()) == 40
