"""The parts of a supervisor, put together: who is given whom.

Arrows of calls: watchers hint the router, the router tells the fleet, the fleet tells the workers; workers' words go
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
from shardd.supervisor.bindings import BindingCheck
from shardd.supervisor.campaigns import CampaignSync
from shardd.supervisor.cancelled import CancelledJobs
from shardd.supervisor.claim_watch import ClaimWatch
from shardd.supervisor.closings import Closings
from shardd.supervisor.cloud_webhook import CloudWebhook, make_cloud_webhook
from shardd.supervisor.defects import Defects
from shardd.supervisor.device_sync import DeviceSync
from shardd.supervisor.fleet import Fleet
from shardd.supervisor.groups import GroupWork
from shardd.supervisor.leases import LeaseKeeper
from shardd.supervisor.lines import Lines
from shardd.supervisor.lock import StateLock
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.opt_out_spool import OptOutSpool
from shardd.supervisor.opt_outs import OptOutInbox, Screen, region_of
from shardd.supervisor.outbox.held import HeldEventWatch
from shardd.supervisor.outbox.upkeep import EventUpkeep
from shardd.supervisor.outbox.webhooks import Webhooks
from shardd.supervisor.pools import Pools
from shardd.supervisor.problems import ReportsProblems
from shardd.supervisor.process import Launch
from shardd.supervisor.receipts import Receipts
from shardd.supervisor.recovery import LOST_AFTER, Recovery
from shardd.supervisor.retention import Retention
from shardd.supervisor.router import Router
from shardd.supervisor.rules import Rules
from shardd.supervisor.set_aside import SetAside
from shardd.supervisor.state_watch import StateWatch
from shardd.supervisor.steps import Steps
from shardd.supervisor.work_poller import WorkPoller
from shardd.supervisor.worker_messages import Hearers
from shardd.transports.platforms.accounts import account_of


@dataclass(slots=True)
class Parts:
    """One of each."""

    rules: Rules
    jobs: Jobs
    keeper: LeaseKeeper
    lines: Lines
    router: Router
    fleet: Fleet
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
    group_work: GroupWork
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
        return _zone_of(device_id, self.lines, self.rules)

    def configure(self, config: Config, now: float) -> None:
        """The config was reloaded; `now` on the monotonic clock."""
        self.rules.config = config
        self.router.batch, self.router.backoff = config.queue.batch, self.rules.job_backoff
        self.work_poller.poll_every = config.queue.poll_every
        self.work_poller.scan_every = config.queue.scan_every
        self.group_work.every = config.queue.poll_every
        self.fleet.configure(config)
        self.opt_outs.configure(config)
        self.event_upkeep.config = config.events
        self.webhooks.configure(config.webhooks)
        self.lines.repace(now)
        self.router.wake()


def assemble(config: Config, pools: Pools, launch: Launch, lock: StateLock, *, sessions_dsn: str) -> Parts:
    """Make the parts; nothing runs yet. `lock`: of the state folder; `sessions_dsn`: where workers find devices' sessions."""
    rules = Rules(config)
    jobs = Jobs(pools.queue)
    keeper = LeaseKeeper(
        pools.leases, node=config.node, shards=config.shards, ttl=config.lease.ttl, margin=config.lease.margin
    )
    lines = Lines(
        shard_of=lambda device_id: shard_of(device_id, config.shards),
        pace_of=rules.pace_of,
        room_of=rules.room_of,
        account_of=lambda device: account_of(device.transport, device.settings),
    )

    def say(shard: int, message: ipc.ToWorker) -> bool:
        return fleet.say(shard, message)

    def region(device_id: str) -> str | None:
        line = lines.by_id.get(device_id)
        return None if line is None else region_of(rules.config, line.device.transport)

    opt_outs = OptOuts(pools.queue)
    spool = OptOutSpool(config.state_dir)
    inbox = OptOutInbox(opt_outs, config, spool)

    defects = Defects()
    set_aside = SetAside()
    router = Router(
        jobs=jobs,
        lines=lines,
        say=say,
        may_claim=lambda: keeper.good() and state_watch.trouble is None,
        batch=config.queue.batch,
        backoff=rules.job_backoff,
        set_aside=set_aside.note,
        screen=Screen(opt_outs, region),
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
    fleet = Fleet(
        config,
        launch,
        router=router,
        devices_of=lambda shard: [line.device.spec for line in lines.of_shard(shard)],
        sessions_dsn=sessions_dsn,
        hearers=Hearers(
            router=router,
            defects=defects,
            closings=Closings(),
            device_changed=device_sync.changed,
            receipt=receipts.add,
            opted_out=inbox.add,
            untold=lines.untold,
        ),
        lease_left=keeper.seconds_left,
    )
    keeper.on_renewed = fleet.renewed
    state_watch = StateWatch(lock, lambda: fleet.shards, router.wake)
    recovery = Recovery(
        config.state_dir,
        launch.state_id,
        jobs,
        node=config.node,
        shards=config.shards,
        backoff=lambda: rules.job_backoff,
        grace=LOST_AFTER * config.lease.ttl,
        zones=lambda device_id: _zone_of(device_id, lines, rules),
        set_aside=set_aside.note,
    )
    binding_check = BindingCheck(ProducerAdmin(pools.rest))
    return Parts(
        rules=rules,
        jobs=jobs,
        keeper=keeper,
        lines=lines,
        router=router,
        fleet=fleet,
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
        group_work=GroupWork(
            Groups(pools.queue),
            lines,
            work_poller.hint,
            steps.add("sharing out jobs of groups"),
            every=config.queue.poll_every,
        ),
        receipts=receipts,
        opt_outs=inbox,
        cloud_webhook=make_cloud_webhook(config, lines, receipt=receipts.add, incoming=inbox.incoming),
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
            fleet,
            lines,
            state_watch,
            recovery,
            spool,
            steps,
            binding_check,
            claim_watch,
            held_events,
        ),
    )


def _zone_of(device_id: str, lines: Lines, rules: Rules) -> tzinfo:
    line = lines.by_id.get(device_id)
    return rules.config.pacing.zone if line is None else line.pace.zone
