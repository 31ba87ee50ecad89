"""The transport `whatsapp`: jobs through clients that are refreshed on demand.

`prepare` ends with a healthy client, a finished upload, and a complete message, so that `deliver` is one call of the library.
`failures` interprets its result; what cannot be known is in doubt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from neonize.exc import NeonizeError, SendMessageError

from shardd.errors import (
    DatabaseError,
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    PermanentError,
    SharddError,
)
from shardd.ipc import DeviceSpec, JobSpec, StoreAccess
from shardd.persons import BUSINESS_SERVER, Recipient, recipient_at
from shardd.states import DeviceState
from shardd.transports.base import Events, Sent, Surroundings, Transport
from shardd.transports.details import read_link_preview
from shardd.transports.egress.gate import Gate
from shardd.transports.whatsapp.clients.client import Client, ClientFailedError, NoReaderError
from shardd.transports.whatsapp.clients.library import adopt_loop, parse_jid
from shardd.transports.whatsapp.clients.lookups import (
    find_readers,
    not_sent,
    other_addresses,
    own_addresses,
    readers_after,
)
from shardd.transports.whatsapp.clients.pool import Clients
from shardd.transports.whatsapp.links.finder import find_link
from shardd.transports.whatsapp.links.previews import LinkPreviews
from shardd.transports.whatsapp.media.fetcher import MediaFetcher
from shardd.transports.whatsapp.media.file_types import MediaInfo, inspect
from shardd.transports.whatsapp.media.memory import Media
from shardd.transports.whatsapp.media.previews import Previews
from shardd.transports.whatsapp.media.recordings import Recordings
from shardd.transports.whatsapp.messages import outgoing
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.messages.copies import Copies
from shardd.transports.whatsapp.messages.failures import Failure, SendContext, send_error, unreadable, upload_error
from shardd.transports.whatsapp.messages.quotes import add_quote
from shardd.transports.whatsapp.messages.recipients import Directory, OptOuts, Restrictions
from shardd.transports.whatsapp.sessions.store import SessionStore

if TYPE_CHECKING:
    from shardd.config.transports.whatsapp import WhatsappConfig


NO_DEVICE: Final = "WhatsApp listed no device of them when it was encrypted"


@dataclass(slots=True)
class Attachment:
    """A file, and what the message says about it."""

    media: Media
    info: MediaInfo
    uploading: bool = False
    """The library holds the bytes, for however long; only the upload may release them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that `deliver` needs."""

    client: Client
    recipient: Recipient
    jid: str
    readers: list[str] | None
    """The recipient's devices; None for a group."""
    message: Any
    others: Sequence[str]
    """The recipient's addresses besides that of the job."""


class WhatsappTransport(Transport):
    """Real WhatsApp devices, through neonize."""

    def __init__(self, settings: WhatsappConfig, surroundings: Surroundings, events: Events) -> None:
        """Raises SharddError."""
        if surroundings.sessions_dsn is None:
            raise SharddError("transport 'whatsapp' has no session store")
        self._settings = settings
        self._gate = Gate(connect_timeout=settings.connect_timeout, may_pass=surroundings.may_pass)
        self._sessions_dsn = surroundings.sessions_dsn
        self._store = SessionStore(surroundings.store_access.pooler or self._sessions_dsn)
        self._directory = Directory()
        self._opt_outs = OptOuts(surroundings.opt_out_words, self._directory)
        arrivals = Arrivals(
            self._opt_outs, surroundings.spool, surroundings.inbox, events, media=surroundings.inbox_media
        )
        self._restrictions = Restrictions(self._store)
        self._clients = Clients(
            settings,
            self._gate,
            self._store,
            events,
            arrivals,
            restrictions=self._restrictions,
            access=surroundings.store_access,
        )
        self._media = MediaFetcher(
            folder=settings.media_dir,
            hosts=settings.media_hosts or (),
            max_bytes=settings.media_max_bytes,
            memory=settings.media_memory,
            timeout=settings.fetch_timeout,
        )
        self._previews = Previews()
        self._recordings = Recordings()
        self._link_previews = LinkPreviews(self._media)

    async def start(self) -> None:
        """Open the gate."""
        adopt_loop()
        await self._gate.start()
        self._clients.begin()

    def expect(self, device_id: str, again: float | None) -> None:
        """Its client stays open if that is soon."""
        self._clients.expect(device_id, again)

    async def fetch(
        self,
        device: DeviceSpec,  # noqa: ARG002 - any device may fetch it
        job: JobSpec,
    ) -> Attachment | outgoing.ShownLink | None:
        """The job's media, or the preview of the link in its text, if it has any."""
        if not outgoing.needs_media(job):
            return await self._find_preview(job)
        media = await self._media.fetch(str(job.media))
        try:
            return Attachment(media, await inspect(job, media, self._previews, self._recordings))
        except BaseException:
            media.release()
            raise

    def discard(self, fetched: Any) -> None:
        """Free the job's media."""
        if isinstance(fetched, Attachment) and not fetched.uploading:
            fetched.media.release()

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> Prepared:
        """Check the recipient, refresh the client, upload."""
        recipient = recipient_at(job.recipient)
        if recipient.jid.endswith(f"@{BUSINESS_SERVER}"):
            text = (
                f"{job.recipient} is a business-scoped id, which only transport cloud_api knows: "
                "transport whatsapp sends to phone numbers, LIDs (ID@lid) and groups (ID@g.us)"
            )
            raise PermanentError(text, error_class=ErrorClass.RECIPIENT)
        known, jid = self._directory.lookup(recipient.number) if recipient.number else (False, None)
        if known and jid is None:
            raise PermanentError(f"{job.recipient} is not on WhatsApp", error_class=ErrorClass.RECIPIENT)
        self._opt_outs.check(job, recipient.jid, jid or recipient.jid)
        self._restrictions.begin(device.id, device.restricted_until)
        message = None
        if not outgoing.needs_media(job) and job.kind != outgoing.REVOKE:
            message = add_quote(outgoing.plain_message(job, fetched), job)
        await self._check_restriction(device, recipient)
        client = await self._clients.get_or_refresh(device)
        async with self._clients.in_use(client):
            await client.caught_up()
            jid, readers = await self._find_readers(client, recipient, jid or recipient.jid)
            timeout = self._settings.answer_timeout
            others = await other_addresses(client, recipient.address, jid, readers, timeout)
            if job.kind == outgoing.REVOKE:
                message = outgoing.revocation(job, jid)
            elif message is None:
                message = await self._upload(client, job, fetched)
        # Who wrote may be known by the LID only.
        self._opt_outs.check(job, recipient.jid, jid, *others)
        self._clients.hold(client)
        return Prepared(client, recipient, jid, readers, message, others)

    def other_addresses(self, prepared: Prepared) -> Sequence[str]:
        """The number under which WhatsApp lists the recipient, and the LID."""
        return prepared.others

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Prepared) -> Sent:  # noqa: ARG002 - it is prepared
        """One call of the library, and its result."""
        number = prepared.recipient.number
        async with self._clients.in_use(prepared.client):
            copies = Copies(prepared.readers, own=own_addresses(prepared.client))
            try:
                message_id = await self._send(prepared, copies)
            except DeviceUnavailableError as error:
                if error.state == DeviceState.RESTRICTED and error.until is not None:
                    if number and await self._restrictions.is_contact(device.id, prepared.client.session, number):
                        text = f"WhatsApp refuses this account's messages to {number}, whom it knows (463)"
                        raise PermanentError(text, error_class=ErrorClass.RECIPIENT) from None
                    self._restrictions.refused(device.id, error.until.timestamp())
                raise
            if number:
                self._restrictions.accepted(device.id, number)
        left_out = copies.phones_left_out if prepared.readers is None else None
        return Sent(message_id=message_id, members_without_keys=left_out)

    def visit_turn(self) -> AbstractAsyncContextManager[Any]:
        """Few visits run at a time."""
        return self._clients.visit_turn

    def hold_logins(self, *, held: bool) -> None:
        """WhatsApp refuses this version of the library: open no client, and close none that is only idle."""
        self._clients.hold_logins(held=held)

    async def visit(self, device: DeviceSpec, *, late: bool = False, probe: bool = False) -> None:
        """Open the device for a moment."""
        self._restrictions.begin(device.id, device.restricted_until)
        await self._clients.visit(device, late=late, probe=probe)

    def change_store_access(self, access: StoreAccess) -> None:
        """Clients that open from now on use it; the others are replaced when they are needed next."""
        self._store.lead_to(access.pooler or self._sessions_dsn)
        self._clients.change_store_access(access)

    async def close_device(self, device_id: str) -> None:
        """Close the device's client and wait for its end."""
        self._restrictions.forget(device_id)
        await self._clients.close_device(device_id)

    async def close(self) -> None:
        """Close every client, then the gate."""
        await self._link_previews.close()
        await self._previews.close()
        await self._recordings.close()
        await self._clients.close()
        await self._gate.close()
        await self._store.close()

    def open_clients(self) -> int:
        """Clients that are open now."""
        return self._clients.open_clients

    def connects(self) -> int:
        """Connect cycles since the start."""
        return self._clients.connects

    def gave_way(self) -> int:
        """Clients that were closed of late to make room, although their devices will send again soon."""
        return self._clients.gave_way

    def previews_left_out(self) -> int:
        """Texts since the start whose link has no preview, though one was wanted."""
        return self._link_previews.left_out

    # ---- inside

    async def _find_preview(self, job: JobSpec) -> outgoing.ShownLink | None:
        if job.kind != "text":
            return None
        wanted = read_link_preview(job)
        if not (self._settings.link_preview if wanted is None else wanted) or (link := find_link(job.body)) is None:
            return None
        preview = await self._link_previews.find(link.url)
        return None if preview is None else outgoing.ShownLink(link.text, preview)

    async def _send(self, prepared: Prepared, copies: Copies) -> str:
        recipient = prepared.recipient
        context = SendContext(recipient.number or recipient.jid, time.time() + self._settings.restricted_for)
        try:
            message_id = await prepared.client.send(
                parse_jid(prepared.jid), prepared.message, copies, self._settings.answer_timeout
            )
        except ClientFailedError as error:
            raise error.failure.as_error() from None
        except NoReaderError as error:
            raise unreadable(error.reason, context) from None
        except TimeoutError:
            raise InDoubtError(
                "no answer from WhatsApp to a message that was handed over", error_class=ErrorClass.TIMEOUT
            ) from None
        except SendMessageError as error:
            read = send_error(str(error), context)
            failure = prepared.client.failure
            if isinstance(read, InDoubtError) and failure is not None and failure.error_class is ErrorClass.TIMEOUT:
                # The library reports that the connection was closed, and it was closed because no answer came.
                read.error_class = ErrorClass.TIMEOUT
            raise read from None
        if prepared.readers is not None and (readers := await readers_after(prepared.client, prepared.jid)) is not None:
            copies.encrypted_for(readers)
            if copies.unreadable:
                prepared.client.abandon("nobody could have read its message")
                raise unreadable(copies.reason or NO_DEVICE, context)
        return message_id

    async def _find_readers(self, client: Client, recipient: Recipient, jid: str) -> tuple[str, list[str] | None]:
        try:
            found, readers = await find_readers(client, jid, recipient.number, self._settings.answer_timeout)
        except PermanentError:
            if recipient.number:
                self._directory.learn(recipient.number, None)
            raise
        if recipient.number:
            self._directory.learn(recipient.number, found)
        return found, readers

    async def _upload(self, client: Client, job: JobSpec, attachment: Attachment) -> Any:
        async def upload() -> Any:
            attachment.uploading = True
            try:
                return await client.handle.upload(attachment.media.data, outgoing.MEDIA_TYPES[job.kind])
            finally:
                attachment.media.release()

        try:
            uploaded = await client.call(upload, self._settings.upload_timeout)
        except NeonizeError as error:
            raise upload_error(str(error)) from None
        except asyncio.CancelledError:
            client.abandon("an upload was cancelled before its end")
            raise
        except TimeoutError as error:
            # Otherwise it would keep the file in memory for as long as the other side likes.
            client.abandon(f"an upload did not end within {self._settings.upload_timeout:g} seconds")
            raise not_sent(error) from None
        except ClientFailedError as error:
            raise not_sent(error) from None
        return add_quote(outgoing.media_message(job, attachment.media, attachment.info, uploaded), job)

    async def _check_restriction(self, device: DeviceSpec, recipient: Recipient) -> None:
        """While WhatsApp keeps a device from new contacts, it writes only to known ones."""
        if recipient.number is None or device.session is None:
            return
        try:
            until = await self._restrictions.blocked_until(device.id, device.session, recipient.number)
        except DatabaseError as error:
            raise DeviceUnavailableError(str(error)) from error
        if until is not None:
            # It becomes the device's reason: the number would stay there when the person is forgotten.
            text = "WhatsApp does not let this account write to new contacts for now (463); the recipient may be one"
            raise Failure(text, DeviceState.RESTRICTED, until, error_class=ErrorClass.ACCOUNT).as_error()
