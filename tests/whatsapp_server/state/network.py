"""The state of the simulated WhatsApp, shared by its connections and the control protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ..faults import FaultList
from ..record import Record
from ..wire.codec import Codec
from ..wire.neonize_library import read_tokens
from ..wire.noise import ServerIdentity
from .accounts import AccountBook
from .groups import GroupBook
from .media import MediaStore
from .phones import Phone

if TYPE_CHECKING:
    from ..handlers.connection import ChatConnection
    from ..handlers.pairing import PairingOffer


class Receipts(StrEnum):
    """Which receipts the simulated phones send automatically."""

    OFF = "off"
    DELIVERED = "delivered"
    READ = "read"  # delivered, then read


@dataclass
class Settings:
    """How the simulated phones behave.

    Attributes:
        receipts: Which receipts they send.
        receipt_delay: Seconds before each receipt.
        announce_delay: Seconds between the login of a device and the announcement of the stanzas that waited for it.
        backlog_delay: Seconds between that announcement and the stanzas.
        unlink_after: Seconds for which a linked device may not be available before its next login finds it unlinked; 0: any.
        retry_receipts: Whether they ask for messages that they cannot decrypt.
        decrypt: Whether they decrypt messages; turn it off in a load test, which is to measure the client.
    """

    receipts: Receipts = Receipts.DELIVERED
    receipt_delay: float = 0.0
    announce_delay: float = 0.0
    backlog_delay: float = 0.0
    unlink_after: float = 0.0
    retry_receipts: bool = True
    decrypt: bool = True


@dataclass
class Network:
    """The state of the simulated WhatsApp."""

    identity: ServerIdentity
    settings: Settings = field(default_factory=Settings)
    codec: Codec = field(default_factory=lambda: Codec(read_tokens()))
    accounts: AccountBook = field(default_factory=AccountBook)
    groups: GroupBook = field(default_factory=GroupBook)
    media: MediaStore = field(default_factory=MediaStore)
    faults: FaultList = field(default_factory=FaultList)
    record: Record = field(default_factory=Record)
    pairing_offers: dict[str, PairingOffer] = field(default_factory=dict)  # by each reference of its QR codes
    not_on_whatsapp: set[str] = field(default_factory=set)
    listed_as: dict[str, str] = field(default_factory=dict)  # the number under which the directory lists another one
    connections: set[ChatConnection] = field(default_factory=set)  # logged in or connecting
    _phones: dict[str, Phone] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def phone(self, number: str) -> Phone:
        """The phone with that number."""
        if number not in self._phones:
            self._phones[number] = Phone(number)
        return self._phones[number]

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that may outlive the connection that started it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start_over(self) -> None:
        """End all connections, then forget everything."""
        for task in self._tasks:
            task.cancel()
        serving = [connection.serving for connection in self.connections if connection.serving is not None]
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        self.accounts = AccountBook()
        self._phones.clear()
        self.reset()

    def reset(self) -> None:
        """Forget everything except pairings, sessions and connections."""
        self.faults.clear()
        self.record.reset()
        for phone in self._phones.values():
            phone.screen.clear()
        self.groups.clear()
        self.media.clear()
        self.not_on_whatsapp.clear()
        self.listed_as.clear()
        self.settings = Settings()
        self.accounts.clear_standing()
