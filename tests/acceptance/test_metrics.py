"""What an operator reads about a node with work, parked devices, a paused campaign and a receiver that does not answer."""

from __future__ import annotations

import signal
from collections.abc import Callable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.servers import free_port

SENT = 5


async def read_metrics(daemon: Daemon) -> dict[tuple[str, str], float]:
    """Values by name and the value of the first label (empty: none)."""
    async with (
        aiohttp.ClientSession(f"http://{daemon.settings['control']['metrics']}") as session,
        session.get("/metrics") as answer,
    ):
        page = await answer.text()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_status_and_metrics_tell_what_an_operator_needs(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    webhook = {"url": f"http://127.0.0.1:{free_port()}/", "secret": "whsec_" + "A" * 32}
    daemon = make_daemon(control={"metrics": f"127.0.0.1:{free_port()}"}, webhooks={"crm": webhook})
    producer.add_devices(4)
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
    producer.execute("UPDATE shardd.devices SET state = 'banned' WHERE id IN ('d3', 'd4')")
    producer.execute("INSERT INTO shardd.campaigns (id, state) VALUES ('spring', 'paused')")
    await daemon.start()
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
        "SELECT 'd1', '+49151' || 1000000 + g, 'x', CASE WHEN g > %s THEN 'spring' END FROM generate_series(1, %s) g",
        *(SENT, SENT + 3),
    )
    await daemon.until(
        lambda status: (
            status["totals"]["sent"] == SENT
            and status["queue"]["paused_jobs"] == 3
            and status["webhooks"]
            and status["webhooks"][0]["behind"] > 1
        )
    )
    found = await read_metrics(daemon)
    assert found["shardd_ready", ""] == 1
    assert {state: found["shardd_devices", state] for state in ("ready", "paused", "banned", "unpaired")} == {
        "ready": 1,
        "paused": 1,
        "banned": 2,
        "unpaired": 0,
    }
    assert (found["shardd_campaigns", "paused"], found["shardd_campaigns", "running"]) == (1, 0)
    assert found["shardd_paused_campaign_jobs", ""] == 3
    assert found["shardd_webhook_behind_seconds", "crm"] > 1
    assert 0 < found["shardd_lease_margin_seconds", ""] < 60
    assert found["shardd_send_seconds_count", ""] == SENT
    assert found["shardd_settle_seconds_count", ""] == SENT
    assert found["shardd_claim_seconds_count", ""] >= 1
    assert 0 < found["shardd_send_seconds_sum", ""] < 60
    shown = (await Command(daemon.config_file)("status")).out
    assert "1 ready, 3 parked (2 banned, 1 paused), 0 open clients" in shown
    assert "1 paused with 3 jobs" in shown
    assert "2 of 2 shards; without a renewal they lapse in " in shown
    assert "crm: " in shown
    assert " behind" in shown


async def test_a_node_that_drains_is_alive_and_not_ready(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(
        control={"metrics": f"127.0.0.1:{free_port()}"},
        transports={"sandbox": {"latency_min": "8s", "latency_max": "8s"}},
        supervisor={"drain_timeout": "30s"},
    )
    producer.add_devices(1)
    await daemon.start()
    producer.add_jobs(1, 1)
    await daemon.until(lambda status: status["totals"]["in_flight"] == 1)
    async with aiohttp.ClientSession(f"http://{daemon.settings['control']['metrics']}") as session:

        async def ask(page: str) -> tuple[int, str]:
            async with session.get(page) as answer:
                return answer.status, await answer.text()

        assert (await ask("/ready"))[0] == 200
        daemon.kill(signal.SIGTERM)
        await daemon.wait_said("STOPPING=1")
        assert await ask("/ready") == (503, '{"ready": false, "why": "stopping"}')
        assert (await ask("/health"))[0] == 200
    assert await daemon.wait_end() == 0
    assert producer.states() == {"sent": 1}
