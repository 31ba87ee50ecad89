"""Acting on many jobs, with what the audit log has of it: the same for the pages, the API and the commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from shardd.errors import DatabaseError, SharddError, UnsureError
from shardd.queue.act_log import INTERRUPTED, UnderWay
from shardd.queue.acts import joined, named
from shardd.queue.bulk_actions import BulkAction, Choice, Report, Seen, carry_out, done_words, left_words, unseen
from shardd.queue.job_admin import CHUNK, JobAdmin, Traits
from shardd.words import count

_SHOWN: Final = {"state": "state", "campaign": "campaign", "class": "job_class", "error_class": "error_class"}
_PRIVATE: Final = ("order_group", "reference")
"""Producers may name these after a person, so the audit log does not have them."""


@dataclass(frozen=True, slots=True)
class ManyJobs:
    """Jobs that are acted on chunk by chunk, and how the audit log names them."""

    target: str
    detail: str
    choice: Choice
    seen: Seen


class BrokenOffError(Exception):
    """An act on many jobs broke off; its text says what is known of them."""

    def __init__(self, words: str, why: SharddError, handled: int) -> None:
        """`handled`: so many jobs were, before."""
        super().__init__(words)
        self.why = why
        self.handled = handled


def named_jobs(ids: Sequence[int], choice: Choice, seen: Seen) -> ManyJobs:
    """These jobs."""
    return ManyJobs(*named("job", ids), choice, seen)


def jobs_with(choice: Choice, seen: Seen) -> ManyJobs:
    """Those with the traits of a choice."""
    traits = choice.traits
    shown = [f"device {device}" for device in traits.device_ids or ()]
    shown += [f"{name} {value}" for name, key in _SHOWN.items() if (value := getattr(traits, key))]
    hidden = [f"one {name.replace('_', ' ')}" for name in _PRIVATE if getattr(traits, name)]
    return ManyJobs("jobs", ", ".join([*shown, *hidden]), choice, seen)


def jobs_of(campaign: str, snapshot: str | None = None) -> ManyJobs:
    """Those of a campaign; `snapshot`: that were visible in it."""
    choice = Choice(None, Traits(campaign=campaign, snapshot=snapshot))
    return ManyJobs(f"campaign {campaign}", "", choice, unseen(choice))


def report_words(action: BulkAction, report: Report) -> str:
    """What came of an act."""
    more = ["there may be more: do it again"] if report.stopped else []
    return "; ".join([done_words(action, report), *left_words(report), *more])


def record_report(here: UnderWay, action: BulkAction, many: ManyJobs, report: Report) -> None:
    """Have what came of it recorded. A list of jobs comes last: where the row has no room for all of it, the list is cut."""
    words = report_words(action, report)
    if not report.done:
        here.result = words
        return
    parts = (many.detail, words) if many.choice.ids is None else (words, many.detail)
    here.detail = joined(action.decision, *parts)


async def carry_out_on_many(
    under_way: Callable[[str, str], AbstractAsyncContextManager[UnderWay]],
    action: BulkAction,
    jobs: JobAdmin,
    many: ManyJobs,
    *,
    progress: Callable[[int], None] = lambda _: None,
    enough: Callable[[], bool] = lambda: False,
    words_of: Callable[[SharddError], str] = str,
) -> Report:
    """Act chunk by chunk, as `carry_out`. `under_way`: records an act with this target and detail (`ActLog.under_way`).

    Raises BrokenOffError, which is recorded in the words of `words_of`, and DatabaseError: nothing was done.
    """
    handled = 0

    def count_handled(number: int) -> None:
        nonlocal handled
        handled += number
        progress(number)

    def known(words: str, *, unsure: bool) -> str:
        unknown = f"; of the next ones, at most {CHUNK:,}, it is not known" if unsure else ""
        mark = "" if words.endswith("?") else ";"
        return f"{words.rstrip('.')}{mark} handled before: {count(handled, 'job')}{unknown}"

    async with under_way(many.target, joined(action.decision, many.detail)) as here:
        try:
            report = await carry_out(action, jobs, many.choice, many.seen, progress=count_handled, enough=enough)
        except (DatabaseError, UnsureError) as error:  # what was handled stays so
            here.result = known(words_of(error), unsure=isinstance(error, UnsureError))
            raise BrokenOffError(here.result, error, handled) from error
        except asyncio.CancelledError:
            here.result = known(INTERRUPTED, unsure=True)
            raise
        record_report(here, action, many, report)
    return report
