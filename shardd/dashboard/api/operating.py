"""What tokens that operate may do: the acts of the pages and commands, by the same calls, and in the audit log.

Those on campaigns are in `campaign_acts`, those on many jobs in `many_jobs`, pairing links in `phones`, and what the
supervisor does in `node_acts`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from shardd.dashboard.api.acting import act_operation, acted, recorded
from shardd.dashboard.api.looking import LookCalls, no_webhook, not_begun
from shardd.dashboard.api.models import Acted, Decision, NewOptOut, Retry, Why
from shardd.dashboard.api.operations import Call, Operation
from shardd.dashboard.api.problems import CONFLICT, INVALID, NO_SUCH, SUPERVISOR, ProblemError
from shardd.dashboard.api.reading import read_body
from shardd.dashboard.opting_out import EMPTY, MOST_NOTE, MOST_NUMBER, OPT_OUT, PERSON, opt_out
from shardd.dashboard.site import Site
from shardd.errors import SharddError, UsageError
from shardd.plain import plain
from shardd.queue.bulk_actions import (
    CANCEL,
    RETRY,
    REVOKE,
    BulkAction,
    Choice,
    carry_out,
    done_words,
    look,
    resolving,
    warning_of,
)
from shardd.queue.devices import DeviceAdmin
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.queries import Queries
from shardd.queue.records import WholeJob
from shardd.queue.webhooks import WebhookAdmin
from shardd.words import count

_STALE: Final = (
    "`settled_at` is that of the job as it was shown, with every digit. If the job has ended once more since then, what is known "
    "is about the attempt before: nothing is done, and the problem says how the job is now."
)
Work = Callable[[str, Queries], Awaitable[Acted]]
"""What is done to the thing of a name, in a transaction."""


class OperateCalls:
    """What is done by those who operate."""

    def __init__(self, site: Site, looking: LookCalls) -> None:
        self._site = site
        self._looking = looking

    def operations(self) -> list[Operation]:
        """See the module."""
        device, job = "/devices/{device}", "/jobs/{job}"
        return [
            act_operation(f"{device}/pause", "pause", self.pause_device, "Pause a device; its jobs wait", Why),
            act_operation(f"{device}/resume", "resume", self.resume_device, "Resume a paused device"),
            act_operation(
                f"{job}/retry",
                "retry",
                self.retry_job,
                "Put an ended job back into the queue",
                Retry,
                required=True,
                about=_STALE,
            ),
            act_operation(f"{job}/cancel", "cancel", self.cancel_job, "Cancel a waiting job"),
            act_operation(
                f"{job}/revoke",
                "revoke",
                self.revoke_job,
                "Delete the message of a sent job for everyone",
                about="A new job of the device that sent it does so; it is `revoked_by` of the job, and when it is sent, "
                "WhatsApp has taken the deletion. Whether the recipient's app deletes the message is up to that app.",
            ),
            act_operation(
                f"{job}/resolve",
                "resolve",
                self.resolve_job,
                "Decide a job in doubt",
                Decision,
                required=True,
                about=_STALE,
            ),
            act_operation(
                "/webhooks/{webhook}/retry",
                "retry",
                self.retry_webhook,
                "Try a failing or disabled webhook at once",
                about="Events that were set aside are sent once more.",
                problems=(SUPERVISOR,),
            ),
            act_operation(
                "/opt-outs",
                OPT_OUT,
                self.add_opt_out,
                "Opt somebody out, for good",
                NewOptOut,
                required=True,
                about="Nobody but the person can take it back, by a message with a word of `opt_outs.take_back_words`.",
            ),
        ]

    async def pause_device(self, call: Call) -> Acted:
        """As `shardd device pause`."""
        why = read_body(Why, call.body).why

        async def work(name: str, database: Queries) -> Acted:
            return acted("device", name, await DeviceAdmin(database).pause([name], why), "paused")

        return await self._device(call, work, why or "")

    async def resume_device(self, call: Call) -> Acted:
        """As `shardd device resume`."""

        async def work(name: str, database: Queries) -> Acted:
            return acted("device", name, await DeviceAdmin(database).resume([name]), "resumed")

        return await self._device(call, work)

    async def retry_job(self, call: Call) -> Acted:
        """As `shardd job retry`."""
        given = read_body(Retry, call.body)
        return await self._job(call, RETRY, shown=given.settled_at, even_in_doubt=given.may_send_twice)

    async def cancel_job(self, call: Call) -> Acted:
        """As `shardd job cancel`."""
        return await self._job(call, CANCEL)

    async def revoke_job(self, call: Call) -> Acted:
        """As `shardd job revoke`."""
        return await self._job(call, REVOKE)

    async def resolve_job(self, call: Call) -> Acted:
        """As `shardd job resolve`."""
        given = read_body(Decision, call.body)
        return await self._job(call, resolving(sent=given.sent, by=f"token {call.caller.user}"), shown=given.settled_at)

    async def retry_webhook(self, call: Call) -> Acted:
        """As `shardd webhook retry`."""
        name = call.path("webhook")
        configured = (await self._looking.settings()).node.webhooks

        async def work(database: Queries) -> Acted:
            again = await WebhookAdmin(database).ask_retry(name)
            if again is None:
                raise not_begun(name) if name in configured else no_webhook(name)
            sent = f"; sent once more: {count(again, 'event')}" if again else ""
            return Acted(done=True, words=f"webhook {name} is tried at once{sent}")

        return await recorded(self._site, call, f"webhook {name}", "", work)

    async def add_opt_out(self, call: Call) -> Acted:
        """As `shardd opt-out add`."""
        given = read_body(NewOptOut, call.body)
        for name, text, most in (("recipient", given.recipient, MOST_NUMBER), ("note", given.note or "", MOST_NOTE)):
            if len(text) > most:
                fix = f"write at most {most:,} characters"
                raise ProblemError(INVALID, f"{name} cannot be stored: {fix}", field=name, fix=fix)
        if not given.recipient.strip():
            raise ProblemError(INVALID, f"recipient {EMPTY}", field="recipient")
        try:
            done = await opt_out(self._site, call.caller, given.recipient.strip(), given.note)
        except UsageError as error:  # recorded, without the number in its words
            raise ProblemError(INVALID, str(error), field="recipient", value=given.recipient) from None
        except SharddError as error:
            await self._site.failed(call.caller, PERSON, error=error)
            raise
        return Acted(done=done.new, words=done.words)

    async def _device(self, call: Call, work: Work, detail: str = "") -> Acted:
        name = call.path("device")

        async def all_of_it(database: Queries) -> Acted:
            await self._looking.find_device(database, name)
            return await work(name, database)

        return await recorded(self._site, call, f"device {name}", detail, all_of_it)

    async def _job(
        self, call: Call, action: BulkAction, *, shown: datetime | None = None, even_in_doubt: bool = True
    ) -> Acted:
        """`shown`: when the job ended that the program means; a later end is another one."""
        number = int(call.path("job"))

        async def work(database: Queries) -> Acted:
            choice, jobs = Choice([number], Traits(as_of=shown)), JobAdmin(database)
            if shown is not None:
                _refuse_stale(number, await jobs.show(number), shown)
            seen = await look(action, jobs, choice)
            if (warning := warning_of(action, seen)) and not even_in_doubt:
                fix = "send may_send_twice: true to do it all the same, or find out what became of it and resolve it"
                raise ProblemError(CONFLICT, f"{warning}: {fix}", field="may_send_twice", fix=fix)
            report = await carry_out(action, jobs, choice, seen)
            for why in report.left:
                kind = NO_SUCH if why == "unknown" else CONFLICT
                raise ProblemError(kind, f"job {number}: {why}", field="job", value=str(number))
            return Acted(done=report.done > 0, words=done_words(action, report))

        return await recorded(self._site, call, f"job {number}", action.decision, work)


def _refuse_stale(number: int, found: WholeJob | None, shown: datetime) -> None:
    """Raises ProblemError for a job that ended at another time. One that waits or is being sent has its own refusals."""
    if found is None or found.settled_at in {None, shown}:
        return
    fix = "look at the job again, and send its settled_at as it is there, with every digit"
    words = f"job {number} is {found.state.replace('_', ' ')} since {plain(found.settled_at)}, and settled_at is {plain(shown)}"
    raise ProblemError(CONFLICT, f"{words}: {fix}", field="settled_at", value=plain(shown), fix=fix)
