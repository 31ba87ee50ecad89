"""The forms of requests and answers. Rows have the fields that `--json` of the command line prints: both are made of the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shardd.config.pacing import LIMIT
from shardd.dashboard.fields import MOST_WHY
from shardd.pacing import Pace
from shardd.plain import RENAMED
from shardd.queue import acts, leases, opt_outs
from shardd.queue.campaign_progress import Progress
from shardd.queue.campaigns import WEIGHTS, CampaignRow, DeviceShare, Pool
from shardd.queue.columns import GIVEN
from shardd.queue.devices import DeviceRow
from shardd.queue.events import EventRow
from shardd.queue.records import JobRow, WholeJob
from shardd.queue.sending import OUTCOME
from shardd.queue.webhooks import FailureRow, WebhookRow
from shardd.supervisor.scheduling.device_json import INNER
from shardd.supervisor.scheduling.outlook import ClassOutlook

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Small = Annotated[int, Meta(ge=-(2**15), le=2**15 - 1)]
CAMPAIGN_ID: Final = "[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}"
MOST_LABEL: Final = 200
"""Characters of a campaign's label."""
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
"""As it was written: PostgreSQL reads it, with every digit of its numbers."""
_GIVEN_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("variables", "details", "metadata"), JsonObject),
    **dict.fromkeys(("priority", "max_attempts"), Small | None),
    **dict.fromkeys(("run_at", "expires_at"), Annotated[datetime, Meta(tz=True)] | None),
    **dict.fromkeys(("reply_to", "revokes"), Id | None),
}
"""Of the columns that are no texts."""

NewJob = msgspec.defstruct(
    "NewJob",
    [(f"{name}_", _GIVEN_TYPES.get(name, str | None) | UnsetType, UNSET) for name in GIVEN],
    rename={f"{name}_": name for name in GIVEN},
    forbid_unknown_fields=True,
    namespace={
        "__doc__": "The columns of `shardd.jobs` that a producer may give. What is left out has the default of its column."
    },
)


def struct_of(kind: Any, name: str, *, without: Collection[str] = (), **more: Any) -> Any:
    """A form with the fields of a row, by their names in JSON; `more`: other fields, or other types of some."""
    hints = get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.name not in without}
    given = list((fields | more).items())
    return msgspec.defstruct(name, given, rename=RENAMED, namespace={"__doc__": str(kind.__doc__)})


Job: Final = struct_of(JobRow, "Job")
JobDetails: Final = struct_of(WholeJob, "JobDetails")
Outcome: Final = struct_of(OUTCOME, "Outcome")
Event: Final = struct_of(EventRow, "Event")


Node: Final = struct_of(
    leases.Node,
    "Node",
    without=("incarnation", "shards", "place", "beat", "timeline", "seen_ago", "rival", "rival_age"),
    holds=list[int],
    planned=list[int],
)
_Pace: Final = struct_of(Pace, "Pace", quiet=str | None)
Device: Final = struct_of(
    DeviceRow,
    "Device",
    without=INNER,
    shown_state=str,
    last_sent=datetime | None,
    to_do=str,
    shard=int,
    sent_today=int,
    next_visit_at=datetime | None,
    pace=dict[str, _Pace],  # type: ignore[valid-type]  # made of a row
)
DeviceDetails: Final = msgspec.defstruct(
    "DeviceDetails",
    [
        ("reckoned", bool),
        ("held", str | None),
        ("error", str | None),
        ("in_flight", int),
        ("sent_this_hour", int),
        ("sending_days", int),
        ("next", dict[str, ClassOutlook]),
    ],
    bases=(Device,),
    namespace={
        "__doc__": "A device, and when it may send next: `next` by class, in seconds from now. `reckoned`: an estimate."
    },
)
Campaign: Final = struct_of(CampaignRow, "Campaign")
_Progress: Final = struct_of(Progress, "Progress", states=dict[str, int], percent=float)
_Share: Final = struct_of(DeviceShare, "DeviceShare")
_Pool: Final = struct_of(Pool, "Pool")
CampaignProgress: Final = msgspec.defstruct(
    "CampaignProgress",
    [
        ("progress", _Progress),
        ("devices", list[_Share]),  # type: ignore[valid-type]  # made of a row
        ("pools", list[_Pool]),  # type: ignore[valid-type]  # made of a row
        ("revocations", dict[str, int]),
        ("counted_at", datetime),
    ],
    bases=(Campaign,),
    namespace={
        "__doc__": "A campaign with the counts of its jobs, as of `counted_at`. `revocations`: of its messages, by their state."
    },
)
Webhook: Final = msgspec.defstruct(
    "Webhook",
    [
        ("name", str),
        ("state", str),
        *((name, kind | UnsetType, UNSET) for name, kind in get_type_hints(WebhookRow).items() if name != "name"),
    ],
    namespace={"__doc__": "A webhook; without its progress when no daemon has read the config that has it yet."},
)
WebhookFailure: Final = struct_of(FailureRow, "WebhookFailure")
Act: Final = struct_of(acts.Act, "Act")
OptOut: Final = struct_of(opt_outs.OptOut, "OptOut")


class InsertedJob(msgspec.Struct):
    """What became of one job of the request."""

    id: int | None
    """Null: there is one with its dedupe key, and the role may not see that."""
    duplicate: bool
    """Nothing was inserted, because there is a job with its dedupe key already: `id` is that one's."""


class InsertedJobs(msgspec.Struct):
    """What became of the jobs, in the order in which they were sent."""

    jobs: list[InsertedJob]


class Jobs(msgspec.Struct):
    """Jobs, newest first, as an operator sees them."""

    jobs: list[Job]  # type: ignore[valid-type]  # made of a row
    older: int | None
    """Pass it as `before` to go on; null: there are no more."""
    unfinished: bool
    """The time for one answer was up before it was full: go on."""


class Outcomes(msgspec.Struct):
    """Jobs, newest first, as the role of a sending token sees them."""

    jobs: list[Outcome]  # type: ignore[valid-type]  # made of a row
    older: int | None
    """Pass it as `before` to go on; null: there are no more."""
    unfinished: bool
    """The time for one answer was up before it was full: go on."""


class Events(msgspec.Struct):
    """Events, oldest first."""

    events: list[Event]  # type: ignore[valid-type]  # made of a row
    position: str
    """Pass it as `after` to go on."""
    unfinished: bool
    """There may be more by now: go on at once."""


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: str
    """The kind: an address at which it is described."""
    title: str
    status: int
    detail: str
    """One sentence with field, value and fix."""
    field: str | UnsetType = UNSET
    """The field of the request, the parameter, or the column of `shardd.jobs`."""
    value: str | UnsetType = UNSET
    """What was sent, shortened."""
    fix: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    """Which job of the request it is about, from 0."""


class ProblemKind(msgspec.Struct):
    """A kind of problem."""

    type: str
    title: str
    status: int
    description: str


class Move(msgspec.Struct, rename={"source": "from", "target": "to"}):
    """A shard that moves, by the ids of nodes; null: free, or nobody takes it."""

    shard: int
    source: str | None
    target: str | None


class Nodes(msgspec.Struct):
    """The nodes of the database, and how they share its shards."""

    shards: int
    nodes: list[Node]  # type: ignore[valid-type]  # made of a row
    moves: list[Move]


class Devices(msgspec.Struct):
    """Devices, by id."""

    devices: list[Device]  # type: ignore[valid-type]  # made of a row
    later: str | None
    """Pass it as `after` to go on; null: there are no more."""


class Campaigns(msgspec.Struct):
    """Campaigns, newest first."""

    campaigns: list[Campaign]  # type: ignore[valid-type]  # made of a row


class Webhooks(msgspec.Struct):
    """Webhooks of the config and of the database, by name."""

    webhooks: list[Webhook]  # type: ignore[valid-type]  # made of a row


class WebhookFailures(msgspec.Struct):
    """Events that the receiver of a webhook rejected for good, newest first."""

    failures: list[WebhookFailure]  # type: ignore[valid-type]  # made of a row


class Acts(msgspec.Struct):
    """Acts of the audit log, newest first."""

    acts: list[Act]  # type: ignore[valid-type]  # made of a row
    older: int | None
    """Pass it as `before` to go on; null: there are no more."""
    unfinished: bool
    """Acts are looked for a moment at a time: there may be more before `older`."""


class OptOuts(msgspec.Struct):
    """Opt-outs, newest first."""

    opt_outs: list[OptOut]  # type: ignore[valid-type]  # made of a row


class Why(msgspec.Struct, forbid_unknown_fields=True):
    """Why it is done."""

    why: Annotated[str, Meta(max_length=MOST_WHY)] | None = None
    """For people: shown as the reason."""


class Terms(msgspec.Struct, forbid_unknown_fields=True):
    """The terms of a campaign; what is left out, or null, is not changed."""

    label: Annotated[str, Meta(max_length=MOST_LABEL)] | None = None
    """For people."""
    weight: Annotated[float, Meta(ge=WEIGHTS[0], le=WEIGHTS[1])] | None = None
    """Its share of a device, relative to other campaigns; 1 at first."""
    device_cap: Annotated[int, Meta(ge=LIMIT.low, le=LIMIT.high)] | None = None
    """Messages per device and day; 0: no cap of its own."""


class NewCampaign(Terms, forbid_unknown_fields=True, kw_only=True):
    """A campaign to begin."""

    id: Annotated[str, Meta(extra_json_schema={"pattern": f"^{CAMPAIGN_ID}$"})]
    paused: bool = False


class NewOptOut(msgspec.Struct, forbid_unknown_fields=True):
    """Somebody who wants no more messages."""

    recipient: str
    """A phone number in any spelling, or an address that ends with @lid or @g.us."""
    note: str | None = None
    """For people; up to 1,000 characters."""


Settled = Annotated[
    datetime,
    Meta(tz=True, description="When the job ended, as it was shown: with it, nothing is done about a later end."),
]


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    """How to retry."""

    settled_at: Settled
    may_send_twice: bool = False
    """Also a job in doubt, whose message may have reached the recipient."""


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody found out about a job in doubt."""

    sent: bool
    settled_at: Settled


class Acted(msgspec.Struct):
    """What was done."""

    done: bool
    """Whether this request changed anything; false: it was that already."""
    words: str
