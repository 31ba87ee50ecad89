"""`shardd device take-over` and `shardd device logout`: a device's session, after another client used it, and at its end."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from shardd.cli.names import confirm, device_ids
from shardd.cli.options import config_option
from shardd.cli.output import say
from shardd.cli.sessions import SessionContext, open_session_context
from shardd.config import Config
from shardd.errors import DatabaseError, PairingError, SharddError, UsageError
from shardd.queue.sessions import number_of
from shardd.states import DEVICE_REMEDY, DeviceState
from shardd.transports.whatsapp.linking.unlinking import forget_session, unlink

LOCK_PATIENCE: Final = 600.0
"""Seconds for which a logout keeps a pairing away; each of its steps has a shorter deadline."""

_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command("take-over")
@click.argument("device_id", metavar="ID")
@_yes
@config_option
def take_over(device_id: str, yes: bool, config: Config) -> None:
    """Let the device ID send again that another client replaced.

    WhatsApp keeps one connection per session: the last one that comes ends the other. So first find the other program that
    uses this session (an older gateway, or a shardd on another database with a copy of it) and stop it for good; else the two
    replace each other for ever.
    """
    (device_id,) = device_ids([device_id])
    asyncio.run(_take_over(config, device_id, yes=yes))
    say(f"device {device_id} is ready; if it is replaced again, the other client still runs")


async def _take_over(config: Config, device_id: str, *, yes: bool) -> None:
    async with open_session_context(config) as context:
        device = await context.whatsapp_device(device_id)
        if device.state != DeviceState.REPLACED:
            remedy = DEVICE_REMEDY[DeviceState(device.state)].format(id=device_id)
            raise UsageError(f"device {device_id} is not replaced but {device.state}: {remedy}")
        confirm(f"Is the other client that used +{number_of(device.session or '')} stopped for good?", yes=yes)
        if not await context.sessions.take_over(device_id):
            raise UsageError(f"device {device_id} is not replaced any more; see: shardd device show {device_id}")


@click.command("logout")
@click.argument("device_id", metavar="ID")
@click.option("--forget", is_flag=True, help="Only forget the session here; the phone goes on listing it as linked.")
@_yes
@config_option
def logout(device_id: str, forget: bool, yes: bool, config: Config) -> None:
    """End the session of the device ID: the phone no longer lists it, and the device becomes unpaired.

    Works while shardd runs. Its jobs stay, and wait for a new pairing.
    """
    (device_id,) = device_ids([device_id])
    done = asyncio.run(_logout(config, device_id, forget=forget, yes=yes))
    say(f"{done}; pair it again: shardd device pair {device_id}")


async def _logout(config: Config, device_id: str, *, forget: bool, yes: bool) -> str:
    async with open_session_context(config) as context:
        device = await context.whatsapp_device(device_id)
        if device.session is None:
            raise UsageError(f"device {device_id} has no session: there is nothing to log out")
        number = number_of(device.session)
        confirm(f"End the session of +{number} on device {device_id}?", yes=yes)
        async with context.sessions.hold_pairing(device_id, patience=LOCK_PATIENCE) as ours:
            if not ours:
                raise PairingError(f"device {device_id} is being paired by somebody else right now")
            if not await context.sessions.unbind(device_id, device.session, "logged out by an operator"):
                raise UsageError(f"device {device_id} was changed meanwhile; see: shardd device show {device_id}")
            try:
                await _end(context, device_id, device.session, device.proxy, forget=forget)
            except BaseException as error:
                # Also when the person gives up: what is not over stays as it was.
                await context.sessions.restore(device)
                if isinstance(error, SharddError) and not isinstance(error, DatabaseError) and not forget:
                    raise SharddError(f"{error}; or forget it here only: --forget") from error
                raise
    if forget:
        return f"device {device_id} has forgotten +{number}; remove it on the phone too, under Linked devices"
    return f"device {device_id} is logged out of +{number}"


async def _end(context: SessionContext, device_id: str, session: str, proxy: str | None, *, forget: bool) -> None:
    await context.close_client(device_id)
    if forget:
        await forget_session(context.store, session)
        return
    own_or_usual = proxy or context.config.transports.whatsapp.proxy
    await unlink(context.store, session, pgbouncer=context.pgbouncer, proxy=own_or_usual)
