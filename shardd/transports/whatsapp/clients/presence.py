"""The presence of a device: without it WhatsApp deems the device inactive, and contacts may see no name.

The library takes the name from the session: the phone sends it some seconds after the pairing, and whenever it is changed there;
an imported session brings its own (whatsmeow, appstate.go: IndexSettingPushName).
"""

from __future__ import annotations

import asyncio
from typing import Final

from neonize.exc import NeonizeError
from neonize.utils.enum import Presence

from shardd.transports.whatsapp.clients.client import Client, ClientFailedError

SHOWN: Final = 1.0
"""Seconds for which a presence is shown: while it is, the phone may show no notifications."""
PUSH_NAME_WAIT: Final = 10.0
"""Seconds that a presence waits for the account's name, which the phone sends after a pairing."""
NO_PUSH_NAME: Final = "without PushName"
"""In whatsmeow's ErrNoPushName."""
WITHOUT_NAME: Final = (
    "no presence was shown, because this session does not have the account's name yet: change the name in the phone's profile "
    "once, and the phone sends it"
)


async def show_presence(client: Client, timeout: float) -> str | None:
    """Show the account as available and, a moment later, as unavailable; returns why that was not possible."""
    end = asyncio.get_running_loop().time() + PUSH_NAME_WAIT
    while True:
        try:
            await client.call(lambda: client.handle.send_presence(Presence.AVAILABLE), timeout)
            await asyncio.sleep(SHOWN)
            await client.call(lambda: client.handle.send_presence(Presence.UNAVAILABLE), timeout)
        except NeonizeError as error:
            if NO_PUSH_NAME not in str(error):
                return f"no presence was shown: {error}"
            if asyncio.get_running_loop().time() >= end:
                return WITHOUT_NAME
            await asyncio.sleep(SHOWN)
        except ClientFailedError as error:
            return f"no presence was shown: {error}"
        except TimeoutError:
            return "no presence was shown: WhatsApp did not answer in time"
        else:
            return None
