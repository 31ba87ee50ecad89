"""`shardd device pair`: link a phone on the terminal; see `shardd.pairing`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import click

from shardd.cli.acts import acts, under_way
from shardd.cli.device.pair_screen import ScreenView, View, open_view
from shardd.cli.device.session import open_session_context
from shardd.cli.help import examples
from shardd.cli.names import id_argument
from shardd.cli.options import ReadBy, config_option, json_option
from shardd.cli.output import say
from shardd.config import Config
from shardd.config.values import Seconds, format_duration
from shardd.errors import SharddError, UsageError
from shardd.pairing.attempt import Attempt, failure_of, read_number
from shardd.pairing.context import SessionContext
from shardd.transports.whatsapp.linking.pairing import TIMEOUT

LIMITS: Final = Seconds("1s", format_duration(TIMEOUT))
"""Of the time to link the phone; after it WhatsApp has no more codes."""
GIVEN_UP: Final = 130
"""Exit code after ^C."""


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
@acts("pair")
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
            attempt = Attempt(view, device_id, number=number, new_number=new_number, timeout=timeout)
            asyncio.run(_run(attempt, view, _recorded(config, device_id)))
    except asyncio.CancelledError:
        say("given up; nothing has changed", err=True)
        raise click.exceptions.Exit(GIVEN_UP) from None
    if not as_json:
        say(f"device {device_id} is paired with +{attempt.number}")
        for remark in attempt.remarks:
            say(remark)


async def _run(attempt: Attempt, view: View, opening: AbstractAsyncContextManager[SessionContext]) -> None:
    """Raises SharddError, or CancelledError when it is given up."""
    task = asyncio.current_task()
    assert task is not None

    def give_up() -> None:
        if attempt.linked:
            view.note("the phone is already linked: finishing…")
        else:
            task.cancel()

    _on_signals(give_up, view)
    await attempt.run(opening)


@asynccontextmanager
async def _recorded(config: Config, device_id: str) -> AsyncGenerator[SessionContext]:
    """Both databases, while the pairing is recorded as under way; why it failed without the numbers of phones."""
    async with (
        open_session_context(config) as context,
        under_way(context.database, config, f"device {device_id}") as here,
    ):
        try:
            yield context
        except SharddError as error:
            here.result = f"not paired: {failure_of(error).value.replace('_', ' ')}"
            raise


def _on_signals(give_up: Callable[[], None], view: View) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, give_up)
    if isinstance(view, ScreenView):
        loop.add_signal_handler(signal.SIGWINCH, view.draw)


def _number(phone: str, config: Config) -> str:
    try:
        return read_number(phone, config.transports.whatsapp.default_region)
    except UsageError as error:
        raise UsageError(f"--phone: {error}") from None
