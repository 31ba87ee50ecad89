"""What jobs have in common, as a program names it: filters of a list, and of acts on all that match."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from shardd.config.transports.definition import KINDS
from shardd.errors import ErrorClass
from shardd.pacing import CLASSES
from shardd.queue.job_admin import Traits
from shardd.states import JobState

JobClass: Final[Any] = Literal[CLASSES]
JobKind: Final[Any] = Literal[KINDS]


class JobTraits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"job_class": "class"}):
    """Which jobs; all that is given must match."""

    state: JobState | None = None
    device: str | None = None
    campaign: str | None = None
    job_class: JobClass | None = None
    error_class: ErrorClass | None = None
    order_group: str | None = None
    reference: str | None = None
    kind: JobKind | None = None
    revokes_campaign: str | None = None
    """Only revocations of messages of this campaign; they themselves are in none."""


def traits_of(given: JobTraits) -> Traits:
    """For the database."""
    return Traits(
        state=given.state,
        device_ids=None if given.device is None else [given.device],
        campaign=given.campaign,
        job_class=given.job_class,
        error_class=None if given.error_class is None else given.error_class.value,
        order_group=given.order_group,
        reference=given.reference,
        kind=given.kind,
        revokes_campaign=given.revokes_campaign,
    )
