"""A running node as operators see it: its status, the outlook of a device, and what they may ask of it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shardd import __version__
from shardd.errors import UsageError
from shardd.states import ShardState, Verdict
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.state_folder import StateWatch
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.problems import Problem, ProblemKind, ReportsProblems
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.outlook import DeviceOutlook, device_outlook
from shardd.supervisor.scheduling.rules import Rules
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.table_sync import DeviceSync
from shardd.supervisor.status import QueueStatus, ShardStatus, Status, Totals, WebhookStatus
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.shard import Shard

State = Literal["starting", "running", "stopping"]


@dataclass(slots=True)
class Node:
    """What the control API serves (`shardd.supervisor.admin.control.Controlled`)."""

    rules: Rules
    scheduler: Scheduler
    router: Router
    workers: WorkerPool
    keeper: LeaseKeeper
    device_sync: DeviceSync
    state_watch: StateWatch
    queue: Callable[[], QueueStatus | None]
    webhooks: Callable[[], list[WebhookStatus]]
    reporters: Sequence[ReportsProblems]
    """Parts whose problems make the node unhealthy."""
    notes: Sequence[Callable[[], Sequence[str]]]
    """What a person should know though the node is healthy."""
    database: str
    ask_to_stop: Callable[[], None]
    reload_config: Callable[[], Awaitable[list[str]]]
    state: State = "starting"
    started_at: float = field(default_factory=time.time)

    # ---- control.Controlled

    def stop(self) -> None:
        """Drain and exit; asked a second time, do not wait for what is in flight."""
        self.ask_to_stop()

    async def reload(self) -> list[str]:
        """Read the config file again; returns what changed. Raises ConfigError: nothing changes then."""
        return await self.reload_config()

    async def drain_shard(self, shard: int) -> None:
        """Drain a shard; it stays down until restarted. Raises UsageError."""
        await self.workers.drain(shard)

    async def restart_shard(self, shard: int) -> None:
        """Replace a shard's worker. Raises SharddError."""
        await self.workers.restart(shard)

    async def close_device(self, device_id: str) -> None:
        """Close the device's client; a revoked session is not reopened. Raises SharddError."""
        await self.device_sync.sync()
        await self.workers.close_device(self._queue_of(device_id).shard, device_id)

    def outlook(self, device_id: str) -> DeviceOutlook:
        """When a device may send, and what it waits for. Raises UsageError."""
        return device_outlook(self.scheduler, self._queue_of(device_id), time.monotonic(), self._why_down)

    def status(self) -> Status:
        """The health of the node."""
        by_shard: dict[int, list[DeviceQueue]] = {shard.index: [] for shard in self.workers.shards}
        for queue in self.scheduler.queues.values():
            by_shard[queue.shard].append(queue)
        shards = [
            shard_status(
                shard,
                by_shard[shard.index],
                self.router.shard_totals.get(shard.index, {}),
                len(self.router.in_flight(shard.index)),
            )
            for shard in self.workers.shards
        ]
        # Why a blocked shard waits is reported by whoever blocks it.
        unblocked = [status for status, shard in zip(shards, self.workers.shards, strict=True) if shard.blocked is None]
        problems = problems_of(unblocked, database_error=self.router.database_error, leases_known=self.keeper.known())
        problems += [problem for part in self.reporters for problem in part.problems()]
        by_kind: dict[str, list[str]] = {}
        for problem in problems:
            by_kind.setdefault(problem.kind.value, []).append(problem.text)
        sandbox = sum(queue.device.transport == "sandbox" for queue in self.scheduler.queues.values())
        config = self.rules.config
        return Status(
            version=__version__,
            node=config.node,
            pid=os.getpid(),
            state=self.state,
            healthy=self.state == "running" and not problems,
            problems=[problem.text for problem in problems],
            problem_kinds={kind.value: len(by_kind.get(kind.value, ())) for kind in ProblemKind},
            problems_by_kind=by_kind,
            notes=[note for notes in self.notes for note in notes()] + self._backing_off(),
            started_at=self.started_at,
            now=time.time(),
            database=self.database,
            config=str(config.source) if config.source else None,
            shards=shards,
            totals=sum_up(shards, sandbox_devices=sandbox),
            queue=self.queue(),
            webhooks=self.webhooks(),
        )

    # ----

    def has_started(self) -> bool:
        """Whether every shard of this node runs or has failed, and at least one runs. A blocked one waits for a person."""
        shards = [shard for shard in self.workers.shards if shard.epoch is not None and shard.blocked is None]
        settled = (ShardState.RUNNING, ShardState.BROKEN, ShardState.BACKOFF, ShardState.DRAINED)
        running = any(shard.state is ShardState.RUNNING for shard in shards)
        return (running or not shards) and all(shard.state in settled for shard in shards)

    def _queue_of(self, device_id: str) -> DeviceQueue:
        queue = self.scheduler.queues.get(device_id)
        if queue is None:
            raise UsageError(f"device {device_id!r} is unknown")
        return queue

    def _backing_off(self) -> list[str]:
        """In one sentence, because thousands may be behind one proxy."""
        queues = self.scheduler.backing_off(time.monotonic())
        if not queues:
            return []
        queue, error = queues[0]
        devices = "1 device is" if len(queues) == 1 else f"{len(queues):,} devices are"
        return [f"{devices} backing off after errors; {queue.device.id}: {error}"]

    def _why_down(self, shard: int) -> str | None:
        """Why the devices of a shard send nothing whatever their state; None: it is not known to be so."""
        if self.state_watch.error is not None:
            return self.state_watch.error
        found = self.workers.shards[shard]
        trouble = found.journal_error or found.unsettled
        return None if trouble is None else f"the journal of its shard: {trouble}"


def problems_of(shards: list[ShardStatus], *, database_error: str | None, leases_known: bool) -> list[Problem]:
    """What keeps a node from being healthy; a shard that an operator drained is not a problem, nor one of another node."""
    problems = []
    if database_error:
        problems.append(Problem(ProblemKind.DATABASE, f"database: {database_error}"))
    elif not leases_known:
        problems.append(Problem(ProblemKind.LEASES, "leases cannot be renewed: nothing is claimed"))
    fine = (ShardState.RUNNING, ShardState.DRAINED)
    problems += [
        Problem(ProblemKind.SHARD, f"shard {s.shard} is {s.state}" + (f": {s.error}" if s.error else ""))
        for s in shards
        if s.epoch is not None and s.state not in fine
    ]
    return problems


def shard_status(
    shard: Shard, scheduler: Sequence[DeviceQueue], totals: Mapping[str, int], in_flight: int
) -> ShardStatus:
    """One shard, from what the workers, the scheduler and the router know."""
    process = shard.process
    beat = process.beat if process is not None else None
    ready = sum(1 for queue in scheduler if queue.can_send)
    return ShardStatus(
        shard=shard.index,
        state=shard.state.value,
        since=shard.since,
        epoch=shard.epoch,
        pid=process.pid if process is not None else None,
        devices=len(scheduler),
        ready=ready,
        parked=len(scheduler) - ready,
        open_clients=beat.open_clients if beat is not None else 0,
        in_flight=in_flight,
        sent=totals.get(Verdict.SENT, 0),
        failed=totals.get(Verdict.PERMANENT, 0) + totals.get(Verdict.TRANSIENT, 0),
        in_doubt=totals.get(Verdict.IN_DOUBT, 0),
        sent_per_second=round(shard.rate(), 2),
        restarts=shard.restarts,
        lag=beat.lag if beat is not None else None,
        heartbeat_age=process.silent_for() if beat is not None and process is not None else None,
        rss=beat.rss if beat is not None else None,
        fds=beat.fds if beat is not None else None,
        connects=beat.connects if beat is not None else None,
        error=shard.blocked or shard.last_error,
    )


def sum_up(shards: Sequence[ShardStatus], *, sandbox_devices: int) -> Totals:
    """The node's totals."""
    return Totals(
        devices=sum(s.devices for s in shards),
        ready=sum(s.ready for s in shards),
        parked=sum(s.parked for s in shards),
        sandbox_devices=sandbox_devices,
        open_clients=sum(s.open_clients for s in shards),
        in_flight=sum(s.in_flight for s in shards),
        sent=sum(s.sent for s in shards),
        failed=sum(s.failed for s in shards),
        in_doubt=sum(s.in_doubt for s in shards),
        sent_per_second=round(sum(s.sent_per_second for s in shards), 2),
    )


def in_one_line(status: Status) -> str:
    """For systemd: 14/16 shards, 2871/3000 devices, 12.5/s."""
    mine = [shard for shard in status.shards if shard.epoch is not None]
    running = sum(shard.state == ShardState.RUNNING for shard in mine)
    totals = status.totals
    return f"{running}/{len(mine)} shards, {totals.ready}/{totals.devices} devices, {totals.sent_per_second:g}/s"
