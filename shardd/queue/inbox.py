"""The inbox in the database: the statements of `sql/inbox.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from shardd.incoming import Incoming, IncomingMedia
from shardd.queue.queries import Record, Statements, first
from shardd.queue.values import array

MessageKey = tuple[str, str]
"""(device id, message id)."""
MediaPlan = tuple[str | None, str | None]
"""The node that downloads a message's file, or why none does."""


class Inbox(Statements):
    """What the daemon does with incoming messages."""

    async def jobs_of(self, messages: Sequence[MessageKey]) -> dict[MessageKey, int]:
        """The jobs that these messages of devices were. Raises DatabaseError."""
        if not messages:
            return {}
        params = {
            "device_ids": array([device_id for device_id, _ in messages]),
            "message_ids": array([message_id for _, message_id in messages]),
        }
        rows = await self._database.rows(Record, "jobs_of_messages", params)
        return {(row["device_id"], row["message_id"]): row["job_id"] for row in rows}

    async def store(
        self,
        messages: Sequence[Incoming],
        jobs: Mapping[MessageKey, int],
        plan: Callable[[Incoming], MediaPlan] = lambda _: (None, None),
    ) -> int:
        """Store messages, each with its event, in one transaction; returns how many are new.

        `jobs`: see `jobs_of`; `plan`: for their files. Raises DatabaseError; RefusedDataError when one of them is refused.
        """
        rows = [msgspec.json.encode(_row(message, jobs, plan(message))).decode() for message in messages]
        return int(await self._database.value("store_incoming", {"rows": array(list(rows))}))

    async def is_media_awaited(self, message: Incoming, node: str) -> bool:
        """Whether the row of a message still awaits its file from this node. Raises DatabaseError."""
        return bool(await self._database.value("is_media_awaited", {**_key(message), "node": node}))

    async def set_media(
        self, message: Incoming, node: str, *, path: str | None = None, error: str | None = None
    ) -> bool:
        """The file of a message is at `path`, or was not downloaded because of `error`; with an event if that is new.

        False: the row is deleted, or has its file. Raises DatabaseError.
        """
        params = {**_key(message), "node": node, "path": path, "error": error}
        return await self._database.value("set_media", params) is not None

    async def lose_media(self, node: str, awaited: Sequence[str], *, after: float, error: str) -> int:
        """Set an `error` for what awaits a file from this node for `after` seconds and is not of the message ids `awaited`.

        Returns for how many. Raises DatabaseError.
        """
        params = {"node": node, "message_ids": list(awaited), "after": after, "error": error}
        return int(await self._database.value("lose_media", params))

    async def awaited_media(self, node: str, message_ids: Sequence[str]) -> set[str]:
        """Those of these messages that still await their files from a node. Raises DatabaseError."""
        return set(await self._database.column("awaited_media", {"node": node, "message_ids": list(message_ids)}))

    async def known_media(self, node: str, paths: Sequence[str]) -> set[str]:
        """Those of these files of a node that messages have. Raises DatabaseError."""
        return set(await self._database.column("known_media", {"node": node, "paths": list(paths)}))

    async def deleted_media(self, node: str, most: int) -> list[str]:
        """Files of a node whose messages are deleted. Raises DatabaseError."""
        return await self._database.column("deleted_media", {"node": node, "most": most})

    async def forget_deleted_media(self, node: str, paths: Sequence[str]) -> None:
        """These files are gone. Raises DatabaseError."""
        await self._database.execute("forget_deleted_media", {"node": node, "paths": list(paths)})


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A row of shardd.inbox."""

    id: int
    device_id: str
    message_id: str
    sender: str
    number: str | None
    lid: str | None
    name: str | None
    chat: str | None
    own: bool
    status: bool
    history: bool
    kind: str
    text: str
    choice: str | None
    quoted_id: str | None
    job_id: int | None
    details: Any
    media_type: str | None
    media_size: int | None
    media_name: str | None
    media_node: str | None
    media_path: str | None
    media_error: str | None
    opt_out: bool
    written_at: datetime
    received_at: datetime

    @property
    def note(self) -> str:
        """What is special about where it is from, in words."""
        notes = {
            "written on the device's phone": self.own,
            "a status": self.status,
            "from before the pairing": self.history,
        }
        return ", ".join(note for note, applies in notes.items() if applies)

    @property
    def file(self) -> str:
        """Where its file is, or why it is nowhere, in words."""
        if self.media_path is not None:
            return self.media_path
        if self.media_error is not None:
            return f"not downloaded: {self.media_error}"
        return "" if self.media_node is None else "being downloaded"

    @property
    def media(self) -> str:
        """What its file is said to be, in words."""
        size = "" if self.media_size is None else f"{self.media_size:,} bytes"
        return ", ".join(filter(None, (self.media_type, size, self.media_name)))

    @property
    def summary(self) -> str:
        """What it says, in a line."""
        kind = "" if self.kind == "text" else f"[{self.kind}] "
        return f"{kind}{self.text or self.media_name or ''}"


class InboxAdmin(Statements):
    """What an operator asks."""

    async def newest(
        self,
        most: int,
        *,
        device_id: str | None = None,
        address: str | None = None,
        job_id: int | None = None,
        before: int | None = None,
    ) -> list[InboxMessage]:
        """The newest ones first; None passes everything. `address`: of the sender; `before`: with a lower id than this."""
        params = {"most": most, "device_id": device_id, "address": address, "job_id": job_id, "before": before}
        return await self._database.rows_for(InboxMessage, "list_messages", params)

    async def show(self, message_id: int) -> InboxMessage | None:
        """One message."""
        return first(await self._database.rows_for(InboxMessage, "show_message", {"id": message_id}))


def _key(message: Incoming) -> dict[str, Any]:
    return {
        "device_id": message.device_id,
        "message_id": message.message_id,
        "sender": next(iter(message.addresses), ""),
    }


def _row(message: Incoming, jobs: Mapping[MessageKey, int], plan: MediaPlan) -> dict[str, Any]:
    media = message.media or IncomingMedia()
    node, error = plan
    return {
        **_key(message),
        "number": message.number,
        "lid": message.lid,
        "name": message.name,
        "chat": message.group,
        "own": message.own,
        "status": message.status,
        "history": message.history,
        "kind": message.kind,
        "text": message.text,
        "choice": message.choice,
        "quoted_id": message.quoted_id,
        "job_id": jobs.get((message.device_id, message.quoted_id or "")),
        "details": message.details,
        "media_type": media.mime_type,
        "media_size": media.size,
        "media_name": media.name,
        "media_node": node,
        "media_error": error,
        "opt_out": message.opt_out,
        "written_at": message.at,
    }
