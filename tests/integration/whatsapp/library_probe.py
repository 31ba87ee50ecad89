"""What the library is like once it is imported, as JSON: for the tests of its facts.

It runs in a process of its own, because the import changes the process, and the library reads its environment once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import weakref
from pathlib import Path
from typing import Any


async def look(folder: Path) -> dict[str, Any]:
    """Every fact by a short name."""
    root = logging.getLogger()
    handlers = len(root.handlers)
    from neonize.aioze import client, events  # noqa: PLC0415 - the import is what is examined
    from neonize.proto.Neonize_pb2 import JID  # noqa: PLC0415
    from neonize.utils import ffmpeg  # noqa: PLC0415
    from neonize.utils.jid import Jid2String  # noqa: PLC0415

    found: dict[str, Any] = {
        "root_level": root.level,
        "handlers_added": len(root.handlers) - handlers,
        "log_name": client.log.name,
        "listener": callable(client.log_whatsmeow),
        "ffmpeg_checked": ffmpeg._ffmpeg_checked,
        "loop": events.event_global_loop is None,
    }
    jid = JID(User="6281100000001", Device=7, Server="s.whatsapp.net", RawAgent=0, Integrator=0, IsEmpty=False)
    phone = JID(User="6281100000001", Device=0, Server="s.whatsapp.net", RawAgent=0, Integrator=0, IsEmpty=False)
    one = client.NewAClient(str(folder / "store.sqlite"), jid=jid)
    found |= {
        "jid": Jid2String(jid),
        "phone": Jid2String(phone),
        "uuid": one.uuid.decode(),
        "finalizer": isinstance(one._stop_finalizer, weakref.finalize) and one._stop_finalizer.alive,
        "callback": callable(one.event.execute),
        "nothing_opened": not list(folder.iterdir()),  # noqa: ASYNC240 - nothing else runs in this loop
    }
    one._stop_finalizer.detach()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    events.set_event_loop(first)
    events.set_event_loop(second)
    found["loop_set_once"] = events.event_global_loop is first
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(look(Path(sys.argv[1])))))
