"""`scripts/bench campaign` measures what it says, at its smallest size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchlib import campaign_bench
from benchlib.campaign_results import CAMPAIGN, SUBJECTS
from benchlib.cluster import Cluster
from benchlib.whatsapp_fleet import FIRST_NUMBER, strangers_of
from rich.console import Console

from tests.fixtures.postgres import Cluster as Postgres
from tests.whatsapp_server.launch import ServerProcess


def test_each_message_of_a_campaign_has_a_recipient_of_its_own() -> None:
    recipients = [
        recipient for device in range(3) for recipient in strangers_of(f"{FIRST_NUMBER + device}:1@s.whatsapp.net", 4)
    ]
    assert len(set(recipients)) == 12


async def test_a_campaign_is_measured_beside_plain_neonize(
    fleet_cluster: tuple[Postgres, str],
    whatsapp: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(campaign_bench.__file__).parent.parent))  # as scripts/bench does
    size = replace(campaign_bench.QUICK, devices=3, messages=2, gap=(0.1, 0.2), processes=1)
    cluster = Cluster(tmp_path_factory.mktemp("bench"), fleet_cluster[0].server)
    results = await campaign_bench.measure(cluster, whatsapp, size, pgbouncer=False, quick=True, say=lambda _: None)
    for who in SUBJECTS:
        (figures,) = results.rounds[who]
        assert sum(figures.sent_by_second) == 6
        assert figures.login_per_device >= 1
        assert 0 < figures.connected.p50 <= figures.connected.longest
        assert figures.worker_cpu > 0
    (cold,) = results.cold
    assert (cold.shardd.devices, cold.shardd.doubled) == (3, 0)
    console = Console(record=True, width=200)
    results.show(console)
    shown = console.export_text()
    assert all(title.format(beginning=0.225) in shown for _, title, _, _ in CAMPAIGN)
    assert all(goal.text() in shown for goal in results.goals())
    assert json.loads(json.dumps(results.plain()))["campaign"]["devices"] == 3
