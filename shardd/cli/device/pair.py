"""`shardd device pair`: link a phone; the new session becomes the device's.

A running daemon continues with the old session, if there is one, until the new one is bound: by one UPDATE that applies only if
nothing has changed meanwhile. A session that cannot be bound is unlinked again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import click

from shardd.cli.device.pair_screen import ScreenView, View, open_view
from shardd.cli.device.session import SessionContext, open_session_context
from shardd.cli.help import examples
from shardd.cli.names import id_argument
from shardd.cli.options import ReadBy, config_option, json_option
from shardd.cli.output import say
from shardd.config import Config
from shardd.config.values import Seconds, format_duration
from shardd.errors import DatabaseError, PairingError, PermanentError, SharddError, UsageError
from shardd.phone_numbers import parse_recipient
from shardd.queue.devices import DeviceRow
from shardd.queue.sessions import number_of
from shardd.states import CAN_SEND, DeviceState
from shardd.transports.whatsapp.linking.pairing import TIMEOUT, PairingEvent
from shardd.transports.whatsapp.linking.pairing import pair as pair_session
from shardd.transports.whatsapp.linking.unlinking import forget_session
from shardd.transports.whatsapp.sessions.setup import prepare_store

LIMITS: Final = Seconds("1s", format_duration(TIMEOUT))
"""Of the time to link the phone; after it WhatsApp has no more codes."""
GIVEN_UP: Final = 130
"""Exit code after ^C."""
LOCK_GRACE: Final = 600.0
"""Seconds beyond the wait for the phone for which a pairing holds its lock; each of its steps has a shorter timeout."""


@click.command(
    "pair", epilog=examples("shardd device pair berlin-1", "shardd device pair berlin-1 --phone=+4915112345678")
)
@id_argument("device", "device_id")
@click.option(
    "--phone", metavar="NUMBER", help="Show a code to type on the phone of this number, instead of a QR code."
)
@click.option("--new-number", is_flag=True, help="Allow another number than the device had before.")
@click.option(
    "--timeout",
    type=ReadBy(LIMITS),
    default="3m",
    show_default=True,
    metavar="DURATION",
    help="Time to link the phone.",
)
@json_option("Print an object per line as things happen, for a front end.")
@config_option
def pair(*, device_id: str, phone: str | None, new_number: bool, timeout: float, as_json: bool, config: Config) -> None:
    """Link a phone to a device.

    By a QR code, or with --phone by a code that is typed on the phone. Works while shardd runs. A device keeps its number, unless
    --new-number is given.

    The events of --json are qr (code), code (code), scanned (number), and at the end paired (session, number; with a reason,
    messages to the device may be lost), failed or timeout (reason), or given_up. Exit codes: 0 paired; 75 no phone was
    linked; 130 given up.
    """
    number = None if phone is None else _number(phone, config)
    try:
        with open_view(device_id, as_json=as_json, patience=format_duration(timeout)) as view:
            pairing = Pairing(view, device_id, number=number, new_number=new_number, timeout=timeout)
            asyncio.run(pairing.run(config))
    except asyncio.CancelledError:
        say("given up; nothing has changed", err=True)
        raise click.exceptions.Exit(GIVEN_UP) from None
    if not as_json:
        say(f"device {device_id} is paired with +{pairing.number}")
        for remark in pairing.remarks:
            say(remark)


class Pairing:
    """One attempt to pair one device."""

    def __init__(self, view: View, device_id: str, *, number: str | None, new_number: bool, timeout: float) -> None:
        """`number`: pair with it by a typed code. `timeout`: seconds to link the phone."""
        self.remarks: list[str] = []
        """What to report at the end."""
        self.number = number
        self._view = view
        self._device_id = device_id
        self._by_code = number is not None
        self._new_number = new_number
        self._timeout = timeout
        self._linked = False

    async def run(self, config: Config) -> None:
        """Pair. Raises SharddError, or CancelledError when it is given up."""
        task = asyncio.current_task()
        assert task is not None
        _on_signals(lambda: self._give_up(task), self._view)
        try:
            async with (
                open_session_context(config) as context,
                context.sessions.hold_pairing(self._device_id, patience=self._timeout + LOCK_GRACE) as ours,
            ):
                if not ours:
                    raise PairingError(f"device {self._device_id} is being paired by another process right now")
                await self._pair(context)
        except asyncio.CancelledError:
            self._view.show(PairingEvent("given_up"))
            raise
        except SharddError as error:
            if not isinstance(error, _TimedOutError):
                self._view.show(PairingEvent("failed", reason=str(error)))
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
                "remove the linked device shardd on the phone, then pair again"
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
        """The only number that may be linked, if it is known. Raises UsageError when the wanted one cannot be linked."""
        before = number_of(device.session) if device.session and not self._new_number else None
        if before and self.number and before != self.number:
            raise UsageError(
                f"device {device.id} had the number +{before}, not +{self.number}; "
                "to give it another number, add --new-number"
            )
        if self.number and (holder := await context.sessions.number_holder(self.number, but=device.id)):
            raise UsageError(f"+{self.number} is the number of device {holder}: two devices cannot share one")
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
                        raise PairingError(
                            f"device {device.id} is not paired: {event.reason}{self._hint(expected, event)}"
                        )
                    case "timeout":
                        self._view.show(event)
                        raise _TimedOutError(f"device {device.id} is not paired: {event.reason}")
                    case "scanned":
                        self._linked = True
                self._show(event)
        raise PairingError(f"device {device.id} is not paired: the pairing ended without an outcome")

    def _hint(self, expected: str | None, event: PairingEvent) -> str:
        wrong = expected is not None and f"not +{expected}" in str(event.reason)
        return "; to give the device another number, add --new-number" if wrong and not self._by_code else ""

    async def _undo(self, context: SessionContext, device: DeviceRow, paired: PairingEvent) -> None:
        """Unlink a session that cannot become the device's. Raises PairingError."""
        holder = await context.sessions.number_holder(str(paired.number), but=device.id)
        why = (
            f"+{paired.number} is the number of device {holder}, and two devices cannot share one"
            if holder
            else "it was changed or removed meanwhile"
        )
        undone = await self._unlink(context, device, str(paired.jid))
        raise PairingError(f"device {device.id} is not paired: {why}{'' if undone is None else f'; {undone}'}")

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
            if not self._linked:
                raise

    def _give_up(self, task: asyncio.Task[None]) -> None:
        if self._linked:
            self._view.note("the phone is already linked: finishing…")
        else:
            task.cancel()


class _TimedOutError(PairingError):
    """No phone was linked in time."""


def _on_signals(give_up: Callable[[], None], view: View) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, give_up)
    if isinstance(view, ScreenView):
        loop.add_signal_handler(signal.SIGWINCH, view.draw)


def _number(phone: str, config: Config) -> str:
    try:
        number = parse_recipient(phone, config.transports.whatsapp.default_region).number
    except PermanentError as error:
        if "@" not in phone:
            raise UsageError(f"--phone: {str(error).removeprefix('recipient ')}") from None
        number = None
    if number is None:
        raise UsageError(f"--phone: {phone} is not a phone number; write it as +6281234567890")
    return number
