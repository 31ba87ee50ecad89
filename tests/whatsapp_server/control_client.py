"""Python clients of the control protocol: ``ControlClient`` for plain code, ``AsyncControlClient`` for asyncio.

Each request opens its own connection, so a request that waits does not block others; both clients can be shared freely.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .record import Arrival, Event, LinkPreview, Media, Message

WAIT = 30.0
_SLACK = 30.0  # seconds to wait for the server beyond the request's own timeout


@dataclass(frozen=True, slots=True)
class Activity:
    """What a linked device did since it was linked, or first seen."""

    logins: int
    presences: int
    offline: float
    """The longest time, in seconds, in which it was not logged in."""
    silence: float
    """The longest time, in seconds, in which it did not show itself as available."""


class ControlError(Exception):
    """The server refused a request, or a wait timed out; the text says which."""


class ControlClient:
    """Controls a running test server. A device is named ``number:index``, or ``number`` for the latest device of a number."""

    def __init__(self, control_port: int) -> None:
        self._address = ("127.0.0.1", control_port)

    def call(self, do: str, **parameters: Any) -> Any:
        """Send one request; parameters that are None are omitted.

        Raises:
            ControlError: The server refused it.
        """
        request = {"do": do, **{name: value for name, value in parameters.items() if value is not None}}
        with socket.create_connection(self._address, timeout=parameters.get("timeout", 0) + _SLACK) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        if not line:
            raise ControlError(f"the server hung up on {do!r}")
        answer = json.loads(line)
        if not answer["ok"]:
            raise ControlError(answer["error"])
        return answer["result"]

    def fault(
        self,
        kind: str,
        at: str,
        *,
        device: str = "",
        recipient: str = "",
        times: int | None = 1,
        probability: float = 1.0,
        **details: Any,
    ) -> int:
        """Add a fault (see ``faults``); ``times=None``: without limit. Returns its id."""
        request = {"kind": kind, "at": at, "device": device, "recipient": recipient, "probability": probability}
        # ``times=None`` means "without limit" and must not be omitted like other parameters that are None.
        unlimited = {"times": times} if times is not None else {"times": 1 << 60}
        return int(self.call("inject", **request, **unlimited, **details))

    def remove_fault(self, fault: int) -> bool:
        """Remove one fault; False if it was used up."""
        return bool(self.call("remove_fault", fault=fault))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.call("clear_faults")

    def messages(
        self,
        *,
        sender: str = "",
        recipient: str = "",
        text: str = "",
        message_id: str = "",
        accepted_only: bool = True,
        readable_only: bool = True,
    ) -> list[Message]:
        """Deliveries: messages that WhatsApp accepted and somebody can read, each once, with its arrivals.

        ``accepted_only=False``: all that arrived; ``readable_only=False``: also accepted ones that nobody can read.
        """
        wanted = {"sender": sender, "recipient": recipient, "text": text, "message_id": message_id}
        which = {"accepted_only": accepted_only, "readable_only": readable_only}
        return [_message(found) for found in self.call("messages", **which, **wanted)]

    def wait_messages(
        self,
        count: int = 1,
        *,
        timeout: float = WAIT,
        sender: str = "",
        recipient: str = "",
        text: str = "",
        message_id: str = "",
    ) -> list[Message]:
        """Deliveries that match, once there are ``count``.

        Raises:
            ControlError: There were fewer after ``timeout`` seconds.
        """
        wanted = {"sender": sender, "recipient": recipient, "text": text, "message_id": message_id}
        return [_message(found) for found in self.call("wait_messages", count=count, timeout=timeout, **wanted)]

    def resent(self) -> list[Message]:
        """Messages that the client sent more than once with the same id, unasked; WhatsApp shows them once."""
        return [
            message
            for message in self.messages(readable_only=False)
            if sum(not arrival.answers_retry for arrival in message.arrivals) > 1
        ]

    def doubled(self) -> list[list[Message]]:
        """Deliveries from one sender to one recipient with the same kind and text but different ids.

        A person would see them twice. A test that counts duplicates needs a distinct text in every message.
        """
        groups: dict[tuple[str, str, str, str], list[Message]] = {}
        for message in self.messages():
            groups.setdefault((message.sender, message.recipient, message.kind, message.text), []).append(message)
        return [group for group in groups.values() if len(group) > 1]

    def events(self, kind: str = "", *, device: str = "", after: int = 0) -> list[Event]:
        """Events: login, login_refused, disconnect, paired, logout, upload, download, client_receipt, fault, and so on."""
        return [Event(**found) for found in self.call("events", kind=kind, device=device, after=after)]

    def wait_events(
        self, kind: str, count: int = 1, *, device: str = "", after: int = 0, timeout: float = WAIT
    ) -> list[Event]:
        """Events that match, once there are ``count``; only those after the event whose ``number`` is ``after``.

        Raises:
            ControlError: There were fewer after ``timeout`` seconds.
        """
        wanted = {"kind": kind, "device": device, "after": after}
        return [Event(**found) for found in self.call("wait_events", count=count, timeout=timeout, **wanted)]

    def stats(self) -> dict[str, Any]:
        """Counts and resource usage of the server.

        ``counts`` by name, ``online`` (devices logged in), ``devices`` (their names), ``connections`` (open now), ``faults``,
        ``cpu`` (seconds), ``rss`` and ``peak_rss`` (bytes).
        """
        return dict(self.call("stats"))

    def start_over(self) -> None:
        """Cut every connection and forget everything, including pairings: a fresh server for the next test."""
        self.call("start_over")

    def reset(self) -> None:
        """Forget faults, record, groups, media, settings, bans and restrictions; devices stay paired and connected."""
        self.call("reset")

    def scan(self, qr: str, number: str) -> str:
        """The owner of ``number`` scans a QR code; returns the device's address."""
        return str(self.call("scan", qr=qr, number=number))

    def enter_code(self, number: str, code: str, *, timeout: float = WAIT) -> str:
        """The owner of ``number`` types a code; returns ``paired`` or ``wrong_code``."""
        return str(self.call("enter_code", number=number, code=code, timeout=timeout))

    def settings(
        self,
        *,
        receipts: str | None = None,
        receipt_delay: float | None = None,
        announce_delay: float | None = None,
        backlog_delay: float | None = None,
        unlink_after: float | None = None,
        retry_receipts: bool | None = None,
        decrypt: bool | None = None,
    ) -> None:
        """Change how phones behave (see ``state.network.Settings``); receipts: ``off``, ``delivered`` or ``read``."""
        self.call(
            "settings",
            receipts=receipts,
            receipt_delay=receipt_delay,
            announce_delay=announce_delay,
            backlog_delay=backlog_delay,
            unlink_after=unlink_after,
            retry_receipts=retry_receipts,
            decrypt=decrypt,
        )

    def activity(self) -> dict[str, Activity]:
        """What each linked device did, by its name."""
        return {name: Activity(**found) for name, found in self.call("activity").items()}

    def not_on_whatsapp(self, *numbers: str) -> None:
        """Set the numbers that are not on WhatsApp; all others are."""
        self.call("not_on_whatsapp", numbers=list(numbers))

    def listed_as(self, numbers: dict[str, str]) -> None:
        """Set the numbers of accounts that the directory lists under other numbers, as in Mexico and Brazil."""
        self.call("listed_as", numbers=numbers)

    def write(self, device: str, sender: str, text: str, *, group: str = "", hidden: bool = False) -> str:
        """Send a text from a phone to a device, which gets it at its next login if it is offline; returns the message id.

        ``hidden``: the device does not learn the sender's number.
        """
        return str(self.call("write", device=device, sender=sender, text=text, group=group, hidden=hidden))

    def post_status(self, device: str, sender: str, text: str) -> str:
        """Post a status as a phone that has the device's owner as a contact; returns the message id."""
        return str(self.call("post_status", device=device, sender=sender, text=text))

    def write_from_owner(self, device: str, recipient: str, text: str) -> str:
        """Send a text from the phone of a device's owner, of which the device gets a copy; returns the message id."""
        return str(self.call("write_from_owner", device=device, recipient=recipient, text=text))

    def send_history(self, device: str, history: bytes) -> str:
        """Send a serialised HistorySync from the phone of a device's owner; returns the message id."""
        return str(self.call("send_history", device=device, history=base64.b64encode(history).decode()))

    def write_raw(self, device: str, sender: str, content: bytes, *, group: str = "") -> str:
        """Send any serialised message, or bytes that are none, from a phone to a device; returns the message id."""
        encoded = base64.b64encode(content).decode()
        return str(self.call("write_raw", device=device, sender=sender, content=encoded, group=group))

    def write_media(
        self,
        device: str,
        sender: str,
        kind: str,
        data: bytes,
        mime_type: str,
        *,
        caption: str = "",
        group: str = "",
        claims: dict[str, Any] | None = None,
    ) -> str:
        """Send an image, video, audio or document from a phone to a device; returns the message id.

        ``claims``: fields of the message that are not true, such as ``{"fileLength": 1}``.
        """
        details = {"mime_type": mime_type, "caption": caption, "group": group, "claims": claims or {}}
        encoded = base64.b64encode(data).decode()
        return str(self.call("write_media", device=device, sender=sender, kind=kind, data=encoded, **details))

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
        """Confirm a message as delivered or as read; the device gets it at its next login if it is offline.

        ``kind``: another kind of receipt, such as ``inactive`` or ``retry``; ``by``: the recipient's device that sends it.
        """
        about = {"device": device, "recipient": recipient, "message_id": message_id, "participant": participant}
        self.call("receipt", **about, read=read, kind=kind, by=by)

    def reinstall(self, number: str) -> None:
        """Install WhatsApp anew on a phone: it cannot decrypt what is encrypted for its old keys, and asks for it again."""
        self.call("reinstall", number=number)

    def switch_off(self, number: str) -> None:
        """Switch a phone off: what people get waits for it, undelivered and not decrypted."""
        self.call("switch_off", number=number)

    def switch_on(self, number: str) -> None:
        """Switch a phone on again."""
        self.call("switch_on", number=number)

    def screen(self, number: str) -> list[str]:
        """The ids of the messages that a phone shows: those that were deleted for everyone are not among them."""
        return [shown["id"] for shown in self.call("screen", number=number)]

    def create_group(self, subject: str, members: list[str]) -> str:
        """Create a group of these numbers, which include the device's own; returns its id (its address is ``id@g.us``)."""
        return str(self.call("create_group", subject=subject, members=members))

    def add_contacts(self, number: str, *recipients: str) -> None:
        """Make these recipients known contacts of ``number``."""
        self.call("add_contacts", number=number, recipients=list(recipients))

    def remove_device(self, device: str) -> None:
        """The owner unlinks the device: 401 ``device_removed`` at once if it is online, and at every login."""
        self.call("remove_device", device=device)

    def link_again(self, device: str) -> None:
        """WhatsApp gives the address of an unlinked device to a new one."""
        self.call("link_again", device=device)

    def replace(self, device: str) -> None:
        """Another client logs in with the same session: stream conflict ``replaced``."""
        self.call("replace", device=device)

    def stream_error(self, device: str, *, code: int | None = None, conflict: str = "", hang_up: bool = True) -> None:
        """Send ``<stream:error>`` to an online device."""
        self.call("stream_error", device=device, code=code, conflict=conflict, hang_up=hang_up)

    def cut(self, device: str = "") -> int:
        """Cut the TCP connections of one device, or of all; returns how many."""
        return int(self.call("cut", device=device))

    def mute(self, device: str) -> None:
        """Stop answering on the device's connection; TCP stays up."""
        self.call("mute", device=device)

    def ban(self, number: str, seconds: float, *, code: int = 101) -> None:
        """Ban an account for ``seconds``: cut its connections and refuse its logins with 402 and the time left."""
        self.call("ban", number=number, seconds=seconds, code=code)

    def restrict(self, number: str, seconds: float) -> None:
        """Refuse messages to strangers with 463 for ``seconds``."""
        self.call("restrict", number=number, seconds=seconds)

    def report_restriction(self, device: str, *, active: bool, seconds: float = 0.0) -> None:
        """Report to a device whether its account may not write to strangers, and for how long."""
        self.call("report_restriction", device=device, active=active, seconds=seconds)

    def change_devices(self, device: str, number: str) -> None:
        """Report to a device that the devices of a number's owner have changed; the library asks for them anew."""
        self.call("change_devices", device=device, number=number)

    def forgive(self, number: str) -> None:
        """End a ban and a restriction."""
        self.call("forgive", number=number)


class AsyncControlClient:
    """The methods of ``ControlClient`` as coroutines: ``await control.wait_messages(3)``."""

    def __init__(self, control_port: int) -> None:
        self._client = ControlClient(control_port)
        # Not the loop's default executor: tests fill that one with clients on purpose.
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="control")

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)

        async def run(*args: Any, **parameters: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: method(*args, **parameters))

        return run


def _message(found: dict[str, Any]) -> Message:
    media = found.pop("media")
    arrivals = [Arrival(**arrival) for arrival in found.pop("arrivals")]
    link = found.pop("link")
    return Message(
        **found,
        media=Media(**media) if media else None,
        link=LinkPreview(**link) if link else None,
        arrivals=arrivals,
    )
