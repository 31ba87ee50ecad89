"""How recipients are read on pages and by the API: in any spelling, with the country of this node for those without one."""

from __future__ import annotations

from shardd.dashboard.site import Site
from shardd.errors import SharddError
from shardd.spelling import Spelling


async def spelling_of(site: Site) -> Spelling:
    """As the config says. Raises SharddError."""
    return Spelling((await site.supervisor.settings()).node.default_region)


async def address_of(site: Site, recipient: str) -> str:
    """A recipient as jobs are searched by it, also while the supervisor does not answer. Raises UsageError."""
    try:
        spelling = await spelling_of(site)
    except SharddError:
        spelling = Spelling(None)
    return spelling.address(recipient)
