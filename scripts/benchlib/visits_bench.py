"""`scripts/bench visits`: two weeks of a fleet in which half of the devices never send, in a fraction of the time.

One factor scales every interval: the two weeks, `visit_every`, `idle_close`, the time between two messages of a device, and the
time after which the WhatsApp server unlinks a device that showed no presence. What does not scale is the time that a login and a
presence take; so the factor must leave room for all logins, and the results are per day of the simulated time.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchlib import pooler
from benchlib.processes import Usage
from benchlib.results import machine
from benchlib.whatsapp_bench import Say, bed
from benchlib.whatsapp_fleet import Fleet, fleet, stocked
from shardd.config import TransportsConfig

DAY: Final = 86_400.0
UNLINK_AFTER: Final = 14 * DAY
"""Seconds without a presence, after which WhatsApp unlinks a device, as operators of fleets report."""
IDLE_CLOSE: Final = 60.0
"""Seconds; the default."""
SHORTEST: Final = 1.0
"""Seconds: the least that `visit_every` and `idle_close` accept."""
SHARDS: Final = 8
LOOK_EVERY: Final = 5.0
DEADLINE: Final = 600.0


@dataclass(frozen=True)
class VisitResults:
    """The results; all times but `took` are scaled back."""

    devices: int
    senders: int
    days: float
    factor: float
    visit_every: float
    took: float
    logins: int
    sent: int
    offline: list[float]
    """Of each device, the longest time in which it was not logged in, in seconds."""
    silences: list[float]
    """Of each device, the longest time without a presence, in seconds."""
    unlinked: int
    worker_cpu: float
    """CPU seconds of all workers."""
    workers_replaced: int
    """Workers that another one replaced, mostly because their budget of connects or descriptors was used up."""
    supervisor_cpu: float
    server_cpu: float
    """CPU seconds of the test server, which runs on the same machine."""
    pooled: bool

    @property
    def late(self) -> int:
        """Devices that were not online for longer than `visit_every`."""
        return sum(each > self.visit_every for each in self.offline)

    def plain(self) -> dict[str, Any]:
        """The results as JSON."""
        figures = {name: value for name, value in vars(self).items() if name not in ("offline", "silences")}
        longest = {"longest_offline": max(self.offline), "longest_silence": max(self.silences)}
        return {**figures, **longest, "late": self.late, "machine": machine()}

    def show(self, console: Console) -> None:
        """As a table."""
        table = Table(box=SIMPLE, show_header=False)
        for name, value in (
            ("devices, of which send", f"{self.devices:,}, {self.senders:,} (one message a day)"),
            ("simulated", f"{self.days:g} days in {self.took / 60:.1f} minutes (1:{self.factor:g})"),
            ("visit_every", f"{self.visit_every / 3600:g} h"),
            ("messages sent", f"{self.sent:,}"),
            ("logins", f"{self.logins:,}: {self.logins / self.devices / self.days:.2f} per device and day"),
            ("longest time not online", _hours(self.offline)),
            ("longest time without presence", _hours(self.silences)),
            ("devices that were late", f"{self.late:,}"),
            ("devices that were unlinked", f"{self.unlinked:,}"),
            ("CPU of the workers", self._per_day(self.worker_cpu)),
            ("workers that were replaced", f"{self.workers_replaced:,}"),
            ("CPU of the supervisor", self._per_day(self.supervisor_cpu)),
            ("CPU of the test server", self._per_day(self.server_cpu)),
        ):
            table.add_row(name, value)
        console.print(table)

    def _per_day(self, cpu: float) -> str:
        return f"{cpu / self.days:,.1f} s a day; {cpu / max(1, self.logins) * 1000:.1f} ms per login"


async def run(*, devices: int, days: float, factor: float, say: Say) -> VisitResults:
    """Run the simulation; `factor`: how many simulated seconds pass in one."""
    visit_every = TransportsConfig().whatsapp.visit_every
    senders = devices // 2
    async with bed() as (cluster, server), stocked(cluster, "visits", devices) as stock:
        server.control.settings(unlink_after=UNLINK_AFTER / factor, decrypt=False)
        intervals: dict[str, Any] = {
            "visit_every": f"{max(SHORTEST, visit_every / factor):.3f}s",
            "idle_close": f"{max(SHORTEST, IDLE_CLOSE / factor):.3f}s",
        }
        pooled = pooler.PROGRAM is not None
        async with fleet(cluster, server, stock, shards=SHARDS, pgbouncer=pooled, **intervals) as running:
            workers, supervisor = Usage(), Usage()

            async def look() -> None:
                workers.look(await running.daemon.workers())
                supervisor.look([running.daemon.process.pid])

            await look()
            begun, reported = time.monotonic(), 0
            producing = asyncio.create_task(_produce(running, senders, DAY / factor))
            try:
                while (left := begun + days * DAY / factor - time.monotonic()) > 0:
                    await asyncio.sleep(min(LOOK_EVERY, left))
                    await look()
                    if (day := int((time.monotonic() - begun) * factor / DAY)) > reported:
                        reported = day
                        say(f"day {day} of {days:g}: {server.control.stats()['counts'].get('login', 0):,} logins")
            finally:
                producing.cancel()
                with suppress(asyncio.CancelledError):
                    await producing
            took = time.monotonic() - begun
            activity = server.control.activity()
            await running.until_sent(deadline=DEADLINE)
            return VisitResults(
                devices=devices,
                senders=senders,
                days=took * factor / DAY,
                factor=factor,
                visit_every=visit_every,
                took=took,
                logins=sum(one.logins for one in activity.values()),
                sent=running.inserted,
                offline=[one.offline * factor for one in activity.values()],
                silences=[one.silence * factor for one in activity.values()],
                unlinked=devices - len(activity),
                worker_cpu=workers.cpu,
                workers_replaced=workers.replaced,
                supervisor_cpu=supervisor.cpu,
                server_cpu=server.control.stats()["cpu"],
                pooled=pooled,
            )


def _hours(each: list[float]) -> str:
    return f"{max(each) / 3600:.2f} h; median of the devices {median(each) / 3600:.2f} h"


async def _produce(running: Fleet, senders: int, every: float) -> None:
    """One message of each sender in `every` seconds, each time in another order."""
    draw = random.Random(senders)  # the same messages in every run
    while True:
        order = list(range(senders))
        draw.shuffle(order)
        for number in order:
            began = time.monotonic()
            await running.insert(range(number, number + 1))
            await asyncio.sleep(max(0.0, every / senders - (time.monotonic() - began)))
