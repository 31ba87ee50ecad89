"""Which files of messages are attempted again, and when, with a real folder and database. No file here is ever requested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from shardd.config import Config, parse_config
from shardd.incoming import Incoming, IncomingMedia, MetaMedia
from shardd.incoming_spool import IncomingSpool
from shardd.queue.database import Database
from shardd.queue.inbox import Inbox
from shardd.supervisor.inbound.media import downloads as downloads_module
from shardd.supervisor.inbound.media.downloads import MediaDownloads
from shardd.supervisor.inbound.media.folder import MediaFolder
from shardd.supervisor.services import Step
from tests.support.queue_rows import connect

UNKNOWN = "its device is not known to this node"
"""As far as an attempt comes here when there is room."""
USED_UP = "it cannot be stored: inbox.media_total (1048576 bytes) is used up: make room"


class Rounds(Step):
    """The repeated work, whose rounds can be awaited."""

    def __init__(self) -> None:
        super().__init__("x")
        self.ended = 0
        self.another = asyncio.Event()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.ended += 1
        self.another.set()
        return super().__exit__(kind, error, trace)

    async def pass_by(self, number: int) -> None:
        last = self.ended + number
        while self.ended < last:
            self.another.clear()
            await self.another.wait()


class Spool(IncomingSpool):
    """Counts attempts: each reads its message."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[str] = []

    def read(self, name: str) -> Incoming | None:
        message = super().read(name)
        self.reads.append(message.message_id if message else "")
        return message


class Node:
    """A node's downloads while they run."""

    def __init__(self, database: Database, dsn: str, folder: Path, device_of: Callable[[str], None]) -> None:
        self.folder = folder
        self.dsn = dsn
        self.inbox = Inbox(database)
        self.spool = Spool(folder)
        self.rounds = Rounds()
        self.config = self.configured()
        self.downloads = MediaDownloads(self.inbox, self.spool, self.rounds, config=self.config, device_of=device_of)

    def configured(self, **inbox: str) -> Config:
        lines = {"media": "download", "media_total": "1MiB", "media_max_bytes": "1MiB", **inbox}
        text = "".join(f"  {name}: {value}\n" for name, value in lines.items())
        return parse_config(f"state_dir: {self.folder}\ninbox:\n{text}", "x.yaml", {"HOME": "/home/x"})

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.downloads.serve())
        # It has looked for what an earlier process left, or would find there what comes now.
        await self.rounds.pass_by(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self.downloads.close()

    async def receives(self, message_id: str, size: int) -> None:
        """A message comes and is stored."""
        media = IncomingMedia(size=size, source=MetaMedia("1"))
        message = Incoming(device_id="d1", message_id=message_id, addresses=("+6281234567890",), at=5.0, media=media)
        name = self.spool.keep(message)
        await self.inbox.store([message], {}, self.downloads.plan)
        self.downloads.take(message, name)

    def stores(self, size: int) -> str:
        """A file is there before the downloads begin; returns its path."""
        file = MediaFolder(self.config.state_dir, self.config.inbox.media_dir, self.config.node).begin(size)
        file.write(bytes(size))
        path = file.finish(None)
        with connect(self.dsn) as owner:
            owner.execute(
                "INSERT INTO shardd.messages (device_id, message_id, sender, own, status, kind, text, opt_out, written_at, "
                "media_node, media_path) VALUES ('d1', 'old', '+6281234567891', false, false, 'image', '', false, now(), %s, %s)",
                (self.config.node, path),
            )
        return path

    async def until_error(self, message_id: str, error: str) -> None:
        """Until the row of a message says so."""
        statement = "SELECT media_error FROM shardd.messages WHERE message_id = %s"
        while True:
            with connect(self.dsn) as owner:
                if owner.execute(statement, (message_id,)).fetchall() == [(error,)]:
                    return
            await self.rounds.pass_by(1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other, and a pause does not end in a test."""
    monkeypatch.setattr(downloads_module, "POLL", 0.01)
    monkeypatch.setattr(downloads_module, "PAUSES", (3600.0,))


@pytest.mark.usefixtures("quick")
async def test_a_file_without_room_is_attempted_again_once_it_fits_and_no_other_one_is(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    node = Node(database, dsn, tmp_path, lambda _: None)
    node.stores(600_000)
    async with asyncio.timeout(60), node:
        await node.receives("elsewhere", 1000)
        await node.until_error("elsewhere", UNKNOWN)
        await node.receives("large", 600_000)
        await node.until_error("large", USED_UP)
        (problem,) = node.downloads.problems()
        assert "inbox.media_total (1048576 bytes) is used up" in problem.text
        await node.rounds.pass_by(5)
        assert node.spool.reads == ["elsewhere", "large"], "there is room, but not for it"
        assert list(node.downloads.problems()) == [problem]

        with connect(dsn) as owner:
            owner.execute("DELETE FROM shardd.messages WHERE message_id = 'old'")
        await node.until_error("large", UNKNOWN)
        await node.rounds.pass_by(5)
        assert node.spool.reads == ["elsewhere", "large", "large"]
        assert list(node.downloads.problems()) == []


@pytest.mark.usefixtures("quick")
async def test_the_files_of_an_earlier_folder_take_no_room_of_another_one(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    node = Node(database, dsn, tmp_path, lambda _: None)
    node.stores(600_000)
    other = tmp_path / "other"
    other.mkdir()
    async with asyncio.timeout(60), node:
        await node.receives("large", 600_000)
        await node.until_error("large", USED_UP)
        node.downloads.configure(node.configured(media_dir=str(other)))
        await node.until_error("large", UNKNOWN)
        node.downloads.configure(node.configured())
        await node.rounds.pass_by(2)
        await node.receives("another", 600_000)
        await node.until_error("another", USED_UP)


@pytest.mark.usefixtures("quick")
async def test_a_file_whose_download_meets_a_defect_is_attempted_again(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "PAUSES", (0.0, 3600.0))
    asked: list[str] = []

    def device_of(device_id: str) -> None:
        asked.append(device_id)
        if len(asked) == 1:
            raise ZeroDivisionError

    async with asyncio.timeout(60), Node(database, dsn, tmp_path, device_of) as node:
        await node.receives("A1", 1000)
        await node.until_error("A1", UNKNOWN)
    assert asked == ["d1", "d1"]
