"""A running node as operators see it: its status, the outlook of a device, and the requests that they may make."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from shardd import __version__
from shardd.config.transports.sandbox import SANDBOX
from shardd.config.transports.whatsapp import WHATSAPP
from shardd.errors import SharddError, UsageError
from shardd.logs import get_logger
from shardd.states import PAUSED, DeviceState, ShardState, Verdict
from shardd.supervisor.admin.dashboard import Dashboard
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.state_folder import StateWatch
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.problems import Problem, ProblemKind, ReportsProblems
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.library_watch import LibraryWatch
from shardd.supervisor.scheduling.outlook import DeviceOutlook, device_outlook
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.table_sync import DeviceSync
from shardd.supervisor.services import Service
from shardd.supervisor.status import NodeSummary, QueueStatus, ShardStatus, Status, Totals, WebhookStatus
from shardd.supervisor.systemd import Notifier
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.shard import Shard
from shardd.supervisor.workers.spares import Spares
from shardd.transports.whatsapp.media.recording import NOT_INSTALLED, is_installed

State = Literal["starting", "running", "stopping"]

LONGEST_PROBLEM: Final = 300
"""Characters of a problem that the other nodes are told."""
TICK: Final = 0.1
"""Seconds between checks whether a report to systemd is due."""
HOPELESS: Final = 2
"""Workers of a shard that died before the start is given up, when no other shard runs."""
STATUS_EVERY: Final = 1.0
"""Seconds between status lines for systemd."""
STATUS_SHARE: Final = 30.0
"""The pause is at least this many times as long as a status takes: it looks at every device, of which there may be 100,000."""

log = get_logger(__name__)


@dataclass(slots=True)
class Node:
    """What the control API serves."""

    current: CurrentConfig
    scheduler: Scheduler
    router: Router
    workers: WorkerPool
    spares: Spares
    keeper: LeaseKeeper
    device_sync: DeviceSync
    state_watch: StateWatch
    library_watch: LibraryWatch
    dashboard: Dashboard
    queue: Callable[[], QueueStatus | None]
    webhooks: Callable[[], list[WebhookStatus]]
    unattributed: Callable[[], int]
    """What platforms reported for no device."""
    reporters: Sequence[ReportsProblems]
    """Parts whose problems make the node unhealthy."""
    notes: Sequence[Callable[[], Sequence[str]]]
    """What an operator should know although the node is healthy."""
    database: str
    replication: Callable[[], str | None]
    """The standbys of the server, in words; None: not known yet."""
    sessions: Callable[[], str | None]
    """How the sessions of devices reach PostgreSQL, and why; None: no device has one."""
    database_error: Callable[[], str | None]
    """Why the database does not answer; None: it does."""
    stop: Callable[[], None]
    """Drain and exit; called again, do not wait for what is in flight."""
    reload: Callable[[], Awaitable[list[str]]]
    """Read the config file again; returns what changed, in words. Raises ConfigError: then nothing changes."""
    state: State = "starting"
    started_at: float = field(default_factory=time.time)

    # ---- for the control API

    async def close_device(self, device_id: str) -> None:
        """Close the device's client; a revoked session is not reopened. Raises SharddError."""
        await self.device_sync.sync()
        await self.workers.close_device(self._queue_of(device_id).shard, device_id)

    def outlook(self, device_id: str) -> DeviceOutlook:
        """When a device may send, and what it waits for. Raises UsageError."""
        queue, picture = self._queue_of(device_id), self.keeper.picture
        seen = device_outlook(self.scheduler, queue, time.monotonic(), self._why_down)
        return msgspec.structs.replace(seen, served_by=picture.served_by(queue.shard))

    def status(self) -> Status:
        """The health of the node."""
        census = self.scheduler.census
        devices, ready = census.by_shard()
        shards = [
            shard_status(
                shard,
                devices[shard.index],
                ready[shard.index],
                self.router.shard_totals.get(shard.index, {}),
                len(self.router.in_flight(shard.index)),
            )
            for shard in self.workers.shards
        ]
        # Recovery reports why a blocked shard waits.
        unblocked = [status for status, shard in zip(shards, self.workers.shards, strict=True) if shard.blocked is None]
        problems = problems_of(unblocked, database_error=self.database_error(), leases_known=self.keeper.known())
        problems += [problem for part in self.reporters for problem in part.problems()]
        by_kind: dict[str, list[str]] = {}
        for problem in problems:
            by_kind.setdefault(problem.kind.value, []).append(problem.text)
        sandbox = census.count(lambda place: place.transport == SANDBOX.name)
        nodes = self.keeper.picture.statuses()
        elsewhere = {shard for node in nodes if not node.own for shard in node.shards}
        config = self.current.config
        states = census.by_state()
        return Status(
            version=__version__,
            node=config.node,
            pid=os.getpid(),
            state=self.state,
            starting=self.start_step() if self.state == "starting" else None,
            ready=self.state == "running" and self.keeper.known(),
            healthy=self.state == "running" and not problems,
            problems=[problem.text for problem in problems],
            problem_kinds={kind.value: len(by_kind.get(kind.value, ())) for kind in ProblemKind},
            problems_by_kind=by_kind,
            notes=[note for notes in self.notes for note in notes()] + self._backing_off() + self._no_media(),
            started_at=self.started_at,
            now=time.time(),
            lease_margin=round(max(0.0, self.keeper.seconds_left()), 3) if self.keeper.epochs else None,
            device_states={state: states[state] for state in (*DeviceState, PAUSED)},
            library=self.library_watch.library,
            library_refused=self.library_watch.refused_since is not None,
            library_refused_since=self.library_watch.refused_since,
            database=self.database,
            replication=self.replication(),
            sessions=self.sessions(),
            config=str(config.source) if config.source else None,
            dashboard=self.dashboard.url,
            nodes=nodes,
            nodes_as_of=None if (age := self.keeper.picture.age()) is None else time.time() - age,
            shards=shards,
            totals=sum_up(shards, sandbox_devices=sandbox, elsewhere=elsewhere),
            queue=self.queue(),
            webhooks=self.webhooks(),
            spares=self.spares.ready,
            unattributed_reports=self.unattributed(),
        )

    def summary(self) -> NodeSummary:
        """What the other nodes are told."""
        status = self.status()
        return NodeSummary(
            devices=dict(self.scheduler.census.by_state(self.keeper.epochs)),
            in_flight=status.totals.in_flight,
            sent_per_second=status.totals.sent_per_second,
            problems=len(status.problems),
            problem=brief_problem(status.problems),
            down=[
                one.shard
                for one in status.shards
                if one.epoch is not None and one.state in (ShardState.BROKEN, ShardState.BACKOFF)
            ],
        )

    # ---- for systemd

    def has_started(self) -> bool:
        """Whether every shard of this node runs or has failed, and at least one runs. Blocked ones wait for an operator."""
        shards = [shard for shard in self.workers.shards if shard.epoch is not None and shard.blocked is None]
        settled = (ShardState.RUNNING, ShardState.BROKEN, ShardState.BACKOFF, ShardState.DRAINED)
        running = any(shard.state is ShardState.RUNNING for shard in shards)
        return (running or not shards) and all(shard.state in settled for shard in shards)

    def cannot_start(self) -> str | None:
        """Why the start cannot succeed: every worker of this node died again and again before one ran. None: it may."""
        shards = [shard for shard in self.workers.shards if shard.epoch is not None and shard.blocked is None]
        down = (ShardState.BACKOFF, ShardState.BROKEN)
        if not shards or any(shard.ran or shard.state not in down or shard.restarts < HOPELESS for shard in shards):
            return None
        return f"no worker starts: shard {shards[0].index}: {shards[0].last_error}"

    def start_step(self) -> str:
        """What the start is doing, in words."""
        mine = [shard for shard in self.workers.shards if shard.epoch is not None]
        running = sum(shard.state is ShardState.RUNNING for shard in mine)
        return f"starting the workers: {running} of {len(mine)} run"

    def _queue_of(self, device_id: str) -> DeviceQueue:
        queue = self.scheduler.queues.get(device_id)
        if queue is None:
            raise UsageError(f"device {device_id!r} is unknown")
        return queue

    def _backing_off(self) -> list[str]:
        """One sentence for all, because thousands may be behind one proxy."""
        queues = self.scheduler.backing_off(time.monotonic())
        if not queues:
            return []
        queue, error = queues[0]
        devices = "1 device is" if len(queues) == 1 else f"{len(queues):,} devices are"
        return [f"{devices} backing off after errors; {queue.device.id}: {error}"]

    def _no_media(self) -> list[str]:
        if is_installed() or WHATSAPP.name not in self.scheduler.census.transports:
            return []
        return [NOT_INSTALLED]

    def _why_down(self, shard: int) -> str | None:
        """Why no device of a shard can send, whatever its state; None: nothing is known to prevent it."""
        if self.state_watch.error is not None:
            return self.state_watch.error
        found = self.workers.shards[shard]
        error = found.journal_error or found.unsettled
        return None if error is None else f"the journal of its shard: {error}"


class SystemdReporter(Service):
    """Reports to systemd: that the node has started, its status, and that the workers are still supervised."""

    def __init__(
        self, notifier: Notifier, node: Node, watched_at: Callable[[], float], end: Callable[[SharddError], None]
    ) -> None:
        """`watched_at`: when the workers were last checked, on the monotonic clock. `end`: ends the supervisor."""
        self._notifier = notifier
        self._node = node
        self._watched_at = watched_at
        self._end = end

    async def serve(self) -> None:
        """Report periodically."""
        interval = self._notifier.watchdog_interval
        next_watchdog = next_status = reported = 0.0
        while True:
            now = time.monotonic()
            # Only if the workers were checked meanwhile: systemd must notice a pool that hangs.
            if interval is not None and now >= next_watchdog and (watched := self._watched_at()) > reported:
                self._notifier.watchdog()
                next_watchdog, reported = now + interval, watched
            if now >= next_status:
                self._report()
                next_status = now + max(STATUS_EVERY, STATUS_SHARE * (time.monotonic() - now))
            await asyncio.sleep(TICK)

    def _report(self) -> None:
        if self._node.state == "starting" and (hopeless := self._node.cannot_start()) is not None:
            self._end(SharddError(hopeless))
            return
        text = in_one_line(self._node.status())
        if self._node.state == "starting" and self._node.has_started():
            self._node.state = "running"
            self._notifier.ready(text)
            log.info("running", action="start", status=text)
        elif self._node.state == "starting":
            self._notifier.status(self._node.start_step())
        elif self._node.state == "running":
            self._notifier.status(text)


def brief_problem(problems: Sequence[str]) -> str | None:
    """The first one, for other nodes, in a few words."""
    if not problems:
        return None
    return problems[0] if len(problems[0]) <= LONGEST_PROBLEM else f"{problems[0][: LONGEST_PROBLEM - 1]}…"


def problems_of(shards: list[ShardStatus], *, database_error: str | None, leases_known: bool) -> list[Problem]:
    """Of the database, leases and shards. A shard that an operator drained is not a problem, nor is one of another node."""
    problems = []
    if database_error:
        problems.append(Problem(ProblemKind.DATABASE, f"database: {database_error}"))
    elif not leases_known:
        problems.append(Problem(ProblemKind.LEASES, "leases cannot be renewed: nothing is claimed"))
    fine = (ShardState.RUNNING, ShardState.DRAINED)
    problems += [
        Problem(ProblemKind.SHARD, _about(shard))
        for shard in shards
        if shard.epoch is not None and shard.state not in fine
    ]
    return problems


def _about(shard: ShardStatus) -> str:
    words = f"shard {shard.shard} is {shard.state}" + (f": {shard.error}" if shard.error else "")
    return f"{words}; start it again: shardd restart {shard.shard}" if shard.state == ShardState.BROKEN else words


def shard_status(shard: Shard, devices: int, ready: int, totals: Mapping[str, int], in_flight: int) -> ShardStatus:
    """One shard, from what the workers, the scheduler and the router know."""
    process = shard.process
    beat = None if process is None else process.beat
    deaths = shard.deaths_lately()
    return ShardStatus(
        shard=shard.index,
        state=shard.state.value,
        since=shard.since,
        epoch=shard.epoch,
        pid=None if process is None else process.pid,
        devices=devices,
        ready=ready,
        parked=devices - ready,
        open_clients=0 if beat is None else beat.open_clients,
        in_flight=in_flight,
        sent=totals.get(Verdict.SENT, 0),
        failed=totals.get(Verdict.PERMANENT, 0) + totals.get(Verdict.TRANSIENT, 0),
        in_doubt=totals.get(Verdict.IN_DOUBT, 0),
        sent_per_second=round(shard.rate(), 2),
        restarts=shard.restarts,
        deaths_lately=len(deaths),
        last_death=deaths[-1][1] if deaths else None,
        last_death_at=deaths[-1][0] if deaths else None,
        lag=None if beat is None else beat.lag,
        heartbeat_age=None if process is None or beat is None else process.silence.look(),
        rss=None if beat is None else beat.rss,
        fds=None if beat is None else beat.fds,
        connects=None if beat is None else beat.connects,
        error=shard.blocked or shard.last_error,
        previews_left_out=0 if beat is None else beat.previews_left_out,
    )


def sum_up(shards: Sequence[ShardStatus], *, sandbox_devices: int, elsewhere: Collection[int] = ()) -> Totals:
    """The node's totals; `elsewhere`: the shards that other nodes hold."""
    down = [shard for shard in shards if shard.state != ShardState.RUNNING]
    shard_down = sum(shard.ready for shard in down if shard.epoch is not None or shard.shard not in elsewhere)
    summed = set(Totals.__struct_fields__) - {"sandbox_devices", "shard_down"}
    sums = {name: round(sum(getattr(shard, name) for shard in shards), 2) for name in summed}
    return Totals(sandbox_devices=sandbox_devices, shard_down=shard_down, **sums)


def in_one_line(status: Status) -> str:
    """For systemd: 14/16 shards, 2871/3000 devices, 12.5/s."""
    mine = [shard for shard in status.shards if shard.epoch is not None]
    running = sum(shard.state == ShardState.RUNNING for shard in mine)
    totals = status.totals
    return f"{running}/{len(mine)} shards, {totals.ready}/{totals.devices} devices, {totals.sent_per_second:g}/s"
