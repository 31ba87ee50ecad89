"""Opt-outs: the list, one person's, and adding one. None is taken back here: only the person can do that."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.opting_out import EMPTY, MOST_NOTE, MOST_NUMBER, OPT_OUT, but_exempt, opt_out
from shardd.dashboard.recipients import spelling_of
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.forgetting import Forgetting
from shardd.queue.opt_outs import OptOutAdmin

MOST: Final = 50
"""Opt-outs of one page."""
MOST_STOPPED: Final = 20
"""Stopped jobs that are listed with a person."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    admin = OptOutAdmin(site.database)

    async def opt_outs(request: web.Request, sign_in: SignIn) -> web.Response:
        try:
            if written := fields.text(request.query, "number", longest=MOST_NUMBER):
                return await person(sign_in, written)
            before, error = fields.number(request.query, "before"), ""
        except UsageError as wrong:  # the form again, with what was typed
            before, error = None, str(wrong)
        found = await admin.page(MOST + 1, before)
        return site.page(
            "opt-outs.html",
            sign_in,
            status=400 if error else 200,
            error=error,
            but=but_exempt(await admin.exempt()),
            written=fields.typed(request.query, ["number"])["number"],
            found=found[:MOST],
            before=before,
            next=found[MOST - 1].number if len(found) > MOST else None,
        )

    async def person(sign_in: SignIn, written: str) -> web.Response:
        spelling = await spelling_of(site)
        address, recipient = spelling.address(written), spelling.read(written)
        return site.page(
            "opt-out.html",
            sign_in,
            recipient=recipient,
            but=but_exempt(await admin.exempt()),
            address=address,
            found=await admin.show(address),
            trail=await admin.trail(address),
            stopped=await admin.stopped(address, MOST_STOPPED),
            forgotten=await Forgetting(site.database).since(address),
        )

    async def add(request: web.Request, sign_in: SignIn) -> web.Response:
        form = await fields.form(request)
        written = fields.text(form, "number", longest=MOST_NUMBER)
        note = fields.text(form, "note", longest=MOST_NOTE)
        if written is None:
            raise UsageError(f"number {EMPTY}")
        try:
            done = await opt_out(site, sign_in, written, note)
        except UsageError as error:  # recorded already, without the number in its words
            return site.sorry(sign_in, 400, str(error))
        return site.done(sign_in, done.words)

    return [web.get("/opt-outs", site.signed_in(opt_outs)), web.post("/opt-outs", site.signed_in(add, act=OPT_OUT))]
