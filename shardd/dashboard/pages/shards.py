"""What an operator does to a shard of this node: replacing its worker."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure
from shardd.errors import SharddError, UsageError

RESTART_TIMEOUT: Final = 600.0
"""Seconds: as long as a worker may finish what it has in flight, and its successor start, by any sensible config."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def restart(request: web.Request, sign_in: SignIn) -> web.Response:
        shard = fields.number(await fields.form(request), "shard")
        if shard is None:
            raise UsageError("shard is missing: choose one")
        async with site.under_way(sign_in, f"shard {shard}") as here:
            try:
                await site.supervisor.act(f"/shards/{shard}/restart", timeout=RESTART_TIMEOUT)
            except SharddError as error:
                status, here.result = failure(error)
                return site.sorry(sign_in, status, here.result)
        return site.done(sign_in, f"shard {shard} has a new worker")

    return [web.post("/shards/restart", site.signed_in(restart, act="restart"))]
