"""Opt-outs: the list, one person's, and adding one. None is taken back here: only the person can do that."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.forgetting import Forgetting
from shardd.queue.opt_outs import NewOptOut, OptOutAdmin
from shardd.spelling import Spelling

MOST: Final = 50
"""Opt-outs of one page."""
MOST_STOPPED: Final = 20
"""Stopped jobs that are listed with a person."""
MOST_NUMBER: Final = 100
MOST_NOTE: Final = 1000
"""Characters of a note, as the database accepts them."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    admin = OptOutAdmin(site.database)

    async def spelling() -> Spelling:
        return Spelling((await site.supervisor.settings()).node.default_region)

    async def opt_outs(request: web.Request, sign_in: SignIn) -> web.Response:
        if written := fields.text(request.query, "number", longest=MOST_NUMBER):
            return await person(sign_in, written)
        before = fields.number(request.query, "before")
        found = await admin.page(MOST + 1, before)
        return site.page(
            "opt-outs.html",
            sign_in,
            found=found[:MOST],
            before=before,
            next=found[MOST - 1].number if len(found) > MOST else None,
        )

    async def person(sign_in: SignIn, written: str) -> web.Response:
        address = (await spelling()).address(written)
        return site.page(
            "opt-out.html",
            sign_in,
            written=written,
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
            raise UsageError("number is empty: write a phone number, or an address that ends with @lid or @g.us")
        try:
            recipient = (await spelling()).read(written)
        except UsageError as error:  # its words have the number of a person, which the audit log shall not keep
            await site.acted(sign_in, "opt out", "a person", result="the number cannot be read")
            return site.sorry(sign_in, 400, str(error))
        new = await admin.add([NewOptOut(recipient, note)], source="operator", created_by=sign_in.user)
        await site.acted(sign_in, "opt out", "a person", "added" if new else "already listed")
        if not new:
            return site.done(sign_in, f"{recipient} is on the list already, and stays as it is.")
        return site.done(sign_in, f"{recipient} is opted out: no more messages are sent to them.")

    return [web.get("/opt-outs", site.signed_in(opt_outs)), web.post("/opt-outs", site.signed_in(add, act="opt out"))]
