"""One device in plain neonize, and the operations that tests need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..control_client import AsyncControlClient
from ..launch import ServerProcess
from .process import ClientEvent, ClientProcess


@dataclass
class PlainDevice:
    """A device that is linked to its phone and logged in, in a process that runs plain neonize."""

    server: ServerProcess
    process: ClientProcess
    number: str
    name: str
    store: str

    @property
    def control(self) -> AsyncControlClient:
        """The server's control client."""
        return self.server.async_control

    async def send(self, to: str, text: str, **parameters: Any) -> str:
        """Send a text; returns the message id."""
        return str(await self.process.call("send", client="device", to=to, text=text, **parameters))

    async def event(self, kind: str, **parameters: Any) -> ClientEvent:
        """The next event of the client."""
        return await self.process.event(kind, "device", **parameters)

    async def close(self) -> None:
        """Stop the client; the stored session is kept."""
        await self.process.call("close", client="device")

    async def open(self, *, proxy: str = "") -> None:
        """Start connecting with the stored session; events report the outcome."""
        proxy = proxy or self.server.proxy_url(self.name)
        jid = f"{self.name}@s.whatsapp.net"
        await self.process.call("open", client="device", store=self.store, proxy=proxy, jid=jid)
