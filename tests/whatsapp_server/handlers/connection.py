"""One client connection after TLS: websocket upgrade, Noise handshake, login or pairing, then stanzas until it ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from cryptography.exceptions import InvalidTag

from ..faults import Fault, Kind, Occasion, Stage
from ..state.accounts import LinkedDevice
from ..state.network import Network
from ..wire.frames import ConnectionEndedError, FrameChannel
from ..wire.nodes import SERVER, Attributes, Node
from ..wire.noise import NoiseCipher, NoiseHandshake
from ..wire.tls import TlsStream
from . import pairing, stanzas

FAREWELL = 0.05  # seconds for the client to read the last stanza before the socket is closed
ACCOUNT_AGE = 86400
LOGGED_OUT, TEMPORARILY_BANNED = 401, 402


class ChatConnection:
    """A client's connection to the chat server."""

    def __init__(self, network: Network, stream: TlsStream, proxy_user: str) -> None:
        self.network = network
        self.proxy_user = proxy_user
        self.device: LinkedDevice | None = None
        self.muted = False
        self.serving: asyncio.Task[Any] | None = None
        self.noise_key = b""
        self.pairing: pairing.PairingOffer | None = None
        self._stream = stream
        self._frames = FrameChannel(stream)
        self._cipher: NoiseCipher | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the connection until it ends."""
        self.serving = asyncio.current_task()
        self.network.connections.add(self)
        try:
            await self._begin()
            while True:
                assert self._cipher is not None  # set by _begin
                node = self.network.codec.decode(self._cipher.open(await self._frames.read()))
                if not self.muted:
                    await stanzas.handle(self, node)
        except InvalidTag as error:
            raise ConnectionEndedError from error
        finally:
            self._forget()

    def send(self, node: Node) -> None:
        """Send one stanza, unless the connection is muted or not yet encrypted."""
        if not self.muted and self._cipher is not None:
            self._frames.write(self._cipher.seal(self.network.codec.encode(node)))

    def answer(self, request: Node, *content: Node) -> None:
        """Send the result of an iq request."""
        attributes = {"from": request.attributes.get("to", SERVER), "id": request.text("id"), "type": "result"}
        self.send(Node("iq", attributes, list(content) or None))

    def answer_error(self, request: Node, code: int, text: str) -> None:
        """Send the error result of an iq request."""
        attributes = {"from": request.attributes.get("to", SERVER), "id": request.text("id"), "type": "error"}
        self.send(Node("iq", attributes, [Node("error", {"code": code, "text": text})]))

    def later(self, seconds: float, node: Node) -> None:
        """Send a stanza after ``seconds``, if the connection is still open."""

        async def send_late() -> None:
            await asyncio.sleep(seconds)
            self.send(node)

        self.start(send_late())

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task beside the reading of stanzas; it is cancelled when the connection ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Abort the TCP connection."""
        self._stream.abort()

    async def end_with(self, last: Node) -> None:
        """Send a last stanza, give the client FAREWELL seconds to read it, and hang up."""
        self.send(last)
        self.muted = True
        await asyncio.sleep(FAREWELL)
        self.cut()

    async def fail(self, reason: int, expire: int | None = None, code: int | None = None) -> None:
        """Refuse or end the login with ``<failure>``; ``expire`` (seconds) and ``code`` belong to a temporary ban."""
        await self.end_with(Node("failure", {"reason": reason, "expire": expire, "code": code, "location": "test"}))
        raise ConnectionEndedError

    async def stream_error(self, code: int | None = None, conflict: str = "") -> None:
        """End the connection with ``<stream:error>``."""
        await self.end_with(stream_error(code, conflict))

    async def strike(self, fault: Fault) -> None:
        """Apply the part of a fault that does not depend on the stanza; after ``delay`` the caller continues.

        Raises:
            ConnectionEndedError: The fault ended the connection.
        """
        self.network.record.note(
            "fault", self.device.name if self.device else self.proxy_user, fault=fault.kind, at=fault.at
        )
        if fault.kind is Kind.MUTE:
            self.muted = True
        elif fault.kind is Kind.DELAY:
            await asyncio.sleep(fault.seconds)
        elif fault.kind is Kind.DROP:
            self.cut()
            raise ConnectionEndedError
        elif fault.kind is Kind.FAILURE:
            await self.fail(fault.code or LOGGED_OUT, fault.expire, 101 if fault.code == TEMPORARILY_BANNED else None)
        elif fault.kind is Kind.STREAM_ERROR:
            await self.stream_error(fault.code, fault.conflict)
            raise ConnectionEndedError

    async def _begin(self) -> None:
        await self._frames.read_upgrade()
        fault = self.network.faults.strike(Occasion(Stage.UPGRADE, self.proxy_user))
        if fault is not None:
            await self.strike(fault)
            if fault.kind is Kind.ERROR:
                self._frames.refuse_upgrade(fault.code or 503)
                raise ConnectionEndedError
            while self.muted:  # ends when the client hangs up
                await self._frames.read()
        self._frames.accept_upgrade()
        noise = NoiseHandshake(self.network.identity, await self._frames.read_header())
        self._frames.write(noise.reply(await self._frames.read()))
        self.noise_key, payload, self._cipher = noise.finish(await self._frames.read())
        if payload.HasField("username"):
            await self._login(str(payload.username), payload.device)
        else:
            pairing.offer(self, payload.devicePairingData)

    async def _login(self, number: str, index: int) -> None:
        network, name = self.network, f"{number}:{index}"
        fault = network.faults.strike(Occasion(Stage.LOGIN, name))
        if fault is not None:
            await self.strike(fault)
            if self.muted:
                return
        account = network.accounts.account(number)
        if account.is_banned:
            await self.fail(TEMPORARILY_BANNED, int(account.banned_until - time.time()) + 1, account.ban_code)
        device = network.accounts.login(number, index, self.noise_key)
        if device is not None and 0 < network.settings.unlink_after < time.time() - device.active_at:
            network.record.note("unlinked", name, silence=device.silence())
            network.accounts.remove(device)
            device = None
        if device is None:
            network.record.note("login_refused", name)
            await self.fail(LOGGED_OUT)
            return
        device.longest_offline, device.logins = device.offline(), device.logins + 1
        if device.connection is not None:
            other = device.connection
            other.start(other.stream_error(conflict="replaced"))
        self.device, device.connection = device, self
        device.wait_again()
        now = int(time.time())
        self.send(Node("success", {"t": now, "lid": device.lid, "props": 28, "creation": now - ACCOUNT_AGE}))
        network.record.note("login", name, proxy_user=self.proxy_user)
        if network.settings.announce_delay or network.settings.backlog_delay:
            self.start(self._hand_over_late(device))
        else:
            self._announce(device)
            self._hand_over(device)
        fault = network.faults.strike(Occasion(Stage.ONLINE, name))
        if fault is not None:
            await self.strike(fault)

    def _announce(self, device: LinkedDevice) -> None:
        """Tell how many stanzas waited for the device."""
        kinds = Counter(node.tag for node in device.waiting)
        announced: Attributes = {"message": kinds["message"], "receipt": kinds["receipt"], "appdata": 0}
        self.send(_notice("offline_preview", announced | {"count": len(device.waiting), "notification": 0}))

    def _hand_over(self, device: LinkedDevice) -> None:
        """Send the stanzas that waited for the device, and mark their end."""
        count = len(device.waiting)
        while device.waiting:
            device.hand_over(self, device.waiting.popleft())
        self.send(_notice("offline", {"count": count}))

    async def _hand_over_late(self, device: LinkedDevice) -> None:
        await asyncio.sleep(self.network.settings.announce_delay)
        self._announce(device)
        await asyncio.sleep(self.network.settings.backlog_delay)
        self._hand_over(device)

    def _forget(self) -> None:
        self.network.connections.discard(self)
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        if self.pairing is not None:
            pairing.withdraw(self.network, self.pairing)
        if self.device is not None:
            if self.device.connection is self:
                self.device.connection, self.device.offline_since = None, time.time()
            self.network.record.note("disconnect", self.device.name)


def _notice(tag: str, attributes: Attributes) -> Node:
    """A notice outside of any request."""
    return Node("ib", {"from": SERVER}, [Node(tag, attributes)])


def stream_error(code: int | None = None, conflict: str = "") -> Node:
    """The stanza that gives the reason for the end of a stream."""
    return Node("stream:error", {"code": code}, [Node("conflict", {"type": conflict})] if conflict else None)
