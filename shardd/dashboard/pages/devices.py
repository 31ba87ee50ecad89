"""Devices: a list with filters, and one device."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.config import TRANSPORTS
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.queue.devices import PAUSED, DeviceAdmin
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.states import DeviceState

LATEST: Final = 20
"""Jobs that are shown with a device."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def devices(request: web.Request, sign_in: SignIn) -> web.Response:
        state, transport = request.query.get("state") or None, request.query.get("transport") or None
        found = await DeviceAdmin(site.database).find(transport=transport, state=state)
        return site.page(
            "devices.html",
            sign_in,
            devices=found,
            state=state,
            transport=transport,
            states=[*DeviceState, PAUSED],
            transports=sorted(TRANSPORTS),
        )

    async def device(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["device"]
        found = await DeviceAdmin(site.database).find(ids=[name])
        if not found:
            return site.sorry(sign_in, 404, f"There is no device {name}.")
        jobs = await JobAdmin(site.database).newest(LATEST, Traits(device_ids=[name]))
        return site.page("device.html", sign_in, device=found[0], jobs=jobs)

    return [web.get("/devices", site.signed_in(devices)), web.get("/devices/{device}", site.signed_in(device))]
