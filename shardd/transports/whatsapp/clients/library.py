"""neonize, imported once and made fit for a daemon.

Its import calls `logging.basicConfig`, it looks for an ffmpeg that we never use, its events find their loop through a module
variable that is set only once, and its blocking calls run in the event loop's default executor. All of that is settled here,
so that the rest of this package can use its names as they are.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from neonize.aioze import events as neonize_events
from neonize.aioze.client import NewAClient
from neonize.proto.Neonize_pb2 import JID
from neonize.utils import ffmpeg as neonize_ffmpeg

from shardd.transports.whatsapp.clients.threads import ElasticThreads

CHAT_HOST: Final = "web.whatsapp.com"
"""Where whatsmeow's websocket goes; media goes to hosts that the server names."""

__all__ = ["CHAT_HOST", "JID", "NewAClient", "adopt_loop", "parse_jid"]

# The level of this logger is what the Go side logs at; the messages themselves go to loggers named whatsmeow.*.
logging.getLogger("neonize.utils.log").setLevel(logging.WARNING)
neonize_ffmpeg._ffmpeg_checked = True  # noqa: SLF001 - or it warns that media cannot be sent, which is not so


def adopt_loop() -> None:
    """Make the running event loop the one in which events arrive and whose threads take the blocking calls."""
    loop = asyncio.get_running_loop()
    neonize_events.event_global_loop = loop
    loop.set_default_executor(ElasticThreads())


def parse_jid(text: str) -> JID:
    """`628…:1@s.whatsapp.net`, with or without a device number, as the library's JID. Raises ValueError."""
    user, at, server = text.partition("@")
    name, _, device = user.partition(":")
    if not at or not name or not server or (device and not device.isdecimal()):
        raise ValueError(f"{text!r} is no JID: write user@server, such as 6281234567890@s.whatsapp.net")
    return JID(User=name, Device=int(device or 0), Server=server, RawAgent=0, Integrator=0, IsEmpty=False)
