"""Decides what follows when the phone of a recipient could not decrypt a message: a new job that sends it again, or a report.

The receipt is in the row of the message by then (`receipts`), so that a crash in between loses nothing, and whichever node
decides first has decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardd.config.sections import QueueConfig
from shardd.logs import get_logger
from shardd.queue.jobs import Jobs

log = get_logger(__name__)

RESENDS_EVERY: Final = 1.0
"""Seconds between looks."""
CHUNK: Final = 500
"""Messages of one transaction."""


async def resend_unreadable(jobs: Jobs, config: Callable[[], QueueConfig]) -> None:
    """Decide about all that are due. Raises DatabaseError."""
    while True:
        decided = await jobs.resend_unreadable(config().on_unreadable, config().max_resends, CHUNK)
        for one in decided:
            log.info("unreadable message", action="unreadable", job=one.id, resent_as=one.resent_as, why=one.why)
        if len(decided) < CHUNK:
            return
