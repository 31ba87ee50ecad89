"""Downloads the files of stored messages, a few at a time, and deletes those whose messages are deleted.

Each waits in the spool as its message's file; `take` hands it over, a start finds it again. What the network or the disk
refuses is tried again, later each time, until the message is a day old; the error is on its row meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn

from shardd.config import Config
from shardd.config.transports.device_settings import read_settings
from shardd.config.transports.whatsapp import WHATSAPP
from shardd.errors import DatabaseError, DeviceSettingsError
from shardd.incoming import Incoming, IncomingMedia, MetaMedia
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import DeviceSpec
from shardd.logs import get_logger
from shardd.proxies import Proxy, parse_proxy
from shardd.queue.inbox import Inbox, MediaPlan
from shardd.supervisor.inbound.media.folder import NewFile
from shardd.supervisor.inbound.media.room import NoRoomError, Room
from shardd.supervisor.inbound.media.sealed import PlainFile, SealedFile, WrongFileError
from shardd.supervisor.inbound.media.storage import fetch_from_meta, fetch_sealed
from shardd.supervisor.inbound.media.transfer import NotDownloadedError, Transfer
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service, Step
from shardd.tasks import TaskSet, run_together, wait_for_event

log = get_logger(__name__)

AT_ONCE: Final = 4
"""Downloads at the same time: each takes a thread now and then, and about 1 MB."""
PAUSES: Final = (10.0, 60.0, 300.0, 1800.0, 3600.0)
"""Seconds until the next attempt; the last one counts for all that follow."""
GIVE_UP: Final = 24 * 3600.0
"""Seconds after its arrival at which a message's file is given up."""
LOST_AFTER: Final = 3600.0
"""Seconds after which a row whose key is nowhere gets an error: the key may have been only in a process that crashed."""
LOST: Final = "this node does not have its key any more"
SWITCHED_OFF: Final = "inbox.media is never"
EARLIER: Final = "files from before the pairing are not downloaded"
NOT_HERE: Final = "files of this platform are not downloaded"
POLL: Final = 5.0
"""Seconds between looks for files to delete, and at a disk that had no room."""
CHECK: Final = 15.0
"""Seconds between looks for messages that are deleted while they await their files."""
RETRY: Final = 1.0
"""Seconds between attempts while the database does not answer."""
DELETED: Final = 1000
"""Files that are deleted at once."""


@dataclass(order=True, slots=True)
class _Awaited:
    """A file that is not stored yet."""

    at: float
    """When to try, on the monotonic clock."""
    order: int
    since: float = field(compare=False)
    """When the message arrived, POSIX seconds."""
    message_id: str = field(compare=False)
    name: str | None = field(compare=False, default=None)
    """In the spool; None: only `message` has it."""
    message: Incoming | None = field(compare=False, default=None)
    failures: int = field(compare=False, default=0)


class MediaDownloads(Service):
    """The files of one node."""

    def __init__(
        self,
        inbox: Inbox,
        spool: IncomingSpool,
        step: Step,
        *,
        config: Config,
        device_of: Callable[[str], DeviceSpec | None],
    ) -> None:
        """`step`: for deleting files."""
        self._inbox = inbox
        self._spool = spool
        self._step = step
        self._device_of = device_of
        self._transfer = Transfer()
        self._awaited: list[_Awaited] = []
        """A heap."""
        self._busy: set[str] = set()
        """Message ids of downloads that run."""
        self._orders = itertools.count()
        self._tasks = TaskSet()
        self._wake = asyncio.Event()
        self._node = config.node
        self._room = Room(config)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """The config was reloaded."""
        self._config = config.inbox
        self._transports = config.transports
        self._room.configure(config)
        self._hurry(lambda one: one.order in self._room.refused)

    def plan(self, message: Incoming) -> MediaPlan:
        """What the row of a message says about its file when it is stored."""
        if message.media is None or not self._config.downloads:
            return None, None
        if (why := self._why_not(message)) is not None:
            return None, why
        return self._node, None

    def awaits(self, message: Incoming) -> bool:
        """Whether a stored message awaits its file: see `plan`."""
        return self.plan(message)[0] is not None

    def take(self, message: Incoming, name: str | None) -> bool:
        """A message is stored that awaits its file; `name`: in the spool. False: it could not be renamed there."""
        held = None
        if name is not None:
            try:
                held = self._spool.hold(name)
            except OSError as error:
                # The next start stores it again, which changes nothing, and comes here, unless the file is there by then.
                log.error("the file of a message cannot be renamed", action="inbox_media", error=str(error))
        self._add(_Awaited(0.0, next(self._orders), time.time(), message.message_id, held, None if held else message))
        return (name is None) == (held is None)

    async def serve(self) -> None:
        """Download, and delete what nothing needs."""
        await self._begin()
        await run_together(self._download_all(), self._keep_house())

    async def close(self) -> None:
        """What is awaited is in the spool."""
        await self._tasks.end()
        await self._transfer.close()

    def problems(self) -> Iterator[Problem]:
        """A disk, or a limit, that keeps files from being stored."""
        if (error := self._room.error) is not None:
            yield Problem(
                ProblemKind.INBOX,
                f"files of incoming messages cannot be stored: {error}; each is tried again for a day",
            )

    # ---- inside

    def _why_not(self, message: Incoming) -> str | None:
        media = message.media
        if message.history:
            return EARLIER
        if media is None or media.source is None:
            return (media.unavailable if media else None) or NOT_HERE
        if (media.size or 0) > self._config.media_max_bytes:
            return f"it has {media.size} bytes, more than inbox.media_max_bytes ({self._config.media_max_bytes})"
        return None

    def _add(self, one: _Awaited) -> None:
        heapq.heappush(self._awaited, one)
        self._wake.set()

    async def _begin(self) -> None:
        """Find what an earlier process left: messages that await their files, and files that no message has."""
        while True:
            try:
                await asyncio.to_thread(self._room.folder.delete_parts)
                paths = await asyncio.to_thread(self._room.folder.paths)
                for start in range(0, len(paths), DELETED):
                    part = paths[start : start + DELETED]
                    known = await self._inbox.known_media(self._node, part)
                    await self._room.delete([path for path in part if path not in known])
                await self._room.count()
                for name in await asyncio.to_thread(self._spool.held):
                    if (message := await asyncio.to_thread(self._spool.read, name)) is not None:
                        since = int(name[:20]) / 1e9
                        self._add(_Awaited(0.0, next(self._orders), since, message.message_id, name))
            except (DatabaseError, OSError) as error:
                log.warning("files of messages cannot be looked for", action="inbox_media", error=str(error))
                await asyncio.sleep(RETRY)
            else:
                return

    async def _download_all(self) -> NoReturn:
        while True:
            now = time.monotonic()
            while self._awaited and self._awaited[0].at <= now and len(self._busy) < AT_ONCE:
                one = heapq.heappop(self._awaited)
                self._busy.add(one.message_id)
                self._tasks.start(self._settle(one), partial(self._failed, one))
            full = len(self._busy) >= AT_ONCE or not self._awaited
            await wait_for_event(self._wake, None if full else max(0.0, self._awaited[0].at - now))
            self._wake.clear()

    def _failed(self, one: _Awaited, error: Exception) -> None:
        log.error("a download failed", action="inbox_media", exc_info=error)
        self._postpone(one)

    async def _settle(self, one: _Awaited) -> None:
        """One attempt, and what follows from it."""
        try:
            message = one.message
            if one.name is not None:
                message = await asyncio.to_thread(self._spool.read, one.name)
            if message is None or not await self._inbox.is_media_awaited(message, self._node):
                self._discard(one)
            else:
                await self._attempt(one, message)
        except (DatabaseError, OSError) as error:
            log.warning("a file of a message waits", action="inbox_media", error=str(error))
            one.at = time.monotonic() + RETRY
            self._add(one)
        finally:
            self._busy.discard(one.message_id)
            self._wake.set()

    async def _attempt(self, one: _Awaited, message: Incoming) -> None:
        """Download a file. Raises DatabaseError when its row could not be changed."""
        try:
            path = await self._download(message)
        except NotDownloadedError as error:
            over = error.final or time.time() >= one.since + GIVE_UP
            log.info(
                "file not downloaded", action="inbox_media", device=message.device_id, error=str(error), final=over
            )
            if isinstance(error, NoRoomError):
                self._room.refuse(one.order, error)
            else:
                self._room.forget(one.order)
            await self._inbox.set_media(message, self._node, error=str(error))
            if over:
                self._discard(one)
                return
            self._postpone(one)
            return
        # If this fails, the row may be changed all the same: the file stays, and the next start deletes it if no message has it.
        if not await self._inbox.set_media(message, self._node, path=path):
            await self._room.delete([path])
        self._discard(one)

    def _postpone(self, one: _Awaited) -> None:
        one.at = time.monotonic() + PAUSES[min(one.failures, len(PAUSES) - 1)]
        one.failures += 1
        self._add(one)

    async def _download(self, message: Incoming) -> str:
        """Download a message's file; returns its path. Raises NotDownloadedError."""
        if not self._config.downloads:
            raise NotDownloadedError(SWITCHED_OFF, final=True)
        if (why := self._why_not(message)) is not None:
            raise NotDownloadedError(why, final=True)
        assert message.media is not None
        assert message.media.source is not None
        most = self._config.media_max_bytes
        size = min(most, message.media.size or most)
        with self._room.reserve(size):
            return await self._store(message, message.media, size)

    async def _store(self, message: Incoming, media: IncomingMedia, most: int) -> str:
        """Its path. Raises NotDownloadedError."""
        device = self._device_of(message.device_id)
        proxy = self._proxy(device)
        file = await self._room.on_disk(partial(self._room.folder.begin, most), needs=most)

        def add(data: bytes) -> Awaitable[None]:
            return self._room.on_disk(partial(_decode, content, file, data))

        content: SealedFile | PlainFile
        try:
            if isinstance(media.source, MetaMedia):
                content = PlainFile()
                account = self._account(device)
                content.expected = await fetch_from_meta(self._transfer, media.source, account, proxy, most, add)
            else:
                assert media.source is not None
                content = SealedFile(media.source)
                await fetch_sealed(self._transfer, media.source, proxy, most, add)
            await self._room.on_disk(partial(_decode_rest, content, file))
            return await self._room.store(partial(file.finish, media.mime_type), file.size)
        except WrongFileError as error:
            raise NotDownloadedError(f"what arrived {error}", final=True) from None
        finally:
            file.abort()

    def _proxy(self, device: DeviceSpec | None) -> Proxy | None:
        url = device.proxy if device is not None else None
        if device is None or device.transport == WHATSAPP.name:
            url = url or self._transports.whatsapp.proxy
        try:
            return parse_proxy(url) if url else None
        except ValueError as error:
            raise NotDownloadedError(f"the proxy of its device {error}", final=False) from None

    def _account(self, device: DeviceSpec | None) -> dict[str, str]:
        """Base, version and token of a device of the Cloud API."""
        if device is None:
            raise NotDownloadedError("its device is not known to this node", final=False)
        try:
            own = read_settings(device.transport, device.settings, os.environ)
        except DeviceSettingsError as error:
            raise NotDownloadedError(str(error), final=False) from None
        config = self._transports.cloud_api
        return {"base": config.base, "version": config.version, **own}

    def _discard(self, one: _Awaited) -> None:
        """Nothing awaits it any more: its key goes, too."""
        self._room.forget(one.order)
        if one.name is not None:
            try:
                self._spool.delete(one.name)
            except OSError as error:
                log.error("the file of a message cannot be deleted", action="inbox_media", error=str(error))

    async def _keep_house(self) -> NoReturn:
        check_at = time.monotonic() + CHECK
        while True:
            with self._step:
                await self._delete_files()
                await self._look_for_room()
                if time.monotonic() >= check_at:
                    check_at = time.monotonic() + CHECK
                    await self._look_for_lost()
            await asyncio.sleep(self._step.pause(POLL))

    async def _delete_files(self) -> None:
        """Delete the files of messages that are deleted. Raises DatabaseError."""
        while paths := await self._inbox.deleted_media(self._node, DELETED):
            try:
                await self._room.delete(paths)
            except OSError as error:
                log.error("files of messages cannot be deleted", action="inbox_media", error=str(error))
                return
            await self._inbox.forget_deleted_media(self._node, paths)

    async def _look_for_room(self) -> None:
        """Attempt what found no room, once there is room for it."""
        try:
            await self._room.count()
        except OSError as error:
            log.error("files of messages cannot be counted", action="inbox_media", error=str(error))
        if fits := await self._room.look():
            self._hurry(lambda one: one.order in fits)

    async def _look_for_lost(self) -> None:
        """Keys whose messages are deleted, and messages whose keys are gone. Raises DatabaseError."""
        ids = [one.message_id for one in self._awaited] + list(self._busy)
        await self._inbox.lose_media(self._node, ids, after=LOST_AFTER, error=LOST)
        known = await self._inbox.awaited_media(self._node, ids)
        self._hurry(lambda one: one.message_id not in known)

    def _hurry(self, these: Callable[[_Awaited], bool]) -> None:
        """Attempt these now."""
        for one in self._awaited:
            if these(one):
                one.at = 0.0
        heapq.heapify(self._awaited)
        self._wake.set()


def _decode(content: SealedFile | PlainFile, file: NewFile, data: bytes) -> None:
    file.write(content.feed(data))


def _decode_rest(content: SealedFile | PlainFile, file: NewFile) -> None:
    file.write(content.finish())
