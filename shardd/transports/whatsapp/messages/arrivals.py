"""The way of a message from the library to this worker's supervisor, by the disk.

The library calls `received` in a thread of its own, for one message of a client after the other. It reports a message to WhatsApp
as received as soon as it has queued it for this call (goneonize/main.go: `eventChan`, 100 events of a client; whatsmeow's
`SynchronousAck`, which only waits for the queue, is not set either). So a message is on the disk when the call returns, and a
crash loses at most what the library has queued; the close of a client waits for that (`clients.draining`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from shardd.errors import UnsafeFileError
from shardd.incoming import Incoming, is_wanted
from shardd.incoming_spool import IncomingSpool
from shardd.logs import get_logger
from shardd.transports.base import Events
from shardd.transports.whatsapp.messages.history import read_history
from shardd.transports.whatsapp.messages.incoming import read_incoming
from shardd.transports.whatsapp.messages.recipients import OptOuts

log = get_logger(__name__)

Rest = Callable[[], None]
"""What remains to be done with a message, in the event loop."""


class Arrivals:
    """Receives the messages of all clients of a worker."""

    def __init__(
        self,
        opt_outs: OptOuts,
        spool: IncomingSpool | None,
        include: Collection[str] | None,
        events: Events,
        *,
        media: bool,
    ) -> None:
        """`include`: see `inbox.include` of the config; None: only opt-outs are kept. `media`: files are to be downloaded."""
        self._opt_outs = opt_outs
        self._spool = spool
        self._include = include
        self._media = media
        self._events = events

    def received(self, device_id: str, event: Any) -> Rest | None:
        """A message event, in a thread of the library. Raises nothing: the library would swallow it."""
        try:
            message = read_incoming(event, device_id, media=self._media)
            if message is None:
                return None
            message = self._opt_outs.marked(message)
            return self._keep(message) if is_wanted(message, self._include) else None
        except Exception as error:  # noqa: BLE001 - see the docstring; the event loop reports it
            return partial(
                self._events.defect, f"a message of device {device_id} is lost: {type(error).__name__}: {error}"
            )

    @property
    def wants_history(self) -> bool:
        """Whether the history is kept. Without that it need not be passed through the library."""
        return self._include is not None and "history" in self._include

    def history(self, device_id: str, event: Any) -> Rest | None:
        """A part of the history, in a thread of the library; see `received`.

        Its messages are reported to nobody: the supervisor finds them in the spool. They are no opt-outs.
        """
        try:
            wanted = [one for one in read_history(event, device_id) if is_wanted(one, self._include)]
            if self._spool is not None:
                self._spool.keep_all(wanted)
        except Exception as error:  # noqa: BLE001 - see `received`
            text = f"a part of the history of device {device_id} is lost: {type(error).__name__}: {error}"
            return partial(self._events.defect, text)
        return None

    def _keep(self, message: Incoming) -> Rest:
        name: str | None = None
        if self._spool is not None:
            try:
                name = self._spool.keep(message)
            except (OSError, UnsafeFileError) as error:
                # The supervisor gets it without the disk, and the heartbeats report the error.
                log.error("an incoming message cannot be written to the disk", action="inbox", error=str(error))
        return partial(self._pass_on, name, message)

    def _pass_on(self, name: str | None, message: Incoming) -> None:
        self._opt_outs.heard(message, self._events.incoming(name, message))
