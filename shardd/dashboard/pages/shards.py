"""What an operator does to a shard of this node: replacing its worker."""

from __future__ import annotations

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure
from shardd.dashboard.supervised import restart_shard
from shardd.errors import UsageError


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def restart(request: web.Request, sign_in: SignIn) -> web.Response:
        shard = fields.number(await fields.form(request), "shard")
        if shard is None:
            raise UsageError("shard is missing: choose one")
        if (error := await restart_shard(site, sign_in, shard)) is not None:
            return site.sorry(sign_in, *failure(error))
        return site.done(sign_in, f"shard {shard} has a new worker")

    return [web.post("/shards/restart", site.signed_in(restart, act="restart"))]
