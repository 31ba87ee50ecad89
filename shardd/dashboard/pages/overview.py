"""The first page: is everything well, and if not, what is wrong and what to do about it. It changes as it happens."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.chart import Chart
from shardd.dashboard.live import Live
from shardd.dashboard.pages.audit import unfinished_acts
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure, spoken
from shardd.errors import DatabaseError, SharddError
from shardd.queue.devices import SHOWN_STATES
from shardd.queue.pairing_links import TO_LINK
from shardd.queue.webhooks import FailingWebhook, WebhookAdmin
from shardd.states import CAN_SEND, JobState, NodeState, ShardState
from shardd.supervisor.outbox.window import DOWN_AFTER
from shardd.supervisor.status import (
    NodeStatus,
    ShardStatus,
    Status,
    age_of_count,
    age_of_nodes,
    head_word,
    why_no_shards,
)

BESIDE_NOTES, FOR_ALL = "webhooks", "all-webhooks"
"""The parts with webhooks that fail: those that the notes do not name, and all of them, for those who see no notes."""
OF_STATUS: Final = ("head", "tiles", "states", "waits", "shards", "nodes", "notes")
"""Parts that show the node's status, each a template `overview-PART.html` and a topic of that name."""
OF_RATES: Final = ("chart", "minutes")
MEANINGS: Final = {
    "its turn": "after other jobs of its device, or after the gap of its device",
    "a device of its group": "none is free that can send it",
}
"""What does not explain itself."""
FINE: Final = (ShardState.RUNNING, ShardState.DRAINED)


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""

    async def of_status(part: str) -> str:
        try:
            status = await site.supervisor.status()
        except SharddError as error:
            _, words = failure(error)
            return site.render("overview-none.html", None, words=words) if part == "head" else ""
        return site.render(
            f"overview-{part}.html",
            None,
            status=status,
            word=head_word(status),
            shards=_shards(status),
            why_no_shards=why_no_shards(status),
            age=age_of_count(status),
            age_of_nodes=age_of_nodes(status),
            nodes=status.nodes if len(status.nodes) > 1 else [],
            devices=sum(status.device_states.values()),
            ready=sum(number for state, number in status.device_states.items() if state in CAN_SEND)
            - status.totals.shard_down,
            waits=[] if status.queue is None else [_Wait(why, jobs) for why, jobs in status.queue.waits.items()],
            sent_per_second=_sum(status, "sent_per_second"),
            in_flight=_sum(status, "in_flight"),
            others=[node for node in status.nodes if not node.own and _needs_a_look(node)],
        )

    async def of_rates(part: str) -> str:
        hour = live.rates.hour()
        chart = None if hour is None else Chart(hour)
        return site.render(f"overview-{part}.html", None, chart=chart, recorded=live.rates.recorded)

    def part(name: str) -> None:
        # What notes say is for whoever can do something about it.
        operate = name == "notes"
        live.part(
            f"overview-{name}", lambda _: of_status(name) if name in OF_STATUS else of_rates(name), operate=operate
        )

    for name in (*OF_STATUS, *OF_RATES):
        part(name)
    live.part(f"overview-{BESIDE_NOTES}", lambda _: _webhooks(site, BESIDE_NOTES), operate=True)
    live.part(f"overview-{FOR_ALL}", lambda _: _webhooks(site, FOR_ALL))

    async def overview(_: web.Request, sign_in: SignIn) -> web.Response:
        live.watch()
        parts = {name: await of_status(name) for name in OF_STATUS}
        parts |= {name: await of_rates(name) for name in OF_RATES}
        parts["acts"] = ""
        parts |= {} if sign_in.may_operate else {"notes": ""}
        failing = BESIDE_NOTES if sign_in.may_operate else FOR_ALL
        try:
            parts[failing] = await _webhooks(site, failing)
            parts["acts"] = await unfinished_acts(site, sign_in)
        except DatabaseError as error:
            # The rest comes from elsewhere.
            parts[failing] = site.render("overview-gone.html", None, error=error)
        return site.page(
            "overview.html",
            sign_in,
            parts=parts,
            failing=failing,
            own=await _own_shards(site) if sign_in.may_operate else [],
        )

    return [web.get("/", site.signed_in(overview))]


async def _webhooks(site: Site, part: str) -> str:
    """One of the parts with webhooks that fail. Raises DatabaseError."""
    failing = WebhookAdmin(site.database).failing(DOWN_AFTER) if part == FOR_ALL else _failing_webhooks(site)
    return site.render("overview-webhooks.html", None, webhooks=await failing)


async def _failing_webhooks(site: Site) -> list[FailingWebhook]:
    """Those that the notes of this node's status do not name. Raises DatabaseError."""
    failing = await WebhookAdmin(site.database).failing(DOWN_AFTER)
    if not failing:
        return []
    try:
        own = {one.name for one in (await site.supervisor.status()).webhooks}
        tried = set((await site.supervisor.settings()).node.webhooks) - own
    except SharddError:
        return failing  # which of them are still in the config is not known
    return [one for one in failing if one.name in tried]


class _Wait:
    """Queued jobs that wait for the same, and where more of it is seen, if a page shows just that."""

    def __init__(self, why: str, jobs: int) -> None:
        what, _, state = why.partition(": ")
        self.why, self.jobs, self.state = spoken(why), jobs, state
        self.meaning = MEANINGS.get(why, "")
        self.link, self.where = "", ""
        self.its_jobs = ""
        """The jobs themselves; empty: none of the filters of jobs knows the state of a shard."""
        if what != "its shard":
            self.its_jobs = fields.link("/jobs", {"state": JobState.QUEUED, "waits_for": why})
        self.is_phone = what == "its device" and state in TO_LINK
        if what == "its device" and state in SHOWN_STATES:
            self.link, self.where = fields.link("/devices", {"state": state}), "devices"
        elif what == "its campaign":
            self.link, self.where = fields.link("/campaigns", {"state": state}), "campaigns"
        elif what == "its shard":
            self.link, self.where = "#shards", "shards"


def _shards(status: Status) -> list[ShardStatus]:
    """Those of this node, with those first that need a look."""
    own = [shard for shard in status.shards if shard.epoch is not None]
    return sorted(own, key=lambda shard: (shard.state in FINE, shard.shard))


async def _own_shards(site: Site) -> list[int]:
    try:
        return sorted(shard.shard for shard in _shards(await site.supervisor.status()))
    except SharddError:
        return []  # the head says it


def _needs_a_look(node: NodeStatus) -> bool:
    return bool(node.problems or node.down) or node.state == NodeState.AWAY


def _sum(status: Status, name: str) -> float:
    """Over this node, as it is now, and the others, as they last reported, if that was lately."""
    known = age_of_nodes(status) is None
    others = sum(getattr(node, name) or 0 for node in status.nodes if known and not node.own)
    return others + float(getattr(status.totals, name))
