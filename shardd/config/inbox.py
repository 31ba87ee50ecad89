"""The section `inbox`: which incoming messages are kept, and for how long."""

from __future__ import annotations

from typing import Annotated

from shardd.config.fields import Section, setting
from shardd.config.values import Seconds, Whole
from shardd.config.values.words import InboxExtras


class InboxConfig(Section, reload="live"):
    """What people write to devices, in shardd.inbox and as events message.received; the same on every host."""

    keep: Annotated[float, Seconds("0", "3650d")] = setting(
        "30d",
        "How long an incoming message can be read in shardd.inbox, and answered with reply_to. 0: none is stored, and there are "
        "no events message.received; opt-outs by message have their effect in any case.",
        reload="shard",
    )
    most: Annotated[int, Whole(1000, 1_000_000_000)] = setting(
        "1000000", "Number of incoming messages kept, at most; each takes about 0.5 kB, and more with a long text."
    )
    include: InboxExtras | None = setting(
        None,
        "What is kept besides messages that people write to a device: groups (messages in groups), own (messages written on the "
        "device's phone), status (status posts of contacts), separated by commas. null: nothing else.",
        reload="shard",
    )
