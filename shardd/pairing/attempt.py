"""One attempt to pair one device: `shardd device pair`, and the page behind a pairing link.

A running daemon continues with the old session, if there is one, until the new one is bound: by one UPDATE that applies only if
nothing has changed meanwhile. A session that cannot be bound is unlinked again.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol

from shardd.errors import DatabaseError, PairingError, PairingFailure, PermanentError, SharddError, UsageError
from shardd.pairing.context import SessionContext
from shardd.phone_numbers import parse_recipient
from shardd.queue.devices import DeviceRow
from shardd.queue.sessions import number_of
from shardd.states import CAN_SEND, DeviceState
from shardd.transports.whatsapp.linking.pairing import PairingEvent
from shardd.transports.whatsapp.linking.pairing import pair as pair_session
from shardd.transports.whatsapp.linking.unlinking import forget_session
from shardd.transports.whatsapp.sessions.setup import prepare_store

LOCK_GRACE: Final = 600.0
"""Seconds beyond the wait for the phone for which a pairing holds its lock; each of its steps has a shorter timeout."""


class View(Protocol):
    """Shows a pairing. OSError: nobody looks any more."""

    def show(self, event: PairingEvent) -> None:
        """Show what happened: the events of a pairing, and `given_up`."""

    def note(self, text: str) -> None:
        """Show what goes on meanwhile."""


class NumberRefusedError(UsageError):
    """The wanted number cannot be this device's."""

    def __init__(self, text: str, failure: PairingFailure) -> None:
        super().__init__(text)
        self.failure = failure


def failure_of(error: SharddError) -> PairingFailure:
    """Why a device was not paired."""
    match error:
        case PairingError() | NumberRefusedError():
            return error.failure
        case DatabaseError():
            return PairingFailure.DATABASE
        case UsageError():
            return PairingFailure.CHANGED  # the device was removed, or is another one
        case _:
            return PairingFailure.ENDED


def read_number(text: str, region: str | None) -> str:
    """The digits of a phone number that a person wrote. Raises UsageError."""
    try:
        number = parse_recipient(text, region).number
    except PermanentError as error:
        if "@" not in text:
            raise UsageError(str(error).removeprefix("recipient ")) from None
        number = None
    if number is None:
        raise UsageError(f"{text} is not a phone number; write it as +4915112345678")
    return number


class Attempt:
    """One attempt."""

    def __init__(self, view: View, device_id: str, *, number: str | None, new_number: bool, timeout: float) -> None:
        """`number`: pair with it by a typed code. `timeout`: seconds to link the phone."""
        self.remarks: list[str] = []
        """What to report at the end."""
        self.number = number
        self.linked = False
        """Whether the phone is linked: from then on, the attempt is not to be cancelled."""
        self._view = view
        self._device_id = device_id
        self._by_code = number is not None
        self._new_number = new_number
        self._timeout = timeout

    async def run(self, opening: AbstractAsyncContextManager[SessionContext]) -> None:
        """Pair; `opening` connects to the database. Raises SharddError, or CancelledError when it is given up."""
        try:
            async with (
                opening as context,
                context.sessions.hold_pairing(self._device_id, patience=self._timeout + LOCK_GRACE) as ours,
            ):
                if not ours:
                    text = f"device {self._device_id} is being paired by another process right now"
                    raise PairingError(text, PairingFailure.BUSY)
                await self._pair(context)
        except asyncio.CancelledError:
            self._view.show(PairingEvent("given_up"))
            raise
        except SharddError as error:
            if failure_of(error) is not PairingFailure.TIMEOUT:
                self._view.show(PairingEvent("failed", reason=str(error), failure=failure_of(error)))
            raise

    async def _pair(self, context: SessionContext) -> None:
        device = await context.device(self._device_id)
        expected = await self._expected_number(context, device)
        await prepare_store(context.store, pgbouncer=context.pgbouncer)
        paired = await self._link(context, device, expected)
        assert paired.jid is not None
        try:
            bound = await context.sessions.bind(device.id, paired.jid, old=device.session)
        except DatabaseError as error:
            raise PairingError(
                f"+{paired.number} is linked, but that could not be stored: {error}; "
                "remove the linked device shardd on the phone, then pair again",
                PairingFailure.DATABASE,
            ) from error
        if not bound:
            await self._undo(context, device, paired)
        self.number = paired.number
        self._show(PairingEvent("paired", jid=paired.jid, number=paired.number, reason=paired.reason))
        self._view.note("a running shardd changes over to the new session…")
        await self._retire(context, device, paired.jid)
        if device.paused_at is not None:
            self.remarks.append(f"it is paused; let it send: shardd device resume {device.id}")

    async def _expected_number(self, context: SessionContext, device: DeviceRow) -> str | None:
        """The only number that may be linked, if it is known. Raises NumberRefusedError when the wanted one cannot be linked."""
        before = number_of(device.session) if device.session and not self._new_number else None
        if before and self.number and before != self.number:
            raise NumberRefusedError(
                f"device {device.id} had the number +{before}, not +{self.number}; "
                "to give it another number, add --new-number",
                PairingFailure.WRONG_NUMBER,
            )
        if self.number and (holder := await context.sessions.number_holder(self.number, but=device.id)):
            raise NumberRefusedError(
                f"+{self.number} is the number of device {holder}: two devices cannot share one", PairingFailure.TAKEN
            )
        return self.number or before

    async def _link(self, context: SessionContext, device: DeviceRow, expected: str | None) -> PairingEvent:
        """The event `paired`. Raises PairingError."""
        events = pair_session(
            context.store,
            context.hearing(device),
            pgbouncer=context.pgbouncer,
            phone=self.number if self._by_code else None,
            expected=expected,
            proxy=context.proxy_of(device),
            timeout=self._timeout,
        )
        async with aclosing(events):
            async for event in events:
                match event.kind:
                    case "paired":
                        if event.reason is not None:
                            self.remarks.append(event.reason)
                        return event
                    case "failed":
                        failure = PairingFailure(event.failure)
                        hint = self._hint(failure)
                        raise PairingError(f"device {device.id} is not paired: {event.reason}{hint}", failure)
                    case "timeout":
                        self._view.show(event)
                        text = f"device {device.id} is not paired: {event.reason}"
                        raise PairingError(text, PairingFailure.TIMEOUT)
                    case "scanned":
                        self.linked = True
                self._show(event)
        raise PairingError(f"device {device.id} is not paired: the pairing ended without an outcome")

    def _hint(self, failure: PairingFailure) -> str:
        wrong = failure is PairingFailure.WRONG_NUMBER and not self._by_code
        return "; to give the device another number, add --new-number" if wrong else ""

    async def _undo(self, context: SessionContext, device: DeviceRow, paired: PairingEvent) -> None:
        """Unlink a session that cannot become the device's. Raises PairingError."""
        holder = await context.sessions.number_holder(str(paired.number), but=device.id)
        why = (
            f"+{paired.number} is the number of device {holder}, and two devices cannot share one"
            if holder
            else "it was changed or removed meanwhile"
        )
        undone = await self._unlink(context, device, str(paired.jid))
        raise PairingError(
            f"device {device.id} is not paired: {why}{'' if undone is None else f'; {undone}'}",
            PairingFailure.TAKEN if holder else PairingFailure.CHANGED,
        )

    async def _retire(self, context: SessionContext, device: DeviceRow, session: str) -> None:
        """End the old session, once no client uses it any more."""
        try:
            await context.close_client(device.id)
            if device.session is None or device.session == session:
                return
            if device.state in CAN_SEND or device.state == DeviceState.UNPAIRED:
                self._view.note("ending the old session…")
                if (remark := await self._unlink(context, device, device.session)) is not None:
                    self.remarks.append(remark)
            else:
                # WhatsApp ended it, or another program uses it.
                await forget_session(context.store, device.session)
        except SharddError as error:
            self.remarks.append(f"the old session is not ended: {error}")

    async def _unlink(self, context: SessionContext, device: DeviceRow, session: str) -> str | None:
        """Unlink a session; returns what may be lost, or what is left to do by hand when WhatsApp cannot be reached."""
        try:
            return await context.unlink(device, session)
        except SharddError as error:
            await forget_session(context.store, session)
            return f"remove the linked device shardd on the phone of +{number_of(session)} yourself: {error}"

    def _show(self, event: PairingEvent) -> None:
        try:
            self._view.show(event)
        except OSError:
            # The reader has gone. A phone that is already linked still gets its device.
            if not self.linked:
                raise
