"""Makes what receives: the inbox, its files, receipts, the webhooks of platforms, and answers about opt-outs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardd import ipc
from shardd.config import Config
from shardd.errors import DeviceUnavailableError
from shardd.incoming_spool import IncomingSpool
from shardd.queue.inbox import Inbox
from shardd.queue.jobs import Jobs
from shardd.queue.opt_outs import OptOuts
from shardd.queue.records import RemovedDevice
from shardd.supervisor.inbound.cloud_webhook import make_cloud_webhook
from shardd.supervisor.inbound.inbox import InboxWriter
from shardd.supervisor.inbound.media.downloads import MediaDownloads
from shardd.supervisor.inbound.opt_out_answers import OptOutAnswers
from shardd.supervisor.inbound.opt_outs import OptOutInbox
from shardd.supervisor.inbound.path_webhook import make_path_webhooks
from shardd.supervisor.inbound.receipt_spool import ReceiptSpool
from shardd.supervisor.inbound.receipts import Receipts
from shardd.supervisor.inbound.unattributed import UnattributedReports
from shardd.supervisor.pools import Pools
from shardd.supervisor.problems import ReportsProblems
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Steps


@dataclass(frozen=True, slots=True)
class Reception:
    """The parts that others report to, all that run, and what the status shows."""

    inbox: InboxWriter
    media: MediaDownloads
    answers: OptOutAnswers
    receipts: Receipts
    unattributed: UnattributedReports
    webhooks: Sequence[Service]

    @property
    def services(self) -> Sequence[Service]:
        """In the order of their start."""
        return (self.media, self.inbox, self.answers, self.receipts, *self.webhooks)

    @property
    def reporters(self) -> Sequence[ReportsProblems]:
        """Those with problems."""
        return (self.inbox, self.media, self.receipts)

    def configure(self, config: Config) -> None:
        """The config was reloaded."""
        self.inbox.configure(config)
        self.media.configure(config)


def make_reception(
    config: Config,
    pools: Pools,
    steps: Steps,
    *,
    jobs: Jobs,
    scheduler: Scheduler,
    opt_outs: OptOutInbox,
    send: Callable[[int, ipc.ToWorker], bool],
    spool_errors: Callable[[], Sequence[str]],
    unavailable: Callable[[str, DeviceUnavailableError, float], None],
    removed: Callable[[], Sequence[RemovedDevice]],
) -> Reception:
    """`send`: to a shard's worker; `spool_errors`: see `InboxWriter`; `unavailable`: gets what a platform says of a device."""

    def device_of(device_id: str) -> ipc.DeviceSpec | None:
        queue = scheduler.queues.get(device_id)
        return None if queue is None else queue.device.spec

    spool = IncomingSpool(config.state_dir)
    media = MediaDownloads(
        Inbox(pools.general),
        spool,
        steps.add("deleting files of messages"),
        config=config,
        device_of=device_of,
    )
    inbox = InboxWriter(
        Inbox(pools.incoming),
        spool,
        OptOuts(pools.incoming),
        opt_outs=opt_outs,
        media=media,
        config=config,
        spool_errors=spool_errors,
        has_device=lambda device_id: device_id in scheduler.queues,
    )
    answers = OptOutAnswers(OptOuts(pools.opt_outs), opt_outs.contains, send)
    receipts = Receipts(jobs, ReceiptSpool(config.state_dir))
    unattributed = UnattributedReports()
    cloud_webhook = make_cloud_webhook(
        config,
        scheduler,
        receipts=receipts.keep,
        incoming=inbox.receive,
        unavailable=unavailable,
        removed=removed,
        unattributed=unattributed,
    )
    path_webhooks = make_path_webhooks(
        config,
        scheduler,
        receipts=receipts.keep,
        incoming=inbox.receive,
        removed=removed,
        unattributed=unattributed,
    )
    webhooks = (*(() if cloud_webhook is None else (cloud_webhook,)), *path_webhooks)
    return Reception(inbox, media, answers, receipts, unattributed, webhooks)
