"""The composition root: makes the parts of a node and hands each what it needs. Nothing runs yet.

Calls go one way: what finds work (scheduling) hints the router (dispatch), which sends jobs through the pool (workers). Reports
of workers come back through `MessageHandlers`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from uuid import UUID

from shardd import ipc
from shardd.config import Config
from shardd.config.transports import REPORTING
from shardd.config.transports.device_settings import account_of
from shardd.config.transports.whatsapp import WHATSAPP
from shardd.embedded import EmbeddedPostgres
from shardd.errors import JournalError, SharddError
from shardd.file_limit import most_files
from shardd.hashing import shard_of
from shardd.queue.beats import BeatMemory
from shardd.queue.campaigns import Campaigns
from shardd.queue.devices import Devices
from shardd.queue.groups import Groups
from shardd.queue.jobs import Jobs
from shardd.queue.leases import NodeIdentity
from shardd.queue.library import LibraryRefusals
from shardd.queue.opt_outs import OptOuts
from shardd.queue.settle import Claim
from shardd.queue.webhooks import WebhookStore
from shardd.supervisor.admin.control import Control
from shardd.supervisor.admin.dashboard import Dashboard
from shardd.supervisor.admin.node import STATUS_SHARE, Node, SystemdReporter
from shardd.supervisor.cluster.client_room import Host
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.ownership import Ownership
from shardd.supervisor.cluster.picture import report_to_others
from shardd.supervisor.cluster.renewal import Renewal
from shardd.supervisor.cluster.schema_watch import SchemaWatch
from shardd.supervisor.cluster.session_pool import SessionPool
from shardd.supervisor.cluster.session_store import devices_with_sessions, numbers_of
from shardd.supervisor.cluster.state_folder import StateLock, StateWatch
from shardd.supervisor.defects import Defects
from shardd.supervisor.dispatch.claim_watch import ClaimWatch
from shardd.supervisor.dispatch.in_flight import InFlight, PoisonJobs
from shardd.supervisor.dispatch.lost_commits import LostCommits
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.dispatch.recovery import LOST_AFTER, Recovery
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.dispatch.verdicts import Death
from shardd.supervisor.inbound.opt_outs import OptOutCheck, OptOutInbox
from shardd.supervisor.inbound.reception import make_reception
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.outbox.webhooks import Webhooks
from shardd.supervisor.periodic_work import make_periodic_work
from shardd.supervisor.pools import Pools
from shardd.supervisor.reload import Reload
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.scheduling.groups import GroupAssigner
from shardd.supervisor.scheduling.library_watch import LibraryWatch
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.table_sync import CampaignSync, DeviceSync
from shardd.supervisor.scheduling.visiting import Visits
from shardd.supervisor.scheduling.work_notices import CHANNEL as NOTICES
from shardd.supervisor.scheduling.work_notices import WorkNotices
from shardd.supervisor.scheduling.work_poller import WorkPoller
from shardd.supervisor.services import Periodic, Service, Steps
from shardd.supervisor.systemd import Notifier
from shardd.supervisor.takeover import TakeOver
from shardd.supervisor.workers import host
from shardd.supervisor.workers.messages import MessageHandlers
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.shard import down_states
from shardd.supervisor.workers.spares import Spares
from shardd.transports.whatsapp.version import installed_library


@dataclass(frozen=True, slots=True)
class Composition:
    """What the supervisor drives."""

    take_over: TakeOver
    services: Sequence[Service]
    """In the order of their start."""
    node: Node


def compose(  # noqa: PLR0915  # one statement for each part shows who is given whom
    config: Config,
    pools: Pools,
    *,
    lock: StateLock,
    state_id: str,
    incarnation: UUID,
    earlier: Collection[UUID],
    beats: BeatMemory,
    lifeline: int,
    notifier: Notifier,
    control: Control,
    embedded: EmbeddedPostgres | None,
    database: str,
    dsn: str,
    sessions_dsn: str,
    notes: Callable[[], Sequence[str]],
    ask_to_stop: Callable[[], None],
    end: Callable[[SharddError], None],
    reload_asked: asyncio.Event,
) -> Composition:
    """Make the parts.

    `lock`, `state_id`: of the state folder; `incarnation`: of this supervisor; `earlier`: those that ran on the folder before;
    `beats`: of the node's renewals; `end`: ends this supervisor with an error; `lifeline`: see `WorkerProcess`;
    `database`: where it is, in words; `dsn`: of it; `sessions_dsn`: of the sessions of devices; `notes`: for the status.
    """
    current, steps, defects = CurrentConfig(config), Steps(), Defects()
    jobs = Jobs(pools.queue)

    # Leases and scheduling
    keeper = LeaseKeeper(
        pools.leases,
        node=NodeIdentity(
            id=state_id,
            name=config.node,
            host=socket.gethostname(),
            state_dir=str(config.state_dir),
            place=lock.place(),
        ),
        incarnation=incarnation,
        shards=config.shards,
        ttl=config.lease.ttl,
        margin=config.lease.margin,
        memory=beats,
    )
    scheduler = Scheduler(
        shard_of=lambda device_id: shard_of(device_id, config.shards),
        pace_of=current.pace_of,
        in_flight_of=current.in_flight_of,
        account_of=lambda device: account_of(device.transport, device.settings),
    )

    def zone_of(device_id: str) -> tzinfo:
        """Whose midnight begins a device's day."""
        queue = scheduler.queues.get(device_id)
        return current.config.pacing.zone if queue is None else queue.pace.zone

    def send(shard: int, message: ipc.ToWorker) -> bool:
        return workers.send(shard, message)

    # Dispatch
    in_flight, poison, memory = InFlight(), PoisonJobs(), SentMemory(config.state_dir)
    opt_outs = OptOutInbox(OptOuts(pools.opt_outs), config, partial(numbers_of, sessions_dsn))
    router = Router(
        incarnation=incarnation,
        jobs=jobs,
        scheduler=scheduler,
        in_flight=in_flight,
        poison=poison,
        memory=memory,
        send=send,
        may_claim=lambda: keeper.good() and state_watch.error is None,
        batch=lambda: current.config.queue.batch,
        backoff=lambda: current.job_backoff,
        opt_out_check=OptOutCheck(opt_outs.contains),
        defect=defects.note,
    )
    claim_watch = ClaimWatch(
        incarnation, Jobs(pools.general), router, in_flight, lambda: current.config.queue.send_timeout
    )
    recovery = Recovery(
        config.state_dir,
        state_id,
        jobs,
        incarnation=incarnation,
        earlier=earlier,
        shards=config.shards,
        backoff=lambda: current.job_backoff,
        grace=LOST_AFTER * config.lease.ttl,
        zone_of=zone_of,
        poison=poison,
        memory=memory,
    )

    async def settle_dead(shard: int, how: str, *, by_itself: bool) -> Claim | None:
        # Another folder at that path has the journals of another shardd, whose workers hold them.
        if (flaw := lock.displaced()) is not None:
            raise JournalError(f"the journal of shard {shard} is out of reach: state_dir {config.state_dir}: {flaw}")
        return await recovery.settle_dead_worker(shard, Death(how, by_itself=by_itself), router)

    # What keeps the scheduler up to date
    device_sync = DeviceSync(
        Devices(pools.general),
        scheduler,
        steps.add("reading the devices"),
        changed=router.wake,
        send=send,
        defect=defects.note,
        warm_days=lambda: current.warm_days,
        reporting=REPORTING,
    )
    work_poller = WorkPoller(
        jobs,
        scheduler,
        steps,
        found=router.wake,
        poll_every=lambda: current.config.queue.poll_every,
        scan_every=lambda: current.config.queue.scan_every,
    )
    campaign_sync = CampaignSync(
        Campaigns(pools.general),
        scheduler,
        steps.add("reading the campaigns"),
        changed=router.wake,
        resumed=work_poller.scan,
    )
    visits = Visits(
        Devices(pools.general),
        scheduler,
        steps.add("recording visits"),
        every=lambda: current.config.transports.whatsapp.visit_every,
        send=send,
    )

    def hold_logins(held: bool) -> None:
        workers.hold_logins(WHATSAPP.name, held=held)

    library_watch = LibraryWatch(
        LibraryRefusals(pools.general, library=installed_library(), node_id=state_id, node=config.node),
        scheduler,
        device_sync,
        steps.add("watching the version of the library"),
        hold=hold_logins,
        send=send,
    )
    group_assigner = GroupAssigner(
        Groups(pools.queue),
        scheduler,
        work_poller.hint,
        steps.add("sharing out jobs of groups"),
        may_assign=lambda: keeper.settling.is_over(pools.queue.server, keeper.nodes),
        every=lambda: current.config.queue.poll_every,
    )

    work_notices = WorkNotices(
        jobs, scheduler, steps, found=work_poller.hint, grouped=group_assigner.wake, alone=keeper.alone
    )
    router.on_advanced = work_notices.advanced

    # What comes back
    reception = make_reception(
        config,
        pools,
        steps,
        jobs=jobs,
        scheduler=scheduler,
        opt_outs=opt_outs,
        send=send,
        spool_errors=lambda: [shard.spool_error for shard in workers.shards if shard.spool_error is not None],
        unavailable=device_sync.unavailable,
        removed=lambda: device_sync.removed,
    )
    webhooks = Webhooks(
        pools.general,
        WebhookStore(pools.general, incarnation=incarnation, ttl=config.lease.ttl),
        config.webhooks,
        steps.add("listening to shardd_events"),
    )

    # Workers
    spares = Spares(
        config,
        lifeline=lifeline,
        transports=lambda: scheduler.census.transports,
        wanted=lambda: keeper.reserve,
    )
    workers = WorkerPool(
        config,
        spares=spares,
        state_id=state_id,
        settle_dead=settle_dead,
        devices_of=lambda shard: [queue.device.spec for queue in scheduler.of_shard(shard)],
        sessions_dsn=sessions_dsn,
        handlers=MessageHandlers(
            dispatch=router,
            defects=defects,
            device_changed=library_watch.device_changed,
            receipt=reception.receipts.add,
            opt_out_asked=reception.answers.asked,
            arrived=reception.inbox.arrived,
            visited=visits.reported,
            login_answered=library_watch.answered,
            unencodable_device=scheduler.undeliverable,
        ),
        deadlines=lambda: keeper.deadlines,
    )
    spares.busy = workers.starting
    keeper.settling.may_settle = False
    keeper.settling.settle = LostCommits(jobs, memory, in_flight, zone_of).settle_again
    keeper.on_renewed = workers.renewed
    keeper.before_release = device_sync.write_states
    workers.released = keeper.release
    opt_outs.on_heard = workers.opted_out
    keeper.drained = router.drained
    state_watch = StateWatch(lock, lambda: workers.shards, router.wake)
    ownership = Ownership(
        keeper,
        workers,
        read_devices=device_sync.read_all,
        renewed=router.wake,
        end=end,
        why_not=SchemaWatch(pools.leases).why_not,
        hindered_for=state_watch.failing_for,
        away_after=config.lease.ttl,
    )
    steps.vital = steps.add("renewing the leases")
    renewal = Renewal(steps.vital, ownership.renew, every=config.lease.renew_every, due=keeper.due)
    keeper.on_leaving = renewal.wake

    def listener(channel: str, heard: Callable[[str], None]) -> NotificationListener:
        return NotificationListener(pools.general, channel, heard=heard, step=steps.add(f"listening to {channel}"))

    listeners = (
        listener("shardd_jobs", lambda _: work_poller.poll()),
        listener("shardd_devices", lambda _: device_sync.wake()),
        listener("shardd_campaigns", lambda _: campaign_sync.wake()),
        listener("shardd_leases", lambda _: renewal.wake()),
        listener(NOTICES, work_notices.heard),
    )

    # Start, upkeep, status, reload
    take_over = TakeOver(keeper, ownership, recovery, workers, jobs, device_sync, campaign_sync, opt_outs)
    periodic = make_periodic_work(
        config,
        current,
        pools,
        steps,
        jobs=jobs,
        scheduler=scheduler,
        down=lambda: down_states(workers.shards),
        hint=work_poller.hint,
        claim_watch=claim_watch,
        recovery=recovery,
        take_over=take_over,
        embedded=embedded,
    )
    session_pool = SessionPool(
        current,
        sessions_dsn,
        steps,
        devices=lambda: devices_with_sessions(scheduler),
        workers=lambda: len(keeper.epochs),
        host=lambda: Host(host.memory(), most_files(), host.threads()),
        publish=workers.change_store_access,
    )

    dashboard = Dashboard(config, dsn, sessions_dsn)

    def apply(config: Config) -> None:
        workers.configure(config)
        device_sync.read_all_soon()
        opt_outs.configure(config)
        reception.configure(config)
        webhooks.configure(config.webhooks)
        dashboard.configure(config)
        scheduler.limits_changed(time.monotonic())
        router.wake()

    reload = Reload(current, notifier, reload_asked, apply=apply, held=lambda: keeper.epochs, restart=workers.restart)
    node = Node(
        current=current,
        scheduler=scheduler,
        router=router,
        workers=workers,
        spares=spares,
        keeper=keeper,
        device_sync=device_sync,
        state_watch=state_watch,
        library_watch=library_watch,
        dashboard=dashboard,
        queue=periodic.queue,
        webhooks=webhooks.statuses,
        unattributed=lambda: reception.unattributed.count,
        reporters=(
            *(defects, poison, memory, workers, keeper, keeper.picture, scheduler, state_watch, recovery, opt_outs),
            *(keeper.wall_clock, steps, claim_watch, visits, session_pool, library_watch, dashboard),
            *reception.reporters,
            *periodic.reporters,
        ),
        notes=(
            lambda: recovery.notes,
            keeper.notes,
            claim_watch.notes,
            memory.notes,
            periodic.server_watch.notes,
            notes,
            reload.notes,
            webhooks.notes,
            session_pool.notes,
            workers.notes,
            keeper.picture.notes,
            reception.unattributed.notes,
            spares.notes,
            dashboard.notes,
            *(each.notes for each in listeners),
        ),
        database=database,
        replication=periodic.server_watch.replication,
        sessions=lambda: session_pool.words,
        database_error=lambda: router.database_error or steps.database_error(),
        stop=ask_to_stop,
        reload=reload.reload,
    )
    # It also asks the node for its status.
    node.reporters = (*node.reporters, control)
    report = partial(report_to_others, pools.general, state_id, incarnation, node.summary)

    # Stopped in the reverse order: the workers drain first, what they report is written, the leases go back last.
    services: list[Service] = [
        control,
        dashboard,
        session_pool,
        ownership,
        renewal,
        *periodic.services,
        Periodic(steps, "reporting to the other nodes", report, every=config.lease.renew_every, share=STATUS_SHARE),
        router,
        webhooks,
        opt_outs,
        *reception.services,
        visits,
        device_sync,
        campaign_sync,
        library_watch,
        *listeners,
        work_notices,
        group_assigner,
        state_watch,
        reload,
        SystemdReporter(notifier, node, lambda: workers.ticked_at, end),
        work_poller,
        workers,
        spares,
    ]
    return Composition(take_over, services, node)
