"""Acts on all jobs with the same traits: first a count, which has the snapshot that the act needs, then the act, part by part.

A job that comes later, or ends once more, was not counted, and is left alone. So a request may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from shardd.dashboard.api.acting import act_in_parts, act_operation, failure_recorded
from shardd.dashboard.api.job_traits import JobTraits, traits_of
from shardd.dashboard.api.models import struct_of
from shardd.dashboard.api.operations import OPERATE, Call, Operation
from shardd.dashboard.api.problems import (
    BROKEN_OFF,
    CONFLICT,
    INVALID,
    MALFORMED,
    Kind,
    ProblemError,
)
from shardd.dashboard.api.reading import SHOWN, read_body
from shardd.dashboard.fields import LONGEST_SNAPSHOT
from shardd.dashboard.job_acts import PATIENCE
from shardd.dashboard.site import Site
from shardd.postgres.snapshots import Snapshot
from shardd.queue.bulk_actions import (
    CANCEL,
    OBSTACLES,
    RETRY,
    REVOKE,
    BulkAction,
    Choice,
    meant_by,
    resolving,
    unseen,
    warning_of,
)
from shardd.queue.job_admin import JobAdmin, JobCount, Traits
from shardd.queue.recorded_jobs import jobs_with, report_words
from shardd.queue.trait_names import check_names
from shardd.states import JobState

COUNTS: Final = 10.0
"""Seconds that an answer waits for a count. It goes on for as long again, for a request that asks once more."""
ALL: Final = "/jobs/all"
TARGET: Final = "jobs"
Body = TypeVar("Body", bound="AllOfThem")


class AllOfThem(JobTraits, forbid_unknown_fields=True, kw_only=True):
    """Which jobs are acted on."""

    snapshot: Annotated[
        str,
        Meta(
            max_length=LONGEST_SNAPSHOT,
            description="That of the count: jobs that came later, or ended once more, are left alone.",
        ),
    ]


class RetryAll(AllOfThem, forbid_unknown_fields=True, kw_only=True):
    """Which jobs are retried; those that failed, unless a state is named."""

    may_send_twice: bool = False
    """Also jobs in doubt, whose messages may have reached their recipients."""


class DecideAll(AllOfThem, forbid_unknown_fields=True, kw_only=True):
    """What somebody found out about jobs in doubt."""

    sent: bool


CountedJobs: Final = struct_of(JobCount, "CountedJobs", why=str | None)


class Count(msgspec.Struct):
    """What an act would find."""

    counts: list[CountedJobs]  # type: ignore[valid-type]  # made of a row
    """By state, class, campaign and what keeps them from it (`obstacle`, and `why` for people; null: nothing)."""
    jobs: int
    """Those without an obstacle."""
    snapshot: str | None
    """Pass it to the act; null: the count is not finished."""
    warning: str
    """What to know before the act; empty: nothing."""
    unfinished: bool
    """There are more: ask again."""


class LeftAlone(msgspec.Struct):
    """Jobs that nothing was done to."""

    why: str
    jobs: int
    ids: list[int]
    """The first ones."""


class ActedOnJobs(msgspec.Struct):
    """What was done."""

    jobs: int
    """How many were changed by this request."""
    already: int
    """How many were so before."""
    left: list[LeftAlone]
    unfinished: bool
    """There may be more: repeat the request."""
    words: str


class ManyJobsCalls:
    """See the module."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def operations(self) -> list[Operation]:
        """See the module."""
        resolve = resolving(sent=True, by="")  # what is found is the same for both decisions
        return [
            *self._two("retry", RETRY, self.retry_jobs, RetryAll, "Retry all ended jobs with the same traits"),
            *self._two("cancel", CANCEL, self.cancel_jobs, AllOfThem, "Cancel all waiting jobs with the same traits"),
            *self._two("resolve", resolve, self.resolve_jobs, DecideAll, "Decide all jobs in doubt with the same traits"),
            *self._two("revoke", REVOKE, self.revoke_jobs, AllOfThem, "Revoke all sent jobs with the same traits"),
        ]  # fmt: skip

    async def retry_jobs(self, call: Call) -> ActedOnJobs:
        """As `shardd job retry` with traits."""
        given = read_body(RetryAll, call.body)

        def check(traits: Traits) -> None:
            if traits.state == JobState.IN_DOUBT and not given.may_send_twice:
                fix = (
                    "send may_send_twice: true to do it all the same, or find out what became of them and resolve them"
                )
                words = f"jobs in doubt {RETRY.warning}: {fix}"
                raise ProblemError(CONFLICT, words, field="may_send_twice", fix=fix)

        return await self._act(call, RETRY, given, check)

    async def cancel_jobs(self, call: Call) -> ActedOnJobs:
        """As `shardd job cancel` with traits."""
        return await self._act(call, CANCEL, read_body(AllOfThem, call.body))

    async def resolve_jobs(self, call: Call) -> ActedOnJobs:
        """As `shardd job resolve` with traits."""
        given = read_body(DecideAll, call.body)
        return await self._act(call, resolving(sent=given.sent, by=f"token {call.caller.user}"), given)

    async def revoke_jobs(self, call: Call) -> ActedOnJobs:
        """As `shardd job revoke` with traits."""
        return await self._act(call, REVOKE, read_body(AllOfThem, call.body))

    async def _count(self, call: Call, action: BulkAction) -> Count:
        """What the act would find; it is counted in the background, and an unfinished count goes on for whoever asks again."""
        traits = _meant(action, call.query, MALFORMED)
        begun = self._site.looks.begin(call.caller.lane, action, traits)
        seen = await begun.wait(COUNTS)
        if seen is None:
            return Count(_counted(begun.counts), begun.jobs, None, "", unfinished=True)
        if not seen.counts:
            await check_names(self._site.database, traits)
        snapshot = next((part.traits.snapshot for part in seen.choices), None)
        good = sum(some.jobs for some in seen.good)
        return Count(_counted(seen.counts), good, snapshot, warning_of(action, seen), unfinished=False)

    async def _act(
        self, call: Call, action: BulkAction, given: AllOfThem, check: Callable[[Traits], None] = lambda _: None
    ) -> ActedOnJobs:
        async with failure_recorded(self._site, call, TARGET):
            traits = _meant(action, given, INVALID)
            check(traits)
            snapshot = _read_snapshot(given.snapshot.strip(), await JobAdmin(self._site.database).snapshot())
        choice = Choice(None, replace(traits, snapshot=snapshot))
        report = await act_in_parts(self._site, call, action, jobs_with(choice, unseen(choice)))
        left = [LeftAlone(why, number, report.examples.get(why, [])) for why, number in report.left.items()]
        return ActedOnJobs(report.done, report.already, left, report.stopped, report_words(action, report))

    def _two(
        self,
        act: str,
        action: BulkAction,
        handle: Callable[[Call], Awaitable[Any]],
        body: type[AllOfThem],
        summary: str,
    ) -> list[Operation]:
        """The count and the act."""

        async def count(call: Call) -> Count:
            return await self._count(call, action)

        return [
            Operation(
                method="GET",
                path=f"{ALL}/{act}",
                name=f"count_jobs_to_{act}",
                summary=f"Count what this would do: {summary[0].lower()}{summary[1:]}",
                about=f"The answer comes when all are counted, or after {COUNTS:g} seconds: with `unfinished`, ask again.",
                may=OPERATE,
                handle=count,
                query=JobTraits,
                answer=Count,
                problems=(INVALID,),
            ),
            act_operation(
                f"{ALL}/{act}",
                act,
                handle,
                summary,
                body,
                required=True,
                about=f"`snapshot` is that of the count (GET). As many as are found in {PATIENCE:g} seconds: with `unfinished`, "
                "repeat the request as it is. At least one trait is needed.",
                problems=(BROKEN_OFF,),
                answer=ActedOnJobs,
            ),
        ]  # fmt: skip


def _read_snapshot(given: str, now: str) -> str:
    """Raises ProblemError, also for a later one than `now`: jobs that end meanwhile would be handled again by each repetition."""
    found = None
    with suppress(ValueError):
        found = Snapshot.read(given)
    if found is None or found.next > Snapshot.read(now).next:
        fix = "send that of the count"
        words = f"snapshot is {given[:SHOWN]}, {'no snapshot' if found is None else f'which is later than now, {now}'}: {fix}"
        raise ProblemError(INVALID, words, field="snapshot", value=given[:SHOWN], fix=fix)
    return given


def _meant(action: BulkAction, given: JobTraits, kind: Kind) -> Traits:
    """Raises ProblemError."""
    traits = traits_of(given)
    if traits == Traits():
        fix = "name a state, a device or a campaign"
        raise ProblemError(kind, f"no trait is given, and all jobs at once are too many: {fix}", field="state", fix=fix)
    return meant_by(action, traits)


def _counted(counts: Sequence[JobCount]) -> list[Any]:
    return [
        CountedJobs(
            state=some.state,
            job_class=some.job_class,
            campaign=some.campaign,
            obstacle=some.obstacle,
            jobs=some.jobs,
            why=None if some.obstacle is None else OBSTACLES[some.obstacle],
        )
        for some in sorted(counts, key=lambda some: -some.jobs)
    ]
