"""Jobs: inserting them, and what became of them."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from shardd.dashboard.api.job_traits import JobTraits, traits_of
from shardd.dashboard.api.models import Id, InsertedJobs, JobDetails, Jobs, NewJob, Outcome, Outcomes
from shardd.dashboard.api.operations import ALL, SEND, Call, Operation, Reply
from shardd.dashboard.api.problems import (
    INVALID,
    MALFORMED,
    NO_SUCH,
    NOT_BOUND,
    REFUSED,
    ROLE,
    TOO_MANY,
    UNSURE,
    ProblemError,
)
from shardd.dashboard.api.reading import read_list, read_object
from shardd.dashboard.recipients import address_of
from shardd.dashboard.shares import Shares
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_search import JobSearch, Question
from shardd.queue.sending import OutcomePage, Sending

CONNECTIONS: Final = 4
"""To the database, for all programs that send."""
MOST_INSERTED: Final = 1000
"""Jobs of one request, which are one transaction."""
MANY: Final = 100
"""Jobs of a request that takes a connection for long; of such, only some may run."""
MOST_LISTED: Final = 1000
IDEMPOTENCY: Final = "Idempotency-Key"


class Filter(JobTraits, forbid_unknown_fields=True, kw_only=True):
    """Which jobs; all that is given must match."""

    dedupe_key: str | None = None
    device_group: str | None = None
    recipient: str | None = None
    waits_for: str | None = None
    """What a queued job waits for, in the words of `queue.waits` of the status, such as `its daily limit`."""
    unreadable: bool = False
    """Only those that a device of the recipient cannot decrypt."""
    before: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = 100


_OF_SENDERS: Final = ("reference", "dedupe_key", "before", "limit")


class JobCalls:
    """What is asked about jobs."""

    def __init__(self, site: Site, sending: Database) -> None:
        """`sending`: connections for tokens that send, so that they never use up those of the pages."""
        self._site = site
        self._jobs = JobAdmin(site.database)
        self._search = JobSearch(site.database)
        self._sending = sending
        self._inserting = Shares(
            f"insert more than {MANY} jobs", "ask when one has its answer", most=CONNECTIONS - 1, most_of_one=2
        )

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            Operation(
                method="POST",
                path="/jobs",
                name="insert_jobs",
                summary="Insert jobs",
                about=f"One job, or a list of up to {MOST_INSERTED:,}; all are inserted, or none. Each has the columns of "
                "`shardd.jobs` that a producer may give (`shardd guide insert`). A job whose `dedupe_key` was used before is not "
                "inserted again, so a request with a `dedupe_key` for each job may be repeated; there is no "
                f"{IDEMPOTENCY}.",
                may=SEND,
                handle=self.insert,
                body=NewJob | list[NewJob],  # type: ignore[valid-type]  # made of the columns
                answer=InsertedJobs,
                status=201,
                also={200: "Nothing was inserted: all of them are duplicates."},
                problems=(REFUSED, INVALID, NOT_BOUND, ROLE, UNSURE, TOO_MANY),
            ),
            Operation(
                method="GET",
                path="/jobs",
                name="list_jobs",
                summary="List jobs, newest first",
                about="A token that sends gets what its role sees in `shardd.outcomes`: by `reference`, by `dedupe_key`, or the "
                "newest jobs. Other tokens get all jobs, by everything but `dedupe_key`. Newest jobs come page by page: `before` "
                "is the `older` of the last answer. `recipient` is a phone number in any spelling, or an address that ends with "
                "@lid or @g.us. Jobs are looked for a moment at a time: with `unfinished`, there may be more before `older`. "
                "`waits_for` finds queued jobs in the words of `queue.waits` of the status. It does not know which shards run: "
                "jobs of `its shard: …` are among those of `its turn`.",
                may=ALL,
                handle=self.find,
                query=Filter,
                answer=(Jobs, Outcomes),
                problems=(ROLE,),
            ),
            Operation(
                method="GET",
                path="/jobs/{job}",
                name="show_job",
                summary="Show a job",
                about="A token that sends gets what its role sees in `shardd.outcomes`; other tokens also get the message.",
                may=ALL,
                handle=self.show,
                answer=(JobDetails, Outcome),
                problems=(NO_SUCH, ROLE),
            ),
        ]

    async def insert(self, call: Call) -> Reply:
        """Insert one or many."""
        if IDEMPOTENCY in call.request.headers:
            raise ProblemError(
                MALFORMED,
                f"the header {IDEMPOTENCY} is not known: give each job a dedupe_key, and repeat the request as often as needed",
                field=IDEMPOTENCY,
            )
        raw = read_list(call.body, MOST_INSERTED)
        single = len(raw) == 1 and not call.body.lstrip().startswith(b"[")
        jobs = [_as_texts(one, None if single else index) for index, one in enumerate(raw)]
        with self._inserting.one_more(call.caller.lane) if len(jobs) > MANY else nullcontext():
            inserted = await self._of(call).insert(jobs)
        return Reply({"jobs": inserted}, 200 if all(one.duplicate for one in inserted) else 201)

    async def find(self, call: Call) -> Any:
        """A list."""
        asked: Filter = call.query
        if not call.caller.sends:
            _refuse_others(call, {"dedupe_key"}, "filters by everything else")
            question = Question(
                traits=traits_of(asked),
                device_group=asked.device_group,
                address=await self._address(asked.recipient),
                unreadable=asked.unreadable,
                waits_for=asked.waits_for,
            )
            page = await self._search.page(question, asked.limit, before=asked.before)
            return {"jobs": page.jobs, "older": page.older, "unfinished": page.unfinished}
        others = {field.encode_name for field in msgspec.structs.fields(Filter)} - {*_OF_SENDERS}
        _refuse_others(call, others, "filters by reference or dedupe_key")
        sending = self._of(call)
        if asked.before is not None and (asked.reference, asked.dedupe_key) != (None, None):
            fix = "leave it out"
            words = f"before goes on among the newest jobs, and not with reference or dedupe_key: {fix}"
            raise ProblemError(MALFORMED, words, field="before", fix=fix)
        if asked.dedupe_key is not None:
            found = await sending.by_dedupe_key(asked.dedupe_key)
            return OutcomePage(
                [job for job in found if asked.reference in (None, job.reference)], None, unfinished=False
            )
        if asked.reference is not None:
            return OutcomePage(await sending.by_reference(asked.reference, asked.limit), None, unfinished=False)
        return await sending.newest(asked.limit, asked.before)

    async def show(self, call: Call) -> Any:
        """One."""
        number = int(call.path("job"))
        found = await self._of(call).job(number) if call.caller.sends else await self._jobs.show(number)
        if found is None:
            raise ProblemError(
                NO_SUCH, f"job {number} is unknown" + (" to the role of this token" if call.caller.sends else "")
            )
        return found

    async def _address(self, recipient: str | None) -> str | None:
        try:
            return None if recipient is None else await address_of(self._site, recipient)
        except UsageError as error:
            raise ProblemError(MALFORMED, str(error), field="recipient", value=recipient) from None

    def _of(self, call: Call) -> Sending:
        return Sending(self._sending, call.caller.token.role)


def _refuse_others(call: Call, names: set[str], instead: str) -> None:
    for name in sorted(names & call.request.query.keys()):
        what = call.caller.token.may.value
        raise ProblemError(
            MALFORMED,
            f"{name} is not a filter of a token that may {what}, which {instead}",
            field=name,
            fix="leave it out",
        )


def _as_texts(raw: msgspec.Raw, index: int | None) -> dict[str, str | None]:
    """A job as PostgreSQL reads it, by the names of the columns. Raises ProblemError."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(NewJob)}
    return {names[name]: _as_text(value) for name, value in read_object(NewJob, raw, index).items()}


def _as_text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case msgspec.Raw():
            text = bytes(value).decode()
            return None if text == "null" else text
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
