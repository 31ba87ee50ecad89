"""Makes the work that a node repeats beside sending: what, how often, and how much of the database's time it may take.

Each period is a constant next to its work. Nothing of it is needed for a job to be sent, and each has a step of its own, so that
one that fails is retried and reported while the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shardd.config import Config
from shardd.embedded import EmbeddedPostgres
from shardd.queue.events import Events
from shardd.queue.forgetting import Forgetting
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.lane_waits import LaneWaits
from shardd.queue.opt_outs import OptOuts
from shardd.queue.producers import ProducerAdmin
from shardd.queue.records import WorkHint
from shardd.queue.server_limits import ServerLimits
from shardd.queue.webhooks import WebhookAdmin
from shardd.supervisor.cluster import cleanup, upkeep
from shardd.supervisor.cluster.server_watch import EVERY as SERVER_EVERY
from shardd.supervisor.cluster.server_watch import ServerWatch
from shardd.supervisor.dispatch.claim_watch import ClaimWatch
from shardd.supervisor.dispatch.recovery import Recovery
from shardd.supervisor.inbound.resends import RESENDS_EVERY, resend_unreadable
from shardd.supervisor.outbox.upkeep import CHECK_EVERY as HELD_EVERY
from shardd.supervisor.outbox.upkeep import PURGE_EVERY, EventUpkeep
from shardd.supervisor.pools import Pools
from shardd.supervisor.problems import ReportsProblems
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.scheduling.lane_waits import EVERY as LANE_WAITS_EVERY
from shardd.supervisor.scheduling.lane_waits import LaneWaitRecorder
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Periodic, Steps
from shardd.supervisor.status import QueueStatus
from shardd.supervisor.takeover import TakeOver
from shardd.supervisor.workers.deaths import JOURNAL_RETRY


@dataclass(frozen=True, slots=True)
class PeriodicWork:
    """What the node runs, and what its status shows of it."""

    services: Sequence[Periodic]
    reporters: Sequence[ReportsProblems]
    queue: Callable[[], QueueStatus | None]
    """The last count of the queue; None: not counted yet."""
    server_watch: ServerWatch


def make_periodic_work(
    config: Config,
    current: CurrentConfig,
    pools: Pools,
    steps: Steps,
    *,
    jobs: Jobs,
    scheduler: Scheduler,
    down: Callable[[], Mapping[int, str]],
    hint: Callable[[list[WorkHint]], None],
    claim_watch: ClaimWatch,
    recovery: Recovery,
    take_over: TakeOver,
    embedded: EmbeddedPostgres | None,
) -> PeriodicWork:
    """`config`: for what no reload changes; `hint`: gets what was released; `down`: see `down_states`."""
    bindings = upkeep.BindingCheck(ProducerAdmin(pools.general))
    counter = upkeep.QueueCounter(
        Counts(pools.general), lambda: scheduler.opens(time.monotonic()), lambda: scheduler.held_up(down())
    )
    events = EventUpkeep(Events(pools.general), WebhookAdmin(pools.general), lambda: current.config.events)
    forgetting = upkeep.ForgettingCheck(Forgetting(pools.general))
    lane_waits = LaneWaitRecorder(LaneWaits(pools.general), scheduler)
    order_groups = upkeep.OrderGroups(jobs, hint)
    server_watch = ServerWatch(ServerLimits(pools.watch))

    # Work that may take long: no run of it is called hanging.
    long = partial(Periodic, steps, patience=None)
    # Work that costs the database much: the longer it takes, the longer it pauses.
    seldom = partial(Periodic, steps, share=upkeep.SELDOM)
    # A pass through all live jobs: any number of statements.
    all_jobs = partial(seldom, patience=None)
    services = [
        Periodic(steps, "preparing months of the archive", jobs.prepare_archive, every=upkeep.SWEEP_EVERY),
        Periodic(steps, "settling what a journal covers", take_over.retry, every=JOURNAL_RETRY, first=JOURNAL_RETRY),
        Periodic(steps, "recording what lanes wait for", lane_waits.record, every=LANE_WAITS_EVERY),
        Periodic(steps, "looking for held events", events.check, every=HELD_EVERY),
        Periodic(steps, "checking bound producers", bindings.check, every=upkeep.BINDINGS_EVERY),
        Periodic(steps, "looking for interrupted erasures", forgetting.check, every=upkeep.FORGETTING_EVERY),
        all_jobs("counting the queue", counter.count, every=upkeep.DEPTH_EVERY),
        all_jobs("looking for stuck claims", claim_watch.search, every=config.lease.renew_every),
        all_jobs("looking for claims of lost nodes", recovery.settle_lost_nodes, every=config.lease.ttl),
        seldom("advancing order groups", order_groups.advance, every=upkeep.ORDER_EVERY),
        seldom("checking the server's limits", server_watch.check, every=SERVER_EVERY),
        long("purging events", events.purge, every=PURGE_EVERY),
        long(
            "sending unreadable messages again",
            partial(resend_unreadable, jobs, lambda: current.config.queue),
            every=RESENDS_EVERY,
        ),
        long("bringing addresses up to date", OptOuts(pools.general).refresh, every=upkeep.SWEEP_EVERY),
        long("ending expired jobs", partial(cleanup.end_expired, jobs), every=upkeep.EXPIRE_EVERY),
        long(
            "ending jobs of cancelled campaigns",
            partial(cleanup.end_cancelled, pools.queue),
            every=upkeep.CANCELLED_EVERY,
        ),
        long(
            "deleting old rows",
            lambda: cleanup.delete_old(pools.general, current.config.retention, current.config.inbox),
            every=upkeep.RETENTION_EVERY,
        ),
    ]
    if embedded is not None:
        revive = partial(upkeep.revive, embedded)
        services.append(Periodic(steps, "restarting the embedded PostgreSQL", revive, every=upkeep.POSTGRES_EVERY))
    return PeriodicWork(services, (bindings, events, server_watch, forgetting), lambda: counter.queue, server_watch)
