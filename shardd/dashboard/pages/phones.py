"""Phones to link: which devices wait for one, and links for their owners, one by one or for a whole list.

A link is shown once, to the operator who made it; only its hash is stored (`shardd.queue.pairing_links`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.fields import LinesError
from shardd.dashboard.linking import Linking
from shardd.dashboard.phone_links import Made, make_links, site_address
from shardd.dashboard.phone_list import MOST, PhoneList, first_of, read_phone_list, write_csv
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.dashboard.words_of_pairing import FOR_OPERATOR
from shardd.errors import UsageError
from shardd.pairing.context import WITH_SESSIONS
from shardd.pairing.link_address import warning_of
from shardd.queue.pairing_links import MINUTES, USUAL_MINUTES, PairingLinks

ROWS: Final = 100
"""Devices of one page."""
LINKED: Final = "linked"
"""The event after which the list of the page is shown anew, and not what is beside it: links that are shown once."""
UNKNOWN: Final = f"unknown; to add it, write {WITH_SESSIONS[0]} in a column transport"
"""Why a device got no link."""
SEARCH: Final = 80
"""Characters that are searched for."""


def routes(site: Site, linking: Linking) -> list[web.RouteDef]:
    """See the module."""
    pages = _Pages(site, linking)
    return [
        web.get("/phones", site.signed_in(pages.phones)),
        web.post("/phones/links", site.signed_in(pages.make, act="make pairing links")),
        web.post("/phones/links/revoke", site.signed_in(pages.revoke, act="revoke pairing link")),
    ]


class _Pages:
    def __init__(self, site: Site, linking: Linking) -> None:
        self._site = site
        self._links = linking.links

    async def phones(self, request: web.Request, sign_in: SignIn) -> web.Response:
        """The list."""
        search, after = _search(request.query), fields.text(request.query, "after") or ""
        found = await self._links.phones(after=after, search=search, most=ROWS + 1)
        waiting, linked = await self._links.count()
        return self._site.page(
            "phones.html",
            sign_in,
            phones=found[:ROWS],
            next=found[ROWS - 1].id if len(found) > ROWS else None,
            search=search,
            after=after,
            waiting=waiting,
            links=linked,
            outcomes=FOR_OPERATOR,
            minutes=MINUTES,
            usual=USUAL_MINUTES,
            most=MOST,
        )

    async def make(self, request: web.Request, sign_in: SignIn) -> web.Response:
        """Links for one device, for a list, or for all that wait."""
        form = await fields.form(request)
        minutes = int(fields.choice(form, "minutes", map(str, MINUTES)) or USUAL_MINUTES)
        wanted = await self._wanted(form)
        address = site_address(self._site, request)
        async with self._site.acting(sign_in, "", f"for {minutes} minutes") as acting:
            results, added = await make_links(
                acting,
                wanted,
                minutes=minutes,
                made_by=sign_in.user or sign_in.how,
                new_number=bool(form.get("new_number")),
                address=address,
                unknown=UNKNOWN,
            )
            if all(one.link is None for one in results):
                raise LinesError(
                    "no link was made", first_of([f"device {one.device_id}: {one.error}" for one in results])
                )
        answer = self._site.page(
            "phones-made.html",
            sign_in,
            made=[one for one in results if one.link is not None],
            refused=[one for one in results if one.link is None],
            added=added,
            unused=wanted.unused,
            minutes=minutes,
            warning=warning_of(self._site.access.origin, address),
            download=_download(results),
        )
        answer.headers["HX-Trigger"] = LINKED
        return answer

    async def revoke(self, request: web.Request, sign_in: SignIn) -> web.Response:
        """End the link of a device."""
        device = fields.text(await fields.form(request), "device") or ""
        async with self._site.acting(sign_in, f"device {device}") as acting:
            if not await PairingLinks(acting.database).revoke([device]):
                raise UsageError(f"device {device} has no link any more")
        answer = self._site.done(sign_in, f"The link of device {device} does not work any more.")
        answer.headers["HX-Trigger"] = LINKED
        return answer

    async def _wanted(self, form: Mapping[str, object]) -> PhoneList:
        if not form.get("all"):
            return read_phone_list(await _text(form), WITH_SESSIONS)
        ids = await self._links.ids(search=_search(form), most=MOST)
        if not ids:
            matches = f" and matches {search}" if (search := _search(form)) else ""
            raise UsageError(f"no link was made: no device waits for a phone{matches}")
        return PhoneList(ids, {}, [])


def _search(values: Mapping[str, object]) -> str:
    return fields.text(values, "search", longest=SEARCH) or ""


async def _text(form: Mapping[str, object]) -> str:
    """The uploaded file, else what was written."""
    file = form.get("file")
    if isinstance(file, web.FileField) and file.filename:
        try:
            return file.file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError("the file is not text in UTF-8: save it as CSV UTF-8") from None
    return str(form.get("devices", ""))


def _download(results: list[Made]) -> str:
    """The results as the address of a CSV file, which is nowhere else."""
    rows = [(one.device_id, one.url, one.ends_at, one.error) for one in results]
    text = write_csv(("device", "link", "ends_at", "error"), rows)
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
