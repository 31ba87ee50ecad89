"""The control protocol: lines of JSON over TCP on loopback, with which a test controls the server and reads its record.

A request is ``{"do": name, …parameters}``; the answer is ``{"ok": true, "result": …}`` or ``{"ok": false, "error": text}``.
Requests of one connection are answered in order, so a request that waits needs its own connection.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import resource
import time
import zlib
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from .faults import Fault, device_matches
from .handlers import incoming, pairing
from .handlers.connection import ChatConnection, stream_error
from .handlers.messages import receipt
from .handlers.retries import retry_receipt
from .record import EventFilter, MessageFilter
from .state.accounts import LinkedDevice, UnknownDeviceError
from .state.groups import UnknownGroupError
from .state.network import Network, Receipts
from .wire.nodes import GROUP_SERVER, JID, SERVER, Attributes, Node, lid_jid

MAX_REQUEST = 64 * 1024 * 1024
LOGGED_OUT = 401
_EXPECTED_ERRORS = (
    pairing.PairingRefusedError,
    incoming.CannotWriteError,
    UnknownDeviceError,
    UnknownGroupError,
    ValueError,
    TypeError,
    TimeoutError,
)


class ControlServer:
    """Serves the control protocol for one network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._commands = Commands(network)
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1 (port 0: any free port)."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_REQUEST)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name = request.pop("do")
            command = None if name.startswith("_") else getattr(self._commands, name, None)
            if command is None:
                return {"ok": False, "error": f"unknown request {name!r}"}
            result = command(**request)
            if inspect.isawaitable(result):
                result = await result
        except _EXPECTED_ERRORS as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
        except (KeyError, AttributeError) as error:
            return {"ok": False, "error": f"bad request {line!r}: {error!r}"}
        return {"ok": True, "result": result}


class Commands:
    """One method per request; parameters and results are JSON."""

    def __init__(self, network: Network) -> None:
        self._network = network

    # Faults

    def inject(self, **fault: Any) -> int:
        """Add a fault (fields of ``Fault``); returns its id."""
        return self._network.faults.inject(Fault(**fault)).id

    def remove_fault(self, fault: int) -> bool:
        """Remove one fault; false if it was used up."""
        return self._network.faults.remove(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._network.faults.clear()

    # The record

    def messages(
        self, *, accepted_only: bool = True, readable_only: bool = True, **wanted: str
    ) -> list[dict[str, Any]]:
        """Messages that match (fields of ``MessageFilter``); see ``Record.messages``."""
        found = self._network.record.messages(
            MessageFilter(**wanted), accepted_only=accepted_only, readable_only=readable_only
        )
        return [message.as_dict() for message in found]

    async def wait_messages(self, count: int, timeout: float, **wanted: str) -> list[dict[str, Any]]:
        """Deliveries that match, once there are ``count``; an error if there are fewer after ``timeout`` seconds."""
        found = await self._network.record.wait_messages(MessageFilter(**wanted), count, timeout)
        _demand(len(found), count, "messages", timeout)
        return [message.as_dict() for message in found]

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Events that match (fields of ``EventFilter``)."""
        return [event.as_dict() for event in self._network.record.events(EventFilter(**wanted))]

    async def wait_events(self, count: int, timeout: float, **wanted: Any) -> list[dict[str, Any]]:
        """Events that match, once there are ``count``; an error if there are fewer after ``timeout`` seconds."""
        found = await self._network.record.wait_events(EventFilter(**wanted), count, timeout)
        _demand(len(found), count, "events", timeout)
        return [event.as_dict() for event in found]

    def stats(self) -> dict[str, Any]:
        """All counts, the devices online, and the CPU seconds and memory (bytes) of this process."""
        online = sorted(device.name for device in self._network.accounts.online())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        memory = {"rss": _resident_bytes(), "peak_rss": usage.ru_maxrss * 1024}
        return {
            "counts": dict(self._network.record.counts),
            "online": len(online),
            "devices": online,
            "connections": len(self._network.connections),
            "faults": len(self._network.faults.in_force()),
            "cpu": time.process_time(),
            **memory,
        }

    async def start_over(self) -> None:
        """Cut every connection and forget everything, as if the server had just started."""
        await self._network.start_over()

    def reset(self) -> None:
        """Forget everything except pairings and connections."""
        self._network.reset()

    # Pairing

    def scan(self, qr: str, number: str) -> str:
        """The owner of ``number`` scans a QR code; returns the device's address."""
        return str(pairing.scan(self._network, qr, number))

    async def enter_code(self, number: str, code: str, timeout: float = 20) -> str:
        """The owner of ``number`` types a code; returns ``paired`` or ``wrong_code``."""
        record = self._network.record
        seen = max((event.number for event in record.events(EventFilter())), default=0)
        pairing.enter_code(self._network, number, code)
        outcomes: list[Awaitable[Any]] = [
            record.wait_events(EventFilter("paired", number, seen), 1, timeout),
            record.wait_events(EventFilter("wrong_code", number, seen), 1, timeout),
        ]
        tasks = [asyncio.ensure_future(outcome) for outcome in outcomes]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        found = done.pop().result()
        _demand(len(found), 1, "outcomes of the code", timeout)
        return str(found[0].kind)

    def activity(self) -> dict[str, dict[str, float]]:
        """Of every linked device: its logins and presences, and the longest times, in seconds, without either."""
        return {
            device.name: {
                "logins": device.logins,
                "presences": device.presences,
                "offline": device.offline(),
                "silence": device.silence(),
            }
            for device in self._network.accounts.devices()
        }

    # Phones and their owners

    def settings(self, **changes: Any) -> None:
        """Change how the phones behave (fields of ``Settings``)."""
        for name, value in changes.items():
            if not hasattr(self._network.settings, name):
                raise ValueError(f"unknown setting {name!r}")
            setattr(self._network.settings, name, Receipts(value) if name == "receipts" else value)

    def not_on_whatsapp(self, numbers: list[str]) -> None:
        """Set the numbers that are not on WhatsApp; all others are."""
        self._network.not_on_whatsapp = set(numbers)

    def listed_as(self, numbers: dict[str, str]) -> None:
        """Set the numbers of accounts that the directory lists under other numbers."""
        self._network.listed_as = dict(numbers)

    def write(self, device: str, sender: str, text: str, group: str = "", *, hidden: bool = False) -> str:
        """A phone writes to a device; returns the message id."""
        message = incoming.text_message(text)
        return incoming.write_to_device(self._network, self._device(device), sender, message, group, hidden=hidden)

    def post_status(self, device: str, sender: str, text: str) -> str:
        """A phone posts a status that a device sees; returns the message id."""
        return incoming.post_status(self._network, self._device(device), sender, incoming.text_message(text))

    def write_from_owner(self, device: str, recipient: str, text: str) -> str:
        """The phone of a device's owner writes to somebody, and the device gets a copy; returns the message id."""
        message = incoming.text_message(text)
        return incoming.write_from_owner(self._network, self._device(device), recipient, message)

    def send_history(self, device: str, *, history: str) -> str:
        """The phone of a device's owner sends the history (base64 of a HistorySync); returns the message id."""
        message = incoming.e2e.Message()
        notification = message.protocolMessage.historySyncNotification
        notification.initialHistBootstrapInlinePayload = zlib.compress(base64.b64decode(history))
        found = self._device(device)
        return incoming.write_from_owner(self._network, found, found.number, message)

    def write_raw(self, device: str, sender: str, *, content: str, group: str = "") -> str:
        """A phone sends any content (the base64 of a message, or of bytes that are none) to a device; returns the message id."""
        raw = base64.b64decode(content)
        return incoming.write_to_device(self._network, self._device(device), sender, raw, group)

    def write_media(
        self,
        device: str,
        sender: str,
        *,
        kind: str,
        data: str,
        mime_type: str,
        caption: str = "",
        group: str = "",
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """A phone sends a file (base64) to a device; returns the message id. ``claims``: fields that are not true."""
        plain = base64.b64decode(data)
        message = incoming.media_message(self._network, kind, plain, mime_type, caption)
        incoming.claim(message, claims or {})
        return incoming.write_to_device(self._network, self._device(device), sender, message, group)

    def receipt(
        self,
        device: str,
        recipient: str,
        message_id: str,
        *,
        read: bool = False,
        participant: str = "",
        kind: str = "",
        by: int = 0,
    ) -> None:
        """A device of a recipient (``by``; 0: the phone) confirms a message as delivered or as read, or as another ``kind``.

        In a group, the phone is ``participant``. The kind ``retry``: it could not decrypt the message.
        """
        to = JID(recipient, GROUP_SERVER) if participant else lid_jid(recipient, by)
        member = lid_jid(participant, by) if participant else None
        if kind == "retry":
            addresses: Attributes = {"from": to, "participant": member}
            node = retry_receipt(self._network, message_id, participant or recipient, addresses)
        else:
            node = receipt(to, message_id, kind or ("read" if read else ""), member)
        self._device(device).deliver(node)

    def reinstall(self, number: str) -> None:
        """WhatsApp is installed anew on a phone: it cannot decrypt what is encrypted for its old keys."""
        self._network.phone(number).reinstall()

    def switch_off(self, number: str) -> None:
        """A phone is off: messages from people wait for it."""
        self._network.phone(number).online = False

    def switch_on(self, number: str) -> None:
        """A phone is on again, decrypts what waited for it, and confirms it or asks for it again."""
        self._network.phone(number).switch_on()

    def screen(self, number: str) -> list[dict[str, str]]:
        """The messages that a phone shows: chat, sender, id and text."""
        shown = self._network.phone(number).screen.items()
        return [{"chat": chat, "sender": sender, "id": id_, "text": text} for (chat, sender, id_), text in shown]

    def create_group(self, subject: str, members: list[str]) -> str:
        """A new group of these numbers; returns its id."""
        return self._network.groups.create(subject, members).id

    def add_contacts(self, number: str, recipients: list[str]) -> None:
        """Make these recipients known contacts of ``number``."""
        self._network.accounts.account(number).contacts.update(recipients)

    # WhatsApp, to a device

    async def remove_device(self, device: str) -> None:
        """The owner unlinks the device: it is logged out if online, and every later login is refused (401)."""
        linked = self._device(device)
        connection = linked.connection
        self._network.accounts.remove(linked)
        if connection is not None:
            await connection.stream_error(LOGGED_OUT, "device_removed")

    def link_again(self, device: str) -> None:
        """Accept the next login under the address of an unlinked device as that of a newly paired one."""
        number, _, index = device.partition(":")
        self._network.accounts.account(number).removed.discard(int(index))

    async def replace(self, device: str) -> None:
        """Another client logs in with the same session: stream conflict ``replaced``."""
        await self._connection(device).stream_error(conflict="replaced")

    async def stream_error(
        self, device: str, code: int | None = None, conflict: str = "", hang_up: bool = True
    ) -> None:
        """Send ``<stream:error>`` and, by default, hang up."""
        connection = self._connection(device)
        if hang_up:
            await connection.stream_error(code, conflict)
        else:
            connection.send(stream_error(code, conflict))

    def cut(self, device: str = "") -> int:
        """Cut the TCP connections of one device, or of all; returns how many."""
        devices = [linked for linked in self._network.accounts.online() if device_matches(device, linked.name)]
        for linked in devices:
            if linked.connection is not None:
                linked.connection.cut()
        return len(devices)

    def mute(self, device: str) -> None:
        """Stop answering on the device's connection; TCP stays up."""
        self._connection(device).muted = True

    async def ban(self, number: str, seconds: float, code: int = 101) -> None:
        """Ban an account for ``seconds``: cut its connections and refuse its logins with 402."""
        account = self._network.accounts.account(number)
        account.banned_until, account.ban_code = time.time() + seconds, code
        self.cut(number)

    def restrict(self, number: str, seconds: float) -> None:
        """Refuse messages to strangers with 463 for ``seconds``."""
        self._network.accounts.account(number).restricted_until = time.time() + seconds

    def report_restriction(self, device: str, *, active: bool, seconds: float = 0.0) -> None:
        """Report to a device whether its account may not write to strangers, and for how long."""
        found = {"is_active": active, "enforcement_type": "RESTRICT_ALL_COMPANIONS"}
        if active:
            found["time_enforcement_ends"] = str(int(time.time() + seconds))
        data = json.dumps({"data": {"xwa2_notify_account_reachout_timelock": found}}).encode()
        update = Node("update", {"op_name": "NotificationUserReachoutTimelockUpdate"}, data)
        attributes: Attributes = {"from": SERVER, "type": "mex", "id": f"{time.time_ns()}", "t": int(time.time())}
        self._device(device).deliver(Node("notification", attributes, [update]))

    def change_devices(self, device: str, number: str) -> None:
        """Report to a device that the devices of a number's owner have changed."""
        attributes: Attributes = {
            "from": lid_jid(number),
            "type": "devices",
            "id": f"{time.time_ns()}",
            "t": int(time.time()),
        }
        self._device(device).deliver(Node("notification", attributes, [Node("update", {"hash": "changed"})]))

    def forgive(self, number: str) -> None:
        """End a ban and a restriction."""
        account = self._network.accounts.account(number)
        account.banned_until = account.restricted_until = 0.0

    def _device(self, name: str) -> LinkedDevice:
        return self._network.accounts.device(name)

    def _connection(self, name: str) -> ChatConnection:
        connection = self._device(name).connection
        if connection is None:
            raise UnknownDeviceError(f"{name} is not online")
        return connection


def _demand(found: int, wanted: int, what: str, timeout: float) -> None:
    if found < wanted:
        raise TimeoutError(f"{found} of {wanted} {what} after {timeout:g} s")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
