"""Devices: a list with filters, and one device with its pace, its next send, its jobs and its replies; pausing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from shardd.config import TRANSPORTS
from shardd.config.transports.device_settings import masked_settings
from shardd.config.transports.sandbox import SANDBOX
from shardd.dashboard import fields
from shardd.dashboard.job_rows import rows_of
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure
from shardd.dashboard.supervised import close_client
from shardd.dashboard.supervisor_client import Settings
from shardd.errors import SharddError, UsageError
from shardd.hashing import shard_of
from shardd.queue.act_log import Acting
from shardd.queue.acts import ALREADY, nothing_to_do
from shardd.queue.device_search import MOST_COUNTED, DeviceQuestion, DeviceSearch, ListedDevice, Order
from shardd.queue.devices import SHOWN_STATES, DeviceAdmin, DeviceRow
from shardd.queue.inbox import InboxAdmin
from shardd.queue.job_admin import Traits
from shardd.queue.job_search import JobSearch, Question
from shardd.queue.pairing_links import TO_LINK
from shardd.queue.queries import Changes
from shardd.queue.unknown_device import unknown_device
from shardd.supervisor.scheduling.current_config import device_pace
from shardd.supervisor.scheduling.device_words import (
    BACKING_OFF,
    last_sent_words,
    pace_facts,
    to_do,
    today_words,
    visit_facts,
    why_words,
)
from shardd.supervisor.scheduling.outlook import DeviceOutlook
from shardd.supervisor.scheduling.outlook_words import Outlook, estimate, next_lines, sent_words, told
from shardd.words import Facts, json_text

MOST: Final = 100
"""Devices of one page."""
LATEST: Final = 20
"""Jobs, and messages, that are shown with a device."""
MOST_GROUPS: Final = 200
"""Device groups that a field suggests."""
BUDGET: Final = 0.01
"""Seconds in which a device's latest jobs are searched before the page is shown; the browser asks for the rest."""
LONGEST_WHY: Final = 200
ORDERS: Final = {Order.ID: "id", Order.LABEL: "label", Order.CHANGED: "last change of state"}


@dataclass(frozen=True, slots=True)
class Line:
    """A device in the list."""

    device: ListedDevice
    queued: str
    today: str
    last_sent: str
    shard: int | None
    why: str


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    search = DeviceSearch(site.database)

    async def devices(request: web.Request, sign_in: SignIn) -> web.Response:
        settings = await _settings(site)
        query = request.query
        question = DeviceQuestion(
            state=fields.choice(query, "state", SHOWN_STATES),
            transport=fields.choice(query, "transport", TRANSPORTS),
            device_group=fields.text(query, "group"),
            search=fields.text(query, "search"),
        )
        order = fields.choice(query, "order", Order) or Order.ID
        shard = fields.number(query, "shard")
        chosen = _of_shard(shard, settings)
        after, before = fields.text(query, "after"), fields.text(query, "before")
        page = await search.page(
            question,
            MOST,
            order=order,
            after=after,
            before=before,
            chosen=chosen,
            warm_days=0 if settings is None else settings.warm_days,
        )
        given = {
            "search": question.search,
            "state": question.state,
            "transport": question.transport,
            "group": question.device_group,
            "shard": None if shard is None else str(shard),
            "order": None if order is Order.ID else order.value,
        }
        return site.page(
            "devices.html",
            sign_in,
            lines=[_line(device, settings) for device in page.devices],
            counts=await search.states(question, chosen),
            given=given,
            link=fields.link,
            later=page.later and fields.link("/devices", {**given, "after": page.later}),
            earlier=page.earlier and fields.link("/devices", {**given, "before": page.earlier}),
            first=fields.link("/devices", given) if after or before else None,
            states=SHOWN_STATES,
            transports=sorted(TRANSPORTS),
            groups=await search.groups(MOST_GROUPS),
            group_label=question.device_group and await search.group_label(question.device_group),
            orders=ORDERS,
            shards=None if settings is None else settings.node.shards,
        )

    async def device(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["device"]
        settings = await _settings(site)
        warm_days = 0 if settings is None else settings.warm_days
        found = await DeviceAdmin(site.database).find(ids=[name], warm_days=warm_days, most_jobs=MOST_COUNTED)
        if not found:
            return site.sorry(sign_in, 404, str(await unknown_device(site.database, name)))
        one = found[0]
        outlook = None if settings is None else await _outlook(site, one, settings)
        has_client = one.transport in TRANSPORTS and TRANSPORTS[one.transport].has_sessions
        waits_for_phone = has_client and one.state in TO_LINK
        latest = await JobSearch(site.database).page(Question(traits=Traits(device_ids=[name])), LATEST, budget=BUDGET)
        return site.page(
            "device.html",
            sign_in,
            device=one,
            facts=_facts(one, settings, outlook),
            next_lines=[] if outlook is None else next_lines(outlook),
            to_do=_to_do(one, outlook, resumes=sign_in.may_operate, links=sign_in.may_operate and waits_for_phone),
            error=None if outlook is None else outlook.device.error,
            groups=await search.groups_of(name),
            **rows_of(latest, {"device": name}, LATEST, turn=1, listed=False),
            messages=await InboxAdmin(site.database).newest(LATEST, device_id=name),
            has_client=has_client,
            waits_for_phone=waits_for_phone,
            all_jobs=fields.link("/jobs", {"device": name}),
            longest_why=LONGEST_WHY,
        )

    async def pause(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["device"]
        why = fields.text(await fields.form(request), "why", longest=LONGEST_WHY)
        async with site.acting(sign_in, f"device {name}", why or "") as acting:
            changes = await DeviceAdmin(acting.database).pause([name], why)
            words = f"paused device {name}; what a worker has in flight is finished"
            words = await _words(acting, name, changes, "paused", words)
        return site.done(sign_in, words)

    async def resume(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["device"]
        async with site.acting(sign_in, f"device {name}") as acting:
            changes = await DeviceAdmin(acting.database).resume([name])
            words = await _words(acting, name, changes, "resumed", f"resumed device {name}")
        return site.done(sign_in, words)

    async def close(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["device"]
        if (error := await close_client(site, sign_in, name)) is not None:
            return site.sorry(sign_in, *failure(error))
        return site.done(sign_in, f"the client of device {name} is closed; the next message opens it again")

    return [
        web.get("/devices", site.signed_in(devices)),
        web.get("/devices/{device}", site.signed_in(device)),
        web.post("/devices/{device}/pause", site.signed_in(pause, act="pause")),
        web.post("/devices/{device}/resume", site.signed_in(resume, act="resume")),
        web.post("/devices/{device}/close", site.signed_in(close, act="close client")),
    ]


async def _words(acting: Acting, name: str, changes: Changes, past: str, words: str) -> str:
    """What is said of pausing or resuming a device: these words, if that changed it. Raises UsageError."""
    if not changes.found:
        raise await unknown_device(acting.database, name)
    if changes.same:
        words = acting.result = nothing_to_do("device", name, ALREADY[past])
    return words


async def _settings(site: Site) -> Settings | None:
    """None: the supervisor does not answer, and has not since the dashboard runs."""
    try:
        return await site.supervisor.settings()
    except SharddError:
        return None


def _to_do(device: DeviceRow, outlook: Outlook | None, *, resumes: bool, links: bool) -> str:
    """What a person does about it, with the buttons that the page has in the place of their commands."""
    if outlook is not None and outlook.device.error is not None:
        return BACKING_OFF
    words = to_do(device)
    if resumes:
        words = words.replace(f": shardd device resume {device.id}", ": Resume, below")
    return words.replace(f": shardd device pair {device.id}", ": Link its phone, below") if links else words


def _of_shard(shard: int | None, settings: Settings | None) -> Callable[[str], bool] | None:
    """Whether a device is of a shard; None: any is wanted. Raises UsageError."""
    if shard is None:
        return None
    if settings is None:
        raise UsageError("the supervisor does not answer, so the shards of devices are unknown: choose any shard")
    if shard >= settings.node.shards:
        raise UsageError(f"there is no shard {shard}: they are numbered 0 to {settings.node.shards - 1}")
    return lambda device_id: _shard_of(device_id, settings.node.shards) == shard


@cache
def _shard_of(device_id: str, shards: int) -> int:
    return shard_of(device_id, shards)


def _line(device: ListedDevice, settings: Settings | None) -> Line:
    pacing = None if settings is None else settings.pacing
    return Line(
        device=device,
        queued=_counted(device.queued),
        today="?" if pacing is None else today_words(device, pacing),
        last_sent="?" if pacing is None else last_sent_words(device, pacing),
        shard=None if settings is None else _shard_of(device.id, settings.node.shards),
        why=why_words(device),
    )


def _counted(jobs: int) -> str:
    return f"{jobs:,}" if jobs < MOST_COUNTED else f"{MOST_COUNTED:,} or more"


async def _outlook(site: Site, device: DeviceRow, settings: Settings) -> Outlook:
    """From this node, else estimated."""
    pace = device_pace(settings.pacing, device)
    try:
        answer = await site.supervisor.ask("GET", f"/devices/{quote(device.id, safe='')}")
    except SharddError as error:
        return Outlook(estimate(device, pace), pace, f"{error}; estimated from the database")
    return told(msgspec.convert(answer, DeviceOutlook), device, pace)


def _facts(device: DeviceRow, settings: Settings | None, outlook: Outlook | None) -> Facts:
    """What the page says below the state; without the supervisor, only what the row says."""
    in_flight = device.in_flight if outlook is None else outlook.device.in_flight
    known: list[tuple[str, Any]] = [
        (
            "transport",
            f"{device.transport}: its messages reach nobody" if device.transport == SANDBOX.name else device.transport,
        ),
        ("label", device.label),
        ("live jobs", _counted(device.jobs) + (f", {in_flight:,} in flight" if in_flight else "")),
    ]
    if settings is not None and outlook is not None:
        known += [
            ("sent today", sent_words(outlook)),
            ("last sent", last_sent_words(device, settings.pacing)),
            *visit_facts(device, settings.node.visit_every),
            *pace_facts(outlook.pace, device),
            ("shard", f"{_shard_of(device.id, settings.node.shards)} of {settings.node.shards}"),
        ]
    shown = masked_settings(device.transport, device.settings)
    known += [
        ("session", device.session),
        ("settings", json_text(shown or None)),
    ]
    return [(name, value) for name, value in known if value]
