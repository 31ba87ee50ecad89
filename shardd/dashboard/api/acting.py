"""What all acts of the API have in common: how they are described, and their rows in the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from shardd.dashboard.api.models import Acted
from shardd.dashboard.api.operations import OPERATE, Call, Operation
from shardd.dashboard.api.problems import (
    BROKEN_OFF,
    CONFLICT,
    DATABASE,
    INVALID,
    NO_SUCH,
    UNSURE,
    Kind,
    ProblemError,
)
from shardd.dashboard.job_acts import act_on_many
from shardd.dashboard.site import Site
from shardd.errors import SharddError, UnsureError
from shardd.queue.acts import ALREADY, DONE, nothing_to_do
from shardd.queue.bulk_actions import BulkAction, Report
from shardd.queue.queries import Changes, Queries
from shardd.queue.recorded_jobs import BrokenOffError, ManyJobs


def act_operation(
    path: str,
    act: str,
    handle: Callable[[Call], Awaitable[Any]],
    summary: str,
    body: Any = None,
    *,
    required: bool = False,
    about: str = "",
    problems: tuple[Kind, ...] = (),
    answer: Any = Acted,
) -> Operation:
    """Of tokens that operate; `act`: as the audit log calls it."""
    return Operation(
        method="POST",
        path=path,
        name=handle.__name__,
        summary=summary,
        about=about,
        may=OPERATE,
        act=act,
        handle=handle,
        body=body,
        body_required=required,
        answer=answer,
        problems=(NO_SUCH, CONFLICT, INVALID, UNSURE, *problems),
    )


def acted(one: str, name: str, changes: Changes, past: str, more: str = "") -> Acted:
    """What came of changing the thing called `one`; `past` is one of `ALREADY`. It exists: the caller has looked."""
    if changes.same:
        return Acted(done=False, words=nothing_to_do(one, name, ALREADY[past]))
    return Acted(done=True, words=f"{past} {one} {name}{more}")


@asynccontextmanager
async def failure_recorded(site: Site, call: Call, target: str, detail: str = "") -> AsyncGenerator[None]:
    """Write to the audit log why the block did not do what it is for, which the program is told."""
    try:
        yield
    except (ProblemError, SharddError) as error:
        await site.failed(call.caller, target, detail, error=error)
        raise


async def recorded(
    site: Site, call: Call, target: str, detail: str, work: Callable[[Queries], Awaitable[Acted]]
) -> Acted:
    """Do it in one transaction with its row of the audit log, or write there why not."""
    async with failure_recorded(site, call, target, detail), site.acting(call.caller, target, detail) as acting:
        done = await work(acting.database)
        acting.result = DONE if done.done else done.words
    return done


async def act_in_parts(site: Site, call: Call, action: BulkAction, many: ManyJobs) -> Report:
    """Act on many jobs, recorded. Raises ProblemError and SharddError."""
    try:
        return await act_on_many(site, call.caller, action, many)
    except BrokenOffError as error:  # recorded
        kind = BROKEN_OFF if error.handled else DATABASE
        raise ProblemError(UNSURE if isinstance(error.why, UnsureError) else kind, str(error)) from error
    except SharddError as error:
        await site.failed(call.caller, many.target, error=error)
        raise
