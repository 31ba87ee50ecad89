"""A real Prometheus reads the metrics of a real daemon: the alerts see them, and every query of the dashboard is answered."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon, Producer
from tests.support.prometheus import ALERTS, BOARD, Prometheus, rules, until
from tests.support.servers import free_port

SENT = 20
CRASHES = 2
BOARD_READ: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
QUERIES = [(panel["title"], target["expr"]) for panel in BOARD_READ["panels"] for target in panel.get("targets", [])]
VARIABLES = {"$__rate_interval": "5m", "$job": "shardd.*", "$node": ".*", "$shard": ".*"}
"""What Grafana puts in their place."""
METRIC = re.compile(r"\bshardd_\w+")
MakePrometheus = Callable[..., Awaitable[Prometheus]]


@pytest.fixture
async def make_prometheus(tmp_path: Path) -> AsyncIterator[MakePrometheus]:
    """Starts one that scrapes these daemons; it is stopped after the test."""
    made: list[Prometheus] = []

    async def make(*daemons: Daemon) -> Prometheus:
        targets = [daemon.settings["control"]["metrics"] for daemon in daemons]
        scrape = {"job_name": "shardd", "static_configs": [{"targets": targets}]}
        made.append(Prometheus(tmp_path, {"rule_files": [str(ALERTS)], "scrape_configs": [scrape]}))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.stop()


def on_a_port() -> dict[str, Any]:
    return {"metrics": f"127.0.0.1:{free_port()}"}


def filled_in(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def active(alerts: Mapping[str, list[Any]]) -> set[str]:
    """Those that fire or are about to."""
    return {name for name, found in alerts.items() if found}


async def read_page(daemon: Daemon) -> list[Any]:
    """The families of its metrics page."""
    async with (
        aiohttp.ClientSession(f"http://{daemon.settings['control']['metrics']}") as session,
        session.get("/metrics") as answer,
    ):
        return list(text_string_to_metric_families(await answer.text()))


async def test_a_healthy_idle_node_raises_no_alert_and_one_that_stops_does(
    make_daemon: Callable[..., Daemon], make_prometheus: MakePrometheus, producer: Producer
) -> None:
    daemon = make_daemon(control=on_a_port())
    producer.add_devices(20)
    await daemon.start()
    await daemon.until(lambda status: status["queue"] is not None and status["totals"]["devices"] == 20)
    prometheus = await make_prometheus(daemon)
    await until(lambda: prometheus.query("count_over_time(shardd_ready[1m]) >= 3"), bool)
    (target,) = (await prometheus.get("targets"))["activeTargets"]
    assert target["labels"] == {"instance": daemon.settings["control"]["metrics"], "job": "shardd"}
    alerts = await until(prometheus.alerts, lambda found: not active(found))
    assert set(alerts) == {rule["alert"] for rule in rules()}

    assert await daemon.stop() == 0
    alerts = await until(prometheus.alerts, lambda found: active(found) == {"SharddDown"})
    (down,) = alerts["SharddDown"]
    assert down["state"] == "pending", "it waits for two minutes"
    assert down["annotations"]["summary"] == f"{daemon.settings['control']['metrics']} does not answer"


async def test_a_bad_day(
    make_daemon: Callable[..., Daemon], make_prometheus: MakePrometheus, producer: Producer
) -> None:
    webhook = {"url": f"http://127.0.0.1:{free_port()}/", "secret": "whsec_" + "A" * 32}
    breaker = {"crashes": CRASHES, "within": "1m", "probe_every": "10m"}
    daemon = make_daemon(control=on_a_port(), webhooks={"crm": webhook}, supervisor={"breaker": breaker})
    producer.add_devices(10)
    producer.execute("UPDATE shardd.devices SET state = 'banned' WHERE id = 'd10'")
    await daemon.start()
    prometheus = await make_prometheus(daemon)
    # Rates need a sample before and one after.
    await until(lambda: prometheus.query("shardd_shard_sent_total == 0"), lambda found: len(found) == 2)
    producer.add_jobs(SENT, 4)
    await producer.until_finished(daemon, SENT)
    for crashes in range(1, CRASHES + 1):
        status = await daemon.until(lambda status: status["shards"][0]["state"] == "running")
        os.kill(status["shards"][0]["pid"], signal.SIGKILL)
        await daemon.until(lambda status, n=crashes: status["shards"][0]["restarts"] == n)  # type: ignore[misc]
    await daemon.until(lambda status: status["shards"][0]["state"] == "broken" and status["webhooks"])

    # One fault, one alert.
    expected = {"SharddShardBroken", "SharddDevicesParked"}
    alerts = await until(
        prometheus.alerts, lambda found: expected <= active(found) and "SharddShardWithoutWorker" not in active(found)
    )
    (broken,), (parked,) = alerts["SharddShardBroken"], alerts["SharddDevicesParked"]
    assert broken["state"] == "firing"
    assert "`shardd restart 0` does it at once" in broken["annotations"]["description"]
    assert parked["state"] == "pending", "it waits for half an hour"
    assert parked["annotations"]["summary"] == "10% of the devices of shardd cannot send"

    for title, expr in QUERIES:
        found = await until(lambda expr=expr: prometheus.query(filled_in(expr)), bool)  # type: ignore[misc]
        assert not all(map(math.isnan, found.values())), (title, expr)
    for variable in BOARD_READ["templating"]["list"][1:]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        assert asked is not None
        assert variable["query"]["query"] == variable["definition"]
        assert await prometheus.get(f"label/{asked[2]}/values", **{"match[]": filled_in(asked[1])}), variable["name"]
    assert (await prometheus.get("label/job/values", **{"match[]": "up"})) == ["shardd"]


async def test_alerts_and_dashboard_use_what_the_page_has_and_the_dashboard_all_of_it(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    webhook = {"url": f"http://127.0.0.1:{free_port()}/", "secret": "whsec_" + "A" * 32}
    daemon = make_daemon(control=on_a_port(), webhooks={"crm": webhook})
    await daemon.start()
    await daemon.until(lambda status: status["queue"] is not None and status["webhooks"])
    await daemon.until(lambda status: all(shard["heartbeat_age"] is not None for shard in status["shards"]))
    page = await read_page(daemon)
    samples = {sample.name for family in page for sample in family.samples}
    in_alerts = {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    on_board = {name for _, expr in QUERIES for name in METRIC.findall(expr)}
    on_board |= {
        name for one in BOARD_READ["templating"]["list"] for name in METRIC.findall(str(one.get("definition")))
    }
    assert len(in_alerts) > 15
    assert in_alerts <= samples
    assert on_board <= samples
    for family in page:
        names = {sample.name for sample in family.samples if not sample.name.endswith("_created")}
        assert not names or names & on_board, f"{family.name} is not on the dashboard"
