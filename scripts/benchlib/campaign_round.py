"""One campaign: every device sends several messages, each to somebody new, with gaps between them.

shardd has all jobs in its queue at the start, and draws the gaps. Plain neonize does the same by the shortest program there is:
each device connects, sends, waits for a gap of the same range, sends, and stays open. Both begin without an open client, in as
many processes, each with as many connects at once; both reach the sessions through the same kind of PgBouncer, with the same
settings of the driver; both end when the device does that drew the longest gaps. So logins, CPU, memory and messages per second
are comparable.

"Claim to settle" is the time between two transactions of shardd, as the rows of `shardd.archive` say (`claimed_at` of the last
claim, `settled_at`), so it contains PostgreSQL's commits and the way through two processes. What stands beside it, of plain
neonize, is the time from a device's turn to connect, or from the call that sends by a client that is open, until that returns.
"Once all are connected" are those that began after every device's first message had been sent. A "warm send" is plain neonize's
too, after its campaign: one more message of each device to its last recipient, with the same gaps.

A claim that was given back and claimed again is counted by the row: `attempt` counts claims, `failures` the attempts that failed,
and each job needs one. Logins are WhatsApp's count. The CPU is that of the workers, or of the plain processes, alone.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchlib.cluster import Cluster
from benchlib.fleet_usage import LOOK_EVERY, used_by
from benchlib.plain_process import plain_fleet
from benchlib.processes import Usage
from benchlib.results import Latency
from benchlib.watching import watching
from benchlib.whatsapp_fleet import arrived_once, fleet, stocked, strangers_of
from shardd.config import TransportsConfig
from tests.whatsapp_server.launch import ServerProcess

FIRST_GAPS: Final = 1.5
"""The time in which the rate of the beginning is counted, in mean gaps: a minute with gaps of 20 to 60 seconds."""
DEADLINE: Final = 600.0
"""Seconds beyond the longest possible schedule, after which a campaign fails."""

Times = dict[str, list[tuple[float, float]]]
"""By device, of each of its messages in order: when it began and when it was sent, in POSIX seconds."""


@dataclass(frozen=True)
class Campaign:
    """What is sent, and by how many processes."""

    devices: int
    messages: int
    """Of each device."""
    gap: tuple[float, float]
    """Seconds between two messages of a device: the least, the most."""
    processes: int
    pgbouncer: bool

    @property
    def total(self) -> int:
        """All messages."""
        return self.devices * self.messages

    @property
    def steady_rate(self) -> float:
        """Messages per second while every device has some left, if a send took no time."""
        return self.devices / (sum(self.gap) / 2)

    def scheduled_rate(self) -> float:
        """Messages per second of the whole, if nothing took time but the gaps: the longest of such draws decides."""
        draw = random.Random(self.devices)
        longest = max(sum(draw.uniform(*self.gap) for _ in range(self.messages - 1)) for _ in range(self.devices))
        return self.total / longest

    @property
    def beginning(self) -> float:
        """Seconds that count as the beginning."""
        return FIRST_GAPS * sum(self.gap) / 2

    @property
    def deadline(self) -> float:
        """Seconds."""
        return self.messages * self.gap[1] + DEADLINE


@dataclass(frozen=True)
class CampaignFigures:
    """What one campaign took."""

    seconds: float
    """From the commit of the jobs, or the request, until the last message was settled."""
    rate: float
    """Messages per second."""
    first_rate: float
    """The same in the beginning."""
    login_per_message: float
    login_per_device: float
    worker_cpu: float
    """Milliseconds per message."""
    supervisor_cpu: float
    """Milliseconds per message; 0: there is no supervisor."""
    claim_to_settle: Latency
    connected: Latency
    """The same once all are connected."""
    given_back: int
    """Claims that were given back, and claimed again."""
    failures: int
    """Attempts that failed, and were repeated."""
    open_clients: int
    """The most that were open at once."""
    processes_rss: int
    """Bytes: the most that the workers, or the plain processes, had together."""
    client_rss: float
    """Bytes: by how much the processes grew, at most, per client of that most."""
    server_cpu: float
    """Milliseconds per message of the test server, which runs on the same machine."""
    sent_by_second: list[int]
    warm: Latency | None = None
    """Of plain neonize: a send by an open client to a contact that it knows, with the same gaps."""

    def plain(self) -> dict[str, Any]:
        """The figures as JSON."""
        return asdict(self)


async def shardd_campaign(cluster: Cluster, server: ServerProcess, campaign: Campaign) -> CampaignFigures:
    """A node with the default settings, but for the gaps. Raises RuntimeError unless every message arrived exactly once."""
    server.control.start_over()
    everyone = range(campaign.devices)
    least, most = campaign.gap
    settings: dict[str, Any] = {
        "pacing": {"gap_min": f"{least}s", "gap_max": f"{most}s"},
        "visit_every": f"{TransportsConfig().whatsapp.visit_every}s",
    }
    async with (
        stocked(cluster, "campaign", campaign.devices) as stock,
        fleet(cluster, server, stock, shards=campaign.processes, pgbouncer=campaign.pgbouncer, **settings) as running,
    ):
        server_before = server.control.stats()["cpu"]
        async with used_by(running.daemon) as used:
            await running.insert(everyone, campaign.messages, strangers_of)
            begun = time.time()
            await running.until_sent(deadline=campaign.deadline)
        stats = arrived_once(server, campaign.total)
        claimed_again, failures = await running.tries(), await running.failures()
        return _figures(
            campaign,
            begun,
            await running.claims(),
            stats,
            workers=used.workers,
            supervisor_cpu=used.supervisor.cpu,
            server_cpu=stats["cpu"] - server_before,
            open_clients=used.open_clients,
            given_back=claimed_again - failures,
            failures=failures,
        )


async def plain_campaign(cluster: Cluster, server: ServerProcess, campaign: Campaign) -> CampaignFigures:
    """The same with plain neonize, and after it the warm sends, which are not part of the campaign."""
    server.control.start_over()
    workers = Usage()
    async with (
        stocked(cluster, "campaign", campaign.devices) as stock,
        plain_fleet(cluster, server, stock, processes=campaign.processes, pgbouncer=campaign.pgbouncer) as plain,
    ):

        async def look() -> None:
            workers.look(plain.pids)

        strangers = {session: strangers_of(session, campaign.messages) for session in stock.sessions}
        server_before = server.control.stats()["cpu"]
        async with watching(look, LOOK_EVERY):
            begun = time.time()
            times = await plain.send(strangers, gap=campaign.gap, deadline=campaign.deadline)
        stats = arrived_once(server, campaign.total)
        known = {session: recipients[-1:] for session, recipients in strangers.items()}
        warm = await plain.send(known, gap=campaign.gap, deadline=campaign.deadline)
        return _figures(
            campaign,
            begun,
            dict(zip(stock.sessions, times, strict=True)),
            stats,
            workers=workers,
            supervisor_cpu=0.0,
            server_cpu=stats["cpu"] - server_before,
            open_clients=campaign.devices,
            given_back=0,
            failures=0,
            warm=Latency.of([ended - began for each in warm for began, ended in each]),
        )


def _figures(
    campaign: Campaign,
    begun: float,
    times: Times,
    stats: dict[str, Any],
    *,
    workers: Usage,
    supervisor_cpu: float,
    server_cpu: float,
    open_clients: int,
    **rest: Any,
) -> CampaignFigures:
    every = [each for of_device in times.values() for each in of_device]
    last = max(ended for _, ended in every)
    all_connected = max(of_device[0][1] for of_device in times.values())
    by_second = [0] * (math.floor(last - begun) + 1)
    for _, ended in every:
        by_second[max(0, math.floor(ended - begun))] += 1
    beginning = min(campaign.beginning, last - begun)
    logins = stats["counts"]["login"]
    return CampaignFigures(
        seconds=last - begun,
        rate=campaign.total / (last - begun),
        first_rate=sum(ended - begun <= beginning for _, ended in every) / beginning,
        login_per_message=logins / campaign.total,
        login_per_device=logins / campaign.devices,
        worker_cpu=workers.cpu / campaign.total * 1000,
        supervisor_cpu=supervisor_cpu / campaign.total * 1000,
        server_cpu=server_cpu / campaign.total * 1000,
        claim_to_settle=Latency.of([ended - began for began, ended in every]),
        connected=Latency.of([ended - began for began, ended in every if began >= all_connected]),
        open_clients=open_clients,
        processes_rss=workers.peak,
        client_rss=(workers.peak - workers.first) / max(1, open_clients),
        sent_by_second=by_second,
        **rest,
    )
