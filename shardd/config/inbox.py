"""The section `inbox`: which incoming messages are kept, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from shardd.config.fields import Section, setting
from shardd.config.values import Bytes, Choice, Seconds, Whole
from shardd.config.values.words import FilePath, InboxExtras


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
        "device's phone), status (status posts of contacts), history (what the phone sends of earlier messages after a pairing), "
        "separated by commas. null: nothing else.",
        reload="shard",
    )
    media: Annotated[str, Choice(("never", "download"))] = setting(
        "never",
        "Files that people send to devices: never (only their type, size and name are known), or download (each is stored below "
        "media_dir; its path and an event message.media follow the message).",
        reload="shard",
    )
    media_dir: Annotated[Path | None, FilePath()] = setting(
        None,
        "Folder for these files, on this host; each node has a folder of its own in it. It exists, and the account that shardd "
        "runs as may write to it. null: media in state_dir, which other accounts may not read.",
    )
    media_max_bytes: Annotated[int, Bytes("1KiB", "2GiB")] = setting(
        "16MiB", "Largest file that is downloaded; of a larger one, the message says that it was not."
    )
    media_total: Annotated[int, Bytes("1MiB", "1024GiB")] = setting(
        "10GiB",
        "Bytes of all files of a node. Beyond that nothing is downloaded until some are deleted: a file is deleted with its "
        "message, after keep.",
    )

    @property
    def downloads(self) -> bool:
        """Whether files are downloaded."""
        return self.media == "download" and self.keep > 0
