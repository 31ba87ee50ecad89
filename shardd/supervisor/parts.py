"""The parts of a supervisor, put together: who is given whom.

Arrows of calls: watchers hint the router, the router tells the workers, the fleet tells the workers; workers' words go
back the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

from shardd import ipc
from shardd.config import Config
from shardd.hashing import shard_of
from shardd.queue.campaigns import Campaigns
from shardd.queue.counts import Counts
from shardd.queue.devices import Devices
from shardd.queue.events import Events
from shardd.queue.groups import Groups
from shardd.queue.jobs import Jobs
from shardd.queue.opt_outs import OptOuts
from shardd.queue.producer_admin import ProducerAdmin
from shardd.queue.webhooks import WebhookStore
from shardd.supervisor.admin.defects import Defects
from shardd.supervisor.admin.problems import ReportsProblems
from shardd.supervisor.cluster.bindings import BindingCheck
from shardd.supervisor.cluster.cancelled import CancelledJobs
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.retention import Retention
from shardd.supervisor.cluster.state_lock import StateLock
from shardd.supervisor.cluster.state_watch import StateWatch
from shardd.supervisor.dispatch.claim_watch import ClaimWatch
from shardd.supervisor.dispatch.recovery import LOST_AFTER, Recovery
from shardd.supervisor.dispatch.router import Router
from shardd.supervisor.dispatch.set_aside import SetAside
from shardd.supervisor.inbound.cloud_webhook import CloudWebhook, make_cloud_webhook
from shardd.supervisor.inbound.opt_out_spool import OptOutSpool
from shardd.supervisor.inbound.opt_outs import OptOutCheck, OptOutInbox, region_of
from shardd.supervisor.inbound.receipts import Receipts
from shardd.supervisor.outbox.held import HeldEventWatch
from shardd.supervisor.outbox.upkeep import EventUpkeep
from shardd.supervisor.outbox.webhooks import Webhooks
from shardd.supervisor.pools import Pools
from shardd.supervisor.scheduling.campaigns import CampaignSync
from shardd.supervisor.scheduling.device_sync import DeviceSync
from shardd.supervisor.scheduling.groups import GroupAssigner
from shardd.supervisor.scheduling.notifications import NotificationListener
from shardd.supervisor.scheduling.rules import Rules
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.work_poller import WorkPoller
from shardd.supervisor.steps import Steps
from shardd.supervisor.workers.client_closings import ClientClosings
from shardd.supervisor.workers.messages import MessageHandlers
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.process import Launch
from shardd.transports.platforms.accounts import account_of


@dataclass(slots=True)
class Parts:
    """One of each."""

    rules: Rules
    jobs: Jobs
    keeper: LeaseKeeper
    scheduler: Scheduler
    router: Router
    workers: WorkerPool
    steps: Steps
    listeners: tuple[NotificationListener, ...]
    device_sync: DeviceSync
    work_poller: WorkPoller
    counts: Counts
    claim_watch: ClaimWatch
    held_events: HeldEventWatch
    campaign_sync: CampaignSync
    cancelled: CancelledJobs
    retention: Retention
    group_assigner: GroupAssigner
    receipts: Receipts
    opt_outs: OptOutInbox
    cloud_webhook: CloudWebhook | None
    event_upkeep: EventUpkeep
    webhooks: Webhooks
    state_watch: StateWatch
    recovery: Recovery
    binding_check: BindingCheck
    reporters: tuple[ReportsProblems, ...] = ()
    """The parts whose problems `status` shows."""

    def zone_of(self, device_id: str) -> tzinfo:
        """Whose midnight begins a device's day."""
        return _zone_of(device_id, self.scheduler, self.rules)

    def configure(self, config: Config, now: float) -> None:
        """The config was reloaded; `now` on the monotonic clock."""
        self.rules.config = config
        self.router.batch, self.router.backoff = config.queue.batch, self.rules.job_backoff
        self.work_poller.poll_every = config.queue.poll_every
        self.work_poller.scan_every = config.queue.scan_every
        self.group_assigner.every = config.queue.poll_every
        self.workers.configure(config)
        self.opt_outs.configure(config)
        self.event_upkeep.config = config.events
        self.webhooks.configure(config.webhooks)
        self.scheduler.repace(now)
        self.router.wake()


def assemble(config: Config, pools: Pools, launch: Launch, lock: StateLock, *, sessions_dsn: str) -> Parts:
    """Make the parts; nothing runs yet. `lock`: of the state folder; `sessions_dsn`: where workers find devices' sessions."""
    rules = Rules(config)
    jobs = Jobs(pools.queue)
    keeper = LeaseKeeper(
        pools.leases, node=config.node, shards=config.shards, ttl=config.lease.ttl, margin=config.lease.margin
    )
    scheduler = Scheduler(
        shard_of=lambda device_id: shard_of(device_id, config.shards),
        pace_of=rules.pace_of,
        room_of=rules.room_of,
        account_of=lambda device: account_of(device.transport, device.settings),
    )

    def say(shard: int, message: ipc.ToWorker) -> bool:
        return workers.say(shard, message)

    def region(device_id: str) -> str | None:
        queue = scheduler.by_id.get(device_id)
        return None if queue is None else region_of(rules.config, queue.device.transport)

    opt_outs = OptOuts(pools.queue)
    spool = OptOutSpool(config.state_dir)
    inbox = OptOutInbox(opt_outs, config, spool)

    defects = Defects()
    set_aside = SetAside()
    router = Router(
        jobs=jobs,
        scheduler=scheduler,
        say=say,
        may_claim=lambda: keeper.good() and state_watch.trouble is None,
        batch=config.queue.batch,
        backoff=rules.job_backoff,
        set_aside=set_aside.note,
        opt_out_check=OptOutCheck(opt_outs, region),
        defect=defects.note,
    )
    steps = Steps()
    held_events = HeldEventWatch(Events(pools.rest))
    claim_watch = ClaimWatch(Jobs(pools.rest), router, lambda: rules.config.queue.send_timeout)
    device_sync = DeviceSync(
        Devices(pools.rest),
        router,
        steps.add("reading the devices"),
        say=say,
        defect=defects.note,
        warm_days=lambda: rules.warm_days,
    )
    work_poller = WorkPoller(
        jobs, router, steps, poll_every=config.queue.poll_every, scan_every=config.queue.scan_every
    )
    campaign_sync = CampaignSync(Campaigns(pools.rest), router, steps.add("reading the campaigns"), work_poller.scan)

    def listener(channel: str, wake: Callable[[], None]) -> NotificationListener:
        return NotificationListener(
            pools.rest, channel, heard=lambda _: wake(), step=steps.add(f"listening to {channel}")
        )

    receipts = Receipts(jobs)
    workers = WorkerPool(
        config,
        launch,
        router=router,
        devices_of=lambda shard: [queue.device.spec for queue in scheduler.of_shard(shard)],
        sessions_dsn=sessions_dsn,
        handlers=MessageHandlers(
            router=router,
            defects=defects,
            closings=ClientClosings(),
            device_changed=device_sync.changed,
            receipt=receipts.add,
            opted_out=inbox.add,
            untold=scheduler.untold,
        ),
        lease_left=keeper.seconds_left,
    )
    keeper.on_renewed = workers.renewed
    state_watch = StateWatch(lock, lambda: workers.shards, router.wake)
    recovery = Recovery(
        config.state_dir,
        launch.state_id,
        jobs,
        node=config.node,
        shards=config.shards,
        backoff=lambda: rules.job_backoff,
        grace=LOST_AFTER * config.lease.ttl,
        zones=lambda device_id: _zone_of(device_id, scheduler, rules),
        set_aside=set_aside.note,
    )
    binding_check = BindingCheck(ProducerAdmin(pools.rest))
    return Parts(
        rules=rules,
        jobs=jobs,
        keeper=keeper,
        scheduler=scheduler,
        router=router,
        workers=workers,
        steps=steps,
        listeners=(
            listener("shardd_jobs", work_poller.look),
            listener("shardd_devices", device_sync.wake),
            listener("shardd_campaigns", campaign_sync.wake),
        ),
        device_sync=device_sync,
        work_poller=work_poller,
        counts=Counts(pools.rest),
        claim_watch=claim_watch,
        held_events=held_events,
        campaign_sync=campaign_sync,
        cancelled=CancelledJobs(pools.queue),
        retention=Retention(pools.rest),
        group_assigner=GroupAssigner(
            Groups(pools.queue),
            scheduler,
            work_poller.hint,
            steps.add("sharing out jobs of groups"),
            every=config.queue.poll_every,
        ),
        receipts=receipts,
        opt_outs=inbox,
        cloud_webhook=make_cloud_webhook(config, scheduler, receipt=receipts.add, incoming=inbox.incoming),
        event_upkeep=EventUpkeep(pools.rest, config.events),
        webhooks=Webhooks(
            pools.rest,
            WebhookStore(pools.rest, node=config.node, incarnation=keeper.incarnation, ttl=config.lease.ttl),
            config.webhooks,
            steps.add("listening to shardd_events"),
        ),
        state_watch=state_watch,
        recovery=recovery,
        binding_check=binding_check,
        reporters=(
            defects,
            set_aside,
            workers,
            scheduler,
            state_watch,
            recovery,
            spool,
            steps,
            binding_check,
            claim_watch,
            held_events,
        ),
    )


def _zone_of(device_id: str, scheduler: Scheduler, rules: Rules) -> tzinfo:
    queue = scheduler.by_id.get(device_id)
    return rules.config.pacing.zone if queue is None else queue.pace.zone
