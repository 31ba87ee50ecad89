"""`scripts/bench campaign`: a campaign over thousands of WhatsApp devices, and plain neonize that sends the same.

Two phases, each with shardd and with plain neonize in every round: the campaign (`benchlib.campaign_round` says what is compared
with what), and `cold` (`benchlib.sweep`), in which every device, none of them connected, sends one message as soon as possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from benchlib import pooler
from benchlib.campaign_results import CampaignResults, Cold
from benchlib.campaign_round import Campaign, CampaignFigures, plain_campaign, shardd_campaign
from benchlib.cluster import Cluster
from benchlib.sweep import SHARDS, plain_sweep, sweep
from benchlib.whatsapp_bench import SMALL_FLEET, Say, bed
from tests.whatsapp_server.launch import ServerProcess


@dataclass(frozen=True)
class Size:
    """The size of the measurement."""

    devices: int
    messages: int
    """Of each device."""
    gap: tuple[float, float]
    """Seconds between two messages of a device: the least, the most."""
    rounds: int
    processes: int
    """Workers, and as many of plain neonize."""


FULL: Final = Size(devices=3000, messages=4, gap=(20, 60), rounds=3, processes=SHARDS)
QUICK: Final = Size(devices=120, messages=3, gap=(2, 6), rounds=1, processes=2)


async def run(size: Size, *, quick: bool, say: Say) -> CampaignResults:
    """Run all rounds; `say` gets progress messages. Raises click.UsageError for too many devices without PgBouncer."""
    pooled = pooler.PROGRAM is not None
    if not pooled:
        if size.devices > SMALL_FLEET:
            raise click.UsageError(
                f"more than {SMALL_FLEET} devices need PgBouncer (Debian: apt-get install pgbouncer)"
            )
        say("no pgbouncer: the sessions are reached directly (Debian: apt-get install pgbouncer)")
    async with bed() as (cluster, server):
        return await measure(cluster, server, size, pgbouncer=pooled, quick=quick, say=say)


async def measure(
    cluster: Cluster, server: ServerProcess, size: Size, *, pgbouncer: bool, quick: bool, say: Say
) -> CampaignResults:
    """The same on servers that run already."""
    campaign = Campaign(size.devices, size.messages, size.gap, size.processes, pgbouncer)
    figures: dict[str, list[CampaignFigures]] = {"shardd": [], "plain": []}
    cold: list[Cold] = []
    for number in range(1, size.rounds + 1):
        for who, run_one in (("plain", plain_campaign), ("shardd", shardd_campaign)):
            one = await run_one(cluster, server, campaign)
            figures[who].append(one)
            say(
                f"round {number}/{size.rounds}: {who}: {campaign.total:,} messages in {one.seconds:.0f} s, "
                f"{one.login_per_device:.2f} logins per device, {one.worker_cpu:.1f} ms of CPU per message"
            )
        plain = await plain_sweep(cluster, server, devices=size.devices, processes=size.processes, pgbouncer=pgbouncer)
        ours = await sweep(cluster, server, devices=size.devices, shards=size.processes, pgbouncer=pgbouncer)
        cold.append(Cold(plain, ours))
        say(f"round {number}/{size.rounds}: cold: plain {plain:.1f} s, shardd {ours.seconds:.1f} s")
    return CampaignResults(campaign, figures, cold, server=cluster.settings(), quick=quick)
