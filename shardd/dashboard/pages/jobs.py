"""Jobs: the newest with filters, and one with its whole story."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.states import JobState

MOST: Final = 100
"""Jobs of one page."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def jobs(request: web.Request, sign_in: SignIn) -> web.Response:
        given = {name: request.query.get(name) or None for name in ("state", "device", "campaign")}
        traits = Traits(
            state=_state(given["state"]),
            device_ids=None if given["device"] is None else [given["device"]],
            campaign=given["campaign"],
        )
        found = await JobAdmin(site.database).newest(MOST, traits)
        return site.page("jobs.html", sign_in, jobs=found, given=given, states=list(JobState))

    async def job(request: web.Request, sign_in: SignIn) -> web.Response:
        number = request.match_info["job"]
        found = await JobAdmin(site.database).show(int(number)) if len(number) < 19 else None
        if found is None:
            return site.sorry(sign_in, 404, f"There is no job {number}.")
        return site.page("job.html", sign_in, job=found)

    return [web.get("/jobs", site.signed_in(jobs)), web.get("/jobs/{job:[0-9]+}", site.signed_in(job))]


def _state(text: str | None) -> JobState | None:
    try:
        return None if text is None else JobState(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is not a state of a job: {', '.join(JobState)}") from None  # type: ignore[index]  # text is not None
