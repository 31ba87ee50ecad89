"""What tokens may look at: what the pages show, in the form in which `--json` of the command line prints it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from shardd.config import TRANSPORTS
from shardd.dashboard.api.models import (
    Acts,
    Campaign,
    CampaignProgress,
    Campaigns,
    DeviceDetails,
    Devices,
    Id,
    Nodes,
    OptOuts,
    WebhookFailures,
    Webhooks,
)
from shardd.dashboard.api.operations import LOOK, OPERATE, Call, Nothing, Operation
from shardd.dashboard.api.problems import CONFLICT, COUNTING, NO_SUCH, SUPERVISOR, Kind, ProblemError
from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.site import Site
from shardd.dashboard.supervisor_client import Settings
from shardd.errors import NotRunningError, SharddError
from shardd.queue.acts import ActFilter as Wanted
from shardd.queue.acts import Acts as AuditLog
from shardd.queue.api_tokens import May
from shardd.queue.campaign_counts import row_of
from shardd.queue.campaign_progress import campaign_json, progress_of
from shardd.queue.campaigns import CampaignAdmin, CampaignRow, CampaignState
from shardd.queue.device_search import MOST_COUNTED, DeviceQuestion, DeviceSearch
from shardd.queue.devices import SHOWN_STATES, DeviceAdmin, DeviceRow
from shardd.queue.job_search import BUDGET
from shardd.queue.opt_outs import OptOutAdmin
from shardd.queue.queries import Queries
from shardd.queue.unknown_device import unknown_device
from shardd.queue.webhooks import WebhookAdmin, state_of, webhook_json
from shardd.supervisor.cluster.node_shares import look, sharing_as_json
from shardd.supervisor.scheduling.current_config import device_pace
from shardd.supervisor.scheduling.device_json import device_json, outlook_json
from shardd.supervisor.scheduling.outlook import DeviceOutlook
from shardd.supervisor.scheduling.outlook_words import Outlook, estimate, told
from shardd.supervisor.status import Status

MOST: Final = 1000
COUNTS: Final = 20.0
"""Seconds that an answer waits for the first count."""
_COUNTED: Final = f"Of a device, up to {MOST_COUNTED:,} live `jobs` are counted: it may have more."
_COUNTED_LIVE: Final = f"Of a campaign, up to {MOST_COUNTED:,} `live` jobs are counted: its progress has all of them."
Limit = Annotated[int, Meta(ge=1, le=MOST)]
ShownState: Final[Any] = Literal[SHOWN_STATES]
Transport: Final[Any] = Literal[tuple(sorted(TRANSPORTS))]


class DeviceFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which devices."""

    state: ShownState | None = None
    transport: Transport | None = None
    group: str | None = None
    search: str | None = None
    after: str | None = None
    limit: Limit = 100


class CampaignFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which campaigns."""

    state: CampaignState | None = None
    limit: Limit = 100


class FailureFilter(msgspec.Struct, forbid_unknown_fields=True):
    """How many."""

    limit: Limit = 100


class ActFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which acts."""

    who: str | None = None
    act: str | None = None
    target: str | None = None
    """A thing, such as `device d1`, or its name."""
    before: Id | None = None
    limit: Limit = 100


class OptOutFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which opt-outs."""

    source: Literal["producer", "message", "operator", "import", "forgotten"] | None = None
    device: str | None = None
    limit: Limit = 100


class LookCalls:
    """What is asked by those who look."""

    def __init__(self, site: Site, numbers: CampaignNumbers) -> None:
        self._site = site
        self._numbers = numbers

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            _looking("/status", self.status, Status, "Show the node", SUPERVISOR),
            _looking("/nodes", self.nodes, Nodes, "List nodes and their shards"),
            _looking("/devices", self.devices, Devices, "List devices", SUPERVISOR, query=DeviceFilter, about=_COUNTED),
            _looking(
                "/devices/{device}", self.device, DeviceDetails, "Show a device", NO_SUCH, SUPERVISOR, about=_COUNTED
            ),
            _looking(
                "/campaigns", self.campaigns, Campaigns, "List campaigns", query=CampaignFilter, about=_COUNTED_LIVE
            ),
            _looking("/campaigns/{campaign}", self.campaign, Campaign, "Show a campaign", NO_SUCH, about=_COUNTED_LIVE),
            _looking(
                "/campaigns/{campaign}/progress",
                self.progress,
                CampaignProgress,
                "Show a campaign's progress",
                NO_SUCH,
                COUNTING,
                about="Its jobs are counted in the background, at most for a hundredth of the time, and the numbers moved by "
                "events in between, while somebody looks at the pages.",
            ),
            _looking("/webhooks", self.webhooks, Webhooks, "List webhooks", SUPERVISOR),
            _looking(
                "/webhooks/{webhook}/failures",
                self.webhook_failures,
                WebhookFailures,
                "List events of a webhook that were set aside, newest first",
                NO_SUCH,
                query=FailureFilter,
            ),
            _looking(
                "/acts",
                self.acts,
                Acts,
                "List acts of the audit log, newest first",
                query=ActFilter,
                may=OPERATE,
                about="What people and programs did by pages, the API and commands. `who` is a user, a token or an account, also "
                "one that only sudo names. An act is `unfinished` when it began, and nothing is known of its end.",
            ),
            _looking("/opt-outs", self.opt_outs, OptOuts, "List opt-outs", query=OptOutFilter),
        ]

    async def status(self, _: Call) -> Any:
        """As `shardd status`."""
        try:
            return msgspec.to_builtins(await self._site.supervisor.status())
        except SharddError as error:
            raise ProblemError(SUPERVISOR, str(error)) from error

    async def nodes(self, _: Call) -> Any:
        """As `shardd cluster list`."""
        return sharing_as_json(*await look(self._site.database))

    async def devices(self, call: Call) -> Any:
        """As `shardd device list`."""
        asked: DeviceFilter = call.query
        settings = await self.settings()
        question = DeviceQuestion(
            state=asked.state, transport=asked.transport, device_group=asked.group, search=asked.search
        )
        page = await DeviceSearch(self._site.database).page(question, asked.limit, after=asked.after)
        ids = [one.id for one in page.devices]
        rows = await DeviceAdmin(self._site.database).find(
            ids=ids, warm_days=settings.warm_days, most_jobs=MOST_COUNTED
        )
        return {"devices": [_device(one, settings) for one in rows], "later": page.later}

    async def device(self, call: Call) -> Any:
        """As `shardd device show`."""
        settings = await self.settings()
        found = await self.find_device(self._site.database, call.path("device"), settings.warm_days)
        return _device(found, settings) | outlook_json(await self._outlook(found, settings))

    async def find_device(self, database: Queries, name: str, warm_days: int = 0) -> DeviceRow:
        """The device of this name. Raises ProblemError."""
        for device in await DeviceAdmin(database).find(ids=[name], warm_days=warm_days, most_jobs=MOST_COUNTED):
            return device
        raise ProblemError(NO_SUCH, str(await unknown_device(database, name)), field="device", value=name)

    async def campaigns(self, call: Call) -> Any:
        """As `shardd campaign list`."""
        asked: CampaignFilter = call.query
        return {
            "campaigns": await CampaignAdmin(self._site.database).newest(
                asked.limit, state=asked.state, most_jobs=MOST_COUNTED
            )
        }

    async def campaign(self, call: Call) -> Any:
        """One of the list."""
        return await self.find_campaign(self._site.database, call.path("campaign"))

    async def find_campaign(self, database: Queries, name: str) -> CampaignRow:
        """The campaign of this name. Raises ProblemError."""
        for campaign in await CampaignAdmin(database).find([name], most_jobs=MOST_COUNTED):
            return campaign
        raise _no_campaign(name)

    async def progress(self, call: Call) -> Any:
        """As `shardd campaign show`."""
        name = call.path("campaign")
        answer = await self._numbers.details.wait(name, COUNTS)
        if answer is None:
            raise ProblemError(COUNTING, f"the jobs of campaign {name} are being counted: ask again")
        if answer.value is None:
            if answer.error is not None:
                raise ProblemError(COUNTING, f"the jobs of campaign {name} could not be counted: {answer.error}")
            raise _no_campaign(name)
        title = await CampaignAdmin(self._site.database).title(name)
        if title is None:
            raise _no_campaign(name)
        # The counts are of a while ago, and moved by events since; the state is the one of now.
        details = replace(answer.value, row=row_of(title, answer.value.shares))
        counted_at = datetime.fromtimestamp(answer.asked_at, UTC)
        return campaign_json(details, progress_of(details, datetime.now(UTC))) | {"counted_at": counted_at}

    async def webhooks(self, _: Call) -> Any:
        """As `shardd webhook list`."""
        configured = (await self.settings()).node.webhooks
        rows = {row.name: row for row in await WebhookAdmin(self._site.database).all()}
        found = []
        for name in sorted({*rows, *configured}):
            row = rows.get(name)
            found.append(webhook_json(name, state_of(row, configured=name in configured), row))
        return {"webhooks": found}

    async def webhook_failures(self, call: Call) -> Any:
        """As `shardd webhook failed`."""
        name, asked = call.path("webhook"), call.query
        admin = WebhookAdmin(self._site.database)
        found = await admin.failures(name, asked.limit)
        if not found and name not in {row.name for row in await admin.all(1)}:
            raise no_webhook(name)
        return {"failures": found}

    async def acts(self, call: Call) -> Any:
        """As `shardd dashboard acts`."""
        asked: ActFilter = call.query
        wanted = Wanted(asked.who, asked.act, asked.target)
        found = await AuditLog(self._site.database).newest(asked.limit, wanted, before=asked.before, budget=BUDGET)
        return {"acts": found.acts, "older": found.older, "unfinished": found.unfinished}

    async def opt_outs(self, call: Call) -> Any:
        """As `shardd opt-out list`."""
        asked: OptOutFilter = call.query
        admin = OptOutAdmin(self._site.database)
        return {"opt_outs": await admin.newest(asked.limit, source=asked.source, device_id=asked.device)}

    async def settings(self) -> Settings:
        """What the config in effect says. Raises ProblemError."""
        try:
            return await self._site.supervisor.settings()
        except SharddError as error:
            raise ProblemError(SUPERVISOR, str(error)) from error

    async def _outlook(self, device: DeviceRow, settings: Settings) -> Outlook:
        pace = device_pace(settings.pacing, device)
        try:
            answer = await self._site.supervisor.ask("GET", f"/devices/{quote(device.id, safe='')}")
        except SharddError as error:
            why = "no shardd runs here" if isinstance(error, NotRunningError) else str(error)
            return Outlook(estimate(device, pace), pace, f"{why}; estimated from the database")
        return told(msgspec.convert(answer, DeviceOutlook), device, pace)


def _device(device: DeviceRow, settings: Settings) -> dict[str, Any]:
    return device_json(device, settings.pacing, shards=settings.node.shards, visit_every=settings.node.visit_every)


def no_webhook(name: str) -> ProblemError:
    """There is none of this name."""
    words = f"webhook {name} is unknown; the others: shardd webhook list"
    return ProblemError(NO_SUCH, words, field="webhook", value=name)


def not_begun(name: str) -> ProblemError:
    """It is in the config, and no daemon has read that yet."""
    fix = "reload or restart shardd"
    words = f"webhook {name} has not begun yet: the running shardd has not read this config; {fix}"
    return ProblemError(CONFLICT, words, field="webhook", value=name, fix=fix)


def _no_campaign(name: str) -> ProblemError:
    return ProblemError(
        NO_SUCH, f"campaign {name} is unknown; the others: shardd campaign list", field="campaign", value=name
    )


def _looking(
    path: str,
    handle: Any,
    answer: Any,
    summary: str,
    *problems: Kind,
    query: type[msgspec.Struct] = Nothing,
    about: str = "",
    may: frozenset[May] = LOOK,
) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=f"{summary.split(maxsplit=1)[0].lower()}_{handle.__name__}",
        summary=summary,
        about=about,
        may=may,
        handle=handle,
        answer=answer,
        query=query,
        problems=problems,
    )
