"""The forms of requests and answers. Rows have the fields that `--json` of the command line prints: both are made of the rows."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shardd.plain import RENAMED
from shardd.queue.columns import GIVEN
from shardd.queue.events import EventRow
from shardd.queue.records import JobRow, WholeJob
from shardd.queue.sending import OUTCOME

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Small = Annotated[int, Meta(ge=-(2**15), le=2**15 - 1)]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
"""As it was written: PostgreSQL reads it, with every digit of its numbers."""
_GIVEN_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("variables", "details", "metadata"), JsonObject),
    **dict.fromkeys(("priority", "max_attempts"), Small | None),
    **dict.fromkeys(("run_at", "expires_at"), Annotated[datetime, Meta(tz=True)] | None),
    "reply_to": Id | None,
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


def struct_of(kind: Any, name: str) -> Any:
    """A form with the fields of a row, by their names in JSON."""
    hints = get_type_hints(kind)
    fields = [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]
    return msgspec.defstruct(name, fields, rename=RENAMED, namespace={"__doc__": str(kind.__doc__)})


Job: Final = struct_of(JobRow, "Job")
JobDetails: Final = struct_of(WholeJob, "JobDetails")
Outcome: Final = struct_of(OUTCOME, "Outcome")
Event: Final = struct_of(EventRow, "Event")


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


class Outcomes(msgspec.Struct):
    """Jobs, newest first, as the role of a sending token sees them."""

    jobs: list[Outcome]  # type: ignore[valid-type]  # made of a row


class Events(msgspec.Struct):
    """Events, oldest first."""

    events: list[Event]  # type: ignore[valid-type]  # made of a row
    position: str
    """Pass it as `after` to go on."""


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
