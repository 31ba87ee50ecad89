"""Adding an opt-out, on a page or with a token: read in any spelling, and in the audit log without the number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shardd.dashboard.recipients import spelling_of
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.act_log import Actor
from shardd.queue.opt_outs import NewOptOut, OptOutAdmin

OPT_OUT: Final = "opt out"
"""What the audit log calls it."""
PERSON: Final = "a person"
"""Whom the audit log names."""
EMPTY: Final = "is empty: write a phone number, or an address that ends with @lid or @g.us"
MOST_NUMBER: Final = 100
MOST_NOTE: Final = 1000
"""Characters of a note, as the database accepts them."""


def but_exempt(classes: Sequence[str]) -> str:
    """What goes on in spite of an opt-out, as the end of a sentence that says that nothing does."""
    return f", but those of the class {' and '.join(classes)} (opt_outs.exempt)" if classes else ""


@dataclass(frozen=True, slots=True)
class OptedOut:
    """What became of it."""

    new: bool
    words: str


async def opt_out(site: Site, actor: Actor, written: str, note: str | None) -> OptedOut:
    """Add an opt-out, and write to the audit log that somebody was added, or that nobody could be. Raises SharddError."""
    try:
        recipient = (await spelling_of(site)).read(written)
    except UsageError:  # its words have the number of a person, which the audit log shall not keep
        await site.refused(actor, PERSON, why="the number cannot be read")
        raise
    async with site.acting(actor, PERSON) as acting:
        admin = OptOutAdmin(acting.database)
        new = await admin.add([NewOptOut(recipient, note)], source="operator", created_by=actor.user)
        but = but_exempt(await admin.exempt())
        if new:
            acting.detail = "added"
        else:
            acting.result = "already listed"
    if not new:
        return OptedOut(new=False, words=f"{recipient} is on the list already, and stays as it is.")
    return OptedOut(new=True, words=f"{recipient} is opted out: no more messages are sent to them{but}.")
